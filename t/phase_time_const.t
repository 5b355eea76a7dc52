# ngx.get_phase, the time, the constants, ngx.config, and what `require` finds.

use strict;
use warnings;

use lib 't/lib';
use Backend;
use Test::Nginx::Socket 'no_plan';

run_tests();

__DATA__

=== the phase
--- http_config
    init_by_lua_block {
        print("Lua runs in ", ngx.get_phase())
    }
    init_worker_by_lua_block {
        print("Lua runs in ", ngx.get_phase())
    }
--- balancer
    print("Lua runs in ", ngx.get_phase())
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- grep_error_log eval
qr/Lua runs in \w+/
--- grep_error_log_out
Lua runs in init
Lua runs in init_worker
Lua runs in balancer



=== the time is the clock's
--- balancer
    local time, now = ngx.time(), ngx.now()
    assert(type(time) == "number" and time % 1 == 0)
    assert(math.abs(time - os.time()) <= 2)
    assert(math.floor(now) == time)
    assert(now * 1000 % 1 < 0.01 or now * 1000 % 1 > 0.99, "milliseconds")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1



=== the time stands still until it is asked for anew
--- balancer
    local function busy()
        local until_ = os.clock() + 0.03
        while os.clock() < until_ do end
    end
    ngx.update_time()
    local before = ngx.now()
    busy()
    assert(ngx.now() == before, "it moved by itself")
    ngx.update_time()
    local passed = ngx.now() - before
    assert(passed >= 0.02 and passed < 10, passed)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1



=== the time in init and init_worker
--- http_config
    init_by_lua_block {
        in_init = ngx.time()
        ngx.update_time()
    }
    init_worker_by_lua_block {
        in_worker = ngx.now()
    }
--- balancer
    assert(math.abs(os.time() - in_init) < 10)
    assert(math.abs(os.time() - in_worker) < 10)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1



=== constants
--- balancer
    local expected = {
        OK = 0, ERROR = -1, AGAIN = -2, DONE = -4, DECLINED = -5,
        STDERR = 0, EMERG = 1, ALERT = 2, CRIT = 3, ERR = 4, WARN = 5, NOTICE = 6, INFO = 7,
        DEBUG = 8,
        HTTP_GET = 2, HTTP_HEAD = 4, HTTP_POST = 8, HTTP_PUT = 16, HTTP_DELETE = 32,
        HTTP_MKCOL = 64, HTTP_COPY = 128, HTTP_MOVE = 256, HTTP_OPTIONS = 512,
        HTTP_PROPFIND = 1024, HTTP_PROPPATCH = 2048, HTTP_LOCK = 4096, HTTP_UNLOCK = 8192,
        HTTP_PATCH = 16384, HTTP_TRACE = 32768,
        HTTP_CONTINUE = 100, HTTP_SWITCHING_PROTOCOLS = 101, HTTP_OK = 200, HTTP_CREATED = 201,
        HTTP_ACCEPTED = 202, HTTP_NO_CONTENT = 204, HTTP_PARTIAL_CONTENT = 206,
        HTTP_SPECIAL_RESPONSE = 300, HTTP_MOVED_PERMANENTLY = 301, HTTP_MOVED_TEMPORARILY = 302,
        HTTP_SEE_OTHER = 303, HTTP_NOT_MODIFIED = 304, HTTP_TEMPORARY_REDIRECT = 307,
        HTTP_PERMANENT_REDIRECT = 308, HTTP_BAD_REQUEST = 400, HTTP_UNAUTHORIZED = 401,
        HTTP_PAYMENT_REQUIRED = 402, HTTP_FORBIDDEN = 403, HTTP_NOT_FOUND = 404,
        HTTP_NOT_ALLOWED = 405, HTTP_NOT_ACCEPTABLE = 406, HTTP_REQUEST_TIMEOUT = 408,
        HTTP_CONFLICT = 409, HTTP_GONE = 410, HTTP_UPGRADE_REQUIRED = 426,
        HTTP_TOO_MANY_REQUESTS = 429, HTTP_CLOSE = 444, HTTP_ILLEGAL = 451,
        HTTP_INTERNAL_SERVER_ERROR = 500, HTTP_METHOD_NOT_IMPLEMENTED = 501,
        HTTP_BAD_GATEWAY = 502, HTTP_SERVICE_UNAVAILABLE = 503, HTTP_GATEWAY_TIMEOUT = 504,
        HTTP_VERSION_NOT_SUPPORTED = 505, HTTP_INSUFFICIENT_STORAGE = 507,
    }
    for name, value in pairs(expected) do
        assert(ngx[name] == value, name)
    end
    assert(tostring(ngx.null) == "userdata: NULL", tostring(ngx.null))
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1



=== ngx.config
--- balancer
    local c = ngx.config
    assert(c.subsystem == "http")
    assert(type(c.debug) == "boolean")
    assert(type(c.ngx_lua_version) == "number")
    assert(c.prefix() == "$TEST_NGINX_SERVROOT/", c.prefix())
    local major, minor, patch = ngx.var.nginx_version:match("(%d+)%.(%d+)%.(%d+)")
    assert(c.nginx_version == major * 1000000 + minor * 1000 + patch, c.nginx_version)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1



=== what require finds without anything installed
--- http_config
    lua_package_path "/nowhere/?.lua";
--- balancer
    for _, name in ipairs { "ngx", "ngx.balancer", "resty.core", "resty.core.base", "resty.core.ctx",
                            "resty.core.var", "ffi", "bit", "table.new", "table.clear" } do
        assert(require(name), name)
    end
    assert(require "ngx.balancer" == package.loaded["ngx.balancer"])
    local base = require "resty.core.base"
    assert(type(base.get_request()) == "cdata")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1

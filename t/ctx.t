# ngx.ctx: a table of the request's own.

use strict;
use warnings;

use lib 't/lib';
use Backend;
use Test::Nginx::Socket 'no_plan';

run_tests();

__DATA__

=== a request has a table of its own, which is empty
--- balancer
    assert(type(ngx.ctx) == "table")
    assert(next(ngx.ctx) == nil)
    ngx.ctx.mark = ngx.var.arg_n
    assert(ngx.ctx.mark == ngx.var.arg_n)
    assert(ngx.ctx == ngx.ctx)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- request eval
[map "GET /t?n=$_", 1 .. 5]
--- response_body eval
[("peer 1\n") x 5]
--- no_error_log
[error]



=== it lives through the tries of the request
The first try goes to where nobody listens.
--- upstream
    server 0.0.0.1;
    server 0.0.0.1;
    balancer_by_lua_block {
        local ctx = ngx.ctx
        ctx.tries = (ctx.tries or 0) + 1
        ngx.var.tries = ctx.tries
        local ports = { $TEST_NGINX_P9, $TEST_NGINX_P2 }
        require("ngx.balancer").set_current_peer("127.0.0.1", ports[ctx.tries])
    }
--- config
    location /t {
        set $tries "";
        add_header X-Tries $tries;
        add_header X-Addr $upstream_addr;
        proxy_pass http://backend;
    }
--- response_body
peer 2
--- response_headers eval
["X-Tries: 2\nX-Addr: 127.0.0.1:$ENV{TEST_NGINX_P9}, 127.0.0.1:$ENV{TEST_NGINX_P2}"]



=== another table can take its place
--- balancer
    local first = ngx.ctx
    first.a = 1
    ngx.ctx = { b = 2 }
    assert(ngx.ctx ~= first)
    assert(ngx.ctx.a == nil and ngx.ctx.b == 2)
    ngx.ctx = first
    assert(ngx.ctx == first)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1



=== the first use may be to set it
--- balancer
    ngx.ctx = { b = 2 }
    assert(ngx.ctx.b == 2)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- request eval
["GET /t", "GET /t"]
--- response_body eval
["peer 1\n", "peer 1\n"]



=== only a table can be it
--- balancer
    for _, value in ipairs { 1, "x", true, print } do
        local ok, err = pcall(function() ngx.ctx = value end)
        assert(not ok and err == "balancer_by_lua(nginx.conf:26):3: ctx should be a table while getting a "
            .. type(value), err)
    end
    local ok, err = pcall(function() ngx.ctx = nil end)
    assert(not ok and err:find("ctx should be a table while getting a nil", 1, true), err)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1



=== a subrequest has its own
--- http_config
    upstream auth {
        balancer_by_lua_block {
            assert(next(ngx.ctx) == nil)
            ngx.ctx.mark = "auth"
            require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
        }
    }
--- balancer
    assert(next(ngx.ctx) == nil)
    ngx.ctx.mark = "main"
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P2)
--- config
    location /t {
        auth_request /auth;
        proxy_pass http://backend;
    }
    location = /auth { proxy_pass http://auth; }
--- request eval
["GET /t", "GET /t"]
--- response_body eval
["peer 2\n", "peer 2\n"]
--- no_error_log
[error]



=== an internal redirect begins with an empty one
nginx forgets what modules keep for a request then; both tables go when the request ends.
--- http_config
    upstream second {
        balancer_by_lua_block {
            assert(next(ngx.ctx) == nil)
            ngx.ctx.mark = "second"
            ngx.var.used = #debug.getregistry().ngx_lua_ctx_tables
            require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P2)
        }
    }
--- balancer
    assert(next(ngx.ctx) == nil)
    ngx.ctx.mark = "first"
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P9)
--- config
    set $used "";
    location /t {
        error_page 502 = /second;
        proxy_pass http://backend;
    }
    location /second {
        add_header X-Used $used;
        proxy_pass http://second;
    }
--- request eval
[("GET /t") x 4]
--- response_body eval
[("peer 2\n") x 4]
--- response_headers eval
[("X-Used: 2") x 4]



=== it goes with its request
--- balancer
    local tables = debug.getregistry().ngx_lua_ctx_tables
    ngx.ctx.big = ("x"):rep(1000)
    local used = 0
    for number, value in pairs(tables) do
        if type(value) == "table" then
            used = used + 1
        end
    end
    ngx.var.used = used .. " of " .. #tables
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- config
    location /t {
        set $used "";
        add_header X-Used $used;
        proxy_pass http://backend;
    }
--- request eval
[("GET /t") x 6]
--- response_headers eval
[("X-Used: 1 of 1") x 6]



=== other fields of ngx can be made
--- balancer
    ngx.mine = 1
    assert(ngx.mine == 1)
    assert(rawget(ngx, "mine") == 1)
    assert(ngx.no_such_field == nil)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1



=== there is none without a request
--- http_config
    init_by_lua_block {
        local _, err = pcall(function() return ngx.ctx end)
        print("in init: ", err)
    }
    init_worker_by_lua_block {
        local _, err = pcall(function() ngx.ctx = {} end)
        print("in init_worker: ", err)
    }
--- balancer
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- grep_error_log eval
qr/in \w+: .*/
--- grep_error_log_out
in init: init_by_lua(nginx.conf:25):2: no request found
in init_worker: init_worker_by_lua(nginx.conf:29):2: no request found

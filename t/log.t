# print and ngx.log: levels, arguments, and the line that comes of them.

use strict;
use warnings;

use lib 't/lib';
use Backend;
use Test::Nginx::Socket 'no_plan';

log_level('debug');

run_tests();

__DATA__

=== a line has the place in front and the request behind
--- balancer
    ngx.log(ngx.ERR, "hello ", "there")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- request
GET /t?a=b
--- response_body
peer 1
--- error_log eval
qr{\[error\] \d+#\d+: \*\d+ \[lua\] balancer_by_lua\(nginx\.conf:26\):2: hello there while connecting to upstream, client: 127\.0\.0\.1, server: localhost, request: "GET /t\?a=b HTTP/1\.1", host: "localhost"$}m



=== every level
--- balancer
    for _, name in ipairs { "EMERG", "ALERT", "CRIT", "ERR", "WARN", "NOTICE", "INFO", "DEBUG" } do
        ngx.log(ngx[name], "as ", name)
    end
    print("as print")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- grep_error_log eval
qr/\[\w+\](?= \d+#\d+: \*\d+ \[lua\])/
--- grep_error_log_out
[emerg]
[alert]
[crit]
[error]
[warn]
[notice]
[info]
[debug]
[notice]
--- error_log
:3: as EMERG
:3: as ALERT
:3: as CRIT
:3: as ERR
:3: as WARN
:3: as NOTICE
:3: as INFO
:3: as DEBUG
:5: as print
[emerg]
[alert]
[crit]



=== STDERR is written whatever error_log says
--- http_config
    error_log $TEST_NGINX_SERVROOT/logs/error.log emerg;
--- balancer
    ngx.log(ngx.STDERR, "must be seen")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- error_log
[lua] balancer_by_lua(nginx.conf:27):2: must be seen



=== a level that error_log does not want costs not even the text
--- http_config
    error_log $TEST_NGINX_SERVROOT/logs/error.log error;
--- balancer
    local asked = 0
    local value = setmetatable({}, { __tostring = function() asked = asked + 1 return "value" end })
    ngx.log(ngx.WARN, "not this: ", value)
    print("nor this: ", value)
    ngx.log(ngx.ERR, "but this: ", value)
    ngx.log(ngx.ERR, "asked ", asked)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- error_log
but this: value
asked 1
--- no_error_log
not this
nor this



=== arguments of every type that has a text
--- balancer
    local t = setmetatable({}, { __tostring = function() return "a table" end })
    ngx.log(ngx.WARN, "[", nil, "|", true, "|", false, "|", 42, "|", -1.5, "|", 2^53, "|", "", "|", t,
            "|", ngx.null, "]")
    print("[", nil, "|", true, "|", t, "|", nil, "]", nil)
    print()
    print(nil)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- error_log
:3: [nil|true|false|42|-1.5|9.007199254741e+15||a table|null]
:5: [nil|true|a table|nil]nil while
:6:  while
:7: nil while



=== arguments that have none are errors, which name them
--- upstream
    server 127.0.0.1:$TEST_NGINX_P1;
    balancer_by_lua_block {
        local cases = {
            log_table = { ngx.log, ngx.ERR, "a", {} },
            log_meta = { ngx.log, ngx.ERR, "a", setmetatable({}, {}) },
            log_function = { ngx.log, ngx.ERR, "a", print },
            log_userdata = { ngx.log, ngx.ERR, newproxy() },
            log_thread = { ngx.log, ngx.ERR, coroutine.create(print) },
            log_level_nil = { ngx.log },
            log_level_text = { ngx.log, "x", "a" },
            log_level_high = { ngx.log, 9, "a" },
            log_level_low = { ngx.log, -1, "a" },
            log_level_half = { ngx.log, 4.5, "a" },
            print_table = { print, {} },
            print_function = { print, "a", "b", print },
        }
        local case = cases[ngx.var.arg_case]
        local ok, err = pcall(function()
            case[1](unpack(case, 2, 4))
        end)
        ngx.var.result = tostring(ok) .. " " .. tostring(err)
    }
--- config
    location /t {
        set $result "";
        add_header X-Result $result;
        proxy_pass http://backend;
    }
--- request eval
[map "GET /t?case=$_", qw(log_table log_meta log_function log_userdata log_thread log_level_nil
    log_level_text log_level_high log_level_low log_level_half print_table print_function)]
--- raw_response_headers_like eval
[map "X-Result: false balancer_by_lua\\(nginx\\.conf:27\\):18: bad argument $_\r\n",
    qr/#3 to 'log' \(expected table to have __tostring metamethod\)/,
    qr/#3 to 'log' \(expected table to have __tostring metamethod\)/,
    qr/#3 to 'log' \(string, number, boolean, or nil expected, got function\)/,
    qr/#2 to 'log' \(string, number, boolean, or nil expected, got userdata\)/,
    qr/#2 to 'log' \(string, number, boolean, or nil expected, got thread\)/,
    qr/#1 to 'log' \(number expected, got no value\)/,
    qr/#1 to 'log' \(number expected, got string\)/,
    qr/#1 to 'log' \(bad log level: 9\)/,
    qr/#1 to 'log' \(bad log level: -1\)/,
    qr/#1 to 'log' \(number expected, got number\)/,
    qr/#1 to 'print' \(expected table to have __tostring metamethod\)/,
    qr/#3 to 'print' \(string, number, boolean, or nil expected, got function\)/]



=== a text longer than nginx's line is cut, and the request still named
--- balancer
    ngx.log(ngx.ERR, "begin ", ("x"):rep(5000), " end")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- error_log eval
qr{\[lua\] balancer_by_lua\(nginx\.conf:26\):2: begin x{1000,}.*while connecting to upstream, client: 127\.0\.0\.1, server: localhost, request: "GET /t HTTP/1\.1", host: "localhost"$}m
--- no_error_log
x end



=== a text that fits is whole
--- balancer
    ngx.log(ngx.ERR, "begin ", ("x"):rep(1000), " end")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- error_log eval
qr{begin x{1000} end while connecting to upstream, client: 127\.0\.0\.1}



=== bytes that mean something elsewhere
--- balancer
    ngx.log(ngx.ERR, "100% %s %V {} é")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- error_log
:2: 100% %s %V {} é while



=== the function that logs is named
--- balancer
    local function choose()
        ngx.log(ngx.ERR, "choosing")
        print("chosen")
        return $TEST_NGINX_P1
    end
    local port = choose()
    require("ngx.balancer").set_current_peer("127.0.0.1", port)
--- response_body
peer 1
--- error_log
[lua] balancer_by_lua(nginx.conf:26):3: choose(): choosing
[lua] balancer_by_lua(nginx.conf:26):4: choose(): chosen



=== a subrequest is named in its own lines
--- http_config
    upstream auth {
        balancer_by_lua_block {
            print("asked for ", ngx.var.uri)
            require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
        }
    }
--- config
    location /t {
        auth_request /auth;
        proxy_pass http://127.0.0.1:$TEST_NGINX_P2;
    }
    location /auth {
        proxy_pass http://auth;
    }
--- response_body
peer 2
--- error_log eval
qr{asked for /auth while connecting to upstream, client: 127\.0\.0\.1, server: localhost, request: "GET /t HTTP/1\.1", subrequest: "/auth", host: "localhost"}

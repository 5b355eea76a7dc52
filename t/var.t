# ngx.var: variables of the request, read and written by the balancer.

use strict;
use warnings;

use lib 't/lib';
use Backend;
use Test::Nginx::Socket 'no_plan';

run_tests();

__DATA__

=== what nginx knows of the request is read
--- balancer
    local v = ngx.var
    v.seen = table.concat({ v.uri, v.args, v.arg_user, v.request_method, v.http_x_header,
        v.remote_addr, v.server_port, v.cookie_id, v.host, v.request_length > "0" and "some" or "none" }, " ")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- config
    location /t {
        set $seen "";
        add_header X-Seen $seen;
        proxy_pass http://backend;
    }
--- request
GET /t/x?user=u1&b=c
--- more_headers
X-Header: of mine
Cookie: id=crumb
--- response_headers eval
"X-Seen: /t/x user=u1&b=c u1 GET of mine 127.0.0.1 $ENV{TEST_NGINX_SERVER_PORT} crumb localhost some"



=== a variable of the configuration decides
--- http_config
    map $arg_user $port {
        ~^a $TEST_NGINX_P1;
        ~^b $TEST_NGINX_P2;
        default $TEST_NGINX_P3;
    }
--- balancer
    require("ngx.balancer").set_current_peer("127.0.0.1", ngx.var.port)
--- request eval
["GET /t?user=anna", "GET /t?user=bert", "GET /t"]
--- response_body eval
["peer 1\n", "peer 2\n", "peer 3\n"]



=== what is not there is nil
--- balancer
    assert(ngx.var.no_such_variable == nil)
    assert(ngx.var.arg_missing == nil)
    assert(ngx.var.http_x_missing == nil)
    assert(ngx.var.empty == "")
    assert(ngx.var[1] == nil)
    assert(ngx.var[-1] == nil)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- config
    location /t {
        set $empty "";
        proxy_pass http://backend;
    }
--- response_body
peer 1



=== names are looked up without regard to case
--- balancer
    assert(ngx.var.URI == "/t")
    assert(ngx.var.Mine == "x")
    ngx.var.MINE = "y"
    assert(ngx.var.mine == "y")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- config
    location /t {
        set $mine "x";
        proxy_pass http://backend;
    }
--- response_body
peer 1



=== captures of the location
--- balancer
    assert(ngx.var[0] == "/t/b/7", ngx.var[0])
    assert(ngx.var[1] == "b")
    assert(ngx.var[2] == "7")
    assert(ngx.var[3] == nil)
    assert(ngx.var.name == "b")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- config
    location ~ ^/t/(?<name>\w)/(\d) {
        proxy_pass http://backend;
    }
--- request
GET /t/b/7
--- response_body
peer 1



=== what is written arrives in the response and in the log
--- balancer
    ngx.var.text = "from Lua"
    ngx.var.number = 42
    ngx.var.gone = nil
    assert(ngx.var.text == "from Lua")
    assert(ngx.var.number == "42")
    assert(ngx.var.gone == nil)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- http_config
    log_format mine '[$text] [$number] [$gone]';
--- config
    location /t {
        set $text "";
        set $number "";
        set $gone "was there";
        add_header X-Text $text;
        add_header X-Number $number;
        add_header X-Gone $gone;
        access_log $TEST_NGINX_SERVROOT/logs/access.log mine;
        proxy_pass http://backend;
    }
--- response_headers
X-Text: from Lua
X-Number: 42
! X-Gone
--- access_log
[from Lua] [42] [-]



=== bytes of every kind
--- balancer
    ngx.var.text = "a\0b\255 %s $uri " .. ("x"):rep(5000)
    assert(#ngx.var.text == 13 + 5000)
    assert(ngx.var.text:sub(1, 4) == "a\0b\255")
    ngx.var.text = ""
    assert(ngx.var.text == "")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- config
    location /t {
        set $text "";
        proxy_pass http://backend;
    }
--- response_body
peer 1



=== a variable with a handler of its own is written: limit_rate and args
--- balancer
    ngx.var.args = "b=2"
    assert(ngx.var.arg_b == "2")
    ngx.var.limit_rate = "1000k"
    assert(ngx.var.limit_rate == "1024000")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- request
GET /t?a=1
--- response_body
peer 1



=== what cannot be written says so
--- upstream
    server 127.0.0.1:$TEST_NGINX_P1;
    balancer_by_lua_block {
        local cases = {
            unknown = function() ngx.var.no_such = "x" end,
            header = function() ngx.var.http_x_a = "x" end,
            read_only = function() ngx.var.remote_addr = "x" end,
            capture = function() ngx.var[1] = "x" end,
            table_value = function() ngx.var.mine = {} end,
            bool_value = function() ngx.var.mine = true end,
            table_name = function() return ngx.var[{}] end,
        }
        local ok, err = pcall(cases[ngx.var.arg_case])
        ngx.var.result = tostring(ok) .. " " .. err
    }
--- config
    location /t {
        set $mine "";
        set $result "";
        add_header X-Result $result;
        proxy_pass http://backend;
    }
--- request eval
[map "GET /t?case=$_", qw(unknown header read_only capture table_value bool_value table_name)]
--- response_headers eval
my @where = map "X-Result: false balancer_by_lua(nginx.conf:27):$_: ", 0 .. 9;
["$where[3]variable \"no_such\" not found for writing; maybe it is a built-in variable that is not changeable or you forgot to use \"set \$no_such '';\" in the config file to define it first",
 "$where[4]variable \"http_x_a\" not found for writing; maybe it is a built-in variable that is not changeable or you forgot to use \"set \$http_x_a '';\" in the config file to define it first",
 "$where[5]variable \"remote_addr\" not changeable",
 "$where[6]bad variable name",
 "$where[7]bad argument #3 to 'variable assignment' (string, number, or nil expected, got table)",
 "$where[8]bad argument #3 to 'variable assignment' (string, number, or nil expected, got boolean)",
 "$where[9]bad variable name"]



=== the value that proxy_set_header sends was set before the balancer runs
Only what nginx evaluates later sees what the balancer writes.
--- balancer
    ngx.var.late = "written"
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P4)
--- http_config
    server {
        listen 127.0.0.1:$TEST_NGINX_P4;
        location / { return 200 "sent: $http_x_late\n"; }
    }
--- config
    location /t {
        set $late "early";
        proxy_set_header X-Late $late;
        add_header X-Late $late;
        proxy_pass http://backend;
    }
--- response_body
sent: early
--- response_headers
X-Late: written



=== there is no request in init and init_worker
--- http_config
    init_by_lua_block {
        local _, err = pcall(function() return ngx.var.uri end)
        print("init reads: ", err)
        local _, err = pcall(function() ngx.var.x = 1 end)
        print("init writes: ", err)
    }
    init_worker_by_lua_block {
        local _, err = pcall(function() return ngx.var.uri end)
        print("init_worker reads: ", err)
    }
--- balancer
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- grep_error_log eval
qr/\w+ (reads|writes): .*/
--- grep_error_log_out
init reads: init_by_lua(nginx.conf:25):2: no request found
init writes: init_by_lua(nginx.conf:25):4: no request found
init_worker reads: init_worker_by_lua(nginx.conf:31):2: no request found

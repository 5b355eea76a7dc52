# The names of chunks, in messages and tracebacks: they lead to the line of the file.

use strict;
use warnings;

use lib 't/lib';
use Backend;
use Test::Nginx::Socket 'no_plan';

run_tests();

__DATA__

=== an inline block is named by its file and the line of its brace
The message's own number counts from there: line 29 is line 1.
--- http_config
# line 25
#
upstream backend {
    server 0.0.0.1;
    balancer_by_lua_block {
        print("who am I")
        require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    }
}
--- response_body
peer 1
--- error_log
[lua] balancer_by_lua(nginx.conf:29):2: who am I



=== a traceback has it on every line
--- balancer
    local function third() error("it broke") end
    local function second()
        third()
        return 1
    end
    second()
--- error_code: 500
--- error_log eval
[qr/failed to run balancer_by_lua\*: balancer_by_lua\(nginx\.conf:26\):2: it broke$/m,
 qr/^stack traceback:$/m,
 qr/^\t\[C\]: in function 'error'$/m,
 qr/^\tbalancer_by_lua\(nginx\.conf:26\):2: in \w+ 'third'$/m,
 qr/^\tbalancer_by_lua\(nginx\.conf:26\):4: in \w+ 'second'$/m,
 qr/^\tbalancer_by_lua\(nginx\.conf:26\):7: in function <balancer_by_lua\(nginx\.conf:26\):1>/m]



=== two blocks, two names
--- http_config
upstream one {
    balancer_by_lua_block { print("this is one") require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1) }
}
upstream two {
    balancer_by_lua_block {
        print("this is two")
        require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P2)
    }
}
--- config
    location /one { proxy_pass http://one; }
    location /t { auth_request /one; proxy_pass http://two; }
--- response_body
peer 2
--- error_log
[lua] balancer_by_lua(nginx.conf:26):1: this is one
[lua] balancer_by_lua(nginx.conf:29):2: this is two



=== init and init_worker
--- http_config
init_by_lua_block {
    print("in init")
}
init_worker_by_lua_block {
    print("in init_worker")
}
--- balancer
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- grep_error_log eval
qr/\[lua\] init\S+ in \w+/
--- grep_error_log_out
[lua] init_by_lua(nginx.conf:25):2: in init
[lua] init_worker_by_lua(nginx.conf:28):2: in init_worker



=== a file is named by its name
Log lines have it without the folder, a traceback with it.
--- user_files
>>> balance.lua
print("from a file")
require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
if ngx.var.arg_fail then
    local t = nil + 1
end
--- upstream
    balancer_by_lua_file html/balance.lua;
--- request eval
["GET /t", "GET /t?fail=1"]
--- error_code eval
[200, 500]
--- error_log
[lua] balance.lua:1: from a file



=== the traceback of a file
--- user_files
>>> balance.lua
local function fail()
    error("it broke")
end
fail()
--- upstream
    balancer_by_lua_file html/balance.lua;
--- error_code: 500
--- error_log eval
[qr{failed to run balancer_by_lua\*: (?:\.\.\.)?\S*/html/balance\.lua:2: it broke$}m,
 qr{^\t(?:\.\.\.)?\S*/html/balance\.lua:2: in \w+ 'fail'$}m,
 qr{^\t(?:\.\.\.)?\S*/html/balance\.lua:4: in function <}m]



=== a required module is named by its own file
--- user_files
>>> part.lua
return function(...)
    print("from a module: ", ...)
end
--- http_config
    lua_package_path "$prefix/html/?.lua;;";
--- balancer
    require "part" ("and its argument")
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- error_log
[lua] part.lua:2: from a module: and its argument



=== debug.getinfo tells the same name
--- balancer
    local info = debug.getinfo(1, "Sl")
    print(info.source, " ", info.short_src, " ", info.currentline)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- error_log
:3: =balancer_by_lua(nginx.conf:26) balancer_by_lua(nginx.conf:26) 2

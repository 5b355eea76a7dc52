# Global variables: a warning for each that a request makes, and what lives as long as the worker.

use strict;
use warnings;

use lib 't/lib';
use Backend;
use Test::Nginx::Socket 'no_plan';

# The log is looked at after each request: what comes once must stay the only one.
check_accum_error_log();

run_tests();

__DATA__

=== a warning names the variable and the line, once
--- http_config
    init_by_lua_block {
        declared = 1
    }
--- balancer
    declared = declared + 1
    local name = "unseen"

    race = (race or 0) + 1
    ngx.var.race = race .. " " .. declared
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- config
    location /t {
        set $race "";
        add_header X-Race $race;
        proxy_pass http://backend;
    }
--- request eval
[("GET /t") x 3]
--- response_headers eval
["X-Race: 1 2", "X-Race: 2 3", "X-Race: 3 4"]
--- grep_error_log eval
qr/\[warn\].*/
--- grep_error_log_out eval
qr/\A\[warn\] \S+ \*\d+ \[lua\] balancer_by_lua\(nginx\.conf:29\):5: writing a global Lua variable \('race'\) which may lead to race conditions between concurrent requests, so prefer the use of 'local' variables$
\z/m



=== the stack of who wrote it follows
--- balancer
    local function outer()
        local function inner()
            race = 1
        end
        inner()
        return 1
    end
    outer()
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- error_log eval
[qr/\[lua\] balancer_by_lua\(nginx\.conf:26\):4: inner\(\): writing a global Lua variable \('race'\)/,
 qr/^stack traceback:$/m,
 qr/^\tbalancer_by_lua\(nginx\.conf:26\):4: in \w+ 'inner'$/m,
 qr/^\tbalancer_by_lua\(nginx\.conf:26\):6: in \w+ 'outer'$/m]



=== a name that comes and goes
--- balancer
    race = 1
    race = nil
    race = 2
    race = nil
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- request eval
[("GET /t") x 2]
--- response_body eval
[("peer 1\n") x 2]
--- grep_error_log: writing a global Lua variable
--- grep_error_log_out
writing a global Lua variable



=== a name of another kind
--- balancer
    _G[17] = true
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- error_log
:2: writing a global Lua variable ('17')



=== a global that C code writes for Lua code
--- user_files
>>> old.lua
module("old", package.seeall)
function port() return $TEST_NGINX_P2 end
--- http_config
    lua_package_path "$prefix/html/?.lua;;";
--- balancer
    require "old"
    require("ngx.balancer").set_current_peer("127.0.0.1", old.port())
--- response_body
peer 2
--- error_log
[lua] old.lua:1: writing a global Lua variable ('old')



=== reading an undeclared global is nothing to be told
--- balancer
    assert(undeclared == nil)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- no_error_log
[warn]
[error]



=== init and init_worker make globals without a word
--- http_config
    init_by_lua_block {
        from_init = $TEST_NGINX_P1
    }
    init_worker_by_lua_block {
        from_worker = "127.0.0.1"
    }
--- balancer
    require("ngx.balancer").set_current_peer(from_worker, from_init)
--- response_body
peer 1
--- no_error_log
[warn]
[error]



=== a module is loaded once and stays
--- user_files
>>> counter.lua
print("counter is loaded")
local n = 0
return { next = function() n = n + 1 return n end }
--- http_config
    lua_package_path "$prefix/html/?.lua;;";
--- balancer
    local ports = { $TEST_NGINX_P1, $TEST_NGINX_P2, $TEST_NGINX_P3 }
    require("ngx.balancer").set_current_peer("127.0.0.1", ports[require("counter").next()])
--- request eval
[("GET /t") x 3]
--- response_body eval
["peer 1\n", "peer 2\n", "peer 3\n"]
--- grep_error_log: counter is loaded
--- grep_error_log_out
counter is loaded
--- no_error_log
[warn]
[error]

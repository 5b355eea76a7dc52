# What happens when the code sets no peer.

use strict;
use warnings;

use lib 't/lib';
use Backend;
use Test::Nginx::Socket 'no_plan';

log_level('debug');

run_tests();

__DATA__

=== round robin over the server lines
--- upstream
    server 127.0.0.1:$TEST_NGINX_P1;
    server 127.0.0.1:$TEST_NGINX_P2;
    balancer_by_lua_block {
        print("no peer from me")
    }
--- request eval
[("GET /t") x 4]
--- response_body eval
["peer 1\n", "peer 2\n", "peer 1\n", "peer 2\n"]
--- error_log
no peer from me
--- no_error_log
[error]



=== with weights, and not to who is down
--- upstream
    server 127.0.0.1:$TEST_NGINX_P1 weight=2;
    server 127.0.0.1:$TEST_NGINX_P2 down;
    server 127.0.0.1:$TEST_NGINX_P3;
    balancer_by_lua_block { }
--- request eval
[("GET /t") x 6]
--- response_body eval
["peer 1\n", "peer 3\n", "peer 1\n", "peer 1\n", "peer 3\n", "peer 1\n"]
--- no_error_log
[error]



=== on to the next server when one does not answer
--- upstream
    server 127.0.0.1:$TEST_NGINX_P9;
    server 127.0.0.1:$TEST_NGINX_P2;
    balancer_by_lua_block { }
--- config
    location /t {
        add_header X-Addr $upstream_addr;
        proxy_pass http://backend;
    }
--- response_body
peer 2
--- response_headers eval
"X-Addr: 127.0.0.1:$ENV{TEST_NGINX_P9}, 127.0.0.1:$ENV{TEST_NGINX_P2}"



=== the server lines' own bookkeeping goes on: one that failed is left alone
--- upstream
    server 127.0.0.1:$TEST_NGINX_P9 max_fails=1 fail_timeout=60s;
    server 127.0.0.1:$TEST_NGINX_P2;
    balancer_by_lua_block { }
--- config
    location /t {
        add_header X-Addr $upstream_addr;
        proxy_pass http://backend;
    }
--- request eval
[("GET /t") x 3]
--- response_headers eval
["X-Addr: 127.0.0.1:$ENV{TEST_NGINX_P9}, 127.0.0.1:$ENV{TEST_NGINX_P2}",
 ("X-Addr: 127.0.0.1:$ENV{TEST_NGINX_P2}") x 2]



=== Lua for the first try, round robin for the next
--- upstream
    server 127.0.0.1:$TEST_NGINX_P2;
    server 127.0.0.1:$TEST_NGINX_P2;
    balancer_by_lua_block {
        if not ngx.ctx.tried then
            ngx.ctx.tried = true
            require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P9)
        end
    }
--- config
    location /t {
        add_header X-Addr $upstream_addr;
        proxy_pass http://backend;
    }
--- response_body
peer 2
--- response_headers eval
"X-Addr: 127.0.0.1:$ENV{TEST_NGINX_P9}, 127.0.0.1:$ENV{TEST_NGINX_P2}"



=== round robin for the first try, Lua for the next
--- upstream
    server 127.0.0.1:$TEST_NGINX_P9;
    server 127.0.0.1:$TEST_NGINX_P9;
    balancer_by_lua_block {
        if ngx.ctx.tried then
            require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P3)
        end
        ngx.ctx.tried = true
    }
--- config
    location /t {
        add_header X-Addr $upstream_addr;
        proxy_pass http://backend;
    }
--- response_body
peer 3
--- response_headers eval
"X-Addr: 127.0.0.1:$ENV{TEST_NGINX_P9}, 127.0.0.1:$ENV{TEST_NGINX_P3}"



=== a call that failed sets no peer
--- upstream
    server 127.0.0.1:$TEST_NGINX_P3;
    balancer_by_lua_block {
        assert(not require("ngx.balancer").set_current_peer("not an address", 80))
    }
--- response_body
peer 3



=== no server line, no peer
--- balancer
    local nothing
--- error_code: 500
--- error_log eval
qr{\[error\] \d+#\d+: \*\d+ lua balancer: no peer set while connecting to upstream, client: 127\.0\.0\.1, server: localhost, request: "GET /t HTTP/1\.1", host: "localhost"}
--- no_error_log
0.0.0.1



=== the placeholder alone, no peer
--- upstream
    server 0.0.0.1;
    balancer_by_lua_block { }
--- error_code: 500
--- error_log
lua balancer: no peer set
--- no_error_log
connect to 0.0.0.1



=== several placeholders, no peer
--- upstream
    server 0.0.0.1;
    server 0.0.0.1:8080;
    balancer_by_lua_block { }
    server 0.0.0.1;
--- error_code: 500
--- error_log
lua balancer: no peer set
--- no_error_log
connect to 0.0.0.1



=== a placeholder beside servers is not dialled either
--- upstream
    server 0.0.0.1;
    server 127.0.0.1:$TEST_NGINX_P1;
    balancer_by_lua_block { }
--- request eval
[("GET /t") x 4]
--- response_body eval
[("peer 1\n") x 4]
--- no_error_log
connect to 0.0.0.1
[error]



=== server lines that come after the block count
--- upstream
    balancer_by_lua_block { }
    server 127.0.0.1:$TEST_NGINX_P1;
    server 127.0.0.1:$TEST_NGINX_P2;
--- request eval
[("GET /t") x 4]
--- response_body eval
["peer 1\n", "peer 2\n", "peer 1\n", "peer 2\n"]
--- no_error_log
connect to 0.0.0.1
[error]



=== parameters of server lines, also behind the block
--- upstream
    balancer_by_lua_block { }
    server 127.0.0.1:$TEST_NGINX_P9 max_fails=1 fail_timeout=60s;
    server 127.0.0.1:$TEST_NGINX_P1 max_conns=100 weight=3;
    server 127.0.0.1:$TEST_NGINX_P2 backup;
--- request eval
[("GET /t") x 4]
--- response_body eval
[("peer 1\n") x 4]



=== the backup server, when the others are dead
--- upstream
    balancer_by_lua_block { }
    server 127.0.0.1:$TEST_NGINX_P9;
    server 127.0.0.1:$TEST_NGINX_P2 backup;
--- request eval
[("GET /t") x 2]
--- response_body eval
[("peer 2\n") x 2]



=== a shared zone
--- upstream
    zone backend 64k;
    server 127.0.0.1:$TEST_NGINX_P1;
    server 127.0.0.1:$TEST_NGINX_P2;
    balancer_by_lua_block {
        if ngx.var.arg_lua then
            require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P3)
        end
    }
--- request eval
["GET /t", "GET /t?lua=1", "GET /t", "GET /t?lua=1", "GET /t"]
--- response_body eval
["peer 1\n", "peer 3\n", "peer 2\n", "peer 3\n", "peer 1\n"]
--- no_error_log
[error]



=== a shared zone with the placeholder alone
--- upstream
    zone backend 64k;
    balancer_by_lua_block {
        if ngx.var.arg_lua then
            require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P3)
        end
    }
--- request eval
["GET /t?lua=1", "GET /t", "GET /t?lua=1"]
--- error_code eval
[200, 500, 200]
--- no_error_log
connect to 0.0.0.1



=== the method of another directive, with and without Lua's choice
--- upstream
    hash $arg_key consistent;
    server 127.0.0.1:$TEST_NGINX_P1;
    server 127.0.0.1:$TEST_NGINX_P1;
    balancer_by_lua_block {
        if ngx.var.arg_lua then
            require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P3)
        end
    }
--- request eval
["GET /t?key=a", "GET /t?lua=1", "GET /t?key=b"]
--- response_body eval
["peer 1\n", "peer 3\n", "peer 1\n"]
--- no_error_log
[error]



=== several upstreams without server lines: each notices
--- http_config
    upstream one { balancer_by_lua_block { } }
    upstream two { server 0.0.0.1; balancer_by_lua_block { } keepalive 4; }
    upstream three { balancer_by_lua_block { } }
    upstream four {
        balancer_by_lua_block { require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P2) }
    }
--- config
    location /one { proxy_pass http://one; }
    location /two { proxy_pass http://two; }
    location /three { proxy_pass http://three; }
    location /four { proxy_pass http://four; }
--- request eval
["GET /one", "GET /two", "GET /three", "GET /one"]
--- error_code eval
[500, 500, 500, 500]
--- error_log
lua balancer: no peer set
--- no_error_log
connect to 0.0.0.1



=== each upstream has its own code
--- http_config
    upstream one {
        balancer_by_lua_block { require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1) }
    }
    upstream two {
        balancer_by_lua_block { require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P2) }
    }
    upstream plain { server 127.0.0.1:$TEST_NGINX_P3; }
--- config
    location /one { proxy_pass http://one; }
    location /two { proxy_pass http://two; }
    location /plain { proxy_pass http://plain; }
    location /direct { proxy_pass http://127.0.0.1:$TEST_NGINX_P3; }
--- request eval
["GET /one", "GET /two", "GET /plain", "GET /direct", "GET /two", "GET /one"]
--- response_body eval
["peer 1\n", "peer 2\n", "peer 3\n", "peer 3\n", "peer 2\n", "peer 1\n"]
--- no_error_log
[error]



=== the answer is a page of the location's own
--- balancer
    local nothing
--- config
    location /t {
        error_page 500 = /sorry;
        proxy_pass http://backend;
    }
    location /sorry { return 200 "sorry\n"; }
--- response_body
sorry

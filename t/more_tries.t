# ngx.balancer.set_more_tries: how many tries a request gets, and what bounds them.

use strict;
use warnings;

use lib 't/lib';
use Backend 'fresh';
use Test::Nginx::Socket 'no_plan';

no_long_string();
run_tests();

__DATA__

=== one try is what there is without it
--- balancer
    ngx.var.seen = ngx.var.seen .. "r"
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- request
GET /t?s1=444
--- error_code: 502
--- response_headers
X-Seen: r
X-Addr: 127.0.0.1:$TEST_NGINX_P1
X-Status: 502



=== tries on top, asked for at the first one
--- balancer
    local balancer = require "ngx.balancer"
    local ports = { $TEST_NGINX_P1, $TEST_NGINX_P2, $TEST_NGINX_P3 }
    local n = (ngx.ctx.n or 0) + 1
    ngx.ctx.n = n
    if n == 1 then
        local ok, err = balancer.set_more_tries(2)
        assert(ok == true and err == nil)
    end
    assert(balancer.set_current_peer("127.0.0.1", ports[n]))
--- request eval
["GET /t", "GET /t?s1=444", "GET /t?s1=444&s2=444", "GET /t?s1=444&s2=444&s3=444"]
--- error_code eval
[200, 200, 200, 502]
--- response_body_like eval
["^peer 1\$", "^peer 2\$", "^peer 3\$", "502 Bad Gateway"]
--- response_headers eval
["X-Status: 200", "X-Status: 502, 200", "X-Status: 502, 502, 200", "X-Status: 502, 502, 502"]



=== each retry asks for the next
--- balancer
    local balancer = require "ngx.balancer"
    ngx.ctx.n = (ngx.ctx.n or 0) + 1
    if ngx.ctx.n < tonumber(ngx.var.arg_tries) then
        assert(balancer.set_more_tries(1) == true)
    end
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1))
--- request eval
["GET /t?s1=444&tries=1", "GET /t?s1=444&tries=2", "GET /t?s1=444&tries=7"]
--- error_code eval
[502, 502, 502]
--- response_headers eval
["X-Status: 502", "X-Status: 502, 502", "X-Status: 502" . ", 502" x 6]



=== proxy_next_upstream_tries leaves room for fewer
--- balancer
    local balancer = require "ngx.balancer"
    local ok, err = balancer.set_more_tries(tonumber(ngx.var.arg_more))
    ngx.var.seen = ngx.var.seen .. tostring(ok) .. ":" .. tostring(err) .. ";"
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1))
--- config
    location /t {
        set $seen "";
        add_header X-Seen $seen always;
        add_header X-Status $upstream_status always;
        proxy_next_upstream_tries 3;
        proxy_pass http://backend;
    }
--- request eval
["GET /t?s1=444&more=0", "GET /t?s1=444&more=1", "GET /t?s1=444&more=2", "GET /t?s1=444&more=3",
 "GET /t?s1=444&more=2147483647"]
--- error_code eval
[(502) x 5]
--- response_headers eval
["X-Seen: true:nil;\nX-Status: 502",
 "X-Seen: true:nil;true:nil;true:reduced tries due to limit;\nX-Status: 502, 502, 502",
 "X-Seen: true:nil;true:reduced tries due to limit;true:reduced tries due to limit;\n"
    . "X-Status: 502, 502, 502",
 ("X-Seen: " . "true:reduced tries due to limit;" x 3 . "\nX-Status: 502, 502, 502") x 2]



=== a limit of one leaves no room at all
--- balancer
    local balancer = require "ngx.balancer"
    local ok, err = balancer.set_more_tries(1)
    ngx.var.seen = ngx.var.seen .. tostring(ok) .. ":" .. tostring(err) .. ";"
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1))
--- config
    location /t {
        set $seen "";
        add_header X-Seen $seen always;
        add_header X-Status $upstream_status always;
        proxy_next_upstream_tries 1;
        proxy_pass http://backend;
    }
--- request
GET /t?s1=444
--- error_code: 502
--- response_headers
X-Seen: true:reduced tries due to limit;
X-Status: 502



=== the last call of a run counts
--- balancer
    local balancer = require "ngx.balancer"
    if not ngx.ctx.again then
        ngx.ctx.again = true
        assert(balancer.set_more_tries(5))
        assert(balancer.set_more_tries(1))
    end
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1))
--- request
GET /t?s1=444
--- error_code: 502
--- response_headers
X-Status: 502, 502



=== on top of the tries that the server lines give
--- upstream
    server 127.0.0.1:$TEST_NGINX_P1;
    server 127.0.0.1:$TEST_NGINX_P2;
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        if not ngx.ctx.again then
            ngx.ctx.again = true
            assert(balancer.set_more_tries(tonumber(ngx.var.arg_more)))
        end
        assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P3))
    }
--- request eval
["GET /t?s3=444&more=0", "GET /t?s3=444&more=1"]
--- error_code eval
[502, 502]
--- response_headers eval
["X-Status: 502, 502", "X-Status: 502, 502, 502"]



=== a status that proxy_next_upstream does not name ends the request
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_more_tries(1)
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1))
--- request
GET /t?s1=503
--- error_code: 503
--- response_body
peer 1 says 503
--- response_headers
X-Status: 503



=== a POST is sent once
--- balancer
    local balancer = require "ngx.balancer"
    if not ngx.ctx.again then
        ngx.ctx.again = true
        balancer.set_more_tries(1)
    end
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1))
--- request
POST /t?s1=444
body
--- error_code: 502
--- response_headers
X-Status: 502



=== a POST is sent again where nginx is told to
--- balancer
    local balancer = require "ngx.balancer"
    if not ngx.ctx.again then
        ngx.ctx.again = true
        balancer.set_more_tries(1)
    end
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1))
--- config
    location /t {
        add_header X-Status $upstream_status always;
        proxy_next_upstream error non_idempotent;
        proxy_pass http://backend;
    }
--- request
POST /t?s1=444
body
--- error_code: 502
--- response_headers
X-Status: 502, 502



=== proxy_next_upstream_timeout ends the tries
Each try takes 150 ms: after the first the 100 ms are over, and 10 s never are.
--- balancer
    local balancer = require "ngx.balancer"
    if not ngx.ctx.again then
        ngx.ctx.again = true
        balancer.set_more_tries(2)
    end
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P5))
--- config
    proxy_read_timeout 150ms;
    location /t/short {
        add_header X-Status $upstream_status always;
        proxy_next_upstream_timeout 100ms;
        proxy_pass http://backend;
    }
    location /t/long {
        add_header X-Status $upstream_status always;
        proxy_next_upstream_timeout 10s;
        proxy_pass http://backend;
    }
--- request eval
["GET /t/short", "GET /t/long"]
--- error_code eval
[504, 504]
--- response_headers eval
["X-Status: 504", "X-Status: 504, 504, 504"]



=== many tries
--- balancer
    local balancer = require "ngx.balancer"
    if not ngx.ctx.again then
        ngx.ctx.again = true
        assert(balancer.set_more_tries(99))
    end
    ngx.ctx.n = (ngx.ctx.n or 0) + 1
    ngx.var.seen = ngx.ctx.n
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P4))
--- error_code: 502
--- response_headers
X-Seen: 100



=== what is no number of tries
--- balancer
    local balancer = require "ngx.balancer"
    local seen = {}
    for _, count in ipairs { -1, 0.5, 0/0, 1/0, -1/0, 2^31, "2", false, {} } do
        local ok, err = pcall(balancer.set_more_tries, count)
        assert(not ok)
        seen[#seen + 1] = err
    end
    local ok, err = pcall(balancer.set_more_tries)
    assert(not ok)
    seen[#seen + 1] = err
    ngx.var.seen = table.concat(seen, "; ")
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- request
GET /t?s1=444
--- error_code: 502
--- response_headers_like
X-Seen: bad argument #1 to 'set_more_tries' \(integer >= 0 expected, got -1\); .*got 0\.5\); .*got -?nan\); .*got inf\); .*got -inf\); .*got 2147483648\); bad argument #1 to 'set_more_tries' \(number expected, got string\); .*got boolean\); .*got table\); .*got nil\)
X-Status: 502

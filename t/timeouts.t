# ngx.balancer.set_timeouts: which timeout counts, and for whom. None that was set is over early; on a busy machine
# it may be seen late, but not by two seconds: the others are nginx's own minute.

use strict;
use warnings;

use lib 't/lib';
use Backend 'fresh';
use FakePeer;
use Test::Nginx::Socket 'no_plan';

our $full = FakePeer::full($ENV{TEST_NGINX_P6});
our $slow = FakePeer->new($ENV{TEST_NGINX_P7}, sub {
    my ($connection) = @_;
    while ($connection->request) {
        select undef, undef, undef, 0.4;
        $connection->answer("slow\n");
    }
});

no_long_string();
run_tests();

__DATA__

=== connect
--- balancer
    local balancer = require "ngx.balancer"
    local ok, err = balancer.set_timeouts(0.3)
    assert(ok == true and err == nil)
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P6)
--- config
    location /t {
        add_header X-Time $upstream_response_time always;
        proxy_pass http://backend;
    }
--- error_code: 504
--- response_headers_like
X-Time: (?:0\.[3-9]|1\.)\d+
--- error_log
upstream timed out (110: Connection timed out) while connecting to upstream



=== send
The peer takes 4 kB, the kernel some more, and then nobody reads.
--- balancer
    local balancer = require "ngx.balancer"
    assert(balancer.set_timeouts(nil, 0.2, nil))
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P5)
--- config
    location /t {
        client_max_body_size 10m;
        proxy_pass http://backend;
    }
--- request eval
"POST /t\n" . "x" x 9_000_000
--- error_code: 504
--- error_log
upstream timed out (110: Connection timed out) while sending request to upstream



=== read
--- balancer
    local balancer = require "ngx.balancer"
    assert(balancer.set_timeouts(nil, nil, 0.2))
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P5)
--- config
    location /t {
        add_header X-Time $upstream_response_time always;
        proxy_pass http://backend;
    }
--- error_code: 504
--- response_headers_like
X-Time: (?:0\.[2-9]|1\.)\d+
--- error_log
upstream timed out (110: Connection timed out) while reading response header from upstream



=== nil keeps the configured one
--- balancer
    local balancer = require "ngx.balancer"
    if ngx.var.arg_how == "none" then
        assert(balancer.set_timeouts())
    elseif ngx.var.arg_how == "nils" then
        assert(balancer.set_timeouts(nil, nil, nil))
    else
        assert(balancer.set_timeouts(30, 30))
    end
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P5)
--- config
    location /t {
        proxy_read_timeout 100ms;
        proxy_pass http://backend;
    }
--- request eval
["GET /t?how=none", "GET /t?how=nils", "GET /t?how=others"]
--- error_code eval
[504, 504, 504]



=== a longer one than the configured
--- balancer
    local balancer = require "ngx.balancer"
    assert(balancer.set_timeouts(nil, nil, 30))
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P7)
--- config
    location /t {
        proxy_read_timeout 100ms;
        proxy_pass http://backend;
    }
--- response_body
slow



=== a later call adds to what the ones before set
--- balancer
    local balancer = require "ngx.balancer"
    assert(balancer.set_timeouts(nil, nil, 0.1))
    assert(balancer.set_timeouts(10))
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P5)
--- error_code: 504



=== less than a millisecond is a millisecond, not the configured one
--- balancer
    local balancer = require "ngx.balancer"
    assert(balancer.set_timeouts(nil, nil, 0.0001))
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P5)
--- error_code: 504



=== it holds for the retries too
--- balancer
    local balancer = require "ngx.balancer"
    if not ngx.ctx.again then
        ngx.ctx.again = true
        balancer.set_more_tries(2)
        assert(balancer.set_timeouts(nil, nil, 0.1))
    end
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P5)
--- error_code: 504
--- response_headers
X-Status: 504, 504, 504



=== a retry may change it
--- balancer
    local balancer = require "ngx.balancer"
    if not ngx.ctx.again then
        ngx.ctx.again = true
        balancer.set_more_tries(1)
        assert(balancer.set_timeouts(nil, nil, 0.1))
    else
        assert(balancer.set_timeouts(nil, nil, 10))
    end
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P7)
--- response_body
slow
--- response_headers
X-Status: 504, 200



=== the next request has the configured one
--- balancer
    local balancer = require "ngx.balancer"
    if ngx.var.arg_read then
        assert(balancer.set_timeouts(nil, nil, tonumber(ngx.var.arg_read)))
    end
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P7)
--- request eval
["GET /t?read=0.1", "GET /t", "GET /t?read=0.1", "GET /t?read=5"]
--- error_code eval
[504, 200, 504, 200]



=== requests at the same time do not share it
The included requests go on together in one location.
--- balancer
    local balancer = require "ngx.balancer"
    if ngx.var.arg_read then
        assert(balancer.set_timeouts(nil, nil, tonumber(ngx.var.arg_read)))
    end
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P7)
--- config
    location = /page.html {
        ssi on;
        root html;
    }
    location /t {
        proxy_read_timeout 150ms;
        proxy_intercept_errors on;
        error_page 504 = /late;
        proxy_pass http://backend;
    }
    location /late {
        return 200 "late\n";
    }
--- user_files
>>> page.html
<!--# include virtual="/t?read=0.1" --><!--# include virtual="/t?read=5" --><!--# include virtual="/t" --><!--# include virtual="/t?read=6" -->
--- request
GET /page.html
--- response_body eval
"late\nslow\nlate\nslow\n\n"



=== with the peer that round robin chose
--- upstream
    server 127.0.0.1:$TEST_NGINX_P5;
    balancer_by_lua_block {
        assert(require("ngx.balancer").set_timeouts(nil, nil, 0.1))
    }
--- error_code: 504



=== connections are pooled all the same
--- upstream
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        assert(balancer.set_timeouts(1, 2, ngx.var.arg_read and tonumber(ngx.var.arg_read)))
        balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    }
    keepalive 4;
--- config
    location /t {
        proxy_pass http://backend;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
    }
--- request eval
["GET /t?read=1", "GET /t?read=2", "GET /t"]
--- response_headers eval
["X-Requests: 1", "X-Requests: 2", "X-Requests: 3"]



=== what is no timeout
--- balancer
    local balancer = require "ngx.balancer"
    local seen = {}
    local function try(...)
        local ok, err = pcall(balancer.set_timeouts, ...)
        assert(not ok)
        seen[#seen + 1] = err
    end
    for _, timeout in ipairs { 0, -1, -0.001, 0/0, 1/0, -1/0, 2^31, "1", false, true, {} } do
        try(timeout)
        try(1, timeout)
        try(1, 1, timeout)
    end
    for i = 1, #seen, 3 do
        assert(seen[i] == "bad connect timeout", seen[i])
        assert(seen[i + 1] == "bad send timeout", seen[i + 1])
        assert(seen[i + 2] == "bad read timeout", seen[i + 2])
    end
    -- Nothing of it was kept.
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P7)
    ngx.var.seen = #seen
--- response_headers
X-Seen: 33
--- response_body
slow



=== the error is at the line of the caller
--- balancer
    local balancer = require "ngx.balancer"

    balancer.set_timeouts(-1)
--- error_code: 500
--- error_log eval
qr/failed to run balancer_by_lua\*: balancer_by_lua\(nginx\.conf:\d+\):4: bad connect timeout/

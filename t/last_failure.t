# ngx.balancer.get_last_failure: how the try before ended, in each way that it can.

use strict;
use warnings;

use lib 't/lib';
use Backend;
use FakePeer;
use Test::Nginx::Socket 'no_plan';

our $full = FakePeer::full($ENV{TEST_NGINX_P6});
our $odd = FakePeer->new($ENV{TEST_NGINX_P8}, sub {
    my ($connection) = @_;
    $connection->request;
    $connection->write("HTTP/1.1 200 OK\r\nX\0: a name with a NUL\r\n\r\n");
});

# The first try goes to the port that the block names in FIRST, all others to peer 3; what each run
# sees is in X-Seen.
add_block_preprocessor(sub {
    my ($block) = @_;
    my $first = $block->first // return;
    chomp $first;
    $first = "\$TEST_NGINX_$first" if $first =~ /^P\d+$/;
    $block->set_value(http_config => ($block->http_config // '') . <<"EOC");
upstream backend {
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        local state, status, err = balancer.get_last_failure()
        ngx.var.seen = ngx.var.seen .. tostring(state) .. ":" .. tostring(status) .. ":"
            .. tostring(err) .. ";"
        if not ngx.ctx.again then
            ngx.ctx.again = true
            balancer.set_more_tries(1)
            assert(balancer.set_current_peer("127.0.0.1", $first))
        else
            assert(balancer.set_current_peer("127.0.0.1", \$TEST_NGINX_P3))
        end
    }
    @{[$block->more // '']}
}
EOC
    $block->set_value(config => <<"EOC") if !defined $block->config;
location /t {
    set \$seen "";
    add_header X-Seen \$seen always;
    add_header X-Status \$upstream_status always;
    @{[$block->settings // '']}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_pass http://backend;
}
EOC
});

no_long_string();
run_tests();

__DATA__

=== nothing on the first try
--- first: P1
--- response_body
peer 1
--- response_headers
X-Seen: nil:nil:nil;



=== nobody listens
--- first: P4
--- response_body
peer 3
--- response_headers
X-Seen: nil:nil:nil;failed:502:nil;
X-Status: 502, 200



=== the connection is closed without an answer
--- first: P1
--- request
GET /t?s1=444
--- response_body
peer 3
--- response_headers
X-Seen: nil:nil:nil;failed:502:nil;



=== an answer with a status
--- first: P1
--- settings
    proxy_next_upstream http_500 http_502 http_503 http_504 http_403 http_404 http_429;
--- request eval
[map "GET /t?s1=$_", 500, 502, 503, 504, 429, 403, 404]
--- response_body eval
[("peer 3\n") x 7]
--- response_headers eval
[(map "X-Seen: nil:nil:nil;failed:$_:nil;\nX-Status: $_, 200", 500, 502, 503, 504, 429),
 (map "X-Seen: nil:nil:nil;next:$_:nil;\nX-Status: $_, 200", 403, 404)]



=== no answer in time
--- first: P5
--- settings
    proxy_next_upstream timeout;
    proxy_read_timeout 100ms;
--- response_body
peer 3
--- response_headers
X-Seen: nil:nil:nil;failed:504:nil;
X-Status: 504, 200



=== no connection in time
--- first: P6
--- settings
    proxy_next_upstream timeout;
    proxy_connect_timeout 100ms;
--- response_body
peer 3
--- response_headers
X-Seen: nil:nil:nil;failed:504:nil;
X-Status: 504, 200



=== an answer that is not HTTP
--- first: P8
--- settings
    proxy_next_upstream invalid_header;
--- response_body
peer 3
--- response_headers
X-Seen: nil:nil:nil;failed:502:nil;



=== a pooled connection that turns out dead
The peer closes its connection when the second request comes over it.
--- first: P1
--- more: keepalive 4;
--- request eval
["GET /t", "GET /t?n1=444"]
--- response_body eval
["peer 1\n", "peer 3\n"]
--- response_headers eval
["X-Seen: nil:nil:nil;", "X-Seen: nil:nil:nil;failed:502:nil;\nX-Status: 502, 200"]



=== a TLS handshake with a peer that speaks none
Peer 3 does not either: the second try fails in the same way, and its failure is the client's.
--- first: P1
--- config
    location /t {
        set $seen "";
        add_header X-Seen $seen always;
        add_header X-Status $upstream_status always;
        proxy_pass https://backend;
    }
--- error_code: 502
--- response_headers
X-Seen: nil:nil:nil;failed:502:nil;
X-Status: 502, 502



=== a TLS handshake that is not answered
--- first: P5
--- config
    location /t {
        set $seen "";
        add_header X-Seen $seen always;
        add_header X-Status $upstream_status always;
        proxy_connect_timeout 100ms;
        proxy_pass https://backend;
    }
--- error_code: 502
--- response_headers
X-Seen: nil:nil:nil;failed:504:nil;
X-Status: 504, 502



=== ngx.exit(ngx.DECLINED) and ngx.exit(ngx.BUSY)
--- balancer
    local balancer = require "ngx.balancer"
    local state, status = balancer.get_last_failure()
    ngx.var.seen = ngx.var.seen .. tostring(state) .. ":" .. tostring(status) .. ";"
    if not state then
        balancer.set_more_tries(2)
        return ngx.exit(ngx.DECLINED)
    end
    if not ngx.ctx.again then
        ngx.ctx.again = true
        return ngx.exit(ngx.BUSY)
    end
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- response_headers
X-Seen: nil:nil;failed:502;failed:502;
X-Status: 502, 502, 200



=== each retry sees the try before it, not the first
--- balancer
    local balancer = require "ngx.balancer"
    local state, status = balancer.get_last_failure()
    ngx.var.seen = ngx.var.seen .. tostring(state) .. ":" .. tostring(status) .. ";"
    ngx.ctx.n = (ngx.ctx.n or 0) + 1
    if ngx.ctx.n == 1 then
        balancer.set_more_tries(3)
    end
    local ports = { $TEST_NGINX_P1, $TEST_NGINX_P2, $TEST_NGINX_P4, $TEST_NGINX_P3 }
    balancer.set_current_peer("127.0.0.1", ports[ngx.ctx.n])
--- config
    location /t {
        set $seen "";
        add_header X-Seen $seen always;
        proxy_next_upstream error http_404 http_503;
        proxy_pass http://backend;
    }
--- request
GET /t?s1=503&s2=404
--- response_body
peer 3
--- response_headers
X-Seen: nil:nil;failed:503;next:404;failed:502;



=== a try that round robin made
--- upstream
    server 127.0.0.1:$TEST_NGINX_P1;
    server 127.0.0.1:$TEST_NGINX_P1;
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        local state, status = balancer.get_last_failure()
        ngx.var.seen = ngx.var.seen .. tostring(state) .. ":" .. tostring(status) .. ";"
        if state then
            balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P2)
        end
    }
--- request
GET /t?s1=444
--- response_body
peer 2
--- response_headers
X-Seen: nil:nil;failed:502;



=== a request that went through another upstream before
error_page starts a new upstream: its first try knows of no failure.
--- balancer
    local balancer = require "ngx.balancer"
    local state, status = balancer.get_last_failure()
    ngx.var.seen = ngx.var.seen .. tostring(state) .. ":" .. tostring(status) .. ";"
    balancer.set_current_peer("127.0.0.1", ngx.var.uri == "/t" and $TEST_NGINX_P4 or $TEST_NGINX_P2)
--- config
    set $seen "";
    location /t {
        error_page 502 = /other;
        proxy_pass http://backend;
    }
    location /other {
        add_header X-Seen $seen always;
        add_header X-Status $upstream_status always;
        proxy_pass http://backend;
    }
--- response_body
peer 2
--- response_headers
X-Seen: nil:nil;
X-Status: 502 : 200

# ngx.balancer.bind_to_local_addr: where the peer sees the connection come from.

use strict;
use warnings;

use lib 't/lib';
use Backend 'fresh';
use Test::Nginx::Socket 'no_plan';

no_long_string();
run_tests();

__DATA__

=== an address
--- balancer
    local balancer = require "ngx.balancer"
    local ok, err = balancer.bind_to_local_addr(ngx.var.arg_from)
    assert(ok == true and err == nil, err)
    balancer.set_current_peer(ngx.var.arg_to or "127.0.0.1", $TEST_NGINX_P1)
--- request eval
["GET /t?from=127.0.0.2", "GET /t?from=127.1.2.3", "GET /t?from=[::1]&to=[::1]",
 "GET /t?from=::1&to=::1"]
--- response_headers eval
["X-From: 127.0.0.2", "X-From: 127.1.2.3", "X-From: ::1", "X-From: ::1"]



=== an address and a port
--- balancer
    local balancer = require "ngx.balancer"
    assert(balancer.bind_to_local_addr("127.0.0.2:$TEST_NGINX_P20"))
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_headers
X-From: 127.0.0.2
X-From-Port: $TEST_NGINX_P20



=== before or after the peer is set
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    assert(balancer.bind_to_local_addr("127.0.0.2"))
--- response_headers
X-From: 127.0.0.2



=== the last call counts
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    assert(balancer.bind_to_local_addr("127.0.0.2"))
    assert(balancer.bind_to_local_addr("127.0.0.3"))
    assert(not balancer.bind_to_local_addr("127.0.0.4x"))
--- response_headers
X-From: 127.0.0.3



=== it holds for the retries, until one sets another
--- balancer
    local balancer = require "ngx.balancer"
    ngx.ctx.n = (ngx.ctx.n or 0) + 1
    if ngx.ctx.n == 1 then
        balancer.set_more_tries(3)
        assert(balancer.bind_to_local_addr("127.0.0.2"))
    elseif ngx.var.arg_other then
        assert(balancer.bind_to_local_addr("127.0.0.3"))
    end
    local ports = { $TEST_NGINX_P1, $TEST_NGINX_P4, $TEST_NGINX_P3 }
    balancer.set_current_peer("127.0.0.1", ports[ngx.ctx.n])
--- request eval
["GET /t?s1=444", "GET /t?s1=444&other=1"]
--- response_body eval
["peer 3\n", "peer 3\n"]
--- response_headers eval
["X-From: 127.0.0.2", "X-From: 127.0.0.3"]



=== the next request is not bound
--- balancer
    local balancer = require "ngx.balancer"
    if ngx.var.arg_from then
        assert(balancer.bind_to_local_addr(ngx.var.arg_from))
    end
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- request eval
["GET /t?from=127.0.0.2", "GET /t"]
--- response_headers eval
["X-From: 127.0.0.2", "X-From: 127.0.0.1"]



=== it wins over proxy_bind
--- balancer
    local balancer = require "ngx.balancer"
    if ngx.var.arg_from then
        assert(balancer.bind_to_local_addr(ngx.var.arg_from))
    end
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- config
    location /t {
        proxy_bind 127.0.0.9;
        proxy_pass http://backend;
    }
--- request eval
["GET /t?from=127.0.0.2", "GET /t"]
--- response_headers eval
["X-From: 127.0.0.2", "X-From: 127.0.0.9"]



=== with the peer that round robin chose
--- upstream
    server 127.0.0.1:$TEST_NGINX_P2;
    balancer_by_lua_block {
        assert(require("ngx.balancer").bind_to_local_addr("127.0.0.2"))
    }
--- response_body
peer 2
--- response_headers
X-From: 127.0.0.2



=== an address that is not this machine's
--- balancer
    local balancer = require "ngx.balancer"
    assert(balancer.bind_to_local_addr("192.0.2.1"))
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- error_code: 500
--- error_log
bind(192.0.2.1) failed



=== what is no address
--- balancer
    local balancer = require "ngx.balancer"
    for _, addr in ipairs { "", " ", "localhost", "127.0.0", "127.0.0.256", "127.0.0.1:65536",
                            "127.0.0.1:x", "127.0.0.1:", "[::1", "unix:/tmp/x", "127.0.0.1\0",
                            ("1"):rep(10000) } do
        local ok, err = balancer.bind_to_local_addr(addr)
        assert(ok == nil and err == ("invalid addr " .. addr):sub(1, 256), err)
    end
    for _, addr in ipairs { 1, 0/0, false, true, {}, print } do
        local ok, err = pcall(balancer.bind_to_local_addr, addr)
        assert(not ok and err == "bad argument #1 to 'bind_to_local_addr' (string expected, got "
                                 .. type(addr) .. ")", err)
    end
    local ok, err = pcall(balancer.bind_to_local_addr)
    assert(not ok and err:find("bad argument #1 to 'bind_to_local_addr'", 1, true), err)
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_headers
X-From: 127.0.0.1

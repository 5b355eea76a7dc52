# ngx.balancer.enable_keepalive: its arguments, its limits, and the variables that tell of it.

use strict;
use warnings;

use lib 't/lib';
use Backend;
use Test::Nginx::Socket 'no_plan';

# X-Requests is how many requests the connection has carried, as its peer counts them. X-Idle is
# what is idle besides the connection of the request that asks.
add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(config => <<'EOC') if !defined $block->config;
    location /t {
        set $seen "";
        add_header X-Seen $seen always;
        add_header X-Addr $upstream_addr always;
        add_header X-Idle $balancer_keepalive_idle always;
        add_header X-Reused $balancer_connection_reused always;
        proxy_pass http://backend;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
    }
EOC
});

no_long_string();
run_tests();

__DATA__

=== a connection is kept
--- balancer
    local balancer = require "ngx.balancer"
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1))
    local ok, err = balancer.enable_keepalive()
    assert(ok == true and err == nil, err)
--- request eval
[("GET /t") x 4]
--- response_headers eval
[map "X-Requests: $_\nX-Reused: " . ($_ > 1 ? 1 : 0) . "\nX-Idle: 0", 1 .. 4]
--- no_error_log
[error]



=== one for each peer
--- balancer
    local balancer = require "ngx.balancer"
    local ports = { $TEST_NGINX_P1, $TEST_NGINX_P2, $TEST_NGINX_P3 }
    balancer.set_current_peer("127.0.0.1", ports[tonumber(ngx.var.arg_peer)])
    balancer.enable_keepalive()
--- request eval
[map "GET /t?peer=$_", 1, 2, 3, 1, 2, 3, 3, 1]
--- response_body eval
[map "peer $_\n", 1, 2, 3, 1, 2, 3, 3, 1]
--- response_headers eval
["X-Requests: 1\nX-Idle: 0", "X-Requests: 1\nX-Idle: 1", "X-Requests: 1\nX-Idle: 2",
 "X-Requests: 2\nX-Idle: 2", "X-Requests: 2\nX-Idle: 2", "X-Requests: 2\nX-Idle: 2",
 "X-Requests: 3\nX-Idle: 2", "X-Requests: 3\nX-Idle: 2"]



=== by default for a hundred requests
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    balancer.enable_keepalive()
--- request eval
[("GET /t") x 202]
--- response_headers eval
[map "X-Requests: $_", 1 .. 100, 1 .. 100, 1, 2]



=== nil is the default
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    balancer.enable_keepalive(nil, nil, nil)
--- request eval
[("GET /t") x 102]
--- response_headers eval
[map "X-Requests: $_", 1 .. 100, 1, 2]



=== max_requests
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    assert(balancer.enable_keepalive(60, 3))
--- request eval
[("GET /t") x 7]
--- response_headers eval
[map "X-Requests: $_", 1, 2, 3, 1, 2, 3, 1]



=== max_requests of one: never used again
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    assert(balancer.enable_keepalive(60, 1))
--- request eval
[("GET /t") x 3]
--- response_headers eval
[("X-Requests: 1\nX-Reused: 0\nX-Idle: 0") x 3]



=== max_requests of 0 is no limit
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    assert(balancer.enable_keepalive(60, 0))
--- request eval
[("GET /t") x 130]
--- response_headers eval
[map "X-Requests: $_", 1 .. 130]



=== less than one request is not "no limit"
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    assert(balancer.enable_keepalive(60, 0.5))
--- request eval
[("GET /t") x 3]
--- response_headers eval
[("X-Requests: 1\nX-Idle: 0") x 3]



=== another limit with each request
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    assert(balancer.enable_keepalive(60, tonumber(ngx.var.arg_max)))
--- request eval
[map "GET /t?max=$_", 5, 5, 3, 5, 5, 2, 5]
--- response_headers eval
[map "X-Requests: $_", 1, 2, 3, 1, 2, 3, 1]



=== without a peer
--- balancer
    local balancer = require "ngx.balancer"
    local ok, err = balancer.enable_keepalive()
    ngx.var.seen = tostring(ok) .. " " .. tostring(err)
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_headers
X-Seen: nil no current peer set



=== without a peer, and round robin chooses
--- upstream
    server 127.0.0.1:$TEST_NGINX_P1;
    balancer_by_lua_block {
        local ok, err = require("ngx.balancer").enable_keepalive(60, 10)
        ngx.var.seen = tostring(ok) .. " " .. tostring(err)
    }
--- request eval
[("GET /t") x 2]
--- response_headers eval
[("X-Seen: nil no current peer set\nX-Idle: 0") x 2]



=== outside the balancer
--- http_config
init_worker_by_lua_block {
    local ok, err = require("ngx.balancer").enable_keepalive()
    print("in a worker: ", ok, " ", err)
}
--- balancer
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- log_level: info
--- response_body
peer 1
--- error_log
in a worker: nil API disabled in the current context



=== what is no number
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    for _, value in ipairs { "60", true, {}, print } do
        for n = 1, 3 do
            local args = { 1, 1, 1 }
            args[n] = value
            local ok, err = pcall(balancer.enable_keepalive, unpack(args))
            assert(not ok and err == "bad argument #" .. n .. " to 'enable_keepalive' "
                                     .. "(number expected, got " .. type(value) .. ")", err)
        end
    end
--- request eval
[("GET /t") x 2]
--- response_headers eval
[("X-Idle: 0") x 2]
--- no_error_log
[error]



=== what is a number, and no limit
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    for value, why in pairs { [-1] = "expected >= 0", [-0.001] = "expected >= 0",
                              [-1/0] = "expected >= 0", [1/0] = "expected <= 2147483647",
                              [2^31] = "expected <= 2147483647", nan = "expected >= 0" } do
        value = value == "nan" and 0/0 or value
        for n = 1, 3 do
            local args = { 1, 1, 1 }
            args[n] = value
            local ok, err = pcall(balancer.enable_keepalive, unpack(args))
            assert(not ok and err == "bad argument #" .. n .. " to 'enable_keepalive' ("
                                     .. why .. ")", err)
        end
    end
    assert(balancer.enable_keepalive(2147483647, 2147483647, 2147483647))
--- request eval
[("GET /t") x 2]
--- response_headers eval
["X-Requests: 1", "X-Requests: 2"]
--- no_error_log
[error]



=== an error names the caller's line
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    balancer.enable_keepalive("60")
--- error_code: 500
--- error_log eval
qr/failed to run balancer_by_lua\*: balancer_by_lua\(nginx\.conf:\d+\):4: bad argument #1 to 'enable_keepalive' \(number expected, got string\)/



=== it is to be called for each try
--- balancer
    local balancer = require "ngx.balancer"
    ngx.ctx.n = (ngx.ctx.n or 0) + 1
    if ngx.var.arg_look then
        balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P3)
    elseif ngx.ctx.n == 1 then
        balancer.set_more_tries(1)
        balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P4)
        balancer.enable_keepalive()
    else
        balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P2)
        if ngx.var.arg_again then
            balancer.enable_keepalive()
        end
    end
--- request eval
["GET /t", "GET /t?look=1", "GET /t?again=1", "GET /t?look=1"]
--- response_body eval
["peer 2\n", "peer 3\n", "peer 2\n", "peer 3\n"]
--- response_headers eval
["X-Idle: 0", "X-Idle: 0", "X-Idle: 0", "X-Idle: 1"]



=== the next request has to call it too
--- balancer
    local balancer = require "ngx.balancer"
    local port = ngx.var.arg_look and $TEST_NGINX_P3 or $TEST_NGINX_P1
    balancer.set_current_peer("127.0.0.1", port)
    if ngx.var.arg_keep then
        balancer.enable_keepalive()
    end
--- request eval
["GET /t?keep=1", "GET /t?keep=1", "GET /t?look=1", "GET /t", "GET /t?look=1", "GET /t?keep=1"]
--- response_headers eval
["X-Requests: 1\nX-Idle: 0", "X-Requests: 2\nX-Idle: 0", "X-Idle: 1", "X-Requests: 1\nX-Idle: 1",
 "X-Idle: 1", "X-Requests: 3\nX-Idle: 0"]



=== with a list of peers
--- balancer
    local balancer = require "ngx.balancer"
    if ngx.var.arg_look then
        balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P3)
    else
        assert(balancer.set_peers { { "127.0.0.1", $TEST_NGINX_P4 },
                                    { "127.0.0.1", $TEST_NGINX_P2 } })
        assert(balancer.enable_keepalive())
    end
--- request eval
["GET /t", "GET /t", "GET /t?look=1"]
--- response_body eval
["peer 2\n", "peer 2\n", "peer 3\n"]
--- response_headers eval
["X-Requests: 1", "X-Requests: 2", "X-Idle: 1"]



=== the last call counts, and so does the last peer
--- balancer
    local balancer = require "ngx.balancer"
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P2)
    assert(balancer.enable_keepalive(60, 1))
    assert(balancer.enable_keepalive(60, 2))
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- request eval
[("GET /t") x 4]
--- response_body eval
[("peer 1\n") x 4]
--- response_headers eval
[map "X-Requests: $_", 1, 2, 1, 2]



=== IPv6 and a unix socket
--- balancer
    local balancer = require "ngx.balancer"
    if ngx.var.arg_unix then
        balancer.set_current_peer("unix:$TEST_NGINX_SERVROOT/peer.sock")
    else
        balancer.set_current_peer("::1", $TEST_NGINX_P2)
    end
    balancer.enable_keepalive()
--- request eval
["GET /t", "GET /t?unix=1", "GET /t", "GET /t?unix=1"]
--- response_headers eval
["X-Requests: 1\nX-Family: ::1", "X-Requests: 1\nX-Family: unix:$ENV{TEST_NGINX_SERVROOT}/peer.sock",
 "X-Requests: 2\nX-Family: ::1", "X-Requests: 2\nX-Family: unix:$ENV{TEST_NGINX_SERVROOT}/peer.sock"]



=== the name of a pool has to be a string, and its size a number
--- balancer
    local balancer = require "ngx.balancer"
    local function fails(options, why)
        local ok, err = pcall(balancer.set_current_peer, "127.0.0.1", $TEST_NGINX_P1, options)
        assert(not ok and err == "bad argument #3 to 'set_current_peer' (" .. why .. ")", err)
    end
    fails({ pool = 1 }, "pool: string expected, got number")
    fails({ pool = true }, "pool: string expected, got boolean")
    fails({ host = 1 }, "host: string expected, got number")
    fails({ pool = "x", pool_size = "2" }, "pool_size: number expected, got string")
    fails({ pool = "x", pool_size = 0 }, "pool_size: integer >= 1 expected, got 0")
    fails({ pool = "x", pool_size = -1 }, "pool_size: integer >= 1 expected, got -1")
    fails({ pool = "x", pool_size = 1.5 }, "pool_size: integer >= 1 expected, got 1.5")
    fails({ pool = "x", pool_size = 2^31 }, "pool_size: integer >= 1 expected, got 2147483648")
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1, {}))
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1,
                                     { host = "a", pool = "x", pool_size = 2 }))
--- no_error_log
[error]



=== a pool of the name of the last call
--- balancer
    local balancer = require "ngx.balancer"
    if not ngx.var.arg_plain then
        balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1, { pool = "x" })
    end
    if not ngx.var.arg_named then
        balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
    end
    balancer.enable_keepalive()
--- request eval
["GET /t?plain=1", "GET /t?named=1", "GET /t", "GET /t?named=1", "GET /t?plain=1"]
--- response_headers eval
["X-Requests: 1\nX-Idle: 0", "X-Requests: 1\nX-Idle: 1", "X-Requests: 2\nX-Idle: 1",
 "X-Requests: 2\nX-Idle: 1", "X-Requests: 3\nX-Idle: 1"]



=== the variables without a balancer
--- http_config
log_format vars '[$balancer_connection_reused $balancer_keepalive_idle]';
--- config
    location /t {
        add_header X-Vars "[$balancer_connection_reused $balancer_keepalive_idle]";
        return 204;
    }
    location /proxy {
        add_header X-Vars "[$balancer_connection_reused $balancer_keepalive_idle]";
        proxy_pass http://127.0.0.1:$TEST_NGINX_P1;
    }
--- request eval
["GET /t", "GET /proxy"]
--- error_code eval
[204, 200]
--- response_headers eval
[("X-Vars: [ ]") x 2]
--- no_error_log
[error]



=== whether the connection was used before, of the last try
--- balancer
    local balancer = require "ngx.balancer"
    ngx.ctx.n = (ngx.ctx.n or 0) + 1
    if ngx.ctx.n == 1 then
        balancer.set_more_tries(1)
        balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1)
        balancer.enable_keepalive()
    else
        balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P2)
        balancer.enable_keepalive(60, 1)
    end
--- config
    location /t {
        add_header X-Reused $balancer_connection_reused always;
        add_header X-Tries $upstream_addr always;
        proxy_next_upstream error http_503;
        proxy_pass http://backend;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
    }
--- request eval
["GET /t", "GET /t", "GET /t?s1=503", "GET /t"]
--- response_body eval
["peer 1\n", "peer 1\n", "peer 2\n", "peer 1\n"]
--- response_headers eval
["X-Reused: 0", "X-Reused: 1", "X-Reused: 0", "X-Reused: 0"]

# ngx.balancer.set_current_peer: the forms of an address, and each way to get it wrong.

use strict;
use warnings;

use lib 't/lib';
use Backend;
use Test::Nginx::Socket 'no_plan';

run_tests();

__DATA__

=== IPv4 address and port
--- balancer
    local balancer = require "ngx.balancer"
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P2) == true)
--- response_body
peer 2
--- response_headers
X-Family: 127.0.0.1
--- no_error_log
[error]



=== every form of an address
--- balancer
    local forms = {
        ip4 = { "127.0.0.1", $TEST_NGINX_P1 },
        ip4_text = { "127.0.0.1", "$TEST_NGINX_P2" },
        ip4_one = { "127.0.0.1:$TEST_NGINX_P3" },
        ip4_nil = { "127.0.0.1:$TEST_NGINX_P3", nil },
        ip6 = { "::1", $TEST_NGINX_P1 },
        ip6_long = { "0:0:0:0:0:0:0:1", "$TEST_NGINX_P1" },
        ip6_brackets = { "[::1]", $TEST_NGINX_P2 },
        ip6_brackets_text = { "[::1]", "$TEST_NGINX_P2" },
        ip6_one = { "[::1]:$TEST_NGINX_P2" },
        unix = { "unix:$TEST_NGINX_SERVROOT/peer.sock" },
        unix_port = { "unix:$TEST_NGINX_SERVROOT/peer.sock", 80 },
    }
    local form = forms[ngx.var.arg_form]
    local ok, err = require("ngx.balancer").set_current_peer(form[1], form[2])
    assert(ok == true, err)
    assert(err == nil)
--- request eval
[map "GET /t?form=$_", qw(ip4 ip4_text ip4_one ip4_nil ip6 ip6_long ip6_brackets ip6_brackets_text
                          ip6_one unix unix_port)]
--- response_body eval
["peer 1\n", "peer 2\n", "peer 3\n", "peer 3\n", "peer 1\n", "peer 1\n", "peer 2\n", "peer 2\n",
 "peer 2\n", ("peer unix:$ENV{TEST_NGINX_SERVROOT}/peer.sock\n") x 2]
--- response_headers eval
[("X-Family: 127.0.0.1") x 4, ("X-Family: ::1") x 5,
 ("X-Family: unix:$ENV{TEST_NGINX_SERVROOT}/peer.sock") x 2]
--- no_error_log
[error]



=== the port of the address wins over the argument
As with nginx's own `server` line, an address that names its port is complete.
--- balancer
    assert(require("ngx.balancer").set_current_peer("127.0.0.1:$TEST_NGINX_P3", $TEST_NGINX_P1))
--- response_body
peer 3



=== $upstream_addr tells the peer
--- balancer
    require("ngx.balancer").set_current_peer(ngx.var.arg_addr, ngx.var.arg_port)
--- config
    location /t {
        add_header X-Addr $upstream_addr;
        proxy_pass http://backend;
    }
--- request eval
["GET /t?addr=127.0.0.1&port=$ENV{TEST_NGINX_P1}", "GET /t?addr=::1&port=$ENV{TEST_NGINX_P1}",
 "GET /t?addr=unix:$ENV{TEST_NGINX_SERVROOT}/peer.sock"]
--- response_headers eval
["X-Addr: 127.0.0.1:$ENV{TEST_NGINX_P1}", "X-Addr: [::1]:$ENV{TEST_NGINX_P1}",
 "X-Addr: unix:$ENV{TEST_NGINX_SERVROOT}/peer.sock"]



=== the last call of a run counts
--- balancer
    local balancer = require "ngx.balancer"
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1))
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P2))
--- response_body
peer 2



=== a call that fails leaves the peer as it was
--- balancer
    local balancer = require "ngx.balancer"
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1))
    assert(not balancer.set_current_peer("", $TEST_NGINX_P2))
--- response_body
peer 1



=== each failure is nil and a reason, and never a peer
--- upstream
    server 127.0.0.1:$TEST_NGINX_P1;    # whose turn it is when Lua has set no peer
    balancer_by_lua_block {
        local cases = {
            empty = { "", 80 },
            spaces = { " ", 80 },
            name = { "localhost", 80 },
            name_only = { "peer.example" },
            name_port = { "localhost:80" },
            half = { "127.0.0", 80 },
            ip4_range = { "127.0.0.256", 80 },
            ip6_bad = { "::g", 80 },
            ip6_open = { "[::1", 80 },
            nul = { "127.0.0.1\0", 80 },
            newline = { "127.0.0.1\n", 80 },
            list = { "127.0.0.1,127.0.0.2", 80 },
            path = { "127.0.0.1/x", 80 },
            scheme = { "http://127.0.0.1", 80 },
            no_port = { "127.0.0.1" },
            no_port_ip6 = { "::1" },
            port_0 = { "127.0.0.1", 0 },
            port_minus = { "127.0.0.1", -1 },
            port_big = { "127.0.0.1", 65536 },
            port_huge = { "127.0.0.1", 2^53 },
            port_wrap = { "127.0.0.1", 4294967296 + 80 },
            port_float = { "127.0.0.1", 80.5 },
            port_nan = { "127.0.0.1", 0/0 },
            port_inf = { "127.0.0.1", 1/0 },
            port_text_0 = { "127.0.0.1", "0" },
            port_text_big = { "127.0.0.1", "65536" },
            port_text_minus = { "127.0.0.1", "-1" },
            port_text_float = { "127.0.0.1", "80.5" },
            port_text_exp = { "127.0.0.1", "8e1" },
            port_text_hex = { "127.0.0.1", "0x50" },
            port_text_space = { "127.0.0.1", " 80" },
            port_text_empty = { "127.0.0.1", "" },
            port_text_word = { "127.0.0.1", "http" },
            port_table = { "127.0.0.1", {} },
            port_true = { "127.0.0.1", true },
            port_false = { "127.0.0.1", false },
            port_one_0 = { "127.0.0.1:0" },
            port_one_big = { "127.0.0.1:65536" },
            port_one_word = { "127.0.0.1:http" },
            port_one_empty = { "127.0.0.1:" },
            addr_nil = { nil, 80 },
            addr_number = { 127, 80 },
            addr_table = { {}, 80 },
            addr_true = { true, 80 },
            unix_empty = { "unix:" },
            unix_long = { "unix:/" .. ("x"):rep(120) },
        }
        local case = assert(cases[ngx.var.arg_case], "no such case")
        local balancer = require "ngx.balancer"
        local results = { pcall(balancer.set_current_peer, case[1], case[2]) }
        assert(results[1], results[2])
        assert(results[2] == nil)
        assert(type(results[3]) == "string" and #results[3] > 0)
        assert(results[4] == nil)
        ngx.var.reason = results[3]
    }
--- config
    location /t {
        set $reason "";
        add_header X-Reason $reason always;
        proxy_pass http://backend;
    }
--- request eval
[map "GET /t?case=$_", qw(empty spaces name name_only name_port half ip4_range ip6_bad ip6_open nul
    newline list path scheme no_port no_port_ip6 port_0 port_minus port_big port_huge port_wrap
    port_float port_nan port_inf port_text_0 port_text_big port_text_minus port_text_float
    port_text_exp port_text_hex port_text_space port_text_empty port_text_word port_table port_true
    port_false port_one_0 port_one_big port_one_word port_one_empty addr_nil addr_number addr_table
    addr_true unix_empty unix_long)]
--- response_body eval
[("peer 1\n") x 46]
--- raw_response_headers_like eval
[("X-Reason: \\S") x 46]
--- no_error_log
failed to run



=== what the reasons say
--- upstream
    balancer_by_lua_block {
        local cases = {
            empty = { "", 80 },
            name = { "localhost", 80 },
            no_port = { "127.0.0.1" },
            port_0 = { "127.0.0.1", 0 },
            port_float = { "127.0.0.1", 80.5 },
            port_table = { "127.0.0.1", {} },
            addr_nil = { nil, 80 },
            unix_long = { "unix:/" .. ("x"):rep(120) },
        }
        local case = cases[ngx.var.arg_case]
        local _, err = require("ngx.balancer").set_current_peer(case[1], case[2])
        ngx.var.reason = err
    }
--- config
    location /t {
        set $reason "";
        add_header X-Reason $reason always;
        proxy_pass http://backend;
    }
--- request eval
[map "GET /t?case=$_", qw(empty name no_port port_0 port_float port_table addr_nil unix_long)]
--- error_code eval
[(500) x 8]
--- response_headers eval
["X-Reason: no host",
 "X-Reason: no host allowed",
 "X-Reason: no port",
 "X-Reason: bad argument #2 to 'set_current_peer' (port from 1 to 65535 expected, got 0)",
 "X-Reason: bad argument #2 to 'set_current_peer' (port from 1 to 65535 expected, got 80.5)",
 "X-Reason: bad argument #2 to 'set_current_peer' (number expected, got table)",
 "X-Reason: bad argument #1 to 'set_current_peer' (string expected, got nil)",
 "X-Reason: too long path in the unix domain socket"]
--- error_log
lua balancer: no peer set



=== without any argument
--- balancer
    local ok, err = require("ngx.balancer").set_current_peer()
    assert(ok == nil and err:find("#1", 1, true), err)
--- error_code: 500
--- error_log
lua balancer: no peer set
--- no_error_log
failed to run



=== a long unix path
Nobody listens there, but it is dialled.
--- balancer
    local path = "/nowhere/" .. ("x"):rep(90)
    assert(require("ngx.balancer").set_current_peer("unix:" .. path))
--- error_code: 502
--- error_log eval
[qr{connect\(\) to unix:/nowhere/x{90} failed \(2: No such file or directory\)}, "[crit]"]



=== the longest unix path there is
A path of 107 bytes fills sockaddr_un with its NUL.
--- balancer
    local path = "/nowhere/" .. ("x"):rep(107 - 9)
    assert(require("ngx.balancer").set_current_peer("unix:" .. path))
--- error_code: 502
--- error_log eval
[qr{connect\(\) to unix:/nowhere/x{98} failed \(2: No such file or directory\)}, "[crit]"]



=== outside of the balancer phase
--- http_config
    init_by_lua_block {
        local ok, err = require("ngx.balancer").set_current_peer("127.0.0.1", 80)
        result = tostring(ok) .. ": " .. tostring(err)
    }
--- balancer
    print("in init: ", result)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_body
peer 1
--- error_log
in init: nil: API disabled in the current context

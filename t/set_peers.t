# ngx.balancer.set_peers: all candidates at once, one for each try.

use strict;
use warnings;

use lib 't/lib';
use Backend 'fresh';
use Test::Nginx::Socket 'no_plan';

no_long_string();
run_tests();

__DATA__

=== each retry takes the next, and Lua runs once
--- balancer
    local balancer = require "ngx.balancer"
    ngx.var.seen = ngx.var.seen .. "run;"
    local ok, err = balancer.set_peers {
        { "127.0.0.1", $TEST_NGINX_P1 },
        { "127.0.0.1", $TEST_NGINX_P2 },
        { "127.0.0.1", $TEST_NGINX_P3 },
    }
    assert(ok == true and err == nil)
--- request eval
["GET /t", "GET /t?s1=444", "GET /t?s1=444&s2=444", "GET /t?s1=444&s2=444&s3=444"]
--- error_code eval
[200, 200, 200, 502]
--- response_body_like eval
["^peer 1\$", "^peer 2\$", "^peer 3\$", "502 Bad Gateway"]
--- response_headers eval
my ($p1, $p2, $p3) = map "127.0.0.1:$ENV{qq(TEST_NGINX_P$_)}", 1 .. 3;
["X-Seen: run;\nX-Addr: $p1\nX-Status: 200",
 "X-Seen: run;\nX-Addr: $p1, $p2\nX-Status: 502, 200",
 "X-Seen: run;\nX-Addr: $p1, $p2, $p3\nX-Status: 502, 502, 200",
 "X-Seen: run;\nX-Addr: $p1, $p2, $p3\nX-Status: 502, 502, 502"]



=== proxy_next_upstream_tries holds
--- balancer
    ngx.var.seen = ngx.var.seen .. "run;"
    assert(require("ngx.balancer").set_peers {
        { "127.0.0.1", $TEST_NGINX_P1 },
        { "127.0.0.1", $TEST_NGINX_P2 },
        { "127.0.0.1", $TEST_NGINX_P3 },
    })
--- config
    location /t {
        set $seen "";
        add_header X-Seen $seen always;
        add_header X-Status $upstream_status always;
        proxy_next_upstream_tries 2;
        proxy_pass http://backend;
    }
--- request
GET /t?s1=444&s2=444
--- error_code: 502
--- response_headers
X-Seen: run;
X-Status: 502, 502



=== proxy_next_upstream_timeout holds
--- balancer
    assert(require("ngx.balancer").set_peers {
        { "127.0.0.1", $TEST_NGINX_P5 },
        { "127.0.0.1", $TEST_NGINX_P2 },
    })
--- config
    location /t {
        add_header X-Status $upstream_status always;
        proxy_read_timeout 150ms;
        proxy_next_upstream_timeout 100ms;
        proxy_pass http://backend;
    }
--- error_code: 504
--- response_headers
X-Status: 504



=== the conditions of proxy_next_upstream hold
--- balancer
    assert(require("ngx.balancer").set_peers {
        { "127.0.0.1", $TEST_NGINX_P1 },
        { "127.0.0.1", $TEST_NGINX_P2 },
    })
--- request
GET /t?s1=503
--- error_code: 503
--- response_body
peer 1 says 503
--- response_headers
X-Status: 503



=== the tries follow from the list, not from the server lines
--- upstream
    server 127.0.0.1:$TEST_NGINX_P1;
    server 127.0.0.1:$TEST_NGINX_P1;
    server 127.0.0.1:$TEST_NGINX_P1;
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        local list = {}
        for n = 1, tonumber(ngx.var.arg_peers) do
            list[n] = { "127.0.0.1", $TEST_NGINX_P2 }
        end
        assert(balancer.set_peers(list))
    }
--- request eval
[map "GET /t?s2=444&peers=$_", 1, 2, 4]
--- error_code eval
[502, 502, 502]
--- response_headers eval
["X-Status: 502", "X-Status: 502, 502", "X-Status: 502, 502, 502, 502"]



=== every form of a peer
--- balancer
    local forms = {
        named = { addr = "127.0.0.1", port = $TEST_NGINX_P1 },
        text = { "127.0.0.1", "$TEST_NGINX_P2" },
        one = { "127.0.0.1:$TEST_NGINX_P3" },
        ip6 = { "::1", $TEST_NGINX_P1 },
        host = { "127.0.0.1", $TEST_NGINX_P2, "name.example" },
        named_host = { addr = "[::1]:$TEST_NGINX_P2", host = "name.example" },
        unix = { "unix:$TEST_NGINX_SERVROOT/peer.sock" },
    }
    assert(require("ngx.balancer").set_peers { forms[ngx.var.arg_form] })
--- request eval
[map "GET /t?form=$_", qw(named text one ip6 host named_host unix)]
--- response_body eval
["peer 1\n", "peer 2\n", "peer 3\n", "peer 1\n", "peer 2\n", "peer 2\n",
 "peer unix:$ENV{TEST_NGINX_SERVROOT}/peer.sock\n"]



=== when all were tried, Lua runs again for the tries that are left
--- balancer
    local balancer = require "ngx.balancer"
    ngx.var.seen = ngx.var.seen .. "run;"
    if not ngx.ctx.again then
        ngx.ctx.again = true
        assert(balancer.set_peers { { "127.0.0.1", $TEST_NGINX_P1 }, { "127.0.0.1", $TEST_NGINX_P2 } })
        assert(balancer.set_more_tries(1))
    else
        assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P3))
    end
--- request
GET /t?s1=444&s2=444
--- response_body
peer 3
--- response_headers
X-Seen: run;run;
X-Status: 502, 502, 200



=== set_current_peer and set_peers: the later call counts
--- balancer
    local balancer = require "ngx.balancer"
    if ngx.var.arg_last == "list" then
        assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P3))
        assert(balancer.set_peers { { "127.0.0.1", $TEST_NGINX_P4 }, { "127.0.0.1", $TEST_NGINX_P1 } })
        assert(balancer.set_peers { { "127.0.0.1", $TEST_NGINX_P4 }, { "127.0.0.1", $TEST_NGINX_P2 } })
    else
        assert(balancer.set_peers { { "127.0.0.1", $TEST_NGINX_P4 }, { "127.0.0.1", $TEST_NGINX_P2 } })
        assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P3))
    end
--- request eval
["GET /t?last=list", "GET /t?last=one", "GET /t?last=one&s3=444"]
--- error_code eval
[200, 200, 502]
--- response_headers eval
["X-Status: 502, 200", "X-Status: 200", "X-Status: 502"]



=== ngx.exit ends it
--- balancer
    assert(require("ngx.balancer").set_peers { { "127.0.0.1", $TEST_NGINX_P1 } })
    return ngx.exit(403)
--- error_code: 403



=== what holds for the request holds for each of them
--- balancer
    local balancer = require "ngx.balancer"
    assert(balancer.set_timeouts(nil, nil, 0.1))
    assert(balancer.bind_to_local_addr("127.0.0.2"))
    assert(balancer.set_peers { { "127.0.0.1", $TEST_NGINX_P5 }, { "127.0.0.1", $TEST_NGINX_P5 },
                                { "127.0.0.1", $TEST_NGINX_P1 } })
--- response_headers
X-Status: 504, 504, 200
X-From: 127.0.0.2



=== a hundred of them
--- balancer
    local list = {}
    for n = 1, 99 do
        list[n] = { "127.0.0.1", $TEST_NGINX_P4 }
    end
    list[100] = { "127.0.0.1", $TEST_NGINX_P2 }
    ngx.var.seen = ngx.var.seen .. "run;"
    assert(require("ngx.balancer").set_peers(list))
--- response_body
peer 2
--- response_headers
X-Seen: run;



=== the list may be changed afterwards, and used for another request
--- http_config
    init_by_lua_block {
        list = { { "127.0.0.1", $TEST_NGINX_P1 }, { "127.0.0.1", $TEST_NGINX_P2 } }
    }
--- balancer
    local first = list[1]
    assert(require("ngx.balancer").set_peers(list))
    list[1], list[2] = list[2], first
    collectgarbage()
--- request eval
["GET /t?s1=444", "GET /t?s1=444", "GET /t?s2=444"]
--- response_headers eval
["X-Status: 502, 200", "X-Status: 200", "X-Status: 200"]
--- response_body eval
["peer 2\n", "peer 2\n", "peer 1\n"]



=== what is no list of peers
--- balancer
    local balancer = require "ngx.balancer"
    local good = { "127.0.0.1", $TEST_NGINX_P4 }
    local function refused(list, text)
        local ok, err = balancer.set_peers(list)
        assert(ok == nil and type(err) == "string", err)
        local expected = "bad argument #1 to 'set_peers' (" .. text
        assert(err:sub(1, #expected) == expected, err)
    end
    assert(balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P1))

    refused(nil, "table expected, got nil)")
    refused("127.0.0.1", "table expected, got string)")
    refused(0/0, "table expected, got number)")
    refused({}, "at least one peer expected)")
    refused({ good, "127.0.0.1" }, "peer 2: table expected, got string)")
    refused({ good, {} }, "peer 2: address: string expected, got nil)")
    refused({ good, { 127, 80 } }, "peer 2: address: string expected, got number)")
    refused({ good, good, { "127.0.0.1", 0 } }, "peer 3: port from 1 to 65535 expected, got 0)")
    refused({ { "127.0.0.1", 0/0 } }, "peer 1: port from 1 to 65535 expected")
    refused({ { "127.0.0.1", 1/0 } }, "peer 1: port from 1 to 65535 expected")
    refused({ { "127.0.0.1", 80.5 } }, "peer 1: port from 1 to 65535 expected")
    refused({ { "127.0.0.1", {} } }, "peer 1: number expected, got table)")
    refused({ { "127.0.0.1", 80, 1 } }, "peer 1: host: string expected, got number)")
    refused({ { "127.0.0.1", 80, {} } }, "peer 1: host: string expected, got table)")
    refused({ { "", 80 } }, "peer 1: no host)")
    refused({ good, { "localhost", 80 } }, "peer 2: no host allowed)")
    refused({ { "127.0.0.1" } }, "peer 1: no port)")
    -- None of it was set.
--- response_body
peer 1
--- response_headers
X-Status: 200

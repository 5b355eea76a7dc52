# ngx.balancer.get_tried: the tries of this request so far.

use strict;
use warnings;

use lib 't/lib';
use Backend 'fresh';
use Test::Nginx::Socket 'no_plan';

# What each run sees, as "addr state status, …;"; the ports are P1, P2, P3, P4 and again.
add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'EOC' . ($block->http_config // ''));
init_by_lua_block {
    function note_tried()
        local tried, err = require("ngx.balancer").get_tried()
        assert(type(tried) == "table" and err == nil, err)
        local parts = {}
        for n, try in ipairs(tried) do
            parts[n] = try.addr .. " " .. try.state .. " " .. try.status
        end
        ngx.var.seen = ngx.var.seen .. table.concat(parts, ", ") .. ";"
        return tried
    end
}
EOC
});

no_long_string();
run_tests();

__DATA__

=== an empty table on the first try
--- balancer
    local tried = note_tried()
    assert(next(tried) == nil)
    require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P1)
--- response_headers
X-Seen: ;



=== each try in order, with how it ended
--- balancer
    local balancer = require "ngx.balancer"
    local n = #note_tried() + 1
    if n == 1 then
        balancer.set_more_tries(4)
    end
    local peers = {
        { "127.0.0.1", $TEST_NGINX_P1 }, { "::1", $TEST_NGINX_P2 }, { "127.0.0.1", $TEST_NGINX_P5 },
        { "127.0.0.1", $TEST_NGINX_P4 }, { "127.0.0.1", $TEST_NGINX_P3 },
    }
    balancer.set_current_peer(peers[n][1], peers[n][2])
--- config
    location /t {
        set $seen "";
        add_header X-Seen $seen always;
        proxy_next_upstream error timeout http_404 http_503;
        proxy_read_timeout 100ms;
        proxy_pass http://backend;
    }
--- request
GET /t?s1=503&s2=404
--- response_body
peer 3
--- response_headers eval
my ($p1, $p2, $p4, $p5) = @ENV{map "TEST_NGINX_P$_", 1, 2, 4, 5};
my @tries = ("127.0.0.1:$p1 failed 503", "[::1]:$p2 next 404", "127.0.0.1:$p5 failed 504",
    "127.0.0.1:$p4 failed 502");
"X-Seen: " . CORE::join("", map CORE::join(", ", @tries[0 .. $_ - 1]) . ";", 0 .. 4)



=== after a list of peers
--- balancer
    local balancer = require "ngx.balancer"
    if #note_tried() == 0 then
        balancer.set_peers { { "127.0.0.1", $TEST_NGINX_P1 }, { "127.0.0.1", $TEST_NGINX_P2 } }
        balancer.set_more_tries(1)
    else
        balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P3)
    end
--- request
GET /t?s1=444&s2=444
--- response_body
peer 3
--- response_headers
X-Seen: ;127.0.0.1:$TEST_NGINX_P1 failed 502, 127.0.0.1:$TEST_NGINX_P2 failed 502;



=== a try that was declined
It has the upstream's name, as in $upstream_addr.
--- balancer
    local balancer = require "ngx.balancer"
    if #note_tried() == 0 then
        balancer.set_more_tries(1)
        return ngx.exit(ngx.DECLINED)
    end
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P3)
--- response_body
peer 3
--- response_headers
X-Seen: ;backend failed 502;



=== tries of round robin
--- upstream
    server 127.0.0.1:$TEST_NGINX_P1;
    server 127.0.0.1:$TEST_NGINX_P1;
    balancer_by_lua_block {
        if #note_tried() > 0 then
            require("ngx.balancer").set_current_peer("127.0.0.1", $TEST_NGINX_P2)
        end
    }
--- request
GET /t?s1=444
--- response_body
peer 2
--- response_headers
X-Seen: ;127.0.0.1:$TEST_NGINX_P1 failed 502;



=== a peer that is not to be tried twice
--- balancer
    local balancer = require "ngx.balancer"
    local tried = {}
    for _, try in ipairs(note_tried()) do
        tried[try.addr] = true
    end
    if next(tried) == nil then
        balancer.set_more_tries(2)
    end
    for _, port in ipairs { $TEST_NGINX_P1, $TEST_NGINX_P2, $TEST_NGINX_P3 } do
        if not tried["127.0.0.1:" .. port] then
            return balancer.set_current_peer("127.0.0.1", port)
        end
    end
--- request
GET /t?s1=444&s2=444
--- response_body
peer 3



=== the tries of the upstream before do not count
--- balancer
    local balancer = require "ngx.balancer"
    note_tried()
    balancer.set_current_peer("127.0.0.1", ngx.var.uri == "/t" and $TEST_NGINX_P4 or $TEST_NGINX_P2)
--- config
    set $seen "";
    location /t {
        error_page 502 = /other;
        proxy_pass http://backend;
    }
    location /other {
        add_header X-Seen $seen always;
        proxy_pass http://backend;
    }
--- response_body
peer 2
--- response_headers
X-Seen: ;



=== the table is the caller's own
--- balancer
    local balancer = require "ngx.balancer"
    local tried = note_tried()
    if #tried == 0 then
        balancer.set_more_tries(2)
    else
        tried[1].addr = "changed"
        tried[#tried + 1] = "more"
        assert(balancer.get_tried()[1].addr == "127.0.0.1:$TEST_NGINX_P4")
    end
    balancer.set_current_peer("127.0.0.1", $TEST_NGINX_P4)
--- error_code: 502
--- response_headers
X-Status: 502, 502, 502

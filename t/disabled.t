# Outside of the balancer phase every function of ngx.balancer, and ngx.exit, says that it is disabled
# there, and does nothing.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Test::More;

my $nginx = Nginx->new(workers => 2);

# Calls everything there is: a function that this table lacks is a failure of the test.
$nginx->write('lua/disabled.lua', <<'EOC');
local balancer = require "ngx.balancer"

local arguments = {
    set_current_peer = { "127.0.0.1", 80, "name.example" },
    set_peers = { { { "127.0.0.1", 80 } } },
    set_more_tries = { 1 },
    get_last_failure = {},
    get_tried = {},
    set_timeouts = { 1, 1, 1 },
    enable_keepalive = { 60, 100 },
    bind_to_local_addr = { "127.0.0.1" },
    recreate_request = {},
    set_upstream_tls = { true },
    set_ssl_verify = { true, 1 },
    set_ssl_cert = { "a certificate", "its key" },
    set_ssl_trusted = { "certificates" },
}

return function()
    local said = {}
    for name, f in pairs(balancer) do
        if type(f) == "function" then
            local args = arguments[name]
            if args then
                local results = { n = 0 }
                local function keep(...)
                    results = { n = select("#", ...), ... }
                end
                keep(pcall(f, unpack(args)))
                -- nil and a text, or for get_last_failure nil, nil and a text
                local last = results[results.n]
                local nils = results[1] == true and results[2] == nil
                said[#said + 1] = name .. "=" .. (nils and "nil, " or "") .. tostring(last)
            else
                said[#said + 1] = name .. "=not in the list of this test"
            end
        end
    end
    local ok, err = pcall(ngx.exit, 403)
    said[#said + 1] = "ngx.exit=" .. (ok and "no error, " or "") .. tostring(err)
    table.sort(said)
    return said
end
EOC

$nginx->conf(<<"EOC");
lua_package_path '\$prefix/lua/?.lua;;';
init_by_lua_block { in_init = require "disabled"() }
init_worker_by_lua_block { in_init_worker = require "disabled"() }
upstream backend {
    balancer_by_lua_block {
        local said = ngx.var.arg_phase == "init" and in_init or in_init_worker
        ngx.var.count = #said
        ngx.var.said = said[tonumber(ngx.var.arg_n)]
        require("ngx.balancer").set_current_peer("127.0.0.1", @{[port(1)]})
    }
}
server {
    listen 127.0.0.1:@{[port(0)]};
    set \$said "";
    set \$count 0;
    add_header X-Said \$said always;
    add_header X-Count \$count always;
    location / { proxy_pass http://backend; }
}
server { listen 127.0.0.1:@{[port(1)]}; return 200 "peer\\n"; }
EOC
$nginx->start;

for my $phase ('init', 'init_worker') {
    my $count = 1;
    my %said;
    for (my $n = 1; $n <= $count; $n++) {
        my $answer = $nginx->get("/?phase=$phase&n=$n", port(0));
        is($answer->{body}, "peer\n", "$phase: and all works in the balancer");
        ($count) = $answer->{head} =~ /^X-Count: (\d+)/m;
        my ($name, $text) = $answer->{head} =~ /^X-Said: (.*?)=(.*?)\r$/m;
        $said{$name} = $text;
        my $nil = $name eq 'ngx.exit' ? '' : 'nil, ';
        like($text, qr/^(?:$nil)?(?:.*: )?API disabled in the current context$/, "$phase: $name");
    }
    cmp_ok(scalar(keys %said), '>=', 14, "$phase: all of them");
}

done_testing();

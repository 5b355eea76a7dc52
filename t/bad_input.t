# Every function of ngx.balancer, and ngx.exit, with every value that it does not want, all in one
# request: an error or nil and a text, nothing half set, and the worker answers the next request.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Test::More;

my $nginx = Nginx->new;

$nginx->write('lua/bad_input.lua', <<'EOC');
local balancer = require "ngx.balancer"
local nan, inf = 0/0, 1/0

local function f() end
local own = {}
own[1] = own

-- Values of every type, with the odd ones of each.
local values = {
    { "nothing" },
    { "true", true }, { "false", false },
    { "zero", 0 }, { "minus zero", -0.0 }, { "one", 1 }, { "minus one", -1 }, { "half", 0.5 },
    { "tiny", 5e-324 }, { "NaN", nan }, { "infinity", inf }, { "minus infinity", -inf },
    { "2^31", 2^31 }, { "-2^31", -2^31 }, { "2^32", 2^32 }, { "2^53", 2^53 }, { "2^63", 2^63 },
    { "2^64", 2^64 }, { "1e308", 1e308 }, { "-1e308", -1e308 },
    { "empty text", "" }, { "a space", " " }, { "a word", "word" }, { "a number as text", "80" },
    { "NUL", "\0" }, { "an address with a NUL", "127.0.0.1\0.example" }, { "line breaks", "a\r\nb: c" },
    { "bytes", "\255\254\0\1" }, { "a long text", ("x"):rep(100000) },
    { "a long number", ("9"):rep(1000) }, { "a format", "%s%n%x" },
    { "table", {} }, { "list", { 1, 2, 3 } }, { "nested", { { {} } } }, { "itself", own },
    { "raising table", setmetatable({}, { __index = function() error("raised") end }) },
    { "function", f }, { "coroutine", coroutine.create(f) }, { "userdata", io.stdout },
    { "cdata", require("ffi").new("int[1]") }, { "int64", 1LL }, { "uint64", 18446744073709551615ULL },
    { "null", ngx.null },
}

-- A good call of each, whose arguments are replaced one by one.
local good = {
    set_current_peer = { "127.0.0.1", 80, "name.example", n = 3 },
    set_peers = { { { "127.0.0.1", 80 } }, n = 1 },
    set_more_tries = { 0, n = 1 },
    set_timeouts = { 1, 1, 1, n = 3 },
    enable_keepalive = { 60, 100, 60, n = 3 },
    bind_to_local_addr = { "127.0.0.1", n = 1 },
    set_upstream_tls = { false, n = 1 },
    set_ssl_verify = { true, 1, n = 2 },
    set_ssl_cert = { "a certificate", "a key", n = 2 },
    set_ssl_trusted = { "certificates", n = 1 },
    recreate_request = { n = 0 },
    get_last_failure = { n = 0 },
    get_tried = { n = 0 },
    exit = { 0, n = 1 },
}

local ours = {}
for name, call in pairs(balancer) do
    if type(call) == "function" then
        ours[#ours + 1] = { name, call }
    end
end
ours[#ours + 1] = { "exit", ngx.exit }

local calls, refused, wrong = 0, 0, {}

-- One call: what comes back is a success, nil and a text, or an error that is a text.
local function try(what, call, ...)
    calls = calls + 1
    local results = { n = 0 }
    local function keep(...)
        results = { n = select("#", ...), ... }
    end
    keep(pcall(call, ...))
    local ok, first, second = unpack(results, 1, 3)
    if not ok then
        refused = refused + 1
        if type(first) ~= "string" or first == "" then
            wrong[#wrong + 1] = what .. ": the error is a " .. type(first)
        end
        return false
    elseif first == nil and results.n > 2 then
        refused = refused + 1
        if type(second) ~= "string" or second == "" then
            wrong[#wrong + 1] = what .. ": nil, and a " .. type(second)
        end
        return false
    end
    return true
end

-- What no value of this kind is, for any function.
local never = { NaN = true, infinity = true, ["minus infinity"] = true, ["minus one"] = true,
    ["1e308"] = true, ["-1e308"] = true, ["function"] = true, coroutine = true, userdata = true,
    ["-2^31"] = true }

return function(port)
    for _, one in ipairs(ours) do
        local name, call = one[1], one[2]
        local args = good[name]
        if not args then
            wrong[#wrong + 1] = name .. " is not in the list of this test"
            args = { n = 3 }
        end
        for position = 1, args.n do
            for _, value in ipairs(values) do
                local with = { unpack(args, 1, args.n) }
                with[position] = value[2]
                local what = name .. " #" .. position .. " " .. value[1]
                balancer.set_current_peer("127.0.0.1", port)
                local ok = try(what, call, unpack(with, 1, args.n))
                -- set_upstream_tls takes every number for true but 0; ngx.exit knows -1.
                if ok and never[value[1]] and not (name == "set_upstream_tls" and type(value[2]) == "number")
                    and not (name == "exit" and value[2] == -1)
                then
                    wrong[#wrong + 1] = what .. " was taken"
                end
                -- The same for each member of a table.
                if position == 1 and name == "set_peers" then
                    for member = 1, 3 do
                        local peer = { "127.0.0.1", port, "name.example" }
                        peer[member] = value[2]
                        try(what .. ", member " .. member, call, { { "127.0.0.1", port }, peer })
                        for key in pairs { addr = 1, port = 1, host = 1 } do
                            local named = { addr = "127.0.0.1", port = port, host = "name.example" }
                            named[key] = value[2]
                            try(what .. ", " .. key, call, { named })
                        end
                    end
                elseif position == 3 and name == "set_current_peer" then
                    for key in pairs { host = 1, pool = 1, pool_size = 1 } do
                        local options = { host = "name.example", pool = "pool", pool_size = 4 }
                        options[key] = value[2]
                        try(what .. ", " .. key, call, "127.0.0.1", port, options)
                    end
                end
            end
        end
        -- More arguments than there are.
        try(name .. " with many arguments", call, unpack({ n = 250 }, 1, 250))
    end

    -- In the end all is as if nothing had been called.
    balancer.set_timeouts(60, 60, 60)
    balancer.bind_to_local_addr("127.0.0.1")
    ngx.exit(ngx.OK)
    if #wrong > 0 then
        ngx.log(ngx.ERR, #wrong, " wrong: ", table.concat(wrong, "\n"))
    end
    assert(balancer.set_current_peer("127.0.0.1", port))
    return calls, refused, #wrong
end
EOC

$nginx->conf(<<"EOC");
lua_package_path '\$prefix/lua/?.lua;;';
upstream backend {
    balancer_by_lua_block {
        if ngx.var.arg_bad then
            local calls, refused, wrong = require "bad_input"(@{[port(1)]})
            ngx.var.seen = calls .. " " .. refused .. " " .. wrong
        else
            require("ngx.balancer").set_current_peer("127.0.0.1", @{[port(1)]})
        end
    }
}
upstream half {
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        local what = ngx.var.arg_what
        assert(balancer.set_current_peer("127.0.0.1", @{[port(1)]}, "first.example"))
        local cases = {
            port = function() return balancer.set_current_peer("127.0.0.1", 0/0) end,
            addr = function() return balancer.set_current_peer("nowhere", @{[port(2)]}) end,
            host = function() return balancer.set_current_peer("127.0.0.1", @{[port(2)]}, 5) end,
            pool = function() return balancer.set_current_peer("127.0.0.1", @{[port(2)]}, { pool = {} }) end,
            size = function()
                return balancer.set_current_peer("127.0.0.1", @{[port(2)]}, { pool = "p", pool_size = 0/0 })
            end,
            list = function()
                return balancer.set_peers { { "127.0.0.1", @{[port(2)]} }, { "127.0.0.1", 0 } }
            end,
            long = function()
                return balancer.set_peers { { "127.0.0.1", @{[port(2)]} }, { "unix:/" .. ("x"):rep(200) } }
            end,
        }
        local ok, first, second = pcall(cases[what])
        assert(not ok or first == nil, "it was taken")
        local text = tostring(ok and second or first)
        ngx.var.seen = text
    }
}
server {
    listen 127.0.0.1:@{[port(0)]};
    set \$seen "";
    add_header X-Seen \$seen always;
    location / { proxy_pass http://backend; }
    location /half { proxy_pass http://half; }
}
server {
    listen 127.0.0.1:@{[port(1)]};
    listen 127.0.0.1:@{[port(2)]};
    return 200 "\$server_port \$remote_addr\\n";
}
EOC
$nginx->start;

my ($worker) = $nginx->workers;
my $peer = port(1) . " 127.0.0.1\n";

for my $round (1 .. 2) {
    my $answer = $nginx->get('/?bad=1', port(0));
    is($answer->{status}, 200, "round $round: all of it in one request");
    my ($calls, $refused, $wrong) = $answer->{head} =~ /^X-Seen: (\d+) (\d+) (\d+)/m;
    cmp_ok($calls, '>', 1000, "round $round: many calls");
    cmp_ok($refused, '>', 500, "round $round: most are refused");
    is($wrong, 0, "round $round: each as it should be") or diag(grep /wrong/, $nginx->log =~ /^(.*)/mg);
    is($answer->{body}, $peer, "round $round: and the request is served");
    is($nginx->get('/', port(0))->{body}, $peer, "round $round: so is the next");
}
is(($nginx->workers)[0], $worker, 'by the same worker');

# Nothing is half set, and the text names the argument.
my %texts = (
    port => qr/bad argument #2 to 'set_current_peer'/,
    addr => qr/\S/,
    host => qr/bad argument #3 to 'set_current_peer' \(string expected, got number\)/,
    pool => qr/bad argument #3 to 'set_current_peer'/,
    size => qr/bad argument #3 to 'set_current_peer'/,
    list => qr/bad argument #1 to 'set_peers' \(peer 2: /,
    long => qr/bad argument #1 to 'set_peers' \(peer 2: /,
);
for my $what (sort keys %texts) {
    my $answer = $nginx->get("/half?what=$what", port(0));
    is($answer->{body}, $peer, "$what: the peer that was set before");
    my ($seen) = $answer->{head} =~ /^X-Seen: (.*?)\r$/m;
    like($seen, $texts{$what}, "$what: the text");
}

done_testing();

# lua_memory_limit: a VM that would pass it fails the request, never the worker.

use strict;
use warnings;

use lib 't/lib';
use Cases;
use Nginx;
use Test::More;
use Verdict;

my $nginx = Nginx->new;

my $lua = <<'EOC';
local cases = {
    ok = function() end,
    long = function() return ("x"):rep(16 * 1024 * 1024) end,
    many = function() local t = {} for i = 1, 1e7 do t[i] = "value " .. i end end,
    nested = function() local t = {} while true do t = { t } end end,
    cdata = function() return require("ffi").new("char[?]", 16 * 1024 * 1024) end,
    caught = function()
        for _ = 1, 10 do
            local ok, err = pcall(string.rep, "x", 16 * 1024 * 1024)
            assert(not ok and err == "not enough memory", err)
        end
    end,
    coroutine = function()
        coroutine.wrap(function() local t = {} for i = 1, 1e7 do t[i] = { i } end end)()
    end,
    closures = function()
        local f for i = 1, 1e7 do local g = f f = function() return g, i end end
    end,
    -- 64 MB of short-lived values, of every kind.
    garbage = function()
        for i = 1, 64 * 1024 do
            local s = ("x"):rep(700) .. i
            local t = { s, i, {} }
            t.x = function() return t end
        end
    end,
    large_garbage = function()
        for i = 1, 500 do local s = ("x"):rep(300 * 1024) .. i end
    end,
    keep = function()
        kept = {}
        while collectgarbage("count") < 5.3 * 1024 do
            for i = 1, 1000 do kept[#kept + 1] = { "value " .. #kept } end
            collectgarbage()
        end
    end,
    drop = function() kept = nil end,
}
cases[ngx.var.arg_case]()
require("ngx.balancer").set_current_peer("127.0.0.1", PORT)
EOC
$lua =~ s/PORT/port(1)/e;

sub conf { $nginx->conf("$_[0]\n" . backend($lua)) }

sub fails_by_limit {
    my ($case, $limit, $name) = @_;
    my @lines = grep /\[error\]/, split /\n/, fails($nginx, $case, $name);
    is(scalar @lines, 1, "$name: $case: one error");
    like($lines[0], qr/failed to run balancer_by_lua\*: lua_memory_limit \($limit\): .*not enough memory/,
        "$name: $case: which names the limit");
    serves($nginx, 'ok', "$name: after $case");
}

my @over = qw(long many nested cdata coroutine closures);

for my $cache ('', 'lua_code_cache off; ') {
    my $name = $cache || 'by default';
    conf("lua_memory_limit 8m; $cache");
    $nginx->start;
    serves($nginx, 'ok', "$name: at first");
    for my $case (@over) {
        fails_by_limit($case, '8m', $name);
    }
    serves($nginx, 'caught', "$name: an error that the code catches is its own affair");
    serves($nginx, 'garbage', "$name: garbage does not count");
    if (!$cache) {
        serves($nginx, 'keep', 'data are kept');
        serves($nginx, 'garbage', 'garbage beside them does not count');
        fails_by_limit('many', '8m', 'beside them');
        serves($nginx, 'drop', 'they are let go');
        serves($nginx, $_ % 2 ? 'garbage' : 'ok', "many requests: $_") for 1 .. 10;
    }
    serves($nginx, 'large_garbage', "$name: nor do large pieces");
    unlike($nginx->log, qr/exited on signal|\[alert\] .*exited|\[emerg\]|internal error/, "$name: the worker lives");
    $nginx->stop;
}

# Several requests at a time over the limit do not harm those beside them.
conf('lua_memory_limit 4m;');
$nginx->start;
serves($nginx, 'ok', 'one at first');
for my $round (1 .. 20) {
    my @sockets = map {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port(0), Timeout => 15) or die $!;
        print $socket "GET /?case=$_ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        $socket;
    } qw(many ok long ok);
    my @answers = map { local $/; scalar readline($_) // '' } @sockets;
    is(join(' ', map { m{^HTTP/1\.1 (\d+)} ? $1 : 'none' } @answers), '500 200 500 200', "side by side: $round");
}
serves($nginx, 'ok', 'the same worker in the end');
$nginx->stop;

# init_worker_by_lua: an error, and the worker serves.
conf(<<'EOC');
lua_memory_limit 4m;
init_worker_by_lua_block { local t = {} for i = 1, 1e7 do t[i] = { i } end }
EOC
$nginx->start;
serves($nginx, 'ok', 'init_worker has failed: the worker serves');
like($nginx->log, qr/\[error\] .*init_worker_by_lua error: lua_memory_limit \(4m\): .*not enough memory/, 'which is told');
$nginx->stop;

# init_by_lua: one line, and no start.
conf(<<'EOC');
lua_memory_limit 4m;
init_by_lua_block { local t = {} for i = 1, 1e7 do t[i] = { i } end }
EOC
refuses($nginx, 'init_by_lua over the limit', qr/init_by_lua error: lua_memory_limit \(4m\): .*not enough memory/);

# Limits that are none, or too small.
for my $case (
    ['lua_memory_limit 100k;', qr/"lua_memory_limit" of 100k is too small: the configuration's Lua takes \d+k, and requests must have 64k/],
    ["lua_memory_limit 2m;\ninit_by_lua_block { x = ('x'):rep(300 * 1024) }", undef],
    ["lua_memory_limit 4m;\ninit_by_lua_block { x = {} while collectgarbage('count') < 4050 do x[#x + 1] = ('x'):rep(1000) .. #x collectgarbage() end }",
        qr/"lua_memory_limit" of 4m is too small: the configuration's Lua takes 40\d\dk, and requests must have 64k/],
    ['lua_memory_limit much;', qr/invalid value "much" in "lua_memory_limit" directive in \S+:6/],
    ['lua_memory_limit -1;', qr/invalid value "-1" in "lua_memory_limit" directive/],
    ["lua_memory_limit 4m;\nlua_memory_limit 4m;", qr/"lua_memory_limit" directive is duplicate/],
    ['lua_memory_limit 0;', undef],
) {
    conf($case->[0]);
    $case->[1] ? refuses($nginx, $case->[0], $case->[1]) : accepts($nginx, $case->[0]);
}

# 0 is no limit.
conf('lua_memory_limit 0;');
$nginx->start;
serves($nginx, 'long', 'no limit');
$nginx->stop;

done_testing();

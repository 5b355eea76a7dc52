# balancer_by_lua_timeout: a chunk that runs longer is stopped where it is, and costs its request only.

use strict;
use warnings;

use lib 't/lib';
use Cases;
use Nginx;
use Test::More;
use Time::HiRes qw(time);
use Verdict;

my $nginx = Nginx->new;

$nginx->write('lua/spin.lua', <<'EOC');
return {
    spin = function()
        local n = 0
        while true do
            n = n + 1
        end
    end,
}
EOC

my $lua = <<'EOC';
local function spin() local n = 0 while true do n = n + 1 end end
local cases = {
    ok = function() end,
    loop = function() while true do end end,
    counted = function() local n = 0 for i = 1, 1e15 do n = n + i end end,
    repeated = function() repeat until false end,
    iterated = function() for _ in function() return 1 end do end end,
    calls = function() while true do spin_once() end end,
    tail = function() local function f() return f() end return f() end,
    tails = function()
        local f, g
        local n = 0
        f = function(x) n = n + 1 if n > 500 then return g(x) end return x end
        g = function(x) n = n + 1 if n > 500 then return f(x) end return x end
        for i = 1, 490 do f(i) g(i) end
        n = 501
        return f(1)
    end,
    caught = function() while true do pcall(function() while true do end end) end end,
    caught_x = function()
        while true do xpcall(spin, function(e) return e end) end
    end,
    handler_spins = function() xpcall(error, spin) end,
    deep = function()
        local function f(n)
            if n == 0 then return spin() end
            pcall(f, n - 1)
            spin()
        end
        while true do f(20) end
    end,
    caught_last = function() return pcall(spin) end,
    coroutine = function()
        while true do coroutine.wrap(function() pcall(spin) spin() end)() end
    end,
    coroutines = function()
        while true do coroutine.resume(coroutine.create(spin)) end
    end,
    module = function() require("spin").spin() end,
    metamethod = function() return setmetatable({}, { __index = spin }).x end,
    tostring = function() return tostring(setmetatable({}, { __tostring = spin })) end,
    error_tostring = function() error(setmetatable({}, { __tostring = spin })) end,
    sort = function()
        table.sort({ 3, 2, 1 }, function(a, b) spin() return a < b end)
    end,
    gsub = function() return ("x"):gsub("x", spin) end,
    strings = function() local s = "" while true do s = ("x"):rep(100) .. #s end end,
    tables = function() local t = {} while true do t = { t[1] } end end,
    api = function() while true do ngx.now() end end,
    vars = function() while true do local x = ngx.var.uri end end,
    peers = function()
        while true do require("ngx.balancer").set_current_peer("127.0.0.1", PORT) end
    end,
    hooked = function() debug.sethook(function() end, "l") spin() end,
    unhooked = function() while true do debug.sethook() end end,
    jit = function() jit.on() spin() end,
    slow_c = function() os.execute("sleep 0.2") end,
    hot = function()
        -- Long enough to have been compiled before it is too slow.
        local n = 0
        for i = 1, 1000 do for j = 1, 100 do n = n + j end end
        for i = 1, 1e15 do n = n + i end
    end,
}
function spin_once() return 1 end
cases[ngx.var.arg_case]()
require("ngx.balancer").set_current_peer("127.0.0.1", PORT)
EOC
$lua =~ s/PORT/port(1)/ge;

sub conf {
    my ($more, $inside, $code) = @_;
    $nginx->conf(<<"EOC");
$more
lua_package_path "\$prefix/lua/?.lua;;";
upstream backend {
    $inside
    balancer_by_lua_block {
${\($code // $lua)}
    }
}
upstream slow {
    balancer_by_lua_block { require("ngx.balancer").set_current_peer("127.0.0.1", ${\port(1)}) }
}
server {
    listen 127.0.0.1:${\port(0)};
    add_header X-Worker \$pid always;
    location / { proxy_pass http://backend; }
    location /slow { proxy_pass http://slow; }
}
server {
    listen 127.0.0.1:${\port(1)};
    location / { return 200 "peer one"; }
    location /slow { limit_rate 4000; root data; }
}
EOC
}
$nginx->write('data/slow/file', 'x' x 5000);

my $at = qr/balancer_by_lua\(nginx\.conf:\d+\):\d+/;
my %place = (
    module => qr/\S*spin\.lua:\d/,
    # LuaJIT says it once more where coroutine.wrap passes it on.
    coroutine => qr/$at: $at/,
    # In the chunk or in the API, wherever it was.
    (map { $_ => qr/(?:$at|[\w.]+:\d+)/ } qw(api vars peers)),
    # Caught, or told of by a message handler that was stopped as well: the place is not known.
    map { $_ => qr/(?:|$at)/ } qw(caught_last error_tostring handler_spins),
);
my @cases = sort $lua =~ /^    (\w+) = function/mg;
my %quick = (ok => 1);

sub is_stopped {
    my ($case, $name, $ms) = @_;
    my $start = time;
    my $log = fails($nginx, $case, $name);
    my $took = time - $start;
    cmp_ok($took, '>=', $ms / 1000 - 0.01, "$name: $case: not too early");
    cmp_ok($took, '<', $Nginx::patience, "$name: $case: it was stopped");
    my @lines = grep /\[error\]/, split /\n/, $log;
    is(scalar @lines, 1, "$name: $case: one error") or diag($log);
    my $place = $place{$case} // $at;
    like($lines[0] // '', qr/failed to run balancer_by_lua\*: $place:?\s*ran longer than balancer_by_lua_timeout \($ms ms\)/,
        "$name: $case: which says where and why");
    return $log;
}

for my $cache ('', 'lua_code_cache off;') {
    my $name = $cache || 'by default';
    conf("balancer_by_lua_timeout 50ms; $cache", '');
    $nginx->start;
    serves($nginx, 'ok', "$name: at first");
    for my $case (grep !$quick{$_}, @cases) {
        my $log = is_stopped($case, $name, 50);
        like($log, qr/\nstack traceback:\n\t/, "$name: $case: with a traceback") if $case eq 'loop' || $case eq 'module';
        serves($nginx, 'ok', "$name: after $case");
    }
    is($nginx->get('/slow/file', port(0))->{status}, 200, "$name: nginx's own waits are as long as they are");
    is(length $nginx->get('/slow/file', port(0))->{body}, 5000, "$name: and all of it comes");
    unlike($nginx->log, qr/exited on signal|\[alert\] .*(?:exited|no timer)|\[emerg\]|internal error|Interrupted/, "$name: nothing worse");
    $nginx->stop;
}

# Many requests in turn, some of which are stopped.
conf('balancer_by_lua_timeout 5ms;', '');
$nginx->start;
for (1 .. 100) {
    $nginx->get('/?case=' . (qw(loop hot caught tables))[$_ % 4], port(0)) if $_ % 5 == 0;
    serves($nginx, 'ok', "many requests: $_");
}
is($nginx->logged('ran longer than balancer_by_lua_timeout (5 ms)'), 20, 'as many were stopped as were to be');
$nginx->stop;

# An upstream has a time of its own; there is none where init_by_lua and init_worker_by_lua run.
my $long = 'local till = os.clock() + 0.15 while os.clock() < till do end';
conf(<<"EOC", 'balancer_by_lua_timeout 30ms;');
balancer_by_lua_timeout 1h;
init_by_lua_block { $long from_init = true }
init_worker_by_lua_block { $long from_worker = true }
EOC
$nginx->start;
serves($nginx, 'ok', 'the time of an upstream');
is_stopped('loop', 'the time of an upstream', 30);
unlike($nginx->said, qr/init\w*_by_lua error/, 'init_by_lua and init_worker_by_lua have none');
$nginx->stop;

conf('balancer_by_lua_timeout 30ms;', 'balancer_by_lua_timeout 0;',
    "$long require('ngx.balancer').set_current_peer('127.0.0.1', ${\port(1)})");
$nginx->start;
serves($nginx, 'any', 'an upstream without a limit beside others with one');
$nginx->stop;

for my $case (
    ['balancer_by_lua_timeout soon;', '', qr/invalid value "soon" in "balancer_by_lua_timeout" directive in \S+:6/],
    ['balancer_by_lua_timeout -1;', '', qr/invalid value "-1" in "balancer_by_lua_timeout" directive/],
    ['balancer_by_lua_timeout 25h;', '', qr/invalid value "25h" in "balancer_by_lua_timeout" directive/],
    ["balancer_by_lua_timeout 1;\nbalancer_by_lua_timeout 1;", '', qr/"balancer_by_lua_timeout" directive is duplicate/],
    ['', "balancer_by_lua_timeout 1;\nbalancer_by_lua_timeout 1;", qr/"balancer_by_lua_timeout" directive is duplicate/],
    ["balancer_by_lua_timeout 1s;", 'balancer_by_lua_timeout 100;', undef],
) {
    conf($case->[0], $case->[1]);
    my $name = "$case->[0]$case->[1]";
    $case->[2] ? refuses($nginx, $name, $case->[2]) : accepts($nginx, $name);
}

done_testing();

# What Lua can do wrong: each costs its request at most, and never the worker.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Test::More;

my $nginx = Nginx->new;
$nginx->write('lua/broken.lua', "local a =\n= 1\n");
$nginx->write('lua/fails.lua', 'error("while it is loaded")');

my $lua = <<'EOC';
local ffi = require "ffi"
local cases = {
    -- Errors and where they are raised.
    in_coroutine = function() coroutine.wrap(function() error("inside") end)() end,
    deep_coroutines = function()
        local function f() return coroutine.wrap(f)() end
        f()
    end,
    deep_resume = function()
        local function f() return assert(coroutine.resume(coroutine.create(f))) end
        f()
    end,
    yield_over_pcall = function()
        local co = coroutine.wrap(function() pcall(coroutine.yield, 7) return 8 end)
        assert(co() == 7 and co() == 8)
        error("as it is to be")
    end,
    recursion = function() local function f() return 1 + f() end f() end,
    deep_pcall = function() local function f() local ok, err = pcall(f) error(err, 0) end f() end,
    deep_gsub = function() local function f() return (("x"):gsub("x", f)) end f() end,
    deep_index = function()
        local t = setmetatable({}, {})
        getmetatable(t).__index = function(_, k) return t[k .. "x"] end
        return t.x
    end,
    index_chain = function()
        local t = {}
        setmetatable(t, { __index = t })
        return t.x
    end,
    deep_sort = function()
        local function f() table.sort({ 1, 2, 3 }, f) return true end
        f()
    end,
    deep_tostring = function()
        local t = setmetatable({}, {})
        getmetatable(t).__tostring = function() return tostring(t) .. "" end
        return tostring(t)
    end,
    deep_load = function() loadstring("return " .. ("("):rep(1e5) .. "1" .. (")"):rep(1e5))() end,
    callback = function()
        local cb = ffi.cast("int (*)(int)", function() error("in a callback") end)
        local ok, err = pcall(function() return cb(1) end)
        cb:free()
        error(err, 0)
    end,
    broken_file = function() require "broken" end,
    failing_file = function() require "fails" end,
    -- What is raised.
    cdata = function() error(ffi.new("uint64_t", 7)) end,
    userdata = function() error(newproxy(true)) end,
    raises_in_tostring = function()
        error(setmetatable({}, { __tostring = function() error("again") end }))
    end,
    tostring_overflows = function()
        local function f() return 1 + f() end
        error(setmetatable({}, { __tostring = f }))
    end,
    tostring_yields = function()
        error(setmetatable({}, { __tostring = function() coroutine.yield() end }))
    end,
    no_string_index = function()
        local mt = getmetatable("")
        local index = mt.__index
        mt.__index = nil
        local ok, err = pcall(function() return ("x"):rep(3) end)
        mt.__index = index
        error(err, 0)
    end,
    no_traceback = function()
        local traceback = debug.traceback
        debug.traceback = function() error("no") end
        local ok, err = pcall(error, "still told of", 0)
        debug.traceback = traceback
        error(err, 0)
    end,
    xpcall_fails = function() error(select(2, xpcall(error, function() error("in a handler") end)), 0) end,
    huge = function() error(("m"):rep(1024 * 1024), 0) end,
    lines = function() error("first\n2026/01/01 00:00:00 [emerg] 1#1: forged\nlast", 0) end,
    nul = function() error("before\0after", 0) end,
    -- Memory, within what LuaJIT can give at all.
    huge_string = function() return ("x"):rep(2 ^ 31 - 1) end,
    huge_concat = function()
        local s = ("x"):rep(64 * 1024 * 1024)
        return table.concat({ s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s,
            s, s, s, s, s, s, s, s, s })
    end,
    huge_table = function() return require "table.new"(2 ^ 30, 0) end,
    huge_cdata = function() return ffi.new("char[?]", 2 ^ 31) end,
    many_locals = function() return unpack({}, 1, 1e7) end,
    -- The API in places of its own.
    exit_in_pcall = function()
        pcall(function() return ngx.exit(500) end)
        error("after exit", 0)
    end,
    exit_in_coroutine = function()
        coroutine.wrap(function() ngx.exit(500) end)()
        error("after exit", 0)
    end,
    peer_in_coroutine = function()
        coroutine.wrap(function()
            require("ngx.balancer").set_current_peer("127.0.0.1", PORT)
            error("after the peer", 0)
        end)()
    end,
    api_in_tostring = function()
        error(setmetatable({}, { __tostring = function() return "at " .. ngx.var.uri end }))
    end,
    ok = function() end,
    ok_coroutine = function()
        local co = coroutine.wrap(function()
            local ok = pcall(coroutine.yield, 1)
            require("ngx.balancer").set_current_peer("127.0.0.1", PORT)
        end)
        co() co()
    end,
}
local case = ngx.var.arg_case
cases[case]()
if case ~= "ok_coroutine" then
    require("ngx.balancer").set_current_peer("127.0.0.1", PORT)
end
EOC
$lua =~ s/PORT/port(1)/ge;

my %message = (
    in_coroutine => qr/inside/,
    yield_over_pcall => qr/as it is to be/,
    callback => qr/in a callback/,
    broken_file => qr/error loading module 'broken' from file/,
    failing_file => qr/while it is loaded/,
    cdata => qr/7ULL/,
    userdata => qr/\(error object is a userdata value\)/,
    no_string_index => qr/attempt to index|attempt to call/,
    no_traceback => qr/still told of/,
    huge => qr/m{1000,}/,
    nul => qr/before\\x00after/,
    lines => qr/first\n/,
    huge_string => qr/not enough memory/,
    huge_concat => qr/not enough memory/,
    (map { $_ => qr/after exit/ } qw(exit_in_pcall exit_in_coroutine)),
    peer_in_coroutine => qr/after the peer/,
    api_in_tostring => qr{at /},
);
# A coroutine in a coroutine without end takes memory until there is none, of the C stack too.
my %needs_limit = map { $_ => 1 } qw(deep_coroutines deep_resume);
my @cases = grep !/^ok/, sort $lua =~ /^    (\w+) = function/mg;

for my $settings ('', 'lua_code_cache off;', 'lua_memory_limit 64m; balancer_by_lua_timeout 10s;') {
    my $name = $settings || 'by default';
    my $worker;
    $nginx->conf(<<"EOC");
$settings
lua_package_path "\$prefix/lua/?.lua;;";
init_worker_by_lua_block { error(setmetatable({}, { __tostring = function() return "init_worker fails" end })) }
upstream backend {
    balancer_by_lua_block {
$lua
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    add_header X-Worker \$pid always;
    location / { proxy_pass http://backend; }
}
server { listen 127.0.0.1:${\port(1)}; return 200 "peer one"; }
EOC
    $nginx->start;
    my $serves = sub {
        my ($case, $what) = @_;
        my $answer = $nginx->get("/?case=$case", port(0));
        my ($pid) = $answer->{head} =~ /^X-Worker: (\d+)/m;
        $worker //= $pid // 'none';
        is("$answer->{body} " . ($pid // 'none'), "peer one $worker", "$name: $what") or diag(substr $nginx->log, -1500);
    };
    $serves->('ok', 'init_worker has failed, the worker serves');
    like($nginx->log, qr/\[error\] .*init_worker_by_lua error: init_worker fails/, "$name: which is told");
    for my $case (grep { $settings =~ /memory/ || !$needs_limit{$_} } @cases) {
        my $before = length $nginx->log;
        my $answer = $nginx->get("/?case=$case", port(0));
        my ($pid) = $answer->{head} =~ /^X-Worker: (\d+)/m;
        is("$answer->{status} " . ($pid // 'none'), "500 $worker", "$name: $case costs its request");
        my $log = substr $nginx->log, $before;
        is(scalar(() = $log =~ /failed to run balancer_by_lua/g), 1, "$name: $case: one error line") or diag(substr $log, 0, 1500);
        my $message = $message{$case} // qr/./;
        like($log, qr/failed to run balancer_by_lua\*: .*?$message/s, "$name: $case: with its message");
        unlike($log, qr{^2026/01/01}m, "$name: $case: no line is forged");
        cmp_ok(length $log, '<', 8192, "$name: $case: of bounded length");
        $serves->('ok', "after $case");
    }
    $serves->('ok_coroutine', 'a coroutine that yields across pcall and sets the peer');
    unlike($nginx->log, qr/exited on signal|internal error/, "$name: nothing worse");
    $nginx->stop;
}

done_testing();

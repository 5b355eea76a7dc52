# Errors while the balancer runs: what is logged, what is answered, and that the worker goes on.

use strict;
use warnings;

use lib 't/lib';
use Cases;
use Nginx;
use Test::More;

my $nginx = Nginx->new;

$nginx->write('lua/file.lua', <<'EOC');
local function fail()
    error("from a file")
end
return fail
EOC

my $lua = <<'EOC';
local cases = {
    text = function() error("a text") end,
    no_place = function() error("a text", 0) end,
    number = function() error(42) end,
    plain_number = function() error(42, 0) end,
    empty = function() error("") end,
    bytes = function() error("a\0b 100%s", 0) end,
    long = function() error("begin " .. ("x"):rep(5000), 0) end,
    null = function() error(nil) end,
    nothing = function() error() end,
    bool = function() error(false) end,
    table = function() error({ code = 7 }) end,
    func = function() error(print) end,
    thread = function() error(coroutine.create(print)) end,
    userdata = function() error(newproxy()) end,
    cdata = function() error(require("ffi").new("int[1]")) end,
    told = function()
        error(setmetatable({ code = 7 }, { __tostring = function(e) return "code " .. e.code end }))
    end,
    told_no_text = function()
        error(setmetatable({}, { __tostring = function() return {} end }))
    end,
    told_fails = function()
        error(setmetatable({}, { __tostring = function() error("in tostring") end }))
    end,
    index = function() local t; return t.x end,
    call = function() undefined_function() end,
    arithmetic = function() return 1 + {} end,
    compare = function() return 1 < "2" end,
    concat = function() return "a" .. {} end,
    require_none = function() require "no.such.module" end,
    in_file = function() require "file" () end,
    depth = function() local function f() return 1 + f() end f() end,
    memory = function() return ("x"):rep(2^31 - 1) end,
    coroutine = function()
        local co = coroutine.wrap(function() error("in a coroutine") end)
        co()
    end,
    yield = function() coroutine.yield() end,
    after = function()
        require("ngx.balancer").set_current_peer("127.0.0.1", PORT)
        error("after the peer was set")
    end,
    ok = function() end,
    caught = function()
        local ok, err = pcall(error, { code = 7 })
        assert(not ok and err.code == 7)
        ok, err = xpcall(function() error("x", 0) end, function(e) return e .. "y" end)
        assert(not ok and err == "xy")
    end,
}
cases[ngx.var.arg_case]()
require("ngx.balancer").set_current_peer("127.0.0.1", PORT)
EOC
$lua =~ s/PORT/port(1)/ge;

$nginx->conf(qq{lua_package_path "\$prefix/lua/?.lua;;";\n} . backend($lua));
$nginx->start;
serves($nginx, 'ok', 'at first');
my ($worker) = $nginx->workers;

my %messages = (
    text => qr/balancer_by_lua\(nginx\.conf:8\):3: a text/,
    no_place => qr/a text/,
    number => qr/balancer_by_lua\(nginx\.conf:8\):5: 42/,
    plain_number => qr/42\n/,
    empty => qr/balancer_by_lua\(nginx\.conf:8\):7: \n/,
    bytes => qr/a\\x00b 100%s\nstack/,
    long => qr/begin x{1000,}/,
    null => qr/\(error object is a nil value\)/,
    nothing => qr/\(error object is a nil value\)/,
    bool => qr/\(error object is a boolean value\)/,
    table => qr/\(error object is a table value\)/,
    func => qr/\(error object is a function value\)/,
    thread => qr/\(error object is a thread value\)/,
    userdata => qr/\(error object is a userdata value\)/,
    cdata => qr/cdata<int \(?\[1\]\)?>: 0x[0-9a-f]+/,
    told => qr/code 7/,
    told_no_text => qr/\(error object is a table value\)/,
    told_fails => qr/./,
    index => qr/balancer_by_lua\(nginx\.conf:8\):\d+: attempt to index local 't' \(a nil value\)/,
    call => qr/balancer_by_lua\(nginx\.conf:8\):\d+: attempt to call global 'undefined_function' \(a nil value\)/,
    arithmetic => qr/balancer_by_lua\(nginx\.conf:8\):\d+: attempt to perform arithmetic on a table value/,
    compare => qr/balancer_by_lua\(nginx\.conf:8\):\d+: attempt to compare number with string/,
    concat => qr/balancer_by_lua\(nginx\.conf:8\):\d+: attempt to concatenate a table value/,
    require_none => qr/balancer_by_lua\(nginx\.conf:8\):\d+: module 'no\.such\.module' not found:/,
    in_file => qr{\S*/lua/file\.lua:2: from a file},
    # LuaJIT does not always have the stack left to tell of it: a plain xpcall gets the same.
    # LuaJIT tells no place where the stack ends in compiled code.
    depth => qr/(?:balancer_by_lua\(nginx\.conf:8\):\d+: )?stack overflow|error in error handling/,
    memory => qr/not enough memory/,
    coroutine => qr/balancer_by_lua\(nginx\.conf:8\):\d+: .*in a coroutine/,
    yield => qr/.*attempt to yield (?:across C-call boundary|from outside a coroutine)/,
    after => qr/balancer_by_lua\(nginx\.conf:8\):\d+: after the peer was set/,
);
my %no_traceback = map { $_ => 1 } qw(long told_fails depth memory);

for my $case (sort keys %messages) {
    my $log = fails($nginx, $case, 'errors');
    like($log, qr{\[error\] \d+#\Q$worker\E: \*\d+ failed to run balancer_by_lua\*: $messages{$case}},
        "$case: the error is logged with its value");
    if (!$no_traceback{$case}) {
        like($log, qr{\nstack traceback:\n(?:\t.*\n)*\tbalancer_by_lua\(nginx\.conf:8\):\d+: in function <balancer_by_lua\(nginx\.conf:8\):1>},
            "$case: with a traceback");
    }
    like($log, qr{while connecting to upstream, client: 127\.0\.0\.1, server: , request: "GET /\?case=$case HTTP/1\.1"},
        "$case: with the request");
    serves($nginx, 'ok', "after $case");
}

serves($nginx, 'caught', 'an error that the code catches is its own affair');

# The stack must be as it was, however many errors there were.
$nginx->get('/?case=' . (qw(text table told null))[$_ % 4], port(0)) for 1 .. 200;
serves($nginx, 'ok', 'after 200 errors');

unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error/, 'no worker died, nothing worse than an error');
unlike($nginx->log, qr/0\.0\.0\.1/, 'nobody was dialled in vain');

done_testing();

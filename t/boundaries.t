# What Lua can do wrong: each costs its request at most, and never the worker.

use strict;
use warnings;

use lib 't/lib';
use Cases;
use Nginx;
use Test::More;
use Verdict;

my $nginx = Nginx->new;
$nginx->write('lua/broken.lua', "local a =\n= 1\n");
$nginx->write('lua/fails.lua', 'error("while it is loaded")');

my $lua = <<'EOC';
local ffi = require "ffi"
local function proxy(finalizer)
    local new = newproxy(true)
    getmetatable(new).__gc = finalizer
    return new
end
-- A compiled loop, until the collector has come round twice: the first time with its finalizers.
local function allocate()
    local seen, last = setmetatable({}, { __mode = "v" })
    for _ = 1, 2 do
        seen[1] = {}
        repeat
            for i = 1, 10000 do last = { i } end
        until not seen[1]
    end
    return last
end
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
    -- The same by way of all that may stand between two coroutines.
    deep_wrap_in_pcall = function()
        local function f() local ok, err = pcall(coroutine.wrap(f)) error(err, 0) end
        f()
    end,
    deep_wrap_in_xpcall = function()
        local function f() local ok, err = xpcall(coroutine.wrap(f), function(e) return e end) error(err, 0) end
        f()
    end,
    deep_wrap_in_handler = function()
        local deepest
        local function f()
            local ok, err = pcall(coroutine.wrap(function() return xpcall(error, f) end))
            deepest = deepest or not ok and err
        end
        f()
        error(deepest, 0)
    end,
    deep_wrap_in_gsub = function()
        local function f() return (("x"):gsub("x", function() return coroutine.wrap(f)() end)) end
        f()
    end,
    deep_wrap_as_callback = function()
        local function f() return (("x"):gsub("x", coroutine.wrap(f))) end
        f()
    end,
    deep_wrap_in_sort = function()
        local function f() table.sort({ 1, 2, 3 }, coroutine.wrap(f)) end
        f()
    end,
    deep_wrap_in_index = function()
        local t = setmetatable({}, {})
        getmetatable(t).__index = function(_, k) return coroutine.wrap(function() return t[k] end)() end
        return t.x
    end,
    deep_wrap_in_tostring = function()
        local t = setmetatable({}, {})
        getmetatable(t).__tostring = function()
            return coroutine.wrap(function() return ("%s"):format(t) end)()
        end
        return tostring(t)
    end,
    deep_wrap_in_load = function()
        local function f() assert(load(coroutine.wrap(f))) end
        f()
    end,
    deep_wrap_in_callback = function()
        local cb
        cb = ffi.cast("int (*)(int)", function() return coroutine.wrap(function() return cb(1) end)() end)
        local ok, err = pcall(cb, 1)
        cb:free()
        error(err, 0)
    end,
    deep_mixture = function()
        local n = 0
        local function f()
            n = n + 1
            if n % 3 == 0 then return (("x"):gsub("x", f)) end
            if n % 3 == 1 then return coroutine.wrap(f)() end
            local ok, err = pcall(f)
            error(err, 0)
        end
        f()
    end,
    -- Coroutines that were begun side by side, and go on within one another.
    deep_chain = function()
        local chain = {}
        for i = 1, 5000 do
            chain[i] = coroutine.wrap(function()
                coroutine.yield()
                return chain[i + 1] and chain[i + 1]()
            end)
            chain[i]()
        end
        chain[1]()
    end,
    deep_sieve = function()
        local function filter(prime, numbers)
            return coroutine.wrap(function()
                for n in numbers do if n % prime ~= 0 then coroutine.yield(n) end end
            end)
        end
        local numbers = coroutine.wrap(function() for n = 2, 1e15 do coroutine.yield(n) end end)
        while true do numbers = filter(numbers(), numbers) end
    end,
    deep_compiled = function()
        local n = 0
        local function f()
            for i = 1, 200 do n = n + i % 3 end
            return assert(coroutine.resume(coroutine.create(f)))
        end
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
    -- The most levels that LuaJIT's own stack has room for.
    deep_gsub_direct = function()
        local gsub = string.gsub
        local function f(x) return gsub(x, "x", f) end
        f("x")
    end,
    deep_format = function()
        local format, t = string.format, setmetatable({}, {})
        getmetatable(t).__tostring = function() return format("%s", t) end
        return tostring(t)
    end,
    deep_foreach = function() local function f() table.foreach({ 1 }, f) end f() end,
    deep_reader = function() local function f() assert(load(f)) end f() end,
    deep_require = function()
        local n = 0
        local function f() n = n + 1 require("none" .. n) end
        setmetatable(package.preload, { __index = function() return f end })
        local ok, err = pcall(f)
        setmetatable(package.preload, nil)
        error(err, 0)
    end,
    deep_callback = function()
        local cb
        cb = ffi.cast("int (*)(int)", function() return 1 + cb(1) end)
        local ok, err = pcall(cb, 1)
        cb:free()
        error(err, 0)
    end,
    deep_call = function()
        local t = setmetatable({}, {})
        getmetatable(t).__call = function() return 1 + t() end
        return t()
    end,
    deep_concat = function()
        local t = setmetatable({}, {})
        getmetatable(t).__concat = function() return 1 + (t .. t) end
        return t .. t
    end,
    deep_compare = function()
        local mt = {}
        local a, b = setmetatable({}, mt), setmetatable({}, mt)
        mt.__lt = function() table.sort({ a, b }) return true end
        return a < b
    end,
    deep_tables = function() assert(loadstring("return " .. ("{"):rep(1e5) .. ("}"):rep(1e5))) end,
    deep_blocks = function() assert(loadstring(("do "):rep(1e5) .. ("end "):rep(1e5))) end,
    deep_powers = function() assert(loadstring("return " .. ("a^"):rep(1e5) .. "a")) end,
    deep_pattern = function() return ("a"):rep(1e5):find((".-"):rep(1e5) .. "b") end,
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
    -- Errors in finalizers cost nothing but a line.
    gc_proxy = function() proxy(function() error("of a proxy") end) collectgarbage() end,
    gc_proxies = function()
        for _ = 1, 1000 do proxy(function() error("of proxies") end) end
        allocate()
    end,
    gc_proxy_of_proxy = function()
        newproxy(proxy(function() error("of a shared metatable") end))
        collectgarbage()
    end,
    gc_cdata = function()
        local function finalizer() error("of cdata") end
        for _ = 1, 1000 do ffi.gc(ffi.new("int[4]"), finalizer) end
        allocate()
    end,
    gc_metatype = function()
        local new = ffi.metatype(ffi.typeof("struct { int n; }"), { __gc = function() error("of a type") end })
        for _ = 1, 1000 do new() end
        allocate()
    end,
    gc_no_function = function() ffi.gc(ffi.new("int[1]"), "text") collectgarbage() end,
    gc_c_function = function()
        ffi.cdef "size_t strlen(const char *)"
        ffi.gc(ffi.new("int[1]"), ffi.C.strlen)
        collectgarbage()
    end,
    gc_in_coroutine = function()
        coroutine.wrap(function()
            for _ = 1, 1000 do proxy(function() error("within a coroutine") end) end
            allocate()
        end)()
    end,
    gc_in_gsub = function()
        for _ = 1, 1000 do proxy(function() error("within gsub") end) end
        local _ = ("x"):rep(1000):gsub("x", function() return ("y"):rep(10000) end)
        collectgarbage()
    end,
    gc_in_recursion = function()
        local function finalizer() error("within a recursion") end
        local function f() ffi.gc(ffi.new("int[4]"), finalizer) return 1 + f() end
        pcall(f)
        collectgarbage()
    end,
    gc_nested = function()
        for _ = 1, 10 do proxy(function() collectgarbage() error("with others in it") end) end
        collectgarbage()
    end,
    gc_overflows = function()
        proxy(function() local function f() return 1 + f() end f() end)
        collectgarbage()
    end,
    gc_coroutines = function()
        local function again()
            proxy(function() coroutine.wrap(again)() end)
            collectgarbage()
            collectgarbage()
        end
        again()
    end,
    gc_yields = function() proxy(coroutine.yield) coroutine.wrap(collectgarbage)() end,
    gc_no_memory = function() proxy(function() return ("x"):rep(2 ^ 31 - 1) end) collectgarbage() end,
    gc_nothing = function() proxy(function() error() end) collectgarbage() end,
    gc_table = function() proxy(function() error({}) end) collectgarbage() end,
    gc_text = function()
        proxy(function() error(setmetatable({}, { __tostring = function() return "told" end })) end)
        collectgarbage()
    end,
    gc_tostring = function()
        proxy(function() error(setmetatable({}, { __tostring = error })) end)
        collectgarbage()
    end,
    gc_lines = function()
        proxy(function() error("first\n2026/01/01 00:00:00 [emerg] 1#1: forged", 0) end)
        collectgarbage()
    end,
    ok = function() end,
    ok_finalizers = function()
        local got = {}
        local function note(object, more) got[#got + 1] = type(object) return object, more end
        local p = proxy(note)
        local one, two = getmetatable(p).__gc(p, 2)
        assert(one == p and two == 2 and getmetatable(newproxy(p)) == getmetatable(p))
        p, one = nil, nil
        local n = ffi.new("int[1]")
        assert(ffi.gc(n, note) == n and ffi.gc(n, nil) == n)
        n = nil
        local mt = { __gc = note, __index = { twice = function(self) return 2 * self.n end } }
        local new = ffi.metatype(ffi.typeof("struct { int n; }"), mt)
        assert(new(4):twice() == 8)
        collectgarbage() collectgarbage()
        assert(table.concat(got, " ") == "userdata cdata userdata userdata"
            or table.concat(got, " ") == "userdata userdata userdata cdata", table.concat(got, " "))
        getmetatable(newproxy(true)).__gc = nil
        assert(newproxy() and newproxy(false) and not getmetatable(newproxy(false)))
        for _, bad in ipairs { { ffi.gc }, { ffi.gc, 1 }, { ffi.gc, 1, note }, { ffi.gc, ffi.new("int[1]") },
                { ffi.metatype, "int" }, { newproxy, "text" } } do
            assert(not pcall(unpack(bad)))
        end
    end,
    ok_deep_finalizers = function()
        local n = 0
        local function again()
            n = n + 1
            if n < 500 then
                proxy(again)
                collectgarbage()
            end
        end
        again()
        assert(n == 500, n)
    end,
    ok_coroutines = function()
        local create, resume, wrap, yield = coroutine.create, coroutine.resume, coroutine.wrap, coroutine.yield
        local function gives(n, ...)
            assert(select("#", ...) == n, select("#", ...))
            return ...
        end
        -- Values, nil among them, in each direction.
        local co = create(function(...)
            gives(3, ...)
            local a, b = gives(2, yield(nil, ..., nil))
            assert(a == nil and b == 5)
            return nil, nil
        end)
        assert(select(2, gives(4, resume(co, nil, 2, nil))) == nil and coroutine.status(co) == "suspended")
        gives(3, resume(co, nil, 5))
        assert(coroutine.status(co) == "dead")
        local function is(what, ...)
            local _, err = gives(2, ...)
            assert(_ == false and err == what, tostring(err))
        end
        is("cannot resume dead coroutine", resume(co))
        is("cannot resume dead coroutine", resume(co, 1, 2))
        local itself
        itself = create(function() return resume(itself) end)
        assert(select(3, resume(itself)) == "cannot resume running coroutine")
        local outer
        outer = create(function()
            return resume(create(function() return coroutine.status(outer), resume(outer) end))
        end)
        local t = { resume(outer) }
        assert(t[3] == "normal" and t[4] == false and t[5] == "cannot resume running coroutine")
        -- Errors: anything, unchanged, and a text with the places that it came by.
        for _, value in ipairs { 1, true, {}, print } do
            is(value, resume(create(error), value, 0))
            is(value, pcall(wrap(error), value, 0))
        end
        is(nil, pcall(wrap(error)))
        local here = debug.getinfo(1, "S").short_src
        local line = debug.getinfo(1, "l").currentline + 1
        local ok, err = pcall(function() wrap(function() error("text") end)() end)
        assert(err == ("%s:%d: %s:%d: text"):format(here, line, here, line), err)
        is("bad argument #1 to '?' (coroutine expected)", pcall(resume))
        is("bad argument #1 to '?' (function expected, got no value)", pcall(wrap))
        is("cannot resume dead coroutine", pcall((function()
            local f = wrap(function() end)
            f()
            return f
        end)()))
        is("bad argument #1 to 'resume' (coroutine expected)", pcall(function()
            local ok, err = pcall(function() local x = coroutine.resume(1) return x end)
            error(err:gsub("^.-:%d+: ", ""), 0)
        end))
        -- Many values, and not too many coroutines within one another.
        gives(7001, resume(create(function(...) return ... end), unpack({}, 1, 7000)))
        local function nest(n) return n == 0 and 0 or 1 + wrap(nest)(n - 1) end
        assert(nest(1000) == 1000 and not pcall(nest, 1001))
        for _ = 1, 3 do
            local function f() return wrap(f)() end
            is("C stack overflow", pcall(f))
        end
        assert(nest(1000) == 1000)
        local n = 0
        for i, square in wrap(function() for i = 1, 1000 do yield(i, i * i) end end) do
            assert(square == i * i)
            n = n + 1
        end
        assert(n == 1000)
        is("bad argument #3 to '?' (string/function/table expected)", pcall(string.gsub, "a", "b"))
        assert(("hello"):gsub("(l)(l)", "%2-%1", 1) == "hel-lo")
        local level = create(function() local x = yield() end)
        resume(level)
        assert(debug.traceback(level):find("'yield'", 1, true))
    end,
    ok_coroutine = function()
        local co = coroutine.wrap(function()
            local ok = pcall(coroutine.yield, 1)
            require("ngx.balancer").set_current_peer("127.0.0.1", PORT)
        end)
        co() co()
    end,
}
local case = ngx.var.arg_case
if case:find("^deep_wrap") or ({ deep_chain = 1, deep_reader = 1, deep_sieve = 1 })[case] then
    -- The text has grown by a place at each coroutine: its end tells.
    local ok, err = pcall(cases[case])
    error(tostring(err):sub(-40), 0)
end
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
my @cases = grep !/^(?:ok|gc)_?/, sort $lua =~ /^    (\w+) = function/mg;
for (grep /^deep_/, @cases) {
    $message{$_} //= /^deep_(?:load|tables|blocks|powers)$/ ? qr/chunk has too many syntax levels|attempt to call a nil value/
        : /^deep_pattern$/ ? qr/pattern too complex/
        # Where there is no room for a traceback either.
        : qr/stack overflow|error in error handling/;
}

my %finalizer = (
    gc_proxy => qr/of a proxy/,
    gc_proxies => qr/of proxies/,
    gc_proxy_of_proxy => qr/of a shared metatable/,
    gc_cdata => qr/of cdata/,
    gc_metatype => qr/of a type/,
    gc_no_function => qr/attempt to call a string value/,
    gc_c_function => qr/cannot convert 'int \[1\]' to 'const char \*'/,
    gc_in_coroutine => qr/within a coroutine/,
    gc_in_gsub => qr/within gsub/,
    gc_in_recursion => qr/within a recursion/,
    gc_nested => qr/with others in it/,
    gc_overflows => qr/stack overflow/,
    gc_coroutines => qr/C stack overflow/,
    gc_yields => qr/attempt to yield/,
    gc_no_memory => qr/not enough memory/,
    gc_nothing => qr/\(error object is a nil value\)/,
    gc_table => qr/\(error object is a table value\)/,
    gc_text => qr/told/,
    gc_tostring => qr/\(error object is a table value\)/,
    gc_lines => qr/first\n/,
);

my $small_stack = '# with a stack of 8 MB';
for my $settings ('', 'lua_code_cache off;', 'lua_memory_limit 64m; balancer_by_lua_timeout 10s;', $small_stack) {
    my $name = $settings || 'by default';
    # No worker can have more, then; this process neither, until it ends.
    $settings eq $small_stack && system("prlimit --stack=8388608:8388608 --pid $$") && die 'no prlimit';
    $nginx->conf(<<"EOC" . backend($lua));
$settings
lua_package_path "\$prefix/lua/?.lua;;";
init_worker_by_lua_block { error(setmetatable({}, { __tostring = function() return "init_worker fails" end })) }
EOC
    $nginx->start;
    serves($nginx, 'ok', "$name: init_worker has failed, the worker serves");
    like($nginx->log, qr/\[error\] .*init_worker_by_lua error: init_worker fails/, "$name: which is told");
    for my $case (grep { $settings ne $small_stack || /^deep_/ } @cases) {
        my $log = fails($nginx, $case, $name);
        is(scalar(() = $log =~ /failed to run balancer_by_lua/g), 1, "$name: $case: one error line") or diag(substr $log, 0, 1500);
        my $message = $message{$case} // qr/./;
        like($log, qr/failed to run balancer_by_lua\*: .*?$message/s, "$name: $case: with its message");
        unlike($log, qr{^2026/01/01}m, "$name: $case: no line is forged");
        cmp_ok(length $log, '<', 8192, "$name: $case: of bounded length");
        serves($nginx, 'ok', "$name: after $case");
    }
    for my $case (grep { $settings ne $small_stack || /coroutines/ } sort keys %finalizer) {
        my $before = length $nginx->log;
        serves($nginx, $case, "$name: $case");
        # A VM of the request's own has its finalizers run when it is closed.
        my $line = qr/\[error\] .*lua balancer: error in a finalizer \(__gc\): .*?$finalizer{$case}/;
        ok((poll { substr($nginx->log, $before) =~ $line }), "$name: $case: is told")
            or diag(substr $nginx->log, $before, 1500);
        serves($nginx, 'ok', "$name: after $case");
        my $log = substr $nginx->log, $before;
        unlike($log, qr/failed to run|ERROR in finalizer/, "$name: $case: and nothing else");
        unlike($log, qr{^2026/01/01}m, "$name: $case: no line is forged");
    }
    serves($nginx, 'ok_finalizers', "$name: finalizers without errors");
    serves($nginx, 'ok_deep_finalizers', "$name: finalizers within finalizers");
    serves($nginx, 'ok_coroutines', "$name: coroutines are what they are in LuaJIT");
    serves($nginx, 'ok_coroutine', "$name: a coroutine that yields across pcall and sets the peer");
    unlike($nginx->said, qr/exited on signal|internal error|ERROR in finalizer/, "$name: nothing worse");
    $nginx->stop;
}

# Finalizers of the phases without a request, and those that are left for the end of a process.
my $collect = 'for i = 1, 1e6 do last = { i } end collectgarbage()';
$nginx->conf(<<"EOC");
init_by_lua_block {
    local function finalizer(when) return function() error("finalizer " .. when) end end
    function proxy(when) local new = newproxy(true) getmetatable(new).__gc = finalizer(when) return new end
    kept = { proxy("at the end"), require("ffi").gc(require("ffi").new("int[1]"), finalizer("at the very end")) }
    proxy("of init") $collect
}
init_worker_by_lua_block { proxy("of init_worker") $collect }
upstream backend { balancer_by_lua_block { require("ngx.balancer").set_current_peer("127.0.0.1", ${\port(1)}) } }
server { listen 127.0.0.1:${\port(0)}; location / { proxy_pass http://backend; } }
server { listen 127.0.0.1:${\port(1)}; return 200 "peer one"; }
EOC
my $run = accepts($nginx, 'a finalizer fails in init_by_lua');
like($run->{out}, qr/\[error\] .*error in a finalizer \(__gc\): .*finalizer of init\b/, 'and it is told');
$nginx->start;
is($nginx->get('/', port(0))->{body}, 'peer one', 'the worker serves');
$nginx->stop;
is($?, 0, 'a clean end');
like($nginx->said, qr/\[error\] .*error in a finalizer \(__gc\): .*finalizer $_\b/, "told: $_")
    for 'of init', 'of init_worker';
# In the worker and in the master.
for my $when ('at the end', 'at the very end') {
    is($nginx->logged("finalizer $when"), 2, "told twice: $when");
}
unlike($nginx->said, qr/exited on signal|ERROR in finalizer|\[alert\]/, 'and nothing worse');

done_testing();

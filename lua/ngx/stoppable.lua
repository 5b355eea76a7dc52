-- Keeps machine code from looping, for balancer_by_lua_timeout: what stops a run is a hook, which
-- LuaJIT's interpreter looks at and machine code does not. Code that runs straight to its end
-- stays compiled; a trace that could go on to itself or to another one is thrown away, and the
-- function that it starts in is interpreted from then on.

local jit = require "jit"
local util = require "jit.util"

local attach, flush, off = jit.attach, jit.flush, jit.off
local pcall, traceinfo = pcall, util.traceinfo

-- Where a trace may lead: out of machine code. "stitch" is a C function, called by the
-- interpreter; the trace that starts behind it is another one.
local out = { ["return"] = true, interpreter = true, stitch = true }

local start, parent    -- of the trace that is being recorded
local theirs           -- a handler that code has attached itself (jit.v, jit.dump)

local function on_trace(what, trace, func, pc, other, exit)
    if what == "start" then
        start, parent = func, other
    elseif what == "stop" then
        local ok, info = pcall(traceinfo, trace)
        -- Without memory nothing is known of it.
        if not (ok and info and out[info.linktype]) then
            off(start)
            if parent then
                -- A side trace goes only with the trace that it belongs to, and links of others.
                flush()
            end
        end
    end
    if theirs then
        theirs(what, trace, func, pc, other, exit)
    end
end

function jit.attach(func, event)
    if event == "trace" then
        theirs = func
        return
    end
    if event == nil and func == theirs then
        theirs = nil
    end
    return attach(func, event)
end

off(on_trace)
flush()
attach(on_trace, "trace")

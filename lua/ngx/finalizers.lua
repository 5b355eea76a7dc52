-- Keeps the errors of finalizers (`__gc`) where they are: LuaJIT raises them in whatever code the
-- collector has come to run in, and where that was machine code, its release of Debian 12 ends
-- the process. Each finalizer that Lua code gives runs in pcall, and what it raises is logged.

local ffi = require "ffi"

local log, log_level = ffi.C.ngx_http_lua_ffi_log, ffi.C.ngx_http_lua_ffi_log_level
local getmetatable, pcall, rawget, rawset = getmetatable, pcall, rawget, rawset
local setmetatable, tostring, type = setmetatable, tostring, type
local of_any = debug.getmetatable
local ERR = ngx.ERR

local PREFIX = "lua balancer: error in a finalizer (__gc): "
local NO_ROOM = PREFIX .. "(no room for its message)"

local function write(text)
    if ERR <= log_level() then
        log(ERR, text, #text)
    end
end

-- Worded as the messages of chunks are.
local function write_error(value)
    local kind, told, text = type(value), true, value
    if kind ~= "string" and kind ~= "number" then
        local mt = of_any(value)
        told = mt and rawget(mt, "__tostring")
        if told then
            told, text = pcall(tostring, value)
        end
        if not told or type(text) ~= "string" then
            text = "(error object is a " .. kind .. " value)"
        end
    end
    write(PREFIX .. text)
end

local function ended(ok, ...)
    if ok then
        return ...
    end
    -- Memory may be short, and the stack.
    if not pcall(write_error, (...)) then
        pcall(write, NO_ROOM)
    end
end

-- Those in use, by what they protect.
local protectors = setmetatable({}, { __mode = "kv" })

local function protect(finalizer)
    local protector = protectors[finalizer]
    if not protector then
        protector = function(...)
            return ended(pcall(finalizer, ...))
        end
        protectors[finalizer] = protector
    end
    return protector
end

-- For the metatables of proxies. LuaJIT itself sees no metatable of a metatable.
local guard = {
    __newindex = function(mt, name, value)
        if name == "__gc" and type(value) ~= "nil" then
            value = protect(value)
        end
        rawset(mt, name, value)
    end,
}

local new, gc, metatype = newproxy, ffi.gc, ffi.metatype

function newproxy(...)
    local proxy = new(...)
    if ... == true then
        setmetatable(getmetatable(proxy), guard)
    end
    return proxy
end

function ffi.gc(cdata, ...)
    -- Without a second argument it is an error, which is LuaJIT's to tell.
    if type((...)) == "nil" then
        return gc(cdata, ...)
    end
    return gc(cdata, protect((...)))
end

function ffi.metatype(ctype, mt, ...)
    if type(mt) == "table" and type(rawget(mt, "__gc")) ~= "nil" then
        rawset(mt, "__gc", protect(mt.__gc))
    end
    return metatype(ctype, mt, ...)
end

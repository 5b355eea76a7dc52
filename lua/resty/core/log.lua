-- ngx.log and print: lines in nginx's error log.

local ffi = require "ffi"
local base = require "resty.core.base"

ffi.cdef [[
int ngx_http_lua_ffi_log_level(void);
void ngx_http_lua_ffi_log(int level, const char *text, size_t len);
]]

local C = ffi.C
local concat, select, type, tostring = table.concat, select, type, tostring
local getinfo, getmetatable, traceback = debug.getinfo, debug.getmetatable, debug.traceback
local rawget = rawget
local floor = math.floor

-- The arguments as one string. Runs two levels below the user's code.
local function text_of(name, first, ...)
    local parts = {}
    for i = 1, select("#", ...) do
        local arg = select(i, ...)
        local kind = type(arg)

        if kind == "string" or kind == "number" then
            parts[i] = arg
        elseif kind == "nil" or kind == "boolean" then
            parts[i] = tostring(arg)
        elseif kind == "table" then
            local mt = getmetatable(arg)
            if not (mt and rawget(mt, "__tostring")) then
                error("bad argument #" .. first + i - 1 .. " to '" .. name
                      .. "' (expected table to have __tostring metamethod)", 4)
            end
            parts[i] = tostring(arg)
        elseif arg == ngx.null then
            parts[i] = "null"
        else
            error("bad argument #" .. first + i - 1 .. " to '" .. name
                  .. "' (string, number, boolean, or nil expected, got " .. kind .. ")", 4)
        end
    end
    return concat(parts)
end

-- `[lua] file:line: function(): `, of the code `level` levels up.
local function place(level)
    local info = getinfo(level + 1, "Snl")
    if not info then
        return "[lua] "
    end
    local source = info.short_src
    if info.source:sub(1, 1) == "@" then
        source = source:match("[^/]*$")
    end
    local place = "[lua] " .. source .. ":" .. info.currentline .. ": "
    if info.namewhat ~= "" and info.what == "Lua" and info.name then
        place = place .. info.name .. "(): "
    end
    return place
end

local function write(level, name, first, ...)
    local text = place(3) .. text_of(name, first, ...)
    C.ngx_http_lua_ffi_log(level, text, #text)
end

function ngx.log(level, ...)
    if type(level) ~= "number" or level ~= floor(level) then
        error("bad argument #1 to 'log' (number expected, got "
              .. (level == nil and "no value" or type(level)) .. ")", 2)
    end
    if level < ngx.STDERR or level > ngx.DEBUG then
        error("bad argument #1 to 'log' (bad log level: " .. level .. ")", 2)
    end
    if level <= C.ngx_http_lua_ffi_log_level() then
        write(level, "log", 2, ...)
    end
end

function print(...)
    if ngx.NOTICE <= C.ngx_http_lua_ffi_log_level() then
        write(ngx.NOTICE, "print", 1, ...)
    end
end

-- A warning of what the code that called the caller does: its place in front, its stack behind.
local function warn_caller(text)
    local level = 3
    local info = getinfo(level, "S")
    while info and info.what == "C" do
        level = level + 1
        info = getinfo(level, "S")
    end
    if ngx.WARN <= C.ngx_http_lua_ffi_log_level() then
        text = place(level) .. traceback(text, level)
        C.ngx_http_lua_ffi_log(ngx.WARN, text, #text)
    end
end

return { version = base.version, warn_caller = warn_caller }

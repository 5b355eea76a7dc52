-- Time, as nginx has it: taken once an iteration of the event loop.

local ffi = require "ffi"
local base = require "resty.core.base"

ffi.cdef [[
long ngx_http_lua_ffi_time(void);
double ngx_http_lua_ffi_now(void);
void ngx_http_lua_ffi_update_time(void);
]]

local C = ffi.C
local tonumber = tonumber

-- Seconds since the epoch.
function ngx.time()
    return tonumber(C.ngx_http_lua_ffi_time())
end

-- Seconds since the epoch, with milliseconds.
function ngx.now()
    return tonumber(C.ngx_http_lua_ffi_now())
end

-- Asks the system for the time.
function ngx.update_time()
    C.ngx_http_lua_ffi_update_time()
end

return { version = base.version }

-- ngx.exit: ends the request, or only this try.

local ffi = require "ffi"
local base = require "resty.core.base"

ffi.cdef [[
int ngx_http_lua_ffi_exit(ngx_http_request_t *r, int status, unsigned char *err, size_t *errlen);
]]

local C = ffi.C
local error, type = error, type
local floor = math.floor

-- Takes effect when the chunk ends, as in lua-nginx-module: write `return ngx.exit(...)`.
function ngx.exit(status)
    if type(status) ~= "number" or status ~= floor(status) or status < -6 or status > 999 then
        error("bad argument #1 to 'exit' (status code expected, got "
              .. (type(status) == "number" and status or type(status)) .. ")", 2)
    end
    local err, len = base.get_string_buf(128), base.get_size_ptr()
    len[0] = 128
    local rc = C.ngx_http_lua_ffi_exit(base.get_request(), status, err, len)
    if rc == base.FFI_ERROR then
        error(ffi.string(err, len[0]), 2)
    end
end

return { version = base.version }

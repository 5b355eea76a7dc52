-- ngx.var: the request's variables.

local ffi = require "ffi"
local base = require "resty.core.base"

ffi.cdef [[
int ngx_http_lua_ffi_var_get(ngx_http_request_t *r, const char *name_data, size_t name_len,
    char *lowcase_buf, int capture_id, char **value, size_t *value_len, char **err);
int ngx_http_lua_ffi_var_set(ngx_http_request_t *r, const unsigned char *name_data,
    size_t name_len, unsigned char *lowcase_buf, const unsigned char *value, size_t value_len,
    unsigned char *errbuf, size_t *errlen);
]]

local C = ffi.C
local type, tostring, error = type, tostring, error
local get_request = base.get_request
local errmsg = base.get_errmsg_ptr()
local size_ptr = base.get_size_ptr()
local value_ptr = ffi.new("char *[1]")

local function get(self, name)
    local r = get_request()
    if not r then
        error("no request found", 2)
    end

    local rc
    if type(name) == "number" then
        rc = C.ngx_http_lua_ffi_var_get(r, nil, 0, nil, name, value_ptr, size_ptr, errmsg)
    elseif type(name) == "string" then
        rc = C.ngx_http_lua_ffi_var_get(r, name, #name, nil, 0, value_ptr, size_ptr, errmsg)
    else
        error("bad variable name", 2)
    end

    if rc == base.FFI_OK then
        return ffi.string(value_ptr[0], size_ptr[0])
    end
    if rc == base.FFI_ERROR then
        error(ffi.string(errmsg[0]), 2)
    end
end

local function set(self, name, value)
    local r = get_request()
    if not r then
        error("no request found", 2)
    end
    if type(name) ~= "string" then
        error("bad variable name", 2)
    end
    if value ~= nil and type(value) ~= "string" then
        if type(value) ~= "number" then
            error("bad argument #3 to 'variable assignment' (string, number, or nil expected, got "
                  .. type(value) .. ")", 2)
        end
        value = tostring(value)
    end

    local err = base.get_string_buf(256)
    size_ptr[0] = 256
    local rc = C.ngx_http_lua_ffi_var_set(r, name, #name, nil, value, value and #value or 0, err,
                                          size_ptr)
    if rc ~= base.FFI_OK then
        error(ffi.string(err, size_ptr[0]), 2)
    end
end

ngx.var = setmetatable({}, { __index = get, __newindex = set })

return { version = base.version }

-- ngx.req: the request as the peer is to see it. A change takes effect with
-- balancer.recreate_request().

local ffi = require "ffi"
local base = require "resty.core.base"

ffi.cdef [[
int ngx_http_lua_ffi_req_nth_header(ngx_http_request_t *r, size_t n, ngx_str_t *name,
    ngx_str_t *value, char **err);
int ngx_http_lua_ffi_req_set_headers(ngx_http_request_t *r, const char *name, size_t name_len,
    const ngx_str_t *values, size_t count, char **err);
int ngx_http_lua_ffi_req_method(ngx_http_request_t *r, ngx_str_t *name, char **err);
int ngx_http_lua_ffi_req_set_body_data(ngx_http_request_t *r, const char *data, size_t len,
    char **err);
int ngx_http_lua_ffi_req_body_data(ngx_http_request_t *r, char *buf, size_t *len, char **err);
]]

local C = ffi.C
local str = ffi.string
local error, type, tostring = error, type, tostring
local current = base.current
local errmsg = base.get_errmsg_ptr()
local size_ptr = base.get_size_ptr()
local name_ptr, value_ptr = ffi.new("ngx_str_t[1]"), ffi.new("ngx_str_t[1]")

local req = {}

local function check(rc)
    if rc == -1 then
        error(str(errmsg[0]), 3)
    end
    return rc
end

local function text(value, what)
    local kind = type(value)
    if kind == "number" then
        return tostring(value)
    end
    if kind ~= "string" then
        error("bad " .. what .. " (string expected, got " .. kind .. ")", 3)
    end
    return value
end

local function set(name, values)
    local list
    if #values > 0 then
        list = ffi.new("ngx_str_t[?]", #values)
        for i, value in ipairs(values) do
            -- `values` keeps the strings alive until the call has returned
            list[i - 1].data, list[i - 1].len = value, #value
        end
    end
    return C.ngx_http_lua_ffi_req_set_headers(current.request, name, #name, list, #values, errmsg)
end

-- Sets a header to a string, a number or a table of them; nil or an empty table takes it away.
function req.set_header(name, value)
    name = text(name, "argument #1 to 'set_header'")
    if name == "" then
        error("bad argument #1 to 'set_header' (the name is empty)", 2)
    end
    local values = {}
    if type(value) == "table" then
        for i, one in ipairs(value) do
            values[i] = text(one, "argument #2 to 'set_header'")
        end
    elseif value ~= nil then
        values[1] = text(value, "argument #2 to 'set_header'")
    end
    check(set(name, values))
end

-- Takes a header away.
function req.clear_header(name)
    check(set(text(name, "argument #1 to 'clear_header'"), {}))
end

-- Any spelling finds a header: X_Foo, x-foo.
local any_case = {
    __index = function(headers, key)
        if type(key) == "string" then
            return rawget(headers, (key:lower():gsub("_", "-")))
        end
    end,
}

-- All headers: lower-case names, a table where a header comes more than once.
function req.get_headers(max, raw)
    max = max or 100
    local headers = {}
    for n = 0, max == 0 and 0x7fffffff or max - 1 do
        local rc = C.ngx_http_lua_ffi_req_nth_header(current.request, n, name_ptr, value_ptr,
                                                     errmsg)
        if check(rc) ~= 0 then
            break
        end
        local name = str(name_ptr[0].data, name_ptr[0].len)
        local value = str(value_ptr[0].data, value_ptr[0].len)
        if not raw then
            name = name:lower()
        end
        local before = rawget(headers, name)
        if before == nil then
            headers[name] = value
        elseif type(before) == "table" then
            before[#before + 1] = value
        else
            headers[name] = { before, value }
        end
    end
    return raw and headers or setmetatable(headers, any_case)
end

function req.get_method()
    check(C.ngx_http_lua_ffi_req_method(current.request, name_ptr, errmsg))
    return str(name_ptr[0].data, name_ptr[0].len)
end

-- Replaces the body, and Content-Length with it.
function req.set_body_data(data)
    data = text(data, "argument #1 to 'set_body_data'")
    check(C.ngx_http_lua_ffi_req_set_body_data(current.request, data, #data, errmsg))
end

-- The body; nil without one, or when it is in a file.
function req.get_body_data()
    local rc = C.ngx_http_lua_ffi_req_body_data(current.request, nil, size_ptr, errmsg)
    if check(rc) ~= 0 then
        return nil
    end
    local buf = base.get_string_buf(tonumber(size_ptr[0]))
    check(C.ngx_http_lua_ffi_req_body_data(current.request, buf, size_ptr, errmsg))
    return str(buf, size_ptr[0])
end

ngx.req = req

return { version = base.version }

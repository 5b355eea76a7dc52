-- What every file of the API uses: the running call, and buffers for results.

local ffi = require "ffi"

ffi.cdef [[
typedef struct ngx_http_request_s ngx_http_request_t;

typedef struct {
    size_t                len;
    const unsigned char  *data;
} ngx_str_t;

typedef struct {
    ngx_http_request_t  *request;
    int                  phase;
} ngx_http_lua_balancer_current_t;

extern ngx_http_lua_balancer_current_t ngx_http_lua_balancer_current;
]]

local current = ffi.C.ngx_http_lua_balancer_current

local _M = {
    version = "0.1.32",

    FFI_OK = 0, FFI_ERROR = -1, FFI_AGAIN = -2, FFI_BUSY = -3, FFI_DONE = -4, FFI_DECLINED = -5,
    FFI_ABORT = -6, FFI_NO_REQ_CTX = -100, FFI_BAD_CONTEXT = -101,
}

-- LuaJIT itself has these two since 2.1; OpenResty's code expects them here.
_M.new_tab = require "table.new"
_M.clear_tab = require "table.clear"

-- The request that is served, nil in the phases without one: a null pointer equals nil, but is true.
function _M.get_request()
    local r = current.request
    if r ~= nil then
        return r
    end
end

-- The running call: `request` and `phase`, read anew at each access.
_M.current = current

local errmsg = ffi.new("char *[1]")

function _M.get_errmsg_ptr()
    return errmsg
end

local size_ptr = ffi.new("size_t[1]")

function _M.get_size_ptr()
    return size_ptr
end

local buf_size = 4096
local buf

function _M.get_string_buf_size()
    return buf_size
end

function _M.set_string_buf_size(size)
    if size > 0 then
        buf, buf_size = nil, math.ceil(size)
    end
end

-- A buffer of at least `size` bytes; the next call may return the same one.
function _M.get_string_buf(size, must_alloc)
    if size > buf_size or must_alloc then
        return ffi.new("char[?]", size)
    end
    if not buf then
        buf = ffi.new("char[?]", buf_size)
    end
    return buf
end

function _M.allows_subsystem(...)
    for i = 1, select("#", ...) do
        if select(i, ...) == "http" then
            return
        end
    end
    error("unsupported subsystem: http", 2)
end

-- Keeps `key` in `tb` and returns its number: luaL_ref's algorithm, whose free list starts at
-- index 0, so that luaL_unref releases it.
function _M.ref_in_table(tb, key)
    if key == nil then
        return -1
    end
    local ref = tb[0]
    if ref and ref ~= 0 then
        tb[0] = tb[ref]
    else
        ref = #tb + 1
    end
    tb[ref] = key
    return ref
end

return _M

-- ngx.ctx: a table of the request's own, made when it is first used.

local ffi = require "ffi"
local base = require "resty.core.base"

ffi.cdef [[
int ngx_http_lua_ffi_get_ctx_ref(ngx_http_request_t *r);
int ngx_http_lua_ffi_set_ctx_ref(ngx_http_request_t *r, int ref);
]]

local C = ffi.C
local error, type = error, type
local get_request = base.get_request

-- All tables in use, by the number that the request keeps; the module releases them.
local tables = debug.getregistry().ngx_lua_ctx_tables

local function keep(r, ctx)
    local ref = base.ref_in_table(tables, ctx)
    if C.ngx_http_lua_ffi_set_ctx_ref(r, ref) ~= base.FFI_OK then
        error("no memory", 3)
    end
end

-- Called with a tail call: the level above is the user's code.
local function get()
    local r = get_request()
    if not r then
        error("no request found", 2)
    end
    local ref = C.ngx_http_lua_ffi_get_ctx_ref(r)
    if ref > 0 then
        return tables[ref]
    end
    local ctx = {}
    keep(r, ctx)
    return ctx
end

local function set(ctx)
    local r = get_request()
    if not r then
        error("no request found", 3)
    end
    if type(ctx) ~= "table" then
        error("ctx should be a table while getting a " .. type(ctx), 3)
    end
    local ref = C.ngx_http_lua_ffi_get_ctx_ref(r)
    if ref > 0 then
        tables[ref] = ctx
    else
        keep(r, ctx)
    end
end

setmetatable(ngx, {
    __index = function(_, key)
        if key == "ctx" then
            return get()
        end
    end,
    __newindex = function(self, key, value)
        if key == "ctx" then
            set(value)
        else
            rawset(self, key, value)
        end
    end,
})

return { version = base.version }

-- Builds the global table `ngx`: constants here, each namespace in its own file.
-- Returns what the module itself calls.

local ffi = require "ffi"

ffi.cdef [[
int ngx_http_lua_ffi_nginx_version(void);
int ngx_http_lua_ffi_debug(void);
size_t ngx_http_lua_ffi_prefix(const char **data);
]]

local C = ffi.C

ngx = {
    OK = 0, ERROR = -1, AGAIN = -2, BUSY = -3, DONE = -4, DECLINED = -5, ABORT = -6,

    STDERR = 0, EMERG = 1, ALERT = 2, CRIT = 3, ERR = 4, WARN = 5, NOTICE = 6, INFO = 7, DEBUG = 8,

    HTTP_GET = 0x2, HTTP_HEAD = 0x4, HTTP_POST = 0x8, HTTP_PUT = 0x10, HTTP_DELETE = 0x20,
    HTTP_MKCOL = 0x40, HTTP_COPY = 0x80, HTTP_MOVE = 0x100, HTTP_OPTIONS = 0x200,
    HTTP_PROPFIND = 0x400, HTTP_PROPPATCH = 0x800, HTTP_LOCK = 0x1000, HTTP_UNLOCK = 0x2000,
    HTTP_PATCH = 0x4000, HTTP_TRACE = 0x8000,

    HTTP_CONTINUE = 100, HTTP_SWITCHING_PROTOCOLS = 101,
    HTTP_OK = 200, HTTP_CREATED = 201, HTTP_ACCEPTED = 202, HTTP_NO_CONTENT = 204,
    HTTP_PARTIAL_CONTENT = 206,
    HTTP_SPECIAL_RESPONSE = 300, HTTP_MOVED_PERMANENTLY = 301, HTTP_MOVED_TEMPORARILY = 302,
    HTTP_SEE_OTHER = 303, HTTP_NOT_MODIFIED = 304, HTTP_TEMPORARY_REDIRECT = 307,
    HTTP_PERMANENT_REDIRECT = 308,
    HTTP_BAD_REQUEST = 400, HTTP_UNAUTHORIZED = 401, HTTP_PAYMENT_REQUIRED = 402,
    HTTP_FORBIDDEN = 403, HTTP_NOT_FOUND = 404, HTTP_NOT_ALLOWED = 405, HTTP_NOT_ACCEPTABLE = 406,
    HTTP_REQUEST_TIMEOUT = 408, HTTP_CONFLICT = 409, HTTP_GONE = 410,
    HTTP_UPGRADE_REQUIRED = 426, HTTP_TOO_MANY_REQUESTS = 429, HTTP_CLOSE = 444,
    HTTP_ILLEGAL = 451,
    HTTP_INTERNAL_SERVER_ERROR = 500, HTTP_NOT_IMPLEMENTED = 501,
    HTTP_METHOD_NOT_IMPLEMENTED = 501, HTTP_BAD_GATEWAY = 502, HTTP_SERVICE_UNAVAILABLE = 503,
    HTTP_GATEWAY_TIMEOUT = 504, HTTP_VERSION_NOT_SUPPORTED = 505,
    HTTP_INSUFFICIENT_STORAGE = 507,
}

local prefix = ffi.new("const char *[1]")

ngx.config = {
    subsystem = "http",
    debug = C.ngx_http_lua_ffi_debug() == 1,
    nginx_version = C.ngx_http_lua_ffi_nginx_version(),
    -- the release of lua-nginx-module that the API follows
    ngx_lua_version = 10029,
    prefix = function()
        local len = C.ngx_http_lua_ffi_prefix(prefix)
        return ffi.string(prefix[0], len)
    end,
}

-- Chunks start with `require "ngx.balancer"`, which LuaJIT does not compile: what is loaded is
-- found here. A module that is being loaded has a userdata in its place.
local loaded, load, type = package.loaded, require, type

function require(name)
    local module = loaded[name]
    if module and type(module) ~= "userdata" then
        return module
    end
    return load(name)
end

require "resty.core"
require "ngx.finalizers"

return { guard_globals = require "resty.core.globals" }

-- ngx.balancer: the peer of a try, and how it is tried.

local ffi = require "ffi"
local base = require "resty.core.base"

ffi.cdef [[
int ngx_http_lua_ffi_balancer_set_current_peer(ngx_http_request_t *r, const unsigned char *addr,
    size_t addr_len, int port, const unsigned char *host, ssize_t host_len, char **err);
]]

local C = ffi.C
local str = ffi.string
local error, type, tonumber, tostring, find = error, type, tonumber, tostring, string.find
local floor = math.floor
local current = base.current
local errmsg = base.get_errmsg_ptr()

local _M = { version = base.version }

local function bad(n, name, why)
    return nil, "bad argument #" .. n .. " to '" .. name .. "' (" .. why .. ")"
end

-- The port as a number from 1 to 65535, 0 where the address has it; nil and why not.
local function port_of(port)
    if port == nil then
        return 0
    end
    local n = port
    if type(n) == "string" then
        n = find(n, "^%d+$") and tonumber(n)
    elseif type(n) ~= "number" then
        return bad(2, "set_current_peer", "number expected, got " .. type(port))
    end
    if n and n >= 1 and n <= 65535 and n == floor(n) then
        return n
    end
    return bad(2, "set_current_peer",
               "port from 1 to 65535 expected, got " .. tostring(port))
end

-- Connects this try to `addr`: an IPv4 or IPv6 address, with or without port, or unix:/path.
-- Returns true, or nil and why not.
function _M.set_current_peer(addr, port, host)
    if type(addr) ~= "string" then
        return bad(1, "set_current_peer", "string expected, got " .. type(addr))
    end

    if type(port) ~= "number" or port < 1 or port > 65535 or port ~= floor(port) then
        local err
        port, err = port_of(port)
        if not port then
            return nil, err
        end
    end

    if host ~= nil and type(host) ~= "string" then
        error("bad argument #3 to 'set_current_peer' (string expected, got " .. type(host) .. ")",
              2)
    end

    local rc = C.ngx_http_lua_ffi_balancer_set_current_peer(current.request, addr, #addr, port,
                                                            host, host and #host or 0, errmsg)
    if rc == 0 then
        return true
    end
    return nil, str(errmsg[0])
end

return _M

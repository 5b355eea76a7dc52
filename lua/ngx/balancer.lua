-- ngx.balancer: the peer of a try, and how it is tried.

local ffi = require "ffi"
local base = require "resty.core.base"

ffi.cdef [[
int ngx_http_lua_ffi_balancer_set_current_peer(ngx_http_request_t *r, const unsigned char *addr,
    size_t addr_len, int port, const unsigned char *host, ssize_t host_len, char **err);

int ngx_http_lua_ffi_balancer_set_pool(ngx_http_request_t *r, const unsigned char *name,
    size_t name_len, long size, char **err);
int ngx_http_lua_ffi_balancer_enable_keepalive(ngx_http_request_t *r, unsigned long timeout,
    unsigned int max_requests, char **err);
int ngx_http_lua_ffi_balancer_set_keepalive_time(ngx_http_request_t *r, unsigned long time,
    char **err);

typedef struct {
    const unsigned char  *addr;
    size_t                addr_len;
    const unsigned char  *host;
    size_t                host_len;
    int                   port;
} ngx_http_lua_ffi_candidate_t;

int ngx_http_lua_ffi_balancer_set_peers(ngx_http_request_t *r,
    const ngx_http_lua_ffi_candidate_t *peers, size_t count, size_t *bad, char **err);
int ngx_http_lua_ffi_balancer_set_more_tries(ngx_http_request_t *r, int count, char **err);
int ngx_http_lua_ffi_balancer_get_last_failure(ngx_http_request_t *r, int *status, char **err);
int ngx_http_lua_ffi_balancer_get_tried(ngx_http_request_t *r, size_t n,
    const unsigned char **name, size_t *name_len, int *status, char **err);
int ngx_http_lua_ffi_balancer_set_timeouts(ngx_http_request_t *r, long connect_timeout,
    long send_timeout, long read_timeout, char **err);
int ngx_http_lua_ffi_balancer_recreate_request(ngx_http_request_t *r, char **err);
int ngx_http_lua_ffi_balancer_set_upstream_tls(ngx_http_request_t *r, int on, char **err);
int ngx_http_lua_ffi_balancer_set_ssl_verify(ngx_http_request_t *r, int on, int depth, char **err);
int ngx_http_lua_ffi_balancer_set_ssl_cert(ngx_http_request_t *r, const unsigned char *cert,
    size_t cert_len, const unsigned char *key, size_t key_len, char **err);
int ngx_http_lua_ffi_balancer_set_ssl_trusted(ngx_http_request_t *r, const unsigned char *pem,
    size_t pem_len, char **err);
int ngx_http_lua_ffi_balancer_bind_to_local_addr(ngx_http_request_t *r,
    const unsigned char *addr, size_t addr_len, unsigned char *errbuf, size_t *errbuf_size);
]]

local C = ffi.C
local str = ffi.string
local error, type, tonumber, tostring, find = error, type, tonumber, tostring, string.find
local floor = math.floor
local current = base.current
local errmsg = base.get_errmsg_ptr()
local size_ptr = base.get_size_ptr()
local int_ptr = ffi.new("int[1]")

local _M = { version = base.version }

local function bad(n, name, why)
    return "bad argument #" .. n .. " to '" .. name .. "' (" .. why .. ")"
end

local function done(rc)
    if rc == 0 then
        return true
    end
    return nil, str(errmsg[0])
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
        return nil, "number expected, got " .. type(port)
    end
    if n and n >= 1 and n <= 65535 and n == floor(n) then
        return n
    end
    return nil, "port from 1 to 65535 expected, got " .. tostring(port)
end

-- The options of the table form: a name, and a pool with its limit (-1 is none).
local function options(table)
    local host, pool, size = table.host, table.pool, table.pool_size
    if host ~= nil and type(host) ~= "string" then
        error(bad(3, "set_current_peer", "host: string expected, got " .. type(host)), 3)
    end
    if pool ~= nil and type(pool) ~= "string" then
        error(bad(3, "set_current_peer", "pool: string expected, got " .. type(pool)), 3)
    end
    if size ~= nil then
        if type(size) ~= "number" then
            error(bad(3, "set_current_peer", "pool_size: number expected, got " .. type(size)), 3)
        end
        if not (size >= 1 and size == floor(size) and size <= 0x7fffffff) then
            error(bad(3, "set_current_peer", "pool_size: integer >= 1 expected, got " .. size), 3)
        end
    end
    return host, pool, size or -1
end

-- Connects this try to `addr`: an IPv4 or IPv6 address, with or without port, or unix:/path.
-- `host` is the name for SNI and certificate verification, or a table of `host`, `pool` (a name
-- for a part of the pool) and `pool_size` (how many idle connections that part may have).
-- Returns true, or nil and why not.
function _M.set_current_peer(addr, port, host)
    if type(addr) ~= "string" then
        return nil, bad(1, "set_current_peer", "string expected, got " .. type(addr))
    end

    if type(port) ~= "number" or not (port >= 1 and port <= 65535 and port == floor(port)) then
        local err
        port, err = port_of(port)
        if not port then
            return nil, bad(2, "set_current_peer", err)
        end
    end

    local pool, size
    if type(host) == "table" then
        host, pool, size = options(host)
    elseif host ~= nil and type(host) ~= "string" then
        error(bad(3, "set_current_peer", "string expected, got " .. type(host)), 2)
    end

    local rc = C.ngx_http_lua_ffi_balancer_set_current_peer(current.request, addr, #addr, port,
                                                            host, host and #host or 0, errmsg)
    if rc == 0 and pool then
        rc = C.ngx_http_lua_ffi_balancer_set_pool(current.request, pool, #pool, size, errmsg)
    end
    return done(rc)
end

-- A number that is no less than 0; nil where it is one.
local function wrong_limit(value)
    if type(value) ~= "number" then
        return "number expected, got " .. type(value)
    end
    if not (value >= 0) then
        return "expected >= 0"
    end
    if value > 0x7fffffff then
        return "expected <= 2147483647"
    end
end

-- A whole number that is 0 only for 0: 0 is no limit, which what is merely small is not.
local function whole(value)
    return value > 0 and value < 1 and 1 or value
end

-- Keeps the connection of this try for others: idle for at most `idle_timeout` seconds, for at
-- most `max_requests` requests, and no longer than `keepalive_time` seconds in all. 0 is no limit.
-- Returns true, or nil and why not.
function _M.enable_keepalive(idle_timeout, max_requests, keepalive_time)
    idle_timeout = idle_timeout or 60
    max_requests = max_requests or 100

    local why = wrong_limit(idle_timeout)
    if why then
        error(bad(1, "enable_keepalive", why), 2)
    end
    why = wrong_limit(max_requests)
    if why then
        error(bad(2, "enable_keepalive", why), 2)
    end
    why = keepalive_time and wrong_limit(keepalive_time)
    if why then
        error(bad(3, "enable_keepalive", why), 2)
    end

    local rc = C.ngx_http_lua_ffi_balancer_enable_keepalive(current.request,
                                                            whole(idle_timeout * 1000),
                                                            whole(max_requests), errmsg)
    if rc == 0 and keepalive_time then
        rc = C.ngx_http_lua_ffi_balancer_set_keepalive_time(current.request,
                                                            whole(keepalive_time * 1000), errmsg)
    end
    return done(rc)
end

-- Gives all candidates at once: { { addr, port, host? }, … }. This try takes the first, each
-- retry the next, and Lua does not run again until all were tried.
-- Returns true, or nil and why not.
function _M.set_peers(peers)
    if type(peers) ~= "table" then
        return nil, bad(1, "set_peers", "table expected, got " .. type(peers))
    end
    local count = #peers
    if count == 0 then
        return nil, bad(1, "set_peers", "at least one peer expected")
    end

    local list = ffi.new("ngx_http_lua_ffi_candidate_t[?]", count)
    for i = 1, count do
        local peer = peers[i]
        local where = "peer " .. i .. ": "
        if type(peer) ~= "table" then
            return nil, bad(1, "set_peers", where .. "table expected, got " .. type(peer))
        end
        local addr, host = peer[1] or peer.addr, peer[3] or peer.host
        if type(addr) ~= "string" then
            return nil, bad(1, "set_peers", where .. "address: string expected, got " .. type(addr))
        end
        local port, err = port_of(peer[2] or peer.port)
        if not port then
            return nil, bad(1, "set_peers", where .. err)
        end
        if host ~= nil and type(host) ~= "string" then
            return nil, bad(1, "set_peers", where .. "host: string expected, got " .. type(host))
        end

        -- `peers` keeps the strings alive until the call has returned.
        local entry = list[i - 1]
        entry.addr, entry.addr_len, entry.port = addr, #addr, port
        if host then
            entry.host, entry.host_len = host, #host
        end
    end

    local rc = C.ngx_http_lua_ffi_balancer_set_peers(current.request, list, count, size_ptr, errmsg)
    if rc ~= 0 and size_ptr[0] < count then
        local where = "peer " .. tonumber(size_ptr[0]) + 1 .. ": "
        return nil, bad(1, "set_peers", where .. str(errmsg[0]))
    end
    return done(rc)
end

-- Allows `count` tries more. Returns true, with a text when proxy_next_upstream_tries leaves room
-- for fewer; or nil and why not.
function _M.set_more_tries(count)
    if type(count) ~= "number" then
        error(bad(1, "set_more_tries", "number expected, got " .. type(count)), 2)
    end
    if not (count >= 0 and count == floor(count) and count <= 0x7fffffff) then
        error(bad(1, "set_more_tries", "integer >= 0 expected, got " .. count), 2)
    end
    local rc = C.ngx_http_lua_ffi_balancer_set_more_tries(current.request, count, errmsg)
    if rc == 0 and errmsg[0] ~= nil then
        return true, str(errmsg[0])
    end
    return done(rc)
end

local states = { [2] = "next", [4] = "failed" }

-- How the try before this one ended: "failed" or "next", and its status; nil when this is the
-- first. On an error nil, nil and why.
function _M.get_last_failure()
    local state = C.ngx_http_lua_ffi_balancer_get_last_failure(current.request, int_ptr, errmsg)
    if state == 0 then
        return nil
    end
    if state == -1 then
        return nil, nil, str(errmsg[0])
    end
    return states[state] or "unknown", int_ptr[0]
end

local name_ptr = ffi.new("const unsigned char *[1]")

-- The tries of this request so far, in order: { { addr, state, status }, … }, where `state` is as
-- in get_last_failure. Returns nil and why on an error.
function _M.get_tried()
    local tried = {}
    for n = 0, 0x7fffffff do
        local rc = C.ngx_http_lua_ffi_balancer_get_tried(current.request, n, name_ptr, size_ptr,
                                                         int_ptr, errmsg)
        if rc == -1 then
            return nil, str(errmsg[0])
        end
        if rc ~= 0 then
            return tried
        end
        local status = int_ptr[0]
        tried[n + 1] = {
            addr = str(name_ptr[0], size_ptr[0]),
            -- nginx takes just these two for an answer, and all else for a failure
            state = (status == 403 or status == 404) and "next" or "failed",
            status = status,
        }
    end
end

-- Seconds as milliseconds: 0 for nil, nil for what is no timeout.
local function ms(timeout)
    if timeout == nil then
        return 0
    end
    if type(timeout) ~= "number" or not (timeout > 0 and timeout <= 0x7fffffff) then
        return nil
    end
    timeout = floor(timeout * 1000 + 0.5)
    return timeout > 0 and timeout or 1
end

-- Sets timeouts in seconds, with milliseconds, for this request only; nil keeps the configured one.
-- Returns true, or nil and why not.
function _M.set_timeouts(connect, send, read)
    connect, send, read = ms(connect), ms(send), ms(read)
    if not connect then
        error("bad connect timeout", 2)
    end
    if not send then
        error("bad send timeout", 2)
    end
    if not read then
        error("bad read timeout", 2)
    end
    return done(C.ngx_http_lua_ffi_balancer_set_timeouts(current.request, connect, send, read,
                                                         errmsg))
end

-- Makes the request for the peer anew, after its headers, variables or body have changed.
-- Returns true, or nil and why not.
function _M.recreate_request()
    return done(C.ngx_http_lua_ffi_balancer_recreate_request(current.request, errmsg))
end

-- Turns TLS on or off for this try. Returns true, or nil and why not.
function _M.set_upstream_tls(on)
    if on ~= nil and type(on) ~= "boolean" and type(on) ~= "number" then
        error(bad(1, "set_upstream_tls", "boolean expected, got " .. type(on)), 2)
    end
    if on == nil then
        error(bad(1, "set_upstream_tls", "boolean expected, got no value"), 2)
    end
    on = (on == false or on == 0) and 0 or 1
    return done(C.ngx_http_lua_ffi_balancer_set_upstream_tls(current.request, on, errmsg))
end

-- Turns the verification of the peer's certificate on or off for this try; `depth` is how many
-- certificates may lie between it and a trusted one. Returns true, or nil and why not.
function _M.set_ssl_verify(on, depth)
    if type(on) ~= "boolean" then
        error(bad(1, "set_ssl_verify", "boolean expected, got " .. type(on)), 2)
    end
    if depth ~= nil then
        if type(depth) ~= "number" then
            error(bad(2, "set_ssl_verify", "number expected, got " .. type(depth)), 2)
        end
        if not (depth >= 0 and depth <= 100 and depth == floor(depth)) then
            error(bad(2, "set_ssl_verify", "integer from 0 to 100 expected, got " .. depth), 2)
        end
    end
    return done(C.ngx_http_lua_ffi_balancer_set_ssl_verify(current.request, on and 1 or 0,
                                                           depth or -1, errmsg))
end

-- Shows a certificate of our own to the peer of this try: the certificate with its chain, and its
-- key, both in PEM. Returns true, or nil and why not.
function _M.set_ssl_cert(cert, key)
    if type(cert) ~= "string" then
        error(bad(1, "set_ssl_cert", "string expected, got " .. type(cert)), 2)
    end
    if type(key) ~= "string" then
        error(bad(2, "set_ssl_cert", "string expected, got " .. type(key)), 2)
    end
    return done(C.ngx_http_lua_ffi_balancer_set_ssl_cert(current.request, cert, #cert, key, #key,
                                                         errmsg))
end

-- Trusts the authorities in a PEM, and no others, for this try. Returns true, or nil and why not.
function _M.set_ssl_trusted(pem)
    if type(pem) ~= "string" then
        error(bad(1, "set_ssl_trusted", "string expected, got " .. type(pem)), 2)
    end
    return done(C.ngx_http_lua_ffi_balancer_set_ssl_trusted(current.request, pem, #pem, errmsg))
end

-- Lets the connections of this request come from a local address, "ip" or "ip:port".
-- Returns true, or nil and why not.
function _M.bind_to_local_addr(addr)
    if type(addr) ~= "string" then
        error(bad(1, "bind_to_local_addr", "string expected, got " .. type(addr)), 2)
    end
    local err = base.get_string_buf(256)
    size_ptr[0] = 256
    local rc = C.ngx_http_lua_ffi_balancer_bind_to_local_addr(current.request, addr, #addr, err,
                                                              size_ptr)
    if rc == 0 then
        return true
    end
    return nil, str(err, size_ptr[0])
end

return _M

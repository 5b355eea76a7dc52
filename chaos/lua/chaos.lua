-- How the locations of make chaos choose their peers: in turn, beginning with the one that the
-- request names, three times round. Each round is more patient than the one before: a sick peer is
-- soon left, and a peer that is well but waits for a processor is asked again. An answer that has begun
-- is not asked for again, so there is more patience for reading.

local balancer = require "ngx.balancer"

local chaos = {}

local patience = { 1, 5, 30 }
local rounds = #patience

local function turn(peers)
    local ctx = ngx.ctx
    local n = ctx.tries
    if n then
        n = n + 1
    else
        n = 0
        ctx.first = tonumber(ngx.var.arg_first)
        assert(balancer.set_more_tries(rounds * #peers - 1))
    end
    ctx.tries = n
    local seconds = patience[math.floor(n / #peers) + 1] or patience[rounds]
    assert(balancer.set_timeouts(seconds, seconds, 1.5 * seconds))
    return peers[(ctx.first + n) % #peers + 1], n
end

local function keep()
    local var = ngx.var
    assert(balancer.enable_keepalive(1, tonumber(var.arg_requests) or 0))
end

-- One peer a run. `options`: host, pool, keep, or what the caller does itself with the number of the try.
function chaos.each(peers, options)
    options = options or {}
    local var = ngx.var
    local peer, n = turn(peers)
    if n == 0 and var.arg_decline then
        return ngx.exit(ngx.DECLINED)
    end
    assert(balancer.set_current_peer(peer[1], peer[2], {
        host = options.host and var.arg_host,
        pool = options.pool and var.arg_pool,
        pool_size = options.pool and 2,
    }))
    if options.keep then
        keep()
    end
    return n
end

-- All peers at once, one patience for all.
function chaos.list(peers, options)
    if balancer.get_last_failure() then
        error("the list has ended")
    end
    local var = ngx.var
    local first = tonumber(var.arg_first)
    local list = {}
    for n = 0, rounds * #peers - 1 do
        local peer = peers[(first + n) % #peers + 1]
        list[n + 1] = { peer[1], peer[2], options.host and var.arg_host }
    end
    assert(balancer.set_peers(list))
    assert(balancer.set_timeouts(10, 10, 10))
    if options.keep then
        keep()
    end
end

-- The peers of the server lines. Each of them is tried once only, so it gets all the patience.
function chaos.lines()
    assert(balancer.set_timeouts(30, 30, 30))
end

-- The server lines first, then as `each`.
function chaos.mixed(peers)
    if not balancer.get_last_failure() then
        turn(peers)
        return
    end
    chaos.each(peers)
end

-- TLS in every other try, to peers of their own.
function chaos.switch(tls, plain)
    local peer, n = turn(tls)
    local on = n % 2 == 0
    if not on then
        peer = plain[(ngx.ctx.first + n) % #plain + 1]
    end
    assert(balancer.set_current_peer(peer[1], peer[2], on and ngx.var.arg_host or nil))
    assert(balancer.set_upstream_tls(on))
    keep()
end

function chaos.try(peers)
    chaos.each(peers, { host = true })
    assert(balancer.set_upstream_tls(true))
    assert(balancer.set_ssl_verify(true, 1))
    assert(balancer.set_ssl_trusted(chaos.authority))
end

function chaos.certificate(peers)
    local name = ngx.var.arg_cert
    chaos.each(peers, { host = true })
    if name then
        local certificate = chaos.certificates[name]
        assert(balancer.set_ssl_cert(certificate.cert, certificate.key))
    end
    keep()
end

local function read(name)
    local file = assert(io.open(name))
    local text = file:read("*a")
    file:close()
    return text
end

-- At the start: the authority and the client certificates in this folder.
function chaos.load(folder)
    chaos.authority = read(folder .. "/ca.crt")
    chaos.certificates = {}
    for _, name in ipairs { "one", "two" } do
        chaos.certificates[name] = { cert = read(folder .. "/" .. name .. ".crt"), key = read(folder .. "/" .. name .. ".key") }
    end
end

return chaos

-- The peers of the bench, chosen in turn: what a balancer of somebody's own looks like.
local balancer = require "ngx.balancer"

local _M = {}
local addresses, ports, count, n = {}, {}, 0, 0

function _M.add(address, port)
    count = count + 1
    addresses[count], ports[count] = address, port
end

local function check(ok, err)
    if not ok then
        ngx.log(ngx.ERR, "failed to choose a peer: ", err)
        return ngx.exit(500)
    end
end

function _M.choose()
    n = n % count + 1
    return check(balancer.set_current_peer(addresses[n], ports[n]))
end

function _M.choose_kept()
    n = n % count + 1
    check(balancer.set_current_peer(addresses[n], ports[n]))
    return check(balancer.enable_keepalive(60, 100000000))
end

function _M.choose_timed()
    n = n % count + 1
    check(balancer.set_current_peer(addresses[n], ports[n]))
    return check(balancer.set_timeouts(5, 5, 5))
end

-- The first peer, and the second when that fails.
function _M.retry()
    local peer = 2
    if not balancer.get_last_failure() then
        check(balancer.set_more_tries(1))
        peer = 1
    end
    return check(balancer.set_current_peer(addresses[peer], ports[peer]))
end

return _M

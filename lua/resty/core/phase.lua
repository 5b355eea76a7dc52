-- ngx.get_phase(): the phase that runs.

local base = require "resty.core.base"

local current = base.current

-- in the order of the module's own numbers
local names = { "init", "init_worker", "balancer" }

function ngx.get_phase()
    return names[current.phase] or error("no phase is running", 2)
end

return { version = base.version, BALANCER = 3 }

-- Warns of global variables that are made while requests are served: they are shared by all
-- requests of the worker, which is hardly ever meant.

local warn_caller = require("resty.core.log").warn_caller
local rawset, tostring = rawset, tostring

-- A name that is taken away and made again is told of once, too.
local told = {}

local function warn(globals, name, value)
    rawset(globals, name, value)

    local phase = ngx.get_phase()
    if phase == "init" or phase == "init_worker" or told[name] then
        return
    end
    told[name] = true
    warn_caller("writing a global Lua variable ('" .. tostring(name) .. "') which may lead to "
        .. "race conditions between concurrent requests, so prefer the use of 'local' variables")
end

-- Called after init_by_lua, whose globals are meant.
return function()
    local mt = getmetatable(_G)
    if not mt then
        mt = {}
        setmetatable(_G, mt)
    end
    if mt.__newindex == nil then
        mt.__newindex = warn
    end
end

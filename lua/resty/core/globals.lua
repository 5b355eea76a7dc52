-- Warns of global variables that are made while requests are served: they are shared by all
-- requests of the worker, which is hardly ever meant.

local traceback = debug.traceback
local rawset, tostring = rawset, tostring

local function warn(globals, name, value)
    -- From now on the name exists, so that there is one warning a name.
    rawset(globals, name, value)

    local phase = ngx.get_phase()
    if phase == "init" or phase == "init_worker" then
        return
    end
    ngx.log(ngx.WARN, traceback("writing a global Lua variable ('" .. tostring(name)
        .. "') which may lead to race conditions between concurrent requests, so prefer the use "
        .. "of 'local' variables", 2))
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

-- For wrk: counts who answered.
local threads = {}

function setup(thread)
    threads[#threads + 1] = thread
end

function init()
    bodies = {}
end

function response(status, headers, body)
    bodies[body] = (bodies[body] or 0) + 1
end

function done()
    for _, thread in ipairs(threads) do
        for body, count in pairs(thread:get("bodies")) do
            print("mix " .. count .. " " .. body)
        end
    end
end

-- One document per trace inside Fluent Bit, as it is done without Windrow. For comparison only; see ../README.md for what
-- goes wrong: what is gathered here lies in memory, Fluent Bit counts it as delivered, and a restart loses it.

local MAX_TRACES = 1000        -- beyond this the oldest trace is sent as it is
local MAX_AGE = 30             -- seconds; looked at only when a record comes, Lua filters have no timer
local DONE = "request completed"

local traces = {}              -- trace id -> { first = time, record = merged record, lines = {...} }
local order = {}               -- trace ids, oldest first
local count = 0

local function take(id)
    local trace = traces[id]
    traces[id] = nil
    count = count - 1
    trace.record.message = table.concat(trace.lines, "\n")
    return trace.record
end

local function expired(now, out)
    while #order > 0 do
        local id = order[1]
        local trace = traces[id]
        if trace and count <= MAX_TRACES and now - trace.first < MAX_AGE then
            return
        end
        table.remove(order, 1)
        if trace then
            out[#out + 1] = take(id)
        end
    end
end

function gather(tag, timestamp, record)
    local id = record["traceId"]
    if type(id) ~= "string" or id == "" then
        return 0, timestamp, record
    end
    local out = {}
    local trace = traces[id]
    if not trace then
        trace = { first = timestamp, record = {}, lines = {} }
        traces[id] = trace
        order[#order + 1] = id
        count = count + 1
    end
    for key, value in pairs(record) do
        trace.record[key] = value
    end
    local text = record["message"]
    if type(text) == "string" then
        trace.lines[#trace.lines + 1] = text
        if string.find(text, DONE, 1, true) then
            out[#out + 1] = take(id)
        end
    end
    expired(timestamp, out)
    if #out == 0 then
        return -1, timestamp, record
    end
    return 1, timestamp, out
end

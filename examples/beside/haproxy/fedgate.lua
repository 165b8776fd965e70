-- Asks fedgate about the request. It passes if the answer is 200; any other answer is the client's.

local fedgate = "http://127.0.0.1:8454/"
local timeout_ms = 10000

-- These belong to the connection and the body, which stay here, or are told below.
local kept_back = {
    ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["keep-alive"] = true,
    ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true,
    ["x-original-method"] = true, ["x-original-uri"] = true, ["x-real-ip"] = true, ["x-forwarded-proto"] = true,
}
local identity = {
    "fedgate-account", "fedgate-roles", "fedgate-endpoint", "fedgate-subject", "fedgate-scope", "fedgate-assertion",
    "x-request-id",
}
-- What a client needs of an answer that is not 200.
local answered = { "content-type", "www-authenticate", "retry-after", "allow", "cache-control", "x-request-id" }

core.register_action("fedgate", { "http-req" }, function(txn)
    local told = {}
    for name, values in pairs(txn.http:req_get_headers()) do
        if not kept_back[name] then
            told[name] = {}
            for _, value in pairs(values) do
                table.insert(told[name], value)
            end
        end
    end
    told["x-original-method"] = { txn.f:method() }
    told["x-original-uri"] = { txn.f:pathq() }
    told["x-real-ip"] = { txn.f:src() }
    told["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" }
    local answer = core.httpclient():get({ url = fedgate, headers = told, timeout = timeout_ms })
    if answer and answer.status == 200 then
        for _, name in ipairs(identity) do
            local values = answer.headers[name]
            txn.http:req_set_header(name, values and values[0] or "")
        end
        txn:set_var("txn.fedgate_passes", "yes")
        return
    end
    local reply = txn:reply()
    if not answer or not answer.status or answer.status < 400 then
        reply:set_status(503)
        txn:done(reply)
    end
    reply:set_status(answer.status, answer.reason)
    for _, name in ipairs(answered) do
        if answer.headers[name] then
            reply:add_header(name, answer.headers[name][0])
        end
    end
    reply:set_body(answer.body or "")
    txn:done(reply)
end, 0)

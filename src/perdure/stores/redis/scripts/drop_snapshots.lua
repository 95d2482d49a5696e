-- Delete the summaries of a conversation and of every branch that hangs on it.

local c = conversation(op.conversation)
return reply({ result = c and drop_snapshots(c) or 0 })

-- Conversations are not listed here: summaries are made when they are wanted.

return reply({})

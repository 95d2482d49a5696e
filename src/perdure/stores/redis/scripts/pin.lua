-- Keep a fact; a subject without a conversation gets one.

local c = of_subject(op.subject)
  or new_conversation({
    subject = op.subject, upstream = '', dialect = 'responses', state = 'absent',
  })
return reply({ result = redis.call('RPUSH', c.key .. ':m', op.text) })

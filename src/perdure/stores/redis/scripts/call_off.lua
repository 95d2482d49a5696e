-- Take an intent back.

drop_intent(op.intent)
return reply({})

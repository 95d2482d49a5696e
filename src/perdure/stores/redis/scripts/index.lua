-- There is no index: recall looks at the newest items instead.

return reply({ result = true })

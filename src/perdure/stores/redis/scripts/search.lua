-- There is no index, so nothing is found, and the reader is told that there is none.

return reply({})

-- name: state
SELECT current_setting('server_encoding'), to_regnamespace(%(schema)s) IS NOT NULL,
       obj_description(to_regclass(%(migration)s), 'pg_class')

-- name: foreign
-- A relation in a schema that perdure did not make.
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname LIMIT 1

-- name: applied
SELECT name, digest, version FROM perdure.migration

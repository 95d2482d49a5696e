"""The journal in Redis or Valkey, best effort under failover. Needs the extra ``redis``."""

from perdure.stores.redis.store import RedisStore

__all__ = ["RedisStore"]

"""The log on Redis, which many processes share. It needs the package ``redis``."""

from ssehub.log.redis.log import RedisLog

__all__ = ["RedisLog"]

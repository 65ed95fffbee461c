"""The log on Redis: many processes, one hub. Needs the package ``redis``."""

from ssehub.log.redis.log import RedisLog

__all__ = ["RedisLog"]

"""Board: the comments and their likes, in Redis. Any number of processes and threads share it."""

import secrets
import time

import redis

# Redis runs a script atomically, so no other change can happen between the check and the change. A set counts each
# visitor once, regardless of the number of clicks. A like does not create a missing comment.
# KEYS: the comment, the set of its likes, the ranking. ARGV: SADD or SREM, the visitor, the id of the comment.
CHANGE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
if redis.call(ARGV[1], KEYS[2], ARGV[2]) == 1 then
    redis.call('ZINCRBY', KEYS[3], ARGV[1] == 'SADD' and 1 or -1, ARGV[3])
    redis.call('HINCRBY', KEYS[1], 'version', 1)
end
return {redis.call('HGETALL', KEYS[1]), redis.call('ZSCORE', KEYS[3], ARGV[3])}
"""


class Board:
    """Stores comments and likes.

    A comment is a dictionary with ``id``, ``nickname``, ``content``, ``created_at`` (seconds), ``score`` (number of
    likes) and ``version``. The version increases with each change of the score, so the higher version is the newer.

    :param url: the address of the Redis server.
    :param name: the prefix of the board's keys. Boards with different names can share a server.
    :raises RuntimeError: if Redis does not respond.
    """

    def __init__(self, url, name):
        self._name = name
        self._ranking = self._key("ranking")
        self._redis = redis.Redis.from_url(url, decode_responses=True)
        self._change = self._redis.register_script(CHANGE)
        try:
            self._redis.ping()
        except redis.RedisError as error:
            hint = "Start redis-server, or name another in REDIS_URL."
            raise RuntimeError(f"the board needs a Redis, and does not reach it: {error} {hint}") from None

    def secret(self):
        """Return the key that signs the cookies. It is the same in all processes.

        It is stored next to the data that it protects: a program with write access there can also write likes.
        """
        self._redis.set(self._key("secret"), secrets.token_hex(), nx=True)
        return self._redis.get(self._key("secret"))

    def add(self, nickname, content):
        """Add a comment, and return it."""
        now = time.time()
        # For equal scores, Redis sorts by id, and the greater id is the newer comment.
        id = f"{int(now * 1000):012x}{secrets.token_hex(4)}"
        comment = {"nickname": nickname, "content": content, "created_at": int(now), "version": 0}
        with self._redis.pipeline() as both:  # MULTI: both commands or none
            both.hset(self._key("comment", id), mapping=comment)
            both.zadd(self._ranking, {id: 0})
            both.execute()
        return {"id": id, **comment, "score": 0}

    def like(self, id, visitor, liked):
        """Add or remove the like of a visitor. Repetitions have no effect.

        :returns: the new state of the comment; None if it does not exist.
        """
        keys = [self._key("comment", id), self._key("likes", id), self._ranking]
        found = self._change(keys, ["SADD" if liked else "SREM", visitor, id])
        if found is None:
            return None
        fields, score = found
        return self._comment(id, dict(zip(fields[::2], fields[1::2], strict=True)), score)

    def top(self, limit, visitor):
        """Return the comments with the most likes. ``liked`` tells whether the visitor likes the comment."""
        ids = self._redis.zrevrange(self._ranking, 0, limit - 1)
        with self._redis.pipeline() as all:  # MULTI: reads scores and versions of the same moment
            for id in ids:
                all.hgetall(self._key("comment", id)).zscore(self._ranking, id)
                all.sismember(self._key("likes", id), visitor)
            found = iter(all.execute())
        comments = [
            {**self._comment(id, fields, score), "liked": bool(liked)}
            for id, fields, score, liked in zip(ids, found, found, found, strict=True)
        ]
        return sorted(comments, key=lambda comment: (comment["score"], comment["id"]), reverse=True)

    def _key(self, *parts):
        return ":".join((f"{{{self._name}}}", "board", *parts))

    @staticmethod
    def _comment(id, fields, score):
        numbers = {"created_at": int(fields["created_at"]), "version": int(fields["version"]), "score": int(score)}
        return {"id": id, **fields, **numbers}

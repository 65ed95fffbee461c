"""Link: makes clients for a server or a cluster, as the log needs them."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

#: Connections of a client at the most. A thousand threads may ask at once: they wait for one that is free, which is
#: quicker than to open more. Precedent: redis-py's own number for a pool that waits.
CONNECTIONS = 50
#: To each node of a cluster, where redis-py has no pool that waits: with its own limit, a hundred, the next thread gets
#: an error.
_CONNECTIONS_OF_CLUSTER = 2**31
#: What a client raises when a command fails; the second is for a cluster of which no node answers.
ERRORS = (RedisError, RedisClusterException, OSError)
_CLUSTER = "+cluster://"

Client = redis.Redis | RedisCluster


class Link:
    """Know where the server is. Makes no connection by itself. Immutable.

    :param server: a URL, or a client whose settings are to be used. ``redis+cluster://`` and ``rediss+cluster://`` name
        a node of a cluster.
    :raises ValueError: if the URL is none.
    :raises TypeError: if it is something else.
    """

    def __init__(self, server: str | Client) -> None:
        if not isinstance(server, str | redis.Redis | RedisCluster):
            raise TypeError(f"the server must be a URL or a client of redis-py, not {type(server).__name__}")
        self.is_cluster: bool = isinstance(server, RedisCluster) or (isinstance(server, str) and _CLUSTER in server)
        self._nodes: list[tuple[str, int]] = []
        if isinstance(server, RedisCluster):
            self._nodes = [(node.host, node.port) for node in server.get_nodes()]  # type: ignore[no-untyped-call]
            self._settings = dict(server.get_connection_kwargs())  # type: ignore[no-untyped-call]
            return
        if isinstance(server, str):
            server = _client_of(server.replace(_CLUSTER, "://", 1))
        pool = server.connection_pool
        self._pool_class = pool.connection_class
        self._settings = dict(pool.connection_kwargs)
        if self.is_cluster:
            if self._settings.pop("db", 0):
                raise ValueError("a cluster has only database 0")
            self._nodes = [(self._settings.pop("host", "localhost"), self._settings.pop("port", 6379))]
            self._settings["ssl"] = issubclass(self._pool_class, redis.SSLConnection)

    def connect(self, timeout: float) -> Client:
        """Make a client. One for a cluster asks it at once who it is.

        What redis-py sends again by itself after a lost connection it may have sent before, so that entries came
        twice: it does not.

        :param timeout: seconds for a connection to be made, and for an answer.
        """
        settings = {name: value for name, value in self._settings.items() if not name.startswith("retry")}
        settings |= {"socket_timeout": timeout, "socket_connect_timeout": timeout, "decode_responses": False}
        settings["retry"] = Retry(NoBackoff(), 0)
        if not self.is_cluster:
            pool = redis.BlockingConnectionPool(  # type: ignore[no-untyped-call]
                CONNECTIONS, timeout, self._pool_class, **settings
            )
            return redis.Redis(connection_pool=pool)
        if int(redis.__version__.split(".")[0]) < 6:
            settings["cluster_error_retry_attempts"] = 0
        nodes = [ClusterNode(*node) for node in self._nodes]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, max_connections=_CONNECTIONS_OF_CLUSTER, **settings)


def _client_of(url: str) -> redis.Redis:
    try:
        return redis.Redis.from_url(url)
    except ValueError:  # it may quote a part of the password
        raise ValueError(
            "not a Redis URL. Its scheme is one of the schemes redis://, rediss:// and unix://, its port is a number,"
            " and in a password / ? # and @ are written %2F %3F %23 and %40"
        ) from None


def disconnect(client: Client) -> None:
    """Close a client's connections; threads that are blocked in one get an error."""
    if isinstance(client, RedisCluster):
        client.disconnect_connection_pools()  # type: ignore[no-untyped-call]
    else:
        client.connection_pool.disconnect()

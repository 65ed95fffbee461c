"""Link: makes redis-py clients for a server or a cluster, with the settings that the log needs."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

#: The maximum number of connections of a client. If a thousand threads send at the same time, they wait for a free
#: connection, which is faster than to open more. Precedent: the default of redis-py's BlockingConnectionPool.
CONNECTIONS = 50
#: The maximum number of connections to each node of a cluster: no limit. For clusters, redis-py has no pool in which
#: threads wait; if its limit is reached, the next thread gets an error.
_CONNECTIONS_OF_CLUSTER = 2**31
#: The exceptions of a client if a command fails. RedisClusterException: no node of the cluster answers.
ERRORS = (RedisError, RedisClusterException, OSError)
_CLUSTER = "+cluster://"

Client = redis.Redis | RedisCluster


class Link:
    """The address of a server or a cluster, and the settings of its connections. Immutable. Opens no connection itself.

    :param server: a URL, or a redis-py client whose connection settings are used. The URL of a cluster is that of one
        of its nodes, with the scheme ``redis+cluster://`` or ``rediss+cluster://``.
    :raises ValueError: if the URL is invalid.
    :raises TypeError: if ``server`` is neither a URL nor a client.
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
        """Return a new client. A client for a cluster connects at once, and asks for the nodes.

        redis-py's own retries are off: if a connection is lost after a command was sent, a retry could append the same
        entry twice.

        :param timeout: the maximum number of seconds to wait for a connection, and for an answer.
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
    except ValueError:  # not chained: its text may contain a part of the password
        raise ValueError(
            "not a Redis URL. Its scheme is one of the schemes redis://, rediss:// and unix://, its port is a number,"
            " and in a password / ? # and @ are written %2F %3F %23 and %40"
        ) from None


def disconnect(client: Client) -> None:
    """Close a client's connections. Threads that wait for an answer get an error."""
    if isinstance(client, RedisCluster):
        client.disconnect_connection_pools()  # type: ignore[no-untyped-call]
    else:
        client.connection_pool.disconnect()

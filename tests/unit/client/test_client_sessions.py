"""The client with a user's sessions, adapters and functions, which have the same effect as without the client."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from ssehub import Client, StreamRefused
from tests.scripted import CERTIFICATE, NO_MORE, QUICK, STREAM, Exchange, Server, bodies, held
from tests.streams import GUARD

Follow = Callable[..., Client]
Serve = Callable[..., Server]


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as one:
        yield one


def data(client: Client) -> list[str | None]:
    return [message.data for message in client]


class Counting(requests.Session):
    """A session with state of its own, a part of it in slots."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.tokens: list[str] = []
        self.token = "0"

    def request(self, *args: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        self.calls += 1
        self.token = str(self.calls)
        self.tokens = [*self.tokens, self.token]
        options["headers"] = {**options["headers"], "X-Token": self.token}
        return super().request(*args, **options)


def test_attributes_that_a_session_sets_on_itself_are_kept(follow: Follow) -> None:
    with Counting() as session:
        client = follow(bodies("data: x\n\n", "data: y\n\n"), session=session)
        assert data(client) == ["x", "y"]
        assert (session.calls, session.token, session.tokens) == (3, "3", ["1", "2", "3"])
        sent = [one.headers["x-token"] for one in client.server.requests]  # type: ignore[attr-defined]
        assert sent == session.tokens


def test_later_changes_to_a_session_take_effect(follow: Follow, session: requests.Session) -> None:
    client = follow(bodies("data: x\n\n", "data: y\n\n"), session=session)
    for n, _ in enumerate(client):
        session.headers = {"X-Count": str(n)}  # type: ignore[assignment]
    assert [one.headers.get("x-count") for one in client.server.requests] == [None, "0", "1"]  # type: ignore[attr-defined]


def test_a_session_that_closes_itself_in_del_stays_open(follow: Follow) -> None:
    class Closing(requests.Session):
        def __del__(self) -> None:
            closed.append(1)

    closed: list[int] = []
    session = Closing()
    for _ in range(3):
        data(follow(bodies("data: x\n\n"), session=session))
    assert closed == []
    session.close()


class Adapter(HTTPAdapter):
    """An adapter with a state of its own, some of it in slots, that changes what it may of its connections."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0
        self.seen: list[Any] = []
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        options["block"] = True
        super().init_poolmanager(*args, **options)

    def cert_verify(self, *args: Any) -> None:
        self.seen = [*self.seen, args[1]]
        super().cert_verify(*args)

    def send(self, request: Any, *args: Any, **options: Any) -> requests.Response:
        self.calls += 1
        options["timeout"] = 30
        request.headers["X-Calls"] = str(self.calls)
        return super().send(request, *args, **options)


@pytest.mark.parametrize("kind", [HTTPAdapter, Adapter])
def test_an_adapters_tls_context_and_pool_are_used(
    scripted: Serve, session: requests.Session, kind: type[HTTPAdapter]
) -> None:
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    adapter = kind()
    adapter.max_retries = Retry(2)
    adapter.init_poolmanager(1, 1, ssl_context=context)
    session.mount("https://", adapter)
    session.verify = str(CERTIFICATE)
    versions: list[str] = []

    def script(exchange: Exchange) -> None:
        assert isinstance(exchange.connection, ssl.SSLSocket)
        versions.append(exchange.connection.version() or "")
        exchange.send(NO_MORE)

    server = scripted(script, tls=True)
    Client(server.url, session=session, backoff=QUICK, reconnect_delay=0).run()
    assert versions == ["TLSv1.2"]


def test_what_an_adapter_sets_on_itself_stays_set(follow: Follow, session: requests.Session) -> None:
    adapter = Adapter()
    session.mount("http://", adapter)
    client = follow(bodies("data: x\n\n", "data: y\n\n"), session=session)
    assert data(client) == ["x", "y"]
    assert adapter.calls == 3 and len(adapter.seen) == 3 and session.get_adapter("http://x") is adapter
    assert [one.headers["x-calls"] for one in client.server.requests] == ["1", "2", "3"]  # type: ignore[attr-defined]


def test_the_users_own_requests_get_none_of_the_watched_connections(follow: Follow, session: requests.Session) -> None:
    def script(exchange: Exchange) -> bool:
        exchange.send(NO_MORE)
        return True

    session.mount("http://", Adapter())
    client = follow(script, session=session)
    assert data(client) == []
    server: Server = client.server  # type: ignore[attr-defined]
    session.get(server.url, timeout=30)
    assert server.accepted == 2
    assert {pool.ConnectionCls.response_class.__name__ for pool in _pools(session)} == {
        "HTTPResponse",
        "BoundedResponse",
    }
    session.close()
    assert not _pools(session)


def _pools(session: requests.Session) -> list[Any]:
    pools = session.get_adapter("http://x").poolmanager.pools
    return [pools[key] for key in pools.keys()]  # noqa: SIM118 - it cannot be iterated


def test_streams_do_not_wait_for_each_others_place_in_a_pool(scripted: Serve, session: requests.Session) -> None:
    adapter = Adapter()
    adapter.init_poolmanager(1, 1)
    session.mount("http://", adapter)
    server = scripted(held(STREAM + b"data: x\n\n"))
    clients = [Client(server.url, session=session) for _ in range(3)]
    arrived = [client.subscribe() for client in clients]
    for client in clients:
        client.start()
    assert [one.get(GUARD).data for one in arrived] == ["x"] * 3
    for client in clients:
        assert client.stop(GUARD)


@pytest.mark.parametrize("verify", [False, str(CERTIFICATE)])
def test_the_verify_setting_of_a_session_overrides_the_environment(
    scripted: Serve, session: requests.Session, monkeypatch: pytest.MonkeyPatch, verify: bool | str
) -> None:
    import certifi

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    session.verify = verify
    server = scripted(bodies("data: x\n\n"), tls=True)
    client = Client(server.url, session=session, backoff=QUICK, reconnect_delay=0)
    if verify is False:
        with pytest.warns(Warning, match="Unverified HTTPS"):
            assert data(client) == ["x"]
    else:
        assert data(client) == ["x"]


async def later(*args: Any) -> None:
    """Never run."""


class Later:
    async def __call__(self, *args: Any) -> None:
        """Never run."""


@pytest.mark.parametrize("callback", [later, Later()])
def test_an_async_function_is_refused_immediately(callback: Any) -> None:
    client = Client("http://127.0.0.1/")
    for name in ("on_connection", "on_disconnect", "on_event", "on_error", "on_comment", "on_gap", "on_exit"):
        with pytest.raises(TypeError, match="async"):
            getattr(client, name)(callback)
    with pytest.raises(TypeError, match="async"):
        client.on_event("score", callback)
    for name in ("url", "headers", "params", "body", "json", "auth", "response_callback"):
        with pytest.raises(TypeError, match=f"{name}.*async"):
            Client(**{"url": "http://127.0.0.1/", name: callback})


@pytest.mark.parametrize("id", ["\ud800", "a\udfff", "\udc80b"])
def test_half_a_surrogate_pair_is_refused_immediately(id: str) -> None:
    client = Client("http://127.0.0.1/")
    for give in (lambda: Client("http://127.0.0.1/", last_event_id=id), lambda: client.restart(id)):
        with pytest.raises(ValueError, match="surrogate"):
            give()
    with pytest.raises(ValueError, match="surrogate"):
        client.last_event_id = id


# Redirects


def moved(status: int) -> Callable[[Exchange], None]:
    def script(exchange: Exchange) -> None:
        if exchange.number == 1:
            exchange.send(f"HTTP/1.1 {status} Go\r\nLocation: /new?token=geheim\r\n\r\nnot read".encode())
        else:
            exchange.send(STREAM + b"data: x\n\n" if exchange.target.startswith("/new") else NO_MORE)

    return script


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_can_be_switched_off(follow: Follow, status: int) -> None:
    client = follow(moved(status), allow_redirects=False)
    with pytest.raises(StreamRefused, match=f"{status}.*/new") as caught:
        client.run()
    assert caught.value.response.headers["Location"].startswith("/new") and "geheim" not in str(caught.value)
    assert len(client.server.requests) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(("status", "method", "body"), [(302, "GET", b""), (307, "POST", b"q"), (308, "POST", b"q")])
def test_307_and_308_send_method_and_body_to_the_new_address(
    follow: Follow, status: int, method: str, body: bytes
) -> None:
    client = follow(moved(status), method="POST", body=b"q", headers={"X-Mine": "1"})
    assert data(client) == ["x"]
    second = client.server.requests[1]  # type: ignore[attr-defined]
    assert (second.method, second.body, second.headers["x-mine"]) == (method, body, "1")

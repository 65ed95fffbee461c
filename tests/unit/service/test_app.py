"""The service: its responses and refusals."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from werkzeug.exceptions import Unauthorized

from ssehub import ALL, Hub
from ssehub.service.app import MAX_BODY, MAX_LISTED, create_app
from tests.conftest import Site
from tests.streams import GUARD, call, until

MakeHub = Callable[..., Hub]
Serve = Callable[[Any], Site]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def hub(make_hub: MakeHub) -> Hub:
    return make_hub()


@pytest.fixture
def port(hub: Hub, site: Serve) -> int:
    return site(create_app(hub, public=False)).port


def post(port: int, fields: Any, **headers: str) -> tuple[int, Any]:
    return call(port, "POST", "/send", json.dumps(fields), **{**JSON, **headers})


def test_a_form_and_json_reach_a_client_a_zone_and_all_clients(hub: Hub, site: Serve) -> None:
    here = site(create_app(hub, public=False))
    ada = here.stream("/events?zone=a&client_id=ada")
    bob = here.stream("/events?zone=b&zone=c&client_id=bob")
    assert ada.opened()["client_id"] == "ada" and bob.opened()["client_id"] == "bob"
    answers = [
        call(here.port, "POST", "/send", {"data": "to ada", "client_id": "ada"}),
        call(here.port, "POST", "/send", {"data": "to zone c", "zone": "c", "broadcast": "true", "event": "news"}),
        post(here.port, {"data": "bob in b", "zone": "b", "client_id": "bob", "retry": 5, "comment": "psst"}),
        post(here.port, {"data": "to all", "broadcast": True, "id": "own"}),
    ]
    assert [status for status, _ in answers] == [200] * 4
    assert [answer["queued"] for _, answer in answers] == [1, 1, 1, 2]
    assert answers[3][1]["id"] == "own"
    assert ada.data(2) == ["to ada", "to all"]
    messages = [bob.message() for _ in range(3)]
    assert [(one.event, one.data) for one in messages] == [
        ("news", "to zone c"),
        ("message", "bob in b"),
        ("message", "to all"),
    ]
    assert messages[2].id == "own" and b": psst\n" in bob.raw and bob.decoder.reconnection_time == 5
    for stream in (ada, bob):
        stream.close()


def head(port: int, method: str, path: str, **headers: str) -> tuple[int, Any]:
    """Make one request and return the status and the headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD)
    try:
        connection.request(method, path, None, headers)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers
    finally:
        connection.close()


HOSTILE_FIELDS: list[tuple[Any, str]] = [
    ({}, "nothing"),
    ({"data": "x"}, "addresses nobody"),
    ({"broadcast": True}, "nothing"),
    ({"data": "x", "client_id": "c", "broadcast": True}, "not both"),
    ({"data": "x", "client_id": ""}, "client_id is empty"),
    ({"data": "x", "client_id": None, "broadcast": False}, "addresses nobody"),
    ({"data": "x", "client_id": 7}, "client_id must be a str"),
    ({"data": "x", "zone": "", "broadcast": True}, "zone is empty"),
    ({"data": "x", "zone": None, "broadcast": True}, "zone is None"),
    ({"data": "x", "zone": "a\u0000", "broadcast": True}, "control"),
    ({"data": "x", "broadcast": "yes"}, "broadcast must be a bool"),
    ({"data": {"a": 1}, "broadcast": True}, "from_json"),
    ({"data": "x", "event": "a\nb", "broadcast": True}, "event"),
    ({"data": "x", "event": "a\rb", "broadcast": True}, "event"),
    ({"data": "x", "event": "", "broadcast": True}, "event"),
    ({"data": "x", "event": 7, "broadcast": True}, "event"),
    ({"data": "x", "id": "a\nid: b", "broadcast": True}, "id"),
    ({"data": "x", "id": "a\u0000", "broadcast": True}, "id"),
    ({"data": "x", "id": "", "broadcast": True}, "id is empty"),
    ({"data": "x", "id": "\x0b x", "broadcast": True}, "control"),
    ({"data": "x", "id": "x" * 9000, "broadcast": True}, "255"),
    ({"data": "x", "id": "abc.5.00c0ffee", "broadcast": True}, "cursor"),
    ({"data": "x", "retry": 10**10, "broadcast": True}, "a day"),
    ({"data": "x", "retry": -1, "broadcast": True}, "retry"),
    ({"data": "x", "retry": "5", "broadcast": True}, "retry"),
    ({"data": "x", "retry": 1.5, "broadcast": True}, "retry"),
    ({"data": "x", "retry": True, "broadcast": True}, "retry"),
    ({"data": "\ud800", "broadcast": True}, "surrogate"),
    ({"data": "x", "comment": 7, "broadcast": True}, "comment"),
    ({"data": "x", "exclude": ["a"], "broadcast": True}, "unknown field: exclude"),
    ({"data": "x", "__class__": "y", "broadcast": True}, "unknown field"),
    ([], "object"),
    ("text", "object"),
    (None, "object"),
]


@pytest.mark.parametrize(("fields", "text"), HOSTILE_FIELDS)
def test_an_invalid_message_is_a_400_with_the_reason_and_has_no_effect(
    hub: Hub, port: int, fields: Any, text: str
) -> None:
    status, answer = post(port, fields)
    assert status == 400 and text in answer["error"], answer
    assert hub.stats()["messages"] == 0


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"data": "x", "broadcast": "1"}, "true or false"),
        ({"data": "x", "broadcast": "true", "retry": "٣"}, "digits"),
        ({"data": "x", "broadcast": "true", "retry": "-5"}, "digits"),
        ({"data": "x", "client_id": ""}, "client_id is empty"),
    ],
)
def test_a_form_is_checked_as_strictly(hub: Hub, port: int, form: dict[str, str], text: str) -> None:
    status, answer = call(port, "POST", "/send", form)
    assert status == 400 and text in answer["error"]
    assert hub.stats()["messages"] == 0


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"data": NaN}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"data=x&broadcast=true", "text/plain", 400),
        (b"", "", 400),
        (b"x" * (MAX_BODY + 1), "application/json", 413),
        (b"data=" + b"x" * (MAX_BODY + 1), "application/x-www-form-urlencoded", 413),
    ],
    ids=["cut", "bytes", "nan", "deep", "text", "nothing", "too long", "too long a form"],
)
def test_an_invalid_body_is_refused(hub: Hub, port: int, body: bytes, content_type: str, status: int) -> None:
    got, answer = call(port, "POST", "/send", body, **{"Content-Type": content_type})
    assert got == status and answer["error"]
    assert hub.stats()["messages"] == 0


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/events?zone=", "zone is empty"),
        ("/events?zone=a%00b", "control"),
        ("/events?zone=" + "z" * 256, "255"),
        ("/events?" + "&".join(f"zone=z{n}" for n in range(101)), "100"),
        ("/events?client_id=", "client_id is empty"),
        ("/events?client_id=%0d%0aX", "control"),
        ("/events?since=", "since"),
    ],
)
def test_an_invalid_stream_request_is_a_400(hub: Hub, port: int, path: str, text: str) -> None:
    status, answer = call(port, "GET", path)
    assert status == 400 and text in answer["error"]
    assert hub.stats()["opened"] == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/events", 405), ("GET", "/send", 405), ("DELETE", "/", 405), ("GET", "/nothing", 404),
     ("GET", "/console.js/../../hub.py", 404), ("GET", "/hub.py", 404)],
)  # fmt: skip
def test_other_methods_and_paths_are_refused(port: int, method: str, path: str, status: int) -> None:
    got, answer = call(port, method, path)
    assert got == status and answer["error"]


def test_since_starts_a_stream_in_the_past(hub: Hub, site: Serve) -> None:
    here = site(create_app(hub, public=False))
    for n in range(3):
        hub.broadcast(str(n))
    for since, expected in (("oldest", ["0", "1", "2"]), ("2", ["1", "2"])):
        stream = here.stream(f"/events?since={since}")
        assert stream.data(len(expected)) == expected
        stream.close()


def test_history_is_a_list_with_the_rights_of_a_stream(hub: Hub, site: Serve) -> None:
    app = create_app(hub, token="secret", origins=["https://app.example"])
    port = site(app).port
    hub.broadcast("one", zone="a", event="news")
    hub.broadcast({"n": 2}, zone="a")
    hub.broadcast("three", zone="a")
    hub.send("ada", "private")
    status, answer = call(port, "GET", "/history?zone=a&limit=2", Origin="https://app.example")
    assert status == 200 and answer["has_more"] is True and answer["gap"] is None
    assert [(one["event"], one["data"]) for one in answer["messages"]] == [("news", "one"), ("message", '{"n":2}')]
    rest = call(port, "GET", f"/history?zone=a&since={answer['cursor']}")[1]
    assert [one["data"] for one in rest["messages"]] == ["three"] and rest["has_more"] is False
    assert call(port, "GET", "/history?zone=a&client_id=ada")[0] == 401
    private = call(port, "GET", "/history?client_id=ada&since=1", Authorization="Bearer secret")[1]
    assert [one["data"] for one in private["messages"]] == ["private"]
    gap = call(port, "GET", "/history?since=x")[1]
    assert gap["gap"] == {"reason": "bad_id", "missed": None} and gap["messages"] == []
    for wrong in ("limit=0", "limit=1001", "limit=x", "zone=", "since=" + "x" * 10):
        status = call(port, "GET", f"/history?{wrong}")[0]
        assert status == (200 if wrong.startswith("since") else 400), wrong


def test_stats_and_health_list_the_connections(hub: Hub, site: Serve) -> None:
    here = site(create_app(hub, public=False))
    stream = here.stream("/events?zone=a&zone=b&client_id=ada")
    session_id = stream.opened()["session_id"]
    status, answer = call(here.port, "GET", "/stats")
    assert status == 200 and answer["stats"]["connections"] == 1
    assert {zone: [one["client_id"] for one in there] for zone, there in answer["zones"].items()} == {
        "a": ["ada"],
        "b": ["ada"],
    }
    assert answer["zones"]["a"][0]["session_id"] == session_id
    assert call(here.port, "GET", "/health") == (200, {"status": "ok", "failing": []})
    hub.close()
    assert call(here.port, "GET", "/health") == (503, {"status": "closing", "failing": []})
    assert post(here.port, {"data": "x", "broadcast": True}) == (503, {"error": "the hub is closed"})
    stream.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 200), ("GET", "/console.js", 200), ("GET", "/shared.js", 200), ("GET", "/stats", 200),
     ("GET", "/health", 200), ("GET", "/metrics", 200), ("HEAD", "/events", 200), ("OPTIONS", "/events", 204),
     ("GET", "/events?zone=", 400), ("POST", "/send", 400), ("DELETE", "/send", 405), ("GET", "/nothing", 404)],
)  # fmt: skip
def test_every_response_has_nosniff_and_cache_headers(
    hub: Hub, site: Serve, method: str, path: str, status: int
) -> None:
    port = site(create_app(hub, public=False, origins=["https://app.example"])).port
    got, headers = head(port, method, path, **({"Origin": "https://app.example"} if method == "OPTIONS" else {}))
    assert got == status and headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"].startswith(("no-store", "no-cache"))


def test_stats_list_a_limited_number_of_sessions_and_the_rest_as_a_count(hub: Hub, site: Serve) -> None:
    port = site(create_app(hub, public=False)).port
    streams = [hub.stream(zone=[f"z{n}" for n in range(100)], client_id=f"c{k}") for k in range(12)]
    streams.append(hub.stream(zone="quiet", client_id="quiet"))
    for stream in streams:
        next(stream)
    answer = call(port, "GET", "/stats")[1]
    assert sum(map(len, answer["zones"].values())) == MAX_LISTED and answer["unlisted"] == 201
    assert [one["client_id"] for one in answer["zones"]["quiet"]] == ["quiet"]
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]


def test_the_console_is_served_and_loads_nothing_from_other_origins(port: int) -> None:
    for path, kind in (("/", b"<html"), ("/console.css", b"{"), ("/console.js", b"EventSource")):
        status, content = call(port, "GET", path)
        assert status == 200 and kind in content
        assert b"http://" not in content.replace(b"http://www.w3.org/", b"") and b"https://" not in content


# Access control


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic c2VjcmV0"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer sécret"}, 401),
        ({"Authorization": "Bearer secret"}, 200),
        ({"Authorization": "bearer secret", "Host": "example.org", "Origin": "https://example.org"}, 200),
    ],
)
def test_with_a_token_only_requests_with_it_may_send_and_see_names(
    hub: Hub, site: Serve, headers: dict[str, str], status: int
) -> None:
    port = site(create_app(hub, token="secret", public=True)).port
    got, _ = post(port, {"data": "x", "broadcast": True}, **headers)
    assert got == status
    assert hub.stats()["messages"] == (status == 200)
    _, stats = call(port, "GET", "/stats", **headers)
    assert ("zones" in stats) == (status == 200)


def test_without_a_token_no_request_may_send_inspect_or_follow_as_a_client(hub: Hub, site: Serve) -> None:
    here = site(create_app(hub))
    status, answer = post(here.port, {"data": "x", "broadcast": True})
    assert status == 403 and "token" in answer["error"]
    assert hub.stats()["messages"] == 0
    assert call(here.port, "GET", "/events?client_id=ada")[0] == 403
    assert "zones" not in call(here.port, "GET", "/stats")[1]
    stream = here.stream("/events?zone=a")
    stream.opened()
    stream.close()


def test_with_a_token_only_requests_with_it_may_follow_as_a_client(hub: Hub, site: Serve) -> None:
    here = site(create_app(hub, token="secret"))
    assert call(here.port, "GET", "/events?client_id=ada")[0] == 401
    assert call(here.port, "GET", "/events?client_id=ada", None, Authorization="Bearer wrong")[0] == 401
    assert hub.stats()["opened"] == 0
    ada, guest = here.stream("/events?client_id=ada", Authorization="Bearer secret"), here.stream("/events")
    assert ada.opened()["client_id"] == "ada" and guest.opened()
    hub.send("ada", "to ada")
    hub.broadcast("to all")
    assert ada.data(2) == ["to ada", "to all"] and guest.data(1) == ["to all"]
    ada.close()
    guest.close()


@pytest.mark.parametrize("path", ["/events", "/stats", "/metrics", "/send", "/", "/console.js", "/shared.js"])
@pytest.mark.parametrize("token", [None, "secret"])
def test_dns_rebinding_is_refused(hub: Hub, site: Serve, path: str, token: str | None) -> None:
    port = site(create_app(hub, public=False, token=token)).port
    method = "POST" if path == "/send" else "GET"
    for host in (
        "rebound.example",
        f"rebound.example:{port}",
        "127.0.0.1.rebound.example",
        "localhost.rebound.example",
    ):
        status, answer = call(port, method, path, None, Host=host)
        assert status == 403 and "not called" in answer["error"], host
    assert hub.stats()["opened"] == 0
    assert call(port, "GET", "/health", None, Host="rebound.example")[0] == 200


@pytest.mark.parametrize("public", [False, True])
def test_a_service_answers_to_its_allowed_host_names(hub: Hub, site: Serve, public: bool) -> None:
    port = site(create_app(hub, public=public, hosts=["Hub.example"])).port
    assert call(port, "GET", "/stats", None, Host="hub.example")[0] == 200
    assert call(port, "GET", "/stats", None, Host=f"HUB.example:{port}")[0] == 200
    assert call(port, "GET", "/stats", None, Host="other.example")[0] == 403
    for host in (f"localhost:{port}", "127.0.0.1", "[::1]:80", "127.9.9.9"):
        assert call(port, "GET", "/stats", None, Host=host)[0] == (403 if public else 200)
    assert call(port, "GET", "/stats", None, Host="[")[0] in (400, 403)
    with pytest.raises(TypeError, match="hosts"):
        create_app(hub, hosts="hub.example")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Host": "chat.example", "Origin": "https://chat.example"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://chat.example"}, 200),  # a proxy has changed the Host
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example"}, 200),  # one of the origins
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:{port}"}, 403),
    ],
)
def test_a_page_of_another_site_cannot_send_with_its_visitors_cookie(
    hub: Hub, site: Serve, headers: dict[str, str], status: int
) -> None:
    def authorize(request: Any, action: str, zones: Any, client_id: str | None) -> bool:
        return bool(request.cookies.get("user") == "ada")

    port = site(create_app(hub, authorize=authorize, origins=["https://app.example"])).port
    headers = {name: value.format(port=port) for name, value in headers.items()}
    got, _ = call(port, "POST", "/send", {"data": "x", "zone": "z"}, Cookie="user=ada", **headers)
    assert got == status
    assert hub.stats()["messages"] == (status == 200)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}, 200),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Host": "rebound.example:{port}", "Origin": "http://rebound.example:{port}"}, 403),
        ({"Host": "rebound.example"}, 403),
        ({"X-Forwarded-For": "203.0.113.7"}, 403),
        ({"Forwarded": "for=203.0.113.7"}, 403),
        ({"X-Real-IP": "127.0.0.1"}, 403),
        ({"Via": "1.1 proxy.example"}, 403),
        ({"X-Forwarded-Proto": "https"}, 403),
        ({"CF-Connecting-IP": "203.0.113.7"}, 403),
    ],
)
def test_without_a_token_neither_websites_nor_proxies_can_send(
    hub: Hub, port: int, headers: dict[str, str], status: int
) -> None:
    got, _ = post(port, {"data": "x", "broadcast": True}, **{k: v.format(port=port) for k, v in headers.items()})
    assert got == status
    assert hub.stats()["messages"] == (status == 200)


@pytest.mark.parametrize("token", ["", "  "])
def test_an_empty_token_is_refused(hub: Hub, token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        create_app(hub, token=token)


def environ(path: str, method: str = "GET", **more: Any) -> dict[str, Any]:
    import io

    given = {"REQUEST_METHOD": method, "PATH_INFO": path, "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    return {**given, "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "HTTP_HOST": "localhost", **more}


def asked(hub: Hub, **environ: Any) -> tuple[str, dict[str, str]]:
    seen: list[Any] = []
    list(create_app(hub, public=False)(environ, lambda status, headers, *rest: seen.extend((status, dict(headers)))))
    return seen[0], seen[1]


@pytest.mark.parametrize(
    ("address", "status"), [("127.0.0.1", 400), ("::1", 400), ("", 403), ("203.0.113.9", 403), ("x", 403)]
)
def test_a_forged_host_does_not_make_a_client_local(hub: Hub, address: str, status: int) -> None:
    answer, _ = asked(hub, **environ("/send", "POST", REMOTE_ADDR=address))
    assert answer.startswith(str(status))  # 400: allowed, but without a message. "": a Unix socket


def test_a_mounted_console_is_found_without_a_trailing_slash(hub: Hub) -> None:
    status, headers = asked(hub, **environ("", SCRIPT_NAME="/hub"))
    assert status.startswith("308") and headers["Location"].endswith("/hub/")


def test_a_token_in_any_script_is_recognised(hub: Hub, site: Serve) -> None:
    port = site(create_app(hub, token="gr\u00fc\u00df\u2603")).port
    sent = {"Authorization": "Bearer gr\u00fc\u00df\u2603".encode().decode("latin-1")}
    assert post(port, {"data": "x", "broadcast": True}, **sent)[0] == 200
    assert post(port, {"data": "x", "broadcast": True}, Authorization="Bearer x")[0] == 401


def test_since_may_have_leading_zeros(hub: Hub, site: Serve) -> None:
    here = site(create_app(hub, public=False))
    for n in range(3):
        hub.broadcast(str(n))
    stream = here.stream("/events?since=000000000002")
    assert stream.data(2) == ["1", "2"]
    stream.close()


def test_a_form_with_a_part_without_a_name_is_a_400(port: int) -> None:
    body = b"--x\r\nContent-Disposition: form-data\r\n\r\nvalue\r\n--x--\r\n"
    status, answer = call(port, "POST", "/send", body, **{"Content-Type": "multipart/form-data; boundary=x"})
    assert status == 400 and "unknown field" in answer["error"]


def test_authorize_decides_who_may_follow_send_and_inspect(hub: Hub, site: Serve) -> None:
    asked: list[object] = []

    def authorize(request: Any, action: str, zones: Any, client_id: str | None) -> bool:
        asked.append((action, zones, client_id))
        if "user" not in request.cookies:
            raise Unauthorized("log in first")
        return zones is not ALL and set(zones) <= {"open", request.cookies["user"]}

    here = site(create_app(hub, token="secret", authorize=authorize))
    assert call(here.port, "GET", "/events?zone=open")[0] == 401
    ada = {"Cookie": "user=ada"}
    assert call(here.port, "GET", "/events?zone=open&zone=bob", None, **ada)[0] == 403
    assert hub.connections() == [] and asked[-1] == ("subscribe", ["open", "bob"], None)
    stream = here.stream("/events?zone=open&zone=ada&client_id=a", **ada)
    stream.opened()
    assert asked[-1] == ("subscribe", ["open", "ada"], "a")
    assert call(here.port, "POST", "/send", {"data": "1", "zone": "ada", "broadcast": "true"}, **ada)[0] == 200
    assert call(here.port, "POST", "/send", {"data": "x", "zone": "bob", "broadcast": "true"}, **ada)[0] == 403
    assert call(here.port, "POST", "/send", {"data": "x", "broadcast": "true"}, **ada)[0] == 403
    assert call(here.port, "POST", "/send", {"data": "x", "broadcast": "true"})[0] == 401
    token = {"Authorization": "Bearer secret"}
    assert call(here.port, "POST", "/send", {"data": "2", "broadcast": "true"}, **token)[0] == 200
    assert stream.data(2) == ["1", "2"]
    assert "zones" not in call(here.port, "GET", "/stats", None, **ada)[1] and asked[-1] == ("inspect", ALL, None)
    assert "zones" in call(here.port, "GET", "/stats", None, **token)[1]
    stream.close()


def test_authorize_can_limit_the_duration_of_a_stream(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub(heartbeat=3600, max_age=3600)
    left, ended = [timedelta(seconds=0.2)], []
    hub.on_disconnect(lambda connection: ended.append(connection.closed))
    here = site(create_app(hub, authorize=lambda request, action, zones, client_id: left[0]))
    stream = here.stream("/events")
    stream.rest()
    assert stream.decoder.reconnection_time and until(lambda: ended) == ["max_age"]
    stream.close()
    left[0] = timedelta(0)
    assert call(here.port, "GET", "/events")[0] == 403
    left[0] = timedelta(days=10**6)
    stream = here.stream("/events")
    stream.opened()
    stream.close()
    assert call(here.port, "POST", "/send", {"data": "x", "zone": "z"})[0] == 500  # no timedelta here


@pytest.mark.parametrize("answer", [None, 1, "yes", ValueError("secret"), KeyError("secret"), TypeError("secret")])
def test_an_error_in_authorize_is_a_500_that_is_logged_and_not_shown(
    hub: Hub, site: Serve, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def authorize(*asked: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    port = site(create_app(hub, authorize=authorize)).port
    for got in (call(port, "GET", "/events"), call(port, "POST", "/send", {"data": "x", "zone": "z"})):
        assert got == (500, {"error": "the service could not determine whether this is allowed"})
    assert "zones" not in call(port, "GET", "/stats")[1]
    assert hub.stats()["opened"] == hub.stats()["messages"] == 0
    assert [record.getMessage() for record in caplog.records] == ["authorize has failed"] * 3


def test_a_sender_without_the_token_cannot_choose_ids(hub: Hub, site: Serve) -> None:
    here = site(create_app(hub, token="secret", authorize=lambda *asked: True))
    known = {"Authorization": "Bearer secret"}
    fields = {"data": "x", "zone": "z"}
    for more in ({"id": "order 1"}, {"retry": 5}, {"event": "error"}, {"event": "open"}):
        status, answer = post(here.port, {**fields, **more})
        assert status == 403 and "token" in answer["error"]
        assert post(here.port, {**fields, **more}, **known)[0] == 200
    assert hub.stats()["messages"] == 4 and post(here.port, fields)[0] == 200


def test_only_pages_of_allowed_origins_may_follow(hub: Hub, site: Serve) -> None:
    here = site(create_app(hub, public=False, origins=["https://app.example"]))
    for origin, allowed in (("https://app.example", "https://app.example"), ("https://evil.example", None)):
        stream = here.stream("/events", Origin=origin)
        stream.opened()
        assert stream.response.headers["Access-Control-Allow-Origin"] == allowed
        stream.close()
    for wrong in (["https://app.example/path"], ["*"], ["app.example"]):
        with pytest.raises(ValueError, match="not an origin"):
            create_app(hub, public=False, origins=wrong)
    with pytest.raises(TypeError):
        create_app(hub, public=False, origins="https://app.example")


def test_a_page_of_an_allowed_origin_that_uses_fetch_can_reconnect(hub: Hub, site: Serve) -> None:
    origin = "https://app.example"
    port = site(create_app(hub, origins=[origin], authorize=lambda *asked: False)).port
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "last-event-id"}
    status, headers = head(port, "OPTIONS", "/events?zone=a", Origin=origin, **asked)
    assert status == 204 and headers["Access-Control-Allow-Origin"] == origin
    assert headers["Access-Control-Allow-Credentials"] == "true" and headers["Vary"] == "Origin"
    assert int(headers["Access-Control-Max-Age"]) > 0 and "GET" in headers["Access-Control-Allow-Methods"]
    allowed = headers["Access-Control-Allow-Headers"].split(", ")
    assert {"last-event-id", "authorization", "cache-control"} <= set(allowed)
    for wrong in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
        status, headers = head(port, "OPTIONS", "/events", **asked, **wrong)
        assert status == 405 and "Access-Control-Allow-Origin" not in headers
    status, headers = head(port, "OPTIONS", "/send", Origin=origin, **asked)
    assert (status, headers["Access-Control-Allow-Methods"]) == (204, "POST")
    assert head(port, "OPTIONS", "/send", Origin="https://another.example", **asked)[0] == 405
    assert head(port, "OPTIONS", "/stats", Origin=origin, **asked)[0] == 405
    # It can read the refusal, which otherwise looks like a network error.
    status, headers = head(port, "GET", "/events", Origin=origin)
    assert (status, headers["Access-Control-Allow-Origin"]) == (403, origin)


def test_without_a_token_no_request_through_a_default_nginx_may_send(hub: Hub, port: int) -> None:
    body = b'{"data": "x", "broadcast": true}'
    with socket.create_connection(("127.0.0.1", port), GUARD) as sock:
        head = f"POST /send HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        sock.sendall(head.encode() + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert b" 403 " in sock.makefile("rb").readline()
    assert hub.stats()["messages"] == 0

"""How the script with which tabs share a stream is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from werkzeug.test import Client

from ssehub import Hub
from ssehub.integrations.flask import SSEHub
from ssehub.service import create_app
from ssehub.wsgi.script import shared_script
from tests.servers import ROOT

SCRIPT = (ROOT / "ssehub" / "wsgi" / "shared.js").read_bytes()


def check(app: Any, path: str) -> None:
    client = Client(app)
    answer = client.get(path)
    assert (answer.status_code, answer.data) == (200, SCRIPT)
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache" and answer.headers["X-Content-Type-Options"] == "nosniff"
    again = client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    other = client.get(path, headers={"If-None-Match": '"another"'})
    assert (other.status_code, other.data) == (200, SCRIPT)
    head = client.head(path)
    assert (head.status_code, head.data, head.headers["ETag"]) == (200, b"", answer.headers["ETag"])
    assert client.post(path).status_code == 405


def test_the_service_serves_the_script(make_hub: Callable[..., Hub]) -> None:
    check(create_app(make_hub(), public=False), "/shared.js")


def test_the_flask_extension_serves_it_at_the_configured_path() -> None:
    app = Flask(__name__)
    app.config["SSEHUB_SCRIPT_URL"] = "/static/stream.js"
    SSEHub(app)
    check(app, "/static/stream.js")
    without = Flask(__name__)
    SSEHub(without)
    assert without.test_client().get("/shared.js").status_code == 404


def test_any_application_can_serve_it() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        return shared_script(environ)(environ, start_response)

    answer = Client(app).get("/")
    assert answer.data == SCRIPT and "ETag" in answer.headers

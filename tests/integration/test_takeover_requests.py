"""What is left of a request whose stream has left its thread: nothing but the socket."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.matrix import Raw, request, served
from tests.streams import call, until

STREAMS = 5
#: What a framework calls when a request has ended.
ENDS = {"wsgi": (), "flask": ("teardown_request",), "django": ("request_finished",)}


@pytest.mark.parametrize("framework", ENDS)
@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent", "werkzeug"])
def test_a_stream_that_left_its_thread_keeps_nothing_of_its_request(kind: str, framework: str, tmp_path: Path) -> None:
    database = tmp_path / "database"
    with served(kind, tmp_path, "True", framework, DATABASE=str(database)) as here:
        streams = here.open(STREAMS)
        until(lambda: not here.stats()["kept"], "the requests to be forgotten")
        numbers = here.stats()
        assert (numbers["detached"], numbers["in_use"]) == (STREAMS, 0)
        until(lambda: here.stats()["torn_down"] == dict.fromkeys(ENDS[framework], STREAMS), "the requests' ends")
        # Flask's pool keeps its connection for the next request, Django keeps none.
        assert here.descriptors().count(str(database)) <= (1 if framework == "flask" else 0)
        here.send("hello")
        for stream in streams:
            assert stream.data(1) == ["hello"]


@pytest.mark.parametrize("framework", ["wsgi", "flask", "django"])
def test_a_stream_on_a_thread_keeps_its_request_which_shows_that_it_would_be_seen(
    framework: str, tmp_path: Path
) -> None:
    with served("gthread", tmp_path, "False", framework) as here:
        streams = here.open(STREAMS)
        assert here.stats()["kept"] >= STREAMS
        for stream in streams:
            stream.close()


@pytest.mark.parametrize(
    ("kind", "detach"), [("sync", "None"), ("gthread", "None"), ("gthread", "True"), ("werkzeug", "True")]
)
def test_the_end_of_a_stream_is_seen_at_once_although_a_child_process_holds_a_copy_of_it(
    kind: str, detach: str, tmp_path: Path
) -> None:
    with served(kind, tmp_path, detach) as here:
        ending, staying = (Raw(here.port, request(f"/events?client_id={name}")) for name in ("ending", "staying"))
        for client in (ending, staying):
            client.read_until(lambda data: b"ssehub.open" in data)
        child = int(call(here.port, "POST", "/fork")[1])
        sockets = [one for one in Path(f"/proc/{child}/fd").iterdir() if os.readlink(one).startswith("socket:")]
        assert len(sockets) >= 2
        here.end("ending")
        assert ending.rest().endswith(b"\n\n\r\n0\r\n\r\n")
        here.send("hello")
        staying.read_until(lambda data: b"data: hello\n\n" in data)
        staying.close()
        here.nobody()
        os.kill(child, signal.SIGKILL)

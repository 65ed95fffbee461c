"""The tutorial runs as it is printed, step by step, and so does what else the documentation shows."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from ssehub import Hub, Message, RedisLog
from ssehub.service import create_app
from tests.redis_server import RedisServer
from tests.servers import ROOT, free_port, missing, process
from tests.streams import GUARD, Stream, call, until

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.rst"))
TUTORIAL = (DOCS / "tutorial.rst").read_text()
BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n(?:   :caption: (.*)\n)?\n((?:(?:   .*)?\n)+)", re.MULTILINE)


def blocks(text: str, language: str, caption: str | None = None) -> list[str]:
    """Return the code blocks of a language, all or those of a caption, without their indentation."""
    found = [match.groups() for match in BLOCK.finditer(text)]
    return [
        textwrap.dedent(code).strip() + "\n"
        for kind, title, code in found
        if kind == language and caption in (None, title)
    ]


def commands(text: str, beginning: str) -> list[str]:
    """Return the lines of literal blocks that begin with these words."""
    return re.findall(rf"^    ({re.escape(beginning)}.*)$", text, re.MULTILINE)


APPS, HTML = blocks(TUTORIAL, "python", "app.py"), blocks(TUTORIAL, "html", "templates/page.html")
(FOLLOW,) = blocks(TUTORIAL, "python", "follow.py")
(SHARED,) = blocks(TUTORIAL, "python", "app.py, in the place of the same line")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder in which the tutorial's commands are run."""
    (tmp_path / "templates").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, step: int, app: str = "") -> None:
    (folder / "app.py").write_text(app or APPS[step])
    (folder / "templates" / "page.html").write_text(HTML[step])


@pytest.fixture
def serve(folder: Path, site: Any) -> Iterator[Callable[[int], Any]]:
    """Give a function that serves a step's application in this process."""
    hubs = []

    def make(step: int) -> Any:
        """Return the site, with the application's hub."""
        write(folder, step)
        spec = importlib.util.spec_from_file_location("app", folder / "app.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        hubs.append(module.hub)
        here = site(module.app)
        here.hub = module.hub
        return here

    yield make
    for hub in hubs:
        hub.close()


@contextlib.contextmanager
def running(command: str, folder: Path) -> Iterator[int]:
    """Run a command of the tutorial that serves, on a port of its own."""
    port = free_port()
    words = shlex.split(command.replace("--port 8000", f"--port {port}"))
    more = () if words[0] == "flask" else ("-b", f"127.0.0.1:{port}")
    with process(sys.executable, "-m", words[0], *more, *words[1:], folder=folder, PYTHONPATH=f"{ROOT}:{folder}"):
        until(lambda: _is_there(port), "the application to answer")
        yield port


def _is_there(port: int) -> bool:
    with contextlib.suppress(OSError):
        return call(port, "GET", "/nothing")[0] == 404
    return False


def test_the_page_that_is_told_the_news_and_what_was_missed(folder: Path) -> None:
    write(folder, 0)
    with running(*commands(TUTORIAL, "flask run"), folder) as port:
        assert b"EventSource" in call(port, "GET", "/")[1]
        stream = Stream(port, "/events")
        stream.opened()
        ids = [call(port, "POST", "/news", {"text": text})[1]["id"] for text in ("one", "two", "three")]
        assert stream.data(3) == ["one", "two", "three"]
        stream.close()
        back = Stream(port, "/events", {"Last-Event-ID": ids[0]})
        assert back.data(2) == ["two", "three"]
        back.close()


def test_nothing_falls_between_page_and_stream(serve: Callable[[int], Any]) -> None:
    here = serve(1)
    call(here.port, "POST", "/news", {"text": "before"})
    page = call(here.port, "GET", "/")[1].decode()
    call(here.port, "POST", "/news", {"text": "between"})
    assert '<li id="news-1">before</li>' in page and "between" not in page
    (path,) = re.findall(r'EventSource\("(.*?)"\)', page)
    stream = here.stream(path)
    assert stream.message().json() == {"number": 2, "text": "between"}
    stream.close()


def test_the_script_goes_on_where_it_was(folder: Path, serve: Callable[[int], Any]) -> None:
    here = serve(1)
    place = folder / "place.txt"
    (folder / "follow.py").write_text(FOLLOW.replace(":8000", f":{here.port}"))

    @contextlib.contextmanager
    def following() -> Iterator[Any]:
        options: dict[str, Any] = {"cwd": folder, "text": True, "stdout": subprocess.PIPE}
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen([sys.executable, "follow.py"], env=environment, **options) as script:
            assert script.stdout is not None
            yield script.stdout
            script.send_signal(signal.SIGINT)
            assert script.stdout.read() == f"it goes on from {place.read_text()}\n"
            assert script.wait(GUARD) == 0

    def post(text: str) -> str:
        return str(call(here.port, "POST", "/news", {"text": text})[1]["id"])

    with following() as output:
        until(lambda: here.hub.stats()["connections"] == 1)
        id = post("one")
        assert output.readline() == 'message {"number":1,"text":"one"}\n'
        until(lambda: place.exists() and place.read_text() == id)
    until(lambda: here.hub.stats()["connections"] == 0)
    id = post("while it was away")
    with following() as output:
        assert output.readline() == 'message {"number":2,"text":"while it was away"}\n'
        until(lambda: place.read_text() == id)


def test_four_processes_are_one_hub(folder: Path) -> None:
    app = APPS[2].replace("hub = Hub()\n", SHARED)
    assert app.count("sqlite:hub.db") == 1
    write(folder, 2, app)
    one, four = commands(TUTORIAL, "gunicorn")
    assert four == one.replace("gunicorn ", "gunicorn -w 4 ")
    (send,) = commands(TUTORIAL, "ssehub send")
    with running(four, folder) as port:
        address = f"http://127.0.0.1:{port}"
        ada, bob = requests.Session(), requests.Session()
        for name, session in (("ada", ada), ("bob", bob)):
            assert f"{name}, write to" in session.post(f"{address}/login", {"user": name}, timeout=GUARD).text
        cookie = f"session={bob.cookies['session']}"
        streams = [Stream(port, "/events", {"Cookie": cookie}) for _ in range(4)]
        assert {stream.opened()["client_id"] for stream in streams} == {"bob"}
        private = {"to": "bob", "text": "hello"}
        assert call(port, "POST", "/message", private)[0] == 401
        assert ada.post(f"{address}/message", {**private, "to": ""}, timeout=GUARD).status_code == 400
        assert ada.post(f"{address}/message", private, timeout=GUARD).status_code == 200
        call(port, "POST", "/news", {"text": "news"})
        shell = [sys.executable, "-m", "ssehub", *shlex.split(send)[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(shell, check=True, cwd=folder, env=environment, timeout=60, capture_output=True)
        for stream in streams:
            first = stream.message()
            assert (first.event, first.data) == ("private", "ada: hello")
            assert [stream.message().json()["text"] for _ in range(2)] == ["news", "from the shell"]
            stream.close()
        ada.close()
        bob.close()


def test_the_page_is_there_while_the_log_is_not(folder: Path, site: Any) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    write(folder, 2, APPS[2].replace("hub = Hub()\n", f'hub = Hub("{url}")\n'))
    with running("flask run --port 8000", folder) as port:
        status, page = call(port, "GET", "/")
        assert status == 200 and b"/events?lastEventId=0.0.00000000" in page


def test_the_page_in_a_browser(browser: Any, serve: Callable[[int], Any]) -> None:
    from selenium.webdriver.common.by import By

    here = serve(2)
    address = f"http://127.0.0.1:{here.port}/"

    def lines() -> list[str]:
        return [line.text for line in browser.find_elements(By.TAG_NAME, "li")]

    call(here.port, "POST", "/news", {"text": "<b>before</b>"})
    browser.get(address)
    browser.find_element(By.NAME, "user").send_keys("bob\n")
    until(lambda: browser.find_elements(By.NAME, "to"), "the page of who is logged in")
    until(lambda: browser.find_element(By.ID, "state").text == "live")
    browser.find_element(By.NAME, "to").send_keys("bob")
    browser.find_element(By.NAME, "text").send_keys("a note\n")
    until(lambda: lines() == ["bob: a note", "<b>before</b>"], "the note to be shown")
    call(here.port, "POST", "/news", {"text": "after"})
    until(lambda: lines() == ["after", "bob: a note", "<b>before</b>"], "the news to be shown")
    browser.get("about:blank")


def test_the_configuration_of_nginx_passes_streams_on(site: Any, tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        missing("nginx")
    hub = Hub()
    behind = site(create_app(hub, public=False)).port
    port = free_port()
    (server,) = blocks((DOCS / "deployment.rst").read_text(), "nginx")
    certificate = ROOT / "tests" / "data" / "localhost.pem"
    server = server.replace("listen 443", f"listen 127.0.0.1:{port}").replace(":8000;", f":{behind};")
    server = re.sub(r"/etc/ssl/\S+(pem|key);", f"{certificate};", server)
    temporary = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{ }}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/body; {temporary} {server} }}\n"
    )
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    with process("nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")):
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=GUARD, context=context)
        until(lambda: _connects(connection), "nginx to listen")
        connection.request("GET", "/events")
        response = connection.getresponse()
        assert b"ssehub.open" in response.readline()
        hub.broadcast("through nginx", zone="default")
        until(lambda: response.readline() == b"data: through nginx\n")
        response.close()
        connection.close()
        until(lambda: hub.stats()["connections"] == 0)
    hub.close()


def _connects(connection: http.client.HTTPSConnection) -> bool:
    with contextlib.suppress(OSError):
        connection.connect()
        return True
    return False


def test_the_unit_of_systemd_starts_what_the_page_recommends() -> None:
    page = (DOCS / "deployment.rst").read_text()
    (unit,) = blocks(page, "ini")
    (docker,) = blocks(page, "docker")
    first = commands(page, "gunicorn")[0]
    assert first == "gunicorn app:app"
    address = " -b 127.0.0.1:8000 app:app"
    assert f"bin/{first.replace(' app:app', address)}\n" in unit
    started = json.loads(re.findall(r"CMD (\[.*\])", docker.replace("\\\n", ""))[0])
    assert shlex.join(started) == first.replace(" app:app", address.replace("127.0.0.1", "0.0.0.0"))


@pytest.mark.parametrize("caption", ["before", "after"])
def test_what_is_migrated_does_what_it_did(caption: str, site: Any) -> None:
    (code,) = blocks((DOCS / "migrating.rst").read_text(), "python", caption)
    scope: dict[str, Any] = {"__name__": "app"}
    exec(code, scope)
    here = site(scope["app"])
    connection = http.client.HTTPConnection("127.0.0.1", here.port, timeout=GUARD)
    connection.request("GET", "/events")
    until(lambda: scope["listeners"] if caption == "before" else scope["hub"].zones())
    assert call(here.port, "POST", "/news", {"text": "hello"}) == (200, b"sent")
    response = connection.getresponse()
    until(lambda: response.readline() == b"data: hello\n")
    response.close()
    connection.close()
    if caption == "before":  # only what is sent tells it that its client has gone
        call(here.port, "POST", "/news", {"text": "is anybody there?"})
    else:
        scope["hub"].close()


def test_the_stream_on_the_page_about_the_wire_is_what_a_hub_sends(site: Any) -> None:
    (shown,) = blocks((DOCS / "wire.rst").read_text(), "text", "a stream")
    hub = Hub(heartbeat=0.1)
    stream = site(create_app(hub, public=False)).stream("/events?client_id=ada")
    stream.opened()
    hub.broadcast("hello", zone="default")
    hub.send("ada", Message.from_json({"score": 42}, "score"))
    stream.data(2)
    hub.send("bob", "something for somebody else")
    assert stream.event().event == "ssehub.cursor"
    hub.broadcast("two\nlines", zone="default")
    stream.data(1)
    hub.close()
    stream.rest()
    assert _without_chance(stream.raw.decode()) == _without_chance(shown + "\n")
    stream.close()


def _without_chance(stream: str) -> str:
    """Replace what differs from stream to stream, and leave out the heartbeats that say nothing."""
    stream = re.sub(r"[0-9a-z]+\.(\d+)\.[0-9a-f]{8}", r"epoch.\1.nonce", stream.replace(":\n\n", ""))
    return re.sub(r"(?<=retry: )\d{4}|[0-9a-f]{16}", "...", stream)


def test_the_rights_of_the_user_of_redis_suffice(redis_server: RedisServer) -> None:
    (rule,) = commands((DOCS / "security.rst").read_text(), "ACL SETUSER")
    redis_server.client.execute_command(*rule.replace("ssehub", "docs").replace(" app ", " docs ").split())
    url = redis_server.url.replace("redis://", "redis://docs:secret@")
    for partitions in (1, 2):
        redis_server.client.delete("{docs}:partitions")
        here, there = (Hub(RedisLog(url, name="docs", partitions=partitions)) for _ in range(2))
        stream = here.stream(zone="news", client_id="ada", metadata="she")
        next(stream)
        there.broadcast("hello")
        assert b"data: hello\n" in next(stream)
        assert there.is_present("ada") and there.zones() == {"news": 1} and there.get_metadata("ada") == "she"
        assert there.disconnect("ada") == 1
        list(stream)
        here.close()
        there.close()
    # redis-py says what it is, which servers before 7.2 do not know, and goes on when that is refused.
    assert {entry[b"object"] for entry in redis_server.client.execute_command("ACL", "LOG")} <= {b"client"}
    user = redis.Redis.from_url(url)
    for forbidden in ("FLUSHALL", "SWAPDB 0 1", "CLIENT KILL TYPE normal", "CONFIG GET *", "KEYS *", "GET other"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            user.execute_command(*forbidden.split())
    user.close()
    redis_server.client.acl_log_reset()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    for name in re.findall(r"``(tests/[\w/]+\.py)``", page.read_text()):
        assert (ROOT / name).exists(), name


def test_the_page_on_testing_shows_the_example() -> None:
    app, tests, _ = blocks((DOCS / "testing.rst").read_text(), "python")
    example = ROOT / "examples" / "testing"
    assert (example / "app.py").read_text() == app and (example / "test_app.py").read_text() == tests


PAGES_OF_PARTS = [page for page in PAGES if page.stem not in ("tutorial", "testing")]


@pytest.mark.parametrize("page", PAGES_OF_PARTS, ids=lambda page: page.stem)
def test_what_the_pages_show_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks(page.read_text(), "python"):
        exec(compile(_harmless(code), str(page), "exec"), {"__name__": "app"})


def _harmless(code: str) -> str:
    """Leave the imports of what runs for ever, or changes the process it runs in."""
    if any(one in code for one in ("in Client(", "close_on_signals()", "input(")):
        return "\n".join(line for line in code.splitlines() if line.startswith("from "))
    return code


RULE = re.compile(r" *=+(?: +=+)+")


def rows_of_tables(page: Path) -> Iterator[list[str]]:
    """Yield the cells of each line of the simple tables of a page."""
    columns: list[tuple[int, int | None]] = []
    for line in page.read_text().splitlines():
        if RULE.fullmatch(line):
            found = [match.span() for match in re.finditer("=+", line)]
            columns = [*found[:-1], (found[-1][0], None)]
        elif not line.strip():
            columns = []
        elif columns:
            yield [line[begin:end].strip() for begin, end in columns]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.rst", ROOT / "CHANGES.rst"], ids=lambda page: page.stem)
def test_text_in_the_first_column_of_a_table_begins_a_row(page: Path) -> None:
    """In a simple table it always does: a sentence that goes on there would be torn into two rows."""
    for cells in rows_of_tables(page):
        assert all(cells) or not cells[0], cells
        assert len(cells) == 1 or not cells[0].endswith((",", ";", " the", " of", " a", " its")), cells

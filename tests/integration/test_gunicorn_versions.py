"""Other versions of gunicorn, each in a virtual environment of its own. It takes an index of packages and some time:
asked for by ``CI=true`` or ``SSEHUB_VERSIONS=true``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.matrix import APP, Raw, request
from tests.servers import answers, free_port, process
from tests.streams import GUARD, Stream, call, until

pytestmark = pytest.mark.skipif(
    "true" not in (os.environ.get("CI"), os.environ.get("SSEHUB_VERSIONS")), reason="only where SSEHUB_VERSIONS=true"
)

#: What pip is asked for. The one that is installed here is tested everywhere else.
VERSIONS = ("gunicorn==22.*", "gunicorn==23.*", "gunicorn==25.*", "gunicorn")
STREAMS = 20


@pytest.fixture(scope="session", params=VERSIONS)
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a virtual environment with a version of gunicorn, and all else as it is here; return its interpreter."""
    folder = tmp_path_factory.mktemp("gunicorn")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/*/site-packages")
    command = (sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check")
    found = subprocess.run(
        (*command, "--no-deps", "--retries", "0", "--timeout", "10", "--target", str(packages), request.param),
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        pytest.skip(f"pip cannot get {request.param}: {found.stderr.strip().splitlines()[-1]}")
    # The others come from here; what is in the folder itself is found first.
    (packages / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return folder / "bin" / "python"


@pytest.mark.parametrize("detach", ["None", "True", "False"])
@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_streams_under_another_version_of_gunicorn(python: Path, worker: str, detach: str, tmp_path: Path) -> None:
    port, control, log = free_port(), free_port(), tmp_path / "log"
    command = (str(python), "-m", "gunicorn", "-k", worker, "-b", f"127.0.0.1:{port}", "--graceful-timeout", "3600")
    command += ("--threads", "40") if worker == "gthread" else ()
    with process(*command, APP, log=log, DETACH=detach, CONTROL=str(control)) as running:
        until(lambda: answers(port), "gunicorn to answer")
        is_busy = (worker, detach) == ("sync", "False")
        streams = [Stream(port, "/events") for _ in range(1 if is_busy else STREAMS)]
        for stream in streams:
            stream.opened()
        numbers = call(control, "GET", "/stats")[1]
        taken = 0 if detach == "False" else len(streams)
        assert (numbers["connections"], numbers["taken_over"], numbers["not_taken"]) == (len(streams), taken, {})
        assert numbers["detached"] == (taken if detach == "True" or worker == "sync" else 0)
        for number in range(10):
            assert call(control if is_busy else port, "POST", f"/send?data={number}") == (200, b"sent")
        for stream in streams:
            assert stream.data(10) == [str(number) for number in range(10)]
        streams.pop().close()
        until(lambda: call(control, "GET", "/stats")[1]["connections"] == len(streams), "the hang-up to be noticed")

        if not is_busy:
            client = Raw(port, request("/events?client_id=ada"))
            client.read_until(lambda data: b"ssehub.open" in data)
            call(port, "POST", "/end?client_id=ada")
            assert client.response().endswith(b"\n\n\r\n0\r\n\r\n")
            client.close()
            assert answers(port)
        running.send_signal(signal.SIGTERM)
        for stream in streams:
            assert stream.rest() == [] and stream.decoder.reconnection_time is not None
            stream.close()
        assert running.wait(2 * GUARD) == 0
    assert "Traceback" not in log.read_text() and "[ERROR]" not in log.read_text()

"""A client whose network goes away without a word: no FIN, no reset, nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from werkzeug.serving import make_server

from ssehub import Hub
from tests.servers import missing
from tests.streams import until

NEAR, FAR = "10.213.77.1", "10.213.77.2"
CLIENT = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sock.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
while sock.recv(65536):
    print("some", flush=True)
"""


def ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True, capture_output=True)


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Make another host: a network namespace, with a cable to it."""
    if shutil.which("ip") is None:
        missing("ip (iproute2)")
    name, here, there = f"ssehub{os.getpid() % 10000}", f"sseh{os.getpid() % 10000}", f"sset{os.getpid() % 10000}"
    try:
        ip("netns", "add", name)
    except (subprocess.CalledProcessError, PermissionError):
        pytest.skip("network namespaces may not be made here")
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        ip("addr", "add", f"{NEAR}/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", name, "addr", "add", f"{FAR}/30", "dev", there)
        ip("-n", name, "link", "set", there, "up")
        yield name
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "del", here)
        ip("netns", "del", name)


def test_a_client_that_vanished_without_a_word_is_gone_within_three_heartbeats(
    make_hub: Callable[..., Hub], elsewhere: str
) -> None:
    hub = make_hub(heartbeat=1.0, stall_timeout=600.0)
    reasons: list[str | None] = []
    hub.on_disconnect(lambda connection: reasons.append(connection.closed))
    server = make_server(NEAR, 0, lambda environ, start: hub.connect(environ)(environ, start), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    command = ("ip", "netns", "exec", elsewhere, sys.executable, "-c", CLIENT, NEAR, str(server.port))
    client = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert client.stdout is not None and client.stdout.readline() == b"some\n"
        ip("-n", elsewhere, "link", "set", f"sset{os.getpid() % 10000}", "down")  # the cable is pulled
        until(lambda: reasons, "the hub to notice")  # far sooner than its stall timeout, or the kernel's own
        assert reasons == ["hang-up"]
    finally:
        client.kill()
        client.communicate()
        server.shutdown()
        thread.join()
        server.server_close()

"""Nchan: the configuration of an nginx that serves the streams, and a publisher that sends to it over HTTP.

``python -m benchmarks.peers.nchan CONTROL NGINX`` listens for load requests on the port CONTROL. It publishes to the
nginx on the port NGINX over one connection, with up to 32 messages at a time.
"""

from __future__ import annotations

import argparse
import re
import socket
import time
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

from benchmarks.load import WsgiLoad

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

#: Number of messages that are sent together, and maximum number of messages without a response.
_AT_ONCE = 32
_HEAD = re.compile(
    rb"HTTP/1.1 (?P<status>\d+).*?\r\nContent-Length: (?P<length>\d+)\r\n.*?\r\n\r\n", re.DOTALL | re.IGNORECASE
)

_CONFIGURATION = """
load_module {module};
daemon off; worker_processes 1; pid {folder}/nginx-{port}.pid; error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
    access_log off; nchan_shared_memory_size 256M;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    map $arg_client_id $channels {{ "" everyone; default everyone,client-$arg_client_id; }}
    map $arg_client_id $channel {{ "" everyone; default client-$arg_client_id; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_requests 1000000;
        location = /events {{
            nchan_subscriber eventsource; nchan_subscriber_first_message newest;
            nchan_channel_id $channels; nchan_channel_id_split_delimiter ",";
        }}
        location = /publish {{
            nchan_publisher; nchan_channel_id $channel; nchan_message_buffer_length 30000;
        }}
    }}
}}
"""


def configure(folder: Path, port: int, streams: int) -> Path:
    """Write a configuration file, and return its path."""
    path = folder / f"nginx-{port}.conf"
    path.write_text(_CONFIGURATION.format(module=MODULE, folder=folder, port=port, connections=streams + 200))
    return path


class Publisher:
    """Publishes over one connection, which is opened as soon as nginx listens.

    :param patience: maximum number of seconds to wait for nginx.
    :raises OSError: if nginx does not listen in time.
    """

    def __init__(self, port: int, patience: float) -> None:
        deadline = time.monotonic() + patience
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self._answers = b""
        self._unsent: list[bytes] = []
        self._unanswered = 0
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def publish(self, text: str) -> None:
        """Send a message to all clients."""
        self._post("/publish", text)

    def send(self, client_id: str, text: str) -> None:
        """Send a message to one client."""
        self._post(f"/publish?client_id={client_id}", text)

    def flush(self) -> None:
        """Send the waiting messages."""
        self._socket.sendall(b"".join(self._unsent))
        self._unanswered += len(self._unsent)
        self._unsent.clear()
        while self._unanswered > _AT_ONCE:
            self._take_answers()

    def _post(self, path: str, text: str) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(text)}\r\n\r\n"
        self._unsent.append((head + text).encode())
        if len(self._unsent) == _AT_ONCE:
            self.flush()

    def _take_answers(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("nginx closed the connection")
        self._answers += data
        while (match := _HEAD.match(self._answers)) and len(self._answers) >= match.end() + int(match["length"]):
            if match["status"] not in (b"201", b"202"):
                raise ValueError(f"nginx answered {match['status'].decode()}")
            self._answers = self._answers[match.end() + int(match["length"]) :]
            self._unanswered -= 1


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing."""


def main() -> None:
    """Serve requests until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("control", type=int)
    parser.add_argument("nginx", type=int)
    options = parser.parse_args()
    publisher = Publisher(options.nginx, 10.0)
    make_server(
        "127.0.0.1", options.control, WsgiLoad(publisher.publish, publisher.send, publisher.flush), handler_class=_Quiet
    ).serve_forever()


if __name__ == "__main__":
    main()

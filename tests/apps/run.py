"""Run the service on a server of the standard library or of werkzeug: ``python -m tests.apps.run KIND PORT``."""

from __future__ import annotations

import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.validate import validator

from werkzeug.serving import make_server as make_werkzeug_server

from tests.apps.service import app


class Server(ThreadingMixIn, WSGIServer):
    """wsgiref's server with a thread for each request."""

    daemon_threads = True
    request_queue_size = 128


class Handler(WSGIRequestHandler):
    """wsgiref's handler without a line for each request."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main(kind: str, port: int) -> None:
    """Serve until killed."""
    if kind == "werkzeug":
        make_werkzeug_server("127.0.0.1", port, app, threaded=True).serve_forever()
        return
    application = validator(app) if kind == "wsgiref-validate" else app
    make_server("127.0.0.1", port, application, Server, Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

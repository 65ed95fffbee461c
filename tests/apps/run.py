"""Run an application on a server that is a library: ``python -m tests.apps.run KIND PORT [APPLICATION]``.

The application is the service, if it is not named, as gunicorn would name it.
"""

from __future__ import annotations

import importlib
import sys
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.validate import validator


class Server(ThreadingMixIn, WSGIServer):
    """wsgiref's server with a thread for each request."""

    daemon_threads = True
    request_queue_size = 128


class Handler(WSGIRequestHandler):
    """wsgiref's handler without a line for each request."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main(kind: str, port: int, name: str = "tests.apps.service:app") -> None:
    """Serve until killed."""
    if kind == "pywsgi":
        from gevent import monkey

        monkey.patch_all()
    module, _, attribute = name.partition(":")
    app: Any = getattr(importlib.import_module(module), attribute)
    if kind in ("werkzeug", "werkzeug-single"):
        from werkzeug.serving import make_server as make_werkzeug_server

        make_werkzeug_server("127.0.0.1", port, app, threaded=kind == "werkzeug").serve_forever()
    elif kind == "cheroot":
        from cheroot.wsgi import Server as Cheroot

        Cheroot(("127.0.0.1", port), app, numthreads=40).start()
    elif kind == "pywsgi":
        from gevent.pywsgi import WSGIServer as PyWSGI

        PyWSGI(("127.0.0.1", port), app, log=None).serve_forever()
    else:
        app = validator(app) if kind == "wsgiref-validate" else app
        make_server("127.0.0.1", port, app, Server, Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])

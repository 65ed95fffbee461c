"""The application of :mod:`benchmarks.workers`: a hub whose log notes how late each message is in this process.

The environment has the URL of the log (``$LOG_URL``), its size (``$LOG_SIZE``), the number of zones (``$ZONES``), and
the folder for :mod:`benchmarks.lags` (``$LAGS``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from benchmarks.lags import Lags, note
from ssehub import Hub
from ssehub.log.urls import open_log

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

zones = int(os.environ["ZONES"])
hub = Hub(note(open_log(os.environ["LOG_URL"], size=int(os.environ["LOG_SIZE"])), Lags(Path(os.environ["LAGS"]))))


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Serve ``GET /events?n=``: the number of the stream decides about its zone. Other paths show that it runs."""
    if environ["PATH_INFO"] != "/events":
        start_response("200 OK", [("Content-Length", "0")])
        return []
    number = int(parse_qs(environ["QUERY_STRING"])["n"][0])
    return hub.connect(environ, zone=f"z{number % zones}")(environ, start_response)

"""Testing: what the tests of an application need that uses a hub. With pytest there are fixtures of it.

Nothing here imports pytest; the fixtures are in :mod:`ssehub.integrations.pytest`, which pytest finds by itself.
"""

from ssehub.testing.faulty import FaultyLog
from ssehub.testing.recorder import RecordedHub, Recorder, capture
from ssehub.testing.server import Server, serve
from ssehub.testing.stream import AppStream, NotAStream, stream

__all__ = ["AppStream", "FaultyLog", "NotAStream", "RecordedHub", "Recorder", "Server", "capture", "serve", "stream"]

"""Testing: tools for the tests of an application that uses a hub.

Nothing here imports pytest. The fixtures for pytest are in :mod:`ssehub.integrations.pytest`; pytest finds them itself.
"""

from ssehub.testing.faulty import FaultyLog
from ssehub.testing.recorder import RecordedHub, Recorder, capture
from ssehub.testing.server import Server, serve
from ssehub.testing.stream import AppStream, NotAStream, stream

__all__ = ["AppStream", "FaultyLog", "NotAStream", "RecordedHub", "Recorder", "Server", "capture", "serve", "stream"]

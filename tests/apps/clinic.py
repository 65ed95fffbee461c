"""A service that lacks nothing, for the doctor: as many streams as leave room, a short heartbeat, one foreign site."""

from __future__ import annotations

import os
from typing import Any

from ssehub import Hub
from ssehub.service import create_app
from tests.apps.compressing import compressed

ORIGIN = "https://app.example"
DETACH = {"": None, "yes": True, "no": False}[os.environ.get("DETACH", "")]
app: Any = create_app(
    Hub(heartbeat=float(os.environ.get("HEARTBEAT", "0.2")), max_connections=20, detach=DETACH),
    origins=[ORIGIN],
    token="secret",
)
if "COMPRESS" in os.environ:
    app = compressed(app, is_flushed=True)

"""A service that lacks nothing, for the doctor: as many streams as leave room, a short heartbeat, one foreign site."""

from __future__ import annotations

import os

from ssehub import Hub
from ssehub.service import create_app

ORIGIN = "https://app.example"
app = create_app(
    Hub(heartbeat=float(os.environ.get("HEARTBEAT", "0.2")), max_connections=20),
    origins=[ORIGIN],
    token="secret",
)

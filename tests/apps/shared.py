"""A hub whose log is shared, for gunicorn with several workers. ``LOG_URL`` is the URL of the log.

``python -m tests.apps.shared URL SEED COUNT [PAUSE]`` is a publisher in a process of its own, which tells what was
accepted.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import Any

from ssehub import Hub, LogError
from ssehub.log import Log
from ssehub.log.urls import open_log
from ssehub.service import create_app

ZONES, CLIENTS = 10, int(os.environ.get("CLIENTS", "400"))
LOG_SIZE, PARTITIONS = int(os.environ.get("LOG_SIZE", "100000")), int(os.environ.get("PARTITIONS", "1"))


def zone_of(client: int) -> str:
    """Return the zone a client is in."""
    return f"z{client % ZONES}"


def shared_log(url: str, **options: Any) -> Log:
    """Return the log with this URL, and with the size and partitions that the environment names.

    :param options: other arguments of the log.
    """
    partitions = {"partitions": PARTITIONS} if PARTITIONS != 1 else {}  # only a log on Redis has some
    return open_log(url, size=LOG_SIZE, **partitions, **options)


def publish(url: str, seed: int, count: int, pause: float) -> None:
    """Send numbered messages to clients, zones and everyone; print each as JSON with the times before and after."""
    choice = random.Random(seed)
    hub = Hub(shared_log(url, timeout=3.0))
    for n in range(count):
        data = f"{seed}-{n}"
        kind = choice.choices(("client", "zone", "all"), (60, 35, 5))[0]
        whom = {"client": f"c{choice.randrange(CLIENTS)}", "zone": f"z{choice.randrange(ZONES)}", "all": None}[kind]
        began = time.monotonic()
        try:
            if kind == "client":
                hub.send(str(whom), data)
            else:
                hub.broadcast(data, **({"zone": whom} if kind == "zone" else {}))  # type: ignore[arg-type]
            accepted = True
        except LogError:
            accepted = False
        line = {"data": data, "kind": kind, "whom": whom, "began": began, "ended": time.monotonic(), "ok": accepted}
        print(json.dumps(line), flush=True)
        if pause:
            time.sleep(pause)
    hub.close()


if __name__ == "__main__":
    publish(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]) if len(sys.argv) > 4 else 0.0)
elif "LOG_URL" in os.environ:
    log = shared_log(
        os.environ["LOG_URL"], name=os.environ.get("NAME", "ssehub"), lease=float(os.environ.get("LEASE", "15"))
    )
    hub = Hub(
        log,
        heartbeat=float(os.environ.get("HEARTBEAT", "5")),
        retry=100,
        headers={"X-Worker": str(os.getpid())},
    )
    app: Any = create_app(hub, public=False)

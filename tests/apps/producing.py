"""A site that produces numbers on a shared log, for tests with several processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from flask import Flask, request

from ssehub import Hub
from ssehub.log.urls import open_log

LEASE = 1.0

app = Flask(__name__)
hub = Hub(open_log(os.environ["LOG"], name=os.environ["LOG_NAME"], lease=LEASE, size=100_000), retry=50)


def numbers(count: int) -> Iterator[int]:
    for n in range(count):
        if not n % 50:
            time.sleep(0.02)
        yield n


@app.post("/produce/<zone>")
def produce(zone: str) -> dict[str, object]:
    run = hub.produce(zone, numbers(int(request.form["count"])), key=request.form.get("key"))
    return {"zone": run.zone, "started": run.started, "pid": os.getpid()}


@app.post("/stop/<zone>")
def stop(zone: str) -> tuple[str, int]:
    hub.stop(zone)
    return "", 204


@app.get("/read/<zone>")
def read(zone: str) -> object:
    return hub.connect(request, zone=zone, since="oldest")

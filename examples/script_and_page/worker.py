"""The script: follows the jobs, executes one after the other, and reports to their users."""

import os
import pathlib
import signal
import time

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from ssehub import Client

SITE = os.environ.get("SITE", "http://127.0.0.1:8000")
PAUSE = float(os.environ.get("PAUSE", "0.3"))
PLACE = pathlib.Path(os.environ.get("PLACE", "worker.place"))  # stores the id of the last finished job

# A repeated report does no harm, so reports are retried while the application restarts.
session = requests.Session()
session.headers["Authorization"] = f"Bearer {os.environ['WORKER_TOKEN']}"
session.mount(SITE, HTTPAdapter(max_retries=Retry(8, backoff_factor=0.2, allowed_methods=None)))

client = Client(
    f"{SITE}/worker/jobs",
    headers=dict(session.headers),
    last_event_id=PLACE.read_text() if PLACE.exists() else "",
)


@client.on_connection
def connected():
    print("waiting for jobs", flush=True)


@client.on_error
def failed(error, delay):
    print(error, "- for good" if delay is None else f"- once more in {delay:.1f} s", flush=True)


@client.on_gap
def gap(reason, missed):
    print("jobs may be lost:", reason, flush=True)


def do(job):
    """Count the letters of each word. The pause simulates slow work."""
    words = job["text"].split()
    for done, _ in enumerate(words):
        report(job, done=done, of=len(words))
        time.sleep(PAUSE)
    report(job, done=len(words), of=len(words), result=", ".join(f"{word} {len(word)}" for word in words))


def report(job, **progress):
    session.post(f"{SITE}/worker/report", json={**job, **progress}, timeout=10).raise_for_status()


# When the worker is told to stop, it finishes the current job first.
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: client.stop())

for message in client:
    print("job:", message.data, flush=True)
    do(message.json())
    # Not earlier, so that a job is repeated if the worker is killed during it. Further jobs wait in the hub's log.
    PLACE.write_text(message.id)

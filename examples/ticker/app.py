"""Stock prices, live. One thread makes them for all clients; with TICKER_LOG set, another process does (feed.py)."""

import contextlib
import os
import threading
import time

from flask import Flask, request, send_file
from market import SYMBOLS, Market

from ssehub import Hub, HubClosed, RedisLog

INTERVAL = 1.0

log = os.environ.get("TICKER_LOG")
app, market = Flask(__name__), Market()
hub = Hub(RedisLog(log, name="ticker") if log else None)
first = threading.Lock()  # taken once, by the first client, and never given back


@app.get("/")
def page():
    return send_file("index.html")


@app.get("/price")
def price():
    # A new client begins with the last price of each share; one that comes back, with what it has missed.
    return hub.connect(request, zone="prices", since=len(SYMBOLS))


@hub.on_connection
def start_producer(connection):
    # Here and not at import: this is the process that serves, after every fork.
    if not hub.is_shared and first.acquire(blocking=False):
        threading.Thread(target=produce, name="ticker", daemon=True).start()


def produce():
    with contextlib.suppress(HubClosed):  # that is its end
        while True:
            for quote in market.tick():
                hub.broadcast(quote, zone="prices")
            time.sleep(INTERVAL)


@hub.on_gap
def snapshot(connection, gap):
    # What a client has missed is no longer in the log. The prices of now say all that it needs.
    for quote in market.last:
        connection.send(quote)

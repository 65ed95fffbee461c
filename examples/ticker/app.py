"""Live stock prices. One thread creates them for all clients; if TICKER_LOG is set, another process does (feed.py)."""

import contextlib
import os
import threading
import time

from flask import Flask, request, send_file
from market import SYMBOLS, Market

from ssehub import Hub, HubClosed

INTERVAL = 1.0

app, market = Flask(__name__), Market()
hub = Hub(os.environ.get("TICKER_LOG"))
first = threading.Lock()  # acquired once, for the first client, and never released


@app.get("/")
def page():
    return send_file("index.html")


@app.get("/price")
def price():
    # A new client starts with the last price of each share. A client that reconnects gets the prices it has missed.
    return hub.connect(request, zone="prices", since=len(SYMBOLS))


@hub.on_connection
def start_producer(connection):
    # Not at import, because only here it is certain that this process serves requests, after every fork.
    if not hub.is_shared and first.acquire(blocking=False):
        threading.Thread(target=produce, name="ticker", daemon=True).start()


def produce():
    with contextlib.suppress(HubClosed):  # the hub was closed, so the thread ends
        while True:
            for quote in market.tick():
                hub.broadcast(quote, zone="prices")
            time.sleep(INTERVAL)


@hub.on_gap
def snapshot(connection, gap):
    # The missed prices are not in the log any more. The current prices replace them.
    for quote in market.last:
        connection.send(quote)

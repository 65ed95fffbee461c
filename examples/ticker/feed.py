"""Creates the prices in a process of its own, for any number of workers: python feed.py sqlite:ticker.db"""

import contextlib
import sys
import time

from market import Market

from ssehub import Hub, LogError

market, hub = Market(), Hub(sys.argv[1])


def send_prices():
    try:
        for quote in market.tick():
            hub.broadcast(quote, zone="prices")
    except LogError as error:  # for example, the disk is full: these prices are lost, and newer ones follow soon
        print("not sent:", error, file=sys.stderr)


with contextlib.suppress(KeyboardInterrupt):
    while True:
        send_prices()
        time.sleep(1)
hub.close()

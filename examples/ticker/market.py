"""A market with random prices."""

import random
import time

from ssehub import Message

SYMBOLS = ("AAPL", "AMZN")


class Market:
    """Creates prices. One thread calls tick(); any thread may read ``last``."""

    def __init__(self):
        self.last = []  # the newest price of each share, as messages
        self._prices = dict.fromkeys(SYMBOLS, 200.0)

    def tick(self):
        """Change each price a little, and return the new ones as messages. Their type is the name of the share."""
        for symbol, price in self._prices.items():
            self._prices[symbol] = round(max(1.0, price * random.uniform(0.99, 1.01)), 2)
        now = time.time_ns() // 1_000_000
        self.last = [Message.from_json({"price": price, "time": now}, symbol) for symbol, price in self._prices.items()]
        return self.last

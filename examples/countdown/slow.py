"""Reads the countdown slowly, two seconds for each event, and stops at its end."""

import time

from ssehub import Client

for message in Client("http://127.0.0.1:8000/sse"):
    print(message.id, message.event, message.data)
    if message.event == "end":
        break  # leaving the loop closes the connection
    time.sleep(2)

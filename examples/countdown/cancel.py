"""Follows the countdown, and cancels it after five seconds."""

import threading

from ssehub import Client

client = Client("http://127.0.0.1:8000/sse")
timer = threading.Timer(5, client.stop)  # stop() may be called from any thread, and takes effect at once
timer.daemon = True
timer.start()
for message in client:
    print(message.id, message.event, message.data)
print("cancelled at", client.last_event_id or "the start")

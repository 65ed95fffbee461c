import time

from ssehub import Client

client = Client("http://127.0.0.1:8000/events?zone=default", headers=lambda: {"X-Asked-At": str(time.time())})


@client.on_event("score")
def score(message):
    print("score:", message.json())


@client.on_event
def anything(message):
    print(message.event, message.data)


@client.on_connection
def up():
    print("connected")


@client.on_disconnect
def down(error):
    print("disconnected:", error or "in order")


@client.on_error
def trouble(error, delay):
    print(error, "- for good" if delay is None else f"- once more in {delay:.1f} s")


@client.on_gap
def gap(reason, missed):
    print("the hub has lost", "an unknown number of" if missed is None else missed, "messages:", reason)


with client.start():
    input("Enter ends it\n")

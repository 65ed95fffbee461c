"""``event_stream`` under gevent and with Flask, in processes of their own."""

from __future__ import annotations

from tests.servers import output

_GEVENT = """
from ssehub import event_stream
import gevent.monkey; gevent.monkey.patch_all()
import gevent, threading, time

def thinking():
    for n in range(3):
        time.sleep(0.1)
        yield str(n)

others = 0
def other():
    global others
    while True:
        gevent.sleep(0.01)
        others += 1

gevent.spawn(other)
chunks = list(event_stream(thinking(), heartbeat=0.03).response)
beats = chunks.count(b":\\n\\n")
print(3 <= beats <= 9, others > 10, [chunk for chunk in chunks[1:] if chunk != b":\\n\\n"])
"""

_FLASK = """
from flask import Flask, request, stream_with_context
from ssehub import event_stream

app = Flask(__name__)

@app.get("/")
def events():
    def items():
        yield request.args["word"]
        yield request.args["word"]
    return event_stream(stream_with_context(items()))

print(app.test_client().get("/?word=hello").text.count("hello"))
"""


def test_under_gevent_a_silent_generator_has_heartbeats_and_others_run() -> None:
    assert output(_GEVENT) == "True True [b'data: 0\\n\\n', b'data: 1\\n\\n', b'data: 2\\n\\n']\n"


def test_a_generator_with_the_context_of_a_flask_request_sees_the_request() -> None:
    assert output(_FLASK) == "2\n"

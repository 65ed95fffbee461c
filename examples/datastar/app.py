"""A poll whose bars all visitors see move, with Datastar and without JavaScript of one's own."""

import threading

from flask import Flask, abort, render_template

from ssehub.html import datastar
from ssehub.integrations.flask import SSEHub

app = Flask(__name__)
app.config.from_mapping(SECRET_KEY="change me", SSEHUB_URL="/events")
sse = SSEHub(app)
sse.on_gap(datastar.reload_on_gap)  # a page that has missed something loads itself again
votes, lock = {"tea": 0, "coffee": 0, "<water>": 0}, threading.Lock()


@app.get("/")
def page():
    cursor = sse.cursor("poll")  # before the data is read: the stream goes on from here
    return render_template("page.html", votes=dict(votes), cursor=cursor)


@app.post("/votes/<choice>")
def vote(choice):
    if choice not in votes:
        abort(404)
    with lock:  # pages get the messages in the order of the votes
        votes[choice] += 1
        sse.render("bars.html", into=datastar.patch_elements(), zone="poll", votes=dict(votes))
        sse.broadcast(datastar.patch_signals({"total": sum(votes.values())}), zone="poll")
    return "", 204

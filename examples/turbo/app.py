"""A list that all visitors see grow and shrink, with Turbo and without JavaScript of one's own."""

import itertools
import threading

from flask import Flask, render_template, request

from ssehub.html import turbo
from ssehub.integrations.flask import SSEHub

app = Flask(__name__)
app.config.from_mapping(SECRET_KEY="change me", SSEHUB_URL="/events")
sse = SSEHub(app)
sse.on_gap(turbo.refresh_on_gap)  # a page that has missed something loads itself again
tasks, numbers, lock = {}, itertools.count(1), threading.Lock()


@app.get("/")
def page():
    cursor = sse.cursor("tasks")  # before the data is read: the stream goes on from here
    return render_template("page.html", tasks=dict(tasks), cursor=cursor)


@app.post("/tasks")
def add():
    with lock:  # pages get the messages in the order of the changes
        number = next(numbers)
        tasks[number] = request.form["text"]
        sse.render("task.html", into=turbo.append("tasks"), zone="tasks", number=number, text=tasks[number])
    return "", 204


@app.post("/tasks/<int:number>/done")
def done(number):
    with lock:
        if tasks.pop(number, None) is not None:
            sse.broadcast(turbo.remove(f"task-{number}"), zone="tasks")
    return "", 204

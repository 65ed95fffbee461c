from flask import Flask, request

from ssehub import Hub

app, hub = Flask(__name__), Hub()


@app.get("/events")
def events():
    return hub.connect(request, zone="news")


@app.post("/news")
def news():
    return {"id": hub.broadcast(request.form["text"], zone="news").id}

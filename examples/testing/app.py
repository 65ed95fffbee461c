from flask import Flask, request

from ssehub import Hub, LogError


def create_app(hub):
    app, latest = Flask(__name__), []

    @app.get("/events")
    def events():
        return hub.connect(request, zone="news", client_id=request.args.get("user"))  # a real one uses the session

    @app.post("/news")
    def news():
        try:
            receipt = hub.broadcast(request.form["text"], zone="news")
        except LogError:
            return {"error": "not sent, or perhaps it was"}, 503
        latest[:] = [request.form["text"]]
        return {"id": receipt.id}

    @hub.on_gap
    def anew(connection, gap):
        if latest:
            connection.send(f"the latest is: {latest[0]}")

    return app


if __name__ == "__main__":
    create_app(Hub()).run(threaded=True)

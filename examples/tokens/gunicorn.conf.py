# The streams of /ask have no hub: each uses a thread until it ends, and gunicorn waits for it when it stops.
worker_class = "gthread"
threads = 200
worker_connections = 1200
graceful_timeout = 5

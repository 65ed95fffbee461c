from ssehub.integrations.gunicorn import post_worker_init

worker_class = "gthread"
workers = 1
threads = 200
worker_connections = 1200
graceful_timeout = 5

from ssehub.integrations.gunicorn import post_worker_init

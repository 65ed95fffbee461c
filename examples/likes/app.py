"""The likes board, for gunicorn and ``flask run``."""

import os

from web import create_app

app = create_app(os.environ.get("REDIS_URL", "redis://localhost:6379/0"), name=os.environ.get("BOARD", "likes"))

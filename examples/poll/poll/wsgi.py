"""The application, for gunicorn."""

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "poll.settings")
# For local use. In production the web server serves the static files.
application = StaticFilesHandler(get_wsgi_application())

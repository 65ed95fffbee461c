"""The application, for gunicorn."""

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "poll.settings")
# For trying: in production the web server has the static files.
application = StaticFilesHandler(get_wsgi_application())

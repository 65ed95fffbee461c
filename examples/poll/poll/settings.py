"""The settings. Those of ssehub are at the end."""

import os
from pathlib import Path

SECRET_KEY = os.environ.get("SECRET_KEY", "only for trying")
STATIC_URL = "static/"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "poll.urls"
INSTALLED_APPS = [
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "ssehub.integrations.django",
    "poll",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", Path(__file__).parent.parent / "poll.sqlite3"),
        "OPTIONS": {"timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SESSION_COOKIE_SAMESITE = "Lax"

# Without a Redis the log is in the memory of the process. Several workers need a Redis.
SSEHUB = {"LOG": os.environ.get("REDIS_URL")}

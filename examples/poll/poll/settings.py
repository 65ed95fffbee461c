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

# The log is in the database of the site. So several workers share it, and a message can be part of a transaction.
SSEHUB = {"LOG": f"sqlite:{DATABASES['default']['NAME']}"}

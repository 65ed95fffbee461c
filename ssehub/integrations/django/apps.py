"""The application, as Django knows it."""

from __future__ import annotations

from django.apps import AppConfig

from ssehub.integrations.django.site import read_settings


class SSEHubConfig(AppConfig):
    """Check the settings when Django starts, and make nothing yet."""

    name = "ssehub.integrations.django"
    label = "ssehub"
    verbose_name = "ssehub"

    def ready(self) -> None:
        """Refuse settings that are unfit where they enter."""
        read_settings()

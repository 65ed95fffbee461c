"""The application configuration for Django."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core.signals import setting_changed

from ssehub.integrations.django.site import forget_hub, hub


class SSEHubConfig(AppConfig):
    """Creates the hub when Django starts, which checks the settings. The hub starts and connects nothing yet."""

    name = "ssehub.integrations.django"
    label = "ssehub"
    verbose_name = "ssehub"

    def ready(self) -> None:
        """Check the settings."""
        hub()
        setting_changed.connect(_forget_hub, dispatch_uid="ssehub")


def _forget_hub(*, setting: str, **_: Any) -> None:
    """Replace the hub after a test has overridden the settings."""
    if setting == "SSEHUB":
        forget_hub()

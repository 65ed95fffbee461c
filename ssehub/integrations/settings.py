"""Settings: code that the integrations share, to create a hub from settings and to send a message."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from ssehub.events import Message
from ssehub.log import ALL, Packet, Receipt
from ssehub.log.urls import open_log
from ssehub.wsgi.hub import Hub

#: The arguments of a hub except its log.
_OPTIONS = tuple(name for name in inspect.signature(Hub).parameters if name != "log")


def hub_options(given: Mapping[str, Any], others: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Return the arguments of a hub that are in the settings, where they have names in capitals.

    :param others: the names of other settings.
    :param prefix: the prefix of a setting's name in an error text.
    :raises ValueError: if a setting is neither.
    """
    options = {name: given[name.upper()] for name in _OPTIONS if name.upper() in given}
    unknown = sorted(given.keys() - {name.upper() for name in options} - set(others))
    if unknown:
        raise ValueError(f"unknown settings: {', '.join(prefix + name for name in unknown)}")
    return options


def make_hub(given: Mapping[str, Any], others: Collection[str], prefix: str = "") -> Hub:
    """Create a hub from settings, or return the setting ``HUB``. With ``HUB`` the other settings are ignored.

    :param given: the settings: ``HUB``, ``LOG``, ``LOG_OPTIONS``, and the arguments of a hub in capitals.
    :param others: the names of other settings.
    :param prefix: the prefix of a setting's name in an error text.
    :raises ValueError: if a setting is invalid or unknown.
    :raises TypeError: if a setting has the wrong type.
    """
    options = hub_options(given, ("HUB", "LOG", "LOG_OPTIONS", *others), prefix)
    hub = given.get("HUB")
    if hub is None:
        log = given.get("LOG")
        if isinstance(log, str):
            log = open_log(log, **(given.get("LOG_OPTIONS") or {}))
        return Hub(log, **options)
    if not isinstance(hub, Hub):
        raise TypeError(f"{prefix}HUB must be a Hub, not {type(hub).__name__}")
    return hub


def send_and_close(hub: Hub, text: str, zone: str | None, client_id: str | None, event: str, id: str | None) -> Receipt:
    """Send a message for a framework's command, to all clients, a zone or a client, and close the hub.

    :raises ValueError: if a value is invalid.
    :raises LogError: if the log did not accept the message.
    """
    try:
        message = Message(text, event, id=id)
        return hub.send_message(Packet(message, zone or ALL, client_id, client_id is None))
    finally:
        hub.close()

"""Settings: what the integrations with frameworks share: a hub out of names and values, one message sent through it."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from ssehub.events import Message
from ssehub.log import ALL, Log, Packet, Receipt
from ssehub.wsgi.hub import Hub

#: The arguments of a hub, all but its log.
_OPTIONS = tuple(name for name in inspect.signature(Hub).parameters if name != "log")


def hub_options(given: Mapping[str, Any], others: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Pick the arguments of a hub, which settings name in capitals.

    :param others: the names that are settings, too.
    :param prefix: what an error puts before a name.
    :raises ValueError: if there is a name that is neither.
    """
    options = {name: given[name.upper()] for name in _OPTIONS if name.upper() in given}
    unknown = sorted(given.keys() - {name.upper() for name in options} - set(others))
    if unknown:
        raise ValueError(f"unknown settings: {', '.join(prefix + name for name in unknown)}")
    return options


def make_hub(given: Mapping[str, Any], others: Collection[str], prefix: str = "") -> Hub:
    """Make a hub of settings, or return the hub that is the setting ``HUB``; the other settings are unused then.

    :param given: the settings: ``HUB``, ``LOG``, ``LOG_OPTIONS``, and the arguments of a hub in capitals.
    :param others: the names that are settings, too.
    :param prefix: what an error puts before a name.
    :raises ValueError: if a setting is unfit, or its name is unknown.
    :raises TypeError: if a setting has the wrong type.
    """
    options = hub_options(given, ("HUB", "LOG", "LOG_OPTIONS", *others), prefix)
    hub = given.get("HUB")
    if hub is None:
        return Hub(open_log(given.get("LOG"), given.get("LOG_OPTIONS") or {}), **options)
    if not isinstance(hub, Hub):
        raise TypeError(f"{prefix}HUB must be a Hub, not {type(hub).__name__}")
    return hub


def open_log(where: str | Log | None, options: Mapping[str, Any]) -> Log | None:
    """Return a log, or make the one at an address; its package is an extra.

    :raises ValueError: if the address is none, or the package is missing.
    """
    if where is None or isinstance(where, Log):
        return where
    try:
        from ssehub.log.redis import RedisLog
    except ImportError:
        raise ValueError("a log on Redis needs another package: pip install 'ssehub[redis]'") from None
    return RedisLog(where, **options)


def send_and_close(hub: Hub, text: str, zone: str | None, client_id: str | None, event: str, id: str | None) -> Receipt:
    """Send what a framework's command was given, to everyone, a zone or a client, and close the hub.

    :raises ValueError: if something is unfit.
    :raises LogError: if it was not accepted.
    """
    try:
        message = Message(text, event, id=id)
        return hub.send_message(Packet(message, zone or ALL, client_id, client_id is None))
    finally:
        hub.close()

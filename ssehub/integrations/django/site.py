"""The hub of a Django site, made of ``settings.SSEHUB`` when it is first asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ssehub.integrations.settings import make_hub
from ssehub.wsgi.access import Authorize, check_origins
from ssehub.wsgi.hub import Hub

_OTHERS = ("ORIGINS", "CLIENT_ID", "AUTHORIZE")

_lock = threading.Lock()
_hub: Hub | None = None


class Settings(NamedTuple):
    """Hold what ``settings.SSEHUB`` says of requests."""

    origins: frozenset[str]
    client_id: Callable[[Any], str | None]
    authorize: Authorize | None


def read_settings() -> Settings:
    """Read what ``settings.SSEHUB`` says of requests. It is a dictionary, and all of it is optional.

    ``LOG`` is a URL (``redis://...``) or a log, the default is in memory; ``LOG_OPTIONS`` are more arguments for a log
    that is named by its URL. ``CLIENT_ID`` is a function, or the dotted path of one: it is called with the request, and
    returns who it is, or None; by default it is the user's primary key, of one who is logged in. ``AUTHORIZE``
    likewise, see :data:`~ssehub.wsgi.access.Authorize`. ``ORIGINS`` are those of other sites whose pages may follow.
    ``HEARTBEAT``, ``DETACH`` and so on are the arguments of :class:`~ssehub.Hub`. ``HUB`` is a hub that you made, that
    of a test for instance; the settings for a hub are not used then.

    :raises ImproperlyConfigured: if a setting is unfit.
    """
    given = _given()
    try:
        origins = check_origins(given.get("ORIGINS", ()))
        client_id, authorize = _function(given.get("CLIENT_ID", _user)), _function(given.get("AUTHORIZE"))
    except (ValueError, TypeError, ImportError) as error:
        raise ImproperlyConfigured(f"settings.SSEHUB: {error}") from error
    return Settings(origins, client_id, authorize)


def hub() -> Hub:
    """Return the hub of this site. Any thread may call it.

    :raises ImproperlyConfigured: if a setting is unfit, or its name is unknown.
    """
    global _hub  # noqa: PLW0603 - one for each process, like Django's own connections
    with _lock:
        if _hub is None:
            read_settings()
            try:
                _hub = make_hub(_given(), _OTHERS)
            except (ValueError, TypeError) as error:
                raise ImproperlyConfigured(f"settings.SSEHUB: {error}") from error
        return _hub


def forget_hub() -> None:
    """Close the hub of this site, if there is one; :func:`hub` makes the next."""
    global _hub
    with _lock:
        forgotten, _hub = _hub, None
    if forgotten is not None:
        forgotten.close()


def _given() -> dict[str, Any]:
    return dict(getattr(settings, "SSEHUB", {}))


def _function(given: Any) -> Any:
    return import_string(given) if isinstance(given, str) else given


def _user(request: Any) -> str | None:
    user = getattr(request, "user", None)
    return str(user.pk) if user is not None and user.is_authenticated else None

"""The hub of a Django site, created from ``settings.SSEHUB`` on first use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ssehub.integrations.settings import make_hub
from ssehub.integrations.signed_zones import check_age
from ssehub.wsgi.access import Authorize, check_origins
from ssehub.wsgi.hub import Hub

_OTHERS = ("ORIGINS", "CLIENT_ID", "AUTHORIZE", "SIGNATURE_AGE")

_lock = threading.Lock()
_hub: Hub | None = None


class Settings(NamedTuple):
    """The part of ``settings.SSEHUB`` that concerns requests."""

    origins: frozenset[str]
    client_id: Callable[[Any], str | None]
    authorize: Authorize | None
    #: Seconds for which a signed address is valid.
    signature_age: int


def read_settings() -> Settings:
    """Return the part of ``settings.SSEHUB`` that concerns requests.

    ``settings.SSEHUB`` is a dictionary. All keys are optional:

    * ``LOG``: a URL (``sqlite:hub.db``, ``redis://...``) or a log. By default the log is in memory.
    * ``LOG_OPTIONS``: more arguments for a log that is given by its URL.
    * ``CLIENT_ID``: a function, or its dotted path. It is called with the request, and returns the id of the client, or
      None. By default it is the primary key of the logged-in user.
    * ``AUTHORIZE``: a function, or its dotted path; see :data:`~ssehub.wsgi.access.Authorize`.
    * ``ORIGINS``: other origins whose pages may use the streams.
    * ``SIGNATURE_AGE``: seconds for which the signed address of a stream is valid. By default a day.
    * ``HEARTBEAT``, ``DETACH`` and so on: the arguments of :class:`~ssehub.Hub`.
    * ``HUB``: a hub that you have created, for a test for example. The other settings of a hub are ignored then.

    :raises ImproperlyConfigured: if a setting is invalid.
    """
    given = _given()
    try:
        origins = check_origins(given.get("ORIGINS", ()))
        client_id, authorize = _function(given.get("CLIENT_ID", _user)), _function(given.get("AUTHORIZE"))
        signature_age = check_age(given.get("SIGNATURE_AGE"))
    except (ValueError, TypeError, ImportError) as error:
        raise ImproperlyConfigured(f"settings.SSEHUB: {error}") from error
    return Settings(origins, client_id, authorize, signature_age)


def hub() -> Hub:
    """Return the hub of this site. Thread-safe.

    :raises ImproperlyConfigured: if a setting is invalid or unknown.
    """
    global _hub  # noqa: PLW0603 - one per process, like Django's own connections
    with _lock:
        if _hub is None:
            read_settings()
            try:
                _hub = make_hub(_given(), _OTHERS)
            except (ValueError, TypeError) as error:
                raise ImproperlyConfigured(f"settings.SSEHUB: {error}") from error
        return _hub


def forget_hub() -> None:
    """Close the hub of this site, if there is one. The next call of :func:`hub` creates a new one."""
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

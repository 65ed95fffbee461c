"""Pages: templates that are sent as messages, and the stream's address in a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils.safestring import SafeString, mark_safe

from ssehub.events import Message
from ssehub.html.markup import Into
from ssehub.integrations import signed_zones
from ssehub.integrations.after_commit import packet_of
from ssehub.integrations.django.signer import sign
from ssehub.integrations.django.site import hub, read_settings
from ssehub.integrations.signed_zones import PUBLIC, Kind
from ssehub.log import ALL, All, Receipt


def fragment(
    template_name: str | Sequence[str],
    context: Mapping[str, Any] | None = None,
    *,
    event: str | None = None,
    into: Into | None = None,
    using: str | None = None,
) -> Message:
    """Render a template, and return it as a message, without sending it.

    The template is rendered without a request, so all users get the same HTML: it has no
    ``user``, and no CSRF token. Pass what it needs in the context. The language is the active one.

    :param event: the event type, ``"message"`` by default.
    :param into: makes the message from the HTML, such as ``turbo.append("list")``; see :mod:`ssehub.html`.
    :param using: the name of the template engine.
    :raises ValueError: if both ``event`` and ``into`` are given.
    """
    if event is not None and into is not None:
        raise ValueError("into makes the whole message, also its type: leave event out")
    html = render_to_string(template_name, None if context is None else dict(context), using=using)
    return Message.html(html, event or "message") if into is None else into(html)


def render(
    template_name: str | Sequence[str],
    context: Mapping[str, Any] | None = None,
    *,
    zone: str | All = ALL,
    client_id: str | None = None,
    event: str | None = None,
    into: Into | None = None,
    exclude: Iterable[str] = (),
    within: Any = None,
    using: str | None = None,
) -> Receipt:
    """Render a template, and send it; see :func:`fragment`.

    ``render("row.html", {"row": row}, into=turbo.append("list"), zone="news")``. To send it after the commit:
    ``after_commit(fragment("row.html", {"row": row}), zone="news")``.

    :param client_id: the client that gets it. None: all clients. ``zone``, ``exclude`` and ``within`` are those of
        :meth:`ssehub.Hub.broadcast`.
    """
    message = fragment(template_name, context, event=event, into=into, using=using)
    return hub().send_message(packet_of(message, zone, client_id, exclude), within)


def address(
    request: HttpRequest, zone: str | Sequence[str] = "default", *, cursor: str | None = None, url: str | None = None
) -> str:
    """Return the address of a stream for the page that is the response to a request. In templates: ``sse_url``.

    It has a cursor, so that the stream starts where the page ends. If the stream is that of ``views.events``, and there
    is no ``AUTHORIZE``, it also has a signature, which allows this client to follow these zones.

    :param cursor: what ``hub().cursor(zone)`` returned before the data was read. None: the cursor of this moment.
    :param url: the address of a view of yours, which decides by itself. None: that of ``views.events``.
    :raises ImproperlyConfigured: if ``views.events`` has no URL.
    :raises ValueError: if a name is invalid.
    """
    zones, found = signed_zones.zones_of(zone), read_settings()
    where = hub().cursor(zones) if cursor is None else cursor
    signature = None
    if url is None:
        url = _url_of_events()
        if found.authorize is None and zones != PUBLIC:
            signature = sign(zones, found.client_id(request))
    return signed_zones.address(url, zones, signature, where)


def source(
    request: HttpRequest,
    zone: str | Sequence[str] = "default",
    kind: Kind = "turbo",
    *,
    cursor: str | None = None,
    url: str | None = None,
) -> SafeString:
    """Return what opens a stream in the page that is the response to a request. In templates: ``sse_source``.

    :param kind: ``"turbo"`` returns an element. ``"htmx"`` (version 2), ``"htmx4"`` and ``"datastar"`` return the
        attributes of an element of yours. The other parameters are those of :func:`address`.
    :raises ValueError: if there is no such kind.
    """
    return mark_safe(signed_zones.source(kind, address(request, zone, cursor=cursor, url=url)))


def _url_of_events() -> str:
    from ssehub.integrations.django import views

    try:
        return str(reverse(views.events))
    except NoReverseMatch:
        raise ImproperlyConfigured(
            'there is no stream here: add path("events", views.events) to the URLs, or give the address of your view'
            " as url="
        ) from None

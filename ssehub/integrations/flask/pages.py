"""Pages: templates that are sent as messages, and the stream's address in a page."""

from __future__ import annotations

import contextvars
import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from flask import Flask, current_app, render_template, url_for
from itsdangerous import BadSignature, TimestampSigner
from markupsafe import Markup
from werkzeug.exceptions import Forbidden

from ssehub.events import Message
from ssehub.html.markup import Into
from ssehub.integrations import signed_zones
from ssehub.integrations.after_commit import packet_of
from ssehub.integrations.signed_zones import EXPIRED, NOT_VALID, PUBLIC, PURPOSE, Kind, statement
from ssehub.log import ALL, All, Receipt
from ssehub.wsgi.access import Authorize
from ssehub.wsgi.hub import Hub


class Pages:
    """The part of :class:`ssehub.integrations.flask.SSEHub` that concerns templates."""

    _app: Flask | None
    _client_id: Callable[[], str | None]
    _authorize: Authorize | None

    @property
    def hub(self) -> Hub:
        """The hub of the current application."""
        raise NotImplementedError

    def fragment(
        self, template_name: str, /, *, event: str | None = None, into: Into | None = None, **context: Any
    ) -> Message:
        """Render a template, and return it as a message, without sending it.

        The template is rendered in an anonymous request, because all users get the same HTML. So ``session`` and ``g``
        are empty. Pass what the template needs in the context.
        It can be called in a request, in the application's context, or anywhere if the extension was created with the
        application. Only templates that Flask escapes should be sent, so give them the suffix ``.html``.

        :param event: the event type, ``"message"`` by default.
        :param into: makes the message from the HTML, such as ``turbo.append("list")``; see :mod:`ssehub.html`.
        :param context: the variables of the template.
        :raises ValueError: if both ``event`` and ``into`` are given.
        :raises RuntimeError: if there is no application.
        """
        if event is not None and into is not None:
            raise ValueError("into makes the whole message, also its type: leave event out")
        html = contextvars.Context().run(self._render, self._application(), template_name, context)
        return Message.html(html, event or "message") if into is None else into(html)

    def render(
        self,
        template_name: str,
        /,
        *,
        zone: str | All = ALL,
        client_id: str | None = None,
        event: str | None = None,
        into: Into | None = None,
        exclude: Iterable[str] = (),
        within: Any = None,
        **context: Any,
    ) -> Receipt:
        """Render a template, and send it; see :meth:`fragment`.

        ``sse.render("row.html", into=turbo.append("list"), zone="news", row=row)``. To send it after a commit:
        ``sse.after_commit(sse.fragment("row.html", row=row), zone="news")``.

        :param client_id: the client that gets it. None: all clients. ``zone``, ``exclude`` and ``within`` are those of
            :meth:`ssehub.Hub.broadcast`.
        """
        message = self.fragment(template_name, event=event, into=into, **context)
        return self.hub.send_message(packet_of(message, zone, client_id, exclude), within)

    def address(
        self, zone: str | Sequence[str] = "default", *, cursor: str | None = None, url: str | None = None
    ) -> str:
        """Return the address of a stream for the page that is being rendered. In templates: ``sse_url``.

        It has a cursor, so that the stream starts where the page ends. If the stream is that of ``SSEHUB_URL``, and
        there is no ``authorize``, it also has a signature, which allows this client to follow these zones.

        :param cursor: what ``sse.cursor(zone)`` returned before the data was read. None: the cursor of this moment.
        :param url: the address of a view of yours, which decides by itself. None: ``SSEHUB_URL``.
        :raises RuntimeError: if there is no ``SSEHUB_URL``, or no secret key to sign with.
        :raises ValueError: if a name is invalid.
        """
        zones = signed_zones.zones_of(zone)
        where = self.hub.cursor(zones) if cursor is None else cursor
        signature = None
        if url is None:
            if not current_app.config.get("SSEHUB_URL"):
                raise RuntimeError(
                    "there is no stream to name: set SSEHUB_URL, or give the address of your view as url="
                )
            url = url_for("ssehub.events")
            if self._authorize is None and zones != PUBLIC:
                signature = _sign(statement(zones, self._client_id()))
        return signed_zones.address(url, zones, signature, where)

    def source(
        self,
        zone: str | Sequence[str] = "default",
        kind: Kind = "turbo",
        *,
        cursor: str | None = None,
        url: str | None = None,
    ) -> Markup:
        """Return what opens a stream in the page that is being rendered. In templates: ``sse_source``.

        :param kind: ``"turbo"`` returns an element. ``"htmx"`` (version 2), ``"htmx4"`` and ``"datastar"`` return the
            attributes of an element of yours. The other parameters are those of :meth:`address`.
        :raises ValueError: if there is no such kind.
        """
        return Markup(signed_zones.source(kind, self.address(zone, cursor=cursor, url=url)))

    def _application(self) -> Flask:
        app: Any = current_app
        found: Flask | None = app._get_current_object() if app else self._app
        if found is None:
            raise RuntimeError("there is no application whose template could be rendered: push its context")
        return found

    @staticmethod
    def _render(app: Flask, template_name: str, context: dict[str, Any]) -> str:
        # An anonymous request: url_for and the application's context processors work, without the data of a user.
        with app.test_request_context(base_url=_base_url(app)):
            return render_template(template_name, **context)


def seconds_allowed(zones: Sequence[str], client_id: str | None, signature: str) -> float:
    """Check the signature of a stream's address, in constant time.

    :returns: the seconds for which it is still valid.
    :raises Forbidden: if it is not valid.
    """
    expected = statement(zones, client_id)
    try:
        text, at = _signer().unsign(f"{expected}.{signature}", return_timestamp=True)
    except (BadSignature, RuntimeError, UnicodeError):
        raise Forbidden(NOT_VALID) from None
    if text.decode() != expected:
        raise Forbidden(NOT_VALID)
    age = signed_zones.check_age(current_app.config.get("SSEHUB_SIGNATURE_AGE"))
    left = signed_zones.seconds_left(age, (datetime.now(timezone.utc) - at).total_seconds())
    if left is None:
        raise Forbidden(EXPIRED)
    return left


def _base_url(app: Flask) -> str | None:
    """Return the base of the addresses in a fragment, if Flask would not accept its own default, ``localhost``."""
    trusted = app.config.get("TRUSTED_HOSTS")
    if app.config["SERVER_NAME"] or not trusted:
        return None
    root = app.config["APPLICATION_ROOT"].rstrip("/")
    return f"{app.config['PREFERRED_URL_SCHEME']}://{trusted[0].lstrip('.')}{root}/"


def _sign(text: str) -> str:
    return _signer().sign(text).decode()[len(text) + 1 :]


def _signer() -> TimestampSigner:
    key = current_app.secret_key
    if not key:
        raise RuntimeError("the zones of a stream are signed: set app.secret_key, or give SSEHub an authorize")
    # The last key signs, and all are accepted, as Flask does it for its sessions.
    keys = [*(current_app.config.get("SECRET_KEY_FALLBACKS") or ()), key]
    return TimestampSigner(keys, PURPOSE, key_derivation="hmac", digest_method=hashlib.sha256)

"""Extension: a hub as a Flask extension."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from flask import Flask, Response, current_app, request
from flask.typing import ResponseReturnValue

from ssehub.integrations.after_commit import packet_of, send_after_commit
from ssehub.integrations.flask.commands import commands
from ssehub.integrations.flask.pages import Pages, seconds_allowed
from ssehub.integrations.settings import make_hub
from ssehub.integrations.signed_zones import PUBLIC, SIGNATURE, check_age
from ssehub.log import ALL, All, Gap, Receipt
from ssehub.logger import logger
from ssehub.server.connection import Connection
from ssehub.wsgi.access import Authorize, check, check_origins, cors_headers, preflight_headers
from ssehub.wsgi.hub import Hub
from ssehub.wsgi.response import NO_SNIFFING, Unfit
from ssehub.wsgi.script import shared_script

#: Attribute that marks a view with streams. Decorators copy it, if they use ``functools.wraps``.
_IS_STREAM = "is_ssehub_stream"
_OTHERS = ("URL", "SCRIPT_URL", "ORIGINS", "SIGNATURE_AGE")
_HookName = Literal["on_connection", "on_disconnect", "on_gap"]
_ConnectionHook = TypeVar("_ConnectionHook", bound=Callable[[Connection], object])
_GapHook = TypeVar("_GapHook", bound=Callable[[Connection, Gap], object])


class SSEHub(Pages):
    """Adds a hub to a Flask application. Templates have the functions ``sse_source`` and ``sse_url``.

    The configuration, all optional:

    * ``SSEHUB_LOG``: a URL (``sqlite:hub.db``, ``redis://...``) or a log. By default the log is in memory.
    * ``SSEHUB_LOG_OPTIONS``: more arguments for a log that is given by its URL.
    * ``SSEHUB_URL``: the path of a stream, such as ``/events``. Without it, write a view and decorate it with
      :meth:`stream`.
    * ``SSEHUB_SCRIPT_URL``: the path of the script with which the tabs of a browser share one stream, such as
      ``/shared.js``.
    * ``SSEHUB_ORIGINS``: other origins whose pages may use the streams.
    * ``SSEHUB_SIGNATURE_AGE``: seconds for which the signed address of a stream is valid, see :meth:`source`. By
      default a day.
    * ``SSEHUB_HEARTBEAT``, ``SSEHUB_DETACH`` and so on: the arguments of :class:`~ssehub.Hub`.
    * ``SSEHUB_HUB``: a hub that you have created, for a test for example. The other settings of a hub are ignored then.

    :param app: the application; or call :meth:`init_app` later.
    :param client_id: called for each stream in the context of its request. It returns the id of the client, or None for
        a client without an id, which is the default.
    :param authorize: called before each stream of ``SSEHUB_URL``, see :data:`~ssehub.wsgi.access.Authorize`. Without
        it, only the zone ``default`` can be followed there, and the zones that :meth:`source` has signed.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        client_id: Callable[[], str | None] = lambda: None,
        authorize: Authorize | None = None,
    ) -> None:
        self._client_id = client_id
        self._authorize = authorize
        self._app = app
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        self._hooks: list[tuple[_HookName, Callable[..., object]]] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Create the hub of an application. It is available as ``app.extensions["ssehub"]``.

        This starts and connects nothing.

        :raises ValueError: if a setting is invalid or unknown.
        """
        own = {name.removeprefix("SSEHUB_"): value for name, value in app.config.items() if name.startswith("SSEHUB_")}
        hub = make_hub(own, _OTHERS, "SSEHUB_")
        app.config.setdefault("SSEHUB_ORIGINS", ())
        check_origins(app.config["SSEHUB_ORIGINS"])
        check_age(own.get("SIGNATURE_AGE"))
        app.extensions["ssehub"] = hub
        for name, callback in self._hooks:
            getattr(hub, name)(_within(app, callback))
        self._apps.add(app)
        if own.get("URL"):
            app.add_url_rule(own["URL"], "ssehub.events", self._events)
        if own.get("SCRIPT_URL"):
            app.add_url_rule(own["SCRIPT_URL"], "ssehub.script", lambda: shared_script(request))
        app.before_request(self._preflight)
        app.after_request(self._show_origins)
        app.add_template_global(self.source, "sse_source")
        app.add_template_global(self.address, "sse_url")
        app.cli.add_command(commands)

    @property
    def hub(self) -> Hub:
        """The hub of the current application; outside of one, that of the application given to the constructor.

        :raises RuntimeError: if there is no application.
        """
        app = current_app if current_app else self._app
        if app is None or "ssehub" not in app.extensions:
            raise RuntimeError("there is no application here for which SSEHub was initialised")
        hub: Hub = app.extensions["ssehub"]
        return hub

    def broadcast(
        self,
        message: Any,
        *,
        zone: str | All = ALL,
        exclude: Iterable[str] = (),
        event: str | None = None,
        id: str | None = None,
        default: Callable[[Any], Any] | None = None,
        key: str | None = None,
        within: Any = None,
    ) -> Receipt:
        """Send a message to all clients, or to the clients in a zone; see :meth:`ssehub.Hub.broadcast`."""
        return self.hub.broadcast(
            message, zone=zone, exclude=exclude, event=event, id=id, default=default, key=key, within=within
        )

    def send(
        self,
        client_id: str,
        message: Any,
        *,
        zone: str | All = ALL,
        exclude: Iterable[str] = (),
        require: bool = False,
        event: str | None = None,
        id: str | None = None,
        default: Callable[[Any], Any] | None = None,
        key: str | None = None,
        within: Any = None,
    ) -> Receipt:
        """Send a message to a client; see :meth:`ssehub.Hub.send`."""
        return self.hub.send(
            client_id,
            message,
            zone=zone,
            exclude=exclude,
            require=require,
            event=event,
            id=id,
            default=default,
            key=key,
            within=within,
        )

    def after_commit(
        self,
        message: Any,
        *,
        session: Any = None,
        zone: str | All = ALL,
        client_id: str | None = None,
        exclude: Iterable[str] = (),
        event: str | None = None,
        id: str | None = None,
        default: Callable[[Any], Any] | None = None,
    ) -> None:
        """Send a message when the database session is committed. After a rollback it is not sent.

        If the process dies between the commit and the sending, the message is lost. If the log is in the same database,
        ``within`` of :meth:`broadcast` avoids this.

        :param session: a session of SQLAlchemy. None: the session of Flask-SQLAlchemy.
        :param client_id: the client that gets the message; None for all clients. The other parameters are those of
            :meth:`ssehub.Hub.broadcast`.
        :raises RuntimeError: if the application does not use Flask-SQLAlchemy, and no session is given.
        :raises TypeError: if ``session`` is not a session, or as for :meth:`ssehub.Hub.broadcast`.
        :raises ValueError: as for :meth:`ssehub.Hub.broadcast`.
        """
        if session is None:
            database = current_app.extensions.get("sqlalchemy")
            if database is None:
                raise RuntimeError("the application does not use Flask-SQLAlchemy: give a session")
            session = database.session
        send_after_commit(session, self.hub, packet_of(message, zone, client_id, exclude, event, id, default))

    def cursor(self, zone: str | Sequence[str] | All = ALL) -> str:
        """Return the current end of the log as a cursor, for a page; see :meth:`ssehub.Hub.cursor`."""
        return self.hub.cursor(zone)

    def on_connection(self, callback: _ConnectionHook) -> _ConnectionHook:
        """Add a hook ``on_connection`` to the hub of each application. For use as a decorator: it returns the hook.

        You can use it before or after :meth:`init_app`. The hook runs in the application's context.
        """
        self._add_hook("on_connection", callback)
        return callback

    def on_disconnect(self, callback: _ConnectionHook) -> _ConnectionHook:
        """Add a hook ``on_disconnect``, as :meth:`on_connection` does."""
        self._add_hook("on_disconnect", callback)
        return callback

    def on_gap(self, callback: _GapHook) -> _GapHook:
        """Add a hook ``on_gap``, as :meth:`on_connection` does."""
        self._add_hook("on_gap", callback)
        return callback

    def _add_hook(self, name: _HookName, callback: Callable[..., object]) -> None:
        self._hooks.append((name, callback))
        for app in self._apps:
            getattr(app.extensions["ssehub"], name)(_within(app, callback))

    def stream(self, view: Callable[..., Any]) -> Callable[..., ResponseReturnValue]:
        """Decorate a view so that it returns a stream.

        The view returns the arguments of :meth:`ssehub.Hub.connect`: a zone, a list of zones, or a dictionary. Check in
        the view whether the user may follow; after ``abort(403)`` nothing is registered. Any other response is sent
        unchanged.
        """

        @functools.wraps(view)
        def _answer(*arguments: Any, **named: Any) -> ResponseReturnValue:
            wanted = current_app.ensure_sync(view)(*arguments, **named)
            if isinstance(wanted, str | list):
                wanted = {"zone": wanted}
            try:
                return self._connect(**wanted) if isinstance(wanted, Mapping) else wanted
            except Unfit as error:
                return {"error": str(error)}, 400

        setattr(_answer, _IS_STREAM, True)
        return _answer

    def _preflight(self) -> ResponseReturnValue | None:
        """Answer a preflight request for a stream before any login check, because it has no cookies."""
        if not self._is_for_stream():
            return None
        headers = preflight_headers(request.method, request.headers.get("Origin"), _origins())
        return None if headers is None else ("", 204, headers)

    def _show_origins(self, response: Response) -> Response:
        """Let allowed pages read why a stream is refused. Without these headers it looks like a network error."""
        if response.status_code >= 400 and self._is_for_stream():
            response.headers.update({**_cors_headers(), **NO_SNIFFING})
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    def _is_for_stream(self) -> bool:
        view = current_app.view_functions.get(request.endpoint or "")
        return hasattr(view, _IS_STREAM) or view == self._events

    def _events(self) -> ResponseReturnValue:
        zones = request.args.getlist("zone") or ["default"]
        client_id, max_age = self._client_id(), None
        if self._authorize is not None:
            max_age = check(self._authorize, request, "subscribe", zones, client_id)
        elif (signature := request.args.get(SIGNATURE)) is not None:
            max_age = seconds_allowed(zones, client_id, signature)
        elif zones != [*PUBLIC]:
            return {"error": "only the zone default is public: the application has no authorize"}, 403
        try:
            return self._connect(zone=zones, client_id=client_id, max_age=max_age)
        except Unfit as error:
            return {"error": str(error)}, 400

    def _connect(self, **options: Any) -> ResponseReturnValue:
        options.setdefault("client_id", self._client_id())
        _warn_of_open_transactions(current_app)
        response = self.hub.connect(request, **options)
        response.headers.update(_cors_headers())
        return current_app.make_response(response)


def _origins() -> frozenset[str]:
    return frozenset(current_app.config["SSEHUB_ORIGINS"])


def _cors_headers() -> dict[str, str]:
    return cors_headers(request.headers.get("Origin"), _origins())


def _within(app: Flask, callback: Callable[..., object]) -> Callable[..., object]:
    """Wrap a hook so that it runs in the application's context."""

    @functools.wraps(callback)
    def _call(*arguments: Any) -> object:
        with app.app_context():
            return callback(*arguments)

    return _call


def _warn_of_open_transactions(app: Flask) -> None:
    """Warn about changes that are lost: Flask-SQLAlchemy's session ends with the view, and its connection is freed."""
    database = app.extensions.get("sqlalchemy")
    session = getattr(database, "session", None)
    if session is not None and session.registry.has() and (session.new or session.dirty or session.deleted):
        logger.warning("a stream begins while the database session has changes: commit them before, or they are lost")

"""Turbo: events with the stream elements of Turbo 8.

A page gets them with an element ``<turbo-stream-source src="/events">``, from events without a type. The actions:
https://turbo.hotwired.dev/reference/streams

Turbo finds an element by its id, which it calls the target. "If the template's first element has an id that is already
used by a direct child inside the container targeted by dom_id, it is replaced instead of appended." So if the rows of a
list have ids, a row that arrives twice is shown once.

The functions that take HTML return, without it, a function that takes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from ssehub.events import Message
from ssehub.html.markup import HTML, Into, check_choice, check_id, check_line, element, text_of

if TYPE_CHECKING:
    from ssehub.log import Gap
    from ssehub.server.connection import Connection

#: How an element is changed: ``"morph"`` keeps what is the same in both, such as the focus.
Method = Literal["morph"]


def stream(
    action: str, html: HTML | None = None, *, target: str | None = None, targets: str | None = None, **more: str
) -> Message:
    """Return an event with any stream element, such as one with an action of your own.

    :param html: what is in its template. None: it has no template.
    :param target: the id of the element to change.
    :param targets: a CSS selector of the elements to change.
    :param more: more attributes. Underscores in their names become hyphens.
    :raises ValueError: if both targets are given, or a value is not valid.
    """
    if target is not None and targets is not None:
        raise ValueError("a stream element has a target or targets, not both")
    given: dict[str, str | None] = {"action": check_line("action", action)}
    given["target"] = None if target is None else check_id("target", target)
    given["targets"] = None if targets is None else check_line("targets", targets)
    content = "" if html is None else f"<template>{text_of(html)}</template>"
    return Message.html(element("turbo-stream", content, **given, **more))


@overload
def append(target: str, html: HTML) -> Message: ...
@overload
def append(target: str) -> Into: ...
def append(target: str, html: HTML | None = None) -> Message | Into:
    """Return an event that adds HTML at the end of an element.

    :param target: the id of the element.
    :raises ValueError: if no element can have this id.
    """
    return _change("append", target, html)


@overload
def prepend(target: str, html: HTML) -> Message: ...
@overload
def prepend(target: str) -> Into: ...
def prepend(target: str, html: HTML | None = None) -> Message | Into:
    """Return an event that adds HTML at the beginning of an element; see :func:`append`."""
    return _change("prepend", target, html)


@overload
def before(target: str, html: HTML) -> Message: ...
@overload
def before(target: str) -> Into: ...
def before(target: str, html: HTML | None = None) -> Message | Into:
    """Return an event that adds HTML before an element; see :func:`append`."""
    return _change("before", target, html)


@overload
def after(target: str, html: HTML) -> Message: ...
@overload
def after(target: str) -> Into: ...
def after(target: str, html: HTML | None = None) -> Message | Into:
    """Return an event that adds HTML after an element; see :func:`append`."""
    return _change("after", target, html)


@overload
def replace(target: str, html: HTML, *, method: Method | None = None) -> Message: ...
@overload
def replace(target: str, *, method: Method | None = None) -> Into: ...
def replace(target: str, html: HTML | None = None, *, method: Method | None = None) -> Message | Into:
    """Return an event that replaces an element by HTML.

    :param method: ``"morph"``: "The [method="morph"] attribute can be added to the turbo-stream element to replace the
        element designated by the target dom id via morph." The other parameter is that of :func:`append`.
    """
    return _change("replace", target, html, method)


@overload
def update(target: str, html: HTML, *, method: Method | None = None) -> Message: ...
@overload
def update(target: str, *, method: Method | None = None) -> Into: ...
def update(target: str, html: HTML | None = None, *, method: Method | None = None) -> Message | Into:
    """Return an event that replaces what is in an element by HTML; see :func:`replace`."""
    return _change("update", target, html, method)


def remove(target: str) -> Message:
    """Return an event that removes an element; see :func:`append`."""
    return stream("remove", target=target)


def refresh(
    *,
    method: Literal["morph", "replace"] | None = None,
    scroll: Literal["preserve", "reset"] | None = None,
    request_id: str | None = None,
) -> Message:
    """Return an event that makes the page load itself again.

    :param method: how the page is changed. None: as its ``<meta name="turbo-refresh-method">`` says.
    :param scroll: where it is scrolled to. None: as its ``<meta name="turbo-refresh-scroll">`` says.
    :param request_id: the header ``X-Turbo-Request-Id`` of the request that caused this. The page that has sent the
        request does not refresh itself.
    :raises ValueError: if a value is not valid.
    """
    given: dict[str, str] = {}
    if method is not None:
        given["method"] = check_choice("method", method, ("morph", "replace"))
    if scroll is not None:
        given["scroll"] = check_choice("scroll", scroll, ("preserve", "reset"))
    if request_id is not None:
        given["request_id"] = check_line("request_id", request_id)
    return stream("refresh", **given)


def refresh_on_gap(connection: Connection, gap: Gap) -> None:
    """Make a page that has missed messages load itself again. A hook: ``hub.on_gap(turbo.refresh_on_gap)``.

    Turbo ignores the event ``ssehub.gap``, so the page is sent a :func:`refresh`. All streams of the hub get it.
    """
    connection.send(refresh())


def source(url: str) -> str:
    """Return the element that opens a stream: ``<turbo-stream-source src="...">``. Put it into the ``<body>``.

    :raises ValueError: if the address is empty, or has a control character.
    """
    return element("turbo-stream-source", src=check_line("url", url))


def _change(action: str, target: str, html: HTML | None, method: str | None = None) -> Message | Into:
    check_id("target", target)
    given = {} if method is None else {"method": check_choice("method", method, ("morph",))}
    if html is None:
        return lambda html: stream(action, html, target=target, **given)
    return stream(action, html, target=target, **given)

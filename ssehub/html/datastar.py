"""Datastar: the events of Datastar 1.

"Responses to backend actions with a content type of text/event-stream can contain zero or more Datastar SSE events."
The events: https://data-star.dev/reference/sse_events. Their format: ``sdk/ADR.md`` of starfederation/datastar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

from ssehub.events import Message
from ssehub.events.message import LINE_BREAK
from ssehub.html.markup import HTML, Into, attributes, check_choice, check_line, text_of

if TYPE_CHECKING:
    from ssehub.log import Gap
    from ssehub.server.connection import Connection

#: How elements are patched into the page. ``"outer"`` and ``"inner"`` keep what is the same.
Mode = Literal["outer", "inner", "replace", "prepend", "append", "before", "after"]
_MODES = ("outer", "inner", "replace", "prepend", "append", "before", "after")
Namespace = Literal["html", "svg", "mathml"]
#: What stands for itself in a string of JavaScript. Datastar also looks for ``$signal`` and ``@action(`` in strings.
_PLAIN = re.compile(r"[^A-Za-z0-9/?&=%._~:+,;-]")


@overload
def patch_elements(
    html: HTML,
    *,
    selector: str | None = None,
    mode: Mode = "outer",
    namespace: Namespace = "html",
    use_view_transition: bool = False,
) -> Message: ...
@overload
def patch_elements(
    *,
    selector: str | None = None,
    mode: Mode = "outer",
    namespace: Namespace = "html",
    use_view_transition: bool = False,
) -> Into: ...
def patch_elements(
    html: HTML | None = None,
    *,
    selector: str | None = None,
    mode: Mode = "outer",
    namespace: Namespace = "html",
    use_view_transition: bool = False,
) -> Message | Into:
    """Return an event that patches elements into the page.

    "One or more complete HTML elements. If a selector has not been specified, each top-level element must contain an
    ID."

    :param html: the elements. Without them, a function that takes them is returned.
    :param selector: a CSS selector of the element to change. "Not required when using the outer or replace modes."
    :param mode: how the elements are patched in. To remove elements, use :func:`remove_elements`.
    :param namespace: ``"svg"`` or ``"mathml"`` for elements that are part of such an image or formula.
    :param use_view_transition: whether the page uses the View Transition API.
    :raises ValueError: if a value is not valid, or the selector is missing.
    """
    check_choice("mode", mode, _MODES)
    if selector is None and mode not in ("outer", "replace"):
        raise ValueError(f"the mode {mode!r} needs a selector")
    head = [] if mode == "outer" else [f"mode {mode}"]
    head += [] if selector is None else [f"selector {check_line('selector', selector)}"]
    if check_choice("namespace", namespace, ("html", "svg", "mathml")) != "html":
        head.append(f"namespace {namespace}")
    if use_view_transition:
        head.append("useViewTransition true")
    return (lambda html: _patch(head, html)) if html is None else _patch(head, html)


def remove_elements(selector: str) -> Message:
    """Return an event that removes the elements that a CSS selector finds.

    :raises ValueError: if the selector is empty, or has a line break.
    """
    return Message(
        "\n".join(("mode remove", f"selector {check_line('selector', selector)}")), "datastar-patch-elements"
    )


def patch_signals(
    signals: Mapping[str, Any], *, only_if_missing: bool = False, default: Callable[[Any], Any] | None = None
) -> Message:
    """Return an event that changes signals, "using RFC 7386 JSON Merge Patch semantics": None removes a signal.

    :param only_if_missing: whether only signals that the page does not have yet are set.
    :param default: see :meth:`ssehub.Message.from_json`.
    :raises TypeError: if the signals are not a mapping, or JSON cannot represent them.
    :raises ValueError: as for :meth:`ssehub.Message.from_json`.
    """
    if not isinstance(signals, Mapping):
        raise TypeError(f"signals must be a mapping of names to values, not {type(signals).__name__}")
    lines = ["onlyIfMissing true"] if only_if_missing else []
    lines.append(f"signals {Message.from_json(dict(signals), default=default).data}")
    return Message("\n".join(lines), "datastar-patch-signals")


def reload_on_gap(connection: Connection, gap: Gap) -> None:
    """Make a page that has missed messages load itself again. A hook: ``hub.on_gap(datastar.reload_on_gap)``.

    Datastar ignores the event ``ssehub.gap``, so the page is sent a script. All streams of the hub get it.
    """
    connection.send(patch_elements("<script>location.reload()</script>", selector="body", mode="append"))


def source(url: str) -> str:
    """Return the attribute of an element that opens a stream: ``data-init="@get('...')"``.

    By default, Datastar does not come back after a stream that has ended without an error, as a hub ends it at a
    deploy, and gives up after ten attempts. So the options ``retry`` and ``retryMaxCount`` are set. It closes the
    stream of a page that is hidden, and continues after the last event id when the page is shown.

    :raises ValueError: if the address is empty, or has a control character.
    """
    text = _PLAIN.sub(_escaped, check_line("url", url))
    return attributes({"data-init": f"@get('{text}', {{retry: 'always', retryMaxCount: Infinity}})"}).lstrip()


def _patch(head: list[str], html: HTML) -> Message:
    lines = [f"elements {line}" for line in LINE_BREAK.split(text_of(html))]
    return Message("\n".join((*head, *lines)), "datastar-patch-elements")


def _escaped(found: re.Match[str]) -> str:
    """Return a character as JavaScript writes it in a string, in two parts if it is beyond 16 bits."""
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))

"""Htmx: events for htmx 2 with its extension ``htmx-ext-sse``, and for htmx 4 with its extension ``hx-sse``.

htmx 2 inserts an event of a type into the elements that name the type: "``sse-swap="<message-name>"`` - The name of the
message to swap into the DOM." (https://htmx.org/extensions/sse/) A message without a type has the name ``message``.

htmx 4 inserts events without a type into the element that has opened the stream. "Named events are dispatched as DOM
events." (``dist/ext/hx-sse.js``, https://four.htmx.org/extensions/hx-sse)

In both, an event without a type can change any other element, too: see :func:`oob`.

The functions that take HTML return, without it, a function that takes it.
"""

from __future__ import annotations

from typing import Literal, overload

from ssehub.events import Message
from ssehub.html.markup import HTML, Into, attributes, check_choice, check_id, check_line, element, text_of

#: How the content of an element, or what is around it, is changed; the names of https://htmx.org/attributes/hx-swap/.
Swap = Literal["innerHTML", "beforeend", "afterbegin", "beforebegin", "afterend"]
_SWAPS = ("innerHTML", "beforeend", "afterbegin", "beforebegin", "afterend")
_RELOAD = "location.reload()"
#: After an answer that is no stream, such as a proxy's 502, the extension makes another ``EventSource``, which begins
#: anew at the cursor of the page (bigskysoftware/htmx-extensions#184). What it brings is in the page already.
_RELOAD_ANOTHER = (
    "if (this.stream && this.stream !== event.detail.source) location.reload(); this.stream = event.detail.source"
)


@overload
def swap(event: str, html: HTML) -> Message: ...
@overload
def swap(event: str) -> Into: ...
def swap(event: str, html: HTML | None = None) -> Message | Into:
    """Return an event for the elements with ``sse-swap="<event>"``, for htmx 2.

    htmx 4 only inserts the events of the type ``message``.

    :param event: the event type.
    :raises ValueError: if the type is not valid. ``sse-swap`` names several types with commas, so a type has no comma.
    """
    if "," in event or event != event.strip():
        raise ValueError(f"an event for sse-swap has no comma, and no blanks around it: {event!r}")
    if html is None:
        return lambda html: Message.html(html, event)
    return Message.html(html, event)


@overload
def oob(target: str, html: HTML, swap: Swap = "innerHTML", *, tag: str = "div") -> Message: ...
@overload
def oob(target: str, *, swap: Swap = "innerHTML", tag: str = "div") -> Into: ...
def oob(target: str, html: HTML | None = None, swap: Swap = "innerHTML", *, tag: str = "div") -> Message | Into:
    """Return an event that changes the element with an id, wherever it is: an out-of-band swap, for htmx 2 and 4.

    "The ``hx-swap-oob`` attribute allows you to specify that some content in a response should be swapped into the DOM
    somewhere other than the target, that is 'Out of Band'." (https://htmx.org/attributes/hx-swap-oob/)

    With htmx 2, an element of the page needs ``sse-swap="message" hx-swap="none"``. To replace an element as a whole,
    write ``hx-swap-oob="true"`` and the id into the fragment itself, and send it with :meth:`ssehub.Message.html`.

    :param target: the id of the element.
    :param swap: where the HTML goes.
    :param tag: the element that the HTML is wrapped in for the way. A row of a table cannot stand in a ``div``: use
        ``"tbody"``.
    :raises ValueError: if a value is not valid.
    """
    check_id("target", target)
    check_choice("swap", swap, _SWAPS)
    if html is None:
        return lambda html: Message.html(element(tag, text_of(html), id=target, hx_swap_oob=swap))
    return Message.html(element(tag, text_of(html), id=target, hx_swap_oob=swap))


def remove(target: str) -> Message:
    """Return an event that removes the element with an id, for htmx 2 and 4; see :func:`oob`.

    :raises ValueError: if no element can have this id.
    """
    return Message.html(element("div", id=check_id("target", target), hx_swap_oob="delete"))


@overload
def partial(target: str, html: HTML, swap: Swap | Literal["outerHTML"] = "innerHTML") -> Message: ...
@overload
def partial(target: str, *, swap: Swap | Literal["outerHTML"] = "innerHTML") -> Into: ...
def partial(target: str, html: HTML | None = None, swap: Swap | Literal["outerHTML"] = "innerHTML") -> Message | Into:
    """Return an event that changes the elements that a selector finds, for htmx 4: a ``<hx-partial>``.

    The HTML may be anything, also rows of a table.

    :param target: a CSS selector.
    :param swap: where the HTML goes.
    :raises ValueError: if a value is not valid.
    """
    check_line("target", target)
    check_choice("swap", swap, (*_SWAPS, "outerHTML"))
    if html is None:
        return lambda html: Message.html(element("hx-partial", text_of(html), hx_target=target, hx_swap=swap))
    return Message.html(element("hx-partial", text_of(html), hx_target=target, hx_swap=swap))


def source(url: str, *, version: Literal[2, 4] = 2) -> str:
    """Return the attributes of an element that opens a stream.

    At a gap, the page is loaded again, and with htmx 2 also when the stream is back after an error response. htmx
    evaluates expressions for this. If your ``Content-Security-Policy`` forbids it, write the attributes yourself.

    :param version: the version of htmx.
    :raises ValueError: if the address is empty, or has a control character.
    """
    check_line("url", url)
    if version == 4:
        return attributes({"hx-sse:connect": url, "hx-on:ssehub.gap": _RELOAD}).lstrip()
    # The extension passes an event on to the element if a trigger names it.
    gap = {"hx-trigger": "sse:ssehub.gap", "hx-on:sse:ssehub.gap": _RELOAD}
    return attributes({"hx-ext": "sse", "sse-connect": url, **gap, "hx-on:htmx:sse-open": _RELOAD_ANOTHER}).lstrip()

"""The events of htmx, Turbo and Datastar: what is on the wire, and what is refused."""

from __future__ import annotations

import html
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest
from markupsafe import Markup

from ssehub import Hub, Message
from ssehub.html import datastar, htmx, turbo

HOSTILE = "\"'><script>alert(1)</script>&amp;"
BAD_IDS = ["", "a b", "a\nb", "a\0"]


class Tags(HTMLParser):
    """Collects the tags with their attributes, as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def first(message: Message | str) -> tuple[str, dict[str, str | None]]:
    return Tags(message if isinstance(message, str) else message.data or "").found[0]


class Element:
    """What a library that builds HTML gives."""

    def __html__(self) -> str:
        return "<p>\nhi</p>"


def test_a_fragment_is_text_markup_or_an_element() -> None:
    assert Message.html("<b>a</b>\r\n<i>b</i>", "news", id="7").encode() == (
        b"event: news\nid: 7\ndata: <b>a</b>\ndata: <i>b</i>\n\n"
    )
    made = Message.html(Markup("<b>%s</b>") % "<i>")
    assert made.data == "<b>&lt;i&gt;</b>" and type(made.data) is str
    assert Message.html(Element()) == Message("<p>\nhi</p>")
    assert Message.html("a\u2028b\x0bc").encode().count(b"data: ") == 1
    for wrong in (None, 7, b"<b>"):
        with pytest.raises(TypeError, match="html must be a str"):
            Message.html(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", ["append", "prepend", "before", "after", "replace", "update"])
def test_turbo_changes_an_element(action: str) -> None:
    change = getattr(turbo, action)
    message = change("list", "<li>\n1</li>")
    assert message.event == "message"
    assert message.data == (
        f'<turbo-stream action="{action}" target="list"><template><li>\n1</li></template></turbo-stream>'
    )
    assert change("list")("<li>\n1</li>") == message
    assert first(change(HOSTILE, ""))[1] == {"action": action, "target": HOSTILE}
    for id in BAD_IDS:
        with pytest.raises(ValueError, match="target must be the id of an element"):
            change(id)


def test_turbo_morphs_removes_refreshes_and_does_what_it_is_told() -> None:
    assert first(turbo.replace("a", "<p>", method="morph"))[1]["method"] == "morph"
    assert first(turbo.update("a", method="morph")("<p>"))[1]["method"] == "morph"
    assert turbo.remove("a").data == '<turbo-stream action="remove" target="a"></turbo-stream>'
    assert turbo.refresh().data == '<turbo-stream action="refresh"></turbo-stream>'
    assert first(turbo.refresh(method="morph", scroll="preserve", request_id="1<2"))[1] == {
        "action": "refresh",
        "method": "morph",
        "scroll": "preserve",
        "request-id": "1<2",
    }
    own = turbo.stream("highlight", targets="li > b", for_ms="5")
    assert first(own) == ("turbo-stream", {"action": "highlight", "targets": "li > b", "for-ms": "5"})


def test_turbo_refuses_what_it_cannot_do() -> None:
    wrong: list[Any] = [
        lambda: turbo.replace("a", "", method="swap"),  # type: ignore[call-overload]
        lambda: turbo.refresh(method="swap"),  # type: ignore[arg-type]
        lambda: turbo.refresh(scroll="up"),  # type: ignore[arg-type]
        lambda: turbo.stream(""),
        lambda: turbo.stream("append", "", target="a", targets="b"),
        lambda: turbo.stream("append", "", targets=" "),
        lambda: turbo.stream("append", "", **{"a b": "c"}),
        lambda: turbo.source("/events\n"),
    ]
    for call in wrong:
        with pytest.raises(ValueError):
            call()
    with pytest.raises(TypeError, match="not int"):
        turbo.remove(7)  # type: ignore[arg-type]


def test_htmx_swaps_by_the_events_type_by_id_and_by_selector() -> None:
    assert htmx.swap("news", "<p>") == htmx.swap("news")("<p>") == Message("<p>", "news")
    oob = htmx.oob("list", "<li>1</li>", "beforeend")
    assert oob.data == '<div id="list" hx-swap-oob="beforeend"><li>1</li></div>'
    assert htmx.oob("list", swap="beforeend")("<li>1</li>") == oob
    assert first(htmx.oob("rows", "<tr>", tag="tbody"))[0] == "tbody"
    assert htmx.remove("row-1").data == '<div id="row-1" hx-swap-oob="delete"></div>'
    partial = htmx.partial("#rows > [a='b']", "<tr>", "outerHTML")
    assert partial == htmx.partial("#rows > [a='b']", swap="outerHTML")("<tr>")
    assert first(partial) == ("hx-partial", {"hx-target": "#rows > [a='b']", "hx-swap": "outerHTML"})
    assert first(htmx.oob(HOSTILE, ""))[1]["id"] == HOSTILE


def test_htmx_refuses_what_it_cannot_do() -> None:
    wrong: list[Any] = [
        *(lambda id=id: htmx.oob(id, "") for id in BAD_IDS),
        *(lambda id=id: htmx.remove(id) for id in BAD_IDS),
        lambda: htmx.swap("a,b", ""),
        lambda: htmx.swap(" a"),
        lambda: htmx.swap("a\nb", ""),
        lambda: htmx.oob("a", "", "outerHTML"),  # type: ignore[call-overload]
        lambda: htmx.oob("a", "", tag="a b"),
        lambda: htmx.partial("", ""),
        lambda: htmx.partial("#a", "", "none"),  # type: ignore[call-overload]
    ]
    for call in wrong:
        with pytest.raises(ValueError):
            call()


def test_datastar_patches_elements() -> None:
    assert datastar.patch_elements('<p id="a">\r\n\r\n</p>').encode() == (
        b'event: datastar-patch-elements\ndata: elements <p id="a">\ndata: elements \ndata: elements </p>\n\n'
    )
    every = datastar.patch_elements(
        "<g>", selector="#a", mode="append", namespace="svg", use_view_transition=True
    ).encode()
    assert every == (
        b"event: datastar-patch-elements\ndata: mode append\ndata: selector #a\ndata: namespace svg\n"
        b"data: useViewTransition true\ndata: elements <g>\n\n"
    )
    into = datastar.patch_elements(selector="#a", mode="inner")
    assert into("<p>") == datastar.patch_elements("<p>", selector="#a", mode="inner")
    assert datastar.remove_elements("#a, #b").encode() == (
        b"event: datastar-patch-elements\ndata: mode remove\ndata: selector #a, #b\n\n"
    )
    # Only what breaks a line on the wire begins another one.
    assert (datastar.patch_elements("a\u2028b\x0bc\x85d").data or "").count("elements ") == 1


def test_datastar_patches_signals() -> None:
    assert datastar.patch_signals({"a": {"b": None, "c": "é\n"}}).encode().decode() == (
        'event: datastar-patch-signals\ndata: signals {"a":{"b":null,"c":"é\\n"}}\n\n'
    )
    assert datastar.patch_signals({"a": {1}}, only_if_missing=True, default=sorted).data == (
        'onlyIfMissing true\nsignals {"a":[1]}'
    )


def test_datastar_refuses_what_it_cannot_do() -> None:
    wrong: list[Any] = [
        lambda: datastar.patch_elements("", mode="append"),
        lambda: datastar.patch_elements("", mode="remove"),  # type: ignore[call-overload]
        lambda: datastar.patch_elements("", selector="a\nmode remove"),
        lambda: datastar.patch_elements("", selector=""),
        lambda: datastar.patch_elements("", namespace="xml"),  # type: ignore[call-overload]
        lambda: datastar.remove_elements("a\rb"),
        lambda: datastar.patch_signals({"a": float("nan")}),
    ]
    for call in wrong:
        with pytest.raises(ValueError):
            call()
    for signals in ([1], "{}", None):
        with pytest.raises(TypeError, match="signals must be a mapping"):
            datastar.patch_signals(signals)  # type: ignore[arg-type]


def test_the_elements_that_open_a_stream() -> None:
    url = "/events?zone=a&lastEventId=1.2.3"
    assert turbo.source(url) == f'<turbo-stream-source src="{html.escape(url)}"></turbo-stream-source>'
    two, four = (first(f"<p {htmx.source(url, version=version)}>")[1] for version in (2, 4))  # type: ignore[arg-type]
    assert two["hx-ext"] == "sse" and two["sse-connect"] == url and two["hx-trigger"] == "sse:ssehub.gap"
    assert four["hx-sse:connect"] == url and four["hx-on:ssehub.gap"] == "location.reload()"
    assert first(f"<p {datastar.source(url)}>")[1]["data-init"] == (
        f"@get('{url}', {{retry: 'always', retryMaxCount: Infinity}})"
    )


def test_an_address_cannot_leave_its_attribute_or_its_string() -> None:
    url = "/\"'><b>$a@get(\\`é😀"
    assert first(turbo.source(url))[1]["src"] == url
    assert first(f"<p {htmx.source(url)}>")[1]["sse-connect"] == url
    script = first(f"<p {datastar.source(url)}>")[1]["data-init"] or ""
    text = script.removeprefix("@get('").partition("'")[0]
    assert (
        not set(text) & set("$@\"'<>`")
        and text.encode().decode("unicode_escape").encode("utf-16", "surrogatepass").decode("utf-16") == url
    )


@pytest.mark.parametrize(("library", "shown"), [(turbo, 'action="refresh"'), (datastar, "location.reload()")])
def test_a_page_that_missed_something_is_told_to_load_again(library: Any, shown: str) -> None:
    hub = Hub()
    hub.on_gap(getattr(library, "refresh_on_gap" if library is turbo else "reload_on_gap"))
    stream = hub.stream(zone="a", last_event_id="0.0.00000000")
    received = next(stream)
    while b"data: " not in received.split(b"ssehub.gap")[-1].partition(b"\n\n")[2]:
        received += next(stream)
    assert received.index(b"ssehub.gap") < received.index(shown.encode())
    stream.close()  # type: ignore[attr-defined]
    hub.close()


def test_the_package_needs_none_of_the_libraries_and_no_framework() -> None:
    code = "import sys, ssehub.html; print([m for m in ('markupsafe', 'werkzeug', 'flask') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

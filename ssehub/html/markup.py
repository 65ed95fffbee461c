"""Markup: tags and attributes that are safe to put into a page."""

from __future__ import annotations

import html as escaping
import re
from collections.abc import Callable
from typing import TypeAlias

from ssehub.events import Message
from ssehub.events.message import Markup

#: HTML as a text, or as an object that knows that it is HTML.
HTML: TypeAlias = str | Markup
#: Makes a message from HTML, as ``turbo.append("list")`` does.
Into: TypeAlias = Callable[[HTML], Message]

#: "The value must not contain any ASCII whitespace." (WHATWG HTML 3.2.6) Parsers replace a NUL.
_NOT_IN_ID = re.compile("[\0\t\n\f\r ]")
#: What begins a tag name, and what may follow (WHATWG HTML 13.1.2). Attributes of htmx have a colon, too.
_NAME = re.compile("[A-Za-z][A-Za-z0-9:._-]*")
_CONTROLS = re.compile("[\0-\x1f\x7f]")


def text_of(html: HTML) -> str:
    """Return HTML as a plain text.

    :raises TypeError: if it is not HTML.
    """
    return Message.html(html).data or ""


def check_id(name: str, id: str) -> str:
    """Check the id of an element.

    :param name: the word for it in error texts.
    :raises ValueError: if no element can have this id.
    :raises TypeError: if it is not a text.
    """
    if not isinstance(id, str):
        raise TypeError(f"{name} must be the id of an element, not {type(id).__name__}")
    if not id or _NOT_IN_ID.search(id):
        raise ValueError(f"{name} must be the id of an element, which is not empty and has no blanks, not {id!r}")
    return id


def check_line(name: str, text: str) -> str:
    """Check a text that has to fit on one line, such as a CSS selector.

    :raises ValueError: if it is empty, or has a control character, such as a line break.
    :raises TypeError: if it is not a text.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, not {type(text).__name__}")
    if not text.strip() or _CONTROLS.search(text):
        raise ValueError(f"{name} must be a text on one line, and not empty, not {text!r}")
    return text


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Check a value of which there are only a few.

    :raises ValueError: if it is another value.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return value


def attributes(given: dict[str, str | None]) -> str:
    """Return attributes as they are written in a tag, each after a blank. Those that are None are left out.

    :raises ValueError: if a name is not valid.
    """
    for name in given:
        if not _NAME.fullmatch(name):
            raise ValueError(f"not the name of an attribute: {name!r}")
    return "".join(f' {name}="{escaping.escape(value)}"' for name, value in given.items() if value is not None)


def element(tag: str, content: str = "", **given: str | None) -> str:
    """Return an element. Underscores in the names of its attributes become hyphens.

    :param content: the HTML in it.
    :raises ValueError: if a name is not valid.
    """
    if not _NAME.fullmatch(tag):
        raise ValueError(f"not the name of an element: {tag!r}")
    named = {name.rstrip("_").replace("_", "-"): value for name, value in given.items()}
    return f"<{tag}{attributes(named)}>{content}</{tag}>"

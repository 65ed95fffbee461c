"""Payload: what is inside the data of events that a client looks into itself."""

from __future__ import annotations

import base64

from ssehub.wire import Received


def decoded(message: Received) -> Received:
    """Return the message with its data decoded from Base64, RFC 4648 section 4; line breaks in it do not count.

    :raises ValueError: if it is no Base64, or not of UTF-8 text.
    """
    text = "".join(message.data.split("\n"))
    try:
        return Received(base64.b64decode(text, validate=True).decode(), message.event, message.id)
    except ValueError as error:
        raise ValueError(f"the data of an event of type {message.event!r} is no text in Base64: {error}") from error


def gap(message: Received) -> tuple[str, int | None]:
    """Return the reason and the number that an event ``ssehub.gap`` tells, as far as it does."""
    try:
        told = message.json()
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    reason, missed = told.get("reason"), told.get("missed")
    return str(reason or "unknown"), missed if isinstance(missed, int) else None

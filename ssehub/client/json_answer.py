"""What a service answers in JSON, read with limits, because it may be anything."""

from __future__ import annotations

import json
import time
from typing import Any

import requests

from ssehub.client.canceller import Canceller
from ssehub.client.transport import Stream

#: Ask for an answer without compression: a short one may undo to any length.
PLAIN = {"Accept-Encoding": "identity"}


def read_json(response: requests.Response, longest: int, seconds: float) -> Any:
    """Read the body of a response, opened with ``stream=True`` and :data:`PLAIN`, as JSON, and close the response.

    :param longest: bytes at the most.
    :param seconds: for all of it.
    :raises ValueError: if it is no JSON, compressed, longer, or takes longer.
    :raises requests.RequestException: if it breaks off.
    """
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise ValueError("the answer is compressed, though nobody has asked for that")
    text, deadline = bytearray(), time.monotonic() + seconds
    with Stream(response, Canceller(), seconds) as stream:
        while piece := stream.read():
            text += piece
            if len(text) > longest:
                raise ValueError(f"the answer is longer than {longest} bytes")
            if time.monotonic() > deadline:
                raise ValueError(f"the answer takes longer than {seconds:g} s")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the answer is nested too deeply") from error

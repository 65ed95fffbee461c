"""Fields: the fields of ``POST /send``, and the packet that is made from them."""

from __future__ import annotations

import json
from typing import Any

from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Request

from ssehub.events import Message
from ssehub.log import ALL, Packet

_FIELDS = frozenset(("data", "event", "id", "retry", "comment", "zone", "client_id", "broadcast"))


def fields_of(request: Request) -> dict[str, Any]:
    """Return the fields of a form or a JSON object.

    :raises BadRequest: if the body is neither.
    """
    if request.mimetype == "application/json":
        try:
            fields = json.loads(request.get_data())
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the body is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise BadRequest("the JSON body must be an object")
        return fields
    if request.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return _convert(request.form.to_dict())
    raise BadRequest("the body must be a form or application/json")


def packet_of(fields: dict[str, Any]) -> Packet:
    """Return a packet made from the fields of ``POST /send``.

    :raises ValueError: if a value is invalid, or there is no address.
    :raises TypeError: if a value has the wrong type.
    :raises BadRequest: if a field is unknown.
    """
    fields = dict(fields)
    unknown = sorted(str(name) for name in set(fields) - _FIELDS)
    if unknown:
        raise BadRequest(f"unknown field: {', '.join(unknown)[:200]}")
    route = {"zone": fields.pop("zone", ALL), "client_id": fields.pop("client_id", None)}
    # A zone without a client id addresses all clients in it. Without both, the packet has no address.
    route["broadcast"] = fields.pop("broadcast", route["zone"] is not ALL and route["client_id"] is None)
    return Packet(Message(**fields), **route)


def _convert(form: dict[str, str]) -> dict[str, Any]:
    """Convert the fields of a form to the types that they have in JSON."""
    fields: dict[str, Any] = dict(form)
    if "retry" in fields:
        if not (form["retry"].isascii() and form["retry"].isdigit()):
            raise BadRequest(f"retry must be milliseconds in digits, not {form['retry'][:40]!r}")
        fields["retry"] = int(form["retry"][:18])
    if "broadcast" in fields:
        if form["broadcast"] not in ("true", "false"):
            raise BadRequest(f"broadcast must be true or false, not {form['broadcast'][:40]!r}")
        fields["broadcast"] = form["broadcast"] == "true"
    return fields

"""Signer: signatures of zones, made with the ``SECRET_KEY`` of the site."""

from __future__ import annotations

import time
from collections.abc import Sequence

from django.core.signing import BadSignature, TimestampSigner, b62_decode
from werkzeug.exceptions import Forbidden

from ssehub.integrations.django.site import read_settings
from ssehub.integrations.signed_zones import EXPIRED, NOT_VALID, PURPOSE, seconds_left, statement


def sign(zones: Sequence[str], client_id: str | None) -> str:
    """Return a signature that says that this client may follow these zones."""
    text = statement(zones, client_id)
    return TimestampSigner(salt=PURPOSE).sign(text)[len(text) + 1 :]


def seconds_allowed(zones: Sequence[str], client_id: str | None, signature: str) -> float:
    """Check the signature of a stream's address, in constant time.

    :returns: the seconds for which it is still valid.
    :raises Forbidden: if it is not valid.
    """
    expected = statement(zones, client_id)
    try:
        # The age is checked below, because only the time in the signature says how much is left.
        text = TimestampSigner(salt=PURPOSE).unsign(f"{expected}:{signature}")
    except (BadSignature, UnicodeError):
        raise Forbidden(NOT_VALID) from None
    if text != expected:
        raise Forbidden(NOT_VALID)
    left = seconds_left(read_settings().signature_age, time.time() - b62_decode(signature.partition(":")[0]))
    if left is None:
        raise Forbidden(EXPIRED)
    return left

"""Tests of the nonces of dropped entries."""

from __future__ import annotations

import pytest

from ssehub.log import nonces
from ssehub.log.nonces import Nonces


def test_a_nonce_is_found_by_its_offset() -> None:
    kept = Nonces(7)
    kept.append("0000000a")
    kept.append("ffffffff")
    assert [kept.get(offset) for offset in range(6, 10)] == [None, "0000000a", "ffffffff", None]


def test_old_nonces_are_forgotten_and_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces, "_KEPT", 4)
    kept = Nonces(1)
    for offset in range(1, 102):
        kept.append(f"{offset:08x}")
        for newest in range(max(1, offset - 3), offset + 1):
            assert kept.get(newest) == f"{newest:08x}"
    assert kept.get(92) is None
    assert sum(kept.get(offset) is not None for offset in range(1, 102)) <= 8

"""A thousand streams on one worker, and readers that do not read."""

from __future__ import annotations

import json

import pytest

from benchmarks.fleet import Fleet, Report
from ssehub.tools.bench import raise_file_limit
from tests.servers import running
from tests.streams import call

STREAMS = 1000
SILENT = 10
#: Seconds; a hang guard for a slow machine, not a measure.
PATIENCE = 90.0


def check_order(report: Report) -> None:
    assert (report["missing"], report["doubles"], report["out_of_order"]) == (0, 0, 0), report["faults"]
    assert report["ended"] == report["refused"] == 0


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_a_thousand_streams_get_a_thousand_broadcasts_each_while_ten_do_not_read(worker: str) -> None:
    if raise_file_limit() < 3 * STREAMS:
        pytest.skip("too few file descriptors are allowed")
    with running(worker, threads=STREAMS + 20) as port, Fleet() as fleet:
        fleet.start(f"http://127.0.0.1:{port}/events", STREAMS, paused=SILENT, first=0, receive_buffer=4096)
        assert fleet.wait_connected(PATIENCE)["connected"] == STREAMS
        assert call(port, "POST", "/burst?n=1000")[0] == 200
        report = fleet.expect(1000, PATIENCE)
        check_order(report)
        assert report["complete"] and report["least"] == 1000
        fleet.resume_paused()
        report = fleet.expect(1000, PATIENCE)
        check_order(report)
        assert report["complete"] and report["received"] == STREAMS * 1000 and report["gaps"] == 0


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_readers_that_stalled_have_everything_or_one_gap_just_where_the_log_had_let_go(worker: str) -> None:
    messages, held, size = 400, 50, 65536
    with running(worker, LOG_SIZE=str(held)) as port, Fleet() as fleet:
        fleet.start(f"http://127.0.0.1:{port}/events", 20, paused=SILENT, first=0, receive_buffer=4096)
        assert fleet.wait_connected(PATIENCE)["connected"] == 20
        for first in range(0, messages, 10):  # in step with those who read, so that none of them falls behind
            assert call(port, "POST", f"/burst?from={first}&n=10&size={size}")[0] == 200
            assert fleet.expect(first + 10, PATIENCE)["complete"]
        report = fleet.report()
        check_order(report)
        assert report["received"] == 10 * messages and report["gaps"] == 0
        fleet.resume_paused()
        assert call(port, "POST", f"/burst?from={messages}&n=1&size={size}")[0] == 200
        reading_on(fleet, messages, held)


def reading_on(fleet: Fleet, messages: int, held: int) -> None:
    """Check that each of the silent ten tells one gap, that what precedes it came whole, and what the log held too."""
    fleet.expect(messages + 1, 5.0)  # they cannot all have it: what was trimmed is missing
    report = fleet.report()
    assert report["doubles"] == report["out_of_order"] == report["ended"] == 0
    assert report["gaps"] == len(report["gap_events"]) == SILENT
    missed = [json.loads(gap["data"]) for gap in report["gap_events"]]
    assert {one["reason"] for one in missed} == {"trimmed"}
    # To the message: what came, and what was told as missing, make up all that was sent.
    assert report["missing"] == sum(one["missed"] for one in missed)
    assert report["received"] + report["missing"] == 20 * (messages + 1)
    for gap, one in zip(report["gap_events"], missed, strict=True):
        assert gap["next"] is not None and gap["next"] + one["missed"] >= messages - held

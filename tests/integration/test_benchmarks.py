"""The benchmarks run, in small: what they measure is their own affair."""

from __future__ import annotations

import subprocess
import sys

from tests.servers import ROOT

#: Seconds; a hang guard for a slow machine, not a measure.
PATIENCE = 180.0


def benchmark(name: str, *arguments: str) -> list[list[str]]:
    """Run a benchmark, and return the cells of its table."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 0, result.stderr
    rule, head, _, *lines = result.stdout[result.stdout.index("==") :].split("\n")
    widths = [len(column) for column in rule.split()]
    starts = [sum(widths[:column]) + 2 * column for column in range(len(widths))]
    body = lines[: lines.index(rule)]
    cut = [
        [line[start : start + width].strip() for start, width in zip(starts, widths, strict=True)]
        for line in (head, *body)
    ]
    return cut


def test_the_fan_out_loses_nothing_with_any_application_that_is_installed() -> None:
    head, *rows = benchmark("fanout", "--quick")
    assert {"ssehub threads", "ssehub gevent", "naive"} <= {row[0] for row in rows}
    for row in rows:
        named = dict(zip(head, row, strict=True))
        assert (named["arrived %"], named["wrong"]) == ("100", "0"), row
        assert named["lost"] == ("" if row[0] == "naive" else "0"), row


def test_the_index_has_a_row_for_each_number_of_clients() -> None:
    _, *rows = benchmark("index", "--clients", "3", "30", "--rounds", "1")
    assert [row[0] for row in rows] == ["3", "30"]
    assert all(float(cell.replace(",", "")) > 0 for row in rows for cell in row)


def test_each_log_that_processes_share_has_figures_for_several_processes() -> None:
    _, *rows = benchmark("logs", "--only", "memory", "sqlite", "redis", "--seconds", "0.3")
    assert [(row[0], sum(map(bool, row))) for row in rows] == [("memory", 4), ("sqlite", 9), ("redis", 9)]


def test_streams_on_four_workers_miss_nothing_while_workers_are_killed_and_deployed() -> None:
    head, *rows = benchmark("workers", "--streams", "40", "--rate", "100", "--seconds", "4.5", "--pause", "1")
    for row in rows:
        named = dict(zip(head, row, strict=True))
        assert [named[name] for name in ("refused", "lost", "doubled", "gaps")] == ["0"] * 4, row
    assert int(rows[1][head.index("kills")]) >= 1 and int(rows[1][head.index("deploys")]) >= 1

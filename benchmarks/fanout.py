"""How fast one server process delivers messages to many streams: ssehub and other servers, in one table.

``python -m benchmarks.fanout [--quick] [--rounds N] [--only NAME ...]`` from the root of the repository. The server has
a core of its own. The applications run in turn, for several rounds. The table has the medians.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from subprocess import CalledProcessError

from benchmarks.applications import APPLICATIONS, Application, available, versions
from benchmarks.fleet import FleetError
from benchmarks.machine import machine
from benchmarks.processes import Cores, two_cores
from benchmarks.steps import FULL, QUICK, Step
from benchmarks.table import table
from benchmarks.trials import WRONG, Figure, Figures
from ssehub.tools.bench.target import BenchError, raise_file_limit

NAMES = [one.name for one in APPLICATIONS]
#: The standard that the others are compared with: the first of these that can run.
STANDARDS = ("go", "naive")
NO_RATIO = ("p99 ms", "arrived %", "lost", WRONG)


def measure(step: Step, application: Application, folder: Path, cores: Cores) -> Figures:
    """Run one step. An application that fails has no results."""
    try:
        figures = step.run(application, folder, cores)
    except (RuntimeError, FleetError, BenchError, CalledProcessError) as error:
        _say(f"{application.name} with {step.streams:,} streams: {error}")
        return {}
    if figures:
        told = ", ".join(f"{name} {_cell(figure)}" for name, figure in figures.items())
        _say(f"{application.name} with {step.streams:,} streams: {told}")
    return figures


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def middle(found: Sequence[Figures]) -> Figures:
    """Return the medians of all rounds, and the sums of everything that went wrong."""
    figures: Figures = {}
    for name in dict.fromkeys(name for one in found for name in one):
        known = [one[name] for one in found if name in one and not math.isnan(one[name].value)]
        if name == WRONG:
            figures[name] = Figure(sum(figure.value for figure in known))
        elif known:
            figures[name] = Figure(*(median(values) for values in zip(*known, strict=True)))
    return figures


def rows(results: Mapping[str, Figures], columns: Sequence[str]) -> list[list[str]]:
    """Return the lines of the table. Each figure is followed by its ratio to that of the standard."""
    standard = next((name for name in STANDARDS if name in results), None)
    lines: list[list[str]] = [["application"]]
    lines += [[name] for name in results]
    for column in columns:
        lines[0].append(column)
        for line, figures in zip(lines[1:], results.values(), strict=True):
            line.append(_cell(figures[column]) if column in figures else "")
        if standard is not None and column not in NO_RATIO:
            lines[0].append(f"to {standard}")
            for line, figures in zip(lines[1:], results.values(), strict=True):
                line.append(_ratio(figures.get(column), results[standard].get(column)))
    return lines


def _cell(figure: Figure) -> str:
    if math.isnan(figure.value):
        return ""
    value = f"{figure.value:,.{0 if figure.value >= 100 or float(figure.value).is_integer() else 1}f}"
    share = math.floor(figure.arrived * 1000) / 10
    return value if share >= 100 else f"{value} ({share:g} %)"


def _ratio(figure: Figure | None, standard: Figure | None) -> str:
    if figure is None or standard is None or not standard.value:
        return ""
    ratio = figure.value / standard.value
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2f}"


def run(applications: Sequence[Application], steps: Sequence[Step], rounds: int, cores: Cores) -> dict[str, Figures]:
    """Run all steps, with the applications in turn. Return the results of each application."""
    found: dict[str, list[Figures]] = {one.name: [] for one in applications}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for step in steps:
                for one in applications:
                    found[one.name].append(measure(step, one, Path(folder), cores))
    return {name: middle(figures) for name, figures in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small loads, one round: does it run at all")
    parser.add_argument("--rounds", type=int, help="rounds to take the median of (3; with --quick 1)")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    options = parser.parse_args(arguments)
    raise_file_limit()
    applications, lines = available(options.only)
    for line in lines:
        _say(line)
    cores = two_cores()
    steps = QUICK if options.quick else FULL
    rounds = options.rounds or (1 if options.quick else 3)
    print(shlex.join(["python", "-m", "benchmarks.fanout", *arguments]))
    print(f"{'; '.join([machine(), *versions(applications)])}; {cores}; rounds: {rounds}\n", flush=True)
    results = run(applications, steps, rounds, cores)
    explained = [column for step in steps for column in step.columns()]
    print(table(rows(results, [*(name for names, _ in explained for name in names), WRONG])))
    for names, what in (*explained, ((WRONG,), "messages that came twice or out of order, and streams that ended")):
        print(f"{', '.join(names)}: {what}")


if __name__ == "__main__":
    main()

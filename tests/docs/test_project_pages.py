"""The pages for those who work on ssehub say what is so: names, threads, code and the pictures."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

import ssehub
from tests.servers import ROOT

CONTRIBUTING, SECURITY = ROOT / "CONTRIBUTING.rst", ROOT / "SECURITY.rst"
ARCHITECTURE, STABILITY = ROOT / "docs" / "architecture.rst", ROOT / "docs" / "stability.rst"
PAGES = [CONTRIBUTING, SECURITY, ARCHITECTURE, STABILITY, ROOT / "docs" / "comparison.rst"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"``((?:tests|docs|ssehub|\.ci)/[\w/.]+)``", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_modules_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"``(ssehub(?:\.[a-z_]+)+)``", page.read_text())
    assert [name for name in named if importlib.util.find_spec(name) is None] == []


def test_the_page_on_architecture_names_every_thread() -> None:
    page = ARCHITECTURE.read_text()
    table = set(re.findall(r"^``(ssehub-[a-z]+)``  ", page, re.MULTILINE))
    assert table == set(_threads())


def _threads() -> Iterator[str]:
    """Yield the names of the threads that the package starts; tools and test helpers are no part of a hub."""
    for file in (ROOT / "ssehub").rglob("*.py"):
        if {"tools", "testing"} & set(file.relative_to(ROOT).parts):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("threading.Thread", "Background"):
                values = [*node.args, *(keyword.value for keyword in node.keywords)]
                yield from (str(one.value) for one in values if _is_thread(one))


def _is_thread(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and str(node.value).startswith("ssehub-")


def test_the_examples_of_style_are_code_of_the_files_that_they_name() -> None:
    examples = re.findall(r"From\s+``(ssehub/[\w/]+\.py)``[^:]*::\n\n((?:(?:    .*)?\n)+)", CONTRIBUTING.read_text())
    assert len(examples) == 3
    for name, block in examples:
        example = [line.strip() for line in block.strip().splitlines()]
        source = [line.strip() for line in (ROOT / name).read_text().splitlines()]
        begins = [n for n in range(len(source)) if source[n : n + len(example)] == example]
        assert begins, f"{name} has changed:\n{textwrap.dedent(block)}"


def test_the_commands_for_contributors_are_those_of_ci() -> None:
    table = re.findall(r"^``(.+?)``  ", CONTRIBUTING.read_text(), re.MULTILINE)
    ci = (ROOT / ".ci" / "run").read_text()
    for tool in ("ruff check .", "mypy", "python -m sphinx -W --keep-going -q -b html docs"):
        assert tool in ci and any(line.startswith(tool) for line in table), tool


def test_every_public_name_is_in_the_reference() -> None:
    reference = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.rst"))
    named = set(re.findall(r"\.\. auto\w+:: (?:ssehub\.)?(\w+)", reference))
    assert sorted(set(ssehub.__all__) - named) == []


PICTURE = """\
 ┌─────┐  goes to   ┌───┐
 │ one ├───────────▶│ 2 │
 └──┬──┘            └───┘
    ▼ <&>
"""


def test_a_diagram_is_drawn_as_svg() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        picture = importlib.import_module("drawing").draw(PICTURE, 'says "so"')
    finally:
        sys.path.remove(str(ROOT / "docs"))
    svg = ElementTree.fromstring(picture)
    names = "{http://www.w3.org/2000/svg}"
    assert svg.get("aria-label") == 'says "so"'
    assert [text.text for text in svg.iter(f"{names}text")] == ["goes to", "one", "2", "<&>"]
    assert len(list(svg.iter(f"{names}polygon"))) == 2
    assert len(list(svg.iter(f"{names}path"))) == sum(PICTURE.count(one) for one in "─│┌┐└┘├┬▶▼")

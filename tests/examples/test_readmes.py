"""The examples' READMEs: which there are, and that they can be followed."""

from __future__ import annotations

import re

from tests.example_apps import EXAMPLES

FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/README.rst"))


def test_every_example_is_in_the_table() -> None:
    table = (EXAMPLES / "README.rst").read_text()
    listed = set(re.findall(r"^``(\w+)`` ", table, re.MULTILINE))
    assert len(FOLDERS) >= 7 and {folder.name for folder in FOLDERS} <= listed


def test_each_has_numbered_steps_and_every_file_that_they_name() -> None:
    for folder in FOLDERS:
        text = (folder / "README.rst").read_text()
        assert re.findall(r"^(\d)\. ", text, re.MULTILINE)[:2] == ["1", "2"], folder
        for name in re.findall(r"python (\w+\.py)", text) + re.findall(r"(\w+):app$", text, re.MULTILINE):
            assert (folder / (name if "." in name else f"{name}.py")).is_file(), (folder, name)

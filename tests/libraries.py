"""The libraries of pages, as they are published. Each is fetched once for a test run, into a temporary folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

#: Datastar 1 is not on npm. This wheel has it, with small additions of its own.
_DATASTAR = ("starhtml==0.7.0", "starhtml/static/js")
#: Seconds for a download.
_TIMEOUT = 120


class Libraries:
    """Fetches libraries.

    :param folder: a folder for the packages.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def npm(self, package: str, file: str) -> Path:
        """Return a file of a package of npm. Skip the test if it cannot be fetched.

        :param package: the name and the version, such as ``htmx.org@2.0.11``.
        """
        unpacked = self._folder / package.replace("/", "+")
        if not unpacked.exists():
            npm = shutil.which("npm")
            if npm is None:
                pytest.skip("npm is not installed, so the page's library cannot be fetched")
            packed = _output([npm, "pack", "--silent", "--fetch-retries=0", package], self._folder)
            with tarfile.open(self._folder / packed.split()[-1]) as archive:
                archive.extractall(unpacked, filter="data")
        return unpacked / "package" / file

    def datastar(self) -> list[Path]:
        """Return the modules of Datastar, ``datastar.js`` first. Skip the test if they cannot be fetched."""
        package, inside = _DATASTAR
        unpacked = self._folder / package
        if not unpacked.exists():
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            _output([*pip, "--python-version", "3.13", "--dest", str(self._folder), package], self._folder)
            (wheel,) = self._folder.glob("starhtml*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked)
        return [unpacked / inside / name for name in ("datastar.js", "datastar-core.js")]


def _output(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"the page's library cannot be fetched: {getattr(error, 'stderr', None) or error}")
    return done.stdout

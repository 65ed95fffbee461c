"""The example applications for tests: imported from their folders, or run with the commands in their READMEs."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tests.servers import ROOT, free_port, process
from tests.streams import call, until

EXAMPLES = ROOT / "examples"


@contextlib.contextmanager
def imported(name: str) -> Iterator[ModuleType]:
    """Import an example's ``app.py``. Close its hub at the end."""
    folder = EXAMPLES / name
    spec = importlib.util.spec_from_file_location(f"example_{name}", folder / "app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Flask looks its folder up there
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(folder))
        for key in [key for key, one in sys.modules.items() if _is_from(one, folder)]:
            del sys.modules[key]
        if hasattr(module, "hub"):
            module.hub.close()


class Served(NamedTuple):
    """An example that runs in its own process."""

    port: int
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def served(name: str, *more: str, **environment: str) -> Iterator[Served]:
    """Run an example under gunicorn, with the command in its README.

    :param more: options for gunicorn that override those in the README.
    :param environment: environment variables.
    """
    folder, port = EXAMPLES / name, free_port()
    readme = (folder / "README.rst").read_text()
    command = re.findall(r"^    \.venv/bin/(gunicorn .*)app:app$", readme, re.MULTILINE)[0].split()
    configuration = folder / "gunicorn.conf.py"
    options = ("--chdir", str(folder), "-b", f"127.0.0.1:{port}", *more)
    if configuration.exists():
        options = ("-c", str(configuration), *options)
    environment["PYTHONPATH"] = f"{ROOT}:{folder}"
    with process(sys.executable, "-m", *command, *options, "app:app", **environment) as server:
        until(lambda: _answers(port), f"the example {name} to answer")
        yield Served(port, server)


_HURRY = """
import sys
sys.path.insert(0, sys.argv[1])
import app
vars(app).update({constants})
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[2]), app.app, threaded=True)
"""


@contextlib.contextmanager
def hurried(name: str, **constants: float) -> Iterator[int]:
    """Run an example in its own process with shorter pauses. Return its port.

    :param constants: names in its ``app.py``, with new values.
    """
    port = free_port()
    with process(sys.executable, "-c", _HURRY.format(constants=constants), str(EXAMPLES / name), str(port)):
        until(lambda: _answers(port), f"the example {name} to answer")
        yield port


def _answers(port: int) -> bool:
    try:
        return call(port, "GET", "/nothing")[0] == 404
    except OSError:
        return False


def _is_from(module: ModuleType, folder: Path) -> bool:
    return str(getattr(module, "__file__", None) or "").startswith(f"{folder}/")

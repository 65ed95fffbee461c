"""Machine: describes the machine that a table was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def machine() -> str:
    """Return a description of the machine and its load."""
    names = ", ".join(f"{name} {version(name)}" for name in ("gunicorn", "gevent"))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, {python}, {names}; load average {load}"

"""The order of the packages: imports only go down, and optional packages are imported only when needed."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import ssehub

ROOT = Path(__file__).parents[2] / "ssehub"
FLOORS = {
    "exceptions": 0,
    "logger": 0,
    "backoff": 0,
    "process_local": 0,
    "hooks": 1,
    "background": 1,
    "single_flight": 1,
    "events": 1,
    "log": 2,
    "html": 4,
    "server": 3,
    "wsgi": 4,
    "client": 3,
    "testing": 5,
    "tools": 5,
    "integrations": 6,
    "service": 7,
    "cli": 8,
}
FLOORS |= {"__init__": 9, "__main__": 9}
ONLY_IN = {
    "redis": ("log/redis/",),
    "psycopg": ("log/postgres/",),
    "requests": ("client/", "tools/doctor/", "cli/"),
    "urllib3": ("client/", "cli/"),
    "werkzeug": ("wsgi/response.py", "wsgi/access.py", "testing/", "integrations/", "service/", "cli/"),
    "flask": ("integrations/flask/",),
    "django": ("integrations/django",),
    "sqlalchemy": ("integrations/after_commit.py",),
    "prometheus_client": ("integrations/prometheus.py",),
    "pytest": ("integrations/pytest.py",),
}


@functools.cache
def imports() -> list[tuple[str, str]]:
    """Return each module with each name that it imports."""
    found = []
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [(file.relative_to(ROOT).as_posix(), name) for name in names]
    return found


def test_imports_only_go_down() -> None:
    for file, name in imports():
        if name.startswith("ssehub."):
            here, there = file.split("/")[0].removesuffix(".py"), name.split(".")[1]
            assert here == there or FLOORS[there] < FLOORS[here], f"{file} imports {name}"


def test_each_dependency_is_imported_only_where_allowed() -> None:
    for file, name in imports():
        places = ONLY_IN.get(name.split(".")[0])
        assert places is None or file.startswith(places), f"{file} imports {name}"


def test_importing_ssehub_imports_no_optional_package_and_starts_no_thread() -> None:
    code = (
        "import sys, threading, ssehub; print([m for m in ('redis', 'psycopg', 'flask', 'django', 'gevent', "
        "'gunicorn', 'prometheus_client') if m in sys.modules], threading.active_count())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] 1"


@pytest.mark.parametrize(("name", "unneeded"), [("Client", "werkzeug"), ("Hub", "requests"), ("Decoder", "werkzeug")])
def test_using_a_name_imports_only_what_it_needs(name: str, unneeded: str) -> None:
    code = f"import sys, ssehub; ssehub.{name}; print({unneeded!r} in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_every_public_name_exists() -> None:
    assert all(getattr(ssehub, name) for name in ssehub.__all__) and set(ssehub.__all__) <= set(dir(ssehub))
    with pytest.raises(AttributeError, match="has no attribute 'hub'"):
        ssehub.hub  # noqa: B018


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_public_classes_and_functions_have_docstrings(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree) is not None
    nodes = list(ast.walk(tree))
    hidden = {one for c in nodes if isinstance(c, ast.ClassDef) and c.name.startswith("_") for one in c.body}
    for node in nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            is_overload = any(getattr(one, "id", "") == "overload" for one in node.decorator_list)
            if not is_overload and node not in hidden:
                assert ast.get_docstring(node) is not None, f"{file.name}: {node.name}"


def test_no_module_has_more_than_300_lines() -> None:
    sizes = {file: len(file.read_text().splitlines()) for file in ROOT.rglob("*.py")}
    assert {file.relative_to(ROOT).as_posix(): size for file, size in sizes.items() if size > 300} == {}

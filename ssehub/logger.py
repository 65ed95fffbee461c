"""The logger ``ssehub``. What handles log records is the application's code, and its failures end nothing here."""

from __future__ import annotations

import contextlib
import logging
from typing import Any


class _SafeLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """A logger that never raises: a handler that fails must not end a thread that others rely on."""

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        """Log a record; see :meth:`logging.Logger.log`."""
        with contextlib.suppress(Exception):
            super().log(level, msg, *args, **{"stacklevel": 2, **options})


logger = _SafeLogger(logging.getLogger("ssehub"), {})

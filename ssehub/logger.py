"""The logger ``ssehub``. Log handlers are the application's code; their exceptions do not reach ssehub."""

from __future__ import annotations

import contextlib
import logging
from typing import Any


class _SafeLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """A logger that never raises: an exception in a log handler must not end a thread of ssehub."""

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        """Log a record; see :meth:`logging.Logger.log`."""
        with contextlib.suppress(Exception):
            super().log(level, msg, *args, **{"stacklevel": 2, **options})


logger = _SafeLogger(logging.getLogger("ssehub"), {})

"""The logger ``ssehub``. Log handlers are the application's code; their exceptions do not reach ssehub."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # it takes no type argument before Python 3.11


class _SafeLogger(_Adapter):
    """A logger that never raises: an exception in a log handler must not end a thread of ssehub."""

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        """Log a record; see :meth:`logging.Logger.log`."""
        with contextlib.suppress(Exception):
            super().log(level, msg, *args, **{"stacklevel": 2, **options})


logger: logging.LoggerAdapter[logging.Logger] = _SafeLogger(logging.getLogger("ssehub"), {})

"""What GDAL warns of while it decodes."""

from __future__ import annotations

import logging
import threading


class Complaints:
    """Collects GDAL's warnings of this thread.

    A corrupt JPEG block gives wrong pixels and nothing but a warning on rasterio's logger.
    """

    _logger = logging.getLogger("rasterio._err")

    def __enter__(self) -> list[str]:
        self._found: list[str] = []
        self._thread = threading.get_ident()
        self._handler = logging.Handler(logging.WARNING)
        self._handler.emit = self._emit
        self._logger.addHandler(self._handler)
        return self._found

    def _emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and record.levelno == logging.WARNING:
            self._found.append(record.getMessage())

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)

"""A doorbell between two processes of one machine: a named pipe that wakes a worker at once after a commit.

It is a courtesy, never a promise: whoever waits also looks by himself, in his own rhythm.
"""

import logging
import os
import select
from pathlib import Path

from shared.observability import facts

log = logging.getLogger(__name__)


class Doorbell:
    """Wakes a worker in another process at once after a commit: a named pipe. If it fails, the worker's own rhythm serves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inside: int | None = None

    def ring(self) -> None:
        """Wake whoever waits; never waits, never raises."""
        try:
            outside = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return  # nobody listens
        try:
            os.write(outside, b".")
        except BlockingIOError:
            pass  # it is ringing already
        except OSError as error:
            log.warning("doorbell.failed", extra=facts(error=str(error)))
        finally:
            os.close(outside)

    def wait(self, seconds: float) -> bool:
        """Sleep until somebody rings, or that many seconds have passed; whether it rang."""
        if self._inside is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not self._path.exists():
                os.mkfifo(self._path, 0o600)
            self._inside = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)  # both ways: it never reads as closed
        ready, _, _ = select.select([self._inside], [], [], max(0.0, seconds))
        if ready:
            os.read(self._inside, 4096)
        return bool(ready)

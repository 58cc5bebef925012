"""A doorbell between two processes of one machine: a named pipe that wakes a worker at once after a commit.

It is a courtesy, never a promise: whoever waits also looks by himself, in his own rhythm.
"""

import contextlib
import logging
import os
import select
import stat
import time
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
        try:
            if self._inside is None:
                self._inside = self._hang()
            ready, _, _ = select.select([self._inside], [], [], max(0.0, seconds))
            return bool(ready) and bool(os.read(self._inside, 4096))
        except BlockingIOError:
            return False  # another one who waits here was quicker
        except OSError as error:
            log.warning("doorbell.failed", extra=facts(error=str(error)))
            time.sleep(seconds)
            return False

    def _hang(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISFIFO(self._path.stat().st_mode):
                self._path.unlink()  # a copied state folder may hold a plain file here, which would ring without end
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._path, 0o600)
        return os.open(self._path, os.O_RDWR | os.O_NONBLOCK)  # both ways: it never reads as closed

    def close(self) -> None:
        """Stop listening."""
        if self._inside is not None:
            os.close(self._inside)
            self._inside = None

"""What operators see: JSON log lines with facts and never people, counters for `/metrics`, and failpoints for the kill tests.

Log with fields: `log.info("relay.sent", extra=facts(town=town, last=seq))`.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

REQUESTS = {"1xx": 0, "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0}
"""How many answers this process gave, by status class; whatever else is counted is read from the database (`operations.py`)."""
_counting = threading.Lock()


def count_answer(status: int) -> None:
    """Count an answer for `/metrics`."""
    with _counting:
        REQUESTS[f"{status // 100}xx"] += 1


def facts(**values: Any) -> dict[str, Any]:
    """The `extra` of a log call."""
    return {"facts": values}


class JsonLines(logging.Formatter):
    """One JSON object a line: `at` (Unix seconds), `level`, `what`, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"at": round(record.created, 3), "level": record.levelname.lower(), "what": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def start_logging(service: str, level: str = "INFO") -> None:
    """Send every log line to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger(__name__).info("process.started", extra=facts(service=service, pid=os.getpid()))


_armed: dict[str, int] = {}


def arm(failpoint: str) -> None:
    """Die by SIGKILL at the named failpoint: `relay.published`, or `relay.published:3` for its third passing. For tests only."""
    name, _, count = failpoint.partition(":")
    _armed[name] = int(count or 1)


def failpoint(name: str) -> None:
    """A place where the kill tests may end this process, without any cleaning up."""
    if name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] == 0:
        os.write(2, json.dumps({"what": "failpoint.reached", "name": name}).encode() + b"\n")  # so that a test knows it was here
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

"""A nursery of processes: a Python that has read a service's code once, and forks for each start what its console script would be.

Reading the code costs half a second and more of every start; the kill tests start a process a hundred times. A child is a process
like any other: it has its own session, environment, folder and output, it runs the console script's `main`, and SIGKILL ends it.
There is one nursery per service, because hub and node must not meet in one process.

Run as a program, this file is the nursery: requests come in as lines of JSON, and answers go out.
"""

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = {"hub": "services.hub", "town-node": "services.town_node"}
ALSO_READ = (
    "gunicorn.app.base",
    "gunicorn.arbiter",
    "gunicorn.workers.gthread",
    "kombu.transport.pyamqp",
    "kombu.messaging",
    "psycopg",
)


class Child:
    """A process of the nursery; as much of `subprocess.Popen` as the tests use."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self._nursery, self.pid, self._code = nursery, pid, None

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        if self._code is None:
            self._code = self._nursery.ask({"pid": self.pid})
        return self._code

    def wait(self, timeout: float) -> int:
        """Until it has ended."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return code

    def terminate(self) -> None:
        """SIGTERM."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class Nursery:
    """The tests' end of a nursery."""

    def __init__(self, program: str) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        atexit.register(self.end)

    def ask(self, request: dict[str, Any]) -> Any:
        with self._lock:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def start(self, words: list[str], environment: dict[str, str], folder: Path, output: Path) -> Child:
        """A process that does what the console script does with these words."""
        asked = {"words": words, "environment": environment, "folder": str(folder), "output": str(output)}
        return Child(self, self.ask(asked))

    def end(self) -> None:
        """Close it. Its children are their worlds' to end."""
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@cache
def nursery(program: str) -> Nursery:
    """The nursery of `hub` or of `town-node`."""
    return Nursery(program)


def _live(program: str) -> None:
    main = importlib.import_module(f"{PACKAGES[program]}.cli").main
    importlib.import_module(f"{PACKAGES[program]}.app")
    for name in ALSO_READ:
        importlib.import_module(name)
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        if "pid" in asked:
            ended, status = os.waitpid(asked["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        else:
            answer = os.fork()
            if answer == 0:
                _be(program, main, asked)
        os.write(1, json.dumps(answer).encode() + b"\n")


def _be(program: str, main: Any, asked: dict[str, Any]) -> None:
    """Become the process that was asked for; never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(asked["folder"])
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for old, new in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(old, new)
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = [program, *asked["words"]]
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001  # it is the end of the process, and its output says why
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _live(sys.argv[1])

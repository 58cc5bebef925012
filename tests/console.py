"""The services' real console scripts, each run as a process of its own, as an operator runs them."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import click

BIN = Path(sys.executable).parent


class Console:
    """`hub` or `town-node` with a state folder of its own."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.state = program, folder / "state"
        self._prefix = {"hub": "TUINKOEPEL_HUB_", "town-node": "TUINKOEPEL_NODE_"}[program]

    def run(self, *words: str, file_size: int | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command; settings by their short names. `file_size`: no file may grow beyond so many bytes, as on a full disk."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith("TUINKOEPEL_")}
        environ |= {self._prefix + name: text for name, text in ({"STATE": str(self.state)} | settings).items()}

        def limit() -> None:
            if file_size is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

        return subprocess.run(
            [BIN / self.program, *words], env=environ, capture_output=True, text=True, check=False, timeout=60, preexec_fn=limit
        )

    def does(self, *words: str, **settings: str) -> str:
        """What it printed; it must succeed."""
        done = self.run(*words, **settings)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def refuses(self, *words: str, file_size: int | None = None, **settings: str) -> str:
        """Its one clear line; it must fail, and without a stack trace."""
        done = self.run(*words, file_size=file_size, **settings)
        assert done.returncode > 0, done
        lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]  # our own log
        assert len(lines) == 1, done.stderr
        assert "Traceback" not in done.stderr
        return lines[0]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Every command of a command line, by the words that call it."""
    found: dict[tuple[str, ...], click.Command] = {}
    for name, command in group.commands.items():
        found[*path, name] = command
        if isinstance(command, click.Group):
            found |= commands(command, (*path, name))
    return found

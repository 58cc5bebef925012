"""What every subject needs: servers and folders for one run, samples and their spread, the table at the end."""

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from tests.services import Postgres, Rabbit, clear, fresh_folder


@dataclass(frozen=True)
class Row:
    """One line of the table. `met` is None where there is no target, only something to compare with."""

    what: str
    measured: str
    ratio: str = ""
    target: str = ""
    met: bool | None = None


class Bench:
    """One run: PostgreSQL (with fsync, unlike in the tests) and RabbitMQ, started when first asked for, and folders."""

    def __init__(self) -> None:
        self.limits: dict[str, float] = {}
        """What `limits` measured in this run, by name; empty when it was not asked for."""

    def __enter__(self) -> Self:
        self._ending = contextlib.ExitStack()
        self._folder = fresh_folder()
        self._ending.callback(clear, self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    @cached_property
    def postgres(self) -> Postgres:
        server = Postgres(durable=True)
        self._ending.callback(server.end)
        return server

    @cached_property
    def rabbit(self) -> Rabbit:
        server = Rabbit()
        self._ending.callback(server.end)
        return server

    def folder(self, name: str) -> Path:
        """A new empty folder, on the disk that temporary files are on."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))


def take_turns(rounds: int, cases: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Run every case once a round, so that what else the machine does hits all of them alike; what each gave."""
    given: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            given[name].append(case())
    return given


def spread(values: Iterable[float], unit: str, digits: int = 0) -> str:
    """Median, and from where to where: `12 µs [10–15]`."""
    ordered = sorted(values)
    middle = statistics.median(ordered)
    if len(ordered) == 1:
        return f"{middle:,.{digits}f} {unit}"
    return f"{middle:,.{digits}f} {unit} [{ordered[0]:,.{digits}f}–{ordered[-1]:,.{digits}f}]"


def ratios(above: Iterable[float], below: Iterable[float]) -> list[float]:
    """The ratio of each pair that was measured in the same round."""
    return [over / under for over, under in zip(above, below, strict=True)]


def beside(bench: Bench, value: float, *names: str) -> str:
    """How a value stands to raw limits of this run: `0.21 × kombu consume`."""
    return ", ".join(f"{value / bench.limits[name]:.2g} × {name}" for name in names if name in bench.limits)


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which that share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def print_table(rows: list[Row]) -> None:
    """One table, as wide as it must be."""
    verdicts = {True: "met", False: "MISSED", None: ""}
    lines = [("", "measured", "ratio", "target", "verdict")]
    lines += [(row.what, row.measured, row.ratio, row.target, verdicts[row.met]) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

"""A backup of the database, made while everything runs, and what has to stay with it.

`back_up` writes the whole database into one file: SQLite by its own backup, which sees one moment and what still stands in the WAL
(a plain copy would not), PostgreSQL by `pg_dump`. The file is there under its name only when it is whole, was looked through and
lies on the disk. Older ones than the `keep` latest go.

What a restored copy needs to know and the backup must not bring back (`beside`: the list of erasures, up to where the log was told)
is copied beside each backup, under its name, as it is now. The latest is of use, whatever day the database is of; the earlier ones
stay as long, because a site that once ran without these files begins poorer ones. Keys are not copied: who gets hold of the backup
must not be able to speak for the town.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

import click
from sqlalchemy.engine import URL, make_url


class NotBackedUp(click.ClickException):
    """There is no new backup; the message says why."""


def back_up(url: str, name: str, state: Path, beside: Sequence[str], folder: Path, keep: int, now: datetime) -> Path:
    """Make a backup of the database at `url` in `folder`, and return its path. Raises `NotBackedUp`, `OSError`."""
    database = make_url(url)
    is_sqlite = database.get_backend_name() == "sqlite"
    ending = ".db" if is_sqlite else ".dump"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = folder / f"{name}-{now:%Y%m%d-%H%M%S}{ending}"
    _put(made, lambda fresh: (_copy_sqlite if is_sqlite else _dump_postgresql)(database, fresh))
    for file in beside:
        if (state / file).exists():
            _put(made.with_suffix(f".{file}"), lambda fresh, file=file: shutil.copyfile(state / file, fresh))  # type: ignore[misc]  # the loop's own
    others = sorted(path for path in folder.glob(f"{name}-[0-9]*-[0-9]*{ending}") if path != made)  # a clock may have been wrong
    for old in others[: max(0, len(others) + 1 - keep)]:
        for gone in (old, *(old.with_suffix(f".{name}") for name in beside)):
            gone.unlink(missing_ok=True)
    return made


def _put(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file for its owner's eyes; under its name only when it is whole and on the disk."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    try:
        write(fresh)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _copy_sqlite(database: URL, fresh: Path) -> None:
    source = Path(database.database or "")
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as here,
            closing(sqlite3.connect(fresh)) as copy,
        ):
            here.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
            (said,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        message = f"no backup was made of {source}: {error}"
        raise NotBackedUp(message) from None
    if said != "ok":
        message = f"no backup was kept: {source} is damaged ({' '.join(str(said).split())})"
        raise NotBackedUp(message)


def _dump_postgresql(database: URL, fresh: Path) -> None:
    named = {part: getattr(database, part) for part in ("username", "host", "port", "database", "query")}
    address = URL.create("postgresql", **named)
    with tempfile.NamedTemporaryFile("w", prefix="tuinkoepel-") as file:  # not an argument: everybody on the machine reads those
        if database.password:
            file.write("*:*:*:*:" + re.sub(r"([\\:])", r"\\\1", str(database.password)) + "\n")
            file.flush()
            address = address.update_query_dict({"passfile": file.name})
        command = ["pg_dump", "--format=custom", "--no-owner", f"--file={fresh}", f"--dbname={address.render_as_string()}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
        except FileNotFoundError:
            message = "no backup was made: pg_dump is not installed (package postgresql-client)"
            raise NotBackedUp(message) from None
    if done.returncode:
        message = f"no backup was made: {' '.join(done.stderr.split())}"
        raise NotBackedUp(message)

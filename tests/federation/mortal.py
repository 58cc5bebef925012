"""Databases in memory whose process can die at any commit, before or after it is done, and that can be copied and put back.

And the files beside it, which are in no copy.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.hub.towns.keyring import EMPTY, Keyring
from shared.db import Database
from shared.envelope import Entry, open_entry
from shared.erasure import ErasureList
from shared.inbox import inbox, inbox_cursor
from shared.pins import read_pins

Place = tuple[str, str, int]
"""Town, epoch, number."""


class Died(BaseException):
    """A process ended in the midst of its work, and nothing of the kernel could catch it.

    `done`: its last transaction is committed.
    """

    def __init__(self, place: Any, *, done: bool) -> None:
        super().__init__(place)
        self.place, self.done = place, done


class Fuse:
    """When the processes of this place die: each at its n-th commit, before or after that is done."""

    def __init__(self, place: Any) -> None:
        self.place = place
        self.light([])

    def light(self, ends: Sequence[tuple[int, bool]]) -> None:
        """After how many commits a process ends, and whether the last one is done; then the same of the process after it."""
        self._ends, self._left = list(ends), ends[0][0] if ends else 0

    def burn(self) -> bool | None:
        """Another commit is at hand. If the process dies at it: whether it is done."""
        self._left -= 1
        if self._left:
            return None
        (_, done), *others = self._ends
        self.light(others)
        return done


class MortalDatabase(Database):
    """A database whose process can die at a commit; `Database.transaction()` is the only place that commits."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__("sqlite://")
        self.fuse = fuse

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Session]:
        with super().transaction() as session:
            yield session
            done = self.fuse.burn()
            if done is False:
                raise Died(self.fuse.place, done=False)
        if done:
            raise Died(self.fuse.place, done=True)


def image(database: Database) -> bytes:
    return database.engine.raw_connection().driver_connection.serialize()


def put_image(database: Database, backup: bytes) -> None:
    connection = database.engine.raw_connection().driver_connection
    connection.deserialize(backup)
    connection.execute("PRAGMA secure_delete=ON")  # as `Database` wants it; what is put in place so has forgotten it


def place_of(entry: Entry) -> Place:
    return entry.says.town, entry.says.epoch, entry.says.seq


def held_by(database: Database) -> dict[Place, bytes]:
    """What stands at each place that is held there."""
    with database.reading() as session:
        rows = session.execute(select(inbox.c.town, inbox.c.epoch, inbox.c.seq, inbox.c.hash))
        return {(row.town, row.epoch, row.seq): bytes(row.hash) for row in rows}


def last_key_has_ended(database: Database, town: str) -> bool:
    """Whether what is held last of this town is signed with a key that counts no more at that place."""
    with database.reading() as session:
        held = inbox_cursor.c.town == town, inbox.c.epoch == inbox_cursor.c.epoch, inbox.c.seq == inbox_cursor.c.seq
        row = session.execute(select(inbox.c.header, inbox.c.signature).where(inbox.c.town == town, *held)).one()
        says = open_entry(row.header, row.signature, None, None).says
        return read_pins(session, [town]).key_for(town, says.key_id, says.epoch, says.seq) is None


class Erasures(ErasureList):
    """The list of erasures beside the database, which is not in its backup."""

    def __init__(self) -> None:
        self.said: set[tuple[str, str]] = set()
        self.owes_scrub = True

    def read(self) -> set[tuple[str, str]]:
        return set(self.said)

    def add(self, fresh) -> None:
        self.said |= set(fresh)


class Keys(Keyring):
    """What was decided about keys, beside the database."""

    def __init__(self) -> None:
        super().__init__(Path("keys.json"))
        self.said, self.written = dict(EMPTY), 0

    def read(self) -> dict:
        return self.said

    def write(self, said) -> None:
        self.said = orjson.loads(orjson.dumps(said))
        self.written += 1

    def _stamp(self) -> int:
        return self.written

    def alone(self):
        return contextlib.nullcontext()


class Sidecar:
    """The file beside the database, which is not in its backup."""

    def __init__(self) -> None:
        self.said: dict = {}

    def read(self) -> dict:
        return dict(self.said)

    def note(self, **said) -> None:
        self.said = said

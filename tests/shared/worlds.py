"""What the kernel's tests are made of: logs on real databases, and a clock, keys and randomness that a test can foresee."""

import hashlib
import itertools
from datetime import UTC, date, datetime
from pathlib import Path

import orjson

from shared import eventlog, inbox, pins, projections, quarantine, relay
from shared.db import Base, Database
from shared.envelope import Entry, pack
from shared.eventlog import Author, append, open_epoch, read_head, read_log
from shared.events import VOCABULARY, Event, LessonShared, from_body
from shared.keys import KeyPair
from shared.pins import pin_key

KERNEL = [
    *(eventlog.log, eventlog.payload, eventlog.head, relay.relay, inbox.inbox, inbox.inbox_cursor, inbox.erased),
    *(pins.pin, pins.epoch_order, pins.cut_off, quarantine.quarantine, quarantine.quarantine_count),
    *(projections.projection_table, projections.projection_cursor, projections.projection_stall),
]
"""Named, because other tests of a run may have brought the tables of a service."""
WIRE = Path(__file__).parents[1] / "wire"
NOON = datetime(2012, 6, 20, 12, 0, 0, 123456, tzinfo=UTC)


def key_of(town: str) -> KeyPair:
    return KeyPair.of(hashlib.sha256(town.encode()).digest())


def author_of(town: str) -> Author:
    """Writes at noon, with bytes that are random to the eye and the same in each run."""
    count = itertools.count()
    return Author(
        town, key_of(town), lambda: NOON, lambda length: hashlib.sha512(f"{town} {next(count)}".encode()).digest()[:length]
    )


def golden(name: str) -> Event:
    """The event in a golden file: `lesson.shared.v1`."""
    body = orjson.loads((WIRE / f"{name}.json").read_bytes())
    return from_body(VOCABULARY[name.rpartition(".v")[0]], body)


def lesson(title: str, code: str = "lesson-1", kind: type[LessonShared] = LessonShared) -> LessonShared:
    return kind(lesson=code, title=title, body="Vraag vroeg om water.", kind="tip", theme="water", shared_on=date(2012, 6, 20))


def open_database(url: str) -> Database:
    database = Database(url)
    Base.metadata.create_all(database.engine, tables=KERNEL)
    return database


class Town:
    """A town's log."""

    def __init__(self, slug: str, url: str = "sqlite://") -> None:
        self.slug, self.author = slug, author_of(slug)
        self.database = open_database(url)
        self.database.info["author"] = self.author
        with self.database.transaction() as session:
            self.epoch = open_epoch(session, self.author)

    def tell(self, *happened: Event) -> None:
        for one in happened:
            with self.database.transaction() as session:
                append(session, one)

    @property
    def entries(self) -> list[Entry]:
        with self.database.reading() as session:
            return list(read_log(session, self.epoch, 0, 10_000))

    @property
    def last(self) -> int:
        with self.database.reading() as session:
            return read_head(session).seq

    def message(self, first: int = 1, last: int | None = None) -> bytes:
        """The places from `first` to `last`, packed."""
        return pack(self.entries[first - 1 : last])[0]


def open_hub(*slugs: str, url: str = "sqlite://") -> Database:
    """A hub that knows these towns' keys."""
    database = open_database(url)
    with database.transaction() as session:
        for slug in slugs:
            pin_key(session, slug, key_of(slug).public, NOON)
    return database

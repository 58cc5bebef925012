"""A node's own log: the truth about what it told the world (design §1, point 2).

`append` gives an event its place in the log **inside the caller's transaction**, so a change and its event are committed together
or not at all (I2). The place is the next whole number under the row lock of `head`: SQLite has one writer at a time anyway, on
PostgreSQL `SELECT … FOR UPDATE` makes the second writer wait. That is why numbers have no gaps (I3) and become visible in their
own order (I4): whoever sees n+1 sees n. An autoincrement would promise neither: polled under eight writers it lost 16–42 % of
the events. Because the lock is held until the commit, `append` belongs at the end of an action.

Tables: `log` (header, hash, signature), `payload` (salt, body; apart, so that it can be erased), `head` (one row per epoch).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Table, select, update
from sqlalchemy.orm import Session

from shared.db import Base, Moment
from shared.envelope import NO_HASH, SALT_LENGTH, Entry, open_entry, seal
from shared.events import Event
from shared.keys import KeyPair
from shared.language import N_
from shared.observability import failpoint
from shared.refusals import Refusal

log = Table(
    "log",
    Base.metadata,
    Column("epoch", String(40), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("header", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("key_id", String(40), nullable=False),
)
payload = Table(
    "payload",
    Base.metadata,
    Column("epoch", String(40), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("salt", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
head = Table(
    "head",
    Base.metadata,
    Column("epoch", String(40), primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("opened_at", Moment, nullable=False),
)


class NotJoined(Refusal):
    """This node has no name, key or epoch yet: it has to join the association first."""

    text = N_("This node has not joined the association yet. Join with the code you were given.")


@dataclass(frozen=True)
class Author:
    """Who writes this log: the town's slug and key, with the clock and the randomness it uses (handed in, for the tests)."""

    town: str
    key: KeyPair
    now: Callable[[], datetime]
    randomness: Callable[[int], bytes]


@dataclass(frozen=True)
class Head:
    """The last place that is taken, and its hash; `seq` is 0 in an empty epoch."""

    epoch: str
    seq: int
    hash: bytes


def open_epoch(session: Session, author: Author) -> str:
    """Begin a new run of numbers, from 1. Returns the epoch's random id."""
    epoch = author.randomness(8).hex()
    number = (session.scalar(select(head.c.number).order_by(head.c.number.desc()).limit(1)) or 0) + 1
    session.execute(head.insert(), {"epoch": epoch, "number": number, "seq": 0, "hash": NO_HASH, "opened_at": author.now()})
    return epoch


def append(session: Session, happened: Event) -> Head:
    """Number, chain and sign an event, and store it with the caller's change. The last thing an action does.

    Raises `NotJoined`; `Misfit` or `BodyTooLong` for what every receiver would refuse, before anything is committed.
    """
    author = session.info.get("author")
    if not isinstance(author, Author):
        raise NotJoined
    session.flush()  # the change itself first: a constraint that fails must not hold the log's lock
    last = _lock_head(session)
    entry = seal(
        happened,
        town=author.town,
        epoch=last.epoch,
        seq=last.seq + 1,
        prevhash=last.hash,
        key=author.key,
        now=author.now(),
        salt=author.randomness(SALT_LENGTH),
    )
    place = {"epoch": last.epoch, "seq": last.seq + 1}
    session.execute(
        log.insert(),
        {
            **place,
            "header": entry.header,
            "hash": entry.hash,
            "signature": entry.signature,
            "key_id": author.key.key_id,
        },
    )
    session.execute(payload.insert(), {**place, "salt": entry.salt, "body": entry.body})
    session.execute(update(head).where(head.c.epoch == last.epoch).values(seq=last.seq + 1, hash=entry.hash))
    session.info["appended"] = True
    failpoint("log.appended")
    return Head(last.epoch, last.seq + 1, entry.hash)


def _lock_head(session: Session) -> Head:
    row = session.execute(_head_query().with_for_update()).first()
    if row is None:
        raise NotJoined
    return Head(row.epoch, row.seq, row.hash)


def _head_query() -> Any:
    return select(head.c.epoch, head.c.seq, head.c.hash).order_by(head.c.number.desc()).limit(1)


def read_head(session: Session) -> Head | None:
    """The present head; None before the first epoch."""
    row = session.execute(_head_query()).first()
    return None if row is None else Head(row.epoch, row.seq, row.hash)


def read_log(session: Session, epoch: str, after: int, limit: int) -> Sequence[Entry]:
    """Entries beyond `after`, in order. A body that was erased is None.

    Each is opened as a stranger's would be: what this disk spoiled must be noticed here, because the hub would drop it and ask
    again for ever.
    """
    rows = session.execute(
        select(log.c.header, log.c.signature, payload.c.salt, payload.c.body)
        .outerjoin(payload, (payload.c.epoch == log.c.epoch) & (payload.c.seq == log.c.seq))
        .where(log.c.epoch == epoch, log.c.seq > after)
        .order_by(log.c.seq)
        .limit(limit)
    )
    return [open_entry(row.header, row.signature, row.salt, row.body) for row in rows]

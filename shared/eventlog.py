"""A node's own log: the truth about what it told the world (design §1, point 2).

`append` gives an event its place in the log **inside the caller's transaction**, so a change and its event are committed together
or not at all (I2). A node that has not joined the association yet has no log: `append` says nothing then, and joining begins the
first epoch with the whole public state. The place is the next whole number under the row lock of `head`: SQLite has one writer at a
time anyway, on PostgreSQL `SELECT … FOR UPDATE` makes the second writer wait. That is why numbers have no gaps (I3) and become
visible in their own order (I4): whoever sees n+1 sees n. An autoincrement would promise neither: polled under eight writers it lost
16–42 % of the events. Because the lock is held until the commit, `append` belongs at the end of an action.

Tables: `log` (header, subject, hash, signature), `payload` (salt, body; apart, so that it can be erased), `head` (one row per
epoch).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Table, delete, select, tuple_, update
from sqlalchemy.orm import Session

from shared.db import Base, Moment
from shared.envelope import NO_HASH, SALT_LENGTH, Entry, Header, open_entry, seal
from shared.events import EXEMPT_FROM_ERASURE, Event
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
    Column("subject", String(40), nullable=False, index=True),
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
    Column("key_id", String(40), nullable=False),
    Column("opened_at", Moment, nullable=False),
)
"""`key_id`: who may write the next entry; a process that still holds an older key is refused."""


class NotAuthor(Refusal):
    """There is a log here, but this process does not hold its key: another one joined a moment ago, or the key file is gone."""

    text = N_("This node joined the association a moment ago. Please try again.")


@dataclass(frozen=True)
class Author:
    """Who writes this log: the town's slug and key, with the clock and the randomness it uses (handed in, for the tests).

    `previous` is the key before the present one, kept until the association has heard of the change: until then it knows no other.
    """

    town: str
    key: KeyPair
    now: Callable[[], datetime]
    randomness: Callable[[int], bytes]
    previous: KeyPair | None = None


@dataclass(frozen=True)
class Head:
    """The last place that is taken, and its hash; `seq` is 0 in an empty epoch."""

    epoch: str
    seq: int
    hash: bytes
    key_id: str = ""


def open_epoch(session: Session, author: Author, epoch: str = "") -> str:
    """Begin a new run of numbers, from 1, under a random id unless one is given. Returns the id."""
    epoch = epoch or author.randomness(8).hex()
    number = (session.scalar(select(head.c.number).order_by(head.c.number.desc()).limit(1)) or 0) + 1
    row = {"number": number, "seq": 0, "hash": NO_HASH, "key_id": author.key.key_id, "opened_at": author.now()}
    session.execute(head.insert(), row | {"epoch": epoch})
    return epoch


def append(session: Session, happened: Event) -> Head | None:
    """Number, chain and sign an event, and store it with the caller's change. The last thing an action does.

    None where nobody listens yet: the node has not joined. Raises `Misfit` or `BodyTooLong` for what every receiver would refuse,
    before anything is committed; `NotAuthor` when another process joined meanwhile.
    """
    session.flush()  # the change itself first: a constraint that fails must not hold the log's lock
    last = lock_head(session)
    author = session.info.get("author")
    if not isinstance(author, Author):
        if last is not None:
            raise NotAuthor
        return None
    if last is None or last.key_id != author.key.key_id:
        raise NotAuthor
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
    return adopt(session, entry)


def adopt(session: Session, entry: Entry) -> Head:
    """Enter a sealed entry at its place, which must be the next one of its epoch."""
    says = entry.says
    place = {"epoch": says.epoch, "seq": says.seq}
    row = {"header": entry.header, "subject": says.subject, "hash": entry.hash, "signature": entry.signature, "key_id": says.key_id}
    session.execute(log.insert(), place | row)
    if entry.body is not None:
        session.execute(payload.insert(), place | {"salt": entry.salt, "body": entry.body})
    session.execute(update(head).where(head.c.epoch == says.epoch).values(seq=says.seq, hash=entry.hash))
    session.info["appended"] = True
    failpoint("log.appended")
    return Head(says.epoch, says.seq, entry.hash)


def adopt_all(session: Session, entries: Sequence[Entry]) -> None:
    """Enter many sealed entries of one epoch, which follow one another and what is there."""
    rows = [
        {
            "epoch": entry.says.epoch, "seq": entry.says.seq, "header": entry.header, "subject": entry.says.subject,
            "hash": entry.hash, "signature": entry.signature, "key_id": entry.says.key_id,
        }
        for entry in entries
    ]  # fmt: skip
    bodies = [
        {"epoch": entry.says.epoch, "seq": entry.says.seq, "salt": entry.salt, "body": entry.body}
        for entry in entries
        if entry.body is not None
    ]
    for table, some in ((log, rows), (payload, bodies)):
        if some:
            session.execute(table.insert(), some)
    last = entries[-1]
    session.execute(update(head).where(head.c.epoch == last.says.epoch).values(seq=last.says.seq, hash=last.hash))
    session.info["appended"] = True


def lock_head(session: Session) -> Head | None:
    """The present head, locked until the transaction ends; None before the first epoch."""
    while True:
        row = session.execute(_head_query().with_for_update()).first()
        present = session.execute(_head_query()).first()
        # On PostgreSQL, who waited for the lock gets the row it waited for, though a new epoch was opened meanwhile: look again.
        if row is None or present is None or row.epoch == present.epoch:
            return None if row is None else Head(row.epoch, row.seq, row.hash, row.key_id)


def _head_query() -> Any:
    return select(head.c.epoch, head.c.seq, head.c.hash, head.c.key_id).order_by(head.c.number.desc()).limit(1)


def read_head(session: Session) -> Head | None:
    """The present head; None before the first epoch."""
    row = session.execute(_head_query()).first()
    return None if row is None else Head(row.epoch, row.seq, row.hash, row.key_id)


def change_key(session: Session, key_id: str) -> None:
    """From the next entry on, this key writes."""
    last = lock_head(session)
    if last is not None:
        session.execute(update(head).where(head.c.epoch == last.epoch).values(key_id=key_id))


def read_hash(session: Session, epoch: str, seq: int) -> bytes | None:
    """The hash at this place; None if this log has no such place."""
    found = session.scalar(select(log.c.hash).where(log.c.epoch == epoch, log.c.seq == seq))
    return None if found is None else bytes(found)


def has_epoch(session: Session, epoch: str) -> bool:
    """Whether this log ever ran under that epoch."""
    return number_of(session, epoch) > 0


def number_of(session: Session, epoch: str) -> int:
    """Which of this log's epochs that is, counted from 1; 0 if it never ran under it."""
    return session.scalar(select(head.c.number).where(head.c.epoch == epoch)) or 0


def last_signed(session: Session, key_id: str) -> tuple[int, Header | None]:
    """What the header of the last entry under this key says, and the number of its epoch."""
    query = select(head.c.number, log.c.header, log.c.signature).join(head, head.c.epoch == log.c.epoch)
    row = session.execute(query.where(log.c.key_id == key_id).order_by(head.c.number.desc(), log.c.seq.desc()).limit(1)).first()
    return (0, None) if row is None else (row.number, open_entry(row.header, row.signature, None, None).says)


def forget_payloads(session: Session, subject: str) -> int:
    """Erase body and salt of every entry about this subject; how many there were. The chain stays whole, and can be followed."""
    rows = session.execute(select(log.c.header, log.c.signature).where(log.c.subject == subject)).all()
    says = [open_entry(row.header, row.signature, None, None).says for row in rows]
    places = [(one.epoch, one.seq) for one in says if one.type not in EXEMPT_FROM_ERASURE]
    for start in range(0, len(places), 200):
        place = tuple_(payload.c.epoch, payload.c.seq)
        session.execute(delete(payload).where(place.in_(places[start : start + 200])))
    return len(places)


def headers_about(session: Session, subject: str) -> list[Header]:
    """What the headers of all entries about this subject say, oldest first, through all epochs."""
    rows = session.execute(
        select(log.c.header, log.c.signature)
        .join(head, head.c.epoch == log.c.epoch)
        .where(log.c.subject == subject)
        .order_by(head.c.number, log.c.seq)
    )
    return [open_entry(row.header, row.signature, None, None).says for row in rows]


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

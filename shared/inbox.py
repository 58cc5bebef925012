"""The inbox: what other logs told us. Accepted first, understood later (design §1, point 5).

**Accept** stores verified bytes once. On the hub a message is a run of a town's log and must continue it exactly: the chain is
checked against what is stored, and the town's cursor moves in the same transaction (`accept_messages`). On a node the feed brings
single entries with gaps between them (what the town may not see), so each carries its own signature (`accept_entries`).

**Apply** folds what is stored into projections, in the order of each log, and moves each projection's cursor in the transaction
that changes its tables, so that it happens exactly once to the eye (I8) and never backwards (I9). A handler says what rows an
event leaves behind; because every entity event carries its whole state, rows are only *put* or *dropped*, doing it twice changes
nothing, and a batch becomes one statement per table. A handler that fails stalls that projection for that town, visibly, and
never skips (I11). A type that is unknown here is kept, counted and passed over.

`rebuild` folds everything again into emptied tables in one transaction: to readers, the commit is the swap.

Tables: `inbox` (entries), `inbox_cursor` (one row per log: the last place that is held; a worker that finds nothing new must not
have looked through all there is), `pin` (whose key is whose), `projection`, `projection_cursor`.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    delete,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from shared.db import Base, Moment, upsert
from shared.envelope import NO_HASH, Entry, Malformed, Message, read_event, signed_by, stored_entry, unpack
from shared.events import Event
from shared.observability import EVENTS_STORED, MESSAGES_DROPPED, facts, failpoint

log = logging.getLogger(__name__)

inbox = Table(
    "inbox",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("epoch", String(40), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("type", String(80), nullable=False),
    Column("header", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("salt", LargeBinary),
    Column("body", LargeBinary),
)
inbox_cursor = Table(
    "inbox_cursor",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("epoch", String(40), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("heard_at", Moment),
    Column("gap_at", Moment),
    Column("trouble", Text, nullable=False, default=""),
)
pin = Table(
    "pin",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("key_id", String(40), primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("pinned_at", Moment, nullable=False),
)
projection_table = Table(
    "projection",
    Base.metadata,
    Column("name", String(40), primary_key=True),
    Column("folded_with", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
)
projection_cursor = Table(
    "projection_cursor",
    Base.metadata,
    Column("projection", String(40), primary_key=True),
    Column("town", String(40), primary_key=True),
    Column("epoch", String(40), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("stalled_at", BigInteger),
    Column("reason", Text, nullable=False, default=""),
    Index("ix_projection_cursor_stalled", "stalled_at"),
)


# ---- Whose key is whose ----------------------------------------------------------------------------------------------------


def pin_key(session: Session, town: str, key_id: str, public: bytes, now: datetime) -> bool:
    """Remember a town's first key. A different one later is refused here: that takes a rotation. Returns whether it is pinned."""
    held = session.execute(select(pin.c.key_id, pin.c.public_key).where(pin.c.town == town)).all()
    if not held:
        session.execute(pin.insert(), {"town": town, "key_id": key_id, "public_key": public, "pinned_at": now})
        return True
    return any(row.key_id == key_id and bytes(row.public_key) == public for row in held)


def pinned_keys(session: Session, towns: Iterable[str]) -> dict[tuple[str, str], bytes]:
    """(town, key id) → public key."""
    rows = session.execute(select(pin.c.town, pin.c.key_id, pin.c.public_key).where(pin.c.town.in_(list(towns))))
    return {(row.town, row.key_id): bytes(row.public_key) for row in rows}


# ---- Accept ----------------------------------------------------------------------------------------------------------------

Verdict = Literal["stored", "known", "ahead", "malformed", "unknown_key", "bad_signature", "broken_chain", "forked", "other_epoch"]


@dataclass
class Outcome:
    """What became of a message. `stored` counts new entries; anything but stored, known and ahead failed verification."""

    verdict: Verdict
    town: str = ""
    stored: int = 0
    reason: str = ""


def accept_messages(session: Session, raws: Sequence[bytes], now: datetime) -> list[Outcome]:
    """Store what is new in these messages, in one transaction; an outcome for each. Acknowledge them after its commit.

    What fails verification is logged with its reason and dropped; it neither moves a cursor nor keeps others from being stored.
    """
    outcomes: list[Outcome] = []
    opened: list[tuple[Outcome, Message]] = []
    for raw in raws:
        try:
            message = unpack(raw)
        except Malformed as error:
            outcomes.append(Outcome("malformed", reason=str(error)))
            continue
        outcomes.append(Outcome("known", message.town))
        opened.append((outcomes[-1], message))
    towns = {message.town for _, message in opened}
    keys = pinned_keys(session, towns)
    cursors = _lock_cursors(session, towns)
    rows: list[dict[str, Any]] = []
    for outcome, message in opened:
        _judge(session, outcome, message, keys, cursors, rows, now)
    if rows:
        session.execute(inbox.insert(), rows)
    upsert(session, inbox_cursor, [cursors[town] for town in sorted(cursors) if cursors[town].pop("moved", False)])
    for outcome in outcomes:
        _report(outcome)
    return outcomes


def _lock_cursors(session: Session, towns: set[str]) -> dict[str, dict[str, Any]]:
    query = select(inbox_cursor).where(inbox_cursor.c.town.in_(sorted(towns))).order_by(inbox_cursor.c.town)
    return {row.town: dict(row._mapping) for row in session.execute(query.with_for_update())}  # noqa: SLF001  # SQLAlchemy's public name


def _new_cursor(town: str, epoch: str) -> dict[str, Any]:
    return {"town": town, "epoch": epoch, "seq": 0, "hash": NO_HASH, "gap_at": None, "heard_at": None, "trouble": ""}


def _judge(
    session: Session,
    outcome: Outcome,
    message: Message,
    keys: dict[tuple[str, str], bytes],
    cursors: dict[str, dict[str, Any]],
    rows: list[dict[str, Any]],
    now: datetime,
) -> None:
    key = keys.get((message.town, message.key_id))
    if key is None:
        outcome.verdict, outcome.reason = "unknown_key", f"key {message.key_id} is not pinned for this town"
        return
    if not signed_by(message.entries[-1], key):
        outcome.verdict, outcome.reason = "bad_signature", "the last signature is not this key's"
        return
    cursor = cursors.setdefault(message.town, _new_cursor(message.town, message.epoch))
    if cursor["epoch"] != message.epoch:
        outcome.verdict, outcome.reason = "other_epoch", f"epoch {message.epoch}, but {cursor['epoch']} is open"
        return
    first, known = message.entries[0].says.seq, cursor["seq"]
    if first > known + 1:
        # Dropped, not kept: the head exchange brings it again from the right place.
        outcome.verdict, outcome.reason = "ahead", f"{first} came, {known + 1} is missing"
        cursor.update(gap_at=now, moved=True)
        return
    old = [entry for entry in message.entries if entry.says.seq <= known]
    fresh = message.entries[len(old) :]
    if _differs(session, message, old, rows):
        outcome.verdict, outcome.reason = "forked", f"another history than the stored one, between {first} and {known}"
        return
    if not fresh:
        return
    if fresh[0].says.prevhash != bytes(cursor["hash"]):
        outcome.verdict, outcome.reason = "broken_chain", f"{fresh[0].says.seq} does not continue what is stored"
        return
    rows.extend(_row(entry) for entry in fresh)
    cursor.update(seq=fresh[-1].says.seq, hash=fresh[-1].hash, heard_at=now, gap_at=None, moved=True)
    outcome.verdict, outcome.stored = "stored", len(fresh)


def _differs(session: Session, message: Message, old: Sequence[Entry], unsaved: list[dict[str, Any]]) -> bool:
    """Whether any of these entries differs from what is stored at its place."""
    if not old:
        return False
    stored = {
        row.seq: bytes(row.hash)
        for row in session.execute(
            select(inbox.c.seq, inbox.c.hash).where(
                inbox.c.town == message.town,
                inbox.c.epoch == message.epoch,
                inbox.c.seq.between(old[0].says.seq, old[-1].says.seq),
            )
        )
    }
    stored |= {row["seq"]: row["hash"] for row in unsaved if (row["town"], row["epoch"]) == (message.town, message.epoch)}
    return any(stored[entry.says.seq] != entry.hash for entry in old)


def _row(entry: Entry) -> dict[str, Any]:
    says = entry.says
    return {
        "town": says.town, "epoch": says.epoch, "seq": says.seq, "type": says.type[:80], "header": entry.header,
        "hash": entry.hash, "signature": entry.signature, "salt": entry.salt, "body": entry.body,
    }  # fmt: skip


def _report(outcome: Outcome) -> None:
    if outcome.verdict == "stored":
        EVENTS_STORED.inc(outcome.stored)
    elif outcome.verdict != "known":
        MESSAGES_DROPPED.labels(outcome.verdict).inc()
        about = facts(town=outcome.town, verdict=outcome.verdict, reason=outcome.reason)
        log.log(logging.INFO if outcome.verdict == "ahead" else logging.WARNING, "inbox.dropped", extra=about)


def accept_entries(session: Session, entries: Sequence[Entry]) -> int:
    """Store single entries from the feed, each by its own signature; returns how many were new.

    One that is not signed by a pinned key of its town is logged and passed over: the hub cannot put words into a town's mouth.
    """
    keys = pinned_keys(session, {entry.says.town for entry in entries})
    rows = []
    for entry in entries:
        key = keys.get((entry.says.town, entry.says.key_id))
        if key is None or not signed_by(entry, key):
            _report(
                Outcome(
                    "unknown_key" if key is None else "bad_signature",
                    entry.says.town,
                    reason=f"feed entry {entry.says.seq}",
                )
            )
            continue
        rows.append(_row(entry))
    places = [(row["town"], row["epoch"], row["seq"]) for row in rows]
    held = set()
    for start in range(0, len(places), 200):
        place = tuple_(inbox.c.town, inbox.c.epoch, inbox.c.seq)
        held |= {tuple(row) for row in session.execute(select(*place.clauses).where(place.in_(places[start : start + 200])))}
    new = {place: row for place, row in zip(places, rows, strict=True) if place not in held}
    if new:
        session.execute(inbox.insert(), list(new.values()))
        _move_cursors(session, new.values())
        EVENTS_STORED.inc(len(new))
    return len(new)


def _move_cursors(session: Session, rows: Iterable[dict[str, Any]]) -> None:
    """The last place held of each log, when single entries were stored."""
    cursors = _lock_cursors(session, {row["town"] for row in rows})
    for row in rows:
        cursor = cursors.setdefault(row["town"], _new_cursor(row["town"], row["epoch"]))
        if row["epoch"] != cursor["epoch"] or row["seq"] > cursor["seq"]:
            cursor.update(epoch=row["epoch"], seq=row["seq"], hash=row["hash"])
    upsert(session, inbox_cursor, list(cursors.values()))


# ---- Apply -----------------------------------------------------------------------------------------------------------------


class Rows:
    """The rows a batch of events leaves behind, gathered per table; the last word on a key wins."""

    def __init__(self) -> None:
        self._tables: dict[Table, dict[tuple[Any, ...], dict[str, Any] | None]] = defaultdict(dict)

    def put(self, model: Any, **values: Any) -> None:
        """This row is there, so. Every column that has no default is named."""
        table = model.__table__ if hasattr(model, "__table__") else model
        self._tables[table][tuple(values[column.key] for column in table.primary_key)] = values

    def drop(self, model: Any, **key: Any) -> None:
        """No row with this key."""
        table = model.__table__ if hasattr(model, "__table__") else model
        self._tables[table][tuple(key[column.key] for column in table.primary_key)] = None

    def take(self, later: "Rows") -> None:
        """Add what another one gathered after this one."""
        for table, by_key in later._tables.items():  # noqa: SLF001  # its own kind
            self._tables[table].update(by_key)

    def save(self, session: Session) -> None:
        """Write what was gathered: one deleting and one upserting statement per table."""
        for table, by_key in self._tables.items():
            gone = [key for key, row in by_key.items() if row is None]
            for start in range(0, len(gone), 200):
                session.execute(delete(table).where(tuple_(*table.primary_key.columns).in_(gone[start : start + 200])))
            upsert(session, table, [row for row in by_key.values() if row is not None])


Handler = Callable[[Rows, str, Any], None]


@dataclass
class Projection:
    """Tables that are folded from others' events, with the handlers that fold them.

    A handler is `def effect(rows, town, event)`, entered with `@projection.on(EventClass, …)`; it must not look at the database.
    `follows(town)` limits it to some logs (a node's library leaves out its own town).
    """

    name: str
    tables: Sequence[Any]
    handlers: dict[type[Event], Handler] = field(default_factory=dict)

    def on(self, *happened: type[Event]) -> Callable[[Handler], Handler]:
        def enter(handler: Handler) -> Handler:
            for cls in happened:
                self.handlers[cls] = handler
            return handler

        return enter

    @property
    def folded_with(self) -> str:
        """What it understands; when that changes, it is rebuilt."""
        columns = [f"{table.name}({','.join(table.columns.keys())})" for table in map(_table, self.tables)]
        return " ".join(sorted(cls.wire for cls in self.handlers)) + " | " + " ".join(columns)


def _table(model: Any) -> Table:
    table: Table = model.__table__ if hasattr(model, "__table__") else model
    return table


APPLY_MAX = 2000
"""Entries of one log that are folded in one transaction."""


def apply(session: Session, projections: Sequence[Projection], limit: int = APPLY_MAX) -> int:
    """Fold the next stored entries into the projections, at most so many per log; returns how many entries were looked at."""
    cursors = {(row.projection, row.town): row for row in session.execute(select(projection_cursor).with_for_update())}
    stalled = {key for key, row in cursors.items() if row.stalled_at is not None}
    looked = 0
    rows = {projection.name: Rows() for projection in projections}
    moved: dict[tuple[str, str], dict[str, Any]] = {}
    for town, epoch, last in session.execute(select(inbox_cursor.c.town, inbox_cursor.c.epoch, inbox_cursor.c.seq)).all():
        here = [
            (projection, cursors[key].seq if key in cursors else 0)
            for projection in projections
            if (key := (projection.name, town)) not in stalled
        ]
        start = min((seq for _, seq in here), default=last)
        if start >= last:
            continue
        entries = _stored(session, town, epoch, start, limit)
        looked += len(entries)
        for projection, done in here:
            fresh = [entry for entry in entries if entry[0] > done]
            if fresh:
                moved[projection.name, town] = _fold(projection, rows[projection.name], town, epoch, done, fresh)
    for gathered in rows.values():
        gathered.save(session)
    upsert(session, projection_cursor, list(moved.values()))
    if moved:
        session.execute(
            update(projection_table)
            .where(projection_table.c.name.in_({name for name, _ in moved}))
            .values(version=projection_table.c.version + 1)
        )
    return looked


Read = tuple[int, Event | None, Exception | None]
"""A place in a log, and what happened there; None if that was erased or is unknown here; or why it cannot be read."""


def _stored(session: Session, town: str, epoch: str, after: int, limit: int) -> list[Read]:
    query = (
        select(inbox.c.seq, inbox.c.header, inbox.c.hash, inbox.c.signature, inbox.c.salt, inbox.c.body)
        .where(inbox.c.town == town, inbox.c.epoch == epoch, inbox.c.seq > after)
        .order_by(inbox.c.seq)
        .limit(limit)
    )
    read: list[Read] = []
    for seq, *parts in session.execute(query):
        try:
            read.append((seq, read_event(stored_entry(*parts)), None))
        except ValueError as error:
            read.append((seq, None, error))
    return read


def _fold(projection: Projection, rows: Rows, town: str, epoch: str, done: int, fresh: Sequence[Read]) -> dict[str, Any]:
    """Hand the events to their handlers in order; the cursor that results, stalled before the first that failed."""
    cursor = {
        "projection": projection.name,
        "town": town,
        "epoch": epoch,
        "seq": done,
        "stalled_at": None,
        "reason": "",
    }
    for seq, happened, unreadable in fresh:
        try:
            if unreadable is not None:
                raise unreadable
            handler = projection.handlers.get(type(happened)) if happened is not None else None
            if handler is not None:
                effect = Rows()  # apart, so that nothing is left of a handler that fails halfway
                handler(effect, town, happened)
                rows.take(effect)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.exception("projection.stalled", extra=facts(projection=projection.name, town=town, seq=seq))
            return cursor | {"stalled_at": seq, "reason": reason[:500]}
        cursor["seq"] = seq
    return cursor


def rebuild(session: Session, projections: Sequence[Projection], progress: Callable[[int], None] = lambda _: None) -> None:
    """Fold everything that is stored into emptied tables. Until the commit, readers keep seeing the old rows."""
    names = [projection.name for projection in projections]
    session.execute(delete(projection_cursor).where(projection_cursor.c.projection.in_(names)))
    for projection in projections:
        for model in projection.tables:
            session.execute(delete(_table(model)))
    failpoint("rebuild.emptied")
    while looked := apply(session, projections):
        progress(looked)
    for projection in projections:
        before = session.scalar(select(projection_table.c.version).where(projection_table.c.name == projection.name)) or 0
        row = {"name": projection.name, "folded_with": projection.folded_with, "version": before + 1}
        upsert(session, projection_table, [row])
    failpoint("rebuild.folded")


def rebuild_changed(session: Session, projections: Sequence[Projection]) -> list[str]:
    """Rebuild the projections that now understand other events, or keep other columns, than when they were folded; their names."""
    held = dict(session.execute(select(projection_table.c.name, projection_table.c.folded_with)).all())
    changed = [projection for projection in projections if held.get(projection.name) != projection.folded_with]
    if changed:
        rebuild(session, changed)
        log.info("projection.rebuilt", extra=facts(projections=[projection.name for projection in changed]))
    return [projection.name for projection in changed]


def version(session: Session) -> int:
    """A number that grows whenever any projection changes: the ETag of what is shown."""
    return session.scalar(select(func.coalesce(func.sum(projection_table.c.version), 0))) or 0


def stalls(session: Session) -> Sequence[Any]:
    """Where a projection stands still: projection, town, seq, reason."""
    query = select(projection_cursor).where(projection_cursor.c.stalled_at.is_not(None))
    return session.execute(query.order_by(projection_cursor.c.town, projection_cursor.c.projection)).all()


def retry_stalls(session: Session, projection_names: Iterable[str]) -> int:
    """Let these projections try again where they stand still; returns how many logs. The next `apply` goes on before what failed.

    For when the handler was mended: at a worker's start, and by an operator's hand. What still fails stalls again.
    """
    stalled = projection_cursor.c.projection.in_(list(projection_names)) & projection_cursor.c.stalled_at.is_not(None)
    freed = session.execute(update(projection_cursor).where(stalled).values(stalled_at=None, reason=""))
    return int(freed.rowcount)  # type: ignore[attr-defined]  # an update gives a cursor result

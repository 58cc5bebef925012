"""Projections: read models that are folded from what other logs told us. Any of them can be dropped and folded again.

`apply` hands what is stored to the handlers, in the order of each log, and moves each projection's cursor in the transaction that
changes its tables, so that it happens exactly once to the eye (I8) and never backwards (I9). A handler says what rows an event
leaves behind; because every entity event carries its whole state, rows are only *put* or *dropped*, doing it twice changes nothing,
and a batch becomes one statement per table. A handler that fails stalls that projection for that town, visibly, and never skips
(I11). A type that is unknown here is kept, counted and passed over.

Only a town's present **settled** epoch is folded, as far as it counts. When a new one settles, or the association revokes a key at
a place that was folded already, the town's rows are dropped and folded anew in one transaction: to readers, the commit is the swap.
`rebuild` does the same with everything.

Tables: `projection` (what each was folded with), `projection_cursor` (per projection and town).
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, Column, Index, String, Table, Text, delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from shared.db import Base, upsert
from shared.envelope import read_event, stored_entry
from shared.events import Event, Redacted
from shared.inbox import KOEPEL, inbox, inbox_cursor
from shared.observability import facts, failpoint
from shared.pins import cut_off, epoch_order

log = logging.getLogger(__name__)

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


class Rows:
    """The rows a batch of events leaves behind, gathered per table; the last word on a key wins."""

    def __init__(self) -> None:
        self._tables: dict[Table, dict[tuple[Any, ...], dict[str, Any] | None]] = defaultdict(dict)

    def put(self, model: Any, **values: Any) -> None:
        """This row is there, so. Every column that has no default is named."""
        table = _table(model)
        self._tables[table][tuple(values[column.key] for column in table.primary_key)] = values

    def drop(self, model: Any, **key: Any) -> None:
        """No row with this key."""
        table = _table(model)
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
    Rows that belong to a town have its slug in a column `town`; where the key is (town, code), an erasure finds them by itself.
    """

    name: str
    tables: Sequence[Any]
    handlers: dict[type[Event], Handler] = field(default_factory=dict)
    told_by_others: Sequence[Any] = ()
    """Tables whose `town` is whom the row is about, and not who told it: a town's new epoch leaves them alone."""

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

    def drop_town(self, session: Session, town: str) -> None:
        """Take out everything that this town's log left here."""
        for table in map(_table, self.tables):
            if "town" in table.columns and table not in map(_table, self.told_by_others):
                session.execute(delete(table).where(table.columns["town"] == town))

    def erase(self, session: Session, town: str, subject: str) -> None:
        """Take out what was told about a subject by its town; by any town, when the association says so."""
        for table in map(_table, self.tables):
            key = table.primary_key.columns.keys()
            if len(key) == 2 and key[0] == "town" and isinstance(table.columns[key[1]].type, String):  # not a day
                whose = () if town == KOEPEL else (table.columns["town"] == town,)
                session.execute(delete(table).where(table.columns[key[1]] == subject, *whose))


def _table(model: Any) -> Table:
    table: Table = model.__table__ if hasattr(model, "__table__") else model
    return table


# ---- Apply -----------------------------------------------------------------------------------------------------------------

APPLY_MAX = 2000
"""Entries of one log that are folded in one transaction."""
Read = tuple[int, Event | None, Exception | None]
"""A place in a log, and what happened there; None if that was erased or is unknown here; or why it cannot be read."""


@dataclass
class _Stand:
    """Where a projection goes on in a town's log.

    `swaps`: what it shows, up to the place `shown`, is of an older epoch or counts no longer, so it begins anew.
    """

    epoch: str
    seq: int
    stalled: bool
    swaps: bool = False
    shown: int = 0


def apply(session: Session, projections: Sequence[Projection], limit: int = APPLY_MAX) -> int:
    """Fold the next stored entries into the projections, at most so many per log; returns how many entries were looked at.

    A projection that somebody is rebuilding is left alone until that is committed: its old cursors say nothing any more.
    """
    projections = _not_rebuilt_elsewhere(session, projections)
    mine = projection_cursor.c.projection.in_([projection.name for projection in projections])
    cursors = session.execute(select(projection_cursor).where(mine).with_for_update()) if projections else ()
    held = {(row.projection, row.town): row for row in cursors}
    looked = 0
    rows = {projection.name: Rows() for projection in projections}
    moved: dict[tuple[str, str], dict[str, Any]] = {}
    for town, epoch, last, whole in _logs(session):
        stands = [(projection, _stand(held.get((projection.name, town)), epoch, last)) for projection in projections]
        here = [(projection, stand) for projection, stand in stands if not stand.stalled and (stand.seq < last or stand.swaps)]
        if not here:
            continue
        many = max(limit, whole) if any(stand.swaps for _, stand in here) else limit
        entries = _stored(session, town, epoch, min(stand.seq for _, stand in here), last, many)
        looked += len(entries)
        for projection, stand in here:
            fresh = [entry for entry in entries if entry[0] > stand.seq]
            if fresh or stand.swaps:
                moved[projection.name, town] = _fold(session, projection, rows[projection.name], town, epoch, stand, fresh)
    for gathered in rows.values():
        gathered.save(session)
    upsert(session, projection_cursor, list(moved.values()))
    if moved:
        names = {name for name, _ in moved}
        session.execute(
            update(projection_table).where(projection_table.c.name.in_(names)).values(version=projection_table.c.version + 1)
        )
    return looked


def _not_rebuilt_elsewhere(session: Session, projections: Sequence[Projection]) -> list[Projection]:
    """Those whose row in `projection` is nobody else's, locked; and those that have none yet.

    A statement of its own: on PostgreSQL the next one then sees the cursors as they are after the other's commit, never before.
    """
    name = projection_table.c.name
    mine = select(name).where(name.in_([projection.name for projection in projections])).order_by(name)
    known, free = set(session.scalars(mine)), set(session.scalars(mine.with_for_update(skip_locked=True)))
    return [projection for projection in projections if projection.name in free or projection.name not in known]


def _logs(session: Session) -> list[tuple[str, str, int, int]]:
    """For each town the epoch to fold, its last place that counts, and up to which place it is swapped in as a whole.

    That is its latest settled epoch. One that the association cut off before it had settled counts for nothing.
    """
    query = (
        select(*epoch_order.c, inbox_cursor.c.epoch.label("open"), inbox_cursor.c.seq, cut_off.c.last.label("counts_to"))
        .join(inbox_cursor, inbox_cursor.c.town == epoch_order.c.town)
        .outerjoin(cut_off, (cut_off.c.town == epoch_order.c.town) & (cut_off.c.epoch == epoch_order.c.epoch))
        .where(epoch_order.c.settled.is_not(None))
        .order_by(epoch_order.c.number, epoch_order.c.epoch)
    )
    present: dict[str, Any] = {}
    for row in session.execute(query):
        if row.counts_to is None or row.settled <= row.counts_to or row.town not in present:
            present[row.town] = row
    logs = []
    for town, row in present.items():
        last = row.seq
        if row.open != row.epoch:  # a newer epoch is arriving, and not settled yet
            place = inbox.c.town == town, inbox.c.epoch == row.epoch
            last = session.scalar(select(func.max(inbox.c.seq)).where(*place)) or 0
        if row.counts_to is None:
            logs.append((town, row.epoch, last, row.settled))
        else:
            last = min(last, row.counts_to) if row.settled <= row.counts_to else 0
            logs.append((town, row.epoch, last, last))
    return logs


def _stand(row: Any, epoch: str, last: int) -> _Stand:
    if row is None:
        return _Stand(epoch, 0, stalled=False)
    stalled = row.stalled_at is not None
    if row.epoch != epoch:
        return _Stand(row.epoch, 0, stalled, swaps=True, shown=row.seq)
    if row.seq > last or (stalled and row.stalled_at > last):
        return _Stand(epoch, 0, stalled and row.stalled_at <= last, swaps=True, shown=row.seq)
    return _Stand(epoch, row.seq, stalled)


def _stored(session: Session, town: str, epoch: str, after: int, last: int, limit: int) -> list[Read]:
    query = (
        select(inbox.c.seq, inbox.c.header, inbox.c.hash, inbox.c.signature, inbox.c.salt, inbox.c.body)
        .where(inbox.c.town == town, inbox.c.epoch == epoch, inbox.c.seq > after, inbox.c.seq <= last)
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


def _fold(
    session: Session, projection: Projection, rows: Rows, town: str, epoch: str, stand: _Stand, fresh: Sequence[Read]
) -> dict[str, Any]:
    """Hand the events to their handlers in order; the cursor that results, stalled before the first that failed.

    A swap to a new epoch that stalls leaves the old rows in place: better yesterday's picture than half of today's (I9). What was
    cut off goes in any case.
    """
    effects, seq, stalled = Rows(), stand.seq, None
    cursor = {"projection": projection.name, "town": town, "epoch": epoch, "stalled_at": None, "reason": ""}
    for place, happened, unreadable in fresh:
        try:
            if unreadable is not None:
                raise unreadable
            handler = projection.handlers.get(type(happened)) if happened is not None else None
            if handler is not None:
                effect = Rows()  # apart, so that nothing is left of a handler that fails halfway
                handler(effect, town, happened)
                effects.take(effect)
        except Exception as error:
            log.exception("projection.stalled", extra=facts(projection=projection.name, town=town, seq=place))
            stalled = {"stalled_at": place, "reason": f"{type(error).__name__}: {error}"[:500]}
            break
        if isinstance(happened, Redacted):
            projection.erase(session, town, happened.redacts)
        seq = place
    if stalled is not None and stand.swaps and stand.epoch != epoch:
        return cursor | stalled | {"epoch": stand.epoch, "seq": stand.shown}
    if stand.swaps:
        projection.drop_town(session, town)
    rows.take(effects)
    return cursor | {"seq": seq} | (stalled or {})


# ---- Rebuild ---------------------------------------------------------------------------------------------------------------


def rebuild(session: Session, projections: Sequence[Projection], progress: Callable[[int], None] = lambda _: None) -> None:
    """Fold everything that is stored into emptied tables. Until the commit, readers keep seeing the old rows.

    `progress` hears how many entries were looked at, of `foldable`.
    """
    names = [projection.name for projection in projections]
    mine = projection_table.c.name.in_(names)
    session.execute(select(projection_table.c.name).where(mine).order_by(projection_table.c.name).with_for_update())
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


def foldable(session: Session) -> int:
    """How many entries a rebuild looks at."""
    count = select(func.count()).select_from(inbox)
    return sum(
        session.scalar(count.where(inbox.c.town == town, inbox.c.epoch == epoch, inbox.c.seq <= last)) or 0
        for town, epoch, last, _ in _logs(session)
    )


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


def retry_stalls(session: Session, projection_names: Iterable[str], town: str | None = None) -> int:
    """Let these projections try again where they stand still, for all towns or one; returns how many logs.

    The next `apply` goes on before what failed.

    For when the handler was mended: at a worker's start, and by an operator's hand. What still fails stalls again.
    """
    stalled = projection_cursor.c.projection.in_(list(projection_names)) & projection_cursor.c.stalled_at.is_not(None)
    if town is not None:
        stalled &= projection_cursor.c.town == town
    freed = session.execute(update(projection_cursor).where(stalled).values(stalled_at=None, reason=""))
    return int(freed.rowcount)  # type: ignore[attr-defined]  # an update gives a cursor result

"""Projections: read models that are folded from what other logs told us. Any of them can be dropped and folded again.

`apply` hands what is stored to the handlers, in the order of each log, and moves each projection's cursor in the transaction that
changes its tables, so that it happens exactly once to the eye (I8) and never backwards (I9). A handler says what rows an event
leaves behind; because every entity event carries its whole state, rows are only *put* or *dropped*, doing it twice changes nothing,
and a batch becomes one statement per table. A handler that fails stalls that projection for that town, visibly, and never skips
(I11). A type that is unknown here is kept, counted and passed over.

**What is shown of a town is its latest settled epoch whose beginning, up to where it settled, folds as a whole: as far as it counts
and up to the first place that fails. If none does, it is the oldest of them, up to there.** Nothing else decides it, so `rebuild`
comes to the same (I17). When another epoch is to be shown, the association revokes a key at a place that was folded already, or an
entry comes in below such a place (a feed had kept it back), the town's rows are dropped and folded anew in one transaction: to
readers, the commit is the swap. While a new epoch's beginning fails,
the one before it goes on: better yesterday's picture than half of today's (I9).

What was erased is shown nowhere, however far a projection has come: the inbox says which subjects these are, and their rows go with
the next `apply`.

Tables: `projection` (what each was folded with), `projection_cursor` (per projection and town), `projection_stall` (per projection
and epoch: which place fails).
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from sqlalchemy import BigInteger, Column, String, Table, Text, delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from shared.db import Base, insert_missing, upsert
from shared.envelope import read_event, stored_entry
from shared.events import Event
from shared.inbox import EVERYWHERE, erased, inbox, inbox_cursor
from shared.observability import facts, failpoint
from shared.pins import cut_off, epoch_order

log = logging.getLogger(__name__)

projection_table = Table(
    "projection",
    Base.metadata,
    Column("name", String(40), primary_key=True),
    Column("folded_with", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("erased", BigInteger, nullable=False, default=0, server_default="0"),
)
"""`erased`: of how many erasures the rows are gone; none is ever taken back."""
projection_cursor = Table(
    "projection_cursor",
    Base.metadata,
    Column("projection", String(40), primary_key=True),
    Column("town", String(40), primary_key=True),
    Column("epoch", String(40), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("filled", BigInteger, nullable=False, default=0, server_default="0"),
)
"""`filled`: how many late entries the inbox held when the town was folded from the beginning."""
projection_stall = Table(
    "projection_stall",
    Base.metadata,
    Column("projection", String(40), primary_key=True),
    Column("town", String(40), primary_key=True),
    Column("epoch", String(40), primary_key=True),
    Column("stalled_at", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)
"""The first place of an epoch that fails. It is not tried again until `retry_stalls`, or until something was erased."""


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

    def forget_erased(self, session: Session) -> None:
        """Take out what was told about the subjects that are erased: by their town, or by any when the association says so."""
        everywhere = select(erased.c.subject).where(erased.c.town == EVERYWHERE)
        for table in map(_table, self.tables):
            key = table.primary_key.columns.values()
            if len(key) == 2 and key[0].name == "town" and isinstance(key[1].type, String):  # not a day
                session.execute(delete(table).where(tuple_(*key).in_(select(erased.c.town, erased.c.subject))))
                session.execute(delete(table).where(key[1].in_(everywhere)))


def _table(model: Any) -> Table:
    table: Table = model.__table__ if hasattr(model, "__table__") else model
    return table


# ---- Apply -----------------------------------------------------------------------------------------------------------------

APPLY_MAX = 2000
"""Entries of one log that are folded in one transaction."""
Read = tuple[int, Event | None, Exception | None]
"""A place in a log, and what happened there; None if that was erased or is unknown here; or why it cannot be read."""


def apply(session: Session, projections: Sequence[Projection], limit: int = APPLY_MAX) -> int:
    """Fold the next stored entries into the projections, at most so many per log; returns how many entries were looked at.

    A projection that somebody is rebuilding is left alone until that is committed: its old cursors say nothing any more.
    """
    projections = _not_rebuilt_elsewhere(session, projections)
    _forget_erased(session, projections)
    work = _Round(session, projections, limit)
    for epochs in _epochs(session):
        work.bring_up_to_date(epochs)
    work.save()
    return work.looked


def _not_rebuilt_elsewhere(session: Session, projections: Sequence[Projection]) -> list[Projection]:
    """Those whose row in `projection` is nobody else's, locked; and those that have none yet, which get one.

    A statement of its own: on PostgreSQL the next one then sees the cursors as they are after the other's commit, never before.
    """
    name = projection_table.c.name
    mine = select(name).where(name.in_([projection.name for projection in projections])).order_by(name)
    known, free = set(session.scalars(mine)), set(session.scalars(mine.with_for_update(skip_locked=True)))
    new = [projection for projection in projections if projection.name not in known]
    insert_missing(session, projection_table, [{"name": one.name, "folded_with": "", "version": 0} for one in new])
    return [projection for projection in projections if projection.name in free or projection in new]


def _forget_erased(session: Session, projections: Sequence[Projection]) -> None:
    """Where more was erased than last time, take it out, and try again what stood still: it may have stood on that.

    The number is read before anything else: what is erased meanwhile is more than it, and comes next time.
    """
    count = select(func.count()).select_from(erased).scalar_subquery()
    known = dict(session.execute(select(projection_table.c.name, count).where(projection_table.c.erased != count)).all())
    for projection in projections:
        if projection.name in known:
            projection.forget_erased(session)
            retry_stalls(session, [projection.name])
            here = projection_table.c.name == projection.name
            session.execute(
                update(projection_table).where(here).values(erased=known[projection.name], version=projection_table.c.version + 1)
            )


def _epochs(session: Session) -> Iterable[list[Any]]:
    """For each town its settled epochs, the latest first.

    One that the association cut off before it had settled counts for nothing; if there is no other, nothing of it is shown.
    """
    query = (
        select(
            *(*epoch_order.c, inbox_cursor.c.epoch.label("open"), inbox_cursor.c.seq, inbox_cursor.c.filled),
            cut_off.c.last.label("counts_to"),
        )
        .join(inbox_cursor, inbox_cursor.c.town == epoch_order.c.town)
        .outerjoin(cut_off, (cut_off.c.town == epoch_order.c.town) & (cut_off.c.epoch == epoch_order.c.epoch))
        .where(epoch_order.c.settled.is_not(None))
        .order_by(epoch_order.c.town, epoch_order.c.number.desc(), epoch_order.c.epoch.desc())
    )
    for _, of_town in groupby(session.execute(query).all(), key=lambda row: row.town):
        epochs = list(of_town)
        yield [row for row in epochs if row.counts_to is None or row.settled <= row.counts_to] or epochs[-1:]


def _last(session: Session, run: Any) -> int:
    """The last place of an epoch that is held and counts."""
    if run.counts_to is not None and run.counts_to < run.settled:
        return 0
    if run.open == run.epoch:
        last = int(run.seq)
    else:  # a newer epoch is arriving, or was shown before
        last = session.scalar(select(func.max(inbox.c.seq)).where(inbox.c.town == run.town, inbox.c.epoch == run.epoch)) or 0
    return last if run.counts_to is None else min(last, int(run.counts_to))


class _Round:
    """One transaction's folding: how far each projection has come, what is known to fail, and the rows that are to be written."""

    def __init__(self, session: Session, projections: Sequence[Projection], limit: int) -> None:
        self.session, self.projections, self.limit, self.looked = session, projections, limit, 0
        names = [projection.name for projection in projections]
        held, failing = (
            session.execute(select(table).where(table.c.projection.in_(names)).with_for_update()).all() if names else []
            for table in (projection_cursor, projection_stall)
        )
        self.cursors = {(row.projection, row.town): row for row in held}
        self.stalls = {(row.projection, row.town, row.epoch): dict(row._mapping) for row in failing}  # noqa: SLF001  # SQLAlchemy's public name
        self.standing: dict[tuple[str, str, str], dict[str, Any]] = {}
        """The stalls that still matter, the new ones among them."""
        self.rows = {name: Rows() for name in names}
        self.moved: dict[tuple[str, str], dict[str, Any]] = {}

    def bring_up_to_date(self, epochs: Sequence[Any]) -> None:
        """Go on with what is shown of a town, whose epochs these are: an older one where the beginning of each later one fails."""
        left = self.projections
        for run in epochs:
            left = self._show(run, left, whole=run.settled if run is not epochs[-1] else 0)
            if not left:
                break

    def _show(self, run: Any, projections: Sequence[Projection], whole: int) -> list[Projection]:
        """Show this epoch in these projections, and go on with it; those in which it fails up to the place `whole`."""
        last, many, present = _last(self.session, run), self.limit, (run.epoch, run.filled)
        failing: list[Projection] = []
        behind: list[tuple[Projection, int | None]] = []  # with the place that is folded already; None if it begins anew
        for projection in projections:
            place = (projection.name, run.town, run.epoch)
            shown, stall = self.cursors.get(place[:2]), self.stalls.get(place)
            if shown is not None and shown.filled != run.filled:
                stall = None  # what came late may fail before it, or mend it
            done = shown.seq if shown is not None and (shown.epoch, shown.filled) == present and shown.seq <= last else None
            if stall is not None and stall["stalled_at"] <= (whole if done is None else last):
                self.standing[place] = stall
                if stall["stalled_at"] <= whole:
                    failing.append(projection)
            elif done is None or done < last:
                behind.append((projection, done))
                if done is None:  # what is shown changes in one go
                    many = max(many, whole if shown is None else last)
        if behind:
            entries = _stored(self.session, run.town, run.epoch, min(done or 0 for _, done in behind), last, many)
            self.looked += len(entries)
            failing += [projection for projection, done in behind if not self._go_on(projection, run, done, entries, whole)]
        return failing

    def _go_on(self, projection: Projection, run: Any, done: int | None, entries: Sequence[Read], whole: int) -> bool:
        """Fold what comes after the place `done` and let it be shown, unless this fails up to the place `whole`; whether it is."""
        fresh = [entry for entry in entries if entry[0] > (done or 0)]
        effects, reached, stall = _fold(projection, run.town, fresh)
        whose = {"projection": projection.name, "town": run.town, "epoch": run.epoch}
        if stall is not None:
            self.standing[projection.name, run.town, run.epoch] = whose | stall
            if stall["stalled_at"] <= whole:
                return False
        if done is None:
            projection.drop_town(self.session, run.town)
        self.rows[projection.name].take(effects)
        if done is None or reached:
            self.moved[projection.name, run.town] = whose | {"seq": reached, "filled": run.filled}
        return True

    def save(self) -> None:
        """Write it all."""
        for gathered in self.rows.values():
            gathered.save(self.session)
        upsert(self.session, projection_cursor, list(self.moved.values()))
        gone = self.stalls.keys() - self.standing.keys()
        if gone:
            self.session.execute(delete(projection_stall).where(tuple_(*projection_stall.primary_key.columns).in_(sorted(gone))))
        upsert(self.session, projection_stall, [row for place, row in self.standing.items() if row is not self.stalls.get(place)])
        if self.moved:
            here = projection_table.c.name.in_({name for name, _ in self.moved})
            self.session.execute(update(projection_table).where(here).values(version=projection_table.c.version + 1))


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


def _fold(projection: Projection, town: str, fresh: Sequence[Read]) -> tuple[Rows, int, dict[str, Any] | None]:
    """Hand the events to their handlers in order: what they leave, the last place that was folded, and where and why it fails."""
    effects, reached = Rows(), 0
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
            return effects, reached, {"stalled_at": place, "reason": f"{type(error).__name__}: {error}"[:500]}
        reached = place
    return effects, reached, None


# ---- Rebuild ---------------------------------------------------------------------------------------------------------------


def rebuild(session: Session, projections: Sequence[Projection], progress: Callable[[int], None] = lambda _: None) -> None:
    """Fold everything that is stored into emptied tables. Until the commit, readers keep seeing the old rows.

    `progress` hears how many entries were looked at, of `foldable`.
    """
    names = [projection.name for projection in projections]
    mine = projection_table.c.name.in_(names)
    session.execute(select(projection_table.c.name).where(mine).order_by(projection_table.c.name).with_for_update())
    for place in (projection_cursor, projection_stall):
        session.execute(delete(place).where(place.c.projection.in_(names)))
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
    """How many entries a rebuild looks at, when no epoch's beginning fails."""
    count = select(func.count()).select_from(inbox)
    return sum(
        session.scalar(count.where(inbox.c.town == run.town, inbox.c.epoch == run.epoch, inbox.c.seq <= _last(session, run))) or 0
        for run, *_ in _epochs(session)
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
    """Where a projection stands still for a town: projection, town, epoch, stalled_at, reason.

    Of several epochs the latest: when that goes on, those before it are not shown any more.
    """
    here = (epoch_order.c.town == projection_stall.c.town) & (epoch_order.c.epoch == projection_stall.c.epoch)
    query = select(projection_stall).join(epoch_order, here).order_by(epoch_order.c.number, epoch_order.c.epoch)
    latest = {(row.town, row.projection): row for row in session.execute(query)}
    return [latest[place] for place in sorted(latest)]


def retry_stalls(session: Session, projection_names: Iterable[str], town: str | None = None) -> int:
    """Let these projections try again where they stand still, for all towns or one; returns how many places that were.

    The next `apply` goes on before what failed.

    For when the handler was mended: at a worker's start, and by an operator's hand. What still fails stalls again.
    """
    whose = () if town is None else (projection_stall.c.town == town,)
    freed = session.execute(delete(projection_stall).where(projection_stall.c.projection.in_(list(projection_names)), *whose))
    return int(freed.rowcount)  # type: ignore[attr-defined]  # a delete gives a cursor result

"""How far each town is in sync: what the association holds of its log, what it said last about itself, and what stands still."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.hub.towns.joining import Town
from shared.heads import known_head
from shared.inbox import inbox_cursor
from shared.pins import epoch_order, pin
from shared.projections import stalls
from shared.quarantine import count_quarantine

QUIET_AFTER = timedelta(days=1)
"""A node calls every five minutes at least; one that has not for a day is off, or cut off."""
GONE_AFTER = timedelta(days=30)
"""Silent for so long, a town counts as gone: the association may then speak for it where the law asks it to."""

State = Literal["left", "frozen", "asking", "invited", "keyless", "stalled", "silent", "behind", "well"]
"""What a reader should know first; the earlier ones matter more."""


@dataclass(frozen=True)
class InSync:
    """One town. `lag` is None until it called, `waiting_since` unless something of it is still to come."""

    town: str
    name: str
    joined_at: datetime | None
    last_heard: datetime | None
    cursor: int
    lag: int | None
    stalled: list[str]
    """The views that stand still for this town."""
    waiting_since: datetime | None
    frozen_at: datetime | None
    trouble: str
    epoch: int
    """Which run of numbers it is in, counted from 1; 0 before its first event."""
    key_id: str | None
    """The short name of the key that counts; None when none does."""
    asking: str | None
    """The short name of a key that waits to be let in."""
    asked_at: datetime | None
    code_until: datetime | None
    """Until when its code works, or worked; None when there is no code to be used."""
    refused: int
    """Messages in its name that were refused since somebody looked."""
    left_at: datetime | None

    def state(self, now: datetime) -> State:
        """What a reader should know first."""
        ranked: tuple[tuple[State, object], ...] = (
            ("left", self.left_at),
            ("frozen", self.frozen_at),
            ("asking", self.asking),
            ("invited", self.joined_at is None),
            ("keyless", self.key_id is None),
            ("stalled", self.stalled),
            ("silent", self.is_silent(now, QUIET_AFTER)),
            ("behind", self.lag),
        )
        return next((state for state, holds in ranked if holds), "well")

    def is_silent(self, now: datetime, since: timedelta) -> bool:
        """Whether its node has not called for so long."""
        heard = self.last_heard or self.joined_at
        return heard is not None and now - heard > since

    def is_gone(self, now: datetime) -> bool:
        """Whether nobody can be expected to speak for this town any more."""
        return self.joined_at is not None and (self.left_at is not None or self.key_id is None or self.is_silent(now, GONE_AFTER))


def sync_of_towns(session: Session, towns: Collection[str] | None = None) -> list[InSync]:
    """Every town that may join or has joined, by name; or only these."""
    held, said = inbox_cursor.c, known_head.c
    query = (
        select(
            Town, held.epoch, held.seq, held.heard_at, held.frozen_at, held.trouble,
            said.epoch.label("said_epoch"), said.seq.label("said_seq"), said.called_at, said.behind_at,
            epoch_order.c.number,
        )
        .outerjoin(inbox_cursor, held.town == Town.slug)
        .outerjoin(known_head, said.town == Town.slug)
        .outerjoin(epoch_order, (epoch_order.c.town == Town.slug) & (epoch_order.c.epoch == held.epoch))
        .order_by(Town.name, Town.slug)
    )  # fmt: skip
    if towns is not None:
        query = query.where(Town.slug.in_(towns))
    stalled: dict[str, list[str]] = {}
    for stall in stalls(session):
        stalled.setdefault(stall.town, []).append(stall.projection)
    refused: dict[str, int] = {}
    for row in count_quarantine(session):
        refused[row.town] = refused.get(row.town, 0) + row.times
    counts = select(pin.c.town, pin.c.key_id).where(pin.c.ends_epoch.is_(None)).order_by(pin.c.pinned_at)
    keys = {row.town: row.key_id for row in session.execute(counts)}
    return [_in_sync(row, stalled, refused, keys) for row in session.execute(query)]


def _in_sync(row: Any, stalled: dict[str, list[str]], refused: dict[str, int], keys: dict[str, str]) -> InSync:
    town: Town = row.Town
    cursor = row.seq or 0
    lag = max(0, row.said_seq - (cursor if row.said_epoch == row.epoch else 0)) if row.called_at else None
    since = max((at for at in (row.behind_at, row.heard_at) if at), default=None) if lag and row.behind_at else None
    open_code = town.asked_key is None and (town.joined_at is None or town.anew)
    return InSync(
        town=town.slug, name=town.name, joined_at=town.joined_at, last_heard=row.called_at, cursor=cursor, lag=lag,
        stalled=stalled.get(town.slug, []), waiting_since=since, frozen_at=row.frozen_at, trouble=row.trouble or "",
        epoch=row.number or 0, key_id=keys.get(town.slug), asking=town.asking, asked_at=town.asked_at,
        code_until=town.code_until if open_code else None, refused=refused.get(town.slug, 0), left_at=town.left_at,
    )  # fmt: skip


def read_instances(session: Session, town: str) -> list[str]:
    """The starts of this town's node that called, the latest first."""
    row = session.execute(select(known_head.c.instance, known_head.c.earlier).where(known_head.c.town == town)).first()
    return [each for each in (row.instance, *row.earlier) if each] if row else []


def read_epochs(session: Session, town: str) -> Sequence[Any]:
    """The town's runs of numbers, the latest first: number, opened_at, settled."""
    return session.execute(select(epoch_order).where(epoch_order.c.town == town).order_by(epoch_order.c.number.desc())).all()


def read_keys(session: Session, town: str) -> Sequence[Any]:
    """The town's keys, the latest first, with the place where each ended."""
    return session.execute(select(pin).where(pin.c.town == town).order_by(pin.c.pinned_at.desc(), pin.c.key_id)).all()


def left_towns(session: Session) -> dict[str, datetime]:
    """The towns that left, and when."""
    return {town.slug: town.left_at for town in session.scalars(select(Town).where(Town.left_at.is_not(None))) if town.left_at}

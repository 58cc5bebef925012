"""How far each town is in sync: what the association holds of its log, and what the town said last about itself."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.hub.towns.joining import Town
from shared.heads import known_head
from shared.inbox import inbox_cursor
from shared.projections import stalls


@dataclass(frozen=True)
class InSync:
    """One town. `lag` is None until it called."""

    town: str
    name: str
    joined_at: datetime | None
    last_heard: datetime | None
    cursor: int
    lag: int | None
    stalled: list[str]
    """The views that stand still for this town."""


def sync_of_towns(session: Session, towns: Collection[str] | None = None) -> list[InSync]:
    """Every town that may join or has joined, by name; or only these."""
    query = (
        select(Town, inbox_cursor.c.seq.label("held"), known_head.c.seq.label("head"), known_head.c.called_at)
        .outerjoin(inbox_cursor, inbox_cursor.c.town == Town.slug)
        .outerjoin(known_head, known_head.c.town == Town.slug)
        .order_by(Town.name, Town.slug)
    )
    if towns is not None:
        query = query.where(Town.slug.in_(towns))
    stalled: dict[str, list[str]] = {}
    for stall in stalls(session):
        stalled.setdefault(stall.town, []).append(stall.projection)
    return [
        InSync(
            row.Town.slug,
            row.Town.name,
            row.Town.joined_at,
            row.called_at,
            row.held or 0,
            max(0, row.head - (row.held or 0)) if row.called_at else None,
            stalled.get(row.Town.slug, []),
        )
        for row in session.execute(query)
    ]

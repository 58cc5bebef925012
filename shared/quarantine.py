"""Quarantine: what failed verification is kept, so that somebody can look at it, and so that the town can be told (I11, I12).

Nothing here is ever folded or forwarded. It is capped, because whoever can reach the bus could fill a disk with rubbish: per town
at most `KEPT_MAX` messages and `BYTES_MAX` bytes, and `HOURLY_MAX` in an hour; beyond that only the count goes on. The town that a
message names is a claim; what names no town known here shares one cap under the empty name.

Tables: `quarantine` (what is kept), `quarantine_count` (per town and reason, how often and when last).
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text, delete, func, select, update
from sqlalchemy.orm import Session

from shared.db import Base, Moment
from shared.language import N_

KEPT_MAX, BYTES_MAX, HOURLY_MAX = 100, 4 * 1024 * 1024, 30

quarantine = Table(
    "quarantine",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("town", String(40), nullable=False),
    Column("verdict", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Column("came_at", Moment, nullable=False),
    Column("size", Integer, nullable=False),
    Column("message", LargeBinary, nullable=False),
    Index("ix_quarantine_town_came", "town", "came_at"),
)
quarantine_count = Table(
    "quarantine_count",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("verdict", String(20), primary_key=True),
    Column("times", BigInteger, nullable=False),
    Column("first_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
)

_SHORT = tuple(column for column in quarantine.c if column.name != "message")

REASONS = {
    "malformed": N_("It is no message of ours"),
    "unknown_key": N_("Signed with a key that is not this town's"),
    "ended_key": N_("Signed with a key that counts no longer"),
    "bad_signature": N_("The signature does not fit"),
    "broken_chain": N_("It does not continue what the town told before"),
    "forked": N_("Another history than the one that is held"),
    "frozen": N_("The town stands still"),
    "other_epoch": N_("It belongs to a run of numbers that was closed"),
}
"""Each reason in a few words."""
ADVICE = {
    "malformed": N_("These bytes are no message of ours. Something else writes to the bus, or a program is out of date."),
    "unknown_key": N_(
        "It is signed with a key that is not this town's. If the town has a new key, it must join again with a code."
    ),
    "ended_key": N_("It is signed with a key that no longer counts. If the town still uses it, it must join again with a code."),
    "bad_signature": N_("It was changed on the way, or somebody pretends to be this town. The true message comes again by itself."),
    "broken_chain": N_("It does not continue what this town told before. The node compares its log with ours and comes back."),
    "forked": N_("This town told two different things at one place. Probably it was put back from a backup, or runs twice."),
    "frozen": N_("This town stands still until the association has decided what happened."),
    "other_epoch": N_("It belongs to a run of numbers that this town closed. It can be thrown away."),
}
"""What each reason means, and what to do; shown to the association, and to the town it claims to be from."""


def quarantine_message(
    session: Session, town: str, verdict: str, reason: str, raw: bytes, now: datetime, hides: Callable[[Session, bytes], bool]
) -> bool:
    """Keep this message, unless the town's share is full; count it in any case. Returns whether it was kept.

    `hides`: whether it speaks of something that was erased. Then only is kept that it came (I18).
    """
    changed = session.execute(
        update(quarantine_count)
        .where(quarantine_count.c.town == town, quarantine_count.c.verdict == verdict)
        .values(times=quarantine_count.c.times + 1, last_at=now)
    )
    if not changed.rowcount:  # type: ignore[attr-defined]  # an update gives a cursor result
        first = {"town": town, "verdict": verdict, "times": 1, "first_at": now, "last_at": now}
        session.execute(quarantine_count.insert(), first)
    held = session.execute(
        select(
            func.count(),
            func.coalesce(func.sum(quarantine.c.size), 0),
            func.count().filter(quarantine.c.came_at > now - timedelta(hours=1)),
        ).where(quarantine.c.town == town)
    ).one()
    if held[0] >= KEPT_MAX or held[1] + len(raw) > BYTES_MAX or held[2] >= HOURLY_MAX:
        return False
    kept = b"" if hides(session, raw) else raw
    row = {"town": town, "verdict": verdict, "reason": reason[:500], "came_at": now, "size": len(kept), "message": kept}
    session.execute(quarantine.insert(), row)
    return True


def complaints_about(session: Session, town: str) -> list[dict[str, Any]]:
    """What to tell a town in the next head exchange: per reason how often, and when last."""
    rows = session.execute(
        select(quarantine_count).where(quarantine_count.c.town == town).order_by(quarantine_count.c.last_at.desc()).limit(10)
    )
    return [{"verdict": row.verdict, "times": row.times, "last_at": int(row.last_at.timestamp())} for row in rows]


def read_quarantine(
    session: Session, limit: int = 200, *, town: str | None = None, verdict: str = "", before: int = 0
) -> Sequence[Any]:
    """What is kept, newest first, without the bytes; of one town, for one reason, or from before one message on."""
    query = select(*_SHORT).order_by(quarantine.c.id.desc()).limit(limit)
    if town is not None:
        query = query.where(quarantine.c.town == town)
    if verdict:
        query = query.where(quarantine.c.verdict == verdict)
    if before:
        query = query.where(quarantine.c.id < before)
    return session.execute(query).all()


def read_refused(session: Session, message: int) -> Any:
    """One of them, with its bytes as `message`; None when it is not kept (any more)."""
    return session.execute(select(*_SHORT, quarantine.c.message).where(quarantine.c.id == message)).first()


def count_quarantine(session: Session, town: str | None = None) -> Sequence[Any]:
    """How often each town was refused for each reason since somebody looked, whether it was kept or not."""
    query = select(quarantine_count).order_by(quarantine_count.c.town, quarantine_count.c.verdict)
    return session.execute(query if town is None else query.where(quarantine_count.c.town == town)).all()


def clear_quarantine(session: Session, town: str) -> None:
    """Somebody looked at it: throw away what is kept of this town, and begin to count anew."""
    session.execute(delete(quarantine).where(quarantine.c.town == town))
    session.execute(delete(quarantine_count).where(quarantine_count.c.town == town))


def erase_from_quarantine(session: Session, gone: Sequence[tuple[str | None, str]]) -> None:
    """An erasure reaches what is kept here too (I18): (town, or None for any; subject), looked for in one go.

    What names no known town is looked through as well: its claim may have been true.
    """
    if not gone:
        return
    for row in session.execute(select(quarantine.c.id, quarantine.c.town, quarantine.c.message)).all():
        kept = bytes(row.message)
        if any(row.town in {town, ""} or town is None for town, subject in gone if subject.encode() in kept):
            session.execute(update(quarantine).where(quarantine.c.id == row.id).values(message=b"", size=0))

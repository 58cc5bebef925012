"""Erasing for good what the circle told about something: here, at the association and in the other towns (I18, R34).

To withdraw is to take a thing off every list; the logs still hold its words. To erase is to let nobody hold them any more: the
thing leaves the circle's own tables with all that hangs on it, the log keeps the places and loses the words, and `redacted` asks
the association and the other towns to do the same (`shared/erasure.py`). The worker writes the erasure into the list beside the
database, which erases again when a backup is put back, and cleans the database's files.

A circle that works alone erases in the same way; there is nobody else to ask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.town_node.circle.membership import membership
from services.town_node.home.slices import forget
from services.town_node.home.sync import Glance, glance, kind_of, moment
from services.town_node.initiatives.model import Initiative
from services.town_node.lessons.library import PROJECTIONS
from services.town_node.lessons.model import Lesson
from services.town_node.meetings.model import Meeting
from shared.db import Database
from shared.erasure import EVERYWHERE, ErasureList, erasures_of, redact, replay
from shared.eventlog import headers_about
from shared.events import Redacted
from shared.refusals import NotFound

ALONE = "-"
"""Whose erasures these are while the circle works alone; no town can be called so."""
ERASABLE: dict[str, Any] = {"lesson": Lesson, "initiative": Initiative, "meeting": Meeting}


def find(session: Session, kind: str, code: str) -> Any:
    """The thing to be erased; also one that was withdrawn or cancelled. Raises `NotFound`."""
    cls = ERASABLE.get(kind)
    thing = session.get(cls, code) if cls is not None and code.isprintable() else None  # PostgreSQL refuses NUL in a text
    if thing is None:
        raise NotFound
    return thing


def erase(session: Session, kind: str, code: str, now: datetime) -> None:
    """Erase this thing everywhere. It cannot be undone. Raises `NotFound`."""
    find(session, kind, code)
    joined = membership(session)
    forget(session, code, now)
    redact(session, joined.town if joined else ALONE, code)


def erase_again(database: Database, kept: ErasureList, now: datetime) -> None:
    """Erase again what a backup brought back. Call it before the database serves anybody; it may be cut off and done twice."""
    with database.transaction() as session:
        seen = glance(session)
        for town, subject in sorted(kept.read()):
            if town in {seen.town, ALONE}:
                forget(session, subject, now)
    replay(database, kept, PROJECTIONS, own={seen.town, ALONE, EVERYWHERE})  # last, because it cleans the files


@dataclass(frozen=True)
class Erasure:
    """Something that was erased: what kind of thing it was, when, and who has confirmed it.

    `place` is the number in the log of the asking; None where nothing had left the town.
    """

    subject: str
    kind: str
    at: datetime | None
    place: int | None
    association: bool
    everywhere: bool


def read_erasures(session: Session) -> list[Erasure]:
    """What this circle erased, the latest first."""
    seen = glance(session)
    found = [_erasure(session, seen, subject) for subject in erasures_of(session, {seen.town or ALONE, ALONE})]
    return sorted(found, key=lambda one: (one.at is not None, one.at.timestamp() if one.at else 0.0, one.subject), reverse=True)


def _erasure(session: Session, seen: Glance, subject: str) -> Erasure:
    entries = headers_about(session, subject)
    asked = next((says for says in reversed(entries) if says.type == Redacted.wire), None)
    kind = next((kind_of(says.type) for says in entries if kind_of(says.type)), "")
    if asked is None:
        return Erasure(subject, kind, None, None, association=False, everywhere=False)
    heard = seen.heard_epoch == asked.epoch
    return Erasure(
        subject, kind, moment(asked.time), asked.seq,
        association=heard and seen.cursor >= asked.seq,
        everywhere=heard and min(seen.spread, seen.cursor) >= asked.seq,
    )  # fmt: skip


def taken_back(session: Session) -> Sequence[tuple[str, Any]]:
    """(kind, thing) for what is on no list any more, and whose words are still kept."""
    gone = (
        ("lesson", select(Lesson).where(Lesson.withdrawn_on.is_not(None)).order_by(Lesson.withdrawn_on.desc())),
        ("initiative", select(Initiative).where(Initiative.withdrawn_on.is_not(None)).order_by(Initiative.withdrawn_on.desc())),
        ("meeting", select(Meeting).where(Meeting.status == "cancelled").order_by(Meeting.day.desc())),
    )
    return [(kind, thing) for kind, query in gone for thing in session.scalars(query.limit(100))]

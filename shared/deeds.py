"""Who did what: the trail of changes that a site keeps for itself, for a year.

A deed is a row **in the transaction of the change**, so there is one exactly if something changed: `web.transaction` watches the
session while a request that may write is at work, and notes whose it was, which view, and the code of the thing it was about.
Nothing else: no words, no name, no address. Names are looked up when the page is read (`trail.py`), so a person who is erased has
no name there either, and `forget` takes the rows too.

Deeds are no events: they have no type in the vocabulary, so they cannot leave the town (R34). What the command line does is not in
here; who may use it has the database itself.

Table: `deed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, Integer, String, Table, delete, event, insert, or_, select
from sqlalchemy.orm import ORMExecuteState, Session

from shared.db import Base, Moment

KEPT = timedelta(days=366)
PAGE, API = "page", "api"
"""The two ways in."""

deed = Table(
    "deed",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Moment, nullable=False, index=True),
    Column("person", String(40), nullable=False, index=True),
    Column("what", String(80), nullable=False),
    Column("subject", String(80), nullable=False),
    Column("way", String(8), nullable=False),
)


@dataclass(frozen=True)
class Deed:
    """One change. `what` is the view that made it, `subject` the code of the thing it was about, or nothing."""

    id: int
    at: datetime
    person: str
    what: str
    subject: str
    way: str


class Watch:
    """Notices whether a session changes anything, and the code of what it makes."""

    def __init__(self, session: Session) -> None:
        self.made = ""
        self._changed = False
        event.listen(session, "before_flush", self._flushes)
        event.listen(session, "do_orm_execute", self._executes)

    def sees(self, session: Session) -> bool:
        """Whether anything was changed."""
        session.flush()
        return self._changed

    def _flushes(self, session: Session, *_more: Any) -> None:
        changed = session.new or session.deleted or any(session.is_modified(one) for one in session.dirty)
        self._changed = self._changed or bool(changed)
        for one in session.new:
            self.made = self.made or str(getattr(one, "code", None) or getattr(one, "slug", None) or "")

    def _executes(self, state: ORMExecuteState) -> None:
        self._changed = self._changed or state.is_insert or state.is_update or state.is_delete


def note(session: Session, *, person: str, what: str, subject: str, way: str, now: datetime) -> None:
    """Write a deed beside its change."""
    row = {"at": now, "person": person[:40], "what": what[:80], "subject": subject[:80], "way": way}
    session.execute(insert(deed), row)


def read_deeds(session: Session, *, person: str = "", before: int = 0, limit: int = 50) -> Sequence[Deed]:
    """The latest first; of one person, or from before a deed on."""
    query = select(deed).order_by(deed.c.id.desc()).limit(limit)
    if person:
        query = query.where(deed.c.person == person)
    if before:
        query = query.where(deed.c.id < before)
    return [Deed(*row) for row in session.execute(query)]


def forget_old(session: Session, now: datetime) -> None:
    """What is older than a year goes, whenever somebody logs in: everybody does so four times a year at least."""
    session.execute(delete(deed).where(deed.c.at < now - KEPT))


def forget(session: Session, person: str) -> None:
    """Erase what a person did, and what was done about them."""
    session.execute(delete(deed).where(or_(deed.c.person == person, deed.c.subject == person)))

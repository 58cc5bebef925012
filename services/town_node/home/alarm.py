"""The alarm: when nothing has reached the association for a day, the facilitators get one mail, and one when it works again.

`watch` is called every minute by the worker and told the time. It remembers since when something is wrong and how far the
association was then, so that a slow but moving queue is no outage. The mails are rows in the transaction that notes them: each
facilitator gets each of them once, whatever dies in between. A worker that does not run sends no mail; `/readyz`, `/metrics` and
the foot of the pages say so.

Table: `outage` (one row while something is wrong).
"""

import logging
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, Column, Integer, String, Table, delete, select, update
from sqlalchemy.orm import Session

from services.town_node.circle.model import Member
from services.town_node.home.sync import Glance, glance
from shared.db import Base, Moment
from shared.language import _, day_time, ngettext, speak
from shared.mail import queue_mail
from shared.observability import facts

log = logging.getLogger(__name__)

PATIENCE = timedelta(days=1)
"""How long nothing may arrive before somebody is told."""

outage = Table(
    "outage",
    Base.metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("since", Moment, nullable=False),
    Column("epoch", String(40), nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("told_at", Moment),
)


def watch(session: Session, now: datetime, quiet: timedelta, url: str) -> None:
    """Look whether something is wrong, and for how long. `quiet`: how long no answer is nothing to speak of."""
    seen = glance(session)
    before = session.execute(select(outage)).first()
    if before is not None and (_all_well(seen, now, quiet) or _moves(seen, before.epoch, before.received)):
        session.execute(delete(outage))
        if before.told_at is not None:
            log.info("alarm.over", extra=facts(since=before.since))
            _tell_it_works(session, before.since, now, url)
        before = None
    if _all_well(seen, now, quiet):
        return
    if before is None:
        since = seen.answered_at if seen.answered_at is not None and seen.is_quiet(now, quiet) else now
        row = {"one": 1, "since": since, "epoch": seen.epoch or "", "received": seen.received, "told_at": None}
        session.execute(outage.insert(), row)
    told_at, since = (before.told_at, before.since) if before is not None else (None, since)
    if told_at is None and now - since >= PATIENCE:
        session.execute(update(outage).values(told_at=now))
        log.error("alarm.nothing_received", extra=facts(since=since, waiting=seen.waiting, trouble=seen.trouble))
        _tell_nothing_arrives(session, seen, since, now, url)


def _all_well(seen: Glance, now: datetime, quiet: timedelta) -> bool:
    if seen.town is None or seen.left_at is not None:
        return True
    return not (seen.waiting or seen.trouble or seen.setback_at or seen.is_quiet(now, quiet))


def _moves(seen: Glance, epoch: str, received: int) -> bool:
    """Whether the association has received something since."""
    return not seen.trouble and seen.setback_at is None and (seen.epoch != epoch or seen.received > received)


def _facilitators(session: Session) -> list[Member]:
    here = (Member.role == "facilitator", Member.left_on.is_(None), Member.email.is_not(None))
    return list(session.scalars(select(Member).where(*here).order_by(Member.code)))


def _tell_nothing_arrives(session: Session, seen: Glance, since: datetime, now: datetime, url: str) -> None:
    for person in _facilitators(session):
        with speak(person.language):
            what = (
                ngettext("%(n)s change is waiting here.", "%(n)s changes are waiting here.", seen.waiting)
                if seen.waiting
                else _("Nothing is waiting at the moment.")
            )
            text = _(
                "Hello %(name)s,\n\nSince %(since)s nothing of your circle has reached the association. %(what)s\n\n"
                "Nothing is lost, and everything works in your circle. As soon as the association can be reached again, "
                "it goes out by itself. On this page you see what is wrong and what you can do:\n\n%(link)s\n\n"
                "You get this mail once, and another one when it works again.",
                name=person.name,
                since=day_time(since),
                what=what,
                link=f"{url}/sync",
            )
            queue_mail(session, to=person.email or "", subject=_("Nothing reaches the association"), text=text, now=now)


def _tell_it_works(session: Session, since: datetime, now: datetime, url: str) -> None:
    for person in _facilitators(session):
        with speak(person.language):
            text = _(
                "Hello %(name)s,\n\nWhat your circle tells reaches the association again. It had not since %(since)s. "
                "You do not have to do anything.\n\n%(link)s",
                name=person.name,
                since=day_time(since),
                link=f"{url}/sync",
            )
            queue_mail(session, to=person.email or "", subject=_("The association receives everything again"), text=text, now=now)

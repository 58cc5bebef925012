"""Which entries get a national number and so reach the other towns: those whose audience is everybody.

Before it is numbered an entry's own signature is verified: on a feed page it stands without the neighbours that vouched for it
in its message. One that fails is logged and not forwarded. A type this release does not know is not forwarded either: nobody
here can say for whom it is meant.

Table: `forwarded` (how far each log was looked through).
"""

import logging

from sqlalchemy import BigInteger, Column, String, Table, func, select
from sqlalchemy.orm import Session

from shared.db import Base, upsert
from shared.envelope import Entry, signed_by, stored_entry
from shared.events import TownAdmitted, TownReadmitted, event_class
from shared.feed import number_entries
from shared.inbox import ASSOCIATION_SAYS, KOEPEL, inbox, inbox_cursor
from shared.observability import facts
from shared.pins import Pins, epoch_order, read_pins

log = logging.getLogger(__name__)

forwarded = Table(
    "forwarded",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("epoch", String(40), primary_key=True),
    Column("seq", BigInteger, nullable=False),
)


FORWARD_MAX = 500
"""Entries of one log that are looked at in one transaction."""


def forward(session: Session, fresh_id: str, limit: int = FORWARD_MAX) -> int:
    """Number the next entries, at most so many per log; how many were looked at."""
    done = {(row.town, row.epoch): row.seq for row in session.execute(select(forwarded).with_for_update())}
    news = [(town, epoch, start) for town, epoch, last in _lasts(session, done) if (start := done.get((town, epoch), 0)) < last]
    if not news:
        return 0
    pins = read_pins(session, {town for town, _, _ in news})
    chosen: list[Entry] = []
    moved = []
    looked = 0
    for town, epoch, start in news:
        query = (
            select(inbox.c.header, inbox.c.hash, inbox.c.signature, inbox.c.salt, inbox.c.body)
            .where(inbox.c.town == town, inbox.c.epoch == epoch, inbox.c.seq > start)
            .order_by(inbox.c.seq)
            .limit(limit)
        )
        entries = [stored_entry(*row) for row in session.execute(query)]
        looked += len(entries)
        chosen += [entry for entry in entries if _may_travel(entry, pins)]
        moved.append({"town": town, "epoch": epoch, "seq": entries[-1].says.seq})
    upsert(session, forwarded, moved)
    number_entries(session, chosen, fresh_id)
    return looked


def _lasts(session: Session, done: dict[tuple[str, str], int]) -> list[tuple[str, str, int]]:
    """How far each log is held: the present epoch by its cursor, an earlier one as long as it was not looked through to its end."""
    present = {row.town: (row.epoch, row.seq) for row in session.execute(select(inbox_cursor))}
    lasts = []
    # The association first: what it says about a town's key has to be in the feed before anything that is signed with that key.
    order = epoch_order.c.town != KOEPEL, epoch_order.c.town, epoch_order.c.number
    said = inbox.c.town == KOEPEL, inbox.c.type.in_([TownAdmitted.wire, TownReadmitted.wire])
    admitted = {KOEPEL, *session.scalars(select(inbox.c.subject).where(*said))}
    for town, epoch in session.execute(select(epoch_order.c.town, epoch_order.c.epoch).order_by(*order)).all():
        if town not in admitted:
            continue
        if present.get(town, ("", 0))[0] == epoch:
            lasts.append((town, epoch, present[town][1]))
            continue
        place = inbox.c.town == town, inbox.c.epoch == epoch, inbox.c.seq > done.get((town, epoch), 0)
        last = session.scalar(select(func.max(inbox.c.seq)).where(*place))
        if last is not None:
            lasts.append((town, epoch, last))
    return lasts


def _may_travel(entry: Entry, pins: Pins) -> bool:
    known = event_class(entry.says.type)
    if known is None or known[0].audience != "all":
        return False
    if entry.says.type in ASSOCIATION_SAYS and entry.says.town != KOEPEL:
        return False  # a town that plays the association
    says = entry.says
    key = pins.key_for(says.town, says.key_id, says.epoch, says.seq)
    if key is not None and signed_by(entry, key):
        return True
    log.warning("forwarding.bad_signature", extra=facts(town=entry.says.town, seq=entry.says.seq))
    return False

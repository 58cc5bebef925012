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
from shared.envelope import Entry, open_entry, signed_by
from shared.events import event_class
from shared.feed import number_entries
from shared.inbox import inbox, pinned_keys
from shared.observability import facts

log = logging.getLogger(__name__)

forwarded = Table(
    "forwarded",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("epoch", String(40), primary_key=True),
    Column("seq", BigInteger, nullable=False),
)


def forward(session: Session, fresh_id: str, limit: int = 500) -> int:
    """Number the next entries, at most so many per log; how many were looked at."""
    done = {(row.town, row.epoch): row.seq for row in session.execute(select(forwarded).with_for_update())}
    lasts = session.execute(select(inbox.c.town, inbox.c.epoch, func.max(inbox.c.seq)).group_by(inbox.c.town, inbox.c.epoch)).all()
    keys = pinned_keys(session, {row.town for row in lasts})
    chosen: list[Entry] = []
    moved = []
    looked = 0
    for town, epoch, last in lasts:
        start = done.get((town, epoch), 0)
        if start >= last:
            continue
        query = (
            select(inbox.c.header, inbox.c.signature, inbox.c.salt, inbox.c.body)
            .where(inbox.c.town == town, inbox.c.epoch == epoch, inbox.c.seq > start)
            .order_by(inbox.c.seq)
            .limit(limit)
        )
        entries = [open_entry(row.header, row.signature, row.salt, row.body) for row in session.execute(query)]
        looked += len(entries)
        chosen += [entry for entry in entries if _may_travel(entry, keys)]
        moved.append({"town": town, "epoch": epoch, "seq": entries[-1].says.seq})
    if moved:
        upsert(session, forwarded, moved)
        number_entries(session, chosen, fresh_id)
    return looked


def _may_travel(entry: Entry, keys: dict[tuple[str, str], bytes]) -> bool:
    known = event_class(entry.says.type)
    if known is None or known[0].audience != "all":
        return False
    key = keys.get((entry.says.town, entry.says.key_id))
    if key is not None and signed_by(entry, key):
        return True
    log.warning("forwarding.bad_signature", extra=facts(town=entry.says.town, seq=entry.says.seq))
    return False

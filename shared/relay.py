"""The relay: carries the log to the bus, in order, and remembers how far it came.

    read what lies beyond the position → pack a message → publish it → **only after a genuine confirm** move the position

A crash between the last two steps publishes the same message again: a duplicate, which the receiver drops, never a loss (I5,
I10). `publish` is handed in (the bus for a town, the hub's own inbox for the association) and either returns after the receiver
holds the message durably, or raises; what it raised is logged and tried again, for ever, with growing pauses up to a minute.

The head exchange may `rewind` the position when the courier lost something (I6, I7). One relay per node: the worker holds a lock.

Tables: `relay`, one row per epoch.
"""

import logging
from collections.abc import Callable

from sqlalchemy import BigInteger, Column, String, Table, select, update
from sqlalchemy.orm import Session

from shared.db import Base, Database, upsert
from shared.envelope import MESSAGE_EVENTS_MAX, pack
from shared.eventlog import read_head, read_log
from shared.observability import facts, failpoint

log = logging.getLogger(__name__)

Publish = Callable[[bytes], None]
"""Hands a message over. Returns when the receiver holds it durably; raises otherwise."""

relay = Table(
    "relay",
    Base.metadata,
    Column("epoch", String(40), primary_key=True),
    Column("position", BigInteger, nullable=False),
)


def position(session: Session, epoch: str) -> int:
    """The last place of this epoch that was confirmed."""
    return session.scalar(select(relay.c.position).where(relay.c.epoch == epoch)) or 0


def relay_step(database: Database, publish: Publish) -> int:
    """Send the next message, if there is one; returns how many events were confirmed. Raises what `publish` raises."""
    with database.reading() as session:
        last = read_head(session)
        if last is None:
            return 0
        done = position(session, last.epoch)
        waiting = read_log(session, last.epoch, done, MESSAGE_EVENTS_MAX) if done < last.seq else []
    if not waiting:
        return 0
    message, count = pack(waiting)
    failpoint("relay.packed")
    publish(message)
    failpoint("relay.published")
    until = waiting[count - 1].says.seq
    with database.transaction() as session:
        if done == 0:  # the epoch's first message: its row may not be there yet
            upsert(session, relay, [{"epoch": last.epoch, "position": 0}])
        moved = session.execute(update(relay).where(relay.c.epoch == last.epoch, relay.c.position == done).values(position=until))
    failpoint("relay.moved")
    if moved.rowcount:  # type: ignore[attr-defined]  # an update gives a cursor result; 0 when it was rewound meanwhile
        log.info("relay.sent", extra=facts(epoch=last.epoch, last=until, events=count, waiting=last.seq - until))
    return count


def rewind(session: Session, epoch: str, want_from: int) -> None:
    """The receiver misses `want_from` and everything after it: send it again."""
    changed = session.execute(
        update(relay).where(relay.c.epoch == epoch, relay.c.position >= want_from).values(position=want_from - 1)
    )
    if changed.rowcount:  # type: ignore[attr-defined]  # an update gives a cursor result
        log.warning("relay.rewound", extra=facts(epoch=epoch, want_from=want_from))


def mark_sent(session: Session, epoch: str, seq: int) -> None:
    """The receiver holds this epoch up to here already, though not through this relay."""
    upsert(session, relay, [{"epoch": epoch, "position": seq}])


class Pause:
    """Growing pauses after failures, in seconds: doubling up to `most`, each with jitter so that towns do not call in step."""

    def __init__(self, jitter: Callable[[], float], *, least: float = 0.5, most: float = 60.0) -> None:
        self._jitter, self._least, self._most = jitter, least, most
        self._next = least

    def after_failure(self) -> float:
        pause = self._next * (0.5 + self._jitter() / 2)
        self._next = min(self._next * 2, self._most)
        return pause

    def reset(self) -> None:
        self._next = self._least

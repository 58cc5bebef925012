"""The hub's worker: takes messages from the bus, stores, acknowledges, folds, forwards.

    take → accept (one transaction) → commit → **then** ack → apply → forward

A crash anywhere leaves either an unacknowledged message, which comes again and is dropped as known, or stored entries that the
next apply and forward pick up from their own cursors (I8, I10). When the database fails the worker ends, without ack, and is
started again; when the bus fails it waits and connects again.

Three jobs, each in its thread. **Taking in** is all that touches the bus, up to the ack; it also shows that it is alive.
**Folding** is rung by it at once, and by the web process when the association's own log grew. **Mailing** sends what is queued.
With `BROKER_API` a fourth gives the towns their users on the broker (`towns/broker.py`).

The towns may be divided over several queues (`INGEST_PARTITIONS`, `shared/routes.py`). One process serves them all, each in a
thread; or each process is told its own, `--partition 0`, and one of them folds and mails besides: whichever holds `worker.lock`. A
file lock for each queue, and the broker's single active consumer, let a second process wait until the first is gone, so a town's
messages are taken in by one at a time and in their order. What a dead process held comes again.

When the number changed, the queues of the former number are emptied before any new one is taken from: the new ones are bound first,
so nothing is lost, what lies in both is known the second time, and the order per town stays. Stop all workers, change the setting,
start them. (What an operator deletes with messages in it, the head exchange brings again.)
"""

import contextlib
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from sqlalchemy import select

from services.hub.config import Settings, doorbell, erasures, utc_now
from services.hub.forwarding import FORWARD_MAX, forward
from services.hub.memory import PROJECTIONS, keyring, open_remembering
from services.hub.towns.broker import BrokerAway, tend_users
from services.hub.towns.joining import Town, found_association
from services.hub.towns.keyring import Keyring
from services.hub.towns.parting import has_left
from services.hub.towns.setback import keep_in_step
from shared.bus import TROUBLE as BUS_TROUBLE
from shared.bus import Deliveries, body_of
from shared.db import Database
from shared.doorbell import Doorbell
from shared.erasure import ErasureList, ask_again, note_erasures
from shared.eventlog import read_head
from shared.heads import forget_partitions, former_partitions, show_pulse
from shared.inbox import KOEPEL, accept_messages, inbox_cursor
from shared.mail import Send, post_office, send_waiting
from shared.observability import facts, failpoint, start_logging
from shared.projections import APPLY_MAX, apply, rebuild_changed, retry_stalls
from shared.relay import Pause, position, relay_step, rewind
from shared.restore import Sidecar
from shared.routes import ingest_queues, queue_of
from shared.serving import Job, holding, spare_memory, work_until_stopped

log = logging.getLogger(__name__)

PULSE_EVERY = 5.0
"""Seconds between signs of life."""
LOOK_EVERY = 1.0
"""Seconds between looks at the bus, at what is to be folded, and at the mail, when nobody rings."""
TEND_EVERY = 2.0
"""Seconds between looks at who should have a user on the broker."""


def ingest(database: Database, raws: Sequence[bytes]) -> None:
    """Store a batch of messages: one transaction."""
    with database.transaction() as session:
        accept_messages(session, raws, utc_now(), has_left=partial(has_left, session))
        failpoint("hub.accepted")
    failpoint("hub.stored")


def digest(database: Database) -> bool:
    """Fold and forward what is stored; whether there may be more."""
    with database.transaction() as session:
        looked = apply(session, PROJECTIONS)
        failpoint("hub.applied")
    failpoint("hub.folded")
    with database.transaction() as session:
        numbered = forward(session, secrets.token_hex(8))
        failpoint("hub.forwarded")
    failpoint("hub.offered")
    return looked >= APPLY_MAX or numbered >= FORWARD_MAX


def speak_for_association(database: Database) -> None:
    """Carry the association's own log to its own inbox: the same relay, no bus between, and instead of a head exchange a look."""
    with database.transaction() as session:
        head = read_head(session)
        held = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == KOEPEL)).first()
        done = held.seq if held is not None and head is not None and held.epoch == head.epoch else 0
        if head is not None and position(session, head.epoch) > done:  # an inbox that was emptied, or is older than the log
            rewind(session, head.epoch, done + 1)
    while relay_step(database, lambda raw: ingest(database, [raw])):
        pass


def run(settings: Settings, stop: Callable[[], bool] = lambda: False, partitions: Sequence[int] = ()) -> None:
    """Work until stopped; take in these partitions, or all. Raises when the database fails."""
    start_logging("hub.worker", settings.log_level)
    spare_memory()
    (database, _), bell = open_remembering(settings), doorbell(settings)
    take_in = [partial(_hold_partition, settings, database, bell, one) for one in partitions or range(settings.partitions)]
    if partitions:  # others take in the rest, and fold perhaps
        work_until_stopped(stop, *take_in, lambda ending: _lead(settings, database, bell, ending.is_set))
    else:
        _lead(settings, database, bell, stop, *take_in)
    database.close()


def _lead(settings: Settings, database: Database, bell: Doorbell, stop: Callable[[], bool], *more: Job) -> None:
    """What one process does at a time: make ready, then fold and mail, and do `more`."""
    with holding(settings.state / "worker.lock", stop) as alone:
        if not alone:
            return
        kept, keys, sidecar = erasures(settings), keyring(settings), Sidecar(settings.state / "reach.json")
        send = post_office(settings.mail_url)
        with database.transaction() as session:
            found_association(session)
        speak_for_association(database)  # before a new epoch: what waits in this one would never be told
        keep_in_step(database, sidecar, keys)
        with database.transaction() as session:
            ask_again(session, KOEPEL)
            rebuild_changed(session, PROJECTIONS)
            retry_stalls(session, [projection.name for projection in PROJECTIONS])
        work_until_stopped(
            stop,
            *more,
            lambda ending: _fold(database, bell, kept, keys, sidecar, ending),
            lambda ending: _mail(settings, database, send, ending),
            *([lambda ending: _tend(settings, database, ending)] if settings.broker_api else []),
        )


def _hold_partition(settings: Settings, database: Database, bell: Doorbell, partition: int, ending: threading.Event) -> None:
    """Take in a partition, when no other process does."""
    with holding(settings.state / f"ingest.{partition}.lock", ending.is_set) as alone:
        if alone:
            _take_in(settings, database, bell, ending, partition)


def _take_in(settings: Settings, database: Database, bell: Doorbell, ending: threading.Event, partition: int = 0) -> None:
    pause, show = Pause(random.random), partial(_show, settings, database, partition)
    queue = queue_of(partition, settings.partitions)
    while not ending.is_set():
        try:
            _empty_former(settings, database, bell, ending)
            with contextlib.closing(Deliveries(settings.bus_url, queue, _queues(settings, database))) as deliveries:
                log.info("bus.open", extra=facts(queue=queue))
                _take_from(deliveries, settings, database, bell, pause, show, ending)
        except BUS_TROUBLE as error:
            seconds = pause.after_failure()
            log.warning("bus.broken", extra=facts(error=repr(error), again_in=round(seconds, 1)))
            again = time.monotonic() + seconds
            while not ending.is_set() and time.monotonic() < again:
                show(utc_now(), empty=False)  # alive, but who knows what lies on the bus
                ending.wait(min(PULSE_EVERY, max(0.0, again - time.monotonic())))


def _queues(settings: Settings, database: Database) -> dict[str, list[str]]:
    """The queues, with the keys of the towns as they are known now."""
    if settings.partitions == 1:
        return ingest_queues(1, ())
    with database.reading() as session:
        return ingest_queues(settings.partitions, session.scalars(select(Town.slug).order_by(Town.slug)).all())


def _empty_former(settings: Settings, database: Database, bell: Doorbell, ending: threading.Event) -> None:
    """Take in what lies on the queues of another number of partitions, and remove them."""
    if not _former(settings, database):
        return
    with holding(settings.state / "former.lock", ending.is_set):
        for number in _former(settings, database):
            for queue in ingest_queues(number, ()):
                queues = _queues(settings, database) | {queue: []}
                with contextlib.closing(Deliveries(settings.bus_url, queue, queues)) as deliveries:
                    while not deliveries.is_empty():
                        if ending.is_set():
                            return
                        _store(deliveries, database, bell)
                    deliveries.remove()
                log.info("bus.emptied", extra=facts(queue=queue))
            with database.transaction() as session:
                forget_partitions(session, number)


def _former(settings: Settings, database: Database) -> list[int]:
    with database.reading() as session:
        return former_partitions(session, settings.partitions)


def _store(deliveries: Deliveries, database: Database, bell: Doorbell) -> None:
    """Take, store, and only then acknowledge."""
    messages = deliveries.take(LOOK_EVERY)
    if messages:
        failpoint("hub.taken")
        ingest(database, [body_of(message) for message in messages])
        deliveries.ack(messages)
        failpoint("hub.acked")
        bell.ring()


def _take_from(
    deliveries: Deliveries, settings: Settings, database: Database, bell: Doorbell, pause: Pause, show: Callable[..., None],
    ending: threading.Event,
) -> None:  # fmt: skip
    show_at = 0.0
    while not ending.is_set():
        _store(deliveries, database, bell)
        if time.monotonic() >= show_at:
            deliveries.queues = _queues(settings, database)  # there may be a new town
            show(utc_now(), empty=deliveries.is_empty())  # the moment first: what comes after it was not looked at
            show_at = time.monotonic() + PULSE_EVERY
            pause.reset()  # it opened, took, and answered: what breaks next is another trouble


def _show(settings: Settings, database: Database, partition: int, moment: datetime, *, empty: bool) -> None:
    with database.transaction() as session:
        show_pulse(session, moment, empty=empty, partition=partition, partitions=settings.partitions)


def _fold(database: Database, bell: Doorbell, kept: ErasureList, keys: Keyring, sidecar: Sidecar, ending: threading.Event) -> None:
    while not ending.is_set():
        bell.wait(LOOK_EVERY)
        speak_for_association(database)
        while not ending.is_set() and digest(database):
            pass
        note_erasures(database, kept)
        keep_in_step(database, sidecar, keys)


def _mail(settings: Settings, database: Database, send: Send, ending: threading.Event) -> None:
    while not ending.wait(LOOK_EVERY):
        send_waiting(database, send, settings.mail_from, utc_now(), limit=5)


def _tend(settings: Settings, database: Database, ending: threading.Event) -> None:
    """Give the towns their users on the broker, when it answers."""
    pause, seconds = Pause(random.random), 0.0
    while not ending.wait(seconds):
        try:
            tend_users(database, settings)
        except BrokerAway as error:
            seconds = pause.after_failure()
            log.warning("broker.away", extra=facts(error=str(error), again_in=round(seconds, 1)))
        else:
            pause.reset()
            seconds = TEND_EVERY

"""The hub's worker: takes messages from the bus, stores, acknowledges, folds, forwards.

    take → accept (one transaction) → commit → **then** ack → apply → forward

A crash anywhere leaves either an unacknowledged message, which comes again and is dropped as known, or stored entries that the
next apply and forward pick up from their own cursors (I8, I10). When the database fails the worker ends, without ack, and is
started again; when the bus fails it waits and connects again.
"""

import fcntl
import logging
import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from services.hub.config import Settings, open_hub, utc_now
from services.hub.forwarding import forward
from services.hub.initiatives.projection import initiatives
from services.hub.lessons.projection import lessons
from services.hub.meetings.projection import meetings
from services.hub.towns.joining import found_association
from services.hub.towns.projection import towns
from shared.bus import TROUBLE as BUS_TROUBLE
from shared.bus import Deliveries, body_of
from shared.db import Database
from shared.heads import show_pulse
from shared.inbox import Projection, accept_messages, apply, rebuild_changed
from shared.mail import post_office, send_waiting
from shared.observability import facts, failpoint, start_logging
from shared.relay import Pause, relay_step

log = logging.getLogger(__name__)

PROJECTIONS: Sequence[Projection] = (towns, initiatives, meetings, lessons)
PULSE_EVERY = 5.0
"""Seconds between signs of life, while the queue is empty."""
TAKE_FOR = 0.5
"""Seconds to wait for a message before looking at everything else."""


def ingest(database: Database, raws: Sequence[bytes]) -> None:
    """Store a batch of messages: one transaction."""
    with database.transaction() as session:
        accept_messages(session, raws, utc_now())
        failpoint("hub.accepted")
    failpoint("hub.stored")


def digest(database: Database) -> bool:
    """Fold and forward what is stored; whether there was anything."""
    with database.transaction() as session:
        looked = apply(session, PROJECTIONS)
        failpoint("hub.applied")
    failpoint("hub.folded")
    with database.transaction() as session:
        numbered = forward(session, secrets.token_hex(8))
        failpoint("hub.forwarded")
    return bool(looked or numbered)


def speak_for_association(database: Database) -> None:
    """Carry the association's own log to its own inbox: the same relay, no bus between."""
    while relay_step(database, lambda raw: ingest(database, [raw])):
        pass


def run(settings: Settings, stop: Callable[[], bool] = lambda: False) -> None:
    """Work until stopped. Raises when the database fails."""
    start_logging("hub.worker", settings.log_level)
    database, _ = open_hub(settings)
    lock = (settings.state / "worker.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)  # a second worker waits here until the first is gone
    with database.transaction() as session:
        found_association(session)
        rebuild_changed(session, PROJECTIONS)
    send = post_office(settings.mail_url)
    pause = Pause(random.random)
    while not stop():
        try:
            _work(database, Deliveries(settings.bus_url), settings, send, pause, stop)
        except BUS_TROUBLE as error:
            seconds = pause.after_failure()
            log.warning("bus.broken", extra=facts(error=repr(error), again_in=round(seconds, 1)))
            digest(database)
            time.sleep(seconds)
    database.close()


def _work(
    database: Database, deliveries: Deliveries, settings: Settings, send: Any, pause: Pause, stop: Callable[[], bool]
) -> None:
    shown = 0.0
    try:
        while not stop():
            messages = deliveries.take(TAKE_FOR)
            if messages:
                ingest(database, [body_of(message) for message in messages])
                deliveries.ack(messages)
                failpoint("hub.acked")
                pause.reset()
            speak_for_association(database)
            while digest(database):
                pass
            if time.monotonic() - shown > PULSE_EVERY:
                with database.transaction() as session:
                    show_pulse(session, utc_now(), empty=deliveries.is_empty())
                send_waiting(database, send, settings.mail_from, utc_now())
                shown = time.monotonic()
    finally:
        deliveries.close()

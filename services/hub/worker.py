"""The hub's worker: takes messages from the bus, stores, acknowledges, folds, forwards.

    take → accept (one transaction) → commit → **then** ack → apply → forward

A crash anywhere leaves either an unacknowledged message, which comes again and is dropped as known, or stored entries that the
next apply and forward pick up from their own cursors (I8, I10). When the database fails the worker ends, without ack, and is
started again; when the bus fails it waits and connects again.

Three jobs, each in its thread. **Taking in** is all that touches the bus, up to the ack; it also shows that it is alive.
**Folding** is rung by it at once, and by the web process when the association's own log grew. **Mailing** sends what is queued.
"""

import contextlib
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence

from services.hub.config import Settings, doorbell, erasures, open_hub, utc_now
from services.hub.forwarding import FORWARD_MAX, forward
from services.hub.initiatives.projection import initiatives
from services.hub.lessons.projection import lessons
from services.hub.meetings.projection import meetings
from services.hub.towns.joining import found_association
from services.hub.towns.projection import towns
from services.hub.towns.setback import begin_anew_if_put_back, note_reach
from shared.bus import TROUBLE as BUS_TROUBLE
from shared.bus import Deliveries, body_of
from shared.db import Database
from shared.doorbell import Doorbell
from shared.erasure import ErasureList, note_erasures, replay
from shared.heads import show_pulse
from shared.inbox import accept_messages
from shared.mail import Send, post_office, send_waiting
from shared.observability import facts, failpoint, start_logging
from shared.projections import APPLY_MAX, Projection, apply, rebuild_changed, retry_stalls
from shared.relay import Pause, relay_step
from shared.restore import Sidecar
from shared.serving import holding, spare_memory, work_until_stopped

log = logging.getLogger(__name__)

PROJECTIONS: Sequence[Projection] = (towns, initiatives, meetings, lessons)
PULSE_EVERY = 5.0
"""Seconds between signs of life."""
LOOK_EVERY = 1.0
"""Seconds between looks at the bus, at what is to be folded, and at the mail, when nobody rings."""


def ingest(database: Database, raws: Sequence[bytes]) -> None:
    """Store a batch of messages: one transaction."""
    with database.transaction() as session:
        accept_messages(session, raws, utc_now())
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
    """Carry the association's own log to its own inbox: the same relay, no bus between."""
    while relay_step(database, lambda raw: ingest(database, [raw])):
        pass


def run(settings: Settings, stop: Callable[[], bool] = lambda: False) -> None:
    """Work until stopped. Raises when the database fails."""
    start_logging("hub.worker", settings.log_level)
    spare_memory()
    (database, _), send = open_hub(settings), post_office(settings.mail_url)
    with holding(settings.state / "worker.lock", stop) as alone:
        if not alone:
            return
        kept, sidecar = erasures(settings), Sidecar(settings.state / "reach.json")
        replay(database, kept, PROJECTIONS)
        with database.transaction() as session:
            found_association(session)
            begin_anew_if_put_back(session, sidecar)
            rebuild_changed(session, PROJECTIONS)
            retry_stalls(session, [projection.name for projection in PROJECTIONS])
        bell = doorbell(settings)
        work_until_stopped(
            stop,
            lambda ending: _take_in(settings, database, bell, ending),
            lambda ending: _fold(database, bell, kept, sidecar, ending),
            lambda ending: _mail(settings, database, send, ending),
        )
        database.close()


def _take_in(settings: Settings, database: Database, bell: Doorbell, ending: threading.Event) -> None:
    pause = Pause(random.random)
    while not ending.is_set():
        try:
            with contextlib.closing(Deliveries(settings.bus_url)) as deliveries:
                log.info("bus.open")
                _take_from(deliveries, database, bell, pause, ending)
        except BUS_TROUBLE as error:
            seconds = pause.after_failure()
            log.warning("bus.broken", extra=facts(error=repr(error), again_in=round(seconds, 1)))
            again = time.monotonic() + seconds
            while not ending.is_set() and time.monotonic() < again:
                _show(database, empty=False)  # alive, but who knows what lies on the bus
                ending.wait(min(PULSE_EVERY, max(0.0, again - time.monotonic())))


def _take_from(deliveries: Deliveries, database: Database, bell: Doorbell, pause: Pause, ending: threading.Event) -> None:
    show_at = 0.0
    while not ending.is_set():
        messages = deliveries.take(LOOK_EVERY)
        if messages:
            failpoint("hub.taken")
            ingest(database, [body_of(message) for message in messages])
            deliveries.ack(messages)
            failpoint("hub.acked")
            bell.ring()
        if time.monotonic() >= show_at:
            _show(database, empty=deliveries.is_empty())
            show_at = time.monotonic() + PULSE_EVERY
            pause.reset()  # it opened, took, and answered: what breaks next is another trouble


def _show(database: Database, *, empty: bool) -> None:
    with database.transaction() as session:
        show_pulse(session, utc_now(), empty=empty)


def _fold(database: Database, bell: Doorbell, kept: ErasureList, sidecar: Sidecar, ending: threading.Event) -> None:
    while not ending.is_set():
        bell.wait(LOOK_EVERY)
        speak_for_association(database)
        while not ending.is_set() and digest(database):
            pass
        note_erasures(database, kept)
        with database.transaction() as session:
            if not begin_anew_if_put_back(session, sidecar):
                note_reach(session, sidecar)


def _mail(settings: Settings, database: Database, send: Send, ending: threading.Event) -> None:
    while not ending.wait(LOOK_EVERY):
        send_waiting(database, send, settings.mail_from, utc_now(), limit=5)

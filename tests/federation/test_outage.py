"""A year without an association (I19): what waits is on the disk, neither in memory nor on the bus, and then it all goes."""

import tracemalloc
from datetime import date

import pytest

from services.town_node.worker import LOOK_EVERY
from shared.envelope import MESSAGE_EVENTS_MAX, unpack
from shared.eventlog import append
from shared.events import LessonShared
from shared.relay import Pause, relay_step

EVENTS = 6_000
BODY = "Een half jaar op water gewacht, en daarna een zomer lang geoogst. " * 12


@pytest.fixture
def almere(town):
    """A town that told a great deal, none of which has left it."""
    made = town("almere")
    for first in range(0, EVENTS, 500):
        with made.database.transaction() as session:
            for number in range(first, first + 500):
                told = {"title": f"Les {number}", "body": BODY, "kind": "tip", "theme": "water", "shared_on": date(2015, 6, 1)}
                append(session, LessonShared(lesson=f"les-{number:06}", **told))
    return made


@pytest.mark.parametrize("hub", ["embedded"], indirect=True)
def test_a_year_without_an_association_takes_no_memory_and_then_everything_arrives(hub, almere):
    def away(_message: bytes) -> None:
        raise ConnectionRefusedError

    tracemalloc.start()
    try:
        with pytest.raises(ConnectionRefusedError):
            relay_step(almere.database, away)
        first = tracemalloc.get_traced_memory()[1]
        for _ in range(20):
            with pytest.raises(ConnectionRefusedError):
                relay_step(almere.database, away)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2 * first, "the hundredth attempt reads no more than the first"
    assert kept < len(BODY) * MESSAGE_EVENTS_MAX, "and keeps nothing"

    sizes = []

    def through(message: bytes) -> None:
        sizes.append(len(unpack(message).entries))
        hub.bus.put(message)

    while relay_step(almere.database, through):
        pass
    assert sum(sizes) == EVENTS
    assert max(sizes) <= MESSAGE_EVENTS_MAX
    hub.work()
    assert almere.call().cursor == EVENTS


def test_whoever_cannot_send_tries_at_longer_and_longer_intervals_and_never_stops():
    pause = Pause(lambda: 1.0)
    pauses = [pause.after_failure() for _ in range(600)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.5, 60.0)
    assert sum(pauses[:10]) > 100 * LOOK_EVERY
    pause.reset()
    assert pause.after_failure() == 0.5

"""kill -9 of any process at any moment, while people write: what they were told is kept arrives exactly once, whatever died when.

The moments are random; the seed is printed, and TUINKOEPEL_TEST_SEED repeats it (as far as the machine's own timing allows).
"""

import os
import random
import re
import threading

import pytest
import urllib3

from tests.kill.conftest import PARTS
from tests.kill.verdict import Ledger, check
from tests.services import wait_until

KILLS = 12
VICTIMS = [("hub", "web"), ("hub", "worker"), ("almere", "web"), ("almere", "worker"), ("dronten", "web"), ("dronten", "worker")]


class Writing(threading.Thread):
    """Somebody who goes on sharing lessons, and notes in a ledger which of them were acknowledged."""

    def __init__(self, ledger: Ledger, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.ledger, self.stop, self.unanswered = ledger, stop, 0

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self.ledger.share()
            except (urllib3.exceptions.HTTPError, AssertionError):  # no answer, or one that does not say it was kept
                self.unanswered += 1
            self.stop.wait(0.05)


class Supervisor(threading.Thread):
    """Starts again what died."""

    def __init__(self, world, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.world, self.stop = world, stop

    def run(self) -> None:
        while not self.stop.wait(0.1):
            self.world.tend()


@pytest.mark.parametrize("world", PARTS[:2], indirect=True, ids="-".join, scope="module")
def test_what_was_acknowledged_arrives_exactly_once(world):
    seed = int(os.environ.get("TUINKOEPEL_TEST_SEED", random.randrange(10**6)))
    print(f"TUINKOEPEL_TEST_SEED={seed}")
    chance, enough, over = random.Random(seed), threading.Event(), threading.Event()
    writers = [Writing(Ledger(world.towns[slug]), enough) for slug in ("almere", "almere", "dronten")]
    supervisor = Supervisor(world, over)
    for thread in (*writers, supervisor):
        thread.start()
    try:
        for name, kind in kill_list(chance):
            enough.wait(chance.uniform(0.1, 1.0))  # any moment
            service = world.hub if name == "hub" else world.towns[name]
            # All of it, or of the web process only its master, or only its child.
            service.strike(kind, chance.choice([lambda pids: pids, lambda pids: pids[:1], lambda pids: pids[-1:]]))
        until_each_was_heard(writers)
        enough.set()
        world.settle(60)
    finally:
        enough.set()
        over.set()
        for thread in (*writers, supervisor):
            thread.join()
    print([(writer.ledger.town.name, len(writer.ledger.acknowledged), writer.unanswered) for writer in writers])
    world.settle()  # what was on its way when the writers stopped
    ledgers = [writer.ledger for writer in writers]
    check(world, *ledgers)
    for slug in ("almere", "dronten"):
        shown = shown_by_hub(world, slug)
        assert len(shown) == len(set(shown))
        assert {code for ledger in ledgers if ledger.town.name == slug for code in ledger.acknowledged} <= set(shown)


def kill_list(chance):
    """Each process twice, in any order."""
    chosen = VICTIMS * (KILLS // len(VICTIMS))
    chance.shuffle(chosen)
    return chosen


def until_each_was_heard(writers):
    """After the last kill, every town answers again: nobody laid a hand on it."""
    before = [len(writer.ledger.acknowledged) for writer in writers]
    wait_until(
        lambda: all(len(writer.ledger.acknowledged) > count + 3 for writer, count in zip(writers, before, strict=True)),
        "an answer from every town",
    )


def shown_by_hub(world, slug):
    """The lessons of a town, as the association's pages list them."""
    codes, path = [], f"/lessons?town={slug}"
    while path:
        page = urllib3.request("GET", world.hub.url + path, timeout=30).data.decode()
        codes += re.findall(rf'href="/lessons/{slug}/([0-9a-f]+)"', page)
        following = re.search(r'rel="next"[^>]*href="([^"]+)"|href="([^"]+)"[^>]*rel="next"', page)
        path = (following[1] or following[2]).replace("&amp;", "&") if following else None
    return codes

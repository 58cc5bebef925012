"""The same story over each real courier, with consumers that die; and the hub's worker over a broker that hangs, dies, and forgets.

kombu's `filesystem` is no courier of ours: it loses what a dead consumer held, and reorders. The protocol does not rely on the
courier, so it must do all the same (I6, I8, I10).
"""

import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kombu import Connection
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from services.hub import worker
from services.hub.config import doorbell
from services.hub.lessons.projection import NationalLesson
from shared import bus as bus_module
from shared.bus import TROUBLE
from shared.eventlog import log
from shared.heads import ingest_pulse
from shared.inbox import inbox
from tests.federation.conftest import Hub, RealBus, Town
from tests.services import wait_until

ROOT = Path(__file__).parents[2]
HOLD = """
import json, sys, time
from kombu import Connection
from shared.bus import Deliveries
courier = json.loads(sys.argv[1])
deliveries = Deliveries(courier if isinstance(courier, str) else Connection(**courier))
held = []
while len(held) < 3:
    held += deliveries.take(5, 3 - len(held))
print(len(held), flush=True)
time.sleep(60)
"""


@pytest.fixture(params=["sqlite_bus", "rabbitmq", "filesystem"])
def hub(request, tmp_path, clock):
    """SQLite, and each courier in turn."""
    if request.param == "rabbitmq":
        courier = request.getfixturevalue("rabbit").url
    elif request.param == "sqlite_bus":
        courier = f"sqlite:///{tmp_path / 'bus.db'}"
    else:
        folders = {name: str(tmp_path / name) for name in ("control_folder", "data_folder_in", "processed_folder")}
        for folder in folders.values():
            Path(folder).mkdir()
        options = folders | {"data_folder_out": folders["data_folder_in"], "store_processed": True, "polling_interval": 0.01}
        courier = {"hostname": "filesystem://", "transport_options": options}
    made = Hub(tmp_path / "hub", "", clock, RealBus(courier))
    yield made
    made.close()


def die_with_messages_in_hand(bus: RealBus) -> None:
    """A consumer takes some, and is killed before it acknowledges."""
    bus.leave()
    consumer = subprocess.Popen([sys.executable, "-c", HOLD, json.dumps(bus.courier)], cwd=ROOT, stdout=subprocess.PIPE)
    assert int(consumer.stdout.readline()) == 3
    consumer.kill()
    consumer.wait()
    consumer.stdout.close()


def places(database, table, town: str) -> list[tuple]:
    """A log, as (seq, hash) in order."""
    with database.reading() as session:
        query = select(table.c.seq, table.c.hash).order_by(table.c.seq)
        return [tuple(row) for row in session.execute(query.where(table.c.town == town) if "town" in table.c else query)]


def test_every_lesson_arrives_once_whatever_the_courier_does(hub, town, clock):
    towns = [town("almere"), town("dronten")]
    chance = random.Random(20)
    titles = [f"Les {number}" for number in range(30)]
    for number, title in enumerate(titles):
        one = towns[number % 2]
        one.share(title)
        if chance.random() < 0.7:
            one.relay()
        if number in {9, 19}:
            for each in towns:
                each.relay()
                each.share(f"Onderweg {number}")
                each.relay()
            die_with_messages_in_hand(hub.bus)
        if number == 14:
            hub.work(empty=False)
    own = {one.slug: places(one.database, log, one.slug) for one in towns}
    for _ in range(12):
        for one in towns:
            one.relay()
        hub.work()
        if all(places(hub.database, inbox, slug) == whole for slug, whole in own.items()):
            break
        clock.pass_by(seconds=30)
        for one in towns:
            one.call()
    assert {slug: places(hub.database, inbox, slug) for slug in own} == own
    with hub.database.reading() as session:
        shown = session.scalars(select(NationalLesson.title)).all()
    assert sorted(shown) == sorted([*titles, *(f"Onderweg {number}" for number in (9, 9, 19, 19))])
    for reader, writer in (towns, towns[::-1]):
        reader.pull()
        assert places(reader.database, inbox, writer.slug) == own[writer.slug]


# ---- The hub's worker and a broker in trouble -------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Time limits that a test can wait for."""
    monkeypatch.setattr(bus_module, "TIMEOUT", 1.0)
    monkeypatch.setattr(bus_module._Link, "patience", 1.0)
    monkeypatch.setattr(worker, "PULSE_EVERY", 0.2)


@pytest.fixture
def taking_in(rabbit, tmp_path, clock, quick):
    """A hub over RabbitMQ whose worker takes in what comes, in a thread of this process."""
    made = Hub(tmp_path / "hub", "", clock, RealBus(rabbit.url))
    made.bus.leave()
    ending = threading.Event()
    settings = made.settings.__class__(state=made.settings.state, bus=rabbit.url)
    job = threading.Thread(target=worker._take_in, args=(settings, made.database, doorbell(settings), ending))
    job.start()
    yield made
    ending.set()
    job.join(10)
    assert not job.is_alive(), "it ends within seconds, whatever the broker does"
    made.close()


@pytest.fixture
def sender(taking_in, tmp_path, clock):
    """A town that sends until its log is empty, as its worker would."""
    made = Town("almere", taking_in, tmp_path, clock)

    def send(title: str) -> None:
        made.share(title)

        def sent() -> bool:
            try:
                made.relay()
            except TROUBLE:
                return False
            return True

        wait_until(sent, f"a confirm for {title}")

    yield send
    made.database.close()


def holds(hub: Hub, count: int) -> None:
    wait_until(lambda: len(places(hub.database, inbox, "almere")) == count, f"{count} events at the hub")


def pulse(hub: Hub):
    with hub.database.reading() as session:
        return session.execute(select(ingest_pulse)).first()


def test_the_worker_gets_over_a_broker_that_hangs(rabbit, taking_in, sender):
    sender("Ervoor")
    holds(taking_in, 1)
    wait_until(lambda: pulse(taking_in) is not None and pulse(taking_in).empty, "a sign of life")
    rabbit.pause()
    try:
        wait_until(lambda: not pulse(taking_in).empty, "a worker that noticed")
        seen = pulse(taking_in).seen_at
        wait_until(lambda: pulse(taking_in).seen_at > seen, "a worker that shows it is alive all the same")
    finally:
        rabbit.resume()
    sender("Erna")
    holds(taking_in, 2)


def test_the_worker_gets_over_a_broker_that_is_killed(rabbit, taking_in, sender):
    sender("Ervoor")
    holds(taking_in, 1)
    # RabbitMQ 3.10 forgets a quorum queue that was made in the second before it was killed: it then answers neither consumers nor
    # operators. No client can mend that, so give it its second.
    time.sleep(1.5)
    rabbit.kill()
    rabbit.start()
    sender("Erna")
    holds(taking_in, 2)


def test_the_worker_declares_again_what_an_operator_removed(rabbit, taking_in, sender):
    sender("Ervoor")
    holds(taking_in, 1)
    with Connection(rabbit.url) as operator:
        operator.default_channel.queue_unbind("hub.ingest", bus_module.EXCHANGE.name, "town.*.log")
    sender("Zonder binding")
    with Connection(rabbit.url) as operator:
        operator.default_channel.queue_delete("hub.ingest")
    sender("Zonder wachtrij")
    holds(taking_in, 3)


def test_what_the_worker_could_not_store_comes_again(rabbit, tmp_path, clock, quick, monkeypatch):
    made = Hub(tmp_path / "hub", "", clock, RealBus(rabbit.url))
    made.bus.leave()
    made.bus.put(b"a message")

    def refuse(database, raws):
        raise OperationalError("INSERT", {}, Exception("disk full"))

    monkeypatch.setattr(worker, "ingest", refuse)
    settings = made.settings.__class__(state=made.settings.state, bus=rabbit.url)
    with pytest.raises(OperationalError):
        worker._take_in(settings, made.database, doorbell(settings), threading.Event())
    assert made.bus.take() == [b"a message"]
    made.close()

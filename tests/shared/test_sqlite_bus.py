"""The embedded courier's own promises; what it shares with RabbitMQ stands in `test_bus.py`."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from shared import sqlite_bus
from shared.bus import TROUBLE, Deliveries, Publisher, body_of
from shared.sqlite_bus import Full, SecondConsumer, Unroutable
from tests.services import wait_until

ROOT = Path(__file__).parents[2]
SENT = [f"message {number}".encode() for number in range(12)]
HOLD = (
    "import sys, time; from shared.bus import Deliveries, body_of; d = Deliveries(sys.argv[1]); held = d.take(5, 9);"
    "d.ack(held[:3]); print(*(body_of(m).decode() for m in held), sep=',', flush=True); time.sleep(60)"
)


@pytest.fixture
def bus(tmp_path):
    return tmp_path / "bus.db"


def rows(bus: Path) -> list[bytes]:
    """What the file holds."""
    with sqlite3.connect(bus) as connection:
        found = [body for (body,) in connection.execute("SELECT body FROM message ORDER BY id")]
    connection.close()
    return found


def publish(bus: Path, *messages: bytes, town: str = "almere") -> None:
    publisher = Publisher(f"sqlite:///{bus}", town)
    for message in messages:
        publisher.publish(message)
    publisher.close()


def take(deliveries: Deliveries, count: int) -> list:
    got = []
    wait_until(lambda: got.extend(deliveries.take(0.2, count - len(got))) or len(got) >= count, f"{count} messages")
    return got


def test_an_unroutable_message_raises_and_is_not_kept(bus):
    with pytest.raises(Unroutable):
        publish(bus, b"no exchange yet")
    Deliveries(f"sqlite:///{bus}").close()
    with sqlite3.connect(bus) as connection:
        connection.execute("DELETE FROM binding")
    connection.close()
    with pytest.raises(Unroutable):
        publish(bus, b"no binding any more")
    assert rows(bus) == []


def test_a_full_file_takes_no_more_until_the_hub_has_taken_some(bus, monkeypatch):
    monkeypatch.setattr(sqlite_bus, "BYTES_MAX", 200_000)
    Deliveries(f"sqlite:///{bus}").close()
    sent = [bytes([65 + number]) * 30_000 for number in range(20)]
    with pytest.raises(Full) as refused:
        publish(bus, *sent)
    held = rows(bus)
    assert 3 <= len(held) < 7
    assert held == sent[: len(held)]
    assert isinstance(refused.value, TROUBLE), "the relay waits, and tries again"
    assert bus.stat().st_size <= 200_000
    deliveries = Deliveries(f"sqlite:///{bus}")
    deliveries.ack(take(deliveries, 2))
    publish(bus, b"there is room again" + bytes(20_000))
    assert len(rows(bus)) == len(held) - 1
    deliveries.close()


def test_only_an_ack_deletes_and_it_reaches_back_to_all_before_it(bus):
    deliveries = Deliveries(f"sqlite:///{bus}")
    publish(bus, *SENT)
    held = take(deliveries, 8)
    assert rows(bus) == SENT
    deliveries.ack(held[:5])
    assert rows(bus) == SENT[5:]
    assert not deliveries.is_empty()
    rest = take(deliveries, 4)
    assert [body_of(message) for message in held + rest] == SENT
    deliveries.ack(rest)
    assert rows(bus) == []
    assert deliveries.is_empty()
    deliveries.close()


def test_what_a_killed_consumer_held_comes_again_in_order_without_what_it_acknowledged(bus):
    Deliveries(f"sqlite:///{bus}").close()
    publish(bus, *SENT)
    process = subprocess.Popen([sys.executable, "-c", HOLD, f"sqlite:///{bus}"], cwd=ROOT, stdout=subprocess.PIPE)
    held = process.stdout.readline().decode().strip().split(",")
    assert held == [message.decode() for message in SENT[: len(held)]]
    assert len(held) > 3
    with pytest.raises(SecondConsumer):
        Deliveries(f"sqlite:///{bus}")  # it lives, though it does nothing
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert rows(bus) == SENT[3:]
    again = Deliveries(f"sqlite:///{bus}")
    assert [body_of(message) for message in take(again, 9)] == SENT[3:]
    again.close()


def test_towns_share_a_queue_and_each_keeps_its_order(bus):
    deliveries = Deliveries(f"sqlite:///{bus}")
    almere, breda = (Publisher(f"sqlite:///{bus}", town) for town in ("almere", "breda"))
    for message in SENT[:8]:
        almere.publish(b"almere " + message)
        breda.publish(b"breda " + message)
    got = [body_of(message) for message in take(deliveries, 16)]
    for town in (b"almere ", b"breda "):
        assert [message for message in got if message.startswith(town)] == [town + message for message in SENT[:8]]
    for one in (almere, breda, deliveries):
        one.close()


def test_a_file_that_was_deleted_is_an_error_on_both_sides_and_the_next_one_is_used(bus):
    publisher, deliveries = Publisher(f"sqlite:///{bus}", "almere"), Deliveries(f"sqlite:///{bus}")
    publisher.publish(b"before")
    take(deliveries, 1)
    for ending in ("", "-wal", "-shm"):
        Path(f"{bus}{ending}").unlink(missing_ok=True)
    for use in (lambda: publisher.publish(b"lost"), lambda: deliveries.take(0)):
        with pytest.raises(TROUBLE):
            use()
    deliveries.close()
    deliveries = Deliveries(f"sqlite:///{bus}")
    publisher.publish(b"after")
    assert [body_of(message) for message in take(deliveries, 1)] == [b"after"]
    deliveries.close()
    publisher.close()


def test_what_was_acknowledged_does_not_linger_in_the_files(bus):
    """Something that was carried may be erased later; then the courier must not be the one who still knows it (I18)."""
    deliveries = Deliveries(f"sqlite:///{bus}")
    publish(bus, b"a word that will be erased " * 50)
    deliveries.ack(take(deliveries, 1))
    assert deliveries.is_empty()
    assert not [file for file in bus.parent.glob("bus.db*") if file.is_file() and b"will be erased" in file.read_bytes()]
    deliveries.close()

"""Both couriers keep what they confirmed: a real RabbitMQ that is killed, and the SQLite bus with a consumer that is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.bus import TROUBLE, Deliveries, Publisher, body_of
from tests.services import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "rabbitmq"])
def address(request, tmp_path):
    return request.getfixturevalue("rabbit").url if request.param == "rabbitmq" else f"sqlite:///{tmp_path / 'bus.db'}"


def take_all(deliveries: Deliveries, count: int) -> list[bytes]:
    got: list[bytes] = []

    def enough() -> bool:
        messages = deliveries.take(0.2)
        got.extend(body_of(message) for message in messages)
        deliveries.ack(messages)
        return len(got) >= count

    wait_until(enough, f"{count} messages")
    return got


def test_messages_arrive_in_order_and_only_once(address):
    deliveries = Deliveries(address)
    publisher = Publisher(address, "almere")
    sent = [f"message {number}".encode() for number in range(50)]
    for message in sent:
        publisher.publish(message)
    assert take_all(deliveries, 50) == sent
    assert deliveries.is_empty()
    publisher.close()
    deliveries.close()


def test_what_was_not_acknowledged_comes_again(address):
    deliveries = Deliveries(address)
    publisher = Publisher(address, "almere")
    publisher.publish(b"held")
    wait_until(lambda: bool(deliveries.take(0.2)), "the message")
    deliveries.close()
    again = Deliveries(address)
    assert take_all(again, 1) == [b"held"]
    publisher.close()
    again.close()


def test_a_message_that_reaches_no_queue_is_an_error(tmp_path):
    publisher = Publisher(f"sqlite:///{tmp_path / 'bus.db'}", "almere")
    with pytest.raises(TROUBLE):
        publisher.publish(b"nobody declared a queue")


def test_a_second_consumer_is_refused(tmp_path):
    address = f"sqlite:///{tmp_path / 'bus.db'}"
    first = Deliveries(address)
    with pytest.raises(TROUBLE):
        Deliveries(address)
    first.close()


def test_what_a_killed_consumer_held_is_delivered_again_in_order(tmp_path):
    address = f"sqlite:///{tmp_path / 'bus.db'}"
    Deliveries(address).close()
    publisher = Publisher(address, "almere")
    sent = [f"message {number}".encode() for number in range(10)]
    for message in sent:
        publisher.publish(message)
    taker = (
        "import sys, time; from shared.bus import Deliveries; d = Deliveries(sys.argv[1]); m = d.take(5);"
        "print(len(m), flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", taker, address], cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    )
    assert int(process.stdout.readline()) > 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    again = Deliveries(address)
    assert take_all(again, 10) == sent
    publisher.close()
    again.close()

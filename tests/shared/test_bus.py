"""Both couriers keep what they confirmed, a killed RabbitMQ and the SQLite bus, and confirm nothing that no queue takes (I20)."""

import os
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from amqp.exceptions import ChannelError, MessageNacked
from kombu import Connection

from shared import bus as bus_module
from shared.bus import TROUBLE, Deliveries, Publisher, body_of
from tests.services import certificate, free_port, wait_until

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


# ---- What RabbitMQ refuses, and what it never answers -----------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch):
    """Time limits that a test can wait for."""
    monkeypatch.setattr(bus_module, "TIMEOUT", 1.0)
    monkeypatch.setattr(bus_module._Link, "patience", 1.0)


@pytest.fixture
def broker(rabbit):
    """RabbitMQ, with the hub's queue and nothing in it."""
    deliveries = Deliveries(rabbit.url)
    while not deliveries.is_empty():
        deliveries.ack(deliveries.take(0.2))
    deliveries.close()
    return rabbit


@pytest.fixture
def publisher(broker):
    made = Publisher(broker.url, "almere")
    yield made
    made.close()


@contextmanager
def operator(broker):
    """A channel of somebody with every right."""
    with Connection(broker.url) as connection:
        yield connection.default_channel


def test_a_missing_binding_or_queue_is_an_error_and_never_a_confirm(broker, publisher):
    publisher.publish(b"it works")
    with operator(broker) as channel:
        channel.queue_unbind("hub.ingest", bus_module.EXCHANGE.name, "town.*.log")
    with pytest.raises(ChannelError, match="NO_ROUTE"):
        publisher.publish(b"no binding")
    with operator(broker) as channel:
        channel.queue_delete("hub.ingest")
    with pytest.raises(ChannelError, match="NO_ROUTE"):
        publisher.publish(b"no queue")
    Deliveries(broker.url).close()
    publisher.publish(b"all is well again")
    deliveries = Deliveries(broker.url)
    assert take_all(deliveries, 1) == [b"all is well again"]
    deliveries.close()


def test_a_full_queue_refuses_until_there_is_room(broker, publisher):
    broker.rabbitmqctl("set_policy", "tiny", "^hub.ingest$", '{"max-length":1}', "--apply-to", "queues")
    taken = []

    def fill() -> None:
        for number in range(50):
            publisher.publish(b"%d" % number)
            taken.append(b"%d" % number)

    try:
        with pytest.raises(MessageNacked):
            fill()
        with pytest.raises(TROUBLE):
            publisher.publish(b"still full")
    finally:
        broker.rabbitmqctl("clear_policy", "tiny")
    deliveries = Deliveries(broker.url)
    assert take_all(deliveries, len(taken))[: len(taken)] == taken, "what was confirmed is there"
    publisher.publish(b"room again")
    assert take_all(deliveries, 1) == [b"room again"]
    deliveries.close()


def test_a_confirm_that_comes_too_late_confirms_no_other_message(broker, publisher, impatient):
    publisher.publish(b"one")
    broker.pause()
    try:
        with pytest.raises(TROUBLE):
            publisher.publish(b"two")
        with pytest.raises(TROUBLE):
            publisher.publish(b"three")  # a new connection, which is accepted and never answered
    finally:
        broker.resume()
    with operator(broker) as channel:
        channel.queue_unbind("hub.ingest", bus_module.EXCHANGE.name, "town.*.log")
    with pytest.raises(ChannelError):
        publisher.publish(b"four")


def test_a_consumer_does_not_wait_for_a_broker_that_hangs(broker, impatient):
    deliveries = Deliveries(broker.url)
    broker.pause()
    try:
        with pytest.raises(TROUBLE):
            deliveries.is_empty()
        with pytest.raises(TROUBLE):
            Deliveries(broker.url)
        deliveries.close()
    finally:
        broker.resume()


def test_an_alarmed_broker_makes_the_relay_wait_and_nothing_else(broker, publisher, impatient):
    deliveries = Deliveries(broker.url)
    before = broker.rabbitmqctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().").strip()
    broker.rabbitmqctl("set_vm_memory_high_watermark", "0.00001")
    try:
        with pytest.raises(TROUBLE):
            publisher.publish(b"not now")
        assert deliveries.is_empty(), "who only consumes is not stopped"
    finally:
        broker.rabbitmqctl("set_vm_memory_high_watermark", before)
    wait_until(lambda: can_publish(publisher, b"now"), "the end of the alarm")
    assert b"now" in take_all(deliveries, 1)
    deliveries.close()


def can_publish(publisher, message: bytes) -> bool:
    try:
        publisher.publish(message)
    except TROUBLE:
        return False
    return True


def test_nobody_at_the_address_is_said_at_once(monkeypatch):
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: pytest.fail("the worker decides when to try again, not kombu"))
    address = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
    with pytest.raises(TROUBLE):
        Publisher(address, "almere").publish(b"anybody?")
    with pytest.raises(TROUBLE):
        Deliveries(address)


def test_a_wrong_password_is_trouble(broker):
    with pytest.raises(TROUBLE):
        Publisher(broker.url.replace("guest:guest", "guest:wrong"), "almere").publish(b"let me in")


# ---- TLS --------------------------------------------------------------------------------------------------------------------


@contextmanager
def tls_before(port: int, folder: Path, name: str):
    """A door of TLS before a plain port, with a certificate for this name; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(folder, name), folder / "key.pem")

    class Door(socketserver.BaseRequestHandler):
        def handle(self):
            try:
                outside = context.wrap_socket(self.request, server_side=True)
            except OSError:
                return  # the visitor did not like the certificate
            with outside, socket.create_connection(("127.0.0.1", port)) as inside:
                back = threading.Thread(target=pour, args=(inside, outside), daemon=True)
                back.start()
                pour(outside, inside)
                back.join(5)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Door) as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        yield door.server_address[1]
        door.shutdown()


def pour(source, target) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(("name", "let_in"), [("IP:127.0.0.1", True), ("DNS:elsewhere.example", False)])
def test_amqps_trusts_only_the_certificate_of_the_host_it_calls(broker, tmp_path, monkeypatch, name, let_in):
    with tls_before(broker.port, tmp_path, name) as port:
        publisher = Publisher(f"amqps://guest:guest@127.0.0.1:{port}//", "almere")
        with pytest.raises(TROUBLE, match="CERTIFICATE_VERIFY_FAILED"):
            publisher.publish(b"signed by nobody we know")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        if let_in:
            publisher.publish(b"in an envelope")
            deliveries = Deliveries(f"amqps://guest:guest@127.0.0.1:{port}//")
            assert take_all(deliveries, 1) == [b"in an envelope"]
            deliveries.close()
        else:
            with pytest.raises(TROUBLE, match=r"certificate is not valid for '127\.0\.0\.1'"):
                publisher.publish(b"to somebody else")
        publisher.close()

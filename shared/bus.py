"""The bus: a courier between the towns' relays and the hub's inbox, through kombu (design §4, Bus).

It may lose, repeat, delay or reorder what it is given; the log, the chain and the head exchange make up for that. What it must
never do is say "delivered" when it is not, so a publish returns on a **genuine** confirm of a message that reached a queue, and
raises otherwise. Two couriers: `sqlite:///…` for a hub and nodes that share a disk (`sqlite_bus.py`), `amqp://` or `amqps://` for
RabbitMQ. Only workers open a connection.

One topic exchange; a town publishes under `town.<slug>.log` and may do nothing else, so the hub declares and towns do not.
"""

import contextlib
import socket
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from amqp.exceptions import AMQPError
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.exceptions import KombuError

EXCHANGE = Exchange("tuinkoepel.events", type="topic", durable=True)
TROUBLE = (AMQPError, KombuError, OSError, sqlite3.Error)
"""What a broken or refusing courier raises."""
CONTENT_TYPE = "application/vnd.tuinkoepel.log+json"
TIMEOUT = 15.0
"""Seconds for connecting and for a confirm."""
HEARTBEAT = 30
QUEUE_BYTES_MAX = 1024**3
PREFETCH = 20
"""Messages (of at most 1 MiB) handed out before they are acknowledged; beyond 50 nothing is gained (`limits.md` A1)."""

DEAD = Queue("hub.dead", durable=True, queue_arguments={"x-queue-type": "quorum"})
INGEST = Queue(
    "hub.ingest",
    EXCHANGE,
    routing_key="town.*.log",
    durable=True,
    queue_arguments={
        "x-queue-type": "quorum",
        "x-single-active-consumer": True,
        "x-max-length-bytes": QUEUE_BYTES_MAX,
        "x-overflow": "reject-publish",  # a full queue refuses, and the town's relay waits
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": DEAD.name,
        "x-dead-letter-strategy": "at-least-once",
        "x-delivery-limit": 1_000_000,  # RabbitMQ 4 would drop after 20; -1 loses messages on 3.x
    },
)


def _connect(url: str) -> Connection:
    if url.startswith("sqlite:///"):
        path = url.removeprefix("sqlite:///")
        return Connection(transport="shared.sqlite_bus:Transport", transport_options={"path": path})
    return Connection(
        url,
        heartbeat=HEARTBEAT,
        connect_timeout=TIMEOUT,
        transport_options={
            "confirm_publish": True,
            "read_timeout": TIMEOUT,
            "write_timeout": TIMEOUT,
            "max_retries": 0,
        },
    )


class Publisher:
    """A town's way in. `publish` is the relay's `Publish`."""

    def __init__(self, url: str, town: str, *, declare: bool = False) -> None:
        self._url, self._key, self._declare = url, f"town.{town}.log", declare
        self._producer: Producer | None = None

    def publish(self, message: bytes) -> None:
        """Hand a message over; returns when a queue holds it durably. Raises whatever went wrong, with the connection closed.

        It must be closed: after a confirm that timed out, py-amqp would take the late confirm for the next message's.
        """
        try:
            self._open().publish(
                message,
                exchange=EXCHANGE.name,
                routing_key=self._key,
                content_type=CONTENT_TYPE,
                content_encoding="utf-8",
                delivery_mode=2,
                mandatory=True,
                retry=False,
                timeout=TIMEOUT,
                confirm_timeout=TIMEOUT,
            )
        except BaseException:
            self.close()
            raise

    def beat(self) -> None:
        """Keep an idle connection alive; closes it when the other side is gone."""
        if self._producer is None:
            return
        connection = self._producer.channel.connection.client
        try:
            with contextlib.suppress(socket.timeout):
                connection.drain_events(timeout=0.001) if connection.supports_heartbeats else None
            if connection.supports_heartbeats:
                connection.heartbeat_check()
        except Exception:  # noqa: BLE001  # whatever it is, the next publish connects again
            self.close()

    def _open(self) -> Producer:
        if self._producer is None:
            connection = _connect(self._url)
            connection.connect()
            if self._declare:
                EXCHANGE.bind(connection.default_channel).declare()
            self._producer = Producer(connection.default_channel, auto_declare=False)
        return self._producer

    def close(self) -> None:
        if self._producer is not None:
            connection = self._producer.channel.connection
            self._producer = None
            with contextlib.suppress(Exception):
                connection.client.close()


class Deliveries:
    """The hub's way out: takes messages in batches and acknowledges a batch after its commit, never before (I10)."""

    def __init__(self, url: str, queue: Queue = INGEST) -> None:
        self._connection = _connect(url)
        self._connection.connect()
        self._channel = self._connection.default_channel
        self._waiting: deque[Any] = deque()
        self._last_beat = time.monotonic()
        bound = queue.bind(self._channel)
        DEAD.bind(self._channel).declare()
        bound.declare()
        self._queue = queue
        self._consumer = Consumer(
            self._channel, queues=[bound], on_message=self._waiting.append, auto_declare=False, prefetch_count=PREFETCH
        )
        self._consumer.consume()

    def take(self, seconds: float, most: int = PREFETCH) -> Sequence[Any]:
        """Wait at most so long for a first message, then take what else is there already. Raises when the connection breaks."""
        if not self._waiting:
            self._drain(seconds)
        while self._waiting and len(self._waiting) < most and self._drain(0.002):
            pass
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def _drain(self, seconds: float) -> bool:
        if self._connection.supports_heartbeats and time.monotonic() - self._last_beat > HEARTBEAT / 4:
            self._connection.heartbeat_check()
            self._last_beat = time.monotonic()
        try:
            self._connection.drain_events(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def ack(self, messages: Sequence[Any]) -> None:
        """These messages, and all taken before them, are safely stored."""
        if messages:
            self._channel.basic_ack(messages[-1].delivery_tag, multiple=True)

    def is_empty(self) -> bool:
        """Whether nothing waits for this consumer: neither taken nor on the queue."""
        return not self._waiting and self._channel.queue_declare(self._queue.name, passive=True).message_count == 0

    def close(self) -> None:
        """Give back what was taken and not acknowledged."""
        with contextlib.suppress(Exception):
            self._connection.close()


def body_of(message: Any) -> bytes:
    """A delivery's exact bytes."""
    body = message.body
    return body.encode() if isinstance(body, str) else bytes(body)

"""The bus: a courier between the towns' relays and the hub's inbox, through kombu (design §4, Bus).

It may lose, repeat, delay or reorder what it is given; the log, the chain and the head exchange make up for that. What it must
never do is say "delivered" when it is not, so a publish returns on a **genuine** confirm of a message that reached a queue, and
raises otherwise. Two couriers: `sqlite:///…` for a hub and nodes that share a disk (`sqlite_bus.py`), `amqp://` or `amqps://` for
RabbitMQ. Only workers open a connection.

A town may publish under its own key and do nothing else, so the hub declares what `routes.py` says, and towns declare nothing.

Nothing here waits without end, whatever the other side does, and nothing is tried twice: an error closes the connection, raises
`TROUBLE`, and leaves it to the worker when to begin again. Left alone, kombu and py-amqp would do three other things: count a time
limit anew at each heartbeat (a broker that hangs still sends them), connect again unasked (to a connection that consumes nothing),
and believe any certificate that somebody trusted has signed, whoever's it is.
"""

import contextlib
import socket
import sqlite3
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from amqp.exceptions import AMQPError, MessageNacked, RecoverableConnectionError
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.exceptions import KombuError
from kombu.transport import pyamqp

from shared import routes

EXCHANGE = Exchange(routes.EXCHANGE, type="topic", durable=True)
TROUBLE = (AMQPError, MessageNacked, KombuError, OSError, sqlite3.Error)
"""What a broken or refusing courier raises."""
CONTENT_TYPE = "application/vnd.tuinkoepel.log+json"
TIMEOUT = 15.0
"""Seconds for connecting, for a confirm, for any answer of the broker."""
FAREWELL = 1.0
"""Seconds for closing in good order."""
HEARTBEAT = 30
PREFETCH = 20
"""Messages (of at most 1 MiB) handed out before they are acknowledged; beyond 50 nothing is gained (`limits.md` A1)."""


class _Link(pyamqp.Connection):
    """A connection to RabbitMQ that waits for an answer, however many heartbeats come, and that stays broken when it breaks."""

    patience = TIMEOUT

    def drain_events(self, timeout: float | None = None) -> None:
        deadline = time.monotonic() + (self.patience if timeout is None else timeout)
        while not self.blocking_read(max(0.001, deadline - time.monotonic())):  # 0 would spin on half a frame
            if time.monotonic() > deadline:
                raise TimeoutError("no answer in time")

    def blocking_read(self, timeout: float | None = None) -> Any:
        if not self.connected:
            raise RecoverableConnectionError("the connection is gone")
        return super().blocking_read(timeout)


class _Rabbit(pyamqp.Transport):
    Connection = _Link


class _Line:
    """An open connection, or none: what `Publisher` and `Deliveries` share."""

    def __init__(self, address: str | Connection) -> None:
        self._kombu = _connection(address)
        try:
            self.channel = self._kombu.default_channel
            self._open = self._kombu.connection
        except BaseException:
            self.drop()
            raise

    def drain(self, seconds: float) -> bool:
        """Wait so long for one event; whether there was one."""
        try:
            self._kombu.transport.drain_events(self._open, timeout=seconds)
        except TimeoutError:
            return False
        return True

    def beat(self) -> None:
        """Send a heartbeat when it is time; raises when none came for long."""
        if self._kombu.supports_heartbeats:
            self._kombu.transport.heartbeat_check(self._open)

    def close(self) -> None:
        """In good order, if the other side still answers."""
        if isinstance(self._open, _Link):
            self._open.patience = FAREWELL
            with contextlib.suppress(Exception):
                self._open.close()
        self.drop()

    def drop(self) -> None:
        """Without a word to a broker that may not listen."""
        with contextlib.suppress(Exception):
            self._kombu.collect()


def _connection(address: str | Connection) -> Connection:
    if isinstance(address, Connection):
        return address.clone()
    once = {"max_retries": 0}
    if address.startswith("sqlite:///"):
        options = once | {"path": address.removeprefix("sqlite:///")}
        return Connection(transport="shared.sqlite_bus:Transport", transport_options=options)
    return Connection(
        address,
        transport=_Rabbit,
        heartbeat=HEARTBEAT,
        connect_timeout=TIMEOUT,
        # None stands for the host of the address; without this entry no certificate's name is looked at.
        ssl={"server_hostname": None} if address.startswith("amqps:") else False,
        transport_options=once
        | {
            "confirm_publish": True,
            "write_timeout": TIMEOUT,
            "socket_settings": {socket.TCP_USER_TIMEOUT: int(TIMEOUT * 1000)},  # py-amqp's one second is short for a garden shed
        },
    )


class Publisher:
    """A town's way in. `publish` is the relay's `Publish`. An address, or (for a courier of a test) a kombu connection to copy."""

    def __init__(self, address: str | Connection, town: str) -> None:
        self._address, self._key = address, routes.key_of(town)
        self._line: _Line | None = None

    def publish(self, message: bytes) -> None:
        """Hand a message over; returns when a queue holds it durably. Raises whatever went wrong, with the connection closed.

        It must be closed: after a confirm that timed out, py-amqp would take the late confirm for the next message's.
        """
        try:
            if self._line is None:
                self._line = _Line(self._address)
            Producer(self._line.channel, auto_declare=False).publish(
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
            if self._line is not None:
                self._line.drop()
            self._line = None
            raise

    def beat(self) -> None:
        """Keep an idle connection alive; closes it when the other side is gone."""
        if self._line is None:
            return
        try:
            self._line.drain(0.001)
            self._line.beat()
        except Exception:  # noqa: BLE001  # whatever it is, the next publish connects again
            self._line.drop()
            self._line = None

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None


class Deliveries:
    """The hub's way out: takes messages in batches and acknowledges a batch after its commit, never before (I10).

    `queues` are all that must be there before the first message is taken, each with its keys; they may be told anew. `queue` is the
    one it takes from.
    """

    def __init__(
        self, address: str | Connection, queue: str = routes.INGEST, queues: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self._waiting: deque[Any] = deque()
        self._queue = queue
        self.queues = queues or routes.ingest_queues(1, ())
        self._last_beat = time.monotonic()
        self._line = _Line(address)
        try:
            self._declare(self.queues)
            Consumer(
                self._line.channel,
                queues=[Queue(queue).bind(self._line.channel)],
                on_message=self._waiting.append,
                auto_declare=False,
                prefetch_count=PREFETCH,
            ).consume()
        except BaseException:
            self._line.drop()
            raise

    def _declare(self, queues: Mapping[str, Sequence[str]]) -> int:
        """Make sure of these queues and their bindings; how many messages wait on ours."""
        channel = self._line.channel
        Queue(routes.DEAD, durable=True, queue_arguments=routes.DEAD_ARGUMENTS).bind(channel).declare()
        EXCHANGE.bind(channel).declare()
        for name, keys in queues.items():
            Queue(name, durable=True, queue_arguments=routes.ARGUMENTS).bind(channel).declare()
            for key in keys:
                channel.queue_bind(name, routes.EXCHANGE, key, nowait=True)  # the next answer tells if one was refused
        return int(channel.queue_declare(self._queue, passive=True).message_count)

    def take(self, seconds: float, most: int = PREFETCH) -> Sequence[Any]:
        """Wait at most so long for a first message, then take what else is there already. Raises when the connection breaks."""
        if time.monotonic() - self._last_beat > HEARTBEAT / 4:
            self._line.beat()
            self._last_beat = time.monotonic()
        if not self._waiting:
            self._line.drain(seconds)
        while self._waiting and len(self._waiting) < most and self._line.drain(0.002):
            pass
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def ack(self, messages: Sequence[Any]) -> None:
        """These messages, and all taken before them, are safely stored."""
        if messages:
            self._line.channel.basic_ack(messages[-1].delivery_tag, multiple=True)

    def is_empty(self) -> bool:
        """Whether nothing waits for this consumer, neither on the queue nor taken. Raises when the broker does not answer.

        It asks by declaring its queue again, so that a binding which somebody removed is there again.
        """
        waiting = self._declare({self._queue: self.queues[self._queue]})
        return waiting == 0 and not self._waiting  # in this order: while waiting for the answer, messages may come

    def remove(self) -> None:
        """Do away with the queue, and whatever came onto it since it was found empty."""
        self._line.channel.queue_delete(self._queue)

    def close(self) -> None:
        """Give back what was taken and not acknowledged."""
        self._line.close()


def body_of(message: Any) -> bytes:
    """A delivery's exact bytes."""
    body = message.body
    return body.encode() if isinstance(body, str) else bytes(body)

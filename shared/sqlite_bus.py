"""A kombu transport on one SQLite file: the embedded courier, for a hub and nodes that share a disk.

kombu's own brokerless transports each lost every message that a killed consumer held, and one of them reorders (`libraries.md` §0,
`limits.md` A2). Here

- a publish returns after the row is on the disk (WAL, `synchronous=FULL`); one that reaches no queue raises `Unroutable` (I20);
- exchanges, queues and bindings live in the file, so a publisher knows what the consumer declared;
- a delivery sets the row's owner, and only the **ack deletes** it;
- a queue's consumer holds a file lock, which the kernel drops when it dies; the next one takes the lock and clears dead owners;
- a file that was deleted under it is an error, so that both sides open the next one;
- a file that is full, because the hub's worker has been off for a year, takes no more (`Full`): the disk is everybody's (I19).

It speaks as much AMQP as `bus.py` asks for: durable topic exchanges, manual acks (`multiple` too), prefetch, passive declaration.
"""

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import virtual

from shared.doorbell import Doorbell

LOOK_EVERY = 0.25
"""Seconds between looks when no doorbell rings."""
BYTES_MAX = 256 * 2**20
"""Bytes of what waits and is not acknowledged yet; about 200,000 events. RabbitMQ's queues have such a limit too (`routes.py`)."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS exchange (name TEXT PRIMARY KEY, type TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS queue (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS binding (
    exchange TEXT NOT NULL, routing_key TEXT NOT NULL, queue TEXT NOT NULL, PRIMARY KEY (exchange, routing_key, queue)
);
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, owner TEXT, about TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS message_waiting ON message (queue, owner, id);
"""


class Unroutable(ChannelError):
    """No queue is bound for this routing key: the message would have vanished."""


class Full(ChannelError):
    """As much waits as may wait: the towns keep the rest in their logs, and try again."""


class SecondConsumer(ChannelError):
    """Another living consumer holds this queue."""


class QoS(virtual.QoS):
    """Counts what is delivered; giving back is the channel's work."""

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Nothing to restore: a row stays until it is acknowledged."""


class Channel(virtual.Channel):
    """One SQLite connection."""

    QoS = QoS
    body_encoding = None
    do_restore = False

    def __init__(self, connection: "Transport", **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        path = Path(connection.client.transport_options["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._owner = f"{os.getpid()}-{id(self):x}"
        self._locks: list[int] = []
        self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA secure_delete=ON")
        if self._db.execute("SELECT count(*) FROM sqlite_master WHERE name='message'").fetchone()[0] == 0:
            self._db.executescript(SCHEMA)
        self._file = path.stat().st_ino

    def _must_be_there(self) -> None:
        """SQLite goes on with a file that somebody deleted, and would confirm what nobody can ever take."""
        if self._path.stat().st_ino != self._file:
            msg = f"{self._path} is another file than the one that was opened"
            raise FileNotFoundError(msg)

    # -- topology --

    def exchange_declare(self, exchange: str = "", type: str = "direct", *args: Any, **kwargs: Any) -> None:  # noqa: A002  # kombu's
        if not kwargs.get("passive"):
            self._db.execute("INSERT OR IGNORE INTO exchange VALUES (?, ?)", (exchange, type))

    def queue_bind(
        self, queue: str, exchange: str | None = None, routing_key: str = "", arguments: Any = None, **kwargs: Any
    ) -> None:
        self._db.execute("INSERT OR IGNORE INTO binding VALUES (?, ?, ?)", (exchange, routing_key, queue))

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        self._db.execute("INSERT OR IGNORE INTO queue VALUES (?)", (queue,))

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return self._db.execute("SELECT 1 FROM queue WHERE name=?", (queue,)).fetchone() is not None

    def typeof(self, exchange: str, default: str = "direct") -> Any:
        row = self._db.execute("SELECT type FROM exchange WHERE name=?", (exchange,)).fetchone()
        return self.exchange_types[row[0] if row else default]

    def get_table(self, exchange: str) -> list[Any]:
        rows = self._db.execute("SELECT queue, routing_key FROM binding WHERE exchange=?", (exchange,)).fetchall()
        kind = self.typeof(exchange)
        return [kind.prepare_bind(queue, exchange, key, {}) for queue, key in rows]

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        if not exchange:
            queues = [routing_key] if self._has_queue(routing_key) else []
        else:
            queues = self.typeof(exchange).lookup(self.get_table(exchange), exchange, routing_key, default)
        if not queues:
            msg = f"no queue takes {routing_key!r} from {exchange!r}"
            raise Unroutable(msg)
        return list(queues)

    # -- messages --

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        body = message.pop("body")
        body = body.encode() if isinstance(body, str) else body
        self._must_be_there()
        self._must_have_room(len(body))
        self._db.execute("INSERT INTO message (queue, about, body) VALUES (?, ?, ?)", (queue, json.dumps(message), body))
        self.connection.bell(queue).ring()

    def _must_have_room(self, more: int) -> None:
        """By the pages in use, which SQLite counts in its header: summing up the messages would read them all."""
        pages, free, size = (
            self._db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size + more > BYTES_MAX:
            msg = f"{self._path} holds {BYTES_MAX} bytes that the hub has not taken yet"
            raise Full(msg)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        self._must_be_there()
        # A look first: a taking UPDATE would lock the file on every idle round.
        found = self._db.execute("SELECT id FROM message WHERE queue=? AND owner IS NULL ORDER BY id LIMIT 1", (queue,)).fetchone()
        if found is None:
            raise Empty
        row = self._db.execute("UPDATE message SET owner=? WHERE id=? RETURNING about, body", (self._owner, found[0])).fetchone()
        message: dict[str, Any] = json.loads(row[0])
        message["body"] = row[1]
        message["properties"]["delivery_tag"] = found[0]
        return message

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        lock = os.open(f"{self._path}.{queue}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            msg = f"{queue} has a living consumer already"
            raise SecondConsumer(msg) from None
        self._locks.append(lock)
        self._db.execute("UPDATE message SET owner=NULL WHERE queue=? AND owner IS NOT NULL", (queue,))
        return super().basic_consume(queue, *args, **kwargs)

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:  # noqa: FBT001, FBT002  # kombu's signature
        reach = "id<=?" if multiple else "id=?"
        tags = [
            row[0] for row in self._db.execute(f"SELECT id FROM message WHERE owner=? AND {reach}", (self._owner, delivery_tag))
        ]  # two fixed words
        self._db.execute(f"DELETE FROM message WHERE owner=? AND {reach}", (self._owner, delivery_tag))  # two fixed words
        for tag in tags:
            self.qos.ack(tag)

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:  # noqa: FBT001, FBT002  # kombu's signature
        if requeue:
            self._db.execute("UPDATE message SET owner=NULL WHERE id=?", (delivery_tag,))
            self.qos.ack(delivery_tag)
        else:
            self.basic_ack(delivery_tag)

    def _size(self, queue: str) -> int:
        waiting = int(self._db.execute("SELECT count(*) FROM message WHERE queue=? AND owner IS NULL", (queue,)).fetchone()[0])
        if not waiting:  # what was carried may have been erased since: let it not linger in the file's log
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return waiting

    def _purge(self, queue: str) -> int:
        return self._db.execute("DELETE FROM message WHERE queue=?", (queue,)).rowcount

    def close(self) -> None:
        if self.closed:
            return
        try:
            with contextlib.suppress(sqlite3.Error):  # a disk that is full, say; the next consumer clears dead owners anyway
                self._db.execute("UPDATE message SET owner=NULL WHERE owner=?", (self._owner,))
            super().close()
        finally:
            self._db.close()
            while self._locks:
                os.close(self._locks.pop())


class Transport(virtual.Transport):
    """`Connection(transport="shared.sqlite_bus:Transport", transport_options={"path": …})`."""

    Channel = Channel
    driver_type = "sqlite"
    driver_name = "sqlite3"
    connection_errors = (*virtual.Transport.connection_errors, sqlite3.Error, OSError)

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self._bells: dict[str, Doorbell] = {}

    def bell(self, queue: str) -> Doorbell:
        """The doorbell of a queue's consumer."""
        if queue not in self._bells:
            self._bells[queue] = Doorbell(Path(f"{self.client.transport_options['path']}.{queue}.bell"))
        return self._bells[queue]

    def close_connection(self, connection: Any) -> None:
        super().close_connection(connection)
        while self._bells:
            self._bells.popitem()[1].close()

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver one message; raises `TimeoutError` if none came in time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                self.cycle.get(self._deliver, timeout=timeout)
            except Empty:
                left = LOOK_EVERY if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError from None
                self.bell(next(iter(self._callbacks), "none")).wait(min(left, LOOK_EVERY))
            else:
                return

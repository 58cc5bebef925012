"""The raw limits of kombu, the databases and the signature, measured here and now, without any of our own work between."""

import hashlib
import os
import secrets
import statistics
import time
from collections.abc import Iterator

import psycopg
from kombu import Connection, Consumer, Producer, Queue
from sqlalchemy import text

from shared.db import Database
from shared.keys import KeyPair, verified
from tests.benchmarks.bench import Bench, Row, percentile, spread, take_turns

ROUNDS = 3
BODY = os.urandom(350).hex().encode()
"""As long as the message of `limits.md` A1."""
QUEUE = Queue("limit", durable=True, queue_arguments={"x-queue-type": "quorum"})
UPSERT = "INSERT INTO item SELECT {what} ON CONFLICT (source, seq) DO UPDATE SET body=excluded.body"
SAID = {
    "kombu publish": ("700 B, 500 confirms awaited at once", "messages/s"),
    "kombu consume": ("700 B, ack per 250", "messages/s"),
    "PostgreSQL COPY": ("500 rows, upserted from there, per transaction", "rows/s"),
    "PostgreSQL commit": ("a row per transaction", "rows/s"),
    "SQLite commit": ("a row per transaction, synchronous=FULL", "rows/s"),
    "verify": ("Ed25519, libsodium (CPU)", "µs"),
    "SHA-256": ("of 700 B (CPU)", "µs"),
}


def run(bench: Bench) -> Iterator[Row]:
    with Connection(bench.rabbit.url) as connection, psycopg.connect(bench.postgres.fresh_database()) as rows:
        courier, database, disk = _Courier(connection), _Rows(rows), _Disk(bench)
        cases = (courier.publish, courier.consume, database.copied, database.single, disk.commits, _verify, _digest)
        given = take_turns(ROUNDS, dict(zip(SAID, cases, strict=True)))
        hop = courier.hop()
    bench.limits |= {name: statistics.median(values) for name, values in given.items()}
    bench.limits["kombu hop"] = hop[1]
    for name, (how, unit) in SAID.items():
        yield Row(f"limit: {name}, {how}", spread(given[name], unit, 1 if name == "SHA-256" else 0))
    yield Row("limit: kombu hop, publish → delivered, one at a time", f"p50 {hop[0]:.1f}, p95 {hop[1]:.1f} ms")


class _Courier:
    """kombu on a quorum queue."""

    MESSAGES = 4000

    def __init__(self, connection: Connection) -> None:
        self._connection, self._channel = connection, connection.default_channel
        QUEUE.bind(self._channel).declare()
        self._channel.confirm_select()
        self._sent = self._held = 0
        self._channel.events["basic_ack"].add(self._confirmed)
        self._producer = Producer(self._channel, auto_declare=False)

    def _confirmed(self, tag: int, multiple: bool) -> None:  # noqa: FBT001  # py-amqp's signature
        self._held = max(self._held, tag)  # one queue confirms in order

    def _send(self, count: int) -> None:
        self._sent += count
        for _ in range(count):
            self._producer.publish(BODY, routing_key=QUEUE.name, content_type="application/octet-stream", delivery_mode=2)

    def publish(self) -> float:
        begin = time.perf_counter()
        for _ in range(self.MESSAGES // 500):
            self._send(500)
            self._await_confirms()
        return self.MESSAGES / (time.perf_counter() - begin)

    def _await_confirms(self) -> None:
        while self._held < self._sent:
            self._connection.drain_events(timeout=10)

    def consume(self) -> float:
        taken = []
        with Connection(self._connection.as_uri(include_password=True)) as apart:
            channel = apart.default_channel

            def take(message) -> None:
                taken.append(message)
                if len(taken) % 250 == 0:
                    channel.basic_ack(message.delivery_tag, multiple=True)

            begin = time.perf_counter()
            with Consumer(channel, [QUEUE], on_message=take, prefetch_count=500, auto_declare=False):
                while len(taken) < self.MESSAGES:
                    apart.drain_events(timeout=10)
            return self.MESSAGES / (time.perf_counter() - begin)

    def hop(self) -> tuple[float, float]:
        """From a publish to its delivery on another connection: p50 and p95 in ms."""
        times = []
        with Connection(self._connection.as_uri(include_password=True)) as apart:
            here = []

            def take(message) -> None:
                here.append(time.perf_counter())
                message.ack()

            with Consumer(apart.default_channel, [QUEUE], on_message=take, auto_declare=False):
                for _ in range(100):
                    begin = time.perf_counter()
                    self._send(1)
                    while not here:
                        apart.drain_events(timeout=10)
                    times.append(1000 * (here.pop() - begin))
                    self._await_confirms()
        return percentile(times, 0.5), percentile(times, 0.95)


class _Rows:
    """psycopg on one table that is unique on (source, seq)."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._last = 0
        connection.execute("CREATE TABLE item (source int, seq bigint, body text, PRIMARY KEY (source, seq))")
        connection.execute("CREATE TEMP TABLE incoming (source int, seq bigint, body text) ON COMMIT DELETE ROWS")
        connection.commit()

    def _next(self, count: int) -> range:
        self._last += count
        return range(self._last - count, self._last)

    def copied(self) -> float:
        body, begin = BODY.decode(), time.perf_counter()
        for _ in range(20):
            with self._connection.cursor() as cursor:
                with cursor.copy("COPY incoming FROM STDIN") as copy:
                    for seq in self._next(500):
                        copy.write_row((1, seq, body))
                cursor.execute(UPSERT.format(what="* FROM incoming"))
            self._connection.commit()
        return 20 * 500 / (time.perf_counter() - begin)

    def single(self) -> float:
        body, begin = BODY.decode(), time.perf_counter()
        for seq in self._next(500):
            self._connection.execute(UPSERT.format(what="%s, %s, %s"), (1, seq, body))
            self._connection.commit()
        return 500 / (time.perf_counter() - begin)


class _Disk:
    """SQLite as the nodes use it: WAL, synchronous=FULL."""

    def __init__(self, bench: Bench) -> None:
        self._database = Database(f"sqlite:///{bench.folder('limits') / 'limits.db'}")
        with self._database.transaction() as session:
            session.execute(text("CREATE TABLE item (seq INTEGER PRIMARY KEY, body BLOB)"))

    def commits(self) -> float:
        begin = time.perf_counter()
        for _ in range(500):
            with self._database.transaction() as session:
                session.execute(text("INSERT INTO item (body) VALUES (:body)"), {"body": BODY})
        return 500 / (time.perf_counter() - begin)


def _verify() -> float:
    key = KeyPair.of(secrets.token_bytes(32))
    digest = hashlib.sha256(BODY).digest()
    signature, begin = key.sign(b"bench", digest), time.process_time()
    for _ in range(2000):
        verified(key.public, signature, b"bench", digest)
    return 1e6 * (time.process_time() - begin) / 2000


def _digest() -> float:
    begin = time.process_time()
    for _ in range(20_000):
        hashlib.sha256(BODY).digest()
    return 1e6 * (time.process_time() - begin) / 20_000

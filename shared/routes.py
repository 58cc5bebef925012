"""The bus's exchange, queues and keys, as plain values: for who declares them, grants them, or reckons with them (design §4, Bus).

One topic exchange; a town publishes under its own key and may do nothing else. There is one ingest queue that takes every key, or
there are several **partitions**, so that several workers can take in: a town's key is bound to one of them, by a hash of its name
that is the same everywhere and for ever, so the order per town is kept. How many there are stands in a partition's name, so a queue
never changes whose it is. Where a key is bound to no queue, its town's publish raises and its relay waits (I20).

Every queue is a quorum queue with one consumer at a time; a full one refuses, and the towns' relays wait.
"""

import re
import zlib
from collections.abc import Iterable
from typing import Any

EXCHANGE = "tuinkoepel.events"
DEAD = "hub.dead"
INGEST = "hub.ingest"
ANY_TOWN = "town.*.log"
QUEUE_BYTES_MAX = 1024**3

DEAD_ARGUMENTS: dict[str, Any] = {"x-queue-type": "quorum"}
ARGUMENTS: dict[str, Any] = {
    "x-queue-type": "quorum",
    "x-single-active-consumer": True,
    "x-max-length-bytes": QUEUE_BYTES_MAX,
    "x-overflow": "reject-publish",  # a full queue refuses, and the town's relay waits
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": DEAD,
    "x-dead-letter-strategy": "at-least-once",
    "x-delivery-limit": 1_000_000,  # RabbitMQ 4 would drop after 20; -1 loses messages on 3.x
}


def key_of(town: str) -> str:
    """What a town publishes under."""
    return f"town.{town}.log"


def partition_of(town: str, partitions: int) -> int:
    """Which of so many partitions takes in this town."""
    return zlib.crc32(town.encode()) % partitions


def queue_of(partition: int, partitions: int) -> str:
    """A partition's queue."""
    return INGEST if partitions == 1 else f"{INGEST}.{partition}-of-{partitions}"


def ingest_queues(partitions: int, towns: Iterable[str]) -> dict[str, list[str]]:
    """The queues of so many partitions, each with the keys that are bound to it. With one partition no town need be known."""
    if partitions == 1:
        return {INGEST: [ANY_TOWN]}
    queues: dict[str, list[str]] = {queue_of(partition, partitions): [] for partition in range(partitions)}
    for town in towns:
        queues[queue_of(partition_of(town, partitions), partitions)].append(key_of(town))
    return queues


def rights_of(town: str) -> tuple[dict[str, str], dict[str, str]]:
    """What a town's user may do in general, and under which key it may publish, as RabbitMQ's patterns.

    The key is written out, for RabbitMQ puts a user's name into a pattern unescaped.
    """
    nothing = "^$"
    may = {"configure": nothing, "write": f"^{re.escape(EXCHANGE)}$", "read": nothing}
    return may, {"exchange": EXCHANGE, "write": f"^{key_of(town).replace('.', '[.]')}$", "read": nothing}

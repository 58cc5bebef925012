"""The consumer that most of us would write first: one event per message, an ORM session and a commit for each, then the ack.

It does what the hub does, with the same care: verifies chain and signature, stores the event, moves the town's cursor, runs the
same projection handlers and merges the rows they name, gives the event its number in the feed, and the feed's chain. It is not made
slow on purpose: keys are looked up once, messages are prefetched, a signature is verified once for storing and forwarding together.
"""

import hashlib
from typing import Any

from kombu import Connection, Producer, Queue
from kombu.mixins import ConsumerMixin
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, registry

from services.hub.worker import PROJECTIONS
from shared import feed, inbox
from shared.db import Base
from shared.envelope import NO_HASH, Entry, read_event, signed_by, unpack
from shared.events import Event, event_class
from shared.pins import pin
from shared.projections import Rows

QUEUE = Queue("naive.ingest", durable=True, queue_arguments={"x-queue-type": "quorum"})
PREFETCH = 50


class StoredEvent:
    """A row of `inbox`, as a mapped class."""


class TownCursor:
    """A row of `inbox_cursor`."""


class FeedItem:
    """A row of `feed`."""


class FeedState:
    """The one row of `feed_state`."""


_mapped = registry(metadata=Base.metadata)
for _cls, _table in {
    StoredEvent: inbox.inbox,
    TownCursor: inbox.inbox_cursor,
    FeedItem: feed.feed,
    FeedState: feed.feed_state,
}.items():
    _mapped.map_imperatively(_cls, _table)
_MODELS = {mapper.local_table: mapper.class_ for mapper in Base.registry.mappers}


def publish_singly(url: str, messages: list[bytes]) -> None:
    """Put one event per message on the naive consumer's queue, and see that the broker holds all."""
    with Connection(url, transport_options={"confirm_publish": True}) as connection:
        channel = connection.default_channel
        QUEUE.bind(channel).declare()
        producer = Producer(channel, auto_declare=False)
        for message in messages:
            producer.publish(message, routing_key=QUEUE.name, content_type="application/octet-stream", delivery_mode=2)


class NaiveConsumer(ConsumerMixin):
    """Consumes until it has stored so many events."""

    def __init__(self, connection: Connection, database: str, count: int) -> None:
        self.connection = connection
        self._left = count
        self._engine = create_engine(database)
        with Session(self._engine) as session:
            self._keys = {(row.town, row.key_id): bytes(row.public_key) for row in session.execute(select(pin))}

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:  # noqa: N803  # kombu's
        return [Consumer([QUEUE], on_message=self.on_message, prefetch_count=PREFETCH)]

    def on_message(self, message: Any) -> None:
        entry = unpack(bytes(message.body)).entries[0]
        with Session(self._engine) as session:
            if self._accept(session, entry):
                happened = read_event(entry)
                if happened is not None:
                    self._project(session, entry.says.town, happened)
                self._forward(session, entry)
                session.commit()
        message.ack()
        self._left -= 1
        if not self._left:
            self.should_stop = True

    def _accept(self, session: Session, entry: Entry) -> bool:
        says = entry.says
        if not signed_by(entry, self._keys[says.town, says.key_id]):
            return False
        cursor = session.get(TownCursor, says.town)
        if cursor is None:
            cursor = TownCursor(town=says.town, epoch=says.epoch, seq=0, hash=NO_HASH, trouble="")
            session.add(cursor)
        if says.seq != cursor.seq + 1 or says.prevhash != cursor.hash:
            return False
        cursor.seq, cursor.hash = says.seq, entry.hash
        stored = {"town": says.town, "epoch": says.epoch, "seq": says.seq, "type": says.type, "subject": says.subject}
        stored |= {"header": entry.header, "hash": entry.hash, "signature": entry.signature, "salt": entry.salt, "body": entry.body}
        session.add(StoredEvent(**stored))
        return True

    def _project(self, session: Session, town: str, happened: Event) -> None:
        for projection in PROJECTIONS:
            handler = projection.handlers.get(type(happened))
            if handler is None:
                continue
            rows = Rows()
            handler(rows, town, happened)
            for table, by_key in rows._tables.items():
                for key, row in by_key.items():
                    if row is not None:
                        session.merge(_MODELS[table](**row))
                    elif (gone := session.get(_MODELS[table], key)) is not None:
                        session.delete(gone)

    def _forward(self, session: Session, entry: Entry) -> None:
        known = event_class(entry.says.type)
        if known is None or known[0].audience != "all":
            return
        state = session.get(FeedState, 1)
        if state is None:
            state = FeedState(one=1, id="naive", last=0, chain=b"")
            session.add(state)
        state.last, state.chain = state.last + 1, hashlib.sha256(state.chain + entry.hash).digest()
        place = {"town": entry.says.town, "epoch": entry.says.epoch, "seq": entry.says.seq}
        session.add(FeedItem(number=state.last, chain=state.chain, **place))

    def close(self) -> None:
        self.connection.release()
        self._engine.dispose()


def naive_consumer(url: str, database: str, count: int) -> NaiveConsumer:
    return NaiveConsumer(Connection(url), database, count)

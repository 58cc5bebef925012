"""Two towns, a hub and a courier in memory, all of the real kernel: what can be put back, copied and robbed, for the tests of it.

The courier is a list. A backup is the image of a database; the sidecars lie beside it and are not in it.
"""

import hashlib
import random
from datetime import UTC, datetime, timedelta

from sqlalchemy import Column, MetaData, String, Table, delete, select

from services.hub.forwarding import forward, forwarded
from services.hub.towns.joining import Town
from services.hub.towns.setback import keep_in_step
from services.hub.worker import speak_for_association
from shared import feed, heads
from shared.db import Database, upsert
from shared.erasure import redact
from shared.eventlog import Author, append, change_key, open_epoch, read_head, read_log
from shared.events import LessonRevised, LessonShared, LessonWithdrawn, TownAdmitted
from shared.inbox import KOEPEL, accept_messages, inbox_cursor
from shared.keys import KeyPair, to_text
from shared.pins import ROTATES, follow_key, pin, pin_key, rotated, rotation_proof
from shared.projections import Projection, Rows, apply, rebuild
from shared.relay import relay_step
from shared.restore import (
    Slice,
    check_tail,
    come_back,
    comeback,
    conflict,
    contradicts,
    fetch_tail,
    note_setback,
    set_back,
    setback,
)
from tests.shared.worlds import KERNEL, lesson

SLUGS = ("almere", "breda")
CODES = ("lesson-1", "lesson-2", "lesson-3")
TABLES = MetaData()
own_lesson = Table("own_lesson", TABLES, Column("code", String, primary_key=True), Column("title", String))
told_lesson = Table(
    "told_lesson", TABLES, *(Column(name, String(160), primary_key=name != "title") for name in ("town", "lesson", "title"))
)
EXTRA = [
    *(heads.known_head, heads.ingest_pulse, heads.received_head, feed.feed, feed.feed_state, feed.feed_cursor, forwarded),
    *(setback, comeback, conflict, Town.__table__),
]
START = datetime(2015, 6, 1, 12, tzinfo=UTC)


def fold_into(table: Table) -> Projection:
    made = Projection("lessons", [table])

    @made.on(LessonShared, LessonRevised)
    def keep(rows: Rows, town: str, happened: LessonShared) -> None:
        rows.put(table, town=town, lesson=happened.lesson, title=happened.title)

    @made.on(LessonWithdrawn)
    def forget(rows: Rows, town: str, happened: LessonWithdrawn) -> None:
        rows.drop(table, town=town, lesson=happened.lesson)

    return made


def retell(session, today):
    for row in session.execute(select(own_lesson).order_by(own_lesson.c.code)):
        yield lesson(row.title, code=row.code, kind=LessonRevised)


SLICE = Slice("lessons", retell)


@SLICE.put_back(LessonShared, LessonRevised)
def put_back_lesson(session, happened, today):
    upsert(session, own_lesson, [{"code": happened.lesson, "title": happened.title}])


@SLICE.put_back(LessonWithdrawn)
def put_back_withdrawal(session, happened, today):
    session.execute(delete(own_lesson).where(own_lesson.c.code == happened.lesson))


class Sidecar:
    """The file beside the database, which is not in its backup."""

    def __init__(self) -> None:
        self.said: dict = {}

    def read(self) -> dict:
        return dict(self.said)

    def note(self, **said) -> None:
        self.said = said


def open_database() -> Database:
    database = Database("sqlite://")
    for metadata, tables in ((KERNEL[0].metadata, [*KERNEL, *EXTRA]), (TABLES, None)):
        metadata.create_all(database.engine, tables=tables)
    return database


def image(database: Database) -> bytes:
    return database.engine.raw_connection().driver_connection.serialize()


def put_image(database: Database, backup: bytes) -> None:
    database.engine.raw_connection().driver_connection.deserialize(backup)


class Hub:
    """Registry, inbox, projection, feed, and the association's own log."""

    def __init__(self, world: "World") -> None:
        self.world, self.random = world, random.Random("hub")
        self.key = KeyPair.of(hashlib.sha256(b"koepel").digest())
        self.database, self.projection = open_database(), fold_into(told_lesson)
        self.author = Author(KOEPEL, self.key, world.clock, self.random.randbytes)
        self.database.info["author"] = self.author
        self.sidecar, self.under_way, self.is_older = Sidecar(), [], False
        with self.database.transaction() as session:
            open_epoch(session, self.author)
            pin_key(session, KOEPEL, self.key.public, world.clock())
            rebuild(session, [self.projection])

    def admit(self, slug: str, key: KeyPair) -> None:
        with self.database.transaction() as session:
            name, now = slug.capitalize(), self.world.clock()
            session.add(Town(slug=slug, name=name, code_hash=slug, code_until=now, made_at=now, joined_at=now, key_id=key.key_id))
            pin_key(session, slug, key.public, now)
            append(session, TownAdmitted(town=slug, name=name, key_id=key.key_id, public_key=to_text(key.public)))

    def accept(self, raws) -> list[str]:
        with self.database.transaction() as session:
            return [outcome.verdict for outcome in accept_messages(session, raws, self.world.clock())]

    def digest(self) -> None:
        speak_for_association(self.database)
        while True:
            with self.database.transaction() as session:
                looked = apply(session, [self.projection])
            with self.database.transaction() as session:
                numbered = forward(session, self.random.randbytes(8).hex())
            if not looked and not numbered:
                break
        keep_in_step(self.database, self.sidecar)

    def start(self) -> None:
        """A worker starts: if the hub was put back, it begins a new feed, and the association a new epoch."""
        if not self.sidecar.said and self.is_older:
            keep_in_step(self.database, self.sidecar, put_back=True)  # an operator says so: the file is gone too
        self.is_older = False
        keep_in_step(self.database, self.sidecar)

    def shown(self, slug: str) -> dict:
        with self.database.reading() as session:
            query = select(told_lesson.c.lesson, told_lesson.c.title).where(told_lesson.c.town == slug)
            return dict(session.execute(query).all())


class Node:
    """A town: its lessons, its log, and what it knows of the other town."""

    def __init__(self, world: "World", slug: str) -> None:
        self.world, self.slug, self.random = world, slug, random.Random(slug)
        self.previous = None
        self.key = self.first_key = KeyPair.of(self.random.randbytes(32))
        self.database, self.library = open_database(), fold_into(told_lesson)
        self.sidecar, self.backups, self.erased = Sidecar(), [], set()
        world.hub.admit(slug, self.key)
        with self.database.transaction() as session:
            open_epoch(session, self.author)
            pin_key(session, slug, self.key.public, world.clock())
            pin_key(session, KOEPEL, world.hub.key.public, world.clock())
            rebuild(session, [self.library])
        self.start()

    @property
    def author(self) -> Author:
        made = Author(self.slug, self.key, self.world.clock, self.random.randbytes, self.previous)
        self.database.info["author"] = made
        return made

    def start(self) -> None:
        self.instance, self.may_send, self.frozen = self.random.randbytes(8).hex(), False, False
        _ = self.author
        with self.database.transaction() as session:
            if contradicts(session, self.sidecar):
                note_setback(session, "sidecar", self.world.clock())

    def tell(self, code: str, title: str | None) -> None:
        with self.database.transaction() as session:
            if title is None:
                session.execute(delete(own_lesson).where(own_lesson.c.code == code))
                append(session, LessonWithdrawn(lesson=code))
            else:
                upsert(session, own_lesson, [{"code": code, "title": title}])
                append(session, lesson(title, code=code))

    def erase(self, code: str) -> None:
        with self.database.transaction() as session:
            session.execute(delete(own_lesson).where(own_lesson.c.code == code))
            redact(session, self.slug, code)
        self.erased.add(code)

    def rotate(self) -> None:
        fresh = KeyPair.of(self.random.randbytes(32))
        with self.database.transaction() as session:
            last = read_head(session)
            place = rotation_proof(self.slug, last.epoch, last.seq + 1, last.hash)
            append(session, rotated(fresh.key_id, fresh.public, fresh.sign(ROTATES, place)))
            follow_key(session, self.slug, self.key.key_id, fresh.public, last.epoch, last.seq + 1, self.world.clock())
            change_key(session, fresh.key_id)
        self.previous, self.key = self.key, fresh
        _ = self.author

    def relay(self, publish) -> int:
        sent = relay_step(self.database, publish) if self.may_send else 0
        if sent:
            with self.database.reading() as session:
                last = read_head(session)
            self.sidecar.note(epoch=last.epoch, seq=last.seq, hash=last.hash.hex())
        return sent

    def call(self) -> str:
        with self.database.reading() as session:
            keys = heads.calling_keys(session, self.author)
        for key in keys:
            try:
                answer = self.exchange(key)
                break
            except heads.NotAuthentic:
                if key is keys[-1]:
                    raise
        self.frozen = answer.status == "frozen"
        if self.frozen:
            self.may_send = False
            return "frozen"
        with self.database.reading() as session:
            behind = set_back(session) is not None
        if behind and answer.quiet:
            self.come_back()
        self.may_send = not behind or answer.quiet
        return answer.status

    def exchange(self, key: KeyPair) -> heads.Answer:
        for _ in range(2):
            with self.database.reading() as session:
                body, signature, nonce = heads.ask(session, self.author, self.instance, feed.pull_cursor(session), key)
            with self.world.hub.database.transaction() as session:
                said, signed, _ = heads.answer_call(
                    session, self.world.hub.author, body, to_text(signature), feed.feed_head(session), self.world.clock(),
                    self.random.randbytes(16).hex(),
                )  # fmt: skip
            hub_key = self.world.hub.key.public
            answer = heads.hear(self.database, self.author, said, to_text(signed), nonce, hub_key, self.world.clock())
            if answer.status != "stale":
                break
        return answer

    def come_back(self) -> None:
        def fetch(epoch: str, after: int) -> bytes:
            with self.world.hub.database.reading() as session:
                return feed.read_tail(session, self.slug, epoch, after)

        with self.database.transaction() as session:
            tail, common = fetch_tail(session, self.author, fetch)
            keys = [bytes(row.public_key) for row in session.execute(select(pin).where(pin.c.town == self.slug))]
            check_tail(tail, self.slug, [*keys, self.key.public])
            come_back(session, self.author, tail, common, [SLICE], self.world.clock())

    def pull(self) -> None:
        for _ in range(100):
            with self.database.reading() as session:
                cursor = feed.pull_cursor(session)
            with self.world.hub.database.reading() as session:
                page = feed.read_page(session, *cursor)
            with self.database.transaction() as session:
                if not feed.accept_page(session, page, self.slug, self.world.clock()):
                    break
            with self.database.transaction() as session:
                while apply(session, [self.library]):
                    pass

    @property
    def own(self) -> dict:
        with self.database.reading() as session:
            return dict(session.execute(select(own_lesson.c.code, own_lesson.c.title)).all())

    @property
    def entries(self) -> list:
        with self.database.reading() as session:
            return list(read_log(session, read_head(session).epoch, 0, 100_000))

    def library_of(self, slug: str) -> dict:
        with self.database.reading() as session:
            query = select(told_lesson.c.lesson, told_lesson.c.title).where(told_lesson.c.town == slug)
            return dict(session.execute(query).all())


class World:
    """Two nodes, a hub, a clock."""

    def __init__(self) -> None:
        self.now = START
        self.hub = Hub(self)
        self.nodes: dict[str, Node] = {}
        for slug in SLUGS:
            self.nodes[slug] = Node(self, slug)

    def clock(self) -> datetime:
        return self.now

    def pump(self, rounds: int = 1) -> None:
        """Everything runs, and the heads are compared, so many times."""
        for _ in range(rounds):
            self.now += timedelta(seconds=30)
            self.hub.start()
            with self.hub.database.transaction() as session:
                heads.show_pulse(session, self.clock(), empty=not self.hub.under_way)
            for node in self.nodes.values():
                node.call()
                while node.relay(self.hub.under_way.append):
                    pass
            raws, self.hub.under_way[:] = list(self.hub.under_way), []
            self.hub.accept(raws)
            self.hub.digest()
            for node in self.nodes.values():
                node.pull()

    def frozen(self) -> set[str]:
        with self.hub.database.reading() as session:
            return set(session.scalars(select(inbox_cursor.c.town).where(inbox_cursor.c.frozen_at.is_not(None))))

    def thaw(self) -> None:
        with self.hub.database.transaction() as session:
            for slug in self.frozen():
                heads.thaw(session, slug, self.clock())

    def heal(self) -> None:
        """The operators do their work: one copy of each node runs, and the association thaws what stood still."""
        for _ in range(30):
            self.pump()
            if self.frozen():
                self.now += timedelta(hours=1)
                self.thaw()
            elif self.is_quiet():
                return

    def is_quiet(self) -> bool:
        """Nothing is under way any more: every log has arrived, and every feed is read to its end."""
        for node in self.nodes.values():
            with node.database.reading() as session:
                last, cursor = read_head(session), feed.pull_cursor(session)
                if set_back(session) is not None:
                    return False
            with self.hub.database.reading() as session:
                held = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == node.slug)).first()
                if cursor[:2] != feed.feed_head(session):
                    return False
            told = last.seq or (held is not None and held.seq)
            if told and (held is None or (held.epoch, held.seq, bytes(held.hash)) != (last.epoch, last.seq, last.hash)):
                return False
        return True

    def close(self) -> None:
        for database in (self.hub.database, *(node.database for node in self.nodes.values())):
            database.close()


def agreed(world: World) -> None:
    """Hub, towns and their logs say the same."""
    for slug, node in world.nodes.items():
        assert world.hub.shown(slug) == node.own
        other = next(one for one in world.nodes.values() if one is not node)
        assert other.library_of(slug) == node.own
        with world.hub.database.reading() as session:
            cursor = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == slug)).first()
        with node.database.reading() as session:
            last = read_head(session)
        if last.seq:
            assert (cursor.epoch, cursor.seq, bytes(cursor.hash)) == (last.epoch, last.seq, last.hash)
        with world.hub.database.transaction() as session:
            rebuild(session, [world.hub.projection])
        assert world.hub.shown(slug) == node.own


def settled(world: World) -> tuple[Node, Node]:
    """Both towns have told something, and all of it arrived."""
    almere, breda = world.nodes.values()
    almere.tell("lesson-1", "Vraag vroeg om water")
    breda.tell("lesson-1", "Begin klein")
    world.pump(3)
    agreed(world)
    return almere, breda


def put_back(node: Node, backup: bytes, *, sidecar: bool = False) -> None:
    put_image(node.database, backup)
    if not sidecar:
        node.sidecar.said = {}
    node.start()

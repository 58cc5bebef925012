"""Two towns, a hub and a courier in memory, all of the real kernel: what can be put back, copied and robbed, for the tests of it.

The courier is a list. A backup is the image of a database; what the README says to keep outside it lies beside it and is not in it:
the keys, the lists of erasures and of keys, the sidecars. What starts, starts in the order in which the real processes do.

A process can die at any commit (`mortal.py`). Whoever lights its fuse catches `Died`, and starts it anew.
"""

import contextlib
import dataclasses
import hashlib
import random
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select

from services.hub.forwarding import forward, forwarded
from services.hub.towns.joining import PROOF, Town, join_town, readmit_town
from services.hub.towns.keyring import recall
from services.hub.towns.setback import keep_in_step
from services.hub.worker import speak_for_association
from services.town_node.circle.membership import name_key
from services.town_node.worker import note_confirmed
from shared import feed, heads
from shared.db import upsert
from shared.envelope import Malformed, unpack
from shared.erasure import EVERYWHERE, ask_again, note_erasures, redact, replay
from shared.eventlog import Author, append, change_key, lock_head, open_epoch, read_head, read_log
from shared.events import LessonWithdrawn, Redacted, TownAdmitted
from shared.inbox import KOEPEL, accept_messages, inbox_cursor
from shared.keys import KeyPair, to_text
from shared.pins import epoch_order, pin_key
from shared.projections import apply, rebuild
from shared.quarantine import quarantine
from shared.relay import relay_step
from shared.restore import (
    NoTail,
    check_tail,
    come_back,
    comeback,
    conflict,
    contradicts,
    fetch_tail,
    note_setback,
    set_back,
    setback,
    settle_conflict,
)
from tests.federation.little_town import SLICE, TABLES, fold_into, own_lesson, told_lesson
from tests.federation.mortal import (
    Erasures,
    Fuse,
    Keys,
    MortalDatabase,
    Place,
    Sidecar,
    held_by,
    last_key_has_ended,
    place_of,
    put_image,
)
from tests.shared.worlds import KERNEL, lesson

SLUGS = ("almere", "breda")
CODES = ("lesson-1", "lesson-2", "lesson-3")
EXTRA = [
    *(heads.known_head, heads.ingest_pulse, heads.received_head, feed.feed, feed.feed_state, feed.feed_cursor, forwarded),
    *(setback, comeback, conflict, Town.__table__),
]
START = datetime(2015, 6, 1, 12, tzinfo=UTC)


def open_database(fuse: Fuse) -> MortalDatabase:
    database = MortalDatabase(fuse)
    for metadata, tables in ((KERNEL[0].metadata, [*KERNEL, *EXTRA]), (TABLES, None)):
        metadata.create_all(database.engine, tables=tables)
    return database


class Hub:
    """Registry, inbox, projection, feed, and the association's own log."""

    def __init__(self, world: "World") -> None:
        self.world, self.random = world, random.Random("hub")
        self.key = KeyPair.of(hashlib.sha256(b"koepel").digest())
        self.fuse = Fuse(self)
        self.database, self.projection = open_database(self.fuse), fold_into(told_lesson)
        self.author = Author(KOEPEL, self.key, world.clock, self.random.randbytes)
        self.database.info["author"] = self.author
        self.sidecar, self.erasures, self.keys, self.under_way, self.is_older = Sidecar(), Erasures(), Keys(), [], False
        self.taken: dict[bytes, None] = {}
        """Every message that ever came over the bus, in the order of their first coming."""
        self.forgotten: set[tuple[Place, bytes]] = set()
        """What it held before it was put back, and not after."""
        self.database.after_append = lambda: self.keys.note(self.database)
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

    def take(self, many: int) -> None:
        """The next messages from the bus; who called acknowledges them."""
        self.taken |= dict.fromkeys(self.under_way[:many])
        self.accept(self.under_way[:many])

    def accept(self, raws) -> list[str]:
        held = held_by(self.database)
        with self.database.transaction() as session:
            outcomes = accept_messages(session, raws, self.world.clock())
        self.saw_every_fork(held, raws, outcomes)
        return [outcome.verdict for outcome in outcomes]

    def saw_every_fork(self, held: dict[Place, bytes], raws, outcomes) -> None:
        """Who tells something else at a place that is taken stands still, and is not taken for a late repeat (I13)."""
        frozen = self.world.frozen()
        for raw, outcome in zip(raws, outcomes, strict=True):
            with contextlib.suppress(Malformed):
                says = {place_of(entry): entry.hash for entry in unpack(raw).entries}
                if any(held.get(place, hashed) != hashed for place, hashed in says.items()):
                    assert outcome.verdict in {"forked", "frozen", "other_epoch", "unknown_key", "ended_key", "bad_signature"}
                elif outcome.verdict == "stored":
                    held |= says
            assert outcome.verdict not in {"forked", "frozen"} or outcome.town in frozen

    def put_back(self, backup: bytes, *, sidecar: bool = True) -> None:
        """Its database, from a backup; whoever did it starts it anew."""
        before = held_by(self.database)
        put_image(self.database, backup)
        self.forgotten |= before.items() - held_by(self.database).items()
        self.is_older = True
        if not sidecar:
            self.sidecar.said = {}

    def digest(self) -> None:
        speak_for_association(self.database)
        while True:
            with self.database.transaction() as session:
                looked = apply(session, [self.projection])
            with self.database.transaction() as session:
                numbered = forward(session, self.random.randbytes(8).hex())
            if not looked and not numbered:
                break
        note_erasures(self.database, self.erasures)
        keep_in_step(self.database, self.sidecar, self.keys)

    def start(self) -> None:
        """A worker starts: if the hub was put back, it begins a new feed, and the association a new epoch."""
        self.erasures.owes_scrub = True
        replay(self.database, self.erasures, [self.projection], own={EVERYWHERE})
        recall(self.database, self.keys, [self.projection], self.world.clock())
        speak_for_association(self.database)
        if not self.sidecar.said and self.is_older:
            keep_in_step(self.database, self.sidecar, self.keys, put_back=True)  # an operator says so: the file is gone too
        self.is_older = False
        keep_in_step(self.database, self.sidecar, self.keys)
        with self.database.transaction() as session:
            ask_again(session, KOEPEL)

    def shown(self, slug: str) -> dict:
        with self.database.reading() as session:
            query = select(told_lesson.c.lesson, told_lesson.c.title).where(told_lesson.c.town == slug)
            return dict(session.execute(query).all())


class Node:
    """A town: its lessons, its log, and what it knows of the other town."""

    def __init__(self, world: "World", slug: str) -> None:
        self.world, self.slug, self.random = world, slug, random.Random(slug)
        self.next_key = self.previous = None
        self.key = self.first_key = self.accepted = KeyPair.of(self.random.randbytes(32))
        self.library = fold_into(told_lesson)
        self.sidecar, self.erasures, self.backups, self.former, self.fuse = Sidecar(), Erasures(), [], [], Fuse(self)
        self.pages: list[tuple[tuple[str, int, str], bytes]] = []
        """Every page of the feed that it read, and the place it asked from."""
        world.hub.admit(slug, self.key)
        self.database = self.empty_database()
        with self.database.transaction() as session:
            pin_key(session, slug, self.key.public, world.clock())
            open_epoch(session, self.author)
        self.start()

    def empty_database(self) -> MortalDatabase:
        database = open_database(Fuse(self))
        with database.transaction() as session:
            pin_key(session, KOEPEL, self.world.hub.key.public, self.world.clock())
            rebuild(session, [self.library])
        database.fuse = self.fuse
        return database

    @property
    def author(self) -> Author:
        made = Author(self.slug, self.key, self.world.clock, self.random.randbytes, self.previous)
        self.database.info["author"] = made
        return made

    def start(self) -> None:
        """Both processes start, over whatever database lies there; the second half once the node has joined."""
        self.instance, self.may_send, self.frozen = self.random.randbytes(8).hex(), False, False
        self.erasures.owes_scrub = True
        with self.database.reading() as session:
            last, behind = read_head(session), set_back(session)
        if last is None and behind is None:
            return
        if self.next_key is not None and (self.key is None if last is None else last.key_id == self.next_key.key_id):
            self.take_up_next_key()
        self.accepted = self.author.key
        with self.database.transaction() as session:
            last = lock_head(session)
            if last is not None and last.key_id != self.key.key_id:  # the log is older than the key on the disk
                change_key(session, self.key.key_id)
                note_setback(session, "sidecar", self.world.clock())
        with self.database.transaction() as session:
            for town, code in self.erasures.read():
                if town == self.slug:
                    self.forget(session, code)
        replay(self.database, self.erasures, [self.library], own={self.slug, EVERYWHERE})
        with self.database.transaction() as session:
            if contradicts(session, self.sidecar):
                note_setback(session, "sidecar", self.world.clock())
        self.fold()
        note_erasures(self.database, self.erasures)

    def fold(self) -> None:
        with self.database.transaction() as session:
            while apply(session, [self.library]):
                pass

    def forget(self, session, code: str) -> None:
        settle_conflict(session, code)
        SLICE.handlers[Redacted](session, Redacted(redacts=code), self.world.clock().date())

    def tell(self, code: str, title: str | None) -> None:
        with self.database.transaction() as session:
            if title is None:
                session.execute(delete(own_lesson).where(own_lesson.c.code == code))
                append(session, LessonWithdrawn(lesson=code))
            else:
                upsert(session, own_lesson, [{"code": code, "title": title}])
                append(session, lesson(title, code=code))

    @property
    def erased(self) -> set[str]:
        """What this town erased."""
        return {subject for town, subject in self.erasures.read() if town == self.slug}

    def erase(self, code: str) -> None:
        with self.database.transaction() as session:
            self.forget(session, code)
            redact(session, self.slug, code)
        note_erasures(self.database, self.erasures)

    def may_rotate(self) -> bool:
        """One change at a time: the next waits until the association has heard of the last, and the log is whole."""
        with self.database.reading() as session:
            return set_back(session) is None and heads.calling_keys(session, self.author)[0] is self.key

    def rotate(self, *, dies: bool = False) -> None:
        """Take another key; `dies`: once the log names it, before the files do."""
        self.next_key = KeyPair.of(self.random.randbytes(32))
        with self.database.transaction() as session:
            name_key(session, self.author, self.next_key)
        if not dies:
            self.take_up_next_key()

    def take_up_next_key(self) -> None:
        if self.key is not None:
            self.former.append(self.key)
        self.previous, self.key, self.next_key = self.key, self.next_key, None
        _ = self.author

    def relay(self, publish, *, dies: bool = False) -> int:
        """Send the next message; `dies`: once the bus has it, before the sidecar knows."""
        sent = relay_step(self.database, publish) if self.may_send else 0
        if sent and not dies:
            note_confirmed(self.database, self.sidecar)
        return sent

    def join_anew(self) -> None:
        """With a code of the association and another key, because the one before is lost, stolen, or not known there any more.

        Who died at it enters a code once more, and shows the same key.
        """
        self.next_key = self.next_key or KeyPair.of(self.random.randbytes(32))
        with self.world.hub.database.transaction() as session:
            code = readmit_town(session, self.slug, self.world.clock())
            proof = self.next_key.sign(PROOF, code.replace("-", "").encode() + self.next_key.public)
            join_town(session, code, to_text(self.next_key.public), to_text(proof), self.world.clock())
        with self.database.transaction() as session:
            change_key(session, self.next_key.key_id)
            note_setback(session, "lost", self.world.clock())
        self.take_up_next_key()
        self.start()

    def lose_disk(self) -> None:
        """The database and the keys are gone: another machine stands there, which has not joined yet."""
        self.former.append(self.key)
        self.key = self.next_key = self.previous = None
        self.sidecar.said = {}
        self.database.close()
        self.database = self.empty_database()

    @property
    def waits_anew(self) -> bool:
        """Whether it joined anew, and has not come back yet."""
        with self.database.reading() as session:
            behind = set_back(session)
        return behind is not None and behind.why == "lost"

    @property
    def is_empty(self) -> bool:
        """Whether it waits for what the association holds of it: until then nothing can be told."""
        with self.database.reading() as session:
            return read_head(session) is None

    def call(self) -> str:
        """One head exchange and what follows from it; "unknown" if the association knows none of this node's keys, "disowned" if it
        holds only what it has since declared to be nobody's word.
        """
        with self.database.reading() as session:
            keys = heads.calling_keys(session, self.author)
        for key in keys:
            try:
                answer = self.exchange(key)
            except heads.NotAuthentic:
                if key is keys[-1]:
                    return "unknown"
            else:
                self.accepted = key
                break
        self.frozen = answer.status == "frozen"
        if self.frozen:
            self.may_send = False
            return "frozen"
        with self.database.reading() as session:
            behind = set_back(session) is not None
        if behind and answer.quiet:
            try:
                self.come_back()
            except NoTail:  # it waits, and asks again
                assert last_key_has_ended(self.world.hub.database, self.slug)
                return "disowned"
        behind = behind and not answer.quiet
        if not behind and not self.may_send:
            with self.database.transaction() as session:
                ask_again(session, self.slug)
        self.may_send = not behind
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
            anew = set_back(session).why == "lost"
            if not anew:
                check_tail(session, self.author, tail)
            # The association may know the previous key only; then that one speaks, and names the present one at once.
            speaker = dataclasses.replace(self.author, key=self.accepted)
            session.info["author"] = speaker
            change_key(session, speaker.key.key_id)
            come_back(session, speaker, tail, common, [SLICE], self.world.clock(), anew=anew)
            if speaker.key is not self.key:
                name_key(session, speaker, self.key)
        note_erasures(self.database, self.erasures)

    def pull(self) -> None:
        for _ in range(100):
            with self.database.reading() as session:
                cursor = feed.pull_cursor(session)
            with self.world.hub.database.reading() as session:
                page = feed.read_page(session, *cursor)
            if not self.take_page(page):
                break
            self.pages.append((cursor, page))
        note_erasures(self.database, self.erasures)

    def take_page(self, page: bytes) -> int:
        with self.database.transaction() as session:
            moved = feed.accept_page(session, page, self.slug, self.world.clock())
        self.fold()
        return moved

    @property
    def own(self) -> dict:
        with self.database.reading() as session:
            return dict(session.execute(select(own_lesson.c.code, own_lesson.c.title)).all())

    @property
    def entries(self) -> list:
        with self.database.reading() as session:
            last = read_head(session)
            return list(read_log(session, last.epoch, 0, 100_000)) if last is not None else []

    def library_of(self, slug: str) -> dict:
        with self.database.reading() as session:
            query = select(told_lesson.c.lesson, told_lesson.c.title).where(told_lesson.c.town == slug)
            return dict(session.execute(query).all())


class World:
    """Two nodes, a hub, a clock."""

    def __init__(self) -> None:
        self.now, self.heals = START, False
        self.settled_doubts: set[str] = set()
        """The towns that joined anew, because another one holds other words than they do themselves."""
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
                if node.call() in {"unknown", "disowned"} and self.heals:
                    node.join_anew()
                while node.relay(self.hub.under_way.append):
                    pass
            self.hub.take(len(self.hub.under_way))
            self.hub.under_way.clear()  # what was not stored is not acknowledged either
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
        """The operators do their work: one copy of each node runs, and the association thaws what stood still.

        It also gives a code to the town whose key it does not know (any more), and to the town of which another one holds other
        words than it does itself.
        """
        self.heals = True
        for _ in range(30):
            self.pump()
            if self.frozen():
                self.now += timedelta(hours=1)
                self.thaw()
            elif self.is_quiet():
                fresh, overtaken = self.doubted() - self.settled_doubts, self.overtaken()
                if not fresh | overtaken:
                    return
                self.settled_doubts |= fresh
                for slug in sorted(fresh | overtaken):
                    self.nodes[slug].join_anew()

    def doubted(self) -> set[str]:
        """The towns that, as some other town says on its page, told two different things at one place.

        The hub sees that (I13), and lets nobody read the second; unless it was put back, and forgot the first.
        """
        found: set[str] = set()
        for node in self.nodes.values():
            with node.database.reading() as session:
                rows = session.execute(select(quarantine.c.town, quarantine.c.reason).where(quarantine.c.verdict == "forked")).all()
            held = held_by(node.database)
            for town, reason in rows:
                _, _, seq, *_, epoch = reason.split()
                place = town, epoch, int(seq)
                assert (place, held[place]) in self.hub.forgotten
                if held_by(self.hub.database).get(place) != held[place]:  # else the hub was told the first once more since
                    found.add(town)
        return found & self.nodes.keys()

    def overtaken(self) -> set[str]:
        """The towns of which another one holds a later run of numbers, which both the hub and the town itself forgot.

        No program says so yet: somebody has to notice that nothing new of this town is shown there.
        """
        forgotten = {(town, epoch) for (town, epoch, _), _ in self.hub.forgotten}
        found: set[str] = set()
        for slug, node in self.nodes.items():
            with node.database.reading() as session:
                present = read_head(session).epoch
            for other in self.nodes.values():
                runs = select(epoch_order.c.epoch).where(epoch_order.c.town == slug, epoch_order.c.settled.is_not(None))
                with other.database.reading() as session:
                    last = session.scalar(runs.order_by(epoch_order.c.number.desc()).limit(1))
                if last not in {None, present}:
                    assert (slug, last) in forgotten
                    found.add(slug)
        return found

    def is_quiet(self) -> bool:
        """Nothing is under way any more: every log has arrived, and every feed is read to its end."""
        for node in self.nodes.values():
            with node.database.reading() as session:
                last, cursor = read_head(session), feed.pull_cursor(session)
                if set_back(session) is not None or last is None:
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

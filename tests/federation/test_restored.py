"""Nodes and hubs that were put back, copied, robbed or told to forget: all invariants, and in the end one picture (I12–I18).

A state machine over the real kernel with real databases in memory: two towns that also read the feed, a hub with its own log, and a
courier that fails. A backup can be put back at any moment, on either side, also one from long ago; a copy of a node can run beside
it; keys rotate; subjects are erased; strangers forge. After every step it asks for safety; then all is healed and it asks for
convergence.
"""

from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import delete, select

from shared import heads
from shared.envelope import pack, seal
from shared.eventlog import read_head
from shared.events import Redacted
from shared.inbox import erased, inbox
from shared.keys import KeyPair
from shared.restore import (
    proves_setback,
)
from tests.federation.copies import CODES, SLUGS, START, Node, World, agreed, image, own_lesson, put_image
from tests.shared.worlds import lesson

slugs, codes = st.sampled_from(SLUGS), st.sampled_from(CODES)


class Restored(RuleBasedStateMachine):
    """Everything that can go wrong with the copies of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.hub_backups: list[bytes] = []
        self.count = 0

    def node(self, slug: str) -> Node:
        return self.world.nodes[slug]

    @rule(slug=slugs, code=codes, withdraw=st.booleans())
    def a_town_tells(self, slug, code, withdraw):
        if code in self.node(slug).erased:
            return  # what was erased has no code that is used again
        self.count += 1
        self.node(slug).tell(code, None if withdraw else f"Les {self.count}")

    @rule(slug=slugs, lost=st.booleans())
    def a_relay_steps(self, slug, lost):
        self.node(slug).relay((lambda _: None) if lost else self.world.hub.under_way.append)

    @precondition(lambda self: self.world.hub.under_way)
    @rule(data=st.data(), keep=st.booleans())
    def the_hub_accepts(self, data, keep):
        way = self.world.hub.under_way
        many = data.draw(st.integers(1, len(way)))
        self.world.hub.accept(way[:many])
        if not keep:
            del way[:many]

    @rule()
    def the_hub_digests(self):
        self.world.hub.digest()

    @rule(slug=slugs)
    def heads_are_compared(self, slug):
        self.world.now += timedelta(seconds=30)
        self.node(slug).call()

    @rule(slug=slugs)
    def a_town_pulls(self, slug):
        self.node(slug).pull()

    @rule(hours=st.sampled_from([1, 30]))
    def time_passes(self, hours):
        self.world.now += timedelta(hours=hours)

    # -- Backups, copies --

    @rule(slug=slugs)
    def a_node_is_backed_up(self, slug):
        self.node(slug).backups.append(image(self.node(slug).database))

    @precondition(lambda self: any(node.backups for node in self.world.nodes.values()))
    @rule(data=st.data(), sidecar=st.booleans())
    def a_node_is_put_back(self, data, sidecar):
        node = data.draw(st.sampled_from([node for node in self.world.nodes.values() if node.backups]))
        put_image(node.database, data.draw(st.sampled_from(node.backups)))
        if not sidecar:
            node.sidecar.said = {}
        node.start()
        for code in node.erased:  # the list of erasures is kept apart, and replayed
            with node.database.transaction() as session:
                session.execute(delete(own_lesson).where(own_lesson.c.code == code))

    @precondition(lambda self: any(node.backups for node in self.world.nodes.values()))
    @rule(data=st.data())
    def a_copy_of_a_node_runs_beside_it(self, data):
        """It is woken from a backup, calls, tells something and sends; then it is switched off again."""
        node = data.draw(st.sampled_from([node for node in self.world.nodes.values() if node.backups]))
        here, instance, may_send, said, frozen = image(node.database), node.instance, node.may_send, node.sidecar.said, node.frozen
        put_image(node.database, data.draw(st.sampled_from(node.backups)))
        node.sidecar.said = {}
        node.start()
        node.call()
        self.count += 1
        node.tell("lesson-9", f"Van de kopie {self.count}")
        node.relay(self.world.hub.under_way.append)
        put_image(node.database, here)
        node.instance, node.may_send, node.sidecar.said, node.frozen = instance, may_send, said, frozen
        _ = node.author

    @rule()
    def the_hub_is_backed_up(self):
        self.hub_backups.append(image(self.world.hub.database))

    @precondition(lambda self: self.hub_backups)
    @rule(data=st.data(), sidecar=st.booleans())
    def the_hub_is_put_back(self, data, sidecar):
        put_image(self.world.hub.database, data.draw(st.sampled_from(self.hub_backups)))
        if not sidecar:
            self.world.hub.sidecar.said = {}
        self.world.hub.is_older = True
        self.world.hub.start()

    # -- Keys, erasure, strangers --

    @precondition(lambda self: not self.hub_backups and not any(node.backups for node in self.world.nodes.values()))
    @rule(slug=slugs)
    def a_key_rotates(self, slug):
        node = self.node(slug)
        with node.database.reading() as session:
            still = heads.calling_keys(session, node.author)[0] is not node.key
        if not still:  # one change at a time: the next waits until the association has heard of the last
            node.rotate()

    @rule(slug=slugs, code=codes)
    def a_subject_is_erased(self, slug, code):
        if not self.hub_backups and not self.node(slug).backups:
            self.node(slug).erase(code)

    @rule(slug=slugs, own_id=st.booleans())
    def somebody_forges(self, slug, own_id):
        node, thief = self.node(slug), KeyPair.of(bytes(32))
        with node.database.reading() as session:
            last = read_head(session)
        key = KeyPair(thief.seed, thief.public, node.key.key_id) if own_id else thief
        forged = seal(
            lesson("Verzonnen", code="lesson-x"), town=slug, epoch=last.epoch, seq=last.seq + 1, prevhash=last.hash, key=key,
            now=START, salt=bytes(32),
        )  # fmt: skip
        assert self.world.hub.accept([pack([forged])[0]])[0] in {"bad_signature", "unknown_key"}

    @rule(slug=slugs)
    def a_hub_lies(self, slug):
        """It shows an entry that the town never signed: nothing is put back."""
        node, thief = self.node(slug), KeyPair.of(bytes(32))
        with node.database.transaction() as session:
            last = read_head(session)
            lie = seal(
                lesson("Gelogen"), town=slug, epoch=last.epoch, seq=last.seq + 3, prevhash=last.hash,
                key=KeyPair(thief.seed, thief.public, node.key.key_id), now=START, salt=bytes(32),
            )  # fmt: skip
            assert not proves_setback(session, node.author, lie.header, lie.signature)

    # -- Always --

    @invariant()
    def logs_are_whole(self):
        """Contiguous from 1 in every epoch, each entry following the one before, on both sides (I3)."""
        for node in self.world.nodes.values():
            entries = node.entries
            assert [entry.says.seq for entry in entries] == list(range(1, len(entries) + 1))
        with self.world.hub.database.reading() as session:
            rows = session.execute(
                select(inbox.c.town, inbox.c.epoch, inbox.c.seq).order_by(inbox.c.town, inbox.c.epoch, inbox.c.seq)
            )
            counted: dict = {}
            for row in rows:
                counted[row.town, row.epoch] = counted.get((row.town, row.epoch), 0) + 1
                assert row.seq == counted[row.town, row.epoch]

    @invariant()
    def what_was_erased_is_nowhere_once_it_arrived(self):
        with self.world.hub.database.reading() as session:
            for slug, node in self.world.nodes.items():
                for code in node.erased:
                    if session.execute(select(erased).where(erased.c.town == slug, erased.c.subject == code)).first():
                        kept = session.scalars(
                            select(inbox.c.body).where(
                                inbox.c.town == slug,
                                inbox.c.subject == code,
                                inbox.c.type != Redacted.wire,
                                inbox.c.body.is_not(None),
                            )
                        ).all()
                        assert kept == []

    def teardown(self):
        self.world.heal()
        agreed(self.world)
        assert not self.world.frozen()
        self.world.close()


Restored.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestRestored = Restored.TestCase

"""Nodes and hubs that were put back, copied, robbed or told to forget: all invariants, and in the end one picture (I9, I12–I18).

A state machine over the real kernel with real databases in memory: two towns that also read the feed, a third whose node is gone
for ever, a hub with its own log, and a courier that fails. A backup can be put back at any moment, on either side, also one from
long ago; a copy of a node can run beside it; a disk is lost; keys rotate and are revoked; towns erase what they told, and the
association what the third one told; strangers forge, and whoever stole a key that has ended goes on using it. And at any commit,
before or after it is done, a process can die: the step ends there, and it starts anew. After every step it asks for safety; then
all is healed and it asks for convergence, with a fold that knows nothing of the kernel's.

What is put back is the database. The key files, the lists of erasures, the hub's list of keys and the sidecars stay as they are, as
the README wants it of "Backups"; a sidecar may be lost, for which the kernel has other means. An old key file that is put back is
left out: nothing is promised of it, its node is refused until it joins anew. What no protocol can know is assumed, or done by the
operators:

- A hub was put back and forgot what a copy of a town said, or the town itself, which was put back as well and lost its sidecar;
  another town had read it. Only that other town can know, and only once the town says something else at the same place. It refuses
  the second, and says so; the first joins anew, and tells all in a new epoch.
- The same, and what both forgot is a whole epoch of the town's: then the other town shows nothing more of it, and does not even say
  so. Somebody has to notice; the town joins anew.
- A hub that was put back ends a key at an earlier place than what it then holds. A town that was put back as well cannot vouch for
  that tail: it waits, and joins anew.
- A database that is put back while its node waits to come back after joining anew knows nothing of that: it joins anew once more.
- The lists of erasures and keys are written (within a second) before a backup is put back, and kept elsewhere when a disk is lost.
"""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select

from services.hub.towns.joining import held_place
from services.hub.towns.parting import revoke_keys
from shared.db import Database
from shared.envelope import NO_HASH, pack, seal
from shared.erasure import redact
from shared.eventlog import read_head
from shared.events import EXEMPT_FROM_ERASURE, EpochOpened
from shared.feed import pull_cursor
from shared.inbox import EVERYWHERE, accept_entries, erased, inbox, inbox_cursor
from shared.keys import KeyPair
from shared.pins import NEVER, cut_off, epoch_order, place_of, read_pins
from shared.projections import projection_cursor
from shared.restore import proves_setback, set_back
from tests.federation.copies import CODES, SLUGS, START, Node, World, agreed
from tests.federation.mortal import Died, image, put_image
from tests.shared.worlds import lesson

EXAMPLES = int(os.environ.get("TUINKOEPEL_TEST_EXAMPLES", "30"))
"""How many stories are tried; more of them on demand."""
GONE = "cuijk"
"""The town whose node is gone for ever."""
FORGED = "lesson-x"
"""The subject of everything that somebody else says in a town's name."""
COPIED, LAST = "lesson-9", "lesson-10"
"""What a copy tells, and what every town tells when all is healed."""
slugs, codes, gone_codes = st.sampled_from(SLUGS), st.sampled_from([*CODES[:2], COPIED]), st.sampled_from(["left-1", "left-2"])

numbers = st.integers(0, 9)
"""Which backup, counted from the oldest, and round."""
deaths = st.lists(st.tuples(st.integers(1, 25), st.booleans()), max_size=6)
"""After how many commits a process dies, and whether the last one is done; then the same of the process after it."""


def slow_fold(database, slug: str, epoch: str) -> dict:
    """The lessons that stand after what is held of this run of numbers; written without a look at the kernel."""
    query = select(inbox.c.seq, inbox.c.header, inbox.c.body).where(inbox.c.town == slug, inbox.c.epoch == epoch)
    with database.reading() as session:
        rows = sorted(map(tuple, session.execute(query)))
    standing = {}
    for _, header, body in rows:
        kind, says = orjson.loads(header)["type"], orjson.loads(body or b"null")
        if says is None:
            continue
        if kind.endswith(("lesson.shared.v1", "lesson.revised.v1")):
            standing[says["lesson"]] = says["title"]
        elif kind.endswith(("lesson.withdrawn.v1", "redacted.v1")):
            standing.pop(says.get("lesson") or says["redacts"], None)
    return standing


def one_of(data, backups: list):
    """One of these; what a failing story shows is its number."""
    return backups[data.draw(st.integers(0, len(backups) - 1))]


def step(**drawn):
    """A rule that ends where a process dies at it; that process starts anew."""

    def enter(do):
        @rule(**drawn)
        @functools.wraps(do)
        def attempt(machine, *values, **named):
            with machine.whoever_dies_starts_anew():
                do(machine, *values, **named)

        return attempt

    return enter


class Restored(RuleBasedStateMachine):
    """Everything that can go wrong with the copies of a log."""

    def __init__(self) -> None:
        """All towns have told something, and it arrived everywhere.

        Of that moment there is a backup of each database, and one from when only the town that is gone had told something.
        """
        super().__init__()
        self.world = World()
        gone = self.world.nodes[GONE] = Node(self.world, GONE)
        self.titles: dict[tuple[str, str], list[str]] = {}
        """Everything that was ever told of a subject, also by a copy."""
        self.last_word: dict[tuple[str, str], str | None] = {}
        """What a town told last of a subject, as long as no older copy of it ran since."""
        self.hub_backups: list[bytes] = []
        self.count = 0
        for code in ("left-1", "left-2", CODES[0]):
            self.tell(gone, code)
        self.world.pump(2)
        del self.world.nodes[GONE]
        self.gone_epoch = gone.entries[0].says.epoch
        gone.database.close()
        self.seen = {place: {} for place in self.places()}
        self.folded = {place: {} for place in self.places()}
        self.everything_is_backed_up()
        for node in self.world.nodes.values():
            self.tell(node, CODES[0])
        self.world.pump(2)
        self.everything_is_backed_up()

    def everything_is_backed_up(self) -> None:
        for slug in SLUGS:
            self.a_node_is_backed_up(slug)
        self.the_hub_is_backed_up()

    def node(self, slug: str) -> Node:
        return self.world.nodes[slug]

    def places(self) -> dict:
        return {"hub": self.world.hub} | self.world.nodes

    def tell(self, node: Node, code: str, *, withdraw: bool = False) -> None:
        self.count += 1
        title = None if withdraw else f"Les {self.count}."
        self.titles.setdefault((node.slug, code), []).extend([title] if title else [])
        with self.once_committed(lambda: self.last_word.update({(node.slug, code): title})):
            node.tell(code, title)

    @contextmanager
    def whoever_dies_starts_anew(self) -> Iterator[None]:
        try:
            yield
        except Died as death:
            self.surely(death.place.start)
            if death.place is self.world.hub:
                self.surely(death.place.digest)

    def surely(self, do: Callable[[], None]) -> None:
        """Somebody sees to it, and does it once more as long as a process dies at it."""
        done = False
        while not done:
            with self.whoever_dies_starts_anew():
                do()
                done = True

    @contextmanager
    def once_committed(self, note: Callable[[], None]) -> Iterator[None]:
        """Note what is done in one transaction here, though the process dies right after it."""
        try:
            yield
        except Died as death:
            if death.done:
                note()
            raise
        note()

    @step(fuses=st.tuples(*[deaths] * 3))
    def processes_are_going_to_die(self, fuses):
        for there, ends in zip(self.places().values(), fuses, strict=True):
            there.fuse.light(ends)

    def older_ran(self, slug: str) -> None:
        """An older copy of this town's database runs, or ran: what it told last may be lost."""
        for key in [key for key in self.last_word if key[0] == slug]:
            del self.last_word[key]

    @step(slug=slugs, code=codes, withdraw=st.booleans())
    def a_town_tells(self, slug, code, withdraw):
        if not self.node(slug).is_empty and code not in self.node(slug).erased:  # what was erased has no code that is used again
            self.tell(self.node(slug), code, withdraw=withdraw)

    @step(slug=slugs, lost=st.booleans(), dies=st.booleans())
    def a_relay_steps(self, slug, lost, dies):
        self.node(slug).relay((lambda _: None) if lost else self.world.hub.under_way.append, dies=dies)
        if dies:
            self.node(slug).start()

    @precondition(lambda self: self.world.hub.under_way)
    @step(data=st.data(), keep=st.booleans())
    def the_hub_accepts(self, data, keep):
        way = self.world.hub.under_way
        many = data.draw(st.integers(1, len(way)))
        self.world.hub.take(many)
        if not keep:
            del way[:many]

    @step(data=st.data())
    def old_messages_come_again(self, data):
        """Somebody kept them, from some moment on; what was erased since is news again to a hub that was put back."""
        old = list(self.world.hub.taken)
        self.come_again(old[data.draw(st.integers(0, len(old) - 1)) :])

    def come_again(self, messages: list[bytes]) -> None:
        for raw in messages:
            self.world.hub.accept([raw])
            self.inbox_forgot("hub", self.world.hub.database)

    @step(slug=slugs)
    def old_pages_come_again(self, slug):
        """An answer that somebody kept, to a town that was put back and asks once more from that very place."""
        node = self.node(slug)
        for asked, page in node.pages:
            with node.database.reading() as session:
                cursor = pull_cursor(session)
            if asked == cursor:
                node.take_page(page)
                self.inbox_forgot(slug, node.database)

    @step(slug=slugs, what=st.sampled_from(["digests", "calls", "pulls"]), hours=st.sampled_from([0, 0, 1, 30]))
    def a_small_step_is_taken(self, slug, what, hours):
        self.world.now += timedelta(hours=hours, seconds=30)
        if what == "digests":
            self.world.hub.digest()
        elif what == "calls":
            self.node(slug).call()
        else:
            self.node(slug).pull()

    @step(rounds=st.integers(1, 2))
    def all_goes_well_for_a_while(self, rounds):
        self.world.pump(rounds)

    # -- Backups, copies --

    @step(slug=slugs)
    def a_node_is_backed_up(self, slug):
        self.node(slug).backups.append(image(self.node(slug).database))

    @step(number=numbers, slug=slugs, sidecar=st.booleans())
    def a_node_is_put_back(self, number, slug, sidecar):
        node, waited = self.node(slug), self.node(slug).waits_anew
        put_image(node.database, node.backups[number % len(node.backups)])
        if not sidecar:
            node.sidecar.said = {}
        self.older_ran(node.slug)
        self.forget_what_was_seen(node.slug)
        self.surely(node.start)
        if waited:
            self.surely(node.join_anew)

    @contextmanager
    def a_copy_runs(self, node: Node) -> Iterator[None]:
        """Beside this node, with whatever it does here; then it is switched off, and forgotten with all that lies on its disk."""
        here, instance, may_send, said, frozen = image(node.database), node.instance, node.may_send, node.sidecar.said, node.frozen
        try:
            with self.whoever_dies_starts_anew():
                yield
        finally:
            put_image(node.database, here)
            node.instance, node.may_send, node.sidecar.said, node.frozen = instance, may_send, said, frozen
            _ = node.author
            self.older_ran(node.slug)

    @step(data=st.data(), slug=slugs)
    def a_copy_of_a_node_runs_beside_it(self, data, slug):
        """It is woken from a backup, calls, tells something and sends."""
        node = self.node(slug)
        if node.waits_anew:
            return
        with self.a_copy_runs(node):
            put_image(node.database, one_of(data, node.backups))
            node.sidecar.said = {}
            node.start()
            node.call()
            if not node.is_empty and COPIED not in node.erased:
                self.tell(node, COPIED)
            node.relay(self.world.hub.under_way.append)

    @step(slug=slugs, code=codes)
    def a_node_is_copied_while_it_runs(self, slug, code):
        """With all that is in memory: no head exchange is between, and both tell something at one place and send it."""
        node, way = self.node(slug), self.world.hub.under_way
        if not node.may_send or node.is_empty or node.erased & {COPIED, code}:
            return
        with self.a_copy_runs(node):
            self.tell(node, COPIED)
            node.relay(way.append)
        self.tell(node, code)
        node.relay(way.append)

    @step()
    def the_hub_is_backed_up(self):
        self.hub_backups.append(image(self.world.hub.database))

    @step(number=numbers, sidecar=st.booleans(), replayed=st.booleans())
    def the_hub_is_put_back(self, number, sidecar, replayed):
        """Perhaps all that it was ever sent comes once more, before any town calls."""
        hub = self.world.hub
        hub.put_back(self.hub_backups[number % len(self.hub_backups)], sidecar=sidecar)
        self.forget_what_was_seen("hub")
        self.surely(hub.start)
        if replayed:
            self.come_again(list(hub.taken))
        hub.digest()

    def revoke(self, slug: str, share: float | None = None) -> None:
        with self.world.hub.database.transaction() as session:
            if read_pins(session, [slug]).keys_of(slug):
                _, held = held_place(session, slug)
                revoke_keys(session, slug, self.world.now, None if share is None else int(held * share))

    def forget_what_was_seen(self, place: str) -> None:
        self.seen[place], self.folded[place] = {}, {}

    # -- Keys, erasure, strangers --

    @step(slug=slugs, dies=st.booleans())
    def a_key_rotates(self, slug, dies):
        node = self.node(slug)
        if node.may_rotate():
            node.rotate(dies=dies)
            if dies:
                node.start()

    @step(slug=slugs, share=st.sampled_from([None, None, 0.5]), told=st.booleans())
    def the_association_revokes_a_key(self, slug, share, told):
        """At the last place it holds, or at an earlier one; the town may join anew at once, or when all is healed."""
        with self.world.hub.database.reading() as session:
            if not read_pins(session, [slug]).keys_of(slug):
                return
        self.revoke(slug, share)
        self.world.hub.digest()
        if told:
            self.node(slug).join_anew()

    @step(slug=slugs)
    def a_disk_is_lost(self, slug):
        """With the database and the key on it; the list of erasures is kept elsewhere. The association gives a code."""
        self.node(slug).lose_disk()
        self.older_ran(slug)
        self.forget_what_was_seen(slug)
        self.surely(self.node(slug).join_anew)

    @step(slug=slugs, code=codes)
    def a_subject_is_erased(self, slug, code):
        if self.node(slug).is_empty:
            return
        with self.once_committed(lambda: self.last_word.update({(slug, code): None})):
            self.node(slug).erase(code)

    @step(slug=slugs, sidecar=st.booleans(), at_hub=st.booleans())
    def somebody_kept_what_is_erased(self, slug, sidecar, at_hub):
        """And shows it to who was put back to before it was told."""
        self.a_subject_is_erased(slug, CODES[0])
        self.all_goes_well_for_a_while(2)
        if at_hub:
            self.the_hub_is_put_back(0, sidecar, replayed=True)
        else:
            other = next(one for one in SLUGS if one != slug)
            self.a_node_is_put_back(0, other, sidecar)
            self.old_pages_come_again(other)

    @step(code=gone_codes)
    def the_association_erases_for_a_town_that_is_gone(self, code):
        hub = self.world.hub
        with hub.database.transaction() as session:
            redact(session, EVERYWHERE, code)
        hub.digest()  # it is told to its own inbox at once

    @step(data=st.data(), slug=slugs, flag=st.booleans())
    def strangers_try(self, data, slug, flag):
        self.somebody_forges(slug, own_id=flag)
        self.a_stolen_key_that_has_ended_speaks(data, slug, anew=flag)
        self.a_hub_lies(data, slug, anew=flag)

    def somebody_forges(self, slug, *, own_id):
        node, thief = self.node(slug), KeyPair.of(bytes(32))
        with node.database.reading() as session:
            last = read_head(session)
        if last is None:
            return
        key = KeyPair(thief.seed, thief.public, node.key.key_id) if own_id else thief
        forged = seal(
            lesson("Verzonnen", code=FORGED), town=slug, epoch=last.epoch, seq=last.seq + 1, prevhash=last.hash, key=key,
            now=START, salt=bytes(32),
        )  # fmt: skip
        assert self.world.hub.accept([pack([forged])[0]])[0] in {"bad_signature", "unknown_key", "ended_key"}

    def a_stolen_key_that_has_ended_speaks(self, data, slug, *, anew):
        """Beyond its end, as far as the hub, or a town, ever heard of the end."""
        keys = self.node(slug).former
        if not keys:
            return
        key, other = one_of(data, keys), next(node for node in self.world.nodes.values() if node.slug != slug)
        for database, accept in ((self.world.hub.database, self.say_to_hub), (other.database, self.say_to_town)):
            with database.reading() as session:
                pins = read_pins(session, [slug])
                held = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == slug)).first()
            end = pins.end_of(slug, key.key_id)
            if held is None or not held.epoch or end is None:
                continue
            if database is other.database and end[0] != NEVER and pins.number_of(slug, end[0]) is None:
                continue  # only the hub hears all: a town may hear of the end before it hears of the run in which it lies
            here = (pins.number_of(slug, held.epoch), held.seq)
            if end[0] != NEVER and here < (pins.number_of(slug, end[0]) or here[0] + 1, end[1]) and not anew:
                continue  # the log is older than the end: up to there the key speaks rightly
            place = {"epoch": held.epoch, "seq": held.seq + 1, "prevhash": bytes(held.hash)}
            happened = lesson("Gestolen", code=FORGED)
            if anew:  # a run of its own
                place = {"epoch": "f" * 16, "seq": 1, "prevhash": NO_HASH}
                happened = EpochOpened(epoch="f" * 16, previous=held.epoch, last=held.seq, last_hash=bytes(held.hash).hex())
            accept(seal(happened, town=slug, key=key, now=START, salt=bytes(32), **place))

    def say_to_hub(self, entry) -> None:
        assert self.world.hub.accept([pack([entry])[0]]) == ["ended_key"]

    def say_to_town(self, entry) -> None:
        other = next(node for node in self.world.nodes.values() if node.slug != entry.says.town)
        with other.database.transaction() as session:
            assert accept_entries(session, [entry], self.world.now) == 0

    def a_hub_lies(self, data, slug, *, anew):
        """It shows an entry that the town never signed, or that is signed with a stolen key beyond its end: nothing is put back."""
        node, thief = self.node(slug), KeyPair.of(bytes(32))
        with node.database.reading() as session:
            last, pins = read_head(session), read_pins(session, [slug])
            if set_back(session) is not None:
                return  # it knows already that it is behind, and perhaps not yet which keys have ended since
        ended = [key for key in node.former if pins.has_ended(slug, key.key_id)]
        for key in (KeyPair(thief.seed, thief.public, node.key.key_id), *([one_of(data, ended)] if ended else ())):
            lie = seal(
                lesson("Gelogen"), town=slug, epoch="f" * 16 if anew else last.epoch, seq=last.seq + 3, prevhash=last.hash,
                key=key, now=START, salt=bytes(32),
            )  # fmt: skip
            with node.database.reading() as session:
                assert not proves_setback(session, node.author, lie.header, lie.signature)

    # -- Always --

    @invariant()
    def logs_are_whole(self):
        """Contiguous from 1 in every epoch, each entry following the one before, on both sides (I3)."""
        for node in self.world.nodes.values():
            entries = node.entries
            assert [entry.says.seq for entry in entries] == list(range(1, len(entries) + 1))
        counted: dict = {}
        for town, epoch, seq in sorted(self.held("hub")):
            counted[town, epoch] = counted.get((town, epoch), 0) + 1
            assert seq == counted[town, epoch]

    def held(self, place: str) -> dict:
        with self.places()[place].database.reading() as session:
            rows = session.execute(select(inbox.c.town, inbox.c.epoch, inbox.c.seq, inbox.c.hash, inbox.c.subject))
            return {(row.town, row.epoch, row.seq): (bytes(row.hash), row.subject) for row in rows}

    @invariant()
    def what_is_held_stays_as_it_is_and_is_the_towns_own_word(self):
        """No place is written twice or lost (I13), and nothing is held that somebody else signed (I12)."""
        for place in self.places():
            held = self.held(place)
            assert self.seen[place].items() <= held.items()
            assert FORGED not in {subject for _, subject in held.values()}
            self.seen[place] = held

    @invariant()
    def what_was_decided_about_keys_is_never_forgotten(self):
        """Where a key ended, as it once stood beside the hub's database, it has ended now, or earlier (I12)."""
        with self.world.hub.database.reading() as session:
            for slug, known in self.world.hub.keys.said["towns"].items():
                pins = read_pins(session, [slug])
                for key_id, said in known["keys"].items():
                    assert pins.public_of(slug, key_id) is not None
                    if said["ends"]:
                        end = pins.end_of(slug, key_id)
                        assert end is not None
                        assert place_of(session, slug, *end) <= place_of(session, slug, *said["ends"])

    @invariant()
    def projections_never_step_back(self):
        """Neither within an epoch, unless the association takes back what a thief told there, nor to an earlier one (I9)."""
        for place, there in self.places().items():
            with there.database.reading() as session:
                numbers = {(row.town, row.epoch): row.number for row in session.execute(select(epoch_order))}
                rows = session.execute(select(projection_cursor))
                folded = {row.town: (numbers[row.town, row.epoch], row.seq) for row in rows}
                same = (epoch_order.c.town == cut_off.c.town) & (epoch_order.c.epoch == cut_off.c.epoch)
                ends = session.execute(select(epoch_order, cut_off.c.last).join(cut_off, same))
                reaches = {(row.town, row.number): row.last if (row.settled or 0) <= row.last else -1 for row in ends}
            for town, (number, seq) in self.folded[place].items():
                reach = reaches.get((town, number), seq)  # -1: cut off before it had settled, so it is as if it never was
                assert reach < 0 or folded.get(town, (0, 0)) >= (number, min(seq, reach))
            self.folded[place] = folded

    @invariant()
    def what_was_erased_is_nowhere_once_it_arrived(self):
        """The inbox forgets it at once; when the next fold is done, no byte of it is anywhere (I18).

        Not in logs, projections, the circle's tables, conflicts, quarantine, or a page that is free.
        """
        for place, there in self.places().items():
            arrived = self.inbox_forgot(place, there.database)
            folded = there.erasures.read()
            assert folded <= arrived, place
            self.is_nowhere(place, {title for key in folded for title in self.told_of(*key)})

    def inbox_forgot(self, place: str, database: Database) -> set[tuple[str, str]]:
        """All that is known to be erased there."""
        with database.reading() as session:
            arrived = {(row.town, row.subject) for row in session.execute(select(erased))}
            about = select(inbox.c.town, inbox.c.subject).where(inbox.c.body.is_not(None), inbox.c.type.not_in(EXEMPT_FROM_ERASURE))
            held = {(row.town, row.subject) for row in session.execute(about)}
        assert not held & arrived, place
        return arrived

    def told_of(self, town: str, subject: str) -> list[str]:
        return [
            title for key, titles in self.titles.items() if key[1] == subject and town in {key[0], EVERYWHERE} for title in titles
        ]

    def is_nowhere(self, place: str, needles: set[str]) -> None:
        if needles:
            bytes_there = image(self.places()[place].database)
            assert [title for title in needles if title.encode() in bytes_there] == [], place

    # -- In the end --

    def teardown(self):
        world = self.world
        for there in self.places().values():
            there.fuse.light([])
        world.heal()
        for node in world.nodes.values():
            self.tell(node, LAST)
        world.heal()
        world.pump()  # once more, so that the towns hear what has arrived
        agreed(world)
        assert not world.frozen()
        for slug, node in world.nodes.items():
            with node.database.reading() as session:
                epoch = read_head(session).epoch
            for place in ("hub", *(other for other in SLUGS if other != slug)):
                assert slow_fold(self.places()[place].database, slug, epoch) == node.own, (slug, place)
            assert all(title in self.titles[slug, code] for code, title in node.own.items())
            for (town, code), title in self.last_word.items():
                assert town != slug or node.own.get(code) == title
            for place, there in self.places().items():
                with there.database.reading() as session:
                    assert read_pins(session, [slug]).keys_of(slug) == [node.key.public], (slug, place)
        forgotten = {(node.slug, code) for node in world.nodes.values() for code in node.erased}
        forgotten |= {(GONE, code) for town, code in world.hub.erasures.read() if town == EVERYWHERE}
        for place, there in self.places().items():
            with there.database.reading() as session:
                arrived = set(session.scalars(select(erased.c.subject)))
            assert {code for _, code in forgotten} <= arrived, place
            self.is_nowhere(place, {title for key in forgotten for title in self.titles.get(key, [])})
            shown = (there.shown if place == "hub" else there.library_of)(GONE)
            assert shown == {
                code: titles[-1] for (town, code), titles in self.titles.items() if town == GONE and (town, code) not in forgotten
            }
            assert slow_fold(there.database, GONE, self.gone_epoch) == shown
        world.close()


Restored.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestRestored = Restored.TestCase

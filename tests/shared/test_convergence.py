"""Whatever the courier does and whoever crashes, the national log becomes the towns' logs (I5–I11, I17).

A state machine over the real `append`, `relay_step`, `accept_messages`, `apply`, `rebuild` and real databases, with a courier that
drops, repeats, reorders, delays and forgets. After each step it asks for safety, at the end it heals everything and asks for
convergence. What the towns said is kept beside it in plain lists, and folded there a second time, slowly.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Column, MetaData, String, Table, select

from shared.db import Database
from shared.eventlog import append
from shared.events import InitiativeWithdrawn, LessonRevised, LessonShared, LessonWithdrawn
from shared.inbox import accept_messages, inbox, inbox_cursor
from shared.projections import Projection, Rows, apply, projection_cursor, rebuild, retry_stalls, stalls
from shared.relay import position, relay_step, rewind
from tests.shared.worlds import NOON, Town, lesson, open_hub

SLUGS = ("almere", "breda")

TABLES = MetaData()
told_lesson = Table(
    "told_lesson", TABLES, *(Column(name, String(160), primary_key=name != "title") for name in ("town", "lesson", "title"))
)
told_trace = Table("told_trace", TABLES, *(Column(name, String(160), primary_key=True) for name in ("town", "lesson")))


class Lessons:
    """A projection that can be broken for one title."""

    def __init__(self) -> None:
        self.cursed = ""
        self.projection = Projection("lessons", [told_lesson, told_trace])

        @self.projection.on(LessonShared, LessonRevised)
        def keep(rows: Rows, town: str, happened: LessonShared) -> None:
            rows.put(told_trace, town=town, lesson=happened.lesson)
            if happened.title == self.cursed:
                raise KeyError(happened.title)
            rows.put(told_lesson, town=town, lesson=happened.lesson, title=happened.title)

        @self.projection.on(LessonWithdrawn)
        def forget(rows: Rows, town: str, happened: LessonWithdrawn) -> None:
            rows.drop(told_lesson, town=town, lesson=happened.lesson)


class Crash(Exception):  # noqa: N818
    """The process died here."""


def slow_fold(town: str, said: list) -> set:
    """The lessons that stand after all this was said; written without a look at the kernel."""
    standing = {}
    for happened in said:
        if isinstance(happened, LessonWithdrawn):
            standing.pop(happened.lesson, None)
        elif isinstance(happened, LessonShared | LessonRevised):
            standing[happened.lesson] = happened.title
    return {(town, code, title) for code, title in standing.items()}


class World:
    """Two towns, a hub and the list of messages under way."""

    def __init__(self) -> None:
        self.towns = {slug: Town(slug) for slug in SLUGS}
        self.hub = open_hub(*SLUGS)
        TABLES.create_all(self.hub.engine)
        self.lessons = Lessons()
        self.under_way: list[bytes] = []
        self.ever_sent: list[bytes] = []
        with self.hub.transaction() as session:
            rebuild(session, [self.lessons.projection])

    def carry(self, message: bytes) -> None:
        self.under_way.append(message)
        self.ever_sent.append(message)

    def deliver(self) -> list[str]:
        """All that is under way arrives."""
        messages, self.under_way = self.under_way, []
        with self.hub.transaction() as session:
            return [outcome.verdict for outcome in accept_messages(session, messages, NOON)]

    def fold(self) -> None:
        while True:
            with self.hub.transaction() as session:
                if not apply(session, [self.lessons.projection]):
                    return

    def held(self, slug: str) -> int:
        with self.hub.reading() as session:
            return session.scalar(select(inbox_cursor.c.seq).where(inbox_cursor.c.town == slug)) or 0

    def folded(self, slug: str) -> int:
        with self.hub.reading() as session:
            return session.scalar(select(projection_cursor.c.seq).where(projection_cursor.c.town == slug)) or 0

    def sent(self, slug: str) -> int:
        town = self.towns[slug]
        with town.database.reading() as session:
            return position(session, town.epoch)

    def compare_heads(self, slug: str) -> None:
        """What the head exchange comes down to, once the hub may ask."""
        town, held = self.towns[slug], self.held(slug)
        with town.database.transaction() as session:
            if position(session, town.epoch) > held:
                rewind(session, town.epoch, held + 1)

    def pump(self) -> None:
        """Relay, carry and fold until nothing moves."""
        for town in self.towns.values():
            while relay_step(town.database, self.carry):
                pass
        self.deliver()
        self.fold()

    def shown(self) -> set:
        with self.hub.reading() as session:
            return {tuple(row) for row in session.execute(select(told_lesson))}

    def national(self, slug: str) -> list[tuple[int, bytes]]:
        with self.hub.reading() as session:
            query = select(inbox.c.seq, inbox.c.hash).where(inbox.c.town == slug).order_by(inbox.c.seq)
            return [(row.seq, bytes(row.hash)) for row in session.execute(query)]

    def close(self) -> None:
        for database in (self.hub, *(town.database for town in self.towns.values())):
            database.close()


towns = st.sampled_from(SLUGS)
codes = st.sampled_from(["lesson-1", "lesson-2", "lesson-3"])
dies = st.sampled_from([None, None, "before", "after"])
"""Whether a step ends in a crash, before or after what it hands over."""


class Federation(RuleBasedStateMachine):
    """Everything that can happen between two towns and their hub."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.said = {slug: [] for slug in SLUGS}
        self.best_folded = dict.fromkeys(SLUGS, 0)
        self.hub_is_on = True
        self.count = 0

    # -- In a town --

    @rule(slug=towns, code=codes, kind=st.sampled_from(["shared", "revised", "withdrawn", "unseen"]), dies=st.booleans())
    def a_town_tells(self, slug, code, kind, dies):
        self.count += 1
        happened = {
            "shared": lambda: lesson(f"Les {self.count}", code=code),
            "revised": lambda: lesson(f"Les {self.count}", code=code, kind=LessonRevised),
            "withdrawn": lambda: LessonWithdrawn(lesson=code),
            "unseen": lambda: InitiativeWithdrawn(initiative=code),  # no handler for it
        }[kind]()
        try:
            with self.world.towns[slug].database.transaction() as session:
                append(session, happened)
                if dies:
                    raise Crash
        except Crash:
            return
        self.said[slug].append(happened)

    @rule(slug=towns, dies=dies)
    def a_relay_steps(self, slug, dies):
        def publish(message: bytes) -> None:
            if dies == "before":
                raise Crash
            self.world.carry(message)
            if dies == "after":
                raise Crash

        before = self.world.sent(slug)
        try:
            relay_step(self.world.towns[slug].database, publish)
        except Crash:
            assert self.world.sent(slug) == before, "the position passed what was never confirmed (I5)"

    # -- On the way --

    @precondition(lambda self: self.world.under_way)
    @rule(data=st.data(), what=st.sampled_from(["drop", "duplicate", "postpone", "purge"]))
    def the_courier_fails(self, data, what):
        messages = self.world.under_way
        one = data.draw(st.integers(0, len(messages) - 1))
        if what == "drop":
            messages.pop(one)
        elif what == "duplicate":
            messages.append(messages[one])
        elif what == "postpone":
            messages.append(messages.pop(one))
        else:
            messages.clear()

    @precondition(lambda self: self.world.ever_sent)
    @rule(data=st.data())
    def an_old_message_turns_up(self, data):
        self.world.under_way.append(data.draw(st.sampled_from(self.world.ever_sent)))

    @precondition(lambda self: self.world.ever_sent)
    @rule(data=st.data())
    def a_damaged_message_turns_up(self, data):
        whole = data.draw(st.sampled_from(self.world.ever_sent))
        cut = data.draw(st.integers(0, len(whole) - 1))
        self.world.under_way.append(whole[:cut] + b"#" + whole[cut + 1 :])

    # -- At the hub --

    @rule()
    def the_hub_goes_off_or_on(self):
        self.hub_is_on = not self.hub_is_on

    @precondition(lambda self: self.hub_is_on and self.world.under_way)
    @rule(data=st.data(), dies=dies)
    def the_hub_accepts(self, data, dies):
        batch = self.world.under_way[: data.draw(st.integers(1, len(self.world.under_way)))]
        try:
            with self.world.hub.transaction() as session:
                accept_messages(session, batch, NOON)
                if dies == "before":
                    raise Crash
        except Crash:
            return
        if dies is None:  # otherwise it dies between its commit and the ack: all come again (I10)
            del self.world.under_way[: len(batch)]

    @precondition(lambda self: self.hub_is_on)
    @rule(limit=st.integers(1, 4), dies=st.booleans())
    def the_hub_folds(self, limit, dies):
        try:
            with self.world.hub.transaction() as session:
                apply(session, [self.world.lessons.projection], limit)
                if dies:
                    raise Crash
        except Crash:
            pass

    @precondition(lambda self: self.hub_is_on)
    @rule(dies=st.booleans())
    def the_hub_rebuilds(self, dies):
        try:
            with self.world.hub.transaction() as session:
                rebuild(session, [self.world.lessons.projection])
                if dies:
                    raise Crash
        except Crash:
            pass

    @precondition(lambda self: self.hub_is_on)
    @rule(slug=towns)
    def heads_are_compared(self, slug):
        self.world.compare_heads(slug)

    # -- Always --

    @invariant()
    def a_town_holds_exactly_what_it_said(self):
        for slug, town in self.world.towns.items():
            assert [entry.says.seq for entry in town.entries] == list(range(1, len(self.said[slug]) + 1))
            assert self.world.sent(slug) <= town.last

    @invariant()
    def the_national_log_is_the_beginning_of_each_towns_log(self):
        for slug, town in self.world.towns.items():
            own = [(entry.says.seq, entry.hash) for entry in town.entries]
            assert self.world.national(slug) == own[: self.world.held(slug)]

    @invariant()
    def the_projection_never_steps_back_and_shows_just_what_it_folded(self):
        expected = set()
        for slug in SLUGS:
            folded = self.world.folded(slug)
            assert self.best_folded[slug] <= folded <= self.world.held(slug)
            self.best_folded[slug] = folded
            expected |= slow_fold(slug, self.said[slug][:folded])
        assert self.world.shown() == expected

    def teardown(self):
        """All goes well again: within two comparisons of heads everything is everywhere (I7)."""
        self.world.pump()
        for _ in range(2):
            for slug in SLUGS:
                self.world.compare_heads(slug)
            self.world.pump()
        for slug, town in self.world.towns.items():
            assert self.world.national(slug) == [(entry.says.seq, entry.hash) for entry in town.entries]
            assert self.world.folded(slug) == len(self.said[slug])
        expected = {row for slug in SLUGS for row in slow_fold(slug, self.said[slug])}
        assert self.world.shown() == expected
        with self.world.hub.transaction() as session:
            rebuild(session, [self.world.lessons.projection])
        assert self.world.shown() == expected
        self.world.close()


Federation.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestFederation = Federation.TestCase


@pytest.fixture
def world():
    made = World()
    yield made
    made.close()


def test_a_rewound_relay_repairs_a_lost_tail(world):
    almere = world.towns["almere"]
    almere.tell(lesson("Blijft", code="lesson-1"))
    world.pump()
    almere.tell(lesson("Kwijt", code="lesson-2"), lesson("Ook kwijt", code="lesson-3"))
    assert relay_step(almere.database, lambda _lost: None) == 2
    world.pump()
    assert (world.held("almere"), world.sent("almere")) == (1, 3)  # no gap shows that anything is missing
    world.compare_heads("almere")
    assert world.sent("almere") == 1
    world.pump()
    assert world.held("almere") == world.folded("almere") == 3
    assert {title for _, _, title in world.shown()} == {"Blijft", "Kwijt", "Ook kwijt"}


def test_a_hole_is_noted_and_what_lies_beyond_it_waits(world):
    almere = world.towns["almere"]
    almere.tell(*(lesson(f"Les {number}") for number in range(4)))
    world.under_way = [almere.message(3, 4)]
    assert world.deliver() == ["ahead"]
    with world.hub.reading() as session:
        assert session.scalar(select(inbox_cursor.c.gap_at)) == NOON
    world.under_way = [almere.message(3, 4), almere.message(1, 2), almere.message(2, 4)]
    assert world.deliver() == ["ahead", "stored", "stored"]
    with world.hub.reading() as session:
        assert session.scalar(select(inbox_cursor.c.gap_at)) is None
    assert world.held("almere") == 4


def test_the_position_moves_after_the_confirm_and_not_before(world):
    almere = world.towns["almere"]
    almere.tell(lesson("Eerste"), lesson("Tweede"))

    def refuse(message: bytes) -> None:
        assert world.sent("almere") == 0
        raise Crash

    for _ in range(2):
        with pytest.raises(Crash):
            relay_step(almere.database, refuse)
        assert world.sent("almere") == 0
    world.pump()
    assert world.sent("almere") == world.held("almere") == 2


def test_a_relay_that_is_rewound_while_it_publishes_stays_rewound(world):
    almere = world.towns["almere"]
    almere.tell(lesson("Eerste"))
    world.pump()
    almere.tell(lesson("Tweede"))

    def publish(_message: bytes) -> None:
        with almere.database.transaction() as session:
            rewind(session, almere.epoch, 1)

    relay_step(almere.database, publish)
    assert world.sent("almere") == 0


def test_a_failing_handler_stalls_only_its_town_and_goes_on_once_it_is_mended(world):
    almere, breda = world.towns.values()
    world.lessons.cursed = "Vervloekt"
    almere.tell(lesson("Goed"), lesson("Vervloekt", code="lesson-2"), lesson("Erna", code="lesson-3"))
    breda.tell(lesson("Elders"))
    world.pump()
    breda.tell(lesson("Elders, later"))
    world.pump()
    assert world.held("almere") == 3  # ingest goes on
    assert (world.folded("almere"), world.folded("breda")) == (1, 2)
    assert world.shown() == {("almere", "lesson-1", "Goed"), ("breda", "lesson-1", "Elders, later")}
    with world.hub.reading() as session:
        (stall,) = stalls(session)
        traces = set(session.execute(select(told_trace)).all())
    assert (stall.projection, stall.town, stall.stalled_at, stall.reason) == ("lessons", "almere", 2, "KeyError: 'Vervloekt'")
    assert ("almere", "lesson-2") not in traces, "half of a failed handler's effect was kept"

    assert free(world.hub) == 1  # not mended: it stalls again, at the same place
    world.fold()
    assert world.folded("almere") == 1

    world.lessons.cursed = ""
    assert free(world.hub) == 1
    world.fold()
    assert world.folded("almere") == 3
    assert free(world.hub) == 0
    assert {title for town, _, title in world.shown() if town == "almere"} == {"Goed", "Vervloekt", "Erna"}


def test_projections_at_different_places_each_go_on_from_their_own(world):
    seen = []
    late = Projection("late", [])
    late.on(LessonShared)(lambda _rows, _town, happened: seen.append(happened.title))
    almere = world.towns["almere"]
    almere.tell(*(lesson(f"Les {number}") for number in range(3)))
    world.pump()
    counted = []
    world.lessons.projection.handlers[LessonShared] = lambda _rows, _town, happened: counted.append(happened.title)
    almere.tell(lesson("Les 3"))
    world.under_way = [almere.message()]
    world.deliver()
    while True:
        with world.hub.transaction() as session:
            if not apply(session, [world.lessons.projection, late], 2):
                break
    assert seen == ["Les 0", "Les 1", "Les 2", "Les 3"]
    assert counted == ["Les 3"]


def free(hub: Database) -> int:
    with hub.transaction() as session:
        assert retry_stalls(session, ["another"]) == 0
        return retry_stalls(session, ["lessons"])

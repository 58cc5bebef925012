"""What is shown of a town is a matter of what is stored, and of nothing else: a rebuild comes to the same, row for row (I17).

A state machine over a hub's inbox and two projections with faults of their own. Two towns tell, begin anew, lose their keys and
erase; handlers fail, are mended, and fail again in another release; folding goes in small steps and dies before its commit. After
each step a copy of the database is folded to its end and rebuilt. What must be shown then is also found a second time, slowly, from
what was said. One of the towns had lost its log at the hub: there its first epoch is one that settles later.
"""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import Column, MetaData, String, Table, select

from shared.db import Database
from shared.envelope import NO_HASH, pack, seal
from shared.events import EpochOpened, EpochSettled, Event, LessonShared, LessonWithdrawn, Redacted
from shared.inbox import KOEPEL, accept_messages, erased
from shared.keys import KeyPair
from shared.pins import replace_keys
from shared.projections import Projection, Rows, apply, projection_cursor, projection_stall, rebuild, retry_stalls, stalls
from tests.federation.mortal import image, put_image
from tests.shared.worlds import NOON, key_of, lesson, open_hub

ALMERE, BREDA = "almere", "breda"
CODES = ["lesson-1", "lesson-2", "lesson-3"]
TABLES = MetaData()


class View:
    """A projection whose handler fails on the titles that say so, until it is mended."""

    def __init__(self, name: str) -> None:
        self.name, self.is_broken = name, True
        self.table = Table(
            f"told_{name}",
            TABLES,
            *(Column(column, String, primary_key=column != "title") for column in ("town", "lesson", "title")),
        )
        self.projection = Projection(name, [self.table])
        self.projection.on(LessonShared)(self.keep)
        self.projection.on(LessonWithdrawn)(self.forget)

    def fails_on(self, title: str) -> bool:
        return self.is_broken and self.name in title

    def keep(self, rows: Rows, town: str, happened: LessonShared) -> None:
        rows.put(self.table, town=town, lesson=happened.lesson, title=happened.title)
        if self.fails_on(happened.title):
            raise KeyError(happened.title)

    def forget(self, rows: Rows, town: str, happened: LessonWithdrawn) -> None:
        rows.drop(self.table, town=town, lesson=happened.lesson)


VIEWS = MAP, LIST = [View("map"), View("list")]
PROJECTIONS = [view.projection for view in VIEWS]


class Epoch:
    """What a town said under one epoch; its last place that counts, when the association cut it off."""

    def __init__(self, name: str, settled: int | None) -> None:
        self.name, self.settled, self.counts_to = name, settled, None
        self.said: list[Event] = []
        self.hashes: list[bytes] = []

    @property
    def last(self) -> int:
        return len(self.said) if self.counts_to is None else min(len(self.said), self.counts_to)


class Speaker:
    """A town, or the association: what it said arrives at the hub at once."""

    def __init__(self, hub: Database, slug: str) -> None:
        self.hub, self.slug, self.key, self.now = hub, slug, key_of(slug), NOON
        self.epochs: list[Epoch] = []

    def say(self, *happened: Event) -> None:
        here = self.epochs[-1]
        for one in happened:
            entry = seal(
                one, town=self.slug, epoch=here.name, seq=len(here.said) + 1, prevhash=here.hashes[-1] if here.said else NO_HASH,
                key=self.key, now=self.now, salt=bytes(32),
            )  # fmt: skip
            with self.hub.transaction() as session:
                assert [outcome.verdict for outcome in accept_messages(session, [pack([entry])[0]], self.now)] == ["stored"]
            here.said.append(one)
            here.hashes.append(entry.hash)

    def begin(self, *, first: bool = False) -> None:
        """Another epoch; the first one is settled from its beginning."""
        made = Epoch(f"{self.slug}{len(self.epochs):08}", 0 if first else None)
        before = self.epochs[-1] if self.epochs else None
        self.epochs.append(made)
        self.now += timedelta(days=2)
        if first:
            self.say(lesson("Eerste"))
        else:
            last = before.last if before else 7
            reached = before.hashes[last - 1].hex() if before and last else "0" * 64
            self.say(EpochOpened(epoch=made.name, previous=before.name if before else "f" * 16, last=last, last_hash=reached))

    def settle(self) -> None:
        here = self.epochs[-1]
        self.say(EpochSettled(epoch=here.name))
        here.settled = len(here.said)

    def is_cut_off(self, last: int) -> None:
        """What comes after this place of the present epoch is nobody's word; the town goes on with another key in another epoch."""
        here = self.epochs[-1]
        self.key = KeyPair.of(here.name.encode().ljust(32, b"k"))
        with self.hub.transaction() as session:
            replace_keys(session, self.slug, self.key.public, here.name, last, self.now)
        here.counts_to = last
        self.begin()


class Hub:
    """An inbox and two views, with two towns and the association that speak."""

    def __init__(self) -> None:
        for view in VIEWS:
            view.is_broken = True
        self.database, self.copy = open_hub(ALMERE, BREDA, KOEPEL), Database("sqlite://")
        TABLES.create_all(self.database.engine)
        self.towns = {slug: Speaker(self.database, slug) for slug in (ALMERE, BREDA)}
        self.association = Speaker(self.database, KOEPEL)
        for speaker in (*self.towns.values(), self.association):
            speaker.begin(first=speaker.slug != BREDA)
        with self.database.transaction() as session:
            rebuild(session, PROJECTIONS)

    def mend(self, view: View) -> None:
        view.is_broken = False
        with self.database.transaction() as session:
            retry_stalls(session, [view.name])

    def fold(self) -> None:
        fold(self.database)

    def shown(self, view: View, slug: str) -> dict[str, str]:
        with self.database.reading() as session:
            return dict(session.execute(select(view.table.c.lesson, view.table.c.title).where(view.table.c.town == slug)).all())

    def gone(self, slug: str) -> set[str]:
        """The subjects of this town that are erased."""
        with self.database.reading() as session:
            return set(session.scalars(select(erased.c.subject).where(erased.c.town.in_([slug, "*"]))))

    def folds(self, view: View, slug: str, epoch: Epoch, last: int) -> tuple[int, dict[str, str]]:
        """How far this epoch folds, and what it leaves up to there; written without a look at the kernel."""
        gone, left = self.gone(slug), {}
        for place, happened in enumerate(epoch.said[:last], 1):
            if isinstance(happened, LessonShared | LessonWithdrawn) and happened.lesson in gone:
                continue
            if isinstance(happened, LessonShared):
                if view.fails_on(happened.title):
                    return place - 1, left
                left[happened.lesson] = happened.title
            elif isinstance(happened, LessonWithdrawn):
                left.pop(happened.lesson, None)
        return last, left

    def counting(self, slug: str) -> list[Epoch]:
        """The town's settled epochs that count, the oldest first."""
        settled = [epoch for epoch in self.towns[slug].epochs if epoch.settled is not None]
        return [epoch for epoch in settled if epoch.counts_to is None or epoch.settled <= epoch.counts_to]

    def must_show(self, view: View, slug: str) -> tuple[str, int, dict[str, str]] | None:
        """The epoch, the place and the rows that the rule asks for; None while the town has not settled."""
        settled = [epoch for epoch in self.towns[slug].epochs if epoch.settled is not None]
        counting = self.counting(slug)
        for epoch in reversed(counting):
            reached, left = self.folds(view, slug, epoch, epoch.last)
            if reached >= epoch.settled or epoch is counting[0]:
                return epoch.name, reached, left
        return (settled[0].name, 0, {}) if settled else None

    def close(self) -> None:
        self.database.close()
        self.copy.close()


class Crash(Exception):  # noqa: N818
    """The process died here."""


def fold(database: Database) -> None:
    while True:
        with database.transaction() as session:
            if not apply(session, PROJECTIONS):
                return


def whole_state(database: Database) -> dict:
    """Every row of the views, of their cursors and of what stands still."""
    with database.reading() as session:
        tables = [*(view.table for view in VIEWS), projection_cursor, projection_stall]
        return {table.name: sorted(tuple(row) for row in session.execute(select(table))) for table in tables}


slugs = st.sampled_from([ALMERE, BREDA])
codes = st.sampled_from(CODES)
titles = st.sampled_from(["good", "good", "good", "bad for the map", "bad for the list", "bad for the map and the list", None])
told = st.lists(st.tuples(codes, titles), min_size=1, max_size=4)
"""Lessons that are shared; without a title, withdrawn."""
views = st.sampled_from(VIEWS)
rounds = st.sampled_from([[], [], [1], [2], [1, 3], [4, 4, 4]])
"""How often the hub folds then, and how much at most."""


class Stalls(RuleBasedStateMachine):
    """Everything that changes what is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.hub, self.count = Hub(), 0

    def tell(self, town: Speaker, lessons: list[tuple[str, str | None]]) -> None:
        for code, title in lessons:
            self.count += 1
            town.say(LessonWithdrawn(lesson=code) if title is None else lesson(f"{title} {self.count}", code=code))

    def fold(self, rounds: list[int], *, dies: bool = False) -> None:
        for limit in rounds:
            try:
                with self.hub.database.transaction() as session:
                    apply(session, PROJECTIONS, limit)
                    if dies:
                        raise Crash
            except Crash:
                pass

    @rule(slug=slugs, lessons=told, rounds=rounds)
    def a_town_tells(self, slug, lessons, rounds):
        self.tell(self.hub.towns[slug], lessons)
        self.fold(rounds)

    @rule(slug=slugs, lessons=told, settles=st.sampled_from([True, True, False]), rounds=rounds)
    def a_town_begins_anew(self, slug, lessons, settles, rounds):
        town = self.hub.towns[slug]
        if town.epochs[-1].settled is not None:
            town.begin()
        self.tell(town, lessons)
        if settles:
            town.settle()
        self.fold(rounds)

    @rule(who=st.sampled_from([ALMERE, BREDA, KOEPEL]), code=codes)
    def something_is_erased(self, who, code):
        self.hub.towns.get(who, self.hub.association).say(Redacted(redacts=code))

    @rule(slug=slugs, back=st.integers(0, 4), rounds=rounds)
    def the_association_cuts_a_town_off(self, slug, back, rounds):
        town = self.hub.towns[slug]
        town.is_cut_off(max(0, len(town.epochs[-1].said) - back))
        self.fold(rounds)

    @rule(view=views, rounds=rounds)
    def a_view_is_mended(self, view, rounds):
        self.hub.mend(view)
        self.fold(rounds)

    @rule(view=views)
    def a_release_comes_in_which_it_fails(self, view):
        view.is_broken = True
        with self.hub.database.transaction() as session:
            rebuild(session, [view.projection])

    @rule(some=st.sampled_from([*([projection] for projection in PROJECTIONS), PROJECTIONS]))
    def some_views_are_folded_to_the_end(self, some):
        while True:
            with self.hub.database.transaction() as session:
                if not apply(session, some):
                    break

    @rule(rounds=rounds)
    def the_hub_dies_while_it_folds(self, rounds):
        self.fold(rounds, dies=True)

    @invariant()
    def a_rebuild_shows_what_the_live_one_shows(self):
        copy = self.hub.copy
        put_image(copy, image(self.hub.database))
        fold(copy)
        live = whole_state(copy)
        with copy.transaction() as session:
            rebuild(session, PROJECTIONS)
        assert whole_state(copy) == live
        for view in VIEWS:
            for slug in self.hub.towns:
                shown = {row[1:] for row in live[view.table.name] if row[0] == slug}
                cursors = [row[2:4] for row in live[projection_cursor.name] if row[:2] == (view.name, slug)]
                must = self.hub.must_show(view, slug)
                assert (cursors, shown) == (([must[:2]], set(must[2].items())) if must else ([], set()))

    @invariant()
    def what_is_shown_meanwhile_is_what_was_folded_and_never_half_of_a_new_epoch(self):
        with self.hub.database.reading() as session:
            cursors = session.execute(select(projection_cursor).where(projection_cursor.c.town != KOEPEL)).all()
        for row in cursors:
            (epoch,) = (epoch for epoch in self.hub.towns[row.town].epochs if epoch.name == row.epoch)
            assert row.seq >= epoch.settled or epoch not in self.hub.counting(row.town)[1:]
            (view,) = (view for view in VIEWS if view.name == row.projection)
            reached, left = self.hub.folds(view, row.town, epoch, row.seq)
            gone = self.hub.gone(row.town)  # with the next round
            shown = {code: title for code, title in self.hub.shown(view, row.town).items() if code not in gone}
            assert (reached, shown) == (row.seq, left)

    def teardown(self):
        self.hub.close()


Stalls.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestStalls = Stalls.TestCase


@pytest.fixture
def hub():
    made = Hub()
    yield made
    made.close()


@pytest.fixture
def almere(hub):
    return hub.towns[ALMERE]


def standing_still(hub: Hub) -> list[tuple]:
    with hub.database.reading() as session:
        return [(row.projection, row.town, row.epoch, row.stalled_at) for row in stalls(session)]


def rebuilt(hub: Hub) -> dict[str, str]:
    with hub.database.transaction() as session:
        rebuild(session, PROJECTIONS)
    return hub.shown(MAP, ALMERE)


def test_while_a_new_epoch_stalls_the_old_one_is_shown_to_its_end(hub, almere):
    hub.fold()
    almere.say(lesson("Nog van vroeger", code="lesson-2"))
    almere.begin()
    almere.say(lesson("Opnieuw"), lesson("bad for the map", code="lesson-2"))
    almere.settle()
    hub.fold()
    old = {"lesson-1": "Eerste", "lesson-2": "Nog van vroeger"}
    assert hub.shown(MAP, ALMERE) == old
    assert hub.shown(LIST, ALMERE) == {"lesson-1": "Opnieuw", "lesson-2": "bad for the map"}
    assert standing_still(hub) == [("map", ALMERE, almere.epochs[-1].name, 3)]
    assert rebuilt(hub) == old
    assert standing_still(hub) == [("map", ALMERE, almere.epochs[-1].name, 3)]
    hub.mend(MAP)
    hub.fold()
    assert hub.shown(MAP, ALMERE) == hub.shown(LIST, ALMERE)
    assert standing_still(hub) == []


def test_what_fails_in_an_old_epoch_does_not_hold_the_new_one(hub, almere):
    almere.say(lesson("bad for the map", code="lesson-2"))
    hub.fold()
    assert standing_still(hub) == [("map", ALMERE, almere.epochs[0].name, 2)]
    almere.begin()
    almere.say(lesson("Opnieuw"))
    almere.settle()
    hub.fold()
    assert hub.shown(MAP, ALMERE) == {"lesson-1": "Opnieuw"}
    assert standing_still(hub) == []


def test_what_fails_in_a_new_epoch_does_not_hold_the_old_one_when_the_association_cuts_the_new_one_off(hub, almere):
    hub.fold()
    almere.say(lesson("Nog van vroeger", code="lesson-2"), lesson("En nog", code="lesson-3"))
    almere.begin()
    almere.say(lesson("bad for the map", code="lesson-2"))
    almere.settle()
    hub.fold()
    assert standing_still(hub) == [("map", ALMERE, almere.epochs[1].name, 2)]
    almere.is_cut_off(1)
    hub.fold()
    assert hub.shown(MAP, ALMERE) == {"lesson-1": "Eerste", "lesson-2": "Nog van vroeger", "lesson-3": "En nog"}
    assert standing_still(hub) == []


def test_a_place_that_fails_and_counts_no_longer_holds_nothing(hub, almere):
    almere.say(lesson("bad for the map", code="lesson-2"))
    hub.fold()
    assert standing_still(hub) == [("map", ALMERE, almere.epochs[0].name, 2)]
    almere.is_cut_off(1)
    hub.fold()
    assert standing_still(hub) == []


def test_an_old_epoch_goes_on_in_its_own_time_while_the_new_one_stalls(hub, almere):
    almere.say(lesson("Tweede", code="lesson-2"), lesson("Derde", code="lesson-3"))
    almere.begin()
    almere.say(lesson("bad for the map"))
    almere.settle()
    seen = []
    for _ in range(3):
        with hub.database.transaction() as session:
            apply(session, [MAP.projection], limit=1)
        seen.append(sorted(hub.shown(MAP, ALMERE).values()))
    assert seen == [["Eerste", "Tweede"], ["Derde", "Eerste", "Tweede"], ["Derde", "Eerste", "Tweede"]]


def test_a_rebuild_tries_again_what_stood_still(hub, almere):
    almere.begin()
    almere.say(lesson("bad for the map"))
    almere.settle()
    hub.fold()
    assert rebuilt(hub) == {"lesson-1": "Eerste"}
    MAP.is_broken = False
    assert rebuilt(hub) == {"lesson-1": "bad for the map"}
    assert standing_still(hub) == []


def test_an_operator_sees_what_holds_the_latest_epoch_and_not_what_failed_before_it(hub, almere):
    almere.say(lesson("bad for the map"))
    almere.begin()
    almere.say(lesson("bad for the map"))
    almere.settle()
    hub.fold()
    assert hub.shown(MAP, ALMERE) == {"lesson-1": "Eerste"}
    assert standing_still(hub) == [("map", ALMERE, almere.epochs[1].name, 2)]


def test_what_was_erased_goes_from_a_view_that_stands_still(hub, almere):
    almere.say(lesson("Moet weg", code="lesson-2"), lesson("bad for the map", code="lesson-3"))
    hub.fold()
    assert hub.shown(MAP, ALMERE) == {"lesson-1": "Eerste", "lesson-2": "Moet weg"}
    almere.say(Redacted(redacts="lesson-2"))
    hub.fold()
    assert hub.shown(MAP, ALMERE) == {"lesson-1": "Eerste"}
    hub.association.say(Redacted(redacts="lesson-1"))
    hub.fold()
    assert hub.shown(MAP, ALMERE) == {}
    assert standing_still(hub) == [("map", ALMERE, almere.epochs[0].name, 3)]


def test_what_an_unsettled_epoch_asks_to_erase_goes_from_the_one_that_is_shown(hub, almere):
    hub.fold()
    almere.begin()
    almere.say(Redacted(redacts="lesson-1"))
    hub.fold()
    assert hub.shown(MAP, ALMERE) == {}


def test_a_view_goes_on_when_what_it_stood_on_is_erased(hub, almere):
    almere.say(lesson("bad for the map", code="lesson-2"), lesson("Erna", code="lesson-3"))
    hub.fold()
    assert hub.shown(MAP, ALMERE) == {"lesson-1": "Eerste"}
    almere.say(Redacted(redacts="lesson-2"))
    hub.fold()
    assert hub.shown(MAP, ALMERE) == {"lesson-1": "Eerste", "lesson-3": "Erna"}
    assert standing_still(hub) == []

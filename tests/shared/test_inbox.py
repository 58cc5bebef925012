"""The inbox: the last place held of each log, and rows that cannot be read any more."""

import pytest
from sqlalchemy import Column, MetaData, String, Table, event, select, update

from shared.events import LessonShared
from shared.inbox import accept_entries, accept_messages, inbox, inbox_cursor
from shared.projections import Projection, apply, rebuild, stalls
from tests.shared.worlds import NOON, Town, lesson, open_hub

titles = Table("title", MetaData(), Column("town", String, primary_key=True), Column("title", String))
library = Projection("library", [titles])
lessons = Table("lesson_told", MetaData(), *(Column(name, String, primary_key=True) for name in ("town", "lesson")))
register = Projection("register", [lessons])


@library.on(LessonShared)
def keep_title(rows, town, happened):
    rows.put(titles, town=town, title=happened.title)


@register.on(LessonShared)
def keep_lesson(rows, town, happened):
    rows.put(lessons, town=town, lesson=happened.lesson)


@pytest.fixture
def towns():
    return [Town("almere"), Town("dronten")]


@pytest.fixture
def hub():
    database = open_hub("almere", "dronten")
    titles.create(database.engine)
    lessons.create(database.engine)
    return database


def fold(database):
    with database.transaction() as session:
        return apply(session, [library])


def told(database):
    with database.reading() as session:
        return dict(session.execute(select(titles.c.town, titles.c.title)).all())


def held(database):
    with database.reading() as session:
        return dict(session.execute(select(inbox_cursor.c.town, inbox_cursor.c.seq)).all())


def test_entries_with_gaps_between_them_move_the_last_place_held_and_never_back(hub, towns):
    almere, _ = towns
    almere.tell(*(lesson(f"Lesson {number}", f"lesson-{number}") for number in range(1, 6)))
    for some, reached in ((almere.entries[1:2], 2), (almere.entries[3:5], 5), (almere.entries[2:3], 5), (almere.entries, 5)):
        with hub.transaction() as session:
            accept_entries(session, some, NOON)
        assert held(hub) == {"almere": reached}


def test_an_entry_that_comes_late_is_shown_as_a_rebuild_shows_it(hub, towns):
    """A feed can keep an entry back and bring it later, when the association is another copy of itself (I17)."""
    almere, _ = towns
    almere.tell(*(lesson(f"Lesson {number}", f"lesson-{number}") for number in (1, 2, 3)))
    first, second, third = almere.entries

    def shown(step):
        with hub.transaction() as session:
            looked = step(session, [register])
            return looked, sorted(session.scalars(select(lessons.c.lesson)))

    for some, held in (([first, third], ["lesson-1", "lesson-3"]), ([second], ["lesson-1", "lesson-2", "lesson-3"])):
        with hub.transaction() as session:
            accept_entries(session, some, NOON)
        assert shown(apply)[1] == held
        assert shown(apply) == (0, held), "what came late is looked at once"
        assert shown(rebuild)[1] == held
        assert shown(apply) == (0, held)


def test_a_round_without_news_looks_at_no_entry_however_many_there_are(hub, towns):
    for town in towns:
        town.tell(lesson("Ask early for water"))
        with hub.transaction() as session:
            accept_messages(session, [town.message()], NOON)
    assert fold(hub) == 2
    asked = []
    event.listen(hub.engine, "before_cursor_execute", lambda *said: asked.append(said[2]))
    assert fold(hub) == 0
    assert asked
    assert not [statement for statement in asked if inbox.name in statement.replace(inbox_cursor.name, "").split()]


def test_a_row_that_cannot_be_read_any_more_stalls_its_own_town_only(hub, towns):
    for town in towns:
        town.tell(lesson("Ask early for water"), lesson("Ask even earlier"))
        with hub.transaction() as session:
            accept_messages(session, [town.message()], NOON)
    with hub.transaction() as session:
        session.execute(update(inbox).where(inbox.c.town == "almere", inbox.c.seq == 2).values(header=b"\x00"))
    fold(hub)
    assert told(hub) == {"almere": "Ask early for water", "dronten": "Ask even earlier"}
    with hub.reading() as session:
        assert [(row.town, row.stalled_at) for row in stalls(session)] == [("almere", 2)]

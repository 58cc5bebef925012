"""A change and its event are one, and places follow one another, whoever writes at the same time (I2, I3, I4)."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Column, MetaData, String, Table, select

from shared.db import Database
from shared.envelope import NO_HASH, BodyTooLong
from shared.eventlog import NotAuthor, append, read_head, read_log
from shared.events import Misfit
from tests.shared.worlds import Town, golden, lesson, open_database

note = Table("note", MetaData(), Column("text", String(80), primary_key=True))
"""A change that belongs to an event."""


@pytest.fixture(params=["sqlite", "postgresql"])
def town(request, tmp_path):
    on_file = f"sqlite:///{tmp_path / 'town.db'}"
    made = Town("almere", on_file if request.param == "sqlite" else request.getfixturevalue("postgres").fresh_database())
    note.create(made.database.engine)
    yield made
    made.database.close()


def notes(town: Town) -> set[str]:
    with town.database.reading() as session:
        return set(session.scalars(select(note.c.text)))


def numbers(database: Database, epoch: str) -> list[int]:
    with database.reading() as session:
        return [entry.says.seq for entry in read_log(session, epoch, 0, 10_000)]


def test_eight_writers_leave_no_gap_and_no_reader_sees_one(town):
    def write(writer: int) -> None:
        for number in range(12):
            with town.database.transaction() as session:
                session.scalars(select(note.c.text)).all()  # an action looks before it writes: on SQLite that takes BEGIN IMMEDIATE
                session.execute(note.insert(), {"text": f"{writer}.{number}"})
                append(session, lesson(f"{writer}.{number}"))

    with ThreadPoolExecutor(8) as writers:
        working = [writers.submit(write, writer) for writer in range(8)]
        while not all(work.done() for work in working):
            seen = numbers(town.database, town.epoch)
            assert seen == list(range(1, len(seen) + 1))
        for work in working:
            work.result()
    entries = town.entries
    assert [entry.says.seq for entry in entries] == list(range(1, 97))
    assert [entry.says.prevhash for entry in entries] == [NO_HASH, *(entry.hash for entry in entries[:-1])]
    assert len(notes(town)) == 96
    with town.database.reading() as session:
        head = read_head(session)
    assert (head.seq, head.hash) == (96, entries[-1].hash)


def test_a_change_and_its_event_are_undone_together(town):
    town.tell(lesson("Eerst"))
    with pytest.raises(ZeroDivisionError), town.database.transaction() as session:  # noqa: PT012  # a whole action
        session.execute(note.insert(), {"text": "gone"})
        append(session, lesson("Weg"))
        1 / 0  # noqa: B018  # something goes wrong after the append
    assert (notes(town), town.last) == (set(), 1)
    town.tell(lesson("Daarna"))
    assert [entry.says.seq for entry in town.entries] == [1, 2]


def test_several_events_of_one_action_follow_one_another(town):
    with town.database.transaction() as session:
        places = [
            append(session, golden(f"{name}.v1")).seq for name in ("initiative.registered", "lesson.shared", "lesson.withdrawn")
        ]
    assert places == [1, 2, 3]


@pytest.mark.parametrize(
    ("happened", "refusal"),
    [(lesson(""), Misfit), (lesson("Lang" + "g" * 160), Misfit), (golden("meeting.planned.v1"), BodyTooLong)],
    ids=["a misfit", "a line too long", "a body over 64 KiB"],
)
def test_what_every_receiver_would_refuse_is_refused_before_anything_is_committed(town, happened, refusal):
    if refusal is BodyTooLong:
        object.__setattr__(happened, "report", "🌱" * 20_000)
    with pytest.raises(refusal), town.database.transaction() as session:  # noqa: PT012  # a whole action
        session.execute(note.insert(), {"text": "gone"})
        append(session, happened)
    assert (notes(town), town.last) == (set(), 0)


def test_only_a_commit_that_added_to_the_log_rings_the_doorbell(town):
    rung = []
    town.database.after_append = lambda: rung.append(town.last)
    with town.database.transaction() as session:
        session.execute(note.insert(), {"text": "only for us"})
    with pytest.raises(Misfit), town.database.transaction() as session:
        append(session, lesson(""))
    assert rung == []
    town.tell(lesson("Voor iedereen"))
    assert rung == [1]


def test_who_has_not_joined_has_no_log_to_tell_it_in(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'town.db'}")
    with database.transaction() as session:
        assert append(session, lesson("Voor ons alleen")) is None
        assert read_head(session) is None
    database.close()


def test_nobody_adds_to_a_log_without_its_key(town):
    del town.database.info["author"]
    with pytest.raises(NotAuthor), town.database.transaction() as session:
        append(session, lesson("Van een ander"))
    assert town.last == 0

from datetime import date

import pytest
from sqlalchemy import select, text

from services.hub.lessons.projection import NationalLesson
from shared.db import upsert
from shared.events import LessonRevised, LessonWithdrawn
from shared.search import matching, rank, statements, stems


def found(session, words):
    query = select(NationalLesson.lesson).where(matching(session, NationalLesson, words))
    return list(session.scalars(query.order_by(rank(session, NationalLesson, words), NationalLesson.lesson)))


def test_stems_fold_letters_and_drop_stop_words():
    assert stems("De Vrijwilligers van één tuin") == stems("vrijwilliger TUINEN")
    assert stems("het en de") == ""


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        ("vrijwilliger", ["les-0001"]),
        ("de vrijwilligers vinden", ["les-0001"]),
        ("VRIJWIL", ["les-0001"]),
        ("regentonnen", []),
        ("regenton", ["les-0002"]),
        ("compost", ["les-0002"]),
        ("compost gemeente", []),
        ("een contactpersoon", ["les-0003"]),
        ("", ["les-0001", "les-0002", "les-0003"]),
        ("!!!", []),
    ],
)
def test_a_lesson_is_found_by_dutch_words(almere, words, codes):
    assert found(almere, words) == codes


@pytest.mark.parametrize(
    "words",
    ['"', "'", 'a" OR "b', "NEAR(compost)", "stems:compost", "compost*", "^compost", "-compost", "AND", "OR NOT", "(((", "a:* & |",
     "\\", "%", "{compost}", "+", "x" * 5000, "a " * 3000, "compost\x00", "🌱", "ﬁ ½ ² ß", "de", "';drop table national_lesson;--"],
)  # fmt: skip
def test_no_query_text_breaks_the_search(almere, words):
    assert set(found(almere, words)) <= {"les-0001", "les-0002", "les-0003"}


def test_the_best_match_comes_first(almere, tell, share):
    tell(
        almere,
        "almere",
        share("les-0004", "Iets anders", "Ook met compost kan het, maar daarover gaat dit verhaal verder niet zozeer."),
    )
    assert found(almere, "compost") == ["les-0002", "les-0004"]


def test_what_was_revised_is_found_by_its_new_words_only(almere, tell):
    revised = LessonRevised(
        lesson="les-0002", title="Bladaarde", body="Laat blad liggen.", kind="tip", theme="soil", shared_on=date(2015, 1, 1)
    )
    tell(almere, "almere", revised)
    assert (found(almere, "compost"), found(almere, "bladaarde")) == ([], ["les-0002"])
    tell(almere, "almere", LessonWithdrawn(lesson="les-0002"))
    assert found(almere, "bladaarde") == []
    assert almere.scalar(text("SELECT count(*) FROM national_lesson_search")) == 2


def test_an_upsert_that_updates_reaches_the_search(almere):
    row = dict(almere.execute(select(NationalLesson.__table__).where(NationalLesson.lesson == "les-0003")).one()._mapping)
    upsert(almere, NationalLesson.__table__, [row | {"stems": stems("waterput")}])
    assert (found(almere, "gemeente"), found(almere, "waterputten")) == ([], ["les-0003"])


def test_search_survives_vacuum(almere, database):
    almere.execute(text("DELETE FROM national_lesson WHERE lesson = 'les-0001'"))
    almere.get_transaction().commit()
    raw = database.engine.raw_connection()
    raw.execute("VACUUM")
    raw.close()
    with database.reading() as session:
        assert found(session, "compost") == ["les-0002"]


def test_a_migration_enters_the_rows_that_are_there(session):
    session.execute(text("CREATE TABLE old (code TEXT PRIMARY KEY, stems TEXT)"))
    session.execute(text("INSERT INTO old VALUES ('a', 'compost')"))
    for statement in statements("old", "sqlite"):
        session.execute(text(statement))
    assert session.scalar(text("SELECT count(*) FROM old_search WHERE old_search MATCH 'compost'")) == 1

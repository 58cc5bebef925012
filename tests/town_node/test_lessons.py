from datetime import date

import pytest

from services.town_node.lessons.library import KnownTown, LibraryLesson, library
from services.town_node.lessons.model import Lesson, Withdrawn
from shared.events import LessonShared, LessonWithdrawn, TownAdmitted
from shared.projections import Rows

TODAY = date(2012, 6, 20)


def lesson():
    return Lesson(code="lesson01", title="Vraag water", body="Vroeg vragen.", kind="tip", theme="water")


def test_a_lesson_carries_a_name_only_with_its_authors_consent():
    it = lesson()
    assert it.share(TODAY).byline is None
    it.sign("Roos Zonnebloem", TODAY)
    assert it.revise().byline.agreed == TODAY
    it.sign(None, TODAY)
    assert it.revise().byline is None


def test_a_revised_lesson_keeps_the_day_it_was_shared():
    it = lesson()
    it.share(TODAY)
    said = it.revise(title="Vraag vroeg om water")
    assert (said.title, said.shared_on) == ("Vraag vroeg om water", TODAY)


def test_a_lesson_is_taken_back_once():
    it = lesson()
    it.share(TODAY)
    assert it.withdraw(TODAY).lesson == "lesson01"
    with pytest.raises(Withdrawn):
        it.withdraw(TODAY)
    with pytest.raises(Withdrawn):
        it.revise(title="Again")


def test_the_library_holds_what_other_towns_say_now(node):
    said = LessonShared(lesson="les1", title="Compost", body="Draai hem.", kind="tip", theme="soil", shared_on=TODAY)
    database = node.extensions["site"].database
    with database.transaction() as session:
        rows = Rows()
        library.handlers[LessonShared](rows, "dronten", said)
        library.handlers[TownAdmitted](
            rows, "koepel", TownAdmitted(town="dronten", name="Dronten", key_id="k" * 12, public_key="p" * 44)
        )
        rows.save(session)
    client = node.test_client()
    client.set_cookie("language", "en")
    for path in ("/", "/association?q=composten&town=dronten", "/association/dronten/les1"):
        page = client.get(path).text
        assert "Compost" in page
        assert "Dronten" in page
    with database.transaction() as session:
        rows = Rows()
        library.handlers[LessonWithdrawn](rows, "dronten", LessonWithdrawn(lesson="les1"))
        rows.save(session)
        assert session.get(LibraryLesson, ("dronten", "les1")) is None
        assert session.get(KnownTown, "dronten").name == "Dronten"

"""An erasure outlives what becomes of the log it was asked in (I14 and I18 together)."""

from sqlalchemy import select

from shared.erasure import redact
from shared.events import Redacted
from shared.inbox import erased, inbox
from tests.federation.copies import agreed, image, put_back, settled


def kept(database, town, subject):
    """Bodies about this subject, but for the asking itself."""
    query = select(inbox.c.body).where(inbox.c.town == town, inbox.c.subject == subject, inbox.c.type != Redacted.wire)
    with database.reading() as session:
        return [body for body in session.scalars(query) if body is not None]


def test_what_was_asked_to_be_erased_before_a_new_epoch_is_asked_again_in_it(world):
    almere, breda = settled(world)
    backup = image(almere.database)
    almere.tell("lesson-2", "Na de kopie")
    world.pump(2)
    put_back(almere, backup)
    with almere.database.transaction() as session:
        redact(session, "almere", "lesson-1")
        session.connection().exec_driver_sql("DELETE FROM own_lesson WHERE code = 'lesson-1'")
    assert kept(world.hub.database, "almere", "lesson-1")
    world.pump(4)
    assert almere.entries[0].says.type.endswith("epoch.opened.v1"), "something was told since, so a new epoch began"
    for database in (world.hub.database, breda.database):
        assert kept(database, "almere", "lesson-1") == []
    agreed(world)


def test_an_erasure_that_comes_back_with_the_tail_is_remembered_here_too(world):
    almere, _breda = settled(world)
    backup = image(almere.database)
    with almere.database.transaction() as session:
        redact(session, "almere", "lesson-1")
        session.connection().exec_driver_sql("DELETE FROM own_lesson WHERE code = 'lesson-1'")
    world.pump(2)
    put_back(almere, backup)
    world.pump(3)
    with almere.database.reading() as session:
        assert [tuple(row) for row in session.execute(select(erased))] == [("almere", "lesson-1")]
    assert [entry.body for entry in almere.entries if entry.says.subject == "lesson-1" and entry.says.type != Redacted.wire] == [
        None
    ]

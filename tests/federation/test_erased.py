"""An erasure outlives what becomes of the log it was asked in (I14 and I18 together)."""

import orjson
from sqlalchemy import delete, func, select, update

from shared import feed
from shared.envelope import NO_HASH, pack, seal, to_json
from shared.erasure import redact
from shared.eventlog import append
from shared.events import LessonShared, Redacted
from shared.inbox import erased, inbox
from shared.keys import KeyPair
from shared.quarantine import quarantine, quarantine_count
from tests.federation.copies import START, agreed, put_back, settled
from tests.federation.mortal import image
from tests.shared.worlds import lesson


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


def test_what_is_refused_before_or_after_an_erasure_keeps_no_word_of_it(world):
    almere, breda = settled(world)
    almere.tell("lesson-2", "Dit moet weg")
    sent = []
    almere.relay(sent.append)
    stranger = KeyPair.of(bytes(32))
    forged = seal(
        lesson("Dit moet weg", code="lesson-2"), town="almere", epoch="e" * 16, seq=1, prevhash=NO_HASH, key=stranger, now=START,
        salt=bytes(32),
    )  # fmt: skip
    refused = [sent[0][:-20] + b"#" * 20, sent[0].replace(b"Dit moet weg", b"Dit moet wel"), pack([forged])[0]]
    items = [{"number": 8, "chain": "aa", **to_json(forged)}, {"number": 9, "chain": "aa", "header": "lesson-2 Dit moet weg"}]
    page = orjson.dumps({"v": 1, "id": "f" * 16, "last": 9, "items": items})

    def arrives() -> None:
        assert not {"stored", "known"} & set(world.hub.accept(refused))
        with breda.database.transaction() as session:
            session.execute(delete(feed.feed_cursor))
            feed.accept_page(session, page, "breda", world.clock())
            session.execute(delete(feed.feed_cursor))

    arrives()
    assert (lying(world.hub.database), lying(breda.database)) == (3, 2)
    world.pump(2)
    almere.erase("lesson-2")
    world.pump(3)
    assert (lying(world.hub.database), lying(breda.database)) == (0, 0), "it goes from what was kept"
    arrives()
    assert (lying(world.hub.database), lying(breda.database)) == (0, 0), "and what comes later is not kept"
    with world.hub.database.reading() as session:
        assert session.scalar(select(func.sum(quarantine_count.c.times))) == 6, "but counted"


def lying(database) -> int:
    """In how many of the refused messages something of the lesson stands."""
    with database.reading() as session:
        return sum(b"Dit moet we" in bytes(message) for message in session.scalars(select(quarantine.c.message)))


def test_an_erasure_is_confirmed_when_all_other_towns_have_read_it_and_by_nobody_when_there_are_none(hub, town, clock):
    almere = town("almere")
    with almere.database.transaction() as session:
        append(session, LessonShared(lesson="les-weg", title="Weg", body="Weg", kind="tip", theme="water", shared_on=START.date()))
        redact(session, "almere", "les-weg")
    almere.call()
    almere.relay()
    hub.work()
    assert (almere.call().cursor, almere.call().everywhere) == (2, 2), "there is no other town to wait for"

    breda, dronten = town("breda"), town("dronten")
    for one in (breda, dronten):
        one.call()
    assert almere.call().everywhere == 0
    breda.pull()
    breda.call()
    assert almere.call().everywhere == 0, "Dronten has not read it"
    dronten.pull()
    assert almere.call().everywhere == 0, "nor said so"
    with dronten.database.transaction() as session:
        real = session.scalar(select(feed.feed_cursor.c.chain))
        session.execute(update(feed.feed_cursor).values(chain="0" * 64))
    dronten.call()
    assert almere.call().everywhere == 0, "it read something else"
    with dronten.database.transaction() as session:
        session.execute(update(feed.feed_cursor).values(chain=real))
    dronten.call()
    assert almere.call().everywhere == 2


def test_an_erasure_that_was_lost_with_the_log_before_it_had_left_is_asked_again(world):
    almere, breda = settled(world)
    backup = image(almere.database)
    almere.erase("lesson-1")
    put_back(almere, backup)
    assert almere.own == {}
    world.heal()
    for database in (world.hub.database, almere.database, breda.database):
        assert kept(database, "almere", "lesson-1") == []
        assert b'Vraag vroeg om water"' not in image(database)
    assert [entry.says.type for entry in almere.entries].count(Redacted.wire) == 1
    world.pump(2)
    assert [entry.says.type for entry in almere.entries].count(Redacted.wire) == 1, "once is enough"
    agreed(world)


def test_a_tail_brings_back_nothing_that_was_erased_here_before_the_association_heard_of_it(world):
    almere, breda = settled(world)
    backup = image(almere.database)
    almere.tell("lesson-2", "Aangekomen en gewist")
    world.pump(2)
    almere.erase("lesson-2")
    put_back(almere, backup)
    world.heal()
    assert almere.own == {"lesson-1": "Vraag vroeg om water"}
    for database in (world.hub.database, almere.database, breda.database):
        assert b"Aangekomen en gewist" not in image(database)
    agreed(world)

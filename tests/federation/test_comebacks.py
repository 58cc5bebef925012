"""One by one: logs and hubs from a backup, copies, keys that end, erasure, rubbish (I12 to I18; I13 and I15 above all)."""

from datetime import timedelta

from sqlalchemy import delete, select

from services.hub.forwarding import forwarded
from shared import feed, heads
from shared.envelope import pack, seal
from shared.erasure import redact
from shared.eventlog import append, read_head, read_log
from shared.events import Redacted
from shared.inbox import inbox, inbox_cursor
from shared.keys import KeyPair
from shared.pins import epoch_order, read_pins, rotated
from shared.projections import projection_cursor
from shared.quarantine import HOURLY_MAX, quarantine, quarantine_count
from shared.restore import (
    begin_epoch,
    read_conflicts,
    set_back,
)
from tests.federation.copies import START, agreed, put_back, settled
from tests.federation.little_town import SLICE, told_lesson
from tests.federation.mortal import image, put_image
from tests.shared.worlds import lesson


def test_a_log_that_was_put_back_gets_its_tail_back_and_goes_on_in_the_same_epoch(world):
    almere, _ = settled(world)
    backup = image(almere.database)
    almere.tell("lesson-2", "Na de kopie")
    world.pump(2)
    before = almere.entries
    put_back(almere, backup)
    world.pump(3)
    assert almere.own == {"lesson-1": "Vraag vroeg om water", "lesson-2": "Na de kopie"}
    assert almere.entries == before, "the very same bytes"
    agreed(world)


def test_what_was_told_after_a_backup_was_put_back_goes_into_a_new_epoch_with_everything_else(world):
    almere, breda = settled(world)
    backup = image(almere.database)
    almere.tell("lesson-2", "Na de kopie")
    world.pump(2)
    put_back(almere, backup)
    almere.tell("lesson-3", "Na het terugzetten")
    assert almere.relay(world.hub.under_way.append) == 0, "nothing is published before the handshake (I14)"
    world.pump(4)
    assert almere.own == {
        "lesson-1": "Vraag vroeg om water", "lesson-2": "Na de kopie", "lesson-3": "Na het terugzetten",
    }  # fmt: skip
    assert breda.library_of("almere") == almere.own
    agreed(world)


def test_what_changed_on_both_sides_keeps_this_version_and_shows_the_other(world):
    almere, _ = settled(world)
    backup = image(almere.database)
    almere.tell("lesson-1", "De versie bij de koepel")
    world.pump(2)
    put_back(almere, backup)
    almere.tell("lesson-1", "De versie hier")
    world.pump(4)
    assert almere.own == {"lesson-1": "De versie hier"}
    with almere.database.reading() as session:
        (kept,) = read_conflicts(session)
    assert "De versie bij de koepel" in kept.other
    agreed(world)


def test_the_sidecar_shows_a_setback_before_any_call(world):
    almere, _ = settled(world)
    backup = image(almere.database)
    almere.tell("lesson-2", "Bevestigd")
    world.pump(1)
    put_back(almere, backup, sidecar=True)
    with almere.database.reading() as session:
        assert set_back(session).why == "sidecar"


def test_a_log_that_was_put_back_waits_for_what_is_still_on_the_bus(world):
    almere, _ = settled(world)
    backup = image(almere.database)
    almere.tell("lesson-2", "Nog onderweg")
    while almere.relay(world.hub.under_way.append):
        pass
    before = almere.entries[0].says.epoch
    put_back(almere, backup, sidecar=True)
    for _ in range(3):
        world.now += timedelta(seconds=30)
        with world.hub.database.transaction() as session:
            heads.show_pulse(session, world.clock(), empty=False)
        almere.call()
        with almere.database.reading() as session:
            assert set_back(session) is not None, "whoever asks too early gets half of it, and forks"
    world.pump(3)
    assert almere.own == {"lesson-1": "Vraag vroeg om water", "lesson-2": "Nog onderweg"}
    assert almere.entries[0].says.epoch == before
    agreed(world)


def test_a_new_epoch_is_swapped_in_at_once_and_not_before_it_is_settled(world):
    almere, _ = settled(world)
    backup = image(almere.database)
    almere.tell("lesson-2", "Alleen bij de koepel")
    world.pump(2)
    put_back(almere, backup)
    almere.tell("lesson-3", "Alleen hier")
    for _ in range(2):
        world.now += timedelta(seconds=30)
        with world.hub.database.transaction() as session:
            heads.show_pulse(session, world.clock(), empty=True)
        almere.call()
    entries = almere.entries
    assert entries[0].says.type.endswith("epoch.opened.v1")
    shown = world.hub.shown("almere")
    for entry in entries[:-1]:
        assert world.hub.accept([pack([entry])[0]]) == ["stored"]
        world.hub.digest()
        assert world.hub.shown("almere") == shown
    assert world.hub.accept([pack(entries[-1:])[0]]) == ["stored"]
    world.hub.digest()
    assert world.hub.shown("almere") == almere.own


def test_two_copies_freeze_the_town_and_the_association_decides(world):
    almere, breda = settled(world)
    backup = image(almere.database)
    here, instance = image(almere.database), almere.instance
    put_back(almere, backup)
    almere.tell("lesson-2", "Van de kopie")
    world.pump(2)
    put_image(almere.database, here)
    almere.instance = instance
    assert almere.call() == "frozen"
    assert world.frozen() == {"almere"}
    breda.tell("lesson-2", "Breda gaat door")
    world.pump(2)
    assert breda.own == world.hub.shown("breda"), "a frozen town delays no other (I11)"
    world.thaw()
    world.heal()
    assert not world.frozen()
    assert almere.own["lesson-2"] == "Van de kopie", "what the copy told came back with the tail"
    agreed(world)


def test_a_second_new_epoch_within_a_day_freezes_the_town(world):
    almere, _ = settled(world)
    for number in range(2):
        backup = image(almere.database)
        almere.tell("lesson-2", f"Weg {number}")
        world.pump(2)
        put_back(almere, backup)
        almere.tell("lesson-3", f"Hier {number}")
        world.pump(4)
    assert world.frozen() == {"almere"}
    world.heal()
    agreed(world)


def test_a_log_from_before_its_last_epoch_goes_on_although_the_association_still_shows_that_one(world):
    almere, _ = settled(world)
    backup = image(almere.database)
    for number in range(2):
        world.now += timedelta(days=2)
        almere.tell("lesson-2", f"Weg {number}")
        world.pump(2)
        put_back(almere, backup)
        almere.tell("lesson-3", f"Hier {number}")
        world.pump(1)
        world.now += timedelta(seconds=30)
        with world.hub.database.transaction() as session:
            heads.show_pulse(session, world.clock(), empty=True)
        almere.call()
        almere.call()  # nothing of the new epoch was sent yet
        with almere.database.reading() as session:
            assert set_back(session) is None
        world.pump(2)
        assert almere.own == {"lesson-1": "Vraag vroeg om water", "lesson-2": f"Weg {number}", "lesson-3": f"Hier {number}"}
        agreed(world)


def test_a_hub_from_an_old_backup_gets_everything_again_and_so_do_the_towns(world):
    almere, breda = settled(world)
    backup = image(world.hub.database)
    almere.tell("lesson-2", "Na de kopie van de koepel")
    world.pump(3)
    world.hub.put_back(backup)
    world.heal()
    assert breda.library_of("almere")["lesson-2"] == "Na de kopie van de koepel"
    agreed(world)


def test_a_hub_that_kept_only_its_registry_fills_up_again(world):
    almere, _ = settled(world)
    almere.tell("lesson-2", "Nog iets")
    world.pump(2)
    with world.hub.database.transaction() as session:
        for table in (inbox, inbox_cursor, epoch_order, feed.feed, feed.feed_state, forwarded, told_lesson, projection_cursor):
            session.execute(delete(table))
    world.hub.sidecar.said, world.hub.is_older = {}, True
    world.heal()
    agreed(world)


def test_an_erased_subject_is_nowhere_and_the_chain_still_verifies(world):
    almere, breda = settled(world)
    almere.tell("lesson-2", "Dit moet weg")
    world.pump(2)
    almere.erase("lesson-2")
    world.pump(3)
    agreed(world)
    needle = b"Dit moet weg"
    for database in (world.hub.database, almere.database, breda.database):
        with database.transaction() as session:
            session.connection().exec_driver_sql("SELECT 1")
        assert needle not in image(database)
    almere.entries  # noqa: B018  # reading opens every entry and checks its hash
    with world.hub.database.transaction() as session:
        session.execute(delete(forwarded))
        session.execute(delete(feed.feed))
        session.execute(delete(feed.feed_state))
    breda.pull()
    world.heal()
    agreed(world)


def test_a_new_epoch_tells_nothing_of_what_was_erased_and_is_still_kept_here(world):
    almere, _ = settled(world)
    almere.tell("lesson-2", "Alleen nog van onszelf")
    with almere.database.transaction() as session:
        redact(session, "almere", "lesson-2")  # as a circle does that leaves: its own table stays as it is
    world.pump(2)
    with almere.database.transaction() as session:
        last = read_head(session)
        begin_epoch(session, almere.author, read_log(session, last.epoch, last.seq - 1, 1)[0], [SLICE])
    assert "lesson-2" in almere.own
    assert [entry.says.type for entry in almere.entries if entry.says.subject == "lesson-2"] == [Redacted.wire]
    world.pump(3)
    assert world.hub.shown("almere") == {"lesson-1": "Vraag vroeg om water"}


def test_a_message_from_before_an_erasure_comes_again_without_its_body(world):
    almere, _ = settled(world)
    almere.tell("lesson-2", "Dit moet weg")
    old: list[bytes] = []
    almere.relay(old.append)
    almere.erase("lesson-2")
    world.pump(4)
    with world.hub.database.transaction() as session:
        session.execute(delete(inbox).where(inbox.c.town == "almere"))
        session.execute(delete(inbox_cursor).where(inbox_cursor.c.town == "almere"))
    with almere.database.reading() as session:
        first = read_log(session, read_head(session).epoch, 0, 1)
    world.hub.accept([pack(first)[0], *old])
    assert b"Dit moet weg" not in image(world.hub.database)


def test_a_key_that_ended_signs_nothing_more(world):
    almere, breda = settled(world)
    old = almere.key
    almere.rotate()
    world.pump(2)
    with almere.database.reading() as session:
        last = read_head(session)
    stolen = seal(
        lesson("Gestolen"),
        town="almere",
        epoch=last.epoch,
        seq=last.seq + 1,
        prevhash=last.hash,
        key=old,
        now=START,
        salt=bytes(32),
    )
    assert world.hub.accept([pack([stolen])[0]]) == ["ended_key"]
    almere.tell("lesson-2", "Met de nieuwe sleutel")
    world.pump(3)
    assert breda.library_of("almere")["lesson-2"] == "Met de nieuwe sleutel"
    agreed(world)


def test_a_rotation_without_the_new_keys_proof_changes_no_key(world):
    almere, _ = settled(world)
    thief = KeyPair.of(bytes(32))
    with almere.database.transaction() as session:
        append(session, rotated(thief.key_id, thief.public, bytes(64)))
    world.pump(2)
    with world.hub.database.reading() as session:
        assert thief.public not in read_pins(session, ["almere"]).keys_of("almere")


def test_rubbish_is_kept_up_to_a_cap_and_counted_beyond_it(world):
    settled(world)
    verdicts = world.hub.accept([b"rubbish %d" % number for number in range(50)])
    assert set(verdicts) == {"malformed"}
    with world.hub.database.reading() as session:
        assert len(session.execute(select(quarantine)).all()) == HOURLY_MAX
        assert session.scalar(select(quarantine_count.c.times)) == 50
    agreed(world)

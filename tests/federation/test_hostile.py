"""What a careful enemy, or plain bad luck twice in a row, would try on the federation (I9, I11, I12, I14, I16)."""

from datetime import timedelta

import orjson
import pytest
from sqlalchemy import delete, select

from services.hub.forwarding import forwarded
from services.hub.towns.parting import NoKey, revoke_keys
from shared import feed, restore
from shared.envelope import NO_HASH, Malformed, pack, seal, to_json
from shared.eventlog import append, read_head, read_log
from shared.events import EpochOpened, EpochSettled, KeyRotated, Redacted, TownAdmitted, TownReadmitted
from shared.inbox import KOEPEL, inbox, inbox_cursor
from shared.keys import KeyPair, to_text
from shared.pins import ROTATES, end_key, epoch_order, follow_key, pin_key, read_pins, replace_keys, rotation_proof
from shared.projections import apply, projection_cursor
from shared.restore import read_conflicts, set_back
from tests.federation.copies import START, Node, agreed, put_back, settled
from tests.federation.little_town import told_lesson
from tests.federation.mortal import image
from tests.shared.worlds import lesson

LOGS = (inbox, inbox_cursor, epoch_order, feed.feed, feed.feed_state, forwarded, told_lesson, projection_cursor)
"""What a hub loses that kept only its registry of towns and their keys."""


def chain(node, epoch: str, *happened) -> bytes:
    """A run of its own, from 1, signed by the town."""
    entries, before = [], NO_HASH
    for seq, one in enumerate(happened, 1):
        entry = seal(
            one, town=node.slug, epoch=epoch, seq=seq, prevhash=before, key=node.key, now=START, salt=bytes([seq]) * 32
        )  # fmt: skip
        entries.append(entry)
        before = entry.hash
    return pack(entries)[0]


def test_an_epoch_that_follows_nothing_known_gets_the_next_number_and_confuses_nobody(world):
    almere, breda = settled(world)
    made_up = {"previous": "f" * 16, "last": 7, "last_hash": "0" * 64}
    first = chain(almere, "a" * 16, EpochOpened(epoch="a" * 16, **made_up), lesson("Een"), EpochSettled(epoch="a" * 16))
    assert world.hub.accept([first]) == ["stored"]
    second = chain(almere, "b" * 16, EpochOpened(epoch="b" * 16, **made_up), lesson("Twee"), EpochSettled(epoch="b" * 16))
    assert world.hub.accept([second]) == ["forked"], "a second beginning within a day"
    world.hub.digest()
    assert world.hub.shown("almere") == {"lesson-1": "Een"}
    with world.hub.database.transaction() as session:
        assert apply(session, [world.hub.projection]) == 0, "there is nothing left to fold"
    breda.pull()
    assert breda.library_of("almere") == {"lesson-1": "Een"}


def test_a_hub_cannot_make_a_node_read_for_ever(world):
    almere, breda = settled(world)
    again = {"v": 1, "id": "b" * 16, "last": 9, "items": [], "again": True}

    def read(**page) -> int:
        with breda.database.transaction() as session:
            return feed.accept_page(session, orjson.dumps(again | page), "breda", START)

    assert read() == 1, "once is right: it was put back"
    with pytest.raises(Malformed):
        read()
    with pytest.raises(Malformed):
        read(id="c" * 16)
    assert read(id="c" * 16, again=False) == 0, "under yet another name it is read from where the node is: the beginning"
    breda.pull()
    assert breda.library_of("almere") == almere.own


def test_a_tail_without_end_puts_nothing_back_and_fills_no_memory(world, monkeypatch):
    almere, _ = settled(world)
    monkeypatch.setattr(restore, "TAIL_BYTES_MAX", 50_000)
    with almere.database.reading() as session:
        last = read_head(session)
    stranger, read = KeyPair.of(b"s" * 32), []

    def made_up(epoch: str, after: int) -> bytes:
        place = {"epoch": epoch, "seq": after + 1, "prevhash": last.hash}
        entry = seal(lesson("Verzonnen"), town="almere", key=stranger, now=START, salt=bytes(32), **place)
        read.append(orjson.dumps({"v": 1, "items": [to_json(entry)]}))
        return read[-1]

    before = almere.own
    with almere.database.reading() as session, pytest.raises(restore.NoTail):
        restore.fetch_tail(session, almere.author, made_up)
    assert sum(map(len, read)) < 55_000
    assert almere.own == before


def test_a_town_that_comes_late_hears_of_a_key_and_of_its_end_in_any_order(world):
    almere, breda = settled(world)
    almere.rotate()
    world.pump(3)
    almere.tell("lesson-2", "Van de dief")
    world.pump(3)
    with world.hub.database.transaction() as session:
        revoke_keys(session, "almere", START, 2)
    world.hub.digest()
    breda.pull()
    late = Node(world, "cuijk")
    world.hub.digest()
    late.pull()  # one page, and the association's words come first in it
    assert (
        world.hub.shown("almere") == breda.library_of("almere") == late.library_of("almere") == {"lesson-1": "Vraag vroeg om water"}
    )
    for node in (breda, late):
        with node.database.reading() as session:
            assert read_pins(session, ["almere"]).keys_of("almere") == []


def test_a_hub_that_lost_its_logs_does_not_believe_a_key_that_ended(world):
    almere, _ = settled(world)
    stolen = almere.key
    with world.hub.database.transaction() as session:
        revoke_keys(session, "almere", START, 1)
        for table in LOGS:
            session.execute(delete(table))
    world.hub.sidecar.said, world.hub.is_older = {}, True
    world.hub.start()
    almere.key = stolen
    assert world.hub.accept([chain(almere, "f" * 16, lesson("Van de dief"))]) == ["ended_key"]
    made_up = {"previous": "e" * 16, "last": 3, "last_hash": "0" * 64}
    fresh = chain(almere, "d" * 16, EpochOpened(epoch="d" * 16, **made_up), lesson("Van de dief"), EpochSettled(epoch="d" * 16))
    assert world.hub.accept([fresh]) == ["ended_key"]
    with almere.database.reading() as session:
        held = read_log(session, read_head(session).epoch, 0, 10)
    assert world.hub.accept([pack(held)[0]]) == ["ended_key"], "nor for what is lost here: who knows who fills the gap"
    almere.join_anew()
    world.heal()
    agreed(world)


def test_a_place_in_an_earlier_run_of_numbers_ends_everything_after_it(world):
    almere, breda = settled(world)
    with almere.database.reading() as session:
        last = read_head(session)
    place = {"epoch": last.epoch, "seq": 2, "prevhash": last.hash}
    theft = seal(lesson("Dief", code="lesson-2"), town="almere", key=almere.key, now=START, salt=bytes(32), **place)
    opened = EpochOpened(epoch="d" * 16, previous=last.epoch, last=2, last_hash=theft.hash.hex())
    more = chain(almere, "d" * 16, opened, lesson("Nog een dief", code="lesson-3"), EpochSettled(epoch="d" * 16))
    assert world.hub.accept([pack([theft])[0], more]) == ["stored", "stored"]
    world.hub.digest()
    breda.pull()
    assert world.hub.shown("almere") == breda.library_of("almere") == {"lesson-3": "Nog een dief"}

    def revokes(**at) -> dict:
        with world.hub.database.transaction() as session:
            revoke_keys(session, "almere", START, **at)
        world.hub.digest()
        breda.pull()
        assert world.hub.shown("almere") == breda.library_of("almere")
        return breda.library_of("almere")

    assert revokes() == {"lesson-3": "Nog een dief"}, "at first nobody knows since when"
    assert revokes(last=0) == {"lesson-1": "Vraag vroeg om water", "lesson-2": "Dief"}
    assert revokes(last=1, epoch=last.epoch) == {"lesson-1": "Vraag vroeg om water"}
    assert revokes(last=0, epoch=last.epoch) == {}
    with pytest.raises(NoKey):
        revokes(last=0, epoch=last.epoch)
    with world.hub.database.reading() as session:
        assert orjson.loads(feed.read_tail(session, "almere", "", 0))["items"] == []


def test_a_hub_that_is_put_back_twice_in_a_day_begins_anew_twice_and_then_rests(world):
    almere, breda = settled(world)
    backup = image(world.hub.database)
    for number in range(2):
        almere.tell("lesson-2", f"Na keer {number}")
        world.pump(2)
        world.hub.put_back(backup)
        world.heal()
    with world.hub.database.reading() as session:
        before = feed.feed_head(session)[0], read_head(session).epoch
    world.pump(3)
    with world.hub.database.reading() as session:
        assert (feed.feed_head(session)[0], read_head(session).epoch) == before
    assert breda.library_of("almere")["lesson-2"] == "Na keer 1"
    agreed(world)


def test_a_hub_without_its_logs_still_lets_new_towns_in(world):
    settled(world)
    with world.hub.database.transaction() as session:
        for table in LOGS:
            session.execute(delete(table))
    world.hub.sidecar.said, world.hub.is_older = {}, True
    world.heal()
    world.nodes["cuijk"] = cuijk = Node(world, "cuijk")
    cuijk.tell("lesson-1", "Nieuw erbij")
    world.heal()
    assert world.hub.shown("cuijk") == {"lesson-1": "Nieuw erbij"}
    assert world.nodes["almere"].library_of("cuijk") == {"lesson-1": "Nieuw erbij"}
    assert cuijk.library_of("almere") == world.nodes["almere"].own


def test_no_town_can_make_the_hub_begin_anew(world):
    almere, _ = settled(world)
    with world.hub.database.reading() as session:
        before = feed.feed_head(session)[0]
    with almere.database.transaction() as session:
        session.execute(feed.feed_cursor.update().values(number=1, chain="00"))
    world.pump(3)
    with world.hub.database.reading() as session:
        assert feed.feed_head(session)[0] == before
    agreed(world)


def test_a_town_that_comes_late_does_not_believe_a_key_that_was_lost(world):
    """The order in which it hears of things is another one than that in which they happened."""
    almere, _ = settled(world)
    lost = almere.key
    almere.rotate()
    world.pump(2)
    with world.hub.database.transaction() as session:
        held = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == "almere")).one()
        fresh = KeyPair.of(b"f" * 32)
        replace_keys(session, "almere", fresh.public, held.epoch, held.seq, world.clock())
        key = {"key_id": fresh.key_id, "public_key": to_text(fresh.public)}
        append(session, TownReadmitted(town="almere", name="Almere", **key, epoch=held.epoch, last=held.seq))
    world.hub.digest()
    world.nodes["cuijk"] = cuijk = Node(world, "cuijk")
    world.hub.digest()
    cuijk.pull()
    with cuijk.database.reading() as session:
        pins = read_pins(session, ["almere"])
        assert pins.keys_of("almere") == [fresh.public]
        for ended in (lost, almere.key):
            assert pins.key_for("almere", ended.key_id, held.epoch, held.seq + 1) is None
    assert cuijk.library_of("almere") == almere.own


def test_a_key_that_ended_can_name_no_successor_beyond_its_end(world):
    almere, _ = settled(world)
    thief = KeyPair.of(b"t" * 32)
    with world.hub.database.transaction() as session:
        held = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == "almere")).one()
        end_key(session, "almere", almere.key.key_id, held.epoch, held.seq)
        follow_key(session, "almere", almere.key.key_id, thief.public, held.epoch, held.seq, world.clock())
        end_key(session, "almere", almere.key.key_id, held.epoch, held.seq + 100)
        pins = read_pins(session, ["almere"])
        assert pins.keys_of("almere") == []
        assert pins.key_for("almere", almere.key.key_id, held.epoch, held.seq + 1) is None
        assert not pin_key(session, "almere", thief.public, world.clock()) or thief.public not in pins.keys_of("almere")


def test_a_town_cannot_name_another_one(world):
    almere, breda = settled(world)
    with almere.database.transaction() as session:
        key = {"key_id": "0" * 16, "public_key": to_text(bytes(32))}
        append(session, TownAdmitted(town="breda", name="Gekaapt", **key))
    world.pump(3)
    with breda.database.reading() as session:
        assert not session.execute(select(inbox).where(inbox.c.town == "almere", inbox.c.type == TownAdmitted.wire)).all()
        assert read_pins(session, ["breda"]).keys_of("breda") == [breda.key.public]


def test_a_town_that_erases_anothers_subject_erases_nothing(world):
    almere, breda = settled(world)
    breda.tell("lesson-1", "Van Breda")
    with breda.database.transaction() as session:
        append(session, Redacted(redacts="lesson-1"))
    world.pump(3)
    assert world.hub.shown("almere") == almere.own
    assert breda.library_of("almere") == almere.own


def test_what_was_erased_here_does_not_come_back_as_a_conflict(world):
    almere, _ = settled(world)
    backup = image(almere.database)
    almere.tell("lesson-1", "Nieuwer, bij de koepel")
    world.pump(2)
    put_back(almere, backup)
    almere.erase("lesson-1")
    world.pump(4)
    assert almere.own == {}
    with almere.database.reading() as session:
        assert read_conflicts(session) == []
    assert b"Nieuwer, bij de koepel" not in image(world.hub.database)


def test_a_log_that_was_put_back_goes_on_also_when_the_hub_holds_nothing_of_it(world):
    almere, breda = settled(world)
    backup = image(almere.database)
    almere.tell("lesson-2", "Bevestigd, en weg")
    world.pump(1)
    put_back(almere, backup, sidecar=True)
    with almere.database.reading() as session:
        assert set_back(session) is not None
    with world.hub.database.transaction() as session:
        for table in LOGS:
            session.execute(delete(table))
    world.hub.sidecar.said, world.hub.is_older = {}, True
    almere.tell("lesson-3", "Erna")
    world.heal()
    assert breda.library_of("almere") == almere.own == {"lesson-1": "Vraag vroeg om water", "lesson-3": "Erna"}


def test_a_database_from_before_a_rotation_goes_on_with_the_key_on_the_disk(world):
    almere, breda = settled(world)
    backup = image(almere.database)
    almere.rotate()
    almere.tell("lesson-2", "Met de nieuwe sleutel")
    world.pump(3)
    put_back(almere, backup)
    world.now += timedelta(days=2)
    with almere.database.transaction() as session:  # what a start does when the log does not know the key on the disk
        from shared.eventlog import change_key
        from shared.restore import note_setback

        change_key(session, almere.key.key_id)
        note_setback(session, "sidecar", world.clock())
    almere.tell("lesson-3", "Meteen weer verder")
    world.heal()
    assert almere.own == {
        "lesson-1": "Vraag vroeg om water", "lesson-2": "Met de nieuwe sleutel", "lesson-3": "Meteen weer verder",
    }  # fmt: skip
    assert breda.library_of("almere") == almere.own
    agreed(world)


def test_the_proof_of_a_rotation_holds_at_its_place_only(world):
    almere, _ = settled(world)
    fresh = KeyPair.of(b"x" * 32)
    with almere.database.transaction() as session:
        last = read_head(session)
        elsewhere = rotation_proof("almere", last.epoch, last.seq + 9, last.hash)
        proof = to_text(fresh.sign(ROTATES, elsewhere))
        append(session, KeyRotated(key_id=fresh.key_id, public_key=to_text(fresh.public), proof=proof))
    world.pump(2)
    with world.hub.database.reading() as session:
        assert read_pins(session, ["almere"]).keys_of("almere") == [almere.key.public]
        assert session.scalar(select(inbox_cursor.c.seq).where(inbox_cursor.c.town == KOEPEL)) is not None

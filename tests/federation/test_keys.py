"""A town's keys through backups, copies and the association's decisions: which one counts where (I12, I14, I15)."""

from datetime import timedelta

from sqlalchemy import delete

from shared.envelope import pack, read_event, seal
from shared.eventlog import read_head
from shared.inbox import inbox, inbox_cursor
from shared.pins import read_pins
from shared.restore import proves_setback, set_back
from tests.federation.copies import START, Node, agreed, put_back, settled
from tests.federation.mortal import image, put_image
from tests.shared.worlds import lesson


def keys_at(database, slug: str) -> list[bytes]:
    with database.reading() as session:
        return read_pins(session, [slug]).keys_of(slug)


def test_a_stolen_key_beyond_its_end_convinces_no_node_that_it_was_put_back(world):
    almere, _ = settled(world)
    stolen = almere.key
    almere.rotate()
    world.pump(3)
    for epoch in (almere.entries[0].says.epoch, "f" * 16):
        lie = seal(lesson("Gestolen"), town="almere", epoch=epoch, seq=9, prevhash=bytes(32), key=stolen, now=START, salt=bytes(32))
        with almere.database.reading() as session:
            assert not proves_setback(session, almere.author, lie.header, lie.signature)


def test_what_a_copy_wrote_with_the_previous_key_where_this_node_changed_it_comes_back(world):
    """Until the association has heard of the change, the previous key counts: it cannot know better, and neither may the node."""
    almere, breda = settled(world)
    here, instance = image(almere.database), almere.instance
    almere.tell("lesson-2", "Van de kopie")
    almere.tell("lesson-3", "Ook van de kopie")
    almere.relay(world.hub.under_way.append)
    put_image(almere.database, here)
    almere.instance, almere.sidecar.said = instance, {}
    almere.rotate()
    world.heal()
    world.pump()
    assert almere.own == {
        "lesson-1": "Vraag vroeg om water", "lesson-2": "Van de kopie", "lesson-3": "Ook van de kopie",
    }  # fmt: skip
    agreed(world)
    for there in (world.hub, almere, breda):
        assert keys_at(there.database, "almere") == [almere.key.public]


def test_a_database_from_before_two_changes_of_the_key_comes_back_with_both(world):
    almere, breda = settled(world)
    backup = image(almere.database)
    for _ in range(2):
        almere.rotate()
        world.pump(3)
    put_back(almere, backup)
    world.heal()
    world.pump()
    agreed(world)
    for there in (world.hub, almere, breda):
        assert keys_at(there.database, "almere") == [almere.key.public]


def test_a_town_that_joins_anew_twice_in_a_row_keeps_its_last_key(world):
    """The association's own log tells it of the first time when the second has happened already, and a new node reads it all."""
    almere, breda = settled(world)
    almere.lose_disk()
    almere.join_anew()
    almere.lose_disk()
    almere.join_anew()
    world.heal()
    for there in (world.hub, almere, breda):
        assert keys_at(there.database, "almere") == [almere.key.public]
    assert almere.own == {"lesson-1": "Vraag vroeg om water"}
    agreed(world)


def test_a_town_whose_key_was_revoked_keeps_its_log_and_goes_on_with_another_key_in_a_new_epoch(world):
    almere, breda = settled(world)
    almere.tell("lesson-2", "Noch niet aangekomen")
    almere.join_anew()
    assert almere.relay(world.hub.under_way.append) == 0, "first it compares itself with what the association holds"
    world.heal()
    assert almere.entries[0].says.type.endswith("epoch.opened.v1")
    assert breda.library_of("almere") == almere.own == {"lesson-1": "Vraag vroeg om water", "lesson-2": "Noch niet aangekomen"}
    agreed(world)


def test_joining_anew_weighs_more_than_a_backup_that_was_put_back(world):
    almere, _ = settled(world)
    put_back(almere, image(almere.database))
    almere.rotate()
    put_back(almere, image(almere.database), sidecar=True)
    almere.sidecar.said = {"epoch": almere.entries[0].says.epoch, "seq": 99, "hash": "0" * 64}
    almere.start()
    with almere.database.reading() as session:
        assert set_back(session).why == "sidecar"
    almere.join_anew()
    world.heal()
    assert almere.entries[0].says.type.endswith("epoch.opened.v1"), "its old epoch was cut off"
    agreed(world)


def test_a_hub_that_was_put_back_still_tells_of_a_town_that_joined_anew_just_before_the_backup(world):
    almere, breda = settled(world)
    almere.join_anew()
    backup = image(world.hub.database)  # it has not spoken of it yet
    world.hub.digest()
    world.hub.put_back(backup)
    world.hub.start()
    world.heal()
    assert keys_at(breda.database, "almere") == [almere.key.public]
    agreed(world)


def test_a_town_of_which_the_hub_lost_everything_is_heard_by_the_towns_that_did_not(world):
    almere, breda = settled(world)
    with world.hub.database.transaction() as session:
        for table in (inbox, inbox_cursor):
            session.execute(delete(table).where(table.c.town == "almere"))
    almere.lose_disk()
    almere.join_anew()
    world.heal()
    almere.tell("lesson-2", "Weer van voren af aan")
    world.heal()
    assert breda.library_of("almere") == almere.own == {"lesson-2": "Weer van voren af aan"}


def test_a_node_and_a_hub_that_know_no_epoch_of_one_another_find_each_other(world):
    almere, _ = settled(world)
    backup = image(almere.database)
    almere.lose_disk()
    almere.join_anew()
    with world.hub.database.transaction() as session:
        for table in (inbox, inbox_cursor):
            session.execute(delete(table).where(table.c.town == "almere"))
    world.heal()
    with almere.database.reading() as session:
        first = read_head(session).epoch
    put_back(almere, backup)
    almere.tell("lesson-2", "In de oude kopie")
    world.heal()
    with almere.database.reading() as session:
        assert read_head(session).epoch != first
    assert almere.own["lesson-2"] == "In de oude kopie"
    agreed(world)


def put_hub_back(world, backup: bytes) -> None:
    put_image(world.hub.database, backup)
    world.hub.start()


def test_a_hub_from_before_two_changes_of_a_key_still_knows_the_town_and_believes_none_of_the_keys_before(world):
    almere, breda = settled(world)
    backup, first = image(world.hub.database), almere.key
    for _ in range(2):
        almere.rotate()
        world.pump(3)
    last = almere.key
    almere.tell("lesson-2", "Met de derde sleutel")
    world.pump(2)
    put_hub_back(world, backup)
    with almere.database.reading() as session:
        head = read_head(session)
    theft = seal(
        lesson("Gestolen"),
        town="almere",
        epoch=head.epoch,
        seq=head.seq + 1,
        prevhash=head.hash,
        key=first,
        now=START,
        salt=bytes(32),
    )
    assert world.hub.accept([pack([theft])[0]]) == ["ended_key"]
    world.pump(5)
    assert almere.key is last, "no code was needed"
    agreed(world)
    for there in (world.hub, almere, breda):
        assert keys_at(there.database, "almere") == [last.public]


def test_who_joins_after_a_hub_lost_the_words_in_which_a_key_changed_believes_the_key_of_today(world):
    almere, _ = settled(world)
    hub_backup, backup = image(world.hub.database), image(almere.database)
    almere.rotate()
    world.pump(3)
    almere.tell("lesson-2", "Met de tweede sleutel")
    world.pump(2)
    put_back(almere, backup)
    almere.tell("lesson-3", "In een nieuw tijdperk")
    world.pump(4)
    assert almere.entries[0].says.type.endswith("epoch.opened.v1"), "what is in the epoch before is never sent again"
    put_hub_back(world, hub_backup)
    world.pump(4)
    world.nodes["cuijk"] = late = Node(world, "cuijk")
    world.pump(3)
    assert late.library_of("almere") == almere.own
    assert keys_at(late.database, "almere") == [almere.key.public]
    agreed(world)


def test_a_node_in_a_third_epoch_goes_on_with_a_hub_that_holds_the_first_and_only_knows_of_the_second(world):
    almere, _ = settled(world)
    hub_backup, first = image(world.hub.database), almere.entries[0].says.epoch
    for number in range(2):
        backup = image(almere.database)
        almere.tell("lesson-2", f"Verloren, {number}")
        world.pump(2)
        put_back(almere, backup)
        almere.tell("lesson-3", f"In een nieuw tijdperk, {number}")
        world.now += timedelta(days=2)
        world.pump(4)
    opened = read_event(almere.entries[0])
    assert opened.previous not in {first, opened.epoch}
    put_hub_back(world, hub_backup)
    world.pump(5)
    assert not world.frozen(), "it knows that there was a second, but holds nothing that this one should follow"
    agreed(world)


def test_what_a_first_backup_of_the_hub_did_not_hold_does_not_count_in_a_second_that_holds_it(world):
    """Else the node, which believes the association where that key ended, could make nothing of what is shown as its own."""
    almere, _ = world.nodes.values()
    before, backup = image(world.hub.database), image(almere.database)
    settled(world)
    held = image(world.hub.database)
    almere.lose_disk()
    almere.join_anew()
    world.heal()
    world.heals, last = False, almere.key
    put_hub_back(world, before)
    world.pump(3)
    put_hub_back(world, held)
    put_back(almere, backup)
    almere.tell("lesson-2", "In de oude kopie")
    world.pump(6)
    assert almere.key is last
    assert almere.own["lesson-2"] == "In de oude kopie"
    agreed(world)

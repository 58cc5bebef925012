"""How a town's word ends, at the hub's real doors: a key is revoked, a town leaves, and what is erased for a town that is gone."""

import orjson
import pytest
from sqlalchemy import func, select

from services.hub import worker
from services.hub.towns.joining import retell_towns
from shared import heads
from shared.envelope import from_json, pack
from shared.eventlog import append, read_head
from shared.events import KeyRevoked
from shared.feed import read_tail
from shared.inbox import accept_entries, erased, inbox, inbox_cursor
from shared.keys import KeyPair
from shared.projections import rebuild
from tests.hub.conftest import (
    cursor_of,
    heads_status,
    join_anew,
    library,
    refused_for,
    shown,
    speak_anew,
    stolen,
    stolen_with,
)
from tests.shared.worlds import lesson


def test_what_a_revoked_key_signs_beyond_its_place_reaches_neither_log_nor_cursor(hub, town, vera, clock):
    almere, breda = town("almere"), town("breda")
    almere.share("Van voor de diefstal")
    almere.relay()
    hub.work()
    page = vera.sees("/association/towns/almere/revoke")
    assert 'value="1"' in page
    assert "1: Van voor de diefstal" in page, "whoever names a number sees what it is"
    refused = vera.does("/association/towns/almere/revoke", "/association/towns/almere/revoke", 422, last="")
    assert 'id="last-error"' in refused, "nothing written is no number"
    vera.does("/association/towns/almere/revoke", "/association/towns/almere/revoke", last="1")
    theft = stolen(almere, "Gestolen")
    hub.bus.put(pack([theft])[0])
    hub.work()
    before = cursor_of(hub, "almere")
    assert (before.seq, before.frozen_at) == (1, None)
    assert shown(hub) == {("almere", "Van voor de diefstal")}
    assert refused_for(hub, "almere") == {"ended_key": 1}
    assert heads_status(hub, almere.key, heads.Call("almere", "a" * 16, "", 0, "", 0, "", 0, "", "", "n")) == 403

    breda.pull()
    with breda.database.transaction() as session:
        assert accept_entries(session, [theft], clock()) == 0
        assert session.scalar(select(func.count()).select_from(inbox).where(inbox.c.town == "almere")) == 1
        assert session.scalar(select(inbox_cursor.c.seq).where(inbox_cursor.c.town == "almere")) == 1

    code = vera.gets_code("/association/towns/almere/anew")
    join_anew(almere, code)
    vera.does("/association/towns/almere/let-in", key_id=almere.key.key_id)
    speak_anew(almere)
    assert almere.call().status == "ok"
    almere.share("Weer van ons")
    almere.relay()
    hub.work()
    breda.pull()
    assert shown(hub) == {("almere", "Weer van ons")}
    with breda.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(inbox).where(inbox.c.town == "almere")) == 4


def test_a_key_can_end_before_what_is_held_but_not_beyond_it(hub, town, vera):
    almere = town("almere")
    for title in ("Een", "Twee", "Drie"):
        almere.share(title)
    almere.relay()
    hub.work()
    path = "/association/towns/almere/revoke"
    assert "Write a number from 0 to 3" in vera.does(path, path, 422, last="4")
    vera.does(path, path, last="2")
    page = vera.sees("/association/towns/almere")
    assert "up to event 2" in page
    assert "Has no key" in page
    assert "no key that counts" in vera.does(path, path, 409, last="2")


def test_what_a_thief_told_before_the_key_was_revoked_is_shown_nowhere_any_more(hub, town, vera):
    almere, breda, zwolle = town("almere"), town("breda"), town("zwolle")
    almere.share("Van ons")
    almere.relay()
    theft = stolen(almere, "Van de dief")
    hub.bus.put(pack([theft])[0])
    hub.work()
    breda.pull()
    assert shown(hub) == library(breda) == {("almere", "Van ons"), ("almere", "Van de dief")}

    path = "/association/towns/almere/revoke"
    vera.does(path, path, last="1")
    hub.work()
    breda.pull()
    zwolle.pull()  # it hears of the theft and of its end at once
    assert shown(hub) == library(breda) == library(zwolle) == {("almere", "Van ons")}
    with hub.database.transaction() as session:
        rebuild(session, worker.PROJECTIONS)
    assert shown(hub) == {("almere", "Van ons")}

    code = vera.gets_code("/association/towns/almere/anew")
    join_anew(almere, code)
    vera.does("/association/towns/almere/let-in", key_id=almere.key.key_id)
    hub.work()
    breda.pull()
    assert shown(hub) == library(breda) == {("almere", "Van ons")}, "the new key does not vouch for what the thief told"
    with hub.database.reading() as session:
        tail = orjson.loads(read_tail(session, "almere", "", 0))["items"]
    assert [from_json(item).says.seq for item in tail] == [1], "nor does the town get it back as its own"
    with almere.database.reading() as session:
        mine = read_head(session)
    speak_anew(almere, (mine.epoch, mine.seq, mine.hash))
    assert almere.call().status == "ok"
    almere.share("Weer van ons")
    almere.relay()
    hub.work()
    breda.pull()
    assert shown(hub) == library(breda) == {("almere", "Weer van ons")}


def test_a_run_of_numbers_that_a_thief_began_is_as_if_it_never_was(hub, town, vera, clock):
    almere, breda = town("almere"), town("breda")
    almere.share("Van ons")
    almere.relay()
    hub.work()
    clock.pass_by(days=2)
    speak_anew(almere)
    almere.share("Van de dief")
    almere.relay()
    hub.work()
    breda.pull()
    assert shown(hub) == library(breda) == {("almere", "Van de dief")}
    vera.log_in()
    path = "/association/towns/almere/revoke"
    vera.does(path, path, last="0")
    hub.work()
    breda.pull()
    assert shown(hub) == library(breda) == {("almere", "Van ons")}


def test_the_association_tells_again_which_keys_ended(hub, town, vera):
    town("almere")
    vera.does("/association/towns/almere/revoke", "/association/towns/almere/revoke", last="0")
    with hub.database.reading() as session:
        told = list(retell_towns(session, None))
    assert [type(one).__name__ for one in told] == ["TownAdmitted", "KeyRevoked"]
    assert told[1] == KeyRevoked(town="almere", key_id=told[0].key_id, epoch="none", last=0)


@pytest.mark.parametrize(("forgets", "stays"), [("nothing", True), ("lessons", False), ("everything", False)])
def test_a_town_leaves_and_what_it_shared_stays_or_is_erased_everywhere(hub, town, vera, forgets, stays):
    almere, breda = town("almere"), town("breda")
    almere.share("Nagelaten")
    almere.relay()
    hub.work()
    breda.pull()
    path = "/association/towns/almere/leave"
    vera.does(path, path, forgets=forgets)
    vera.does(path, path, 409, forgets=forgets)
    hub.work()
    breda.pull()
    assert shown(hub) == ({("almere", "Nagelaten")} if stays else set())
    for database in (hub.database, breda.database):
        with database.reading() as session:
            bodies = session.scalars(select(inbox.c.body).where(inbox.c.town == "almere")).all()
        assert [body is not None for body in bodies] == [stays]
    assert ("Almere" in hub.page("/towns")) is stays
    assert "left the association" in hub.page("/towns/almere")
    assert "has left" in vera.sees("/association")
    assert "erasures_under_way 0.0" in hub.page("/metrics") or not stays
    breda.call()
    assert "erasures_under_way 0.0" in hub.page("/metrics"), "nobody waits for a town that left"


def test_a_goodbye_that_comes_after_the_association_wrote_it_down_is_no_refused_message(hub, town, vera):
    """Its node hears at its next call only that its key counts no longer: the last words come in the meantime."""
    almere, path = town("almere"), "/association/towns/almere/leave"
    almere.share("Nagelaten")
    almere.relay()
    hub.work()
    vera.does(path, path, forgets="nothing")
    almere.share("Het afscheid")
    almere.relay()
    hub.work()
    assert shown(hub) == {("almere", "Nagelaten")}
    assert refused_for(hub, "almere") == {}
    assert cursor_of(hub, "almere").seq < read_head_of(almere).seq, "it is not taken either"
    hub.bus.put(pack([stolen_with(almere, KeyPair.of(bytes(32)), "Vals")])[0])
    hub.work()
    assert refused_for(hub, "almere") == {"unknown_key": 1}, "somebody else in its name is a matter to look at"


def read_head_of(town):
    with town.database.reading() as session:
        return read_head(session)


def test_the_association_erases_for_a_town_that_is_gone_and_for_no_other(hub, town, vera, clock):
    almere, breda = town("almere"), town("breda")
    code, copied = almere.share("Gaat over Roos"), breda.share("Van ons")
    with almere.database.transaction() as session:
        append(session, lesson("Nagepraat", code=copied))
    for one in (almere, breda):
        one.relay()
    hub.work()
    vera.sees("/association/towns/almere/told", status=409)
    vera.does(f"/association/towns/almere/told/{code}/erase", status=409)
    clock.pass_by(days=31)
    breda.call()
    vera.log_in()
    page = vera.sees("/association/towns/almere/told")
    assert "Gaat over Roos" in page
    assert copied not in page, "another town speaks of it too"
    vera.does(f"/association/towns/almere/told/{copied}/erase", status=404)
    vera.does(f"/association/towns/almere/told/{code}/erase")
    hub.work()
    assert shown(hub) == {("almere", "Nagepraat"), ("breda", "Van ons")}
    with hub.database.reading() as session:
        assert session.scalar(select(inbox.c.body).where(inbox.c.subject == code, inbox.c.town == "almere")) is None
        assert [tuple(row) for row in session.execute(select(erased))] == [("*", code)]
    assert "erasures_under_way 1.0" in hub.page("/metrics")
    breda.pull()
    breda.call()
    with breda.database.reading() as session:
        assert session.scalar(select(inbox.c.body).where(inbox.c.subject == code, inbox.c.town == "almere")) is None

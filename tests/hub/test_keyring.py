"""A hub that is put back from a backup, with real files: what was decided about keys since holds there from the first call on."""

import dataclasses
import errno
import shutil
import subprocess
import sys
from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from services.hub import worker
from services.hub.app import create_app
from services.hub.config import open_hub
from services.hub.memory import keyring
from services.hub.towns.joining import PROOF, CodeUnknown, Town, add_town, join_town, renew_code
from services.hub.towns.keyring import Keyring
from services.hub.towns.people import AssociationMember
from services.hub.towns.setback import keep_in_step
from shared import heads
from shared.envelope import pack
from shared.eventlog import append, read_head
from shared.events import TownAdmitted
from shared.inbox import accept_entries
from shared.keys import KeyPair, to_text
from shared.pins import end_key, note_epoch, pin_key, read_pins, replace_keys, revoke_key
from shared.restore import Sidecar
from tests.console import Console
from tests.federation.conftest import Bus, Hub
from tests.hub.conftest import (
    Vera,
    heads_status,
    join_anew,
    library,
    refused_for,
    shown,
    speak_anew,
    stolen,
    stolen_with,
)

COPY = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', (sys.argv[2],))"


class PutBack:
    """A hub on SQLite whose database can be copied, and the copy put in its place, as the README says it."""

    def __init__(self, hub):
        self.hub, self.file = hub, hub.settings.state / "hub.db"
        self.safe = hub.settings.state.parent / "safe.db"

    def back_up(self):
        self.safe.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-c", COPY, self.file, self.safe], check=True)

    def put_back(self):
        """Only the web process has started since."""
        self.hub.database.close()
        self.hub.app.extensions["site"].database.close()
        for leftover in ("hub.db", "hub.db-wal", "hub.db-shm"):
            (self.hub.settings.state / leftover).unlink(missing_ok=True)
        shutil.copy(self.safe, self.file)
        self.open()

    def open(self):
        self.hub.app = create_app(self.hub.settings)
        self.hub.app.extensions["site"].clock = self.hub.clock
        self.hub.database, author = open_hub(self.hub.settings)
        self.hub.author = self.hub.database.info["author"] = dataclasses.replace(author, now=self.hub.clock)

    def start_worker(self):
        """What the worker does before it takes anything in, and what follows from it."""
        worker.speak_for_association(self.hub.database)
        begun = keep_in_step(self.hub.database, Sidecar(self.hub.settings.state / "reach.json"), keyring(self.hub.settings))
        self.hub.work()
        return begun


@pytest.fixture
def hub(tmp_path, clock):
    made = Hub(tmp_path / "hub", "", clock, Bus())
    with made.database.transaction() as session:
        session.add(AssociationMember(code="vera", name="Vera Voorbeeld", email="vera@koepel.example"))
    yield made
    made.close()


@pytest.fixture
def copy(hub):
    return PutBack(hub)


def door(hub, town, key=None):
    return heads_status(hub, key or town.key, heads.Call(town.slug, "a" * 16, "", 0, "", 0, "", 0, "", "", "n"))


def keys_at(database, slug):
    with database.reading() as session:
        pins = read_pins(session, [slug])
        return pins.keys_of(slug), pins


def test_a_key_that_was_revoked_after_the_backup_is_believed_nowhere(hub, town, vera, copy, clock):
    almere, breda = town("almere"), town("breda")
    almere.share("Van ons")
    almere.relay()
    copy.start_worker()
    copy.back_up()
    vera.does("/association/towns/almere/revoke", "/association/towns/almere/revoke", last="1")
    hub.work()
    breda.pull()
    copy.put_back()
    assert door(hub, almere) == 403, "before any worker has started"
    theft = stolen(almere, "Gestolen")
    hub.bus.put(pack([theft])[0])
    assert copy.start_worker(), "the association begins anew"
    assert refused_for(hub, "almere") == {"ended_key": 1}
    zwolle = town("zwolle")
    for one in (breda, zwolle):
        one.pull()
        assert library(one) == shown(hub) == {("almere", "Van ons")}
        assert keys_at(one.database, "almere")[0] == []
        with one.database.transaction() as session:
            assert accept_entries(session, [theft], clock()) == 0
    assert not copy.start_worker(), "once is enough"


def test_what_a_thief_told_is_shown_nowhere_although_the_backup_shows_it(hub, town, vera, copy):
    almere = town("almere")
    almere.share("Van ons")
    almere.relay()
    hub.bus.put(pack([stolen(almere, "Van de dief")])[0])
    hub.work()
    copy.start_worker()
    copy.back_up()
    vera.does("/association/towns/almere/revoke", "/association/towns/almere/revoke", last="1")
    copy.put_back()
    assert shown(hub) == {("almere", "Van ons")}, "no worker has started yet"
    zwolle = town("zwolle")
    copy.start_worker()
    zwolle.pull()
    assert library(zwolle) == shown(hub) == {("almere", "Van ons")}


def test_who_has_a_revoked_key_cannot_fill_the_gap_that_a_backup_leaves(hub, town, vera, copy):
    almere = town("almere")
    almere.share("Van ons")
    almere.relay()
    copy.start_worker()
    theft = stolen(almere, "Andere woorden op plaats twee")
    copy.back_up()
    almere.share("Op plaats twee")
    almere.relay()
    hub.work()
    vera.does("/association/towns/almere/revoke", "/association/towns/almere/revoke", last="2")
    copy.put_back()
    hub.bus.put(pack([theft])[0])
    copy.start_worker()
    assert refused_for(hub, "almere") == {"ended_key": 1}
    assert shown(hub) == {("almere", "Van ons")}


def test_a_town_that_joined_anew_after_the_backup_needs_no_other_code(hub, town, vera, copy):
    almere, breda = town("almere"), town("breda")
    almere.share("Van voor de brand")
    almere.relay()
    copy.start_worker()
    code, old = vera.gets_code("/association/towns/almere/anew"), almere.key
    copy.back_up()
    join_anew(almere, code)
    vera.does("/association/towns/almere/let-in", key_id=almere.key.key_id)
    copy.put_back()
    assert almere.join(code, KeyPair.of(bytes(32))).status_code == 403, (
        "a code works once, also when the backup knows nothing of it"
    )
    assert almere.join(code).json["let_in"], "but who used it may ask again"
    assert (door(hub, almere, old), door(hub, almere)) == (403, 409)
    speak_anew(almere)
    almere.share("Na de brand")
    hub.bus.put(pack([stolen_with(almere, old, "Met de oude sleutel")])[0])
    copy.start_worker()
    assert almere.call().status == "ok"
    almere.relay()
    hub.work()
    breda.pull()
    assert shown(hub) == library(breda) == {("almere", "Na de brand")}
    assert refused_for(hub, "almere") == {"ended_key": 1}


def test_a_town_that_joined_after_the_backup_is_known_and_one_that_left_is_gone(hub, town, vera, copy):
    almere = town("almere")
    copy.start_worker()
    copy.back_up()
    breda = town("breda")
    breda.share("Nieuw erbij")
    breda.relay()
    copy.start_worker()
    vera.does("/association/towns/almere/leave", "/association/towns/almere/leave", forgets="nothing")
    copy.put_back()
    assert door(hub, almere) == 403
    assert door(hub, breda) in {200, 409}
    again = Vera(hub, hub.clock)
    assert "has left" in again.sees("/association")
    assert "already" in again.does("/association/towns/new", "/association/towns/new", 422, name="Breda", slug="breda")
    copy.start_worker()
    breda.call()
    hub.work()
    breda.call()
    breda.relay()
    hub.work()
    assert shown(hub) == {("breda", "Nieuw erbij")}


def test_a_hub_that_lost_its_database_knows_its_towns_by_the_file(hub, town, copy, tmp_path):
    almere = town("almere")
    almere.share("Van ons")
    almere.relay()
    copy.start_worker()
    empty = Hub(tmp_path / "empty", "", hub.clock, Bus())
    for name in ("koepel.key", "keys.json"):
        shutil.copy(hub.settings.state / name, empty.settings.state / name)
    empty.close()
    copy.hub = almere.hub = empty
    copy.open()
    copy.start_worker()
    almere.author = almere.database.info["author"]
    assert almere.call().status == "ok"
    with almere.database.reading() as session:
        assert read_head(session).seq == 1


def test_the_file_is_never_behind_a_commit_and_does_not_change_without_need(hub, town, vera, copy):
    town("almere")
    copy.start_worker()
    kept = keyring(hub.settings)
    first = kept.path.stat().st_mtime_ns
    copy.start_worker()
    assert kept.path.stat().st_mtime_ns == first
    vera.does("/association/towns/almere/revoke", "/association/towns/almere/revoke", last="0")
    (key,) = kept.read()["towns"]["almere"]["keys"].values()
    assert key["ends"] == ["none", 0], "no worker was needed"


def test_a_decision_that_was_not_written_down_is_at_the_next_start(hub, town, copy):
    """As when the process died between its commit and the file."""
    town("almere")
    copy.start_worker()
    kept = keyring(hub.settings)
    before = kept.path.read_bytes()
    town("breda")
    kept.path.write_bytes(before)
    assert not copy.start_worker(), "the database is no older one"
    assert kept.read()["towns"].keys() == {"almere", "breda"}


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"v": 1}', b'{"v": 9, "owes": null, "towns": {}}', b"\xff"])
def test_a_hub_does_not_start_with_a_file_that_says_nothing(tmp_path, broken):
    console = Console("hub", tmp_path)
    console.does("db", "upgrade")
    console.does("town", "add", "almere", "Almere")
    file = console.state / "keys.json"
    file.write_bytes(broken)
    for words in (("run", "web"), ("run", "worker"), ("town", "add", "breda", "Breda"), ("town", "revoke", "almere")):
        assert str(file) in console.refuses(*words)
    file.unlink()
    assert "NoKey" in console.refuses("town", "revoke", "almere"), "without any file it begins one"


def test_what_a_town_told_before_it_left_stays_with_the_towns_that_hold_it(hub, town, vera, copy):
    """The copy lacks it, and nobody tells it again: it was not the association that took it back."""
    almere, breda = town("almere"), town("breda")
    almere.share("Van ons")
    almere.relay()
    hub.work()
    copy.start_worker()
    copy.back_up()
    almere.share("Later verteld")
    almere.relay()
    hub.work()
    breda.pull()
    vera.does("/association/towns/almere/leave", "/association/towns/almere/leave", forgets="nothing")
    hub.work()
    breda.pull()
    copy.put_back()
    assert door(hub, almere) == 403
    hub.bus.put(pack([stolen(almere, "Gestolen")])[0])
    assert copy.start_worker()
    zwolle = town("zwolle")
    for one in (breda, zwolle):
        one.call()
        one.pull()
        assert keys_at(one.database, "almere")[0] == []
    assert library(breda) == {("almere", "Van ons"), ("almere", "Later verteld")}
    assert library(zwolle) == shown(hub) == {("almere", "Van ons")}


def test_a_code_that_was_replaced_after_the_backup_lets_nobody_in(hub, copy):
    with hub.database.transaction() as session:
        code = add_town(session, "zwolle", "Zwolle", hub.clock())
    town_key = KeyPair.of(bytes(32))
    copy.start_worker()
    copy.back_up()
    with hub.database.transaction() as session:
        renew_code(session, "zwolle", hub.clock())
        append(session, TownAdmitted(town="urk", name="Urk", key_id=town_key.key_id, public_key=to_text(town_key.public)))
    copy.start_worker()
    copy.put_back()
    assert copy.start_worker()
    hub.clock.now += timedelta(seconds=1)
    proof = town_key.sign(PROOF, code.replace("-", "").encode() + town_key.public)
    with hub.database.transaction() as session, pytest.raises(CodeUnknown):
        join_town(session, code, to_text(town_key.public), to_text(proof), hub.clock())


def test_a_hub_whose_file_cannot_be_written_begins_anew_only_once(hub, town, copy, monkeypatch):
    town("almere")
    copy.start_worker()
    kept = keyring(hub.settings)
    with hub.database.reading() as session:
        before = read_head(session).epoch
    kept.write(kept.read() | {"owes": before})

    def full(self, said):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Keyring, "write", full)
    epochs = []
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            copy.start_worker()
        with hub.database.reading() as session:
            epochs.append(read_head(session).epoch)
    assert len({before, *epochs}) == 2


def test_a_file_that_comes_back_late_changes_nothing_that_was_decided_meanwhile(hub, copy):
    """The hub ran without it. What it says of former keys is heeded; the key of today stays."""
    now = hub.clock()
    first, second, third = (KeyPair.of(bytes([number]) * 32) for number in (1, 2, 3))

    def take(session, key, epochs):
        replace_keys(session, "zwolle", key.public, "ep01", 0, now)
        session.get(Town, "zwolle").key_id = key.key_id
        for epoch, number in epochs:
            note_epoch(session, "zwolle", epoch, number, now, 1)

    with hub.database.transaction() as session:
        row = {"slug": "zwolle", "name": "Zwolle", "code_hash": "x" * 64, "vouched": False, "anew": False}
        session.add(Town(**row, code_until=now, made_at=now, joined_at=now, key_id=first.key_id))
        pin_key(session, "zwolle", first.public, now)
        note_epoch(session, "zwolle", "ep01", 1, now, 0)
    copy.start_worker()
    copy.back_up()
    with hub.database.transaction() as session:
        take(session, second, [("ep02", 2), ("ep03", 3)])
        end_key(session, "zwolle", second.key_id, "ep03", 5)
    copy.start_worker()
    kept = keyring(hub.settings)
    late = kept.path.read_bytes()
    kept.path.unlink()
    copy.put_back()
    copy.start_worker()
    with hub.database.transaction() as session:
        take(session, third, [("ep04", 2)])
    copy.start_worker()
    hub.database.close()
    kept.path.write_bytes(late)
    copy.open()
    copy.start_worker()
    with hub.database.reading() as session:
        pins = read_pins(session, ["zwolle"])
        assert session.get(Town, "zwolle").key_id == third.key_id
    assert pins.keys_of("zwolle") == [third.public]
    assert [pins.number_of("zwolle", f"ep0{nth}") for nth in (1, 2, 3)] == [1, 2, 3]
    assert pins.number_of("zwolle", "ep04") > 3
    assert pins.key_for("zwolle", second.key_id, "ep04", 9, hears_all=True) is None


def test_a_key_that_ended_before_it_was_heard_of_stays_so(hub, town, copy):
    strange = KeyPair.of(bytes([9]) * 32).key_id
    town("almere")
    copy.start_worker()
    copy.back_up()
    with hub.database.transaction() as session:
        revoke_key(session, "almere", strange, "epoch-9", 3, hub.clock())
    copy.start_worker()
    copy.put_back()
    copy.start_worker()
    assert keys_at(hub.database, "almere")[1].has_ended("almere", strange)


def test_what_is_committed_is_said_to_be_done_although_the_file_must_wait(hub, town, vera, copy, monkeypatch):
    town("almere")
    copy.start_worker()

    def broken(self, database):
        raise OperationalError("SELECT", {}, Exception("connection lost"))

    with monkeypatch.context() as patch:
        patch.setattr(Keyring, "note", broken)
        vera.does("/association/towns/almere/revoke", "/association/towns/almere/revoke", last="0")
    assert keys_at(hub.database, "almere")[0] == []
    copy.start_worker()
    assert all(said["ends"] for said in keyring(hub.settings).read()["towns"]["almere"]["keys"].values())

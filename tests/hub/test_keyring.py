"""A hub that is put back from a backup, with real files: what was decided about keys since holds there from the first call on."""

import shutil
import subprocess
import sys

import pytest

from services.hub import worker
from services.hub.app import create_app
from services.hub.config import open_hub
from services.hub.memory import keyring
from services.hub.towns.people import AssociationMember
from services.hub.towns.setback import keep_in_step
from shared import heads
from shared.envelope import pack
from shared.eventlog import read_head
from shared.inbox import accept_entries
from shared.keys import KeyPair
from shared.pins import read_pins
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
        self.hub.database, self.hub.author = open_hub(self.hub.settings)

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


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"v": 1}', b'{"v": 9, "owes": false, "towns": {}}', b"\xff"])
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

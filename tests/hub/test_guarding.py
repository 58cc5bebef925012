"""What the association sees and does when something is wrong with a town: at the hub's real doors, with real logs behind them."""

import html
import random
import re
import threading

import orjson
import pytest
from sqlalchemy import func, select

from services.hub import worker
from services.hub.lessons.projection import NationalLesson, lessons
from services.hub.towns.association import spelled
from services.hub.towns.joining import retell_towns
from services.hub.towns.people import AssociationMember
from services.hub.towns.projection import towns
from shared import heads, login
from shared.db import Database
from shared.envelope import from_json, pack, seal
from shared.eventlog import Author, append, open_epoch, read_head
from shared.events import EpochOpened, EpochSettled, KeyRevoked, LessonShared
from shared.feed import read_tail
from shared.inbox import accept_entries, erased, freeze, inbox, inbox_cursor
from shared.keys import KeyPair
from shared.projections import apply, foldable, projection_cursor, rebuild, stalls
from shared.quarantine import quarantine_count
from tests.console import Console
from tests.federation.conftest import Bus, Clock, Hub, Town
from tests.shared.worlds import lesson


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def hub(request, tmp_path, clock):
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres").fresh_database()
    made = Hub(tmp_path / "hub", url, clock, Bus())
    with made.database.transaction() as session:
        session.add(AssociationMember(code="vera", name="Vera Voorbeeld", email="vera@koepel.example"))
    yield made
    made.close()


@pytest.fixture
def town(hub, tmp_path, clock):
    made = []

    def make(slug):
        made.append(Town(slug, hub, tmp_path, clock))
        made[-1].call()
        return made[-1]

    yield make
    for one in made:
        one.database.close()


class Vera:
    """Somebody of the association, at their browser."""

    def __init__(self, hub, clock):
        self.hub, self.clock, self.browser = hub, clock, hub.app.test_client()
        self.browser.environ_base["HTTP_ACCEPT_LANGUAGE"] = "en"
        self.log_in()

    def log_in(self):
        """Again after a long time."""
        with self.hub.database.transaction() as session:
            cookie = login.enter(session, login.make_link(session, "vera", self.clock()), self.clock())
        self.browser.set_cookie(self.hub.app.extensions["site"].cookie, cookie)

    def sees(self, path, status=200):
        answer = self.browser.get(path)
        assert answer.status_code == status, (path, answer.status_code)
        return html.unescape(answer.text)

    def does(self, path, page="/association", status=302, **values):
        token = re.search(
            r'name="csrf_token"[^>]*value="([^"]+)"|value="([^"]+)"[^>]*name="csrf_token"', self.browser.get(page).text
        )
        answer = self.browser.post(path, data={"csrf_token": token[1] or token[2], **values})
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        return html.unescape(answer.text)

    def makes_town(self, slug):
        page = self.does("/association/towns/new", "/association/towns/new", 200, name=slug.capitalize(), slug=slug)
        assert "http://127.0.0.1:8000" in page, "the node asks for it, beside the code"
        return code_in(page)


def code_in(page):
    return re.search(r"<code>([A-Z0-9-]{23})</code>", page)[1]


@pytest.fixture
def vera(hub, clock):
    return Vera(hub, clock)


def shown(hub):
    with hub.database.reading() as session:
        return set(session.execute(select(NationalLesson.town, NationalLesson.title)).all())


def cursor_of(hub, slug):
    with hub.database.reading() as session:
        return session.execute(select(inbox_cursor).where(inbox_cursor.c.town == slug)).first()


def refused_for(hub, slug):
    with hub.database.reading() as session:
        return dict(
            session.execute(
                select(quarantine_count.c.verdict, quarantine_count.c.times).where(quarantine_count.c.town == slug)
            ).all()
        )


def stranger_of(town):
    """The key of another node that would like to speak for this town."""
    return KeyPair.of(random.Random(f"stranger {town.slug}").randbytes(32))


def stolen(town, title):
    """What somebody who has the town's key signs as its next event."""
    with town.database.reading() as session:
        last = read_head(session)
    place = {"epoch": last.epoch, "seq": last.seq + 1, "prevhash": last.hash}
    return seal(lesson(title, code="stolen-1"), town=town.slug, key=town.key, now=town.clock(), salt=bytes(32), **place)


def join_anew(town, code):
    """A node with an empty folder and another key: its answer, once the code was shown."""
    town.key = KeyPair.of(random.Random(f"anew {town.slug}").randbytes(32))
    return town.join(code, town.key)


def library(town):
    """What a node makes of what it pulled."""
    with town.database.transaction() as session:
        while apply(session, [lessons]):
            pass
        return set(session.execute(select(NationalLesson.town, NationalLesson.title)).all())


def speak_anew(town, after=None):
    """Let in, the node begins a new epoch after everything that the association holds, or after this place."""
    held = cursor_of(town.hub, town.slug)
    epoch, seq, hashed = after or (held.epoch, held.seq, bytes(held.hash))
    town.author = Author(town.slug, town.key, town.clock, town.random.randbytes)
    town.database.info["author"], town.instance = town.author, "b" * 16
    with town.database.transaction() as session:
        opened = {"previous": epoch, "last": seq, "last_hash": hashed.hex()}
        epoch = open_epoch(session, town.author)
        opened = EpochOpened(epoch=epoch, **opened)
        append(session, opened)
        append(session, EpochSettled(epoch=epoch))
    return epoch


# ---- Joining ---------------------------------------------------------------------------------------------------------------


def test_a_node_that_used_a_code_waits_until_somebody_compared_its_key(hub, town, vera):
    almere = town("almere")
    code = vera.makes_town("breda")
    breda = object.__new__(Town)
    breda.__dict__ |= almere.__dict__ | {"slug": "breda", "key": stranger_of(almere)}
    answer = breda.join(code)
    assert (answer.status_code, answer.json["let_in"]) == (200, False)
    assert breda.join(code).json == answer.json, "a lost answer is asked for again"
    assert breda.join(code, KeyPair.of(bytes(32))).status_code == 403, "the code works once"
    call = heads.Call("breda", "a" * 16, "", 0, "", 0, "", 0, "", "", "nonce")
    assert heads_status(hub, breda.key, call) == 403
    breda.author = Author("breda", breda.key, breda.clock, breda.random.randbytes)
    assert breda.call().status == heads.AT_DOOR, "signed, so that the node may believe it"
    assert heads_status(hub, almere.key, call) == 401, "only that node may know that it waits"

    assert "A node wants to join as Breda" in vera.sees("/association")
    page = vera.sees("/association/towns/breda")
    assert spelled(breda.key.key_id) in page
    vera.does("/association/towns/breda/let-in", key_id="0" * 16, status=409)
    assert heads_status(hub, breda.key, call) == 403
    vera.does("/association/towns/breda/let-in", key_id=breda.key.key_id)
    assert heads_status(hub, breda.key, call) in {200, 409}
    assert breda.join(code).json["let_in"]
    hub.work()
    assert "Breda" in hub.page("/towns")


def heads_status(hub, key, call):
    body = heads.orjson.dumps(heads.asdict(call))
    signed = heads.to_text(key.sign(heads.ASKS, body))
    return hub.app.test_client().post("/federation/v1/heads", data=body, headers={"Tuinkoepel-Signature": signed}).status_code


def test_a_stranger_who_used_the_code_is_sent_away_by_another_one(hub, town, vera):
    almere, code = town("almere"), vera.makes_town("breda")
    stranger = stranger_of(almere)
    assert almere.join(code, stranger).json["let_in"] is False
    fresh = code_in(vera.does("/association/towns/breda/code", status=200))
    assert almere.join(code, stranger).status_code == 403
    vera.does("/association/towns/breda/let-in", key_id=stranger.key_id, status=409)
    assert almere.join(fresh, KeyPair.of(b"b" * 32)).status_code == 200


def test_a_code_that_has_expired_says_so_and_can_be_renewed(hub, town, vera, clock):
    almere, code = town("almere"), vera.makes_town("breda")
    assert "Code works until" in vera.sees("/association/towns/breda")
    clock.pass_by(days=31)
    vera.log_in()
    assert "its code has expired" in vera.sees("/association")
    assert "Code expired" in vera.sees("/association/towns/breda")
    assert almere.join(code, stranger_of(almere)).status_code == 403
    fresh = code_in(vera.does("/association/towns/breda/code", status=200))
    assert almere.join(fresh, stranger_of(almere)).status_code == 200


def test_a_town_that_lost_its_node_comes_in_with_another_key_and_the_old_one_ends(hub, town, vera):
    almere = town("almere")
    almere.share("Van voor de brand")
    almere.relay()
    hub.work()
    vera.does("/association/towns/almere/code", status=409)
    code = code_in(vera.does("/association/towns/almere/anew", status=200))
    old = almere.key
    answer = join_anew(almere, code)
    assert (answer.json["anew"], answer.json["let_in"]) == (True, False)
    almere.key, fresh = old, almere.key
    assert almere.call().status == "ok", "the old key counts until the new one is let in"
    almere.key = fresh
    vera.does("/association/towns/almere/let-in", key_id=fresh.key_id)
    assert almere.join(code, KeyPair.of(b"c" * 32)).status_code == 403, "the code works once"
    hub.bus.put(pack([stolen_with(almere, old, "Met de oude sleutel")])[0])
    speak_anew(almere)
    assert almere.call().status == "ok"
    almere.share("Met de nieuwe sleutel")
    almere.relay()
    hub.work()
    assert shown(hub) == {("almere", "Met de nieuwe sleutel")}
    assert refused_for(hub, "almere") == {"ended_key": 1}


def test_a_town_that_is_let_in_anew_goes_on_although_it_stood_still_and_had_just_begun_anew(hub, town, vera):
    almere = town("almere")
    almere.share("Van voor de brand")
    almere.relay()
    hub.work()
    for loss in range(2):
        almere.random = random.Random(f"loss {loss}")
        almere.key = KeyPair.of(almere.random.randbytes(32))
        almere.join(code_in(vera.does("/association/towns/almere/anew", status=200)), almere.key)
        with hub.database.transaction() as session:
            freeze(session, "almere", "two_copies", hub.clock())
        vera.does("/association/towns/almere/let-in", key_id=almere.key.key_id)
        speak_anew(almere)
        assert almere.call().status == "ok"
        almere.share(f"Na de brand, {loss}")
        almere.relay()
        hub.work()
        assert shown(hub) == {("almere", f"Na de brand, {loss}")}
    vera.sees("/association/towns/almere/frozen", status=302)


def stolen_with(town, key, title):
    here, town.key = town.key, key
    made = stolen(town, title)
    town.key = here
    return made


# ---- How a town's word ends ------------------------------------------------------------------------------------------------


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

    code = code_in(vera.does("/association/towns/almere/anew", status=200))
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

    code = code_in(vera.does("/association/towns/almere/anew", status=200))
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


# ---- What stands still, and what was refused -------------------------------------------------------------------------------


def test_a_frozen_town_is_explained_and_goes_on_when_somebody_decides(hub, town, vera):
    almere = town("almere")
    almere.share("Een")
    almere.relay()
    hub.work()
    almere.instance = "b" * 16
    almere.call()
    almere.instance = "a" * 16
    assert almere.call().status == "frozen"
    assert "two copies of the node" in vera.sees("/association")
    page = vera.sees("/association/towns/almere/frozen")
    for words in ("An earlier start of its node", "only one node runs", "b" * 16, "Run 1"):
        assert words in page
    almere.share("Twee")
    almere.relay()
    hub.work()
    assert shown(hub) == {("almere", "Een")}
    assert "tuinkoepel_frozen_towns 1.0" in hub.page("/metrics")
    vera.does("/association/towns/almere/thaw")
    vera.does("/association/towns/almere/thaw", status=409)
    assert vera.browser.get("/association/towns/almere/frozen").status_code == 302
    assert almere.call().status == "ok"
    hub.work()
    almere.call()
    almere.relay()
    hub.work()
    assert shown(hub) == {("almere", "Een"), ("almere", "Twee")}


def test_a_refused_message_is_shown_as_bytes_and_thrown_away_per_town(hub, town, vera):
    almere = town("almere")
    evil = b'<script>alert(1)</script> \xff\x00 {"town":"almere"}'
    hub.bus.put(evil, *(b"rubbish %d" % number for number in range(3)))
    forged = stolen_with(almere, KeyPair.of(bytes(32)), "Vals")
    hub.bus.put(pack([forged])[0])
    hub.work()
    page = vera.sees("/association/quarantine")
    assert "no town that is known here" in page
    assert "are no message of ours" in page
    assert "signed with a key that is not this town's" in page
    address = re.findall(r'href="(/association/quarantine/\d+)"', vera.browser.get("/association/quarantine?town=-").text)[-1]
    raw = vera.browser.get(address).text
    assert "<script>alert" not in raw
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \\xff\\x00" in raw
    assert "rubbish" not in vera.sees("/association/quarantine?town=almere")
    assert re.search(r"almere.*?<td[^>]*>1</td>", vera.sees("/association/quarantine?town=almere"), re.DOTALL)
    assert 'refused_messages{reason="malformed"} 4.0' in hub.page("/metrics")
    vera.does("/association/quarantine/-/clear", "/association/quarantine?town=-")
    assert refused_for(hub, "") == {}
    assert refused_for(hub, "almere") == {"unknown_key": 1}
    vera.does("/association/quarantine/-/clear", status=404)
    vera.sees(address, status=404)


@pytest.mark.parametrize("query", ["town=%00", "before=x", "before=²", "reason=<b>", "town=" + "x" * 500, "before=9999999999999"])
def test_odd_questions_break_no_page(vera, query):
    vera.sees(f"/association/quarantine?{query}")
    vera.sees(f"/association/towns/%00?{query}", status=404)
    vera.sees("/association/quarantine/99999999999999999999", status=404)


def test_the_pages_of_a_long_quarantine_show_each_message_once(hub, town, vera, clock):
    for _hour in range(3):
        hub.bus.put(*(b"rubbish %d" % number for number in range(30)))
        hub.work()
        clock.pass_by(hours=2)
    seen, url = [], "/association/quarantine"
    while url:
        page = vera.browser.get(url).text
        seen += re.findall(r'href="/association/quarantine/(\d+)"', page)
        url = html.unescape(found[1]) if (found := re.search(r'rel="next"\s+href="([^"]+)"', page)) else None
    # The worker's own clock stands in one hour, so thirty are kept.
    assert seen == sorted(set(seen), key=int, reverse=True)
    assert len(seen) == 30


def test_a_view_that_stands_still_is_tried_again_for_one_town(hub, town, vera, monkeypatch):
    almere, breda = town("almere"), town("breda")
    lessons = next(projection for projection in worker.PROJECTIONS if projection.name == "lessons")

    def fail(*_more):
        raise RuntimeError("a bug")

    with monkeypatch.context() as broken:
        broken.setitem(lessons.handlers, LessonShared, fail)
        for one in (almere, breda):
            one.share(f"Van {one.slug}")
            one.relay()
        hub.work()
    page = vera.sees("/association/towns/almere")
    assert "RuntimeError: a bug" in page
    assert "stands still at event 1" in page
    vera.does("/association/towns/almere/retry", projection="lessons")
    hub.work()
    assert shown(hub) == {("almere", "Van almere")}
    with hub.database.reading() as session:
        assert [stall.town for stall in stalls(session)] == ["breda"]


def test_a_town_that_waits_says_since_when(hub, town, vera, clock):
    almere = town("almere")
    almere.share("Onderweg")
    almere.call()
    clock.pass_by(hours=3)
    assert "since 3 hours ago" in vera.sees("/association")
    almere.relay()
    hub.work()
    almere.call()
    assert "since 3 hours" not in vera.sees("/association")
    assert "In sync" in vera.sees("/association/towns/almere")


def test_all_this_is_for_the_association(hub, town):
    town("almere")
    guest = hub.app.test_client()
    for path in ("quarantine", "quarantine/1", *(f"towns/almere{page}" for page in ("", "/frozen", "/revoke", "/leave", "/told"))):
        assert "/login" in guest.get(f"/association/{path}").headers["Location"], path


# ---- Rebuilding ------------------------------------------------------------------------------------------------------------


def test_the_worker_waits_with_folding_while_somebody_rebuilds(postgres, tmp_path, clock):
    hub = Hub(tmp_path / "hub", postgres.fresh_database(), clock, Bus())
    almere = Town("almere", hub, tmp_path, clock)
    other = Database(hub.settings.database_url)
    with hub.database.transaction() as session:
        rebuild(session, worker.PROJECTIONS)
    for number in range(5):
        almere.share(f"Les {number}")
    almere.relay()
    hub.work()
    code = almere.share("Oud")
    almere.relay()
    hub.work()
    with almere.database.transaction() as session:
        append(session, lesson("Nieuw", code=code))
    almere.relay()
    hub.bus.deliver(lambda messages: worker.ingest(hub.database, messages))
    emptied, go_on, seen = threading.Event(), threading.Event(), []

    def rebuild_slowly():
        with other.transaction() as session:
            rebuild(session, worker.PROJECTIONS, lambda _: (emptied.set(), go_on.wait(20)))

    rebuilding = threading.Thread(target=rebuild_slowly)
    rebuilding.start()
    assert emptied.wait(20)
    with hub.database.transaction() as session:
        seen.append(apply(session, worker.PROJECTIONS, limit=2))
    assert len(shown(hub)) == 6, "readers see the old rows"
    go_on.set()
    rebuilding.join()
    before = shown(hub)
    with hub.database.transaction() as session:
        seen.append(apply(session, worker.PROJECTIONS, limit=2))
    assert seen == [0, 0], "nothing is folded twice"
    assert shown(hub) == before
    assert ("almere", "Nieuw") in before
    with hub.database.reading() as session:
        assert session.scalar(select(projection_cursor.c.seq).where(projection_cursor.c.town == "almere").limit(1)) == 7
    other.close()
    almere.database.close()
    hub.close()


def test_the_command_says_how_many_events_it_folded(tmp_path):
    console = Console("hub", tmp_path)
    console.does("db", "upgrade")
    console.does("town", "add", "almere", "Almere")
    assert "NoKey" in console.refuses("town", "revoke", "almere")
    ran = console.run("rebuild")
    assert ran.returncode == 0
    assert "0 events folded" in ran.stderr


def test_a_rebuild_counts_what_it_looks_at(hub, town):
    almere = town("almere")
    almere.share("Een")
    almere.relay()
    hub.work()
    looked = []
    with hub.database.transaction() as session:
        total = foldable(session)
        rebuild(session, [towns], looked.append)
    assert (total, sum(looked)) == (2, 2)

"""What the association sees and does when something is wrong with a town: at the hub's real doors, with real logs behind them."""

import html
import random
import re
import threading
from base64 import urlsafe_b64decode

import pytest
from sqlalchemy import select

from services.hub import worker
from services.hub.towns.association import spelled
from services.hub.towns.projection import towns
from shared import heads
from shared.db import Database
from shared.envelope import pack
from shared.eventlog import Author, append
from shared.events import LessonShared
from shared.inbox import KEPT, freeze
from shared.keys import KeyPair
from shared.language import _, speak
from shared.projections import apply, foldable, projection_cursor, rebuild, stalls
from shared.quarantine import ADVICE, REASONS
from tests.console import Console
from tests.federation.conftest import Bus, Hub, Town
from tests.hub.conftest import Vera, code_in, heads_status, join_anew, refused_for, shown, speak_anew, stolen_with, stranger_of
from tests.shared.worlds import lesson

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


def test_a_stranger_who_used_the_code_is_sent_away_by_another_one(hub, town, vera):
    almere, code = town("almere"), vera.makes_town("breda")
    stranger = stranger_of(almere)
    assert almere.join(code, stranger).json["let_in"] is False
    fresh = vera.gets_code("/association/towns/breda/code")
    assert almere.join(code, stranger).status_code == 403
    vera.does("/association/towns/breda/let-in", key_id=stranger.key_id, status=409)
    assert almere.join(fresh, KeyPair.of(b"b" * 32)).status_code == 200


def test_the_page_that_shows_a_fresh_code_can_be_loaded_again_until_the_code_is_used(hub, town, vera, clock):
    almere, code, page = town("almere"), vera.makes_town("breda"), "/association/towns/breda/code"
    assert code_in(vera.sees(page)) == code
    with vera.browser.session_transaction() as cookie:
        assert code.encode() not in urlsafe_b64decode(cookie["code"]), "whoever reads the cookie does not see it"
    Vera(hub, clock).sees(page, 302)
    clock.pass_by(minutes=61)
    vera.sees(page, 302)
    assert "The code is not shown any more." in vera.sees("/association/towns/breda")
    fresh = vera.gets_code(page)
    assert code_in(vera.sees(page)) == fresh != code
    vera.sees("/association/towns/almere/code", 302)
    assert almere.join(fresh, stranger_of(almere)).status_code == 200
    vera.sees(page, 302)


def test_what_is_asked_once_more_is_answered_by_a_sentence(vera, town):
    town("almere")
    assert "Yes, give a code to join anew<" in vera.sees("/association/towns/almere")
    vera.browser.environ_base["HTTP_ACCEPT_LANGUAGE"] = "nl"
    assert "Ja, geef een code om opnieuw aan te sluiten<" in vera.sees("/association/towns/almere")


def test_a_code_that_has_expired_says_so_and_can_be_renewed(hub, town, vera, clock):
    almere, code = town("almere"), vera.makes_town("breda")
    assert "Code works until" in vera.sees("/association/towns/breda")
    clock.pass_by(days=31)
    vera.log_in()
    assert "its code has expired" in vera.sees("/association")
    assert "Code expired" in vera.sees("/association/towns/breda")
    assert almere.join(code, stranger_of(almere)).status_code == 403
    fresh = vera.gets_code("/association/towns/breda/code")
    assert almere.join(fresh, stranger_of(almere)).status_code == 200


def test_a_town_that_lost_its_node_comes_in_with_another_key_and_the_old_one_ends(hub, town, vera):
    almere = town("almere")
    almere.share("Van voor de brand")
    almere.relay()
    hub.work()
    vera.does("/association/towns/almere/code", status=409)
    code = vera.gets_code("/association/towns/almere/anew")
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
        almere.join(vera.gets_code("/association/towns/almere/anew"), almere.key)
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


def test_every_reason_to_refuse_has_words_and_says_what_to_do():
    assert REASONS.keys() == ADVICE.keys() >= KEPT
    for words in (*REASONS.values(), *ADVICE.values()):
        with speak("nl"):
            assert _(words) != words


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
    vera.browser.environ_base["HTTP_ACCEPT_LANGUAGE"] = "nl"
    plain, technical = re.match(r"(.*)<details class=\"fold\">(.*?)</details>", vera.sees(address), re.DOTALL).groups()
    assert "Het is geen bericht van ons" in plain
    assert "malformed" not in plain
    assert re.search(r'<p lang="en"><code>malformed: [^<]+</code></p>', technical)
    vera.browser.environ_base["HTTP_ACCEPT_LANGUAGE"] = "en"
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

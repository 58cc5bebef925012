"""A lesson travels: from a town's log over the courier into the national view, and down the feed to another town."""

from dataclasses import replace

import orjson
from sqlalchemy import func, select

from services.hub.worker import PROJECTIONS
from shared import feed, heads
from shared.envelope import pack
from shared.eventlog import read_head, read_log
from shared.inbox import accept_messages, inbox, inbox_cursor
from shared.keys import KeyPair, to_text
from shared.projections import rebuild


def stored(database, town: str) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(inbox).where(inbox.c.town == town)) or 0


def test_a_lesson_travels_to_the_hub_and_to_the_other_town(hub, town):
    almere, dronten = town("almere"), town("dronten")
    almere.share("Vraag vroeg om water")
    almere.relay()
    hub.work()
    assert "Vraag vroeg om water" in hub.page("/lessons")
    dronten.pull()
    assert stored(dronten.database, "almere") == 1
    almere.pull()
    assert stored(almere.database, "almere") == 0, "a town does not get its own words back"


def test_a_withdrawn_lesson_leaves_the_library(hub, town):
    almere = town("almere")
    code = almere.share("Te snel gezegd")
    almere.withdraw(code)
    almere.relay()
    hub.work()
    assert "Te snel gezegd" not in hub.page("/lessons")


def test_a_lost_last_event_of_a_silent_town_is_repaired_within_two_heads(hub, town, clock):
    almere = town("almere")
    almere.share("Aangekomen")
    almere.relay()
    hub.work()
    almere.publish = lambda _message: None  # the courier says delivered, and lies
    almere.share("Zoekgeraakt")
    almere.relay()
    almere.publish = hub.bus.publisher("almere")
    hub.work()
    assert almere.call().want_from is None, "the first head after the loss may still be on its way"
    clock.pass_by(seconds=30)
    hub.work()
    assert almere.call().want_from == 2
    almere.relay()
    hub.work()
    assert "Zoekgeraakt" in hub.page("/lessons")


def test_a_gap_is_filled_at_the_next_head(hub, town):
    almere = town("almere")
    almere.publish = lambda _message: None
    almere.share("Eerste")
    almere.relay()
    almere.publish = hub.bus.publisher("almere")
    almere.share("Tweede")
    almere.relay()
    hub.work()
    assert stored(hub.database, "almere") == 0
    assert almere.call().want_from == 1
    almere.relay()
    hub.work()
    assert stored(hub.database, "almere") == 2


def test_only_so_many_towns_at_a_time_are_asked_to_send_everything_again(hub, town, clock, monkeypatch):
    monkeypatch.setattr(heads, "REPEATS_MAX", 2)
    towns = [town(slug) for slug in ("almere", "breda", "dronten")]
    for one in towns:
        one.publish = lambda _message: None
        one.share("Zoekgeraakt")
        one.relay()
        one.call()
        one.publish = hub.bus.publisher(one.slug)
    clock.pass_by(seconds=30)
    hub.work()
    assert [one.call().want_from for one in towns] == [1, 1, None]
    for one in towns:
        one.relay()
    hub.work()
    assert [stored(hub.database, one.slug) for one in towns] == [1, 1, 0]
    clock.pass_by(seconds=heads.REPEAT_LASTS.total_seconds() + 1)
    hub.work()
    assert towns[2].call().want_from == 1, "its turn has come"
    towns[2].relay()
    hub.work()
    assert [stored(hub.database, one.slug) for one in towns] == [1, 1, 1]


def test_a_hub_worker_that_is_off_makes_no_town_repeat_itself(hub, town, clock):
    almere = town("almere")
    almere.share("Wacht op de bus")
    almere.relay()  # it lies on the bus; nobody takes it
    for _ in range(4):
        clock.pass_by(seconds=30)
        assert almere.call().want_from is None
    assert len(hub.bus.take()) == 1


def test_messages_twice_and_in_the_wrong_order_change_nothing(hub, town):
    almere = town("almere")
    for number in range(5):
        almere.share(f"Les {number}")
        almere.relay()
    messages = hub.bus.take()
    hub.bus.put(*reversed(messages), *messages, *messages)
    hub.work()
    assert stored(hub.database, "almere") == 5
    page = hub.page("/lessons")
    assert all(page.count(f"Les {number}") >= 1 for number in range(5))


def test_an_old_call_shown_again_is_stale_and_changes_nothing(hub, town):
    almere = town("almere")
    almere.call()
    with almere.database.reading() as session:
        body, signature, _ = heads.ask(session, almere.author, almere.instance, ("", 0, ""))
    client = hub.app.test_client()
    for expected in (200, 409, 409):
        answer = client.post("/federation/v1/heads", data=body, headers={"Tuinkoepel-Signature": to_text(signature)})
        assert answer.status_code == expected


def test_a_call_signed_by_another_key_is_refused(hub, town):
    almere = town("almere")
    with almere.database.reading() as session:
        body, _, _ = heads.ask(session, almere.author, almere.instance, ("", 0, ""))
    stranger = KeyPair.of(bytes(32))
    headers = {"Tuinkoepel-Signature": to_text(stranger.sign(heads.ASKS, body))}
    answer = hub.app.test_client().post("/federation/v1/heads", data=body, headers=headers)
    assert answer.status_code == 401
    assert answer.mimetype == "application/problem+json"


def test_a_code_lets_in_one_key_and_answers_that_key_again(hub, town):
    almere = town("almere")
    assert almere.join().status_code == 200, "a lost answer can be asked for again"
    assert almere.join(key=KeyPair.of(bytes(32))).status_code == 403
    assert almere.join(code="AAAAA-AAAAA-AAAAA-AAAAA").status_code == 403
    without_proof = {"code": almere.code, "public_key": to_text(almere.key.public), "proof": to_text(bytes(64))}
    assert hub.app.test_client().post("/federation/v1/join", json=without_proof).status_code == 403


def test_what_fails_verification_is_dropped_and_delays_no_other_town(hub, town):
    almere, dronten = town("almere"), town("dronten")
    almere.share("Van Almere")
    almere.relay()
    dronten.share("Van Dronten")
    dronten.relay()
    sent = hub.bus.take()
    message, altered = orjson.loads(sent[0]), orjson.loads(sent[0])
    altered["events"][0]["body"] = altered["events"][0]["body"].replace("Van Almere", "Vervalst")
    stolen = message | {"town": "dronten"}
    hub.bus.put(b"\xff\xfe", b"{}", orjson.dumps(altered), orjson.dumps(stolen), *sent)
    hub.work()
    page = hub.page("/lessons")
    assert "Van Almere" in page
    assert "Van Dronten" in page
    assert "Vervalst" not in page


def test_another_history_at_the_same_place_is_not_taken(hub, town):
    almere = town("almere")
    almere.share("Zo was het")
    almere.relay()
    [first] = hub.bus.take()
    hub.bus.put(first)
    hub.work()
    with hub.database.transaction() as session:
        before = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == "almere")).one()
    twin = type(almere).__new__(type(almere))
    twin.__dict__ |= almere.__dict__
    entries = orjson.loads(first)
    assert entries["to"] == 1
    from shared.envelope import NO_HASH, pack, seal
    from shared.events import LessonWithdrawn

    other = seal(
        LessonWithdrawn(lesson="abcd1234"), town="almere", epoch=entries["epoch"], seq=1, prevhash=NO_HASH, key=almere.key,
        now=almere.clock(), salt=bytes(32),
    )  # fmt: skip
    with hub.database.transaction() as session:
        outcome = accept_messages(session, [pack([other])[0]], almere.clock())[0]
        after = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == "almere")).one()
    assert outcome.verdict == "forked"
    assert (after.seq, after.hash) == (before.seq, before.hash)
    assert after.trouble == "forked", "the town stands still until the association has decided"


def test_rebuilding_gives_the_same_rows(hub, town):
    almere = town("almere")
    codes = [almere.share(f"Les {number}") for number in range(20)]
    almere.withdraw(codes[3])
    almere.relay()
    hub.work()

    def rows():
        with hub.database.reading() as session:
            tables = [getattr(model, "__table__", model) for projection in PROJECTIONS for model in projection.tables]
            return {table.name: sorted(map(str, session.execute(select(table)).all())) for table in tables}

    before = rows()
    with hub.database.transaction() as session:
        rebuild(session, PROJECTIONS)
    assert rows() == before
    assert len(before["national_lesson"]) == 19


def test_who_read_another_feed_up_to_the_same_number_begins_again(hub, town):
    """A hub that was put back gives a number a second time, to something else: only the chain shows it."""
    almere, dronten = town("almere"), town("dronten")
    almere.share("Vraag vroeg om water")
    almere.relay()
    hub.work()
    dronten.pull()
    with dronten.database.reading() as session:
        feed_id, number, chain = feed.pull_cursor(session)
    assert number
    with hub.database.reading() as session:
        assert feed.fits(session, feed_id, number, chain)
        assert "again" not in orjson.loads(feed.read_page(session, feed_id, number, chain))
        for another in ("", "00" * 32):
            assert not feed.fits(session, feed_id, number, another)
            assert orjson.loads(feed.read_page(session, feed_id, number, another))["again"]


def test_what_only_its_neighbour_vouched_for_does_not_travel(hub, town):
    """On the bus the last signature is enough for all; in the feed each entry stands alone."""
    almere, dronten = town("almere"), town("dronten")
    almere.share("Zonder eigen handtekening")
    almere.share("Met")
    with almere.database.reading() as session:
        first, second = read_log(session, read_head(session).epoch, 0, 2)
    hub.bus.put(pack([replace(first, signature=bytes(64)), second])[0])
    hub.work()
    assert stored(hub.database, "almere") == 2
    with hub.database.reading() as session:
        numbered = session.scalars(select(feed.feed.c.seq).where(feed.feed.c.town == "almere")).all()
    assert numbered == [2]
    dronten.pull()
    assert stored(dronten.database, "almere") == 1


def test_the_feed_is_for_towns_only(hub, town):
    town("almere")
    assert hub.app.test_client().get("/federation/v1/feed?town=almere&after=0").status_code == 401

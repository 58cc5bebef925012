"""What strangers send is either a true run of a town's log, or refused by name; never a crash, never half believed (I12, I18)."""

import hashlib
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from shared.envelope import (
    BODY_MAX,
    MESSAGE_EVENTS_MAX,
    MESSAGE_MAX,
    BodyTooLong,
    Malformed,
    from_json,
    header_hash,
    open_entry,
    pack,
    read_event,
    seal,
    signed_by,
    to_json,
    unpack,
)
from shared.eventlog import change_key
from shared.events import Event, Misfit
from shared.inbox import accept_entries, accept_messages, inbox, inbox_cursor
from shared.keys import KeyPair
from tests.shared.worlds import NOON, Town, key_of, lesson, open_hub


def told(slug: str, count: int = 5) -> Town:
    town = Town(slug)
    town.tell(*(lesson(f"Les {number}", code=f"lesson-{number}") for number in range(count)))
    return town


ALMERE, BREDA = told("almere"), told("breda")
RAW = ALMERE.message()


def changed(change) -> bytes:
    """The message, with something done to it."""
    says = orjson.loads(RAW)
    change(says, says["events"])
    return orjson.dumps(says)


def forged(position: int, **members) -> dict:
    """An entry with other words in its header, signed by nobody."""
    entry = ALMERE.entries[position]
    return to_json(entry) | {"header": orjson.dumps(orjson.loads(entry.header) | members).decode()}


def cursor_and_rows(database):
    with database.reading() as session:
        cursor = session.execute(select(inbox_cursor.c.town, inbox_cursor.c.seq, inbox_cursor.c.trouble)).all()
        rows = session.execute(select(inbox.c.header, inbox.c.body).order_by(inbox.c.town, inbox.c.seq)).all()
    return cursor, [(bytes(row.header), row.body) for row in rows]


def accept(database, *raws):
    with database.transaction() as session:
        return [outcome.verdict for outcome in accept_messages(session, raws, NOON)]


def test_what_is_packed_is_unpacked_to_the_byte():
    message = unpack(RAW)
    assert (message.town, message.epoch, message.key_id) == ("almere", ALMERE.epoch, key_of("almere").key_id)
    assert list(message.entries) == ALMERE.entries
    assert all(signed_by(entry, key_of("almere").public) for entry in message.entries)
    assert not signed_by(message.entries[0], key_of("breda").public)


def test_a_message_holds_at_most_what_its_receiver_takes():
    long = Town("lange-adem")
    text = '"é' * 10_000  # quotes double when the body travels inside JSON
    happened = lesson("Lang")
    object.__setattr__(happened, "body", text)
    long.tell(*[happened] * 40)
    entries, taken = long.entries, 0
    while taken < len(entries):
        raw, count = pack(entries[taken:])
        assert len(raw) <= MESSAGE_MAX
        assert list(unpack(raw).entries) == entries[taken : taken + count]
        taken += count
    _, count = pack(ALMERE.entries * 200)
    assert count == MESSAGE_EVENTS_MAX


def test_a_body_too_long_is_not_sealed():
    class Long(Event):
        wire, subject = "nl.tuinkoepel.long.v1", "long"

    from shared import envelope

    body = {"text": "x" * BODY_MAX}
    original, envelope.to_body = envelope.to_body, lambda _: body
    try:
        with pytest.raises(BodyTooLong):
            seal(Long(), town="almere", epoch="e1", seq=1, prevhash=bytes(32), key=key_of("almere"), now=NOON, salt=bytes(32))
    finally:
        envelope.to_body = original


def test_an_erased_body_leaves_a_chain_that_verifies():
    entries = [
        open_entry(entry.header, entry.signature, None, None) if number == 2 else entry
        for number, entry in enumerate(ALMERE.entries)
    ]
    message = unpack(pack(entries)[0])
    assert message.entries[2].body is None
    assert read_event(message.entries[2]) is None
    assert message.entries[2].hash == ALMERE.entries[2].hash
    hub = open_hub("almere")
    assert accept(hub, pack(entries)[0]) == ["stored"]
    hub.close()


def test_nobody_can_guess_back_what_was_erased():
    """A guess at the words cannot be tried out: what a header says of its body, it says of the body with a random salt."""
    town = Town("almere")
    town.tell(lesson("Twee keer hetzelfde"), lesson("Twee keer hetzelfde"))
    first, second = town.entries
    assert first.body == second.body
    assert first.says.payloadhash != second.says.payloadhash
    assert hashlib.sha256(first.body).digest() != first.says.payloadhash
    assert first.salt not in {second.salt, bytes(len(first.salt))}


ALTERED = {
    "a body is another": lambda _, events: events[1].update(body=events[2]["body"]),
    "a body says more": lambda _, events: events[4].update(body=events[4]["body"].replace("water", "Water")),
    "a salt is another": lambda _, events: events[1].update(salt=events[2]["salt"]),
    "a salt is missing": lambda _, events: events[1].pop("salt"),
    "a time in a header": lambda _, events: events.__setitem__(4, forged(4, time="2012-06-21T12:00:00.000Z")),
    "a type in a header": lambda _, events: events.__setitem__(2, forged(2, type="nl.tuinkoepel.lesson.revised.v1")),
    "a NUL in a header": lambda _, events: events.__setitem__(4, forged(4, type="nl.tuinkoepel.\0")),
    "an event is missing": lambda _, events: events.pop(2),
    "two events swapped": lambda _, events: events.reverse(),
    "an event twice": lambda _, events: events.insert(2, events[2]),
    "another town's event": lambda _, events: events.__setitem__(2, to_json(BREDA.entries[2])),
    "another town's name": lambda says, _: says.update(town="breda"),
    "another epoch": lambda says, _: says.update(epoch="0000"),
    "another place": lambda says, _: says.update({"from": 2, "to": 6}),
    "the last signature": lambda _, events: events[4].update(signature=events[3]["signature"]),
    "another version": lambda says, _: says.update(v=2),
    "no events": lambda _, events: events.clear(),
    "too many events": lambda _, events: events.extend(events * 100),
}


@pytest.mark.parametrize("what", ALTERED)
def test_a_message_that_was_altered_is_refused_and_moves_no_cursor(what):
    hub = open_hub("almere", "breda")
    assert accept(hub, ALMERE.message(1, 2)) == ["stored"]
    before = cursor_and_rows(hub)
    (verdict,) = accept(hub, changed(ALTERED[what]))
    assert verdict in {"malformed", "bad_signature"}
    assert cursor_and_rows(hub) == before
    assert accept(hub, changed(ALTERED[what]), RAW) == [verdict, "stored"]  # it does not stand in the way of a good one
    hub.close()


def test_an_event_of_another_town_is_refused_under_its_own_name_too():
    hub = open_hub("almere")
    assert accept(hub, BREDA.message()) == ["unknown_key"]
    stolen = Town("almere")
    thief = KeyPair.of(bytes(32))
    object.__setattr__(stolen.author, "key", thief)
    with stolen.database.transaction() as session:
        change_key(session, thief.key_id)
    stolen.tell(lesson("Verzonnen"))
    assert accept(hub, stolen.message()) == ["unknown_key"]
    lying = orjson.loads(stolen.entries[0].header) | {"keyid": key_of("almere").key_id}
    header = orjson.dumps(lying)
    parts = to_json(stolen.entries[0]) | {"header": header.decode()}
    import base64

    parts["signature"] = base64.b64encode(thief.sign(b"event1", header_hash(header))).decode()
    raw = orjson.dumps({"v": 1, "town": "almere", "epoch": stolen.epoch, "from": 1, "to": 1, "events": [parts]})
    assert accept(hub, raw) == ["bad_signature"]
    with hub.transaction() as session:
        assert accept_entries(session, [from_json(parts), *stolen.entries, *ALMERE.entries], NOON) == len(ALMERE.entries)
    hub.close()


def test_another_history_at_the_same_place_is_a_fork_and_overwrites_nothing():
    hub = open_hub("almere")
    twin = Town("almere")
    assert twin.epoch == ALMERE.epoch
    twin.tell(lesson("Les 0", code="lesson-0"), lesson("Een andere tweede"), lesson("Een andere derde"))
    accept(hub, ALMERE.message(1, 2))
    before = cursor_and_rows(hub)
    assert accept(hub, twin.message(3, 3)) == ["broken_chain"]
    assert cursor_and_rows(hub) == before
    assert accept(hub, twin.message(), ALMERE.message()) == ["forked", "frozen"]
    (cursor,), rows = cursor_and_rows(hub)
    assert (cursor.seq, rows) == (2, before[1])
    assert cursor.trouble == "forked"
    hub.close()


def test_a_header_names_the_subject_of_its_body():
    entry = ALMERE.entries[0]
    header = orjson.dumps(orjson.loads(entry.header) | {"subject": "lesson-9"})
    with pytest.raises(Misfit, match="lesson"):
        read_event(open_entry(header, entry.signature, entry.salt, entry.body))


# ---- Fuzz ------------------------------------------------------------------------------------------------------------------

json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def mutated(draw) -> bytes:
    """A message with bytes changed, or with something else in the place of one of its members, however deep."""
    if draw(st.booleans()):
        raw = bytearray(RAW)
        for _ in range(draw(st.integers(1, 3))):
            start = draw(st.integers(0, len(raw) - 1))
            raw[start : start + draw(st.integers(0, 40))] = draw(st.binary(max_size=40))
            raw = raw or bytearray(b"{")
        return bytes(raw)
    says = orjson.loads(RAW)
    where = draw(st.sampled_from(["message", "entry", "header"]))
    entry = draw(st.sampled_from(says["events"]))
    inside = {"message": says, "entry": entry, "header": orjson.loads(entry["header"])}[where]
    member = draw(st.sampled_from(sorted(inside)))
    if draw(st.booleans()):
        inside[member] = draw(json)
    else:
        del inside[member]
    if where == "header":
        entry["header"] = orjson.dumps(inside).decode()
    return orjson.dumps(says)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | json.map(orjson.dumps) | mutated())
def test_whatever_the_bytes_unpack_raises_malformed_or_nothing(raw):
    try:
        unpack(raw)
    except Malformed:
        return


HUB = open_hub("almere", "breda")
accept(HUB, ALMERE.message(1, 2))
TRUE = [(entry.header, entry.body) for entry in ALMERE.entries]


class _Undo(Exception):  # noqa: N818
    pass


@settings(max_examples=200, deadline=None)
@given(mutated())
def test_of_a_mutated_message_nothing_is_stored_but_what_the_town_said(raw):
    """A mutation may only change how the same message is written, and pass; what is stored is still true, and so is the cursor."""
    with pytest.raises(_Undo), HUB.transaction() as session:  # noqa: PT012  # undone as a whole
        (outcome,) = accept_messages(session, [raw], datetime(2012, 6, 21, tzinfo=UTC))
        stored = session.execute(select(inbox.c.header, inbox.c.body).order_by(inbox.c.seq)).all()
        seq, head = session.execute(select(inbox_cursor.c.seq, inbox_cursor.c.hash)).one()
        assert [(bytes(row.header), row.body) for row in stored] == TRUE[: len(stored)]
        assert seq == len(stored)
        assert bytes(head) == ALMERE.entries[seq - 1].hash
        assert (seq == 2) == (outcome.verdict != "stored")
        raise _Undo

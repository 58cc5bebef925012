"""The vocabulary is a promise: what once went over the wire reads the same for ever, and what does not fit is named."""

import dataclasses
from datetime import date, time

import orjson
import pytest

from shared import events
from shared.envelope import pack, read_event, unpack
from shared.events import VOCABULARY, Event, Misfit, event, event_class, from_body, to_body
from tests.shared.worlds import WIRE, Town, golden

FILES = sorted(path.name.removesuffix(".json") for path in WIRE.glob("*.v*.json"))
LESSON = orjson.loads((WIRE / "lesson.shared.v1.json").read_bytes())
MEETING = orjson.loads((WIRE / "meeting.planned.v1.json").read_bytes())


def test_every_event_has_a_golden_file_for_its_version_that_names_all_its_fields():
    for name, cls in VOCABULARY.items():
        file = cls.wire.removeprefix("nl.tuinkoepel.")
        assert file in FILES, f"{name} has no tests/wire/{file}.json"
        assert set(orjson.loads((WIRE / f"{file}.json").read_bytes())) == {field.name for field in dataclasses.fields(cls)}


@pytest.mark.parametrize("file", FILES)
def test_a_golden_event_is_read_and_written_to_the_same_bytes(file):
    body = orjson.loads((WIRE / f"{file}.json").read_bytes())
    assert event_class(f"nl.tuinkoepel.{file}") is not None
    assert orjson.dumps(to_body(golden(file))) == orjson.dumps(body)


def test_the_golden_message_is_sealed_and_packed_to_the_same_bytes():
    raw = (WIRE / "message.json").read_bytes()
    town = Town("almere")
    happened = [golden(f"{name}.v1") for name in ("circle.described", "lesson.shared", "lesson.withdrawn")]
    town.tell(*happened)
    assert pack(town.entries) == (raw, 3)
    assert [read_event(entry) for entry in unpack(raw).entries] == happened
    assert town.entries[-1].hash.hex() == "e98358c6feb8b41e112b79dc49ec09c18784fec894617e007409b9be952720fe"


def test_an_unknown_member_is_passed_over():
    assert from_body(VOCABULARY["lesson.shared"], LESSON | {"smell": "rosemary"}) == golden("lesson.shared.v1")
    richer = LESSON | {"byline": LESSON["byline"] | {"telephone": "0612345678"}}
    assert to_body(from_body(VOCABULARY["lesson.shared"], richer)) == LESSON


def test_an_unknown_type_or_a_later_version_is_not_read():
    assert event_class("nl.tuinkoepel.lesson.sung.v1") is None
    assert event_class("nl.tuinkoepel.lesson.shared.v2") is None
    assert event_class("org.example.lesson.shared.v1") is None


@pytest.mark.parametrize(
    ("golden_body", "change", "field"),
    [
        (LESSON, {"lesson": "a b"}, "lesson"),
        (LESSON, {"title": ""}, "title"),
        (LESSON, {"title": "two\nlines"}, "title"),
        (LESSON, {"title": "x" * 161}, "title"),
        (LESSON, {"body": "a bell \x07"}, "body"),
        (LESSON, {"body": "half a character \ud83d"}, "body"),
        (LESSON, {"body": None}, "body"),
        (LESSON, {"kind": "hint"}, "kind"),
        (LESSON, {"kind": ["tip"]}, "kind"),
        (LESSON, {"theme": "Water"}, "theme"),
        (LESSON, {"phase": "dream"}, "phase"),
        (LESSON, {"shared_on": "2012-06-31"}, "shared_on"),
        (LESSON, {"shared_on": "2012-W25-3"}, "shared_on"),
        (LESSON, {"shared_on": 20120620}, "shared_on"),
        (LESSON, {"byline": "Een Tuinier"}, "byline.body"),
        (LESSON, {"byline": {"name": "Een Tuinier"}}, "byline.agreed"),
        (LESSON, {"byline": {"name": "Een Tuinier", "agreed": "ja"}}, "byline.agreed"),
        (MEETING, {"starts": "24:00"}, "starts"),
        (MEETING, {"starts": "19+01"}, "starts"),
        (MEETING, {"attended": True}, "attended"),
        (MEETING, {"attended": -1}, "attended"),
        (MEETING, {"attended": 3.0}, "attended"),
        (MEETING, {"agenda": {}}, "agenda"),
        (MEETING, {"agenda": [MEETING["agenda"][0]] * 101}, "agenda"),
        (MEETING, {"agenda": [*MEETING["agenda"], {"title": "Afsluiting", "minutes": 1441}]}, "agenda.2.minutes"),
        (MEETING, {"agenda": [{"minutes": 5}]}, "agenda.0.title"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(golden_body, change, field):
    cls = VOCABULARY["lesson.shared" if golden_body is LESSON else "meeting.planned"]
    with pytest.raises(Misfit) as refused:
        from_body(cls, golden_body | change)
    assert refused.value.field == field
    assert refused.value.expected


@pytest.mark.parametrize("body", [None, [], "text", 7])
def test_a_body_that_is_no_object_is_a_misfit(body):
    with pytest.raises(Misfit, match=r"^body:"):
        from_body(VOCABULARY["lesson.shared"], body)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"starts": "19:30"}, "starts"),
        ({"day": None}, "day"),
        ({"agenda": (events.AgendaItem("Inloop", 15), events.AgendaItem("Rondje", -1))}, "agenda.1.minutes"),
        ({"agenda": (events.Place(1, 2),)}, "agenda"),
    ],
)
def test_what_would_be_refused_on_arrival_is_refused_on_departure(change, field):
    with pytest.raises(Misfit) as refused:
        to_body(dataclasses.replace(golden("meeting.planned.v1"), **change))
    assert refused.value.field == field


def test_a_part_takes_nothing_along_that_the_vocabulary_does_not_name():
    """R34: a subclass with more fields than its event's field type still leaves only that type's members."""

    @dataclasses.dataclass(frozen=True)
    class Signed(events.Byline):
        street: events.Line = "Dorpsstraat 1"

    happened = dataclasses.replace(golden("lesson.shared.v1"), byline=Signed("Een Tuinier", date(2012, 6, 19)))
    assert to_body(happened) == LESSON


@pytest.mark.parametrize("kind", [str, int, dict, bytes, float, date, time, list[str], tuple[str, ...], str | None, Event])
def test_an_event_with_a_field_outside_the_closed_types_cannot_be_defined(kind):
    leak = type("Leak", (Event,), {"__annotations__": {"person": events.Code, "detail": kind}})
    with pytest.raises(TypeError, match=r"Leak\.detail.*R34"):
        event("person.leaked", about="person", audience="all")(leak)
    assert "person.leaked" not in VOCABULARY


def test_an_older_version_is_lifted_before_it_is_read():
    renamed = {1: lambda body: body | {"title": body["heading"]}}
    made = type("Note", (Event,), {"__annotations__": {"note": events.Code, "title": events.Name}, "lift": renamed})
    try:
        event("test.noted", about="note", audience="all", version=2)(made)
        cls, version = event_class("nl.tuinkoepel.test.noted.v1")
        assert from_body(cls, {"note": "n-01", "heading": "Oud"}, version).title == "Oud"
        assert from_body(cls, {"note": "n-01", "title": "Nieuw"}, 2).title == "Nieuw"
    finally:
        VOCABULARY.pop("test.noted", None)

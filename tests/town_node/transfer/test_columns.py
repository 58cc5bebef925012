"""Which column is which, and the parts of a row that hold more than one thing."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.town_node.transfer import columns
from services.town_node.transfer.cells import Wrong, folded
from services.town_node.transfer.columns import COLUMNS, KINDS, map_columns, name_by_hand, open_table
from services.town_node.transfer.spreadsheets import Row, Unreadable
from shared.events import PHASES
from shared.language import speak


def table(kind: str, *rows):
    return open_table([Row(number, tuple(cells)) for number, cells in enumerate(rows, start=1)], kind)


def fields(kind: str, *headers: str, by_hand=()) -> list[str | None]:
    mapped = map_columns(table(kind, headers, ["x"]), kind, dict(by_hand))
    return [mapped.get(place) for place in range(len(headers))]


@pytest.mark.parametrize("kind", KINDS)
def test_headers_in_both_languages_say_what_they_are(kind):
    for language in ("nl", "en"):
        with speak(language):
            for known in COLUMNS[kind]:
                assert fields(kind, known.header, "?") == [known.field, None]
                assert fields(kind, known.header.upper() + " :", "?") == [known.field, None]


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_means_two_columns(kind):
    seen: dict[str, str] = {}
    for known in COLUMNS[kind]:
        for name in {folded(name) for name in (known.field, known.dutch, known.english, *known.also.split(","))} - {""}:
            assert seen.setdefault(name, known.field) == known.field


def test_words_that_people_use():
    assert fields("members", "Naam deelnemer", "Mail", "Mobiel") == ["name", "email", "phone"]
    assert fields("initiatives", "Tuin", "Lat", "Lng", "Coo\u0308rdinaten", "bijna operationeel sinds") == [
        "name", "latitude", "longitude", "point", "since_almost_operational",
    ]  # fmt: skip
    assert fields("members", "Naam", "naam", "Lievelingsdier") == ["name", None, None]


def test_a_title_may_stand_above_the_header():
    found = table("members", ["Deelnemers 2012"], [None], ["Naam", "E-mail"], ["Roos", "r@example.org"])
    assert found.headers == ("Naam", "E-mail")
    assert [row.number for row in found.rows] == [4]


def test_columns_are_chosen_by_hand():
    assert fields("members", "Wie", "Mail", by_hand={"0": "name"}.items()) == ["name", "email"]
    assert fields("members", "Naam", "Mail", by_hand={"0": "", "9": "phone", "1": "nonsense"}.items()) == [None, "email"]
    with pytest.raises(Unreadable):
        fields("members", "Wie", "Wat", by_hand={"0": "name", "1": "name"}.items())


def test_columns_are_chosen_by_name():
    rows = table("members", ["Wie", "Mail"], ["Roos", "x"])
    assert name_by_hand(rows, "members", ["wie=Naam", "Mail="]) == {"0": "name", "1": ""}
    for said in (["Wat=name"], ["Wie=lievelingsdier"]):
        with pytest.raises(Unreadable):
            name_by_hand(rows, "members", said)


def test_a_history_in_one_cell():
    steps = [("idea", date(2012, 6, 20)), ("almost_operational", date(2013, 1, 1))]
    for said in (
        "idea 2012-06-20; almost_operational 2013-01-01",
        "Idee (sinds 20 juni 2012); bijna operationeel: 1-1-2013",
        "Idee 20-6-12\nBijna operationeel 2013",
    ):
        assert columns.read_history(said) == steps
    for said in ("Idee", "2012", "Klaar 2012", "Idee ooit"):
        with pytest.raises(Wrong):
            columns.read_history(said)


@given(
    st.lists(st.tuples(st.sampled_from(PHASES), st.dates(date(1951, 1, 1), date(2099, 1, 1))), max_size=4),
    st.sampled_from(["nl", "en"]),
)
def test_a_history_is_read_back(steps, language):
    with speak(language):
        assert columns.read_history(columns.write_history(steps)) == steps


def test_an_agenda_in_one_cell():
    items = [
        {"title": "Welkom", "minutes": 15},
        {"title": "Ronde: hoe gaat het?", "minutes": 45},
        {"title": "Borrel", "minutes": 0},
    ]
    assert columns.read_agenda(columns.write_agenda(items)) == items
    assert columns.read_agenda("Welkom | 15 min; Ronde: hoe gaat het? |45; Borrel") == items
    for said in ("Welkom | veel", "Welkom | 1441", "x" * 161, "\n".join("x" * 101)):
        with pytest.raises(Wrong):
            columns.read_agenda(said)

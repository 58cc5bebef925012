"""What one cell says, as people write it."""

from contextlib import suppress
from datetime import date, datetime, time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.town_node.transfer import cells
from services.town_node.transfer.cells import Wrong, choice, several
from shared.labels import ORDER
from shared.language import speak

THE_DAY = date(2012, 6, 20)
THE_EVENING = datetime(2012, 6, 20, 19, 30)  # noqa: DTZ001  # local, as in Excel
ANY_CELL = (
    st.text(max_size=40) | st.integers() | st.floats() | st.booleans() | st.dates() | st.times() | st.datetimes() | st.sampled_from(
        ["²", "20-²-2012", "31-2-2012", "1e9", "٣", "99:99", "0000-00-00", "29 februari 2013", "1.000.000", "nan"]
    )
)  # fmt: skip


@pytest.mark.parametrize(
    "said",
    ["20-6-2012", "20-06-2012", "20/6/2012", "20.6.2012", "20-6-12", "20 6 2012", "2012-06-20", "2012-06-20T00:00:00",
     "20 juni 2012", "20 jun. 2012", "20-jun-12", "woensdag 20 juni 2012", "wo 20 juni 2012", "June 20, 2012",
     "20 June 2012", "20th June 2012",
     "41080", 41080, 41080.8, "41080,5", THE_EVENING, THE_DAY], ids=repr
)  # fmt: skip
def test_a_day_is_read_as_people_write_it(said):
    assert cells.read_day(said) == THE_DAY


@pytest.mark.parametrize(
    ("said", "day"), [("juni 2012", date(2012, 6, 1)), ("2012", date(2012, 1, 1)), (2012, date(2012, 1, 1)),
     ("6-2012", date(2012, 6, 1)), ("1-3-98", date(1998, 3, 1))],
)  # fmt: skip
def test_a_month_or_a_year_means_its_first_day(said, day):
    assert cells.read_day(said) == day


@pytest.mark.parametrize(
    "said", ["6/20/2012", "31-2-2012", "gisteren", "12", 20, "20 foo 2012", "2012-13-01", time(19, 30), True, "99999"], ids=repr
)
def test_what_is_no_day_is_refused_with_what_was_said(said):
    with speak("en"), pytest.raises(Wrong) as wrong:
        cells.read_day(said)
    assert "20-6-2012" in str(wrong.value.words)


@pytest.mark.parametrize(
    "said",
    ["19:30", "19.30", "19u30", "19 u 30", "19h30", "19:30 uur", "19.30u", "7:30 pm", "07:30PM", "19:30:00", 0.8125, "0,8125", 19.3,
     time(19, 30, 12), THE_EVENING], ids=repr
)  # fmt: skip
def test_a_time_is_read_as_people_write_it(said):
    assert cells.read_clock(said) == time(19, 30)


def test_whole_hours_and_from_until():
    assert cells.read_clock("20 uur") == cells.read_clock("20u") == cells.read_clock(20) == time(20)
    for said in ("19:30 - 22:00", "19.30-22.00", "19u30 tot 22u", "19:30–22:00"):
        assert cells.read_clocks(said) == (time(19, 30), time(22))
    assert cells.read_clocks(time(19, 30)) == (time(19, 30), None)


@pytest.mark.parametrize("said", ["25:00", "19:61", "avond", -1, "19:30 of later", True, THE_DAY], ids=repr)
def test_what_is_no_time_is_refused(said):
    with pytest.raises(Wrong):
        cells.read_clock(said)


def test_yes_and_no_in_two_languages():
    assert all(cells.read_flag(said) for said in ("ja", "Ja ", "J", "yes", "x", "WAAR", True, 1, "1"))
    assert not any(cells.read_flag(said) for said in ("nee", "N", "no", False, 0, "alleen op afspraak"))
    with pytest.raises(Wrong):
        cells.read_flag("misschien")


def test_codes_by_word_in_two_languages_or_by_code():
    assert {
        choice("phase")(said) for said in ("bijna operationeel", "Bijna-Operationeel", "almost operational", "almost_operational")
    } == {"almost_operational"}
    assert choice("initiative_kind")("schooltuin") == choice("initiative_kind")("School garden") == "school_garden"
    assert several("purpose")("Ontmoeten, leren") == several("purpose")("educatie en sociaal") == ["social", "education"]
    with speak("nl"), pytest.raises(Wrong) as wrong:
        choice("phase")("klaar")
    assert "“klaar”" in str(wrong.value.words)
    assert "Operationeel" in str(wrong.value.words)


@pytest.mark.parametrize("language", ["nl", "en"])
@pytest.mark.parametrize("group", ["phase", "initiative_kind", "lesson_kind", "meeting_kind", "purpose", "theme"])
def test_every_word_that_is_written_is_read_back(language, group):
    read = cells.read_theme if group == "theme" else choice(group)
    with speak(language):
        for code in ORDER[group]:
            assert read(cells.written(code, group)) == code


def test_a_theme_of_the_circles_own():
    assert cells.read_theme("Bijen & honing") == "bijen_honing"
    assert cells.read_theme(cells.written("bijen_honing", "theme")) == "bijen_honing"
    with pytest.raises(Wrong):
        cells.read_theme("!")


def test_telephone_numbers_get_their_nought_back():
    assert cells.read_phone(612345678) == cells.read_phone("612345678") == "0612345678"
    assert cells.read_phone("(036) 555 01 02") == cells.read_phone("036.555.01.02") == "036 555 01 02"
    assert cells.read_phone("+31 36 555 01 02") == "+31 36 555 01 02"
    for said in ("geen", "06", "06-1234 (thuis)"):
        with pytest.raises(Wrong):
            cells.read_phone(said)


def test_addresses_counts_and_texts():
    assert cells.read_email(" Roos@Example.org ") == cells.read_email("mailto:roos@example.org") == "roos@example.org"
    assert cells.read_count(13) == cells.read_count("13") == cells.read_count(13.0) == 13
    assert cells.read_line("een\n twee\t\x00drie") == "een twee drie"
    assert cells.read_lines("een\r\n\u2028twee").endswith("twee")
    for read, said in (
        (cells.read_email, "roos"),
        (cells.read_count, "veel"),
        (cells.read_count, -1),
        (cells.read_line, "x" * 161),
    ):
        with pytest.raises(Wrong):
            read(said)


@given(ANY_CELL)
def test_any_cell_is_read_or_refused(cell):
    words = (
        cells.read_phone,
        cells.read_email,
        cells.read_line,
        cells.read_lines,
        cells.read_theme,
        choice("phase"),
        several("purpose"),
    )
    for read in (cells.read_day, cells.read_clock, cells.read_clocks, cells.read_flag, cells.read_count, *words):
        with suppress(Wrong):
            read(cell)
    cells.plain(cell)


@given(st.dates(date(1951, 1, 1), date(2099, 12, 31)), st.times())
def test_days_and_times_are_read_back(day, clock):
    assert cells.read_day(cells.plain(day)) == cells.read_day(f"{day.day}-{day.month}-{day.year}") == day
    assert cells.read_clock(cells.plain(clock)) == clock.replace(second=0, microsecond=0)

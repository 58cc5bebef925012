"""Planning an evening: a day that has passed is asked about once, and the agenda is typed in rows, without JavaScript."""

import re

import pytest

from shared.events import MeetingChanged, MeetingPlanned
from tests.town_node.test_pages import EVENING

NEW = "/meetings/new"
PAST = EVENING | {"day": "2012-06-13"}


def held(page: str) -> dict[str, str]:
    """What the fields of the form hold."""
    fields = {}
    for tag in re.findall(r"<input[^>]*>", page):
        told = dict(re.findall(r'([a-z-]+)="([^"]*)"', tag))
        if "name" in told and (told.get("type") != "checkbox" or " checked" in tag):
            fields[told["name"]] = told.get("value", "")
    return fields


def rows(page: str) -> list[tuple[str, str]]:
    """The rows of the agenda, as they stand in the form."""
    fields = held(page)
    count = len([name for name in fields if re.fullmatch(r"agenda-\d+-title", name)])
    return [(fields[f"agenda-{at}-title"], fields[f"agenda-{at}-minutes"]) for at in range(count)]


def in_focus(page: str) -> str:
    """The name of the field in which the page opens."""
    found = [tag for tag in re.findall(r"<input[^>]*>", page) if "autofocus" in tag]
    assert len(found) == 1
    return re.search(r'name="([^"]*)"', found[0])[1]


# ---- A day that has passed -------------------------------------------------------------------------------------------------


def test_a_day_that_has_passed_is_asked_about_once_and_nothing_typed_is_lost(facilitator, told):
    before = len(told())
    page = facilitator.send(NEW, 422, **PAST)
    assert len(told()) == before
    assert "Is that the day you mean?" in page
    asked = held(page)
    assert {name: asked[name] for name in ("title", "day", "starts", "ends", "place_name")} == {
        name: PAST[name] for name in ("title", "day", "starts", "ends", "place_name")
    }
    assert rows(page)[:2] == [("Welcome", "15"), ("Round: how is it going?", "45")]
    facilitator.send(NEW, **asked | {"kind": "start", "theme": "volunteers", "past_agreed": "y"})
    assert isinstance(told()[-1], MeetingPlanned)
    assert told()[-1].day.isoformat() == PAST["day"]


def test_a_tick_holds_for_the_day_that_stood_beside_it(facilitator, told):
    asked = held(facilitator.send(NEW, 422, **PAST))
    before = len(told())
    assert "12\N{NO-BREAK SPACE}June" in facilitator.send(
        NEW, 422, **PAST | {"day": "2012-06-12", "past_seen": asked["past_seen"], "past_agreed": "y"}
    )
    assert len(told()) == before


def test_who_has_answered_is_not_asked_again_while_something_else_is_wrong(facilitator, told):
    asked = held(facilitator.send(NEW, 422, **PAST))
    page = facilitator.send(NEW, 422, **PAST | {"ends": "19:00", "past_seen": asked["past_seen"], "past_agreed": "y"})
    assert "would end before it starts" in page
    assert "Is that the day you mean?" not in page
    facilitator.send(NEW, **PAST | {name: held(page)[name] for name in ("past_seen", "past_agreed")})
    assert isinstance(told()[-1], MeetingPlanned)


def test_a_day_and_a_name_are_asked_about_together(facilitator, told):
    typed = PAST | {"agenda-1-title": "Bas van der Biet tells"}
    page = facilitator.send(NEW, 422, **typed)
    assert "Is that the day you mean?" in page
    assert "<li>Bas van der Biet</li>" in page
    answers = {name: held(page)[name] for name in ("past_seen", "names_seen")} | {"past_agreed": "y", "names_agreed": "y"}
    facilitator.send(NEW, **typed | answers)
    assert told()[-1].agenda[1].title == "Bas van der Biet tells"


def test_what_is_wrong_and_what_is_asked_stand_there_at_once(facilitator, told):
    before = len(told())
    wrong = {"ends": "19:00", "agenda-0-title": "Bas van der Biet tells", "agenda-2-minutes": "20", "kind": "none"}
    page = facilitator.send(NEW, 422, **PAST | wrong)
    summary = page.partition("error-summary")[2].partition("</ul>")[0]
    for field, words in (
        ("kind", "Choose something from the list."), ("ends", "The meeting would end before it starts."),
        ("agenda-2-title", "Write what these minutes are for"), ("past_agreed", "This day has passed."),
        ("names_agreed", "Bas van der Biet"),
    ):  # fmt: skip
        line = summary.partition(f'href="#{field}"')[2].partition("</li>")[0]
        assert words in line
        assert f'id="{field}"' in page
    assert len(told()) == before


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("/lessons/new", {"title": "", "body": "Ask Bas van der Biet."}),
        ("/initiatives/new", {"name": "", "about_text": "Ask Bas van der Biet."}),
        ("/circle/edit", {"name": "", "about_text": "Ask Bas van der Biet."}),
    ],
)
def test_every_form_that_asks_says_at_once_what_is_wrong_too(facilitator, path, texts):
    page = facilitator.send(path, 422, **texts)
    assert "<li>Bas van der Biet</li>" in page
    assert "Fill this in." in page.partition("error-summary")[2].partition("</ul>")[0]


def test_one_question_alone_stands_instead_of_a_list(facilitator):
    assert "error-summary" not in facilitator.send(NEW, 422, **PAST)
    assert "error-summary" not in facilitator.send(NEW, 422, **EVENING | {"title": "Bas van der Biet"})
    assert "error-summary" in facilitator.send(NEW, 422, **PAST | {"title": "Bas van der Biet"})


@pytest.mark.parametrize("day", ["2012-06-20", "2012-06-21"])
def test_today_and_later_are_not_asked_about(facilitator, day):
    facilitator.send(NEW, **EVENING | {"day": day})


def test_a_plan_is_asked_about_only_when_it_moves_to_a_day_that_has_passed(facilitator, told):
    path = facilitator.send(NEW, **EVENING | {"day": "2012-07-01"})
    page = facilitator.send(f"{path}/edit", 422, **PAST)
    assert "Is that the day you mean?" in page
    facilitator.send(f"{path}/edit", **PAST | {"past_seen": held(page)["past_seen"], "past_agreed": "y"})
    facilitator.send(f"{path}/edit", **PAST | {"title": "Another title"})
    assert isinstance(told()[-1], MeetingChanged)
    assert (told()[-1].day.isoformat(), told()[-1].title) == (PAST["day"], "Another title")


# ---- The agenda in rows ----------------------------------------------------------------------------------------------------


def test_a_new_plan_offers_the_fixed_ingredients_and_empty_rows(facilitator):
    offered = rows(facilitator.get(NEW))
    assert [minutes for _title, minutes in offered] == ["15", "45", "45", "15", "", ""]
    assert offered[1][0] == "Rondje: hoe gaat het?"


def test_empty_rows_are_passed_over_and_minutes_may_be_left_out(facilitator, told):
    path = facilitator.send(NEW, **EVENING)
    assert [(item.title, item.minutes) for item in told()[-1].agenda] == [
        ("Welcome", 15), ("Round: how is it going?", 45), ("Drinks", 0),
    ]  # fmt: skip
    again = rows(facilitator.get(f"{path}/edit"))
    assert again == [("Welcome", "15"), ("Round: how is it going?", "45"), ("Drinks", "0"), ("", ""), ("", "")]


def test_more_rows_keep_everything_that_was_typed_right_or_wrong_and_save_nothing(facilitator, told):
    before = len(told())
    typed = EVENING | {"title": "", "day": "soon", "agenda-1-minutes": "long", "agenda-more": "1"}
    page = facilitator.send(NEW, 200, **typed)
    assert rows(page) == [
        ("Welcome", "15"), ("Round: how is it going?", "long"), ("", ""), ("Drinks", ""), ("", ""), ("", ""),
    ]  # fmt: skip
    assert in_focus(page) == "agenda-4-title"
    assert (held(page)["day"], held(page)["place_name"]) == ("soon", "Stadsboerderij")
    for complaint in ("field-error", "Something is not right"):
        assert complaint not in page
    assert len(told()) == before


def test_enter_saves_nothing_and_says_so(facilitator, told):
    """Enter presses the first button of a form; which that is, is seen here and tried in `tests/browser`."""
    path = facilitator.send(NEW, **EVENING)
    before = len(told())
    for form in (NEW, f"{path}/edit"):
        buttons = re.findall(r"<button[^>]*>", facilitator.get(form).partition('class="form"')[2])
        assert 'name="agenda-stay"' in buttons[0]
        page = facilitator.send(form, 200, **EVENING | {"title": "", "agenda-1-minutes": "long", "agenda-stay": "1"})
        assert "Nothing is saved yet." in page
        assert rows(page) == [("Welcome", "15"), ("Round: how is it going?", "long"), ("", ""), ("Drinks", "")]
        assert "field-error" not in page
    assert len(told()) == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "The agenda takes 60 of the evening's 150 minutes. Still free: 90."),
        ({"ends": "20:30"}, "The agenda fills the whole evening: 60 minutes."),
        ({"ends": "20:20"}, "The agenda takes 60 minutes; the evening has 50. Too much: 10."),
        ({"ends": ""}, "The agenda takes 60 minutes."),
        ({"ends": "18:00"}, "The agenda takes 60 minutes."),
    ],
)
def test_the_minutes_are_said_beside_the_length_of_the_evening(facilitator, changed, said):
    page = facilitator.send(NEW, 200, **EVENING | changed | {"agenda-more": "1"})
    assert page.partition("<output")[2].partition(">")[2].partition("</output>")[0] == said.replace("'", "&#39;")


def test_a_row_goes_up_with_what_was_typed_in_it(facilitator, told):
    page = facilitator.send(NEW, 200, **EVENING | {"agenda-up": "3"})
    assert rows(page) == [("Welcome", "15"), ("Round: how is it going?", "45"), ("Drinks", ""), ("", "")]
    assert in_focus(page) == "agenda-2-title"
    for nonsense in ("0", "99", "-1", "²", "", "x"):
        assert len(rows(facilitator.send(NEW, 200, **EVENING | {"agenda-up": nonsense}))) == 4


def test_what_is_wrong_in_a_row_stands_beside_its_field_and_names_the_row(facilitator):
    wrong = {"agenda-0-minutes": "1441", "agenda-2-minutes": "20", "agenda-3-title": "x" * 161}
    page = facilitator.send(NEW, 422, **EVENING | wrong)
    for field, words in (
        ("agenda-0-minutes", "Item 1: minutes. Write a number from 0 to 1440."),
        ("agenda-2-title", "Item 3: what. Write what these minutes are for, or leave the whole row empty."),
        ("agenda-3-title", "Item 4: what. This is too long: at most 160 characters."),
    ):
        beside = page.partition(f'id="{field}-error"')[2].partition("</p>")[0]
        assert words in re.sub(r"<[^>]*>", "", beside)
        assert f'href="#{field}"' in page
    assert 'id="agenda-1-title-error"' not in page
    summary = page.partition("error-summary")[2].partition("</ul>")[0]
    assert summary.count("<li>") == 3


def test_an_agenda_ends_somewhere(facilitator):
    long = {f"agenda-{at}-title": f"Item {at}" for at in range(101)}
    assert "at most 100 items" in facilitator.send(NEW, 422, **EVENING | long)
    page = facilitator.send(NEW, 200, **EVENING | {name: long[name] for name in sorted(long)[:100]} | {"agenda-more": "1"})
    assert len(rows(page)) <= 100
    assert 'name="agenda-more"' not in page


def test_rows_that_no_form_would_send_break_nothing(facilitator, told):
    odd = {"agenda-²-title": "Two", "agenda-x-title": "X", "agenda-99999-title": "Far", "agenda-": "y", "agenda-7-title": "Seven"}
    facilitator.send(NEW, **EVENING | odd)
    assert [item.title for item in told()[-1].agenda] == ["Welcome", "Round: how is it going?", "Drinks", "Seven"]

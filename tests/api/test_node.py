"""A node's API, as a script by a stranger uses it: from the words of its document."""

import pytest

from shared.envelope import read_event
from shared.eventlog import read_head, read_log
from tests.api.conftest import make_node

GARDEN = {"name": "De Regenton", "kind": "community_garden", "phase": "idea"}
LESSON = {"title": "Ask early for water", "body": "It takes **half a year**.", "kind": "do", "theme": "water", "phase": "plan"}
EVENING = {"title": "Water in the garden", "kind": "circle", "day": "2015-06-20", "starts": "19:30"}


def made(answer):
    assert answer.status_code == 201, answer.text
    return answer.get_json()


def changed(answer):
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def wrong(answer, status, *fields):
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    assert set(answer.get_json()["errors"]) == set(fields)
    return answer.get_json()["errors"]


def told(node):
    with node.database.reading() as session:
        return [read_event(entry) for entry in read_log(session, read_head(session).epoch, 0, 1000)]


def test_an_initiative_needs_a_name_a_kind_and_a_phase_and_nothing_else(node):
    answer = node.call("POST", "/initiatives", "member", **GARDEN)
    garden = made(answer)
    assert answer.headers["Location"] == f"/api/v1/initiatives/{garden['code']}"
    assert garden["history"] == [{"phase": "idea", "since": "2015-06-20"}]
    assert node.call("GET", answer.headers["Location"].removeprefix("/api/v1")).get_json() == garden
    assert told(node)[-1].name == "De Regenton"


def test_an_initiative_is_changed_moved_to_a_phase_and_withdrawn(node):
    path = "/initiatives/" + made(node.call("POST", "/initiatives", "member", **GARDEN, since="2012-03-01"))["code"]
    garden = changed(node.call("PATCH", path, "member", about_text="Herbs.", latitude=52.371, longitude=5.215))
    assert (garden["name"], garden["about_text"], garden["latitude"]) == ("De Regenton", "Herbs.", 52.371)
    garden = changed(node.call("PATCH", path, "member", phase="plan", since="2013-03-01"))
    assert [step["phase"] for step in garden["history"]] == ["idea", "plan"]
    before = len(told(node))
    assert changed(node.call("PATCH", path, "member", phase="plan")) == garden
    assert changed(node.call("PATCH", path, "member", phase="plan", since="2013-03-01")) == garden
    assert len(told(node)) == before
    wrong(node.call("PATCH", path, "member", phase="operational", since="2012-01-01"), 409, "since")
    wrong(node.call("PATCH", path, "member", phase="operational", since="2016-01-01"), 409, "since")
    wrong(node.call("PATCH", path, "member", since="2014-01-01"), 422, "phase")
    wrong(node.call("PATCH", path, "member", latitude=None), 422, "latitude", "longitude")
    assert len(told(node)) == before
    wrong(node.call("DELETE", path, "member"), 403)
    assert node.call("DELETE", path, "facilitator").status_code == 204
    wrong(node.call("GET", path), 404)
    assert node.call("GET", "/initiatives").get_json() == {"items": [], "next": None}


def test_a_meeting_is_planned_changed_held_and_reported(node):
    meeting = made(node.call("POST", "/meetings", "facilitator", **EVENING))
    path = "/meetings/" + meeting["code"]
    assert (meeting["status"], meeting["starts"], meeting["ends"]) == ("planned", "19:30", None)
    meeting = changed(
        node.call("PATCH", path, "facilitator", ends="21:30", agenda=[{"title": "Round", "minutes": 45}, {"title": "T"}])
    )
    assert meeting["agenda"] == [{"title": "Round", "minutes": 45}, {"title": "T", "minutes": 0}]
    wrong(node.call("PATCH", path, "facilitator", agenda=[{"minutes": 45}]), 422, "agenda.0.title")
    wrong(node.call("PATCH", path, "facilitator", ends="18:30"), 409, "ends")
    wrong(node.call("PATCH", path, "facilitator", status="held"), 422, "attended")
    wrong(node.call("PATCH", path, "facilitator", report="It was good."), 409)
    meeting = changed(node.call("PATCH", path, "facilitator", status="held", attended=13, report="It was **good**."))
    assert (meeting["status"], meeting["attended"], meeting["report"]) == ("held", 13, "It was **good**.")
    assert changed(node.call("PATCH", path, "facilitator", attended=14))["attended"] == 14
    assert [item["code"] for item in node.call("GET", "/meetings?status=held&kind=circle").get_json()["items"]] == [meeting["code"]]
    wrong(node.call("DELETE", path, "facilitator"), 409)


def test_a_program_may_write_down_an_evening_that_was(node):
    meeting = made(node.call("POST", "/meetings", "facilitator", **EVENING | {"day": "1999-06-16"}))
    assert (meeting["day"], meeting["status"]) == ("1999-06-16", "planned")


def test_only_the_facilitator_plans_meetings_and_a_cancelled_one_is_gone(node):
    wrong(node.call("POST", "/meetings", "member", **EVENING), 403)
    path = "/meetings/" + made(node.call("POST", "/meetings", "facilitator", **EVENING | {"day": "2015-09-16"}))["code"]
    wrong(node.call("PATCH", path, "facilitator", attended=3), 409)
    assert node.call("DELETE", path, "facilitator").status_code == 204
    wrong(node.call("GET", path), 404)


def test_a_lesson_is_shared_revised_signed_and_taken_back(node):
    lesson = made(node.call("POST", "/lessons", "member", **LESSON))
    path = "/lessons/" + lesson["code"]
    assert (lesson["byline"], lesson["shared_on"]) == (None, "2015-06-20")
    assert changed(node.call("PATCH", path, "member", phase=None, title="Ask for water"))["phase"] is None
    assert changed(node.call("PATCH", path, "member", signed=True))["byline"] == "Bas van der Biet"
    assert told(node)[-1].byline.name == "Bas van der Biet"
    assert changed(node.call("PATCH", path, "facilitator", kind="tip"))["byline"] == "Bas van der Biet"
    wrong(node.call("PATCH", path, "facilitator", signed=True), 403, "signed")
    theirs = "/lessons/" + made(node.call("POST", "/lessons", "facilitator", title="T", body="B", theme="soil"))["code"]
    wrong(node.call("PATCH", theirs, "member", title="Mine"), 403)
    wrong(node.call("DELETE", theirs, "member"), 403)
    assert node.call("DELETE", path, "member").status_code == 204
    wrong(node.call("GET", path), 404)


def test_a_lesson_is_learned_at_something_that_is_there(node):
    wrong(node.call("POST", "/lessons", "member", **LESSON, initiative="5f0c2a9e7b14"), 422, "initiative")
    garden = made(node.call("POST", "/initiatives", "member", **GARDEN))["code"]
    assert made(node.call("POST", "/lessons", "member", **LESSON, initiative=garden))["initiative"] == garden


def test_lessons_are_found_by_words_and_chosen_by_theme_phase_and_kind(node):
    water = made(node.call("POST", "/lessons", "member", **LESSON))["code"]
    soil = made(node.call("POST", "/lessons", "member", **LESSON | {"title": "Dig", "theme": "soil", "kind": "tip"}))["code"]

    def codes(query):
        return {item["code"] for item in node.call("GET", f"/lessons?{query}").get_json()["items"]}

    assert codes("") == codes("phase=plan") == codes("theme=") == {water, soil}
    assert codes("q=water") == codes("theme=water") == codes("kind=do") == {water}
    assert codes("theme=soil&kind=do") == codes("q=nothing") == set()


def test_other_towns_lessons_are_in_the_library(node):
    (found,) = node.call("GET", "/library?town=dronten&theme=water").get_json()["items"]
    assert (found["town"], found["code"], found["title"]) == ("dronten", "les-0001", "Vraag water vroeg aan")
    assert node.call("GET", "/library/dronten/les-0001").get_json() == found
    wrong(node.call("GET", "/library/dronten/les-0002"), 404)


def test_the_circle_tells_who_it_is(node):
    circle = node.call("GET", "/circle").get_json()
    assert (circle["town"], circle["name"]) == ("almere", "Kenniskring Almere")
    wrong(node.call("PATCH", "/circle", "member", about_text="We help."), 403)
    circle = changed(node.call("PATCH", "/circle", "facilitator", about_text="We help.", themes=["soil", "water"]))
    assert (circle["about_text"], circle["themes"], circle["name"]) == ("We help.", ["soil", "water"], "Kenniskring Almere")
    assert told(node)[-1].themes == ("soil", "water")


def test_a_text_that_names_somebody_leaves_only_when_they_agreed(node):
    before = len(told(node))
    body = "Call Zonnebloem, or\nBas van\nder Biet."
    said = wrong(node.call("POST", "/lessons", "member", **LESSON | {"body": body}), 422, "names_agreed")
    assert "Zonnebloem, Bas van der Biet" in said["names_agreed"][0]
    assert len(told(node)) == before
    agreed = ["Zonnebloem", "Bas van der Biet"]
    assert made(node.call("POST", "/lessons", "member", **LESSON | {"body": body}, names_agreed=agreed))["body"] == body


def test_nobodys_name_or_address_is_in_an_answer_without_a_login(node):
    node.call("POST", "/lessons", "member", **LESSON)
    node.call("POST", "/meetings", "facilitator", **EVENING)
    for path in ("/circle", "/initiatives", "/meetings", "/lessons", "/library"):
        said = node.call("GET", path).text
        assert "Zonnebloem" not in said
        assert "Biet" not in said
        assert "example.org" not in said


@pytest.mark.parametrize("path", ["/initiatives", "/meetings", "/lessons"])
def test_a_long_list_comes_in_pages_and_new_rows_disturb_none(node, path):
    def add(number):
        body = {"/initiatives": GARDEN | {"name": "Tuin"}, "/meetings": EVENING, "/lessons": LESSON}[path]
        return made(node.call("POST", path, "facilitator", **body))["code"]

    codes = [add(number) for number in range(5)]
    seen, cursor = [], ""
    for name in ("after", "cursor", "after"):
        page = node.call("GET", f"{path}?limit=2&{name}={cursor}").get_json()
        seen += [item["code"] for item in page["items"]]
        cursor = page["next"]
        if len(seen) == 2 and path == "/initiatives":
            made(node.call("POST", path, "facilitator", **GARDEN | {"name": "Aardappelveld"}))
    assert cursor is None
    assert sorted(seen) == sorted(codes)


def test_a_search_comes_in_pages_too(node):
    codes = {made(node.call("POST", "/lessons", "member", **LESSON))["code"] for _ in range(3)}
    first = node.call("GET", "/lessons?q=water&limit=2").get_json()
    rest = node.call("GET", f"/lessons?q=water&limit=2&after={first['next']}").get_json()
    assert {item["code"] for item in first["items"] + rest["items"]} == codes
    assert rest["next"] is None


def test_a_circle_that_works_alone_takes_what_it_is_told(node):
    node.database.info.pop("author")
    with node.database.transaction() as session:
        from services.town_node.circle.membership import membership
        from shared.eventlog import head

        session.delete(membership(session))
        session.execute(head.delete())
    assert made(node.call("POST", "/initiatives", "member", **GARDEN))["code"]


def test_the_same_on_postgresql(postgres, tmp_path):
    (tmp_path / "node").mkdir()
    node = make_node(tmp_path / "node", postgres.fresh_database())
    codes = [made(node.call("POST", "/lessons", "member", {"Idempotency-Key": f"k{n}"}, **LESSON))["code"] for n in (1, 2, 2, 3)]
    first = node.call("GET", "/lessons?theme=water&q=wat&limit=2").get_json()
    rest = node.call("GET", f"/lessons?theme=water&q=wat&limit=2&after={first['next']}").get_json()
    assert {item["code"] for item in first["items"] + rest["items"]} == set(codes)
    garden = made(node.call("POST", "/initiatives", "member", **GARDEN))
    made(node.call("POST", "/initiatives", "member", **GARDEN))
    first = node.call("GET", "/initiatives?limit=1").get_json()
    assert node.call("GET", f"/initiatives?after={first['next']}").get_json()["items"] != first["items"]
    assert changed(node.call("PATCH", f"/initiatives/{garden['code']}", "member", phase="plan"))["phase"] == "plan"
    for path in ("/lessons/%00", "/library/%00/%00", "/nothing"):
        wrong(node.call("GET", path), 404)
    assert node.app.test_client().get("/readyz").status_code == 200
    assert node.app.test_client().get("/metrics").status_code == 200
    node.database.close()

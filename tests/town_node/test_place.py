"""Where an initiative is: kept exactly in the town, and told as exactly as the initiative wishes."""

import json
from datetime import date

import pytest
from sqlalchemy import select

from services.town_node.initiatives.model import Initiative
from shared.coordinates import neighbourhood
from shared.eventlog import payload
from shared.events import Place

TODAY = date(2012, 6, 20)
EXACTLY = Place(52_371_234, 5_223_456)
GARDEN = {
    "name": "Tuin de Zon", "kind": "community_garden", "phase": "plan", "since": "2012-03-01", "place_name": "Zonnehof 3",
    "place": "52,371234 5,223456",
}  # fmt: skip


def garden(shown):
    it = Initiative(code="garden01", name="De Zon", kind="other", latitude=EXACTLY.latitude, longitude=EXACTLY.longitude)
    it.place_shown, it.place_name = shown, "Zonnehof 3"
    return it.register("idea", TODAY, TODAY)


def bodies(node):
    """All that the log would send, as text."""
    with node.extensions["site"].database.reading() as session:
        return [bytes(body).decode() for body in session.scalars(select(payload.c.body))]


def test_an_exact_place_is_told_as_it_is():
    assert garden("exact").place == EXACTLY


def test_a_neighbourhood_is_told_as_its_square():
    said = garden("neighbourhood")
    assert said.place == neighbourhood(EXACTLY)
    assert not said.place.exact


def test_a_hidden_place_is_not_told_nor_its_street():
    said = garden("hidden")
    assert (said.place, said.place_name) == (None, "")


def test_a_choice_that_is_not_known_tells_nothing():
    assert garden("whatever").place is None


@pytest.mark.parametrize("shown", ["neighbourhood", "hidden"])
def test_no_event_holds_the_exact_place(node, facilitator, shown):
    where = facilitator.send("/initiatives/new", **GARDEN | {"place_shown": shown})
    facilitator.send(f"{where}/edit", **GARDEN | {"place_shown": shown, "about_text": "Again and again."})
    facilitator.send(f"{where}/phase", phase="operational", since="2012-06-01")
    told = [json.loads(body) for body in bodies(node) if "initiative" in body]
    assert len(told) == 3
    assert len({json.dumps(body["place"]) for body in told}) == 1
    for body in bodies(node):
        assert "52371234" not in body
        assert "5223456" not in body
        assert "52.371" not in body
    with node.extensions["site"].database.reading() as session:
        assert session.scalar(select(Initiative.latitude)) == 52_371_234


@pytest.mark.parametrize("shown", ["neighbourhood", "hidden"])
def test_who_is_not_a_member_sees_no_more_than_the_other_towns(facilitator, member, stranger, shown):
    where = facilitator.send("/initiatives/new", **GARDEN | {"place_shown": shown})
    for path in (where, "/initiatives", "/initiatives/map.json"):
        page = stranger.get(path)
        for exact in ("52371234", "52.371234", "5237123", "522346"):
            assert exact not in page
        assert shown == "neighbourhood" or "Zonnehof" not in page
    assert "52.371234, 5.223456" in member.get(where)
    assert "openstreetmap" not in member.get(where)  # a press there would tell another site
    assert "5237123" in member.get("/initiatives/map.json")


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("52,3701 5,2220", Place(52_370_100, 5_222_000)),
        ("5.2220, 52.3701", Place(52_370_100, 5_222_000)),
        ("155000 463000", Place(52_155_174, 5_387_206)),
    ],
)
def test_a_place_is_understood_as_people_write_it(facilitator, told, said, place):
    facilitator.send("/initiatives/new", **GARDEN | {"place": said})
    assert told()[-1].place == place


def test_the_page_says_how_a_place_was_understood(member, stranger):
    said = json.loads(member.get("/initiatives/place.json?said=155000+463000"))
    assert "52.155174, 5.387206" in said["words"]
    assert "RD" in said["words"]
    assert "at" not in json.loads(member.get("/initiatives/place.json?said=Bloemstraat+3"))
    stranger.get("/initiatives/place.json?said=155000+463000", 302)


def test_an_address_is_no_coordinates_and_coordinates_are_no_address(facilitator):
    page = facilitator.send("/initiatives/new", 422, **GARDEN | {"place": "Bloemstraat 3, Almere"})
    assert "no place in the Netherlands that we understand" in page
    page = facilitator.send(
        "/initiatives/new", 422, **GARDEN | {"place_name": "52.371234, 5.223456", "place_shown": "neighbourhood"}
    )
    assert "These are coordinates" in page


def test_an_edited_place_comes_back_as_it_was(facilitator, told):
    where = facilitator.send("/initiatives/new", **GARDEN | {"place_shown": "neighbourhood"})
    page = facilitator.get(f"{where}/edit")
    assert 'value="52.371234, 5.223456"' in page
    facilitator.send(f"{where}/edit", **GARDEN | {"place": "52.371234, 5.223456", "place_shown": "exact"})
    assert told()[-1].place == EXACTLY


def test_the_circle_says_where_it_is_in_the_same_way(facilitator, told):
    circle = {"name": "Kring", "place_name": "Almere", "status": "active", "method": "circle", "place": "155000 463000"}
    facilitator.send("/circle/edit", **circle)
    assert told()[-1].place == Place(52_155_174, 5_387_206)


def test_the_map_says_what_the_list_says_and_is_sent_once(facilitator, stranger):
    facilitator.send("/initiatives/new", **GARDEN | {"place_shown": "neighbourhood"})
    answer = stranger.client.get("/initiatives/map.json?phase=plan")
    town = answer.json["towns"][0]
    assert (town["name"], [mark[1] for mark in town["marks"]]) == ("Almere", ["Tuin de Zon"])
    assert "Cookie" in answer.headers["Vary"]
    again = stranger.client.get("/initiatives/map.json?phase=plan", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert stranger.client.get("/initiatives/map.json?phase=idea").json == {"towns": []}


def test_a_background_is_fetched_only_where_the_operator_allowed_it(node, facilitator):
    where = facilitator.send("/initiatives/new", **GARDEN)
    assert "pdok" not in facilitator.client.get(where).text
    node.extensions["site"].map_background = True
    answer = facilitator.client.get(where)
    assert "pdok" in answer.text
    assert "img-src 'self' https://service.pdok.nl data:;" in answer.headers["Content-Security-Policy"]
    assert "pdok" not in facilitator.client.get("/lessons").headers["Content-Security-Policy"]


def test_a_program_without_a_token_sees_what_is_shown(facilitator, stranger):
    where = facilitator.send("/initiatives/new", **GARDEN | {"place_shown": "neighbourhood"})
    for path in (f"/api/v1{where}", "/api/v1/initiatives"):
        said = stranger.get(path)
        assert "neighbourhood" in said
        assert "52.371234" not in said

"""The association's API: the national view for programs, and a little more with a token of the association."""

import pytest

from services.hub.towns.joining import Town


def items(hub, path, role=None):
    answer = hub.call("GET", path, role)
    assert answer.status_code == 200, answer.text
    return answer.get_json()["items"]


def test_everybody_reads_the_towns_that_joined(hub):
    (town,) = items(hub, "/towns")
    assert (town["town"], town["name"], town["circle"]["name"]) == ("almere", "Almere", "Kenniskring Almere")
    assert (town["initiatives"], town["lessons"], town["meetings_held"], town["sync"]) == (2, 2, 1, None)
    assert hub.call("GET", "/towns/almere").get_json() == town
    assert hub.call("GET", "/towns/zwolle").status_code == 404
    assert "20" not in str(town["circle"])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/initiatives", ["tuin-0001", "tuin-0002"]),
        ("/initiatives?town=almere&phase=plan", ["tuin-0001"]),
        ("/initiatives?kind=school_garden", ["tuin-0002"]),
        ("/initiatives?town=dronten", []),
        ("/meetings?town=almere&kind=circle", ["avond-01"]),
        ("/meetings?kind=start", []),
        ("/lessons", ["les-0002", "les-0001"]),
        ("/lessons?q=watertje", []),
        ("/lessons?q=water", ["les-0001"]),
        ("/lessons?theme=volunteers&kind=tip&town=almere", ["les-0002"]),
        ("/lessons?phase=plan", ["les-0001"]),
    ],
)
def test_everybody_chooses_from_what_the_towns_told(hub, path, found):
    shown = items(hub, path)
    assert [item["code"] for item in shown] == found
    for item in shown:
        assert hub.call("GET", f"{path.partition('?')[0]}/{item['town']}/{item['code']}").get_json() == item


def test_the_association_sees_how_far_every_town_is_in_sync(hub):
    almere, zwolle = items(hub, "/towns", "association")
    assert almere["sync"] | {"joined": None} == {"joined": None, "last_heard": None, "cursor": 7, "lag": None, "stalled": []}
    assert almere["sync"]["joined"].startswith("2015-06-20T18:00")
    assert (zwolle["town"], zwolle["sync"]["joined"], zwolle["circle"]) == ("zwolle", None, None)
    assert hub.call("GET", "/towns/zwolle", "association").get_json() == zwolle
    first = hub.call("GET", "/towns?limit=1", "association").get_json()
    assert [item["town"] for item in items(hub, f"/towns?after={first['next']}", "association")] == ["zwolle"]


def test_the_association_makes_a_town_and_reads_its_code_once(hub):
    answer = hub.call("POST", "/towns", "association", town="dronten", name="Dronten")
    assert answer.status_code == 201
    assert answer.headers["Location"] == "/api/v1/towns/dronten"
    code = answer.get_json()["joining_code"]
    assert len(code) == 23
    assert code not in hub.call("GET", "/towns/dronten", "association").text
    with hub.database.reading() as session:
        assert code not in str(vars(session.get(Town, "dronten")))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"town": "almere", "name": "Almere"}, 409),
        ({"town": "koepel", "name": "Koepel"}, 422),
        ({"town": "9dronten", "name": "Dronten"}, 422),
        ({"town": "Dronten", "name": "Dronten"}, 422),
        ({"town": "é", "name": "Dronten"}, 422),
    ],
)
def test_a_town_that_cannot_be_is_refused_by_its_field(hub, body, status):
    answer = hub.call("POST", "/towns", "association", **body)
    assert (answer.status_code, list(answer.get_json()["errors"])) == (status, ["town"])


def test_nobody_else_makes_a_town(hub):
    assert hub.call("POST", "/towns", town="dronten", name="Dronten").status_code == 401
    for method in ("PUT", "DELETE", "PATCH"):
        answer = hub.call(method, "/towns/almere", "association")
        assert answer.status_code == 405
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}

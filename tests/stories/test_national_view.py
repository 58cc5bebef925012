"""R27: the circles of all towns under one umbrella, seen by everybody, as it is now."""

import urllib3

from tests.stories.people import log_in, say, soon


def test_the_national_view_follows_what_two_towns_do(land, hub, almere, dronten, fenna, passer_by):
    land.settle()
    numbers = numbers_of(hub)
    known = numbers.headers["ETag"]
    before = numbers.json()["counts"]
    assert numbers_of(hub, known).status == 304, "nothing changed: nothing is sent"

    fenna.fills_in("/circle/edit", about_text="Wij zijn begonnen in 2012.", place="52,37 5,22", themes="Water, Bodem")
    fenna.registers("Dak van Almere", kind="urban_farm", phase="idea")
    far = log_in(dronten)
    far.registers("Kas van Dronten", kind="school_garden", phase="operational", place="52,52 5,72")
    far.holds(far.plans("Eerste avond in Dronten"), attended=4)
    far.fills_in("/lessons/new", title="Deel de kas", body="Met vier scholen.", kind="tip", theme="school")
    land.settle()

    now = numbers_of(hub, known)
    assert now.status == 200
    more = {name: count - before[name] for name, count in now.json()["counts"].items() if count != before[name]}
    assert more == {"initiatives": 2, "meetings": 1, "lessons": 1, "phase-idea": 1, "phase-operational": 1}
    page = passer_by.get("/")
    assert "Dak van Almere" in page
    assert "Kas van Dronten" in page
    only = passer_by.get("/?phase=operational&kind=school_garden")
    assert "Kas van Dronten" in only
    assert "Dak van Almere" not in only
    assert "Wij zijn begonnen in 2012." in passer_by.get("/towns/almere")
    for words in ("Kas van Dronten", "Eerste avond in Dronten", "Deel de kas"):
        assert words in passer_by.get("/towns/dronten")
    assert {"Almere", "Dronten"} <= set(passer_by.finds("/towns"))


def test_the_association_sees_how_far_each_town_is_in_sync(land, hub, almere, fenna):
    vera = log_in(hub)
    land.settle()
    hub.stop("worker")
    fenna.share("Nog onderweg")
    soon(almere.is_sent, "the bus that took it")
    soon(lambda: on_their_way(vera, "Almere").startswith("1"), "one event on its way")
    hub.start("worker")
    soon(lambda: on_their_way(vera, "Almere") == "0", "nothing on its way")


def numbers_of(hub, known=""):
    headers = {"If-None-Match": known} if known else {}
    return urllib3.request("GET", f"{hub.url}/numbers.json", headers=headers, retries=False)


def on_their_way(vera, town):
    """What the page of towns and sync says of this town: how many events, and since when."""
    row = vera.get("/association").partition(f">{town}</a></td>")[2].partition("</tr>")[0]
    return row.partition(f'data-label="{say("On their way")}">')[2].partition("</td>")[0].strip()

"""R34, R35, I18: what a circle erases is nowhere any more; and what it says when it leaves, the library heeds."""

import re
import subprocess

from services.town_node.circle.membership import membership
from tests.stories.people import Person, code_of, log_in, say, soon
from tests.stories.test_joining import code_for, done, lets_in, new_town
from tests.stories.test_personal_data import everything_in

__all__ = ["new_town"]
SECRET = "Zwartgallige Zuurkoolzolder"


def kept_anywhere(federation, secret):
    """Where these words stand, in tables and database files of hub and towns. The bus writes over what was consumed."""
    found = []
    for service in federation.services():
        if secret in everything_in(service.database):
            found.append(f"{service.name}: a table")
        found += [
            str(path)
            for path in service.folder.rglob("*.db*")
            if path.is_file() and not path.name.startswith("bus.db") and stands_in(path, secret)
        ]
    return found


def stands_in(path, secret):
    """Read by another process: to close a database file in this one drops the POSIX locks its connections hold on it."""
    return subprocess.run(["grep", "-qF", "--", secret, path], check=False, env={"LC_ALL": "C"}).returncode == 0


def test_what_is_erased_in_one_town_is_nowhere_any_more_and_the_page_says_so(land, hub, almere, dronten, fenna, passer_by):
    lesson = f"/lessons/{fenna.share(SECRET, body=f'{SECRET}, zei men.')}"
    land.settle()
    assert SECRET in Person(dronten.url).get(f"/association/almere/{code_of(lesson)}")
    assert len(kept_anywhere(land, SECRET)) >= 3

    dronten.stop("worker")
    fenna.forget_form()
    assert fenna.send(f"/erasures/lesson/{code_of(lesson)}") == "/erasures"
    association = say("It is erased here, and the association has confirmed it. Not all other towns have yet.")
    soon(lambda: association in fenna.get("/erasures"), "the association that confirms")
    assert passer_by.call("GET", f"/lessons/almere/{code_of(lesson)}").status == 404
    dronten.start("worker")
    everywhere = say("It is erased here; the association and all other towns have confirmed it.")
    soon(lambda: everywhere in fenna.get("/erasures"), "all towns that confirm")
    land.settle()
    soon(lambda: kept_anywhere(land, SECRET) == [], f"the end of these words in {kept_anywhere(land, SECRET)}")
    assert fenna.call("GET", lesson).status == 404
    assert Person(dronten.url).call("GET", f"/association/almere/{code_of(lesson)}").status == 404


def test_a_circle_begins_alone_joins_from_the_page_and_leaves_with_what_it_told(land, hub, almere, new_town):
    lelystad = new_town("biddinghuizen")
    code = done(lelystad, "setup-code")
    lelystad.start("web")
    lelystad.wait_until_ready("web")
    lies = Person(lelystad.url)
    link = lies.fills_in(
        "/membership/begin", code=code, name="Lies Lelie", email="lies@example.org", circle="Kring in wording", town="B"
    )
    lies.forget_form()
    assert lies.send(link).startswith("/membership/join")
    lies.forget_form()
    lies.fills_in("/lessons/new", title="Van voor het lidmaatschap", body="Zo.", kind="tip", theme="volunteers")
    lelystad.start("worker")
    assert lies.is_refused("/membership/join", hub=hub.url, code="AAAAA-BBBBB-CCCCC-DDDDD")
    lies.fills_in("/membership/join", hub=hub.url, code=code_for(hub, "Biddinghuizen"))
    with lelystad.database.reading() as session:
        assert membership(session).town == "biddinghuizen"
    assert say("The association still has to let this circle in. What you write is safe here.") in lies.get("/sync")
    lets_in(hub, "biddinghuizen")
    soon(lambda: say("All is well: the association has everything.") in lies.get("/sync"), "everything that arrived")
    land.settle()
    reader = Person(almere.url)
    assert "Van voor het lidmaatschap" in reader.finds("/association?town=biddinghuizen")

    lies.fills_in("/membership/leave", library="erase")
    soon(lambda: say("The association has heard it. What you write from now on stays here.") in lies.get("/sync"), "the goodbye")
    soon(lambda: "Van voor het lidmaatschap" not in reader.finds("/association"), "the library without it")
    assert "Van voor het lidmaatschap" in lies.finds("/lessons"), "the circle keeps what is its own"
    lies.fills_in("/lessons/new", title="Van na het afscheid", body="Zo.", kind="tip", theme="volunteers")
    soon(lambda: re.search("afscheid", lies.get("/lessons")), "its own list")
    with hub.database.reading() as session:
        from shared.inbox import inbox_cursor

        held = {row.town: row.seq for row in session.execute(inbox_cursor.select())}
    with lelystad.database.reading() as session:
        assert held["biddinghuizen"] == membership(session).left_seq, "nothing beyond the goodbye goes out"

    vera, town = log_in(hub), "/association/towns/biddinghuizen"
    vera.fills_in(f"{town}/leave", forgets="nothing")
    code = re.search(r"<code>([A-Z0-9-]{23})</code>", vera.get(vera.presses(f"{town}/anew", on=town)))[1]
    lies.fills_in("/membership/join", code=code)
    assert say("The association still has to let this circle in. What you write is safe here.") in lies.get("/sync")
    lets_in(hub, "biddinghuizen")
    soon(lambda: say("All is well: the association has everything.") in lies.get("/sync"), "the way back")
    lies.fills_in("/lessons/new", title="Wij zijn er weer", body="Zo.", kind="tip", theme="volunteers")
    land.settle()
    for told in (reader.finds("/association?town=biddinghuizen"), Person(hub.url).finds("/lessons?town=biddinghuizen")):
        assert sorted(told) == ["Van na het afscheid", "Wij zijn er weer"], "what was erased with the goodbye stays erased"
    assert "Van voor het lidmaatschap" in lies.finds("/lessons")
    assert say("Leave the association") in lies.get("/membership"), "and it may leave once more"

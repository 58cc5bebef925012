"""R32: a new town joins with one code, and is running in minutes."""

import re

import pytest
from sqlalchemy import select

from services.hub.towns.joining import Town
from services.town_node.circle.membership import membership
from shared.eventlog import read_head
from shared.inbox import inbox_cursor
from tests.stories.people import Person, Program, log_in, say, soon


@pytest.fixture
def new_town(land):
    """Nodes that are set up and have not joined; gone after the story, and the association waits for none of them any more."""
    made = []

    def set_up(slug):
        made.append(slug)
        return land.new_town(slug)

    yield set_up
    for slug in made:
        land.towns.pop(slug).end()
        with land.hub.database.reading() as session:
            town = session.get(Town, slug)
        if town is not None and town.joined_at is not None and town.left_at is None:
            log_in(land.hub).fills_in(f"/association/towns/{slug}/leave", forgets="nothing")


def test_a_new_town_joins_with_its_code_and_the_others_hear_from_it(land, hub, almere, fenna, new_town):
    fenna.share("Wie later komt, leest dit ook")
    code = code_for(hub, "Lelystad")
    lelystad = new_town("lelystad")
    refused(lelystad, "join", "--hub", hub.url, "AAAAA-BBBBB-CCCCC-DDDDD")
    # The answer is lost: the node dies before it can write down that it has joined.
    assert lelystad.command("join", "--hub", hub.url, code, failpoint="join.answered").returncode == -9
    done(lelystad, "join", "--hub", hub.url, code.lower().replace("-", " "))  # once more, as people type it
    lets_in(hub, "lelystad")
    refused(lelystad, "join", "--hub", hub.url, code)
    urk = new_town("urk")
    refused(urk, "join", "--hub", hub.url, code)  # it works once

    done(lelystad, "person", "add", "Lies Lelie", "lies@example.org", "--role", "facilitator")
    lies = Person(lelystad.url)
    for kind in ("web", "worker"):
        lelystad.start(kind)
    for kind in ("web", "worker"):
        lelystad.wait_until_ready(kind)
    link = done(lelystad, "login-link", "lies@example.org").removeprefix(lelystad.url)
    lies.send(link)
    lies.forget_form()
    lies.registers("De Polder")
    lies.fills_in("/lessons/new", title="Begin met genoeg mensen", body="Anders houdt het op.", kind="tip", theme="volunteers")
    land.settle()

    assert "Lelystad" in Person(hub.url).finds("/towns")
    assert "De Polder" in Person(hub.url).finds("/initiatives?town=lelystad")
    assert "Begin met genoeg mensen" in Person(almere.url).finds("/association?town=lelystad")
    assert "Lelystad" in Person(almere.url).get("/association?town=lelystad"), "known by its name, not its short one"
    assert "Wie later komt, leest dit ook" in lies.finds("/association?q=later")


def test_a_node_that_is_not_let_in_yet_says_so_and_what_to_read_out(hub, new_town):
    node = new_town("dalfsen")
    said = done(node, "join", "--hub", hub.url, code_for(hub, "Dalfsen"))
    name = re.search(r"(?:[0-9a-f]{4} ){3}[0-9a-f]{4}", said)[0]
    assert name in log_in(hub).get("/association/towns/dalfsen"), "both read the same"
    for kind in ("web", "worker"):
        node.start(kind)
        node.wait_until_ready(kind)
    reader, waits = Person(node.url), "The association still has to let this circle in. What you write is safe here."
    assert say(waits) in reader.get("/sync")
    assert name in reader.get("/sync")
    reader._cookies["language"] = "en"
    assert waits in reader.get("/sync")
    hub.kill("web")
    soon(lambda: "The association has not answered since" in reader.get("/sync"), "what a node says that reaches nobody")
    hub.start("web")
    soon(lambda: waits in reader.get("/sync"), "the association's answer")
    lets_in(hub, "dalfsen")
    soon(lambda: "All is well: the association has everything." in reader.get("/sync"), "a place among the others")


def test_a_town_that_loses_its_disk_twice_in_a_day_comes_back_with_what_it_had_told(land, hub, almere, new_town):
    titles = ["Van voor de eerste keer"]
    node = new_town("kampen")
    done(node, "join", "--hub", hub.url, done(hub, "town", "add", "kampen", "Kampen"))
    begins(node).share(titles[0])
    land.settle()
    for title in ("Van na de eerste keer", "Van na de tweede keer"):
        node.end()
        node.folder.rename(node.folder.with_name(f"kampen before {title}"))
        node = land.new_town("kampen")
        done(node, "join", "--hub", hub.url, done(hub, "town", "readmit", "kampen"))
        kim = begins(node)
        assert sorted(kim.finds("/lessons")) == sorted(titles), "nobody had to write it again"
        kim.share(title)
        titles.append(title)
        land.settle()
        assert sorted(Person(hub.url).finds("/lessons?town=kampen")) == sorted(titles)
        assert sorted(Person(almere.url).finds("/association?town=kampen")) == sorted(titles)


def test_a_town_whose_key_was_stolen_is_told_so_and_joins_anew_with_all_it_has(land, hub, almere, new_town):
    node = new_town("hattem")
    done(node, "join", "--hub", hub.url, code_for(hub, "Hattem"))
    lets_in(hub, "hattem")
    kim = begins(node)
    kim.share("Van voor de diefstal")
    kim.share("Van erna")
    land.settle()
    with hub.database.reading() as session:
        held = session.scalar(select(inbox_cursor.c.seq).where(inbox_cursor.c.town == "hattem"))
    vera, revoking = log_in(hub), "/association/towns/hattem/revoke"
    assert vera.call("POST", revoking, last=str(held - 1), csrf_token=vera._token(revoking)).status == 302
    soon(lambda: Person(hub.url).finds("/lessons?town=hattem") == ["Van voor de diefstal"], "the hub shows it no more")
    soon(lambda: Person(almere.url).finds("/association?town=hattem") == ["Van voor de diefstal"], "nor does Almere")
    told = say("The association does not accept the key of this site any more. What you write is safe here.")
    soon(lambda: told in kim.get("/"), "it says so at the foot of every page")

    kim.share("Van daarna")
    code = done(hub, "town", "readmit", "hattem")
    kim.fills_in("/membership/join", hub=hub.url, code=code)
    land.settle()
    titles = ["Van daarna", "Van erna", "Van voor de diefstal"]
    assert sorted(Person(hub.url).finds("/lessons?town=hattem")) == titles
    assert sorted(Person(almere.url).finds("/association?town=hattem")) == titles
    assert sorted(kim.finds("/lessons")) == titles


def test_a_worker_that_runs_calls_where_the_town_joined_anew(hub, land, new_town):
    node = new_town("ermelo")
    done(node, "join", "--hub", hub.url, code_for(hub, "Ermelo"))
    lets_in(hub, "ermelo")
    kim = begins(node)
    kim.share("Van voor de verhuizing")
    land.settle()
    node.stop("worker")
    with node.database.transaction() as session:  # the association moved to another address since
        joined = membership(session)
        joined.hub_url = "http://127.0.0.1:9"
        joined.bus_url = joined.bus_url.replace("ermelo", "elders").replace("bus.db", "elders.db")
    node.start("worker")
    kim.share("Van tijdens de verhuizing")
    soon(lambda: "hub.away" in node.said("worker"), "an old address where nobody answers")

    done(node, "join", "--again", "--hub", hub.url, done(hub, "town", "readmit", "ermelo"))
    land.settle()
    assert sorted(Person(hub.url).finds("/lessons?town=ermelo")) == ["Van tijdens de verhuizing", "Van voor de verhuizing"]


def begins(node):
    """A node that has joined runs, and lets in its first facilitator, as soon as it has taken back what it once told."""
    for kind in ("web", "worker"):
        node.start(kind)
        node.wait_until_ready(kind)

    def has_log():
        with node.database.reading() as session:
            return read_head(session) is not None

    soon(has_log, "a log of its own")
    done(node, "person", "add", "Kim Kaardebol", "kim@example.org", "--role", "facilitator")
    return log_in(node, "kim@example.org")


def test_a_town_has_one_short_name_and_one_code_at_a_time(hub):
    first = code_for(hub, "Zeewolde")
    vera = log_in(hub)
    for wrong in ("zeewolde", "Z", "zee wolde", "koepel"):
        page = vera.is_refused("/association/towns/new", name="Nog een", slug=wrong)
        assert 'id="slug-error"' in page
        assert 'value="Nog een"' in page
    second = done(hub, "town", "code", "zeewolde")
    assert second != first


def test_only_the_association_makes_towns(hub):
    answer = Person(hub.url).call("GET", "/association/towns/new")
    assert (answer.status, "/login" in answer.headers["Location"]) == (302, True)
    assert Program(hub).ask("POST", "/towns", {"town": "urk", "name": "Urk"})[0] == 401


def code_for(hub, name):
    """The code that the association's page shows."""
    vera = log_in(hub)
    page = vera.get(vera.fills_in("/association/towns/new", name=name, slug=name.lower()))
    return re.search(r"<code>([A-Z0-9-]{23})</code>", page)[1]


def lets_in(hub, slug):
    """Somebody of the association compared the short name of the key that waits, by telephone."""
    vera, path = log_in(hub), f"/association/towns/{slug}"
    key = re.search(r'value="([0-9a-f]{16})"', vera.get(path))[1]
    assert vera.call("POST", f"{path}/let-in", key_id=key, csrf_token=vera._token(path)).status == 302


def done(service, *words):
    """What a command printed; it must succeed."""
    ran = service.command(*words)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def refused(service, *words):
    """It fails, and says why in one line."""
    ran = service.command(*words)
    assert ran.returncode > 0, ran.stdout
    said = [line for line in ran.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1, ran.stderr
    return said[0]

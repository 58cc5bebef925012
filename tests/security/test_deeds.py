"""Who did what: noted with the change, for the facilitator, for a year, and nowhere else."""

import pytest

from services.hub.towns.deeds import DEEDS as HUB_DEEDS
from services.town_node.circle.actions import remove_member
from services.town_node.home.deeds import DEEDS as NODE_DEEDS
from shared import deeds, login, trail
from tests.security.conftest import form_token, person_code
from tests.security.test_doors import WRITES
from tests.security.test_login import ask, link_in_the_mail, press

TOLD = {"title": "Vraag water vroeg aan", "body": "Een half jaar.", "kind": "do", "theme": "water"}
LESSON = TOLD | {"phase": "", "initiative": "", "meeting": ""}


def send(guest, path, page="", **values):
    return guest.post(path, data={"csrf_token": form_token(guest.get(page or path)), **values})


def whats(door):
    return [(row.what, row.person, row.way) for row in door.rows(deeds.deed)]


def test_a_change_and_its_deed_are_one(node, people):
    guest = node.guest(people["member"])
    assert send(guest, "/lessons/new", **LESSON).status_code == 302
    (row,) = node.rows(deeds.deed)
    assert (row.what, row.person, row.way, row.at) == ("lessons.share", people["member"], deeds.PAGE, node.now)
    assert guest.get(f"/lessons/{row.subject}").status_code == 200


def test_what_was_refused_or_asked_about_is_no_deed(node, people):
    guest = node.guest(people["member"])
    assert send(guest, "/lessons/new", title="").status_code == 422
    assert send(guest, "/lessons/new", **LESSON | {"body": "Vraag het aan Roos Zonnebloem."}).status_code == 422
    assert guest.post("/lessons/new", data=LESSON).status_code == 400
    assert guest.get("/lessons").status_code == 200
    assert whats(node) == []


def test_a_deed_that_cannot_be_noted_undoes_the_change(node, people, monkeypatch):
    guest = node.guest(people["member"])

    def fail(*_more, **_values):
        raise RuntimeError

    monkeypatch.setattr("shared.web.deeds.note", fail)
    assert send(guest, "/lessons/new", **LESSON).status_code == 500
    assert guest.get("/api/v1/lessons").get_json()["items"] == []


def test_what_a_program_does_is_its_persons_deed(node, people):
    with node.database.transaction() as session:
        token = login.make_api_token(session, people["member"], "website", node.now)
    sent = {"Authorization": f"Bearer {token}", "Idempotency-Key": "one"}
    for _again in range(2):
        answer = node.guest().post("/api/v1/lessons", json=TOLD, headers=sent)
        assert answer.status_code == 201
    (row,) = node.rows(deeds.deed)
    assert (row.what, row.subject, row.way) == ("lessons.share", answer.get_json()["code"], deeds.API)


def test_coming_and_going_is_noted(node, people):
    guest = node.guest()
    ask(node, guest, "member@example.org")
    press(guest, link_in_the_mail(node))
    send(guest, "/login/leave", "/tokens")
    assert whats(node) == [("login.open_link", people["member"], "page"), ("login.leave", people["member"], "page")]


def test_the_association_sees_who_made_a_town(hub):
    vera = person_code(hub, "vera@example.org")
    guest = hub.guest(vera)
    assert send(guest, "/association/towns/new", name="Urk", slug="urk").status_code == 302
    (row,) = hub.rows(deeds.deed)
    assert (row.what, row.person, row.subject) == ("association.new_town", vera, "urk")
    page = guest.get("/trail").text
    assert "Vera Voorbeeld" in page
    assert "Made a town" in page


# ---- The page --------------------------------------------------------------------------------------------------------------


def test_the_page_is_for_the_facilitator_alone(node, people):
    assert node.guest().get("/trail").status_code == 302
    assert node.guest(people["member"]).get("/trail").status_code == 403
    assert node.guest(people["member"]).post("/trail/erase", data={"person": "x"}).status_code == 400
    assert "Nothing was changed yet" in node.guest(people["facilitator"]).get("/trail").text


def test_the_page_says_who_did_what_in_plain_words(node, people):
    facilitator = node.guest(people["facilitator"])
    send(node.guest(people["member"]), "/lessons/new", **LESSON)
    path = f"/circle/people/{people['member']}"
    send(facilitator, path, name="Bas Biet", email="bas@example.org", phone="", language="nl", role="member")
    page = facilitator.get("/trail").text
    for words in ("Bas Biet", "Shared a lesson", "Changed somebody", "Roos Zonnebloem", "20 June 2015"):
        assert words in page
    assert "van der Biet" not in page, "the name of today, not a copy"
    page = facilitator.get(f"/trail?person={people['member']}").text
    assert "Shared a lesson" in page
    assert "Changed somebody" not in page


def test_a_long_trail_goes_on_over_pages(node, people):
    with node.database.transaction() as session:
        for number in range(120):
            deeds.note(session, person=people["member"], what="lessons.share", subject=f"c{number:03}", way="page", now=node.now)
    guest, url, seen = node.guest(people["facilitator"]), "/trail", []
    while url:
        page = guest.get(url).text
        seen += [part.partition('"')[0] for part in page.split('href="/lessons/c')[1:]]
        url = page.partition('class="pager"')[2].partition('href="')[2].partition('"')[0].replace("&amp;", "&")
    assert seen == [f"{number:03}" for number in reversed(range(120))]


@pytest.mark.parametrize(
    "query", ["before=x", "before=%00", "before=99999999999999", "person=%00", "person=" + "x" * 500, "before=²"]
)
def test_odd_queries_break_no_trail(node, people, query):
    assert node.guest(people["facilitator"]).get(f"/trail?{query}").status_code == 200


def test_what_is_older_than_a_year_goes(node, people):
    send(node.guest(people["member"]), "/lessons/new", **LESSON)
    for days, left in ((366, 2), (1, 2)):
        node.wait(days=days)
        with node.database.transaction() as session:
            token = login.make_link(session, people["member"], node.now)
        press(node.guest(), f"/login/link/{token}")
        assert len(node.rows(deeds.deed)) == left
    assert "lessons.share" not in [row.what for row in node.rows(deeds.deed)]


def test_who_left_can_be_erased_and_who_is_here_cannot(node, people):
    guest = node.guest(people["facilitator"])
    send(node.guest(people["member"]), "/lessons/new", **LESSON)
    assert send(guest, "/trail/erase", "/tokens", person=people["member"]).status_code == 409
    with node.database.transaction() as session:
        remove_member(session, people["member"], node.now.date())
    assert "Erase from this list" in guest.get(f"/trail?person={people['member']}").text
    assert send(guest, "/trail/erase", f"/trail?person={people['member']}", person=people["member"]).status_code == 302
    assert whats(node) == [("trail.erase", people["facilitator"], "page")]
    assert people["member"] not in [row.subject for row in node.rows(deeds.deed)]


def test_no_deed_leaves_the_town(node, people):
    from shared.eventlog import read_head, read_log

    send(node.guest(people["member"]), "/lessons/new", **LESSON)
    with node.database.reading() as session:
        bodies = b"".join(entry.body + entry.header for entry in read_log(session, read_head(session).epoch, 0, 100))
    assert people["member"].encode() not in bodies
    assert not [path for path in node.guest().get("/api/v1/openapi.json").get_json()["paths"] if "trail" in path or "deed" in path]


@pytest.mark.parametrize(("kind", "words"), [("node", NODE_DEEDS), ("hub", HUB_DEEDS)])
def test_everything_that_writes_has_words_for_the_trail(kind, words, request):
    app = request.getfixturevalue(kind).app
    writes = {
        rule.endpoint.removeprefix("api_")
        for rule in app.url_map.iter_rules()
        if rule.methods & WRITES and not rule.endpoint.startswith("federation.")
    }
    assert writes == set(words) | set(trail.OF_EVERY_SITE)

"""One's own API tokens: made and revoked on a page, shown once, known by their hash."""

import re
from datetime import timedelta

import pytest

from shared import login


class Reader:
    """Somebody with a browser."""

    def __init__(self, site, person):
        self.site, self.client = site, site.app.test_client()
        known = site.app.extensions["site"]
        with site.database.transaction() as session:
            cookie = login.enter(session, login.make_link(session, person, known.clock()), known.clock())
        self.client.set_cookie(known.cookie, cookie)
        self.client.set_cookie("language", "en")

    def send(self, path, **values):
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.client.get("/tokens").text)[1]
        return self.client.post(path, data={"csrf_token": token, **values})


def owner(site, role):
    with site.database.reading() as session:
        return login.whose_api_token(session, site.tokens[role], None)[0]


@pytest.fixture
def reader(site):
    return Reader(site, owner(site, "member" if "member" in site.tokens else "association"))


def test_a_token_is_shown_once_and_works_until_it_is_revoked(reader):
    page = reader.send("/tokens", name="The  website").text
    token = re.search(r"tk_[\w-]{40}", page)[0]
    assert token not in reader.client.get("/tokens").text
    reader.site.tokens["fresh"] = token
    assert reader.site.call("GET", "/lessons", "fresh").status_code == 200
    shown = reader.client.get("/tokens").text
    assert "The website" in shown
    with reader.site.database.reading() as session:
        codes = {one.name: one.code for one in login.api_tokens(session, owner(reader.site, "fresh"))}
        assert token not in str(session.execute(login.api_token.select()).all())
    answer = reader.send(f"/tokens/{codes['The website']}/revoke")
    assert answer.status_code == 302
    assert reader.site.call("GET", "/lessons", "fresh").status_code == 401
    assert f"/tokens/{codes['The website']}/revoke" not in reader.client.get("/tokens").text


def test_the_page_says_on_which_day_a_token_was_used_last(reader):
    role = "member" if "member" in reader.site.tokens else "association"
    assert "never used" in reader.client.get("/tokens").text
    known = reader.site.app.extensions["site"]
    now = known.clock()
    known.clock = lambda: now + timedelta(days=2)
    reader.site.call("GET", "/lessons", role)
    assert re.search("last used on (22.June.2015|June.22,.2015)", reader.client.get("/tokens").text)


def test_nobody_revokes_somebody_elses_token(node):
    reader = Reader(node, owner(node, "member"))
    with node.database.reading() as session:
        (theirs,) = login.api_tokens(session, owner(node, "facilitator"))
    assert theirs.code not in reader.client.get("/tokens").text
    for code in (theirs.code, "nothing", "%00", "%25"):
        assert reader.send(f"/tokens/{code}/revoke").status_code == 404
    assert node.call("PATCH", "/circle", "facilitator", about_text="Still works.").status_code == 200


def test_a_token_has_a_name_and_nobody_has_too_many(reader):
    assert reader.send("/tokens", name=" ").status_code == 422
    answers = [reader.send("/tokens", name=f"number {number}").status_code for number in range(20)]
    assert answers == [200] * 19 + [422]


def test_strangers_are_sent_to_the_login_page(site):
    answer = site.app.test_client().get("/tokens")
    assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (302, "/login")


def test_who_leaves_takes_the_tokens_along(node):
    from services.town_node.circle.actions import remove_member

    with node.database.transaction() as session:
        remove_member(session, owner(node, "member"), node.app.extensions["site"].clock().date())
    assert node.call("GET", "/lessons", "member").status_code == 401

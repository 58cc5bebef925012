"""Logging in: the link, the cookie, and what a stranger can find out."""

import re

import pytest

from services.town_node.circle.actions import remove_member
from shared import login
from shared.mail import mail
from tests.security.conftest import form_token

HTTPS = "https://almere.example"


def ask(door, guest, email, path="/login"):
    return guest.post(path, data={"csrf_token": form_token(guest.get(path)), "email": email})


def link_in_the_mail(door) -> str:
    return re.search(r"https?://[^/]+(/login/link/\S+)", door.rows(mail)[-1].text)[1]


def press(guest, path, **more):
    return guest.post(path, data={"csrf_token": form_token(guest.get(path, **more))}, **more)


@pytest.fixture
def link(node, people):
    ask(node, node.guest(), "member@example.org")
    return link_in_the_mail(node)


# ---- The link --------------------------------------------------------------------------------------------------------------


def test_a_link_lets_in_once(node, link):
    first, second = node.guest(), node.guest()
    for _scanner in range(3):
        assert "Bas van der Biet" in node.guest().get(link).text
    token = form_token(second.get(link))
    assert press(first, link).status_code == 302
    assert second.post(link, data={"csrf_token": token}).status_code == 410
    assert second.get("/tokens").status_code == 302
    assert first.get("/tokens").status_code == 200


def test_a_link_lasts_half_an_hour(node, link):
    node.wait(minutes=29, seconds=59)
    assert node.guest().get(link).status_code == 200
    node.wait(seconds=1)
    assert node.guest().get(link).status_code == 410


def test_who_left_after_asking_gets_in_no_more(node, people, link):
    guest = node.guest()
    token = form_token(guest.get(link))
    with node.database.transaction() as session:
        remove_member(session, people["member"], node.now.date())
    assert guest.post(link, data={"csrf_token": token}).status_code == 410
    assert "Biet" not in guest.get(link).text


def test_who_left_is_out_at_once(node, people):
    guest = node.guest(people["member"])
    assert guest.get("/circle/people").status_code == 200
    with node.database.transaction() as session:
        remove_member(session, people["member"], node.now.date())
    assert guest.get("/circle/people").status_code == 302


def test_the_page_of_a_link_tells_its_address_to_nobody(node, link):
    for path in (link, "/login/link/none"):
        answer = node.guest().get(path)
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
    assert not re.search(r'(?:href|src)="(?:https?:)?//', node.guest().get(link).text)


def test_where_a_link_leads_is_inside(node, people):
    ask(node, node.guest(), "member@example.org", "/login?next=//evil.example")
    assert "evil" not in node.rows(mail)[-1].text
    ask(node, node.guest(), "member@example.org", "/login?next=/lessons")
    path = link_in_the_mail(node)
    assert press(node.guest(), path).headers["Location"] == "/lessons"
    ask(node, node.guest(), "member@example.org")
    assert press(node.guest(), link_in_the_mail(node).partition("?")[0] + "?next=//evil.example").headers["Location"] == "/"


# ---- The cookie ------------------------------------------------------------------------------------------------------------


def cookies_set(answer) -> dict[str, str]:
    return {line.partition("=")[0]: line for line in answer.headers.getlist("Set-Cookie")}


def test_cookies_belong_to_this_host_over_tls_and_to_no_script(build):
    door = build("hub", url=HTTPS)
    from services.hub.towns.people import AssociationMember

    with door.database.transaction() as session:
        session.add(AssociationMember(code="a1b2c3d4", name="Vera", email="vera@example.org"))
        token = login.make_link(session, "a1b2c3d4", door.now)
    guest = door.guest(base_url=HTTPS)
    path = f"/login/link/{token}"
    answers = [guest.get(path, base_url=HTTPS), guest.get("/login/language/nl", base_url=HTTPS)]
    answers.append(press(guest, path, base_url=HTTPS))
    set_there = {name: line for answer in answers for name, line in cookies_set(answer).items()}
    assert {"__Host-tuinkoepel", "__Host-tuinkoepel_form", "language"} <= set(set_there)
    for name, line in set_there.items():
        for rule in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/"):
            assert rule in line, (name, line)
        assert "Domain" not in line


def test_a_session_somebody_else_began_is_not_gone_on_with(node, link):
    guest = node.guest()
    guest.set_cookie("tuinkoepel", "planted-by-an-attacker")
    guest.get("/login")
    before = guest.get_cookie("tuinkoepel_form").value
    press(guest, link)
    assert guest.get_cookie("tuinkoepel").value != "planted-by-an-attacker"
    assert guest.get_cookie("tuinkoepel_form") is None
    guest.get("/lessons/new")
    assert guest.get_cookie("tuinkoepel_form").value != before


def test_who_logs_in_where_somebody_was_logged_in_logs_them_out(node, people, link):
    guest = node.guest(people["facilitator"])
    cookie = guest.get_cookie("tuinkoepel").value
    press(guest, link)
    thief = node.guest()
    thief.set_cookie("tuinkoepel", cookie)
    assert thief.get("/tokens").status_code == 302


def test_logging_out_ends_the_session_itself(node, people):
    guest = node.guest(people["member"])
    cookie = guest.get_cookie("tuinkoepel").value
    guest.post("/login/leave", data={"csrf_token": form_token(guest.get("/tokens"))})
    assert guest.get_cookie("tuinkoepel") is None
    guest.set_cookie("tuinkoepel", cookie)
    assert guest.get("/tokens").status_code == 302


def test_a_session_lasts_ninety_days(node, people):
    guest = node.guest(people["member"])
    node.wait(days=89)
    assert guest.get("/tokens").status_code == 200
    node.wait(days=1)
    assert guest.get("/tokens").status_code == 302


# ---- What is found out -----------------------------------------------------------------------------------------------------


def test_a_known_and_an_unknown_address_are_answered_alike(node, people):
    known, unknown = (ask(node, node.guest(), email) for email in ("member@example.org", "nobody@example.org"))
    assert known.status_code == unknown.status_code == 200
    assert plain(known) == plain(unknown)


def test_an_unknown_address_is_as_much_work(node, people):
    """Not the clock is compared, which would be a lottery, but what the database is asked to do."""
    from sqlalchemy import event

    def statements(email):
        seen = []
        listen = lambda _c, _cursor, statement, *_more: seen.append(statement.split()[0])  # noqa: E731  # removed again below
        event.listen(node.database.engine, "before_cursor_execute", listen)
        ask(node, node.guest(), email)
        event.remove(node.database.engine, "before_cursor_execute", listen)
        return [word for word in seen if word in {"INSERT", "UPDATE", "DELETE"}]

    known, unknown = statements("member@example.org"), statements("nobody@example.org")
    assert set(unknown) == set(known)
    assert len(known) - len(unknown) == 1, "the mail itself; both write, so both wait for the disk"


def test_who_asks_too_often_is_answered_alike_and_gets_no_mail(node, people):
    for _ in range(login.LINKS_MAX + 3):
        answer = ask(node, node.guest(), "member@example.org")
        assert answer.status_code == 200
    assert len(node.rows(mail)) == login.LINKS_MAX
    node.wait(minutes=16)
    ask(node, node.guest(), "member@example.org")
    assert len(node.rows(mail)) == login.LINKS_MAX + 1


def plain(answer) -> str:
    return re.sub(r'value="[^"]+"', "", answer.text)


def test_a_stranger_cannot_tell_who_is_in_the_circle(node, people):
    guest = node.guest()
    for path in ("/circle/people/{}", "/circle/people/{}/remove"):
        for code in (people["member"], "nobody"):
            assert guest.get(path.format(code)).status_code in {302, 405}
    there, not_there = (guest.get(f"/circle/people/{code}") for code in (people["member"], "nobody0000000"))
    assert there.status_code == not_there.status_code == 302
    member = node.guest(people["member"])
    assert (
        member.get(f"/circle/people/{people['facilitator']}").status_code == member.get("/circle/people/nobody").status_code == 403
    )


def test_secrets_are_hashes_at_rest(node, people, link):
    guest = node.guest(people["member"])
    fresh = guest.post("/tokens", data={"csrf_token": form_token(guest.get("/tokens")), "name": "website"}).text
    secrets = [
        re.search(r'<code id="token">\s*(tk_[\w-]+)', fresh)[1],
        guest.get_cookie("tuinkoepel").value,
        link.partition("?")[0].rpartition("/")[2],
    ]
    with node.database.transaction() as session:
        session.execute(mail.delete())  # the letter itself carries the link, until it left
    raw = node.database.engine.raw_connection()
    dump = "\n".join(raw.driver_connection.iterdump())
    raw.close()
    for secret in secrets:
        assert secret not in dump


def test_links_of_nobody_and_old_links_do_not_pile_up(node, people):
    for _ in range(5):
        ask(node, node.guest(), "nobody@example.org")
    node.wait(days=2)
    ask(node, node.guest(), "nobody@example.org")
    assert len(node.rows(login.login_link)) == 1


def test_the_link_of_nobody_lets_nobody_in(node, monkeypatch):
    monkeypatch.setattr("shared.login.secrets.token_urlsafe", lambda _length: "guessed")
    ask(node, node.guest(), "nobody@example.org")
    assert node.guest().get("/login/link/guessed").status_code == 410

"""R36: no password to forget. A link in the mail, ninety days, and a circle that can always be opened."""

import re
from http.cookies import SimpleCookie

from tests.processes import FACILITATOR
from tests.stories.people import Person, Program, log_in, soon


def test_a_link_in_the_mail_lets_somebody_in_once_and_for_ninety_days(almere, fenna):
    fenna.fills_in("/circle/people/new", name="Willem Wortel", email="willem@example.org")
    willem = Person(almere.url)
    known = willem.call("POST", "/login", email="WILLEM@example.org ", csrf_token=willem._token("/login"))
    nobody = willem.call("POST", "/login", email="niemand@example.org", csrf_token=willem._token("/login"))
    assert (known.status, without_tokens(known)) == (nobody.status, without_tokens(nobody)), "nobody learns who is a member"
    soon(lambda: "willem@example.org" in willem.get("/dev/mail"), "the mail")
    [link] = links_in_mails_to("willem@example.org", willem)
    assert "niemand@example.org" not in willem.get("/dev/mail")

    for _mail_scanner in range(2):
        assert "Willem Wortel" in willem.get(link)
    answer = willem.call("POST", link, csrf_token=willem._token(link))
    assert answer.status == 302
    session = next(
        morsel
        for line in answer.headers.getlist("Set-Cookie")
        for name, morsel in SimpleCookie(line).items()
        if not name.endswith("_form") and morsel["max-age"]
    )
    assert (int(session["max-age"]), session["httponly"], session["samesite"]) == (90 * 24 * 3600, True, "Lax")
    assert "Willem Wortel" in willem.get("/circle/people")
    assert Person(almere.url).call("GET", link).status == 410, "it works once"

    willem.presses("/login/leave", on="/lessons/new")
    assert willem.call("GET", "/circle/people").status == 302


def test_when_mail_is_down_the_console_prints_a_link(almere, hub):
    for service, email, inside in ((almere, FACILITATOR, "/circle/people"), (hub, "vera@example.org", "/association")):
        printed = service.command("login-link", email)
        assert printed.returncode == 0, printed.stderr
        link = printed.stdout.strip().removeprefix(service.url)
        somebody = Person(service.url)
        somebody.send(link)
        assert somebody.get(inside)
        assert Person(service.url).call("GET", link).status == 410
        assert service.command("login-link", "niemand@example.org").returncode > 0


def test_a_circle_keeps_its_last_facilitator(almere, fenna):
    herself, second = page_of("Fenna Facilitator", fenna), page_of("Daan Deelnemer", fenna)
    fenna.is_refused(f"{herself}/remove", 409, form=herself)
    fenna.is_refused(herself, 409, role="member")
    assert fenna.get("/circle/people/new"), "she still is"

    fenna.fills_in(second, role="facilitator")
    assert log_in(almere, "daan@example.org").get("/circle/people/new")
    fenna.fills_in(second, role="member")
    assert log_in(almere, "daan@example.org").call("GET", "/circle/people/new").status == 403


def test_who_leaves_the_circle_is_out_at_once(almere, fenna):
    fenna.fills_in("/circle/people/new", name="Gaat Weg", email="weg@example.org")
    leaver, token = log_in(almere, "weg@example.org"), almere.token("weg@example.org")
    assert leaver.get("/circle/people")
    page = page_of("Gaat Weg", fenna)
    fenna.presses(f"{page}/remove", on=page)
    assert leaver.call("GET", "/circle/people").status == 302
    assert Program(almere, token).ask("POST", "/lessons", {})[0] == 401
    assert "weg@example.org" not in fenna.get("/circle/people")


def page_of(name, reader):
    """Where somebody's details are, from the list of people."""
    [address] = re.findall(rf'href="(/circle/people/[0-9a-z]+)">{name}<', reader.get("/circle/people"))
    return address


def links_in_mails_to(address, reader):
    """On the demo's page of mails."""
    mails = reader.get("/dev/mail").split('<article class="card mail">')[1:]
    return [re.search(r"/login/link/[^\"<\s]+", mail)[0].replace("&amp;", "&") for mail in mails if address in mail]


def without_tokens(answer):
    return re.sub(r'value="[^"]*"', "", answer.data.decode())

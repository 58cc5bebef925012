"""Whatever is sent, people and programs are told what is wrong with it; nothing of it travels, and nothing breaks."""

import pytest
import urllib3

from tests.stories.people import Person, Program

LONG = "x" * 161
WRONG = {
    "/initiatives/new": {
        "name": "", "kind": "kasteel", "phase": "klaar", "since": "ooit", "place": "hier", "about_text": "Blijft <b>staan</b>",
    },
    "/meetings/new": {
        "title": LONG, "day": "31-31-2015", "starts": "laat", "agenda-1-minutes": "lang", "place_name": "Blijft staan",
    },
    "/lessons/new": {"title": "", "body": "", "kind": "wet", "theme": "maan", "meeting": "nergens"},
    "/circle/people/new": {"name": "Blijft Staan", "email": "geen adres", "phone": "bel maar"},
    "/circle/edit": {"name": "", "public_phone": "bel maar", "place": "91 5", "founded": "toen", "about_text": "Blijft staan"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_travels(land, almere):
    """What is refused leaves no trace in the log, and what serves goes on serving."""
    before = len(almere.log())
    yield
    assert len(almere.log()) == before
    for kind in ("web", "worker"):
        assert almere.runs(kind)
        assert "Traceback" not in almere.said(kind)


@pytest.mark.parametrize("page", WRONG)
def test_a_form_says_beside_each_field_what_is_wrong_and_keeps_the_rest(fenna, page):
    shown = fenna.is_refused(page, **WRONG[page])
    kept = {name for name, words in WRONG[page].items() if "staan" in words.casefold()}
    for name in WRONG[page].keys() - kept:
        assert f'id="{name}-error"' in shown, name
    for name in kept:
        assert f'id="{name}-error"' not in shown, name
        assert WRONG[page][name].replace("<", "&lt;").replace(">", "&gt;") in shown


def test_a_program_is_told_every_wrong_field_at_once(almere, hub):
    program = Program(almere, almere.token())
    status, problem = program.ask("POST", "/initiatives", {"kind": "kasteel", "phase": 3, "visitors": "ja", "fase": "idee"})
    assert (status, set(problem["errors"])) == (422, {"name", "kind", "phase", "visitors", "fase"})
    status, problem = program.ask("PATCH", "/meetings/nergens", {"title": LONG})
    assert status in {404, 422}
    status, problem = Program(hub, hub.token()).ask("POST", "/towns", {"town": "Grote Stad"})
    assert (status, set(problem["errors"])) == (422, {"town", "name"})
    status, _problem = Program(hub).ask("GET", "/lessons?phase=klaar&limit=0")
    assert status == 422


def test_what_no_form_would_send_breaks_nothing(almere, hub, fenna):
    stranger = Person(almere.url)
    assert stranger.call("POST", "/lessons/new", title="Zonder slot", body="x").status == 400
    assert fenna.call("POST", "/lessons/new", title="Zonder slot", body="x").status == 400
    for site in (almere, hub):
        reader = Person(site.url)
        for path in (
            "/lessons?q=%00",
            "/lessons?q=%27%22)%20OR%20*",
            "/initiatives?page=%C2%B2&phase=%FF",
            "/lessons/%00",
            "/nergens",
        ):
            assert reader.call("GET", path).status in {200, 404}, path
        large = urllib3.request("POST", f"{site.url}/login", body=b"email=" + b"x" * 3_000_000, retries=False, headers={
            "Content-Type": "application/x-www-form-urlencoded", "Connection": "close",
        })  # fmt: skip
        assert large.status == 413
        for door in ("join", "heads"):
            assert urllib3.request("POST", f"{site.url}/federation/v1/{door}", body=b"\xff{", retries=False).status in {
                401,
                404,
                422,
            }

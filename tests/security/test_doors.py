"""What a stranger, another site or a proxy can try at the doors of both sites."""

import re
from pathlib import Path

import pytest

from tests.security.conftest import form_token, person_code

ROOT = Path(__file__).parents[2]
WRITES = {"POST", "PUT", "PATCH", "DELETE"}


def doors_that_write(app):
    """Every address of a site that takes a form, with made-up parts."""
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods & WRITES):
            yield method, re.sub(r"<(?:\w+:)?\w+>", "x1", rule.rule)


def every_address(app):
    return sorted({re.sub(r"<(?:\w+:)?\w+>", "x1", rule.rule) for rule in app.url_map.iter_rules()})


# ---- Forgery ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["node", "hub"])
def test_no_form_is_taken_without_its_token(kind, request):
    door = request.getfixturevalue(kind)
    email = "facilitator@example.org" if kind == "node" else "vera@example.org"
    guest, tried = door.guest(person_code(door, email)), 0
    for method, path in doors_that_write(door.app):
        if path.startswith(("/api/", "/federation/")):
            continue
        for token in ({}, {"csrf_token": "made-up"}):
            answer = guest.open(path, method=method, data=token)
            assert answer.status_code == 400, path
            assert "reload the page" in answer.text, path
        tried += 1
    assert tried >= 5


@pytest.mark.parametrize("kind", ["node", "hub"])
def test_where_no_token_is_asked_no_cookie_counts(kind, request):
    door = request.getfixturevalue(kind)
    guest = door.guest(person_code(door, "facilitator@example.org" if kind == "node" else "vera@example.org"))
    for method, path in doors_that_write(door.app):
        if path.startswith("/api/"):
            assert guest.open(path, method=method, json={}).status_code == 401, path


def test_a_token_of_somebody_elses_session_is_none(node, people):
    attacker, victim = node.guest(people["member"]), node.guest(people["facilitator"])
    token = form_token(attacker.get("/lessons/new"))
    victim.get("/lessons/new")
    assert victim.post("/lessons/new", data={"csrf_token": token, "title": "x"}).status_code == 400


@pytest.mark.parametrize("origin", ["cross-site", "same-site"])
def test_a_form_of_another_site_is_refused_even_with_a_token(node, people, origin):
    guest = node.guest(people["facilitator"])
    token = form_token(guest.get("/login"))
    answer = guest.post("/login/leave", data={"csrf_token": token}, headers={"Sec-Fetch-Site": origin})
    assert answer.status_code == 400
    assert "another site" in answer.text
    assert guest.post("/login/leave", data={"csrf_token": token}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 302


def test_a_refusal_is_in_the_readers_language(node):
    assert "Ga terug" in node.guest(language="nl").post("/login", data={"email": "x@example.org"}).text


def test_reading_changes_nothing(node, people):
    guest = node.guest(people["facilitator"])
    before = dump(node)
    for path in every_address(node.app):
        if not path.startswith("/shared"):
            guest.get(path)
    assert dump(node) == before


def dump(door) -> list[str]:
    raw = door.database.engine.raw_connection()
    try:
        return list(raw.driver_connection.iterdump())
    finally:
        raw.close()


# ---- Headers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["node", "hub"])
def test_every_answer_carries_the_whole_armour(kind, request):
    door = request.getfixturevalue(kind)
    guest = door.guest(person_code(door, "facilitator@example.org" if kind == "node" else "vera@example.org"))
    answers = [guest.get(path, buffered=True) for path in every_address(door.app)]
    answers += [guest.open(path, method=method) for method, path in doors_that_write(door.app)]
    answers += [
        guest.get("/nothing"),
        guest.open("/", method="PUT"),
        guest.get("/shared/style.css", buffered=True),
        guest.options("/"),
    ]
    for answer in answers:
        where = answer.request.path
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, where
        assert "unsafe" not in policy, where
        assert "frame-ancestors 'none'" in policy, where
        assert answer.headers["X-Content-Type-Options"] == "nosniff", where
        assert answer.headers["Referrer-Policy"] in {"same-origin", "no-referrer"}, where
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin", where
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin", where
        assert "camera=()" in answer.headers["Permissions-Policy"], where
        assert "Access-Control-Allow-Origin" not in answer.headers, where


def test_a_failing_page_is_armoured_too_and_tells_no_more_than_words(node, monkeypatch):
    def fail(*_more, **_values):
        raise RuntimeError("secret inside")

    monkeypatch.setattr("services.town_node.home.pages.render", fail)
    monkeypatch.setattr("shared.web.render_template", fail)
    answer = node.guest().get("/")
    assert answer.status_code == 500
    assert "Content-Security-Policy" in answer.headers
    assert "Nothing of yours is lost" in answer.text
    assert "secret inside" not in answer.text


def test_what_is_for_one_reader_is_kept_by_nobody(node, people):
    guest = node.guest(people["facilitator"])
    for path in ("/", "/circle/people", "/transfer/export/members.csv", "/tokens", "/trail", "/nothing"):
        assert guest.get(path).headers["Cache-Control"] == "no-store", path
    assert "max-age=31536000" in guest.get("/shared/style.css", buffered=True).headers["Cache-Control"]


def test_the_live_page_of_who_logged_out_is_not_shown_again(hub):
    guest = hub.guest(person_code(hub, "vera@example.org"))
    tag = guest.get("/").headers.get("ETag")
    answer = hub.guest().get("/", headers={"If-None-Match": tag or ""})
    assert answer.status_code == 200
    assert "Vera" not in answer.text


def test_https_is_remembered_and_http_is_not(build):
    assert "max-age" in build(url="https://almere.example").guest(base_url="https://almere.example").get(
        "/healthz", base_url="https://almere.example"
    ).headers.get("Strict-Transport-Security", "")
    assert "Strict-Transport-Security" not in build().guest().get("/healthz").headers


@pytest.mark.parametrize("kind", ["node", "hub"])
def test_the_mails_of_a_demo_are_shown_in_a_demo_only(build, kind):
    assert build(kind).guest().get("/dev/mail").status_code == 404
    assert build(kind).guest().get("/dev/components").status_code == 404
    assert build(kind, demo=True).guest().get("/dev/mail").status_code == 200


# ---- Nothing inline --------------------------------------------------------------------------------------------------------

TEMPLATES = sorted(path for room in ("shared", "services") for path in (ROOT / room).rglob("templates/**/*.html"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_template_holds_no_script_or_style_of_its_own_and_trusts_no_text(path):
    text = path.read_text()
    assert not re.search(r"<style\b|\sstyle\s*=|javascript:", text, re.IGNORECASE)
    assert not re.search(r"<script\b(?![^>]*\bsrc\s*=)", text, re.IGNORECASE)
    assert not re.search(r"\son[a-z]+\s*=\s*[\"']", text, re.IGNORECASE)
    assert not re.search(r"\|\s*safe\b|autoescape\s+false", text)


def test_only_clean_html_is_trusted():
    """`Markup` switches escaping off: each place that does it is known here."""
    places = {
        str(path.relative_to(ROOT))
        for room in ("shared", "services")
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"\bMarkup\(", path.read_text())
    }
    assert places == {"shared/web.py"}


# ---- Names and proxies -----------------------------------------------------------------------------------------------------

FOREIGN = ["evil.example", "evil.example:80", "almere.example.evil.example", "almere.example@evil.example", "[::2]", "[", "", "a b"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_name_that_is_not_ours_is_not_answered(build, name):
    node = build(url="https://almere.example", hosts=("node",))
    answer = node.guest().get("/", headers={"Host": name})
    assert answer.status_code == 400
    assert "evil" not in answer.text


@pytest.mark.parametrize(
    "name", ["almere.example", "ALMERE.example:443", "almere.example.", "node:8001", "localhost", "127.0.0.1:8001", "[::1]:80"]
)
def test_our_own_names_are(build, name):
    node = build(url="https://almere.example", hosts=("node",))
    assert node.guest().get("/login", headers={"Host": name}).status_code == 200


def test_who_watches_over_us_knows_us_by_number(build):
    assert build(url="https://almere.example").guest().get("/healthz", headers={"Host": "10.0.0.7:8001"}).status_code == 200


def test_links_in_mails_never_follow_the_request(build):
    from shared.mail import mail

    hub = build("hub", url="https://koepel.example", hosts=("hub",))
    from services.hub.towns.people import AssociationMember

    with hub.database.transaction() as session:
        session.add(AssociationMember(code="a1b2c3d4", name="Vera", email="vera@example.org"))
    guest = hub.guest()
    sent = {"Host": "hub", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    token = form_token(guest.get("/login", headers=sent, base_url="https://hub"))
    guest.post("/login", data={"csrf_token": token, "email": "vera@example.org"}, headers=sent, base_url="https://hub")
    (row,) = hub.rows(mail)
    assert "https://koepel.example/login/link/" in row.text
    assert "evil" not in row.text


def test_what_a_proxy_says_is_believed_by_a_setting_only(build):
    def address_seen(door):
        with door.app.test_client() as client:
            from flask import request

            client.get("/healthz", headers={"X-Forwarded-For": "203.0.113.9, 198.51.100.7", "X-Forwarded-Proto": "https"})
            return request.remote_addr, request.is_secure

    assert address_seen(build()) == ("127.0.0.1", False)
    assert address_seen(build(proxies=1)) == ("198.51.100.7", True)
    assert address_seen(build(proxies=2))[0] == "203.0.113.9"


# ---- Ways out --------------------------------------------------------------------------------------------------------------

ELSEWHERE = [
    "//evil.example", "///evil.example", "/\\evil.example", "\\/evil.example", "/\t/evil.example", "/\n/evil.example",
    "/\r\nLocation: https://evil.example", "https://evil.example", "https:evil.example", "javascript:alert(1)", " //evil.example",
    "/\x00/evil.example", "/\u2028/evil", "evil.example", "@evil.example", "/" + "x" * 5000,
]  # fmt: skip


def test_after_logging_in_nobody_lands_elsewhere(door):
    for address in ELSEWHERE:
        answer = door.guest().get("/login/language/en", query_string={"next": address})
        assert answer.headers["Location"] == "/", address


def test_an_address_of_our_own_is_gone_back_to(door):
    for address in ["/", "/lessons?q=a%20b", "/lessons#water", "/lessons?next=//x", "/a:b@c"]:
        assert door.guest().get("/login/language/en", query_string={"next": address}).headers["Location"] == address


@pytest.mark.parametrize(
    "path", ["//evil.example", "//evil.example/circle/edit", "/%2f/evil.example", "/%5cevil.example", "/circle/"]
)
def test_an_odd_path_leads_nowhere_else(node, path):
    answer = node.guest().get(path)
    assert not re.match(r"(https?:)?//(?!localhost)", answer.headers.get("Location", ""))

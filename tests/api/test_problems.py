"""Whatever a program gets wrong, it is told what and what would be right, in one shape; and nothing it can send breaks anything."""

import pytest

GARDEN = {"name": "De Regenton", "kind": "community_garden", "phase": "idea"}


def send(node, body, content_type="application/json", path="/initiatives", method="POST", language="en", **headers):
    headers = {"Authorization": f"Bearer {node.tokens['facilitator']}", "Accept-Language": language} | headers
    return node.app.test_client().open(f"/api/v1{path}", method=method, data=body, content_type=content_type, headers=headers)


def problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    said = answer.get_json()
    assert set(said) == {"type", "title", "status", "errors"}
    assert said["status"] == status
    assert all(isinstance(words, list) and all(isinstance(word, str) for word in words) for words in said["errors"].values())
    return said


def test_every_wrong_field_is_named_with_what_would_be_right(node):
    body = b'{"kind": "castle", "phase": 3, "latitude": 5237, "visitors": "yes", "purposes": ["care", "war"], "fase": "idea"}'
    errors = problem(send(node, body), 422)["errors"]
    assert set(errors) == {"name", "kind", "phase", "latitude", "visitors", "purposes.1", "fase"}
    assert errors["name"] == ["This is missing. Expected: text of 1 to 160 characters, without control characters."]
    assert errors["kind"][0].startswith("Expected: one of community_garden, school_garden")
    assert errors["latitude"] == ["Expected: a number from -90 to 90."]
    assert errors["visitors"] == ["Expected: true or false."]
    assert errors["fase"][0].startswith("This is not known here. Known are: about_text, kind,")


def test_the_words_are_dutch_unless_another_language_is_asked_for(node):
    english = send(node, b"{}", language="en")
    dutch = send(node, b"{}", language="de")
    assert english.headers["Content-Language"] == "en"
    assert dutch.headers["Content-Language"] == "nl"
    assert english.get_json()["title"] != dutch.get_json()["title"]
    assert english.get_json()["errors"].keys() == dutch.get_json()["errors"].keys()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b'{"name": "\\ud800"}',
        b'{"name": NaN}',
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    ],
    ids=["nothing", "half", "no utf-8", "lone surrogate", "nan", "deep", "deep objects"],
)
def test_what_is_no_json_is_unreadable(node, body):
    problem(send(node, body), 400)


@pytest.mark.parametrize(
    "name",
    [
        '"a\\u0000b"',
        '"\\u2028"',
        "null",
        "1",
        "true",
        "[]",
        "{}",
        "1e999",
        "9" * 400,
        '"' + "x" * 161 + '"',
        '"   "',
        '""',
        '[["a"]]',
    ],
)
def test_what_is_no_name_is_refused(node, name):
    body = f'{{"name": {name}, "kind": "other", "phase": "idea"}}'.encode()
    answer = send(node, body)
    if answer.status_code != 400:  # a number beyond all numbers is no JSON
        assert set(problem(answer, 422)["errors"]) == {"name"}


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"7", b"null", b"true"])
def test_a_body_that_is_no_object_is_refused(node, body):
    assert problem(send(node, body), 422)["errors"] == {"body": ["Expected: a JSON object."]}


@pytest.mark.parametrize("day", ["2015-02-30", "2015-W05-1", "20150620", "0000-01-01", "99999-01-01", 0, "2015-06-20T00:00"])
def test_a_day_that_does_not_exist_is_refused(node, day):
    assert (
        "day"
        in problem(node.call("POST", "/meetings", "facilitator", title="T", kind="circle", day=day, starts="19:30"), 422)["errors"]
    )


@pytest.mark.parametrize("starts", ["25:00", "19:60", "7:30", "19:30+01", "19:30:00", 1930])
def test_a_time_that_does_not_exist_is_refused(node, starts):
    answer = node.call("POST", "/meetings", "facilitator", title="T", kind="circle", day="2015-06-20", starts=starts)
    assert set(problem(answer, 422)["errors"]) == {"starts"}


def test_another_content_type_is_refused(node):
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        problem(send(node, b"{}", content_type), 415)
    assert send(node, b'{"name":"T","kind":"other","phase":"idea"}', "application/json; charset=utf-8").status_code == 201


def test_a_body_that_is_too_large_is_refused(node):
    problem(send(node, b'{"name": "' + b"x" * 2_100_000 + b'"}'), 413)


def test_texts_that_are_too_much_for_one_message_are_refused_and_nothing_is_kept(node):
    answer = node.call("POST", "/lessons", "member", title="T", body="🌱" * 20_000, kind="do", theme="soil")
    problem(answer, 422)
    assert node.call("GET", "/lessons").get_json()["items"] == []


def test_windows_line_ends_and_blanks_around_are_taken_kindly(node):
    answer = node.call("POST", "/lessons", "member", title="  T ", body="a\r\nb\r\n", kind="do", theme="soil")
    assert (answer.get_json()["title"], answer.get_json()["body"]) == ("T", "a\nb")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("limit=" + "9" * 300, "limit"),
        ("limit=٣", "limit"),
        ("after=garbage", "after"),
        ("after=W10", "after"),
        ("after=WyIwIiwiXHUwMDAwIl0", "after"),
        ("after=%00", "after"),
        ("after=%ff", "after"),
        ("after=" + "x" * 5000, "after"),
        ("phase=castle", "phase"),
        ("kind=%00", "kind"),
        ("fase=idea", "fase"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(node, query, field):
    assert set(problem(node.call("GET", f"/initiatives?{query}"), 422)["errors"]) == {field}


@pytest.mark.parametrize("words", ["'\"*()", "AND", "%ff", "*", "a%20OR", "%F0%9F%8C%B1", "-", "NEAR(", ":", "^"])
def test_any_words_may_be_searched(node, words):
    assert node.call("GET", f"/lessons?q={words}").status_code == 200
    assert node.call("GET", f"/library?q={words}").status_code == 200


@pytest.mark.parametrize("code", ["nothing", "%00", "%ff", "..", "x" * 3000, "%F0%9F%8C%B1", "'"])
def test_what_is_not_there_is_not_found(site, code):
    for path in (f"/lessons/{code}", f"/lessons/almere/{code}", f"/nothing/{code}"):
        problem(site.call("GET", path), 404)


def test_a_method_that_is_not_there_names_those_that_are(site):
    answer = site.call("PUT", "/lessons")
    problem(answer, 405)
    assert "GET" in answer.headers["Allow"]


def test_without_a_token_or_with_a_dead_one_nothing_is_changed(node):
    for headers in ({}, {"Authorization": "Bearer tk_nobody"}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer \x80"}):
        answer = node.call("POST", "/initiatives", headers=headers, **GARDEN)
        problem(answer, 401)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert node.call("GET", "/initiatives").get_json()["items"] == []


def test_a_dead_token_is_refused_where_none_is_needed_too(site):
    problem(site.call("GET", "/lessons", headers={"Authorization": "Bearer tk_revoked"}), 401)


def test_who_may_not_is_told_before_anything_is_read(node):
    problem(node.call("PATCH", "/circle", "member", nonsense=1), 403)


def test_a_cookie_is_no_token(node):
    client = node.app.test_client()
    client.set_cookie("tuinkoepel", node.tokens["facilitator"])
    assert client.post("/api/v1/initiatives", json=GARDEN).status_code == 401

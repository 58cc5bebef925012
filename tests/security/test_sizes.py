"""What is too long, too deep or too much is refused, and breaks nothing."""

import socket
import threading

import pytest

from tests.security.conftest import form_token

DEEP = [b"[" * 2000, b'{"a":' * 700 + b"1" + b"}" * 700, b"[" * 100_000]
NOT_JSON = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"7",
    b'"x"',
    b'{"code":1}',
    b'{"code":"\\ud800","public_key":"x","proof":"y"}',
    b"NaN",
]


@pytest.mark.parametrize("body", [*DEEP, *NOT_JSON, b"x" * 5000], ids=range(len(DEEP) + len(NOT_JSON) + 1))
@pytest.mark.parametrize("path", ["join", "heads"])
def test_no_bytes_break_a_door_of_the_protocol(hub, path, body):
    answer = hub.guest().post(f"/federation/v1/{path}", data=body)
    assert answer.status_code in {400, 401, 403, 413, 422}
    assert answer.mimetype == "application/problem+json"


def test_nul_in_a_code_or_a_key_is_no_code(hub):
    for name in ("code", "public_key", "proof"):
        body = {"code": "AAAAA", "public_key": "x" * 43, "proof": "y" * 86} | {name: "\0é\u2028"}
        assert hub.guest().post("/federation/v1/join", json=body).status_code == 403


@pytest.mark.parametrize(
    "query", ["town=almere&after=" + "9" * 400, "town=%00&after=1", "town=almere&after=-5", "after=x", "", "town=%ff"]
)
def test_no_query_breaks_the_feed(hub, query):
    answer = hub.guest().get(f"/federation/v1/feed?{query}", headers={"Tuinkoepel-Signature": "A" * 86})
    assert answer.status_code == 401


@pytest.mark.parametrize("signature", ["", "x", "A" * 86, "é", "A" * 5000, "=", "\\x00"])
def test_no_signature_breaks_a_call(hub, signature):
    sent = {"Tuinkoepel-Signature": signature.encode().decode("latin-1")}
    assert hub.guest().get("/federation/v1/feed?town=almere", headers=sent).status_code == 401
    assert hub.guest().post("/federation/v1/heads", data=b"{}", headers=sent).status_code == 401


def test_a_body_beyond_two_megabytes_is_refused_unread(door):
    for path in ("/login", "/federation/v1/join", "/federation/v1/heads", "/api/v1/towns", "/api/v1/lessons"):
        answer = door.guest().post(path, data=b"x" * 2_200_000, content_type="application/x-www-form-urlencoded")
        assert answer.status_code in {400, 401, 404, 405, 413, 422}, path
    answer = door.guest().post("/login", data={"csrf_token": "x", "email": "a" * 2_200_000})
    assert answer.status_code == 413
    assert "2 MB" in answer.text


def test_a_form_of_too_many_parts_is_refused(node, people):
    guest = node.guest(people["facilitator"])
    token = form_token(guest.get("/transfer"))
    line = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    begin = b'--x\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n' + token.encode() + b"\r\n"
    answer = guest.post("/transfer", data=begin + line * 1100 + b"--x--\r\n", content_type="multipart/form-data; boundary=x")
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "body",
    [b"", b"--x", b"--x\r\n\r\n", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n', b"\r\n" * 50_000, b"--x--" * 9999],
    ids=range(6),
)  # fmt: skip
def test_a_broken_multipart_body_breaks_nothing(node, people, body):
    guest = node.guest(people["facilitator"])
    for boundary in ("x", "", "x" * 1000):
        kind = f"multipart/form-data; boundary={boundary}"
        assert guest.post("/transfer", data=body, content_type=kind).status_code in {400, 413}


def test_every_field_of_a_form_has_an_end(node, people):
    guest = node.guest(people["facilitator"])
    for path in ("/circle/people/new", "/lessons/new", "/meetings/new", "/initiatives/new", "/tokens", "/login"):
        page = guest.get(path)
        names = [field for field in form_fields(page.text) if field != "csrf_token"]
        sent = dict.fromkeys(names, "x" * 50_000) | {"csrf_token": form_token(page)}
        assert guest.post(path, data=sent).status_code == 422, path


def form_fields(page: str) -> list[str]:
    from tests.security.test_words import HTMLParser

    class Fields(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []
            self.feed(page)

        def handle_starttag(self, tag, attrs):
            if tag in {"input", "textarea", "select"} and dict(attrs).get("name"):
                self.names.append(dict(attrs)["name"])

    return list(dict.fromkeys(Fields().names))


@pytest.mark.parametrize("text", ["\0", "\ud800", "\u202e", "\x1b[2J", "\x7f" * 9, "a" * 300])
def test_odd_letters_in_a_form_are_taken_or_refused_but_break_nothing(node, people, text):
    guest = node.guest(people["facilitator"])
    page = guest.get("/circle/people/new")
    sent = {name: text.encode(errors="surrogatepass") for name in form_fields(page.text)} | {"csrf_token": form_token(page)}
    assert guest.post("/circle/people/new", data=sent).status_code in {302, 422}
    for email in (text, f"a{text}@example.org"):
        token = form_token(guest.get("/login"))
        answer = guest.post("/login", data={"csrf_token": token, "email": email.encode(errors="surrogatepass")})
        assert answer.status_code in {200, 422}


def test_no_cookie_breaks_a_page(node):
    guest = node.guest()
    for name in ("tuinkoepel", "tuinkoepel_form", "language"):
        for value in ("", "x", "a" * 3000, "%00", '"', "é"):
            guest.environ_base["HTTP_COOKIE"] = f"{name}={value}".encode().decode("latin-1")
            assert guest.get("/").status_code == 200, (name, value)


# ---- At a real server ------------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """A hub as a process of its own."""
    from tests.processes import World

    with World(towns=("almere",)) as world:
        world.hub.start("web")
        world.hub.wait_until_ready("web")
        yield world.hub


def say(port: int, *parts: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        for part in parts:
            line.sendall(part)
        heard = b""
        while chunk := line.recv(65536):
            heard += chunk
            if b"\r\n\r\n" in heard:
                break
        return heard


def test_a_server_says_not_what_it_is_and_takes_no_endless_headers(server):
    plain = say(server.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200 OK" in plain
    assert b"gunicorn" not in plain.lower()
    assert b" 414 " in say(server.port, b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n").partition(b"\r\n")[0]
    for many in (b"A: b\r\n" * 200, b"A: " + b"b" * 9000 + b"\r\n"):
        assert b" 4" in say(server.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + many + b"\r\n").partition(b"\r\n")[0]


def test_one_request_is_never_read_as_two(server):
    """Smuggling: two lengths, or a length and chunks, are no request."""
    for lengths in (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"):
        answer = say(server.port, b"POST /login HTTP/1.1\r\nHost: localhost\r\n" + lengths + b"\r\n0\r\n\r\n")
        assert b" 400 " in answer.partition(b"\r\n")[0]


def test_guests_who_say_nothing_keep_nobody_out(server):
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
    try:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(say_patiently(server.port)))
        asking.start()
        asking.join(60)
        assert answers
        assert b"200 OK" in answers[0]
    finally:
        for line in silent:
            line.close()


def say_patiently(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=55) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return line.recv(65536)

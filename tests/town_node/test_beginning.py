"""The first run of a node: nobody gets in without the setup code, and a circle begins alone or joins at once."""

import contextlib
import itertools
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest

from services.town_node.app import create_app
from services.town_node.circle.membership import KEY, PREVIOUS_KEY, join_association, membership
from services.town_node.circle.model import Circle, Member
from services.town_node.config import Settings
from services.town_node.home.setup import BegunAlready, setup_code
from services.town_node.home.slices import SLICES
from shared.db import Base, Database
from shared.eventlog import read_head
from shared.keys import KeyPair, load_key, to_text
from shared.restore import set_back
from tests.services import free_port
from tests.town_node.conftest import NOW, Reader

FIRST = {"name": "Roos Zonnebloem", "email": "Roos@Example.org", "language": "en", "circle": "Kring Urk", "town": "Urk"}


@pytest.fixture
def blank(tmp_path):
    """A node that is new: tables, and nobody."""
    settings = Settings(state=tmp_path)
    database = Database(settings.database_url)
    Base.metadata.create_all(database.engine)
    database.close()
    app = create_app(settings)
    app.extensions["site"].clock = lambda: NOW
    yield app
    app.extensions["site"].database.close()


@pytest.fixture
def code(blank, tmp_path):
    with blank.extensions["site"].database.reading() as session:
        return setup_code(Settings(state=tmp_path), session)


def begin(reader, code, **more):
    """Fill in the first page, and press the button that it leads to."""
    link = reader.send("/membership/begin", code=code, **FIRST | more)
    return reader.send(link, page=link)


@pytest.fixture
def begun(blank, code):
    reader = Reader(blank)
    begin(reader, code)
    return reader


def test_a_new_node_leads_to_its_first_page_and_lets_nobody_in_without_the_code(blank, code, tmp_path):
    stranger = Reader(blank)
    assert stranger.client.get("/").headers["Location"] == "/membership/begin"
    for wrong in ("", "AAAAA-BBBBB-CCCCC-DDDDD", code[:-1], "²"):
        page = stranger.send("/membership/begin", 422, code=wrong, **FIRST)
        assert 'id="code-error"' in page
        assert 'value="Kring Urk"' in page, "what was typed comes back"
    with blank.extensions["site"].database.reading() as session:
        assert session.query(Member).count() == 0
    assert (tmp_path / "setup.code").stat().st_mode & 0o077 == 0


def test_the_code_works_once_and_only_while_there_is_nobody(blank, code, tmp_path):
    reader = Reader(blank)
    assert begin(reader, code.lower().replace("-", " ")).startswith("/membership/join")
    assert "Roos Zonnebloem" in reader.get("/circle/people")
    assert "Kring Urk" in reader.get("/")
    assert not (tmp_path / "setup.code").exists()
    stranger = Reader(blank)
    stranger.get("/membership/begin", 409)
    with blank.extensions["site"].database.reading() as session, pytest.raises(BegunAlready):
        setup_code(Settings(state=tmp_path), session)


def test_before_a_code_was_asked_for_none_works(blank):
    for nothing in (" ", "-", "x"):
        assert 'id="code-error"' in Reader(blank).send("/membership/begin", 422, code=nothing, **FIRST)


def test_a_circle_begins_alone_and_everything_works(begun):
    assert "not part of the association yet" in begun.get("/")
    for path in ("/sync", "/erasures", "/membership", "/membership/sheet", "/membership/leave", "/membership/join"):
        begun.get(path)
    assert begun.send(
        "/lessons/new", title="Alleen", body="Ook goed.", kind="tip", theme="water", phase="", initiative="", meeting=""
    )


def test_a_hub_that_does_not_answer_is_said_beside_its_field(begun):
    address = f"http://127.0.0.1:{free_port()}"
    page = begun.send("/membership/join", 422, hub=address, code="AAAAA-BBBBB-CCCCC-DDDDD")
    assert 'id="hub-error"' in page
    assert address in page
    page = begun.send("/membership/join", 422, hub="koepel.invalid/", code="AAAAA")
    assert "does not answer at https://koepel.invalid." in page, "as people write addresses"
    page = begun.send("/membership/join", 422, hub="not an address", code="AAAAA")
    assert "no web address" in page


WELCOME = {
    "town": "urk", "name": "Urk", "association": "Koepel", "hub_key": to_text(KeyPair.of(b"h" * 32).public), "bus": "sqlite:///x",
    "anew": False,
}  # fmt: skip


class Answering(ThreadingHTTPServer):
    """A server at a hub's place, which answers every joining call with these bytes."""

    daemon_threads = True

    def __init__(self, status, body):
        self.asked = []

        class Door(BaseHTTPRequestHandler):
            def do_POST(self):  # the library's name
                self.server.asked.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.end_headers()
                with contextlib.suppress(OSError):  # nobody has to listen to the end
                    for part in body:
                        self.wfile.write(part)

            def log_message(self, *_words):
                """Not here."""

        super().__init__(("127.0.0.1", 0), Door)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def answering():
    servers = []

    def begin_one(status, body=b""):
        said = orjson.dumps(body) if isinstance(body, dict) else body
        servers.append(Answering(status, [said] if isinstance(said, bytes) else said))
        return servers[-1]

    yield begin_one
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_code_that_the_association_refuses_is_said_beside_its_field(begun, answering):
    page = begun.send("/membership/join", 422, hub=answering(403).url, code="AAAAA")
    assert 'id="code-error"' in page
    assert "hub-error" not in page


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><title>Een tuin</title>",
        b"[]",
        b"\xff{}",
        WELCOME | {"hub_key": "not a key"},
        WELCOME | {"hub_key": to_text(b"short")},
        WELCOME | {"hub_key": None},
        WELCOME | {"town": "koepel"},
        WELCOME | {"town": "../../etc"},
        WELCOME | {"name": "x" * 161},
        WELCOME | {"association": "two\nlines"},
        WELCOME | {"bus": ["sqlite:///x"]},
        WELCOME | {"bus": "nonsense"},
        WELCOME | {"bus": "amqp://koepel.example.org:99999/"},
        WELCOME | {"bus": "amqps://koepel..example.org/"},
        WELCOME | {"town": "é" * 5},
        WELCOME | {"anew": "no"},
        {name: value for name, value in WELCOME.items() if name != "bus"},
        itertools.repeat(b"[" * 65536),
    ],
    ids=str,
)
def test_whatever_answers_a_joining_call_is_said_beside_the_address_and_joins_nobody(blank, begun, answering, body):
    page = begun.send("/membership/join", 422, hub=answering(200, body).url, code="AAAAA")
    assert "is not the page of an association" in page
    with blank.extensions["site"].database.reading() as session:
        assert membership(session) is None


def test_a_page_that_is_not_there_is_no_hub_and_a_tired_hub_is_asked_later(begun, answering):
    assert "is not the page of an association" in begun.send("/membership/join", 422, hub=answering(404).url, code="AAAAA")
    assert "does not answer" in begun.send("/membership/join", 422, hub=answering(503).url, code="AAAAA")


def test_joining_from_the_page_tells_everything_and_shows_the_key_to_compare(begun, answering):
    hub = answering(200, WELCOME)
    begun.send(
        "/lessons/new", title="Van voor het begin", body="Zo.", kind="tip", theme="water", phase="", initiative="", meeting=""
    )
    assert begun.send("/membership/join", hub=hub.url + "/", code="AAAAA") == "/membership"
    assert [path for path, _ in hub.asked] == ["/federation/v1/join"]
    page = begun.get("/membership")
    assert re.search(r"[0-9a-f]{4} [0-9a-f]{4} [0-9a-f]{4} [0-9a-f]{4}", page)
    assert "Kenniskring Urk" in page, "the site is called after its town now"
    assert begun.client.get("/membership/join").headers["Location"] == "/membership"
    assert "has not answered yet" in begun.get("/sync")
    assert "lessons (1)" in begun.get("/sync")
    assert begun.send("/lessons/new", title="Erna", body="Zo.", kind="tip", theme="water", phase="", initiative="", meeting="")
    assert "lessons (2)" in begun.get("/sync")


def test_who_is_not_let_in_with_one_code_may_come_with_another(blank, begun, answering):
    waits, lets_in = (answering(200, WELCOME | {"let_in": let_in}) for let_in in (False, True))
    begun.send("/membership/join", hub=waits.url, code="AAAAA")
    assert "Koepel has the code" in begun.get("/sync")
    assert f'value="{waits.url}"' in begun.get("/membership/join")
    begun.send("/membership/join", hub=lets_in.url, code="BBBBB")
    (first, second) = (orjson.loads(server.asked[0][1]) for server in (waits, lets_in))
    assert (first["code"], second["code"]) == ("AAAAA", "BBBBB")
    assert first["public_key"] == second["public_key"], "with the same key"
    assert "has the code" not in begun.get("/sync")


def test_a_town_that_lost_everything_lets_its_first_person_in_before_it_joins_anew(blank, begun, answering, tmp_path):
    database = blank.extensions["site"].database
    join_association(Settings(state=tmp_path), database, answering(200, WELCOME | {"anew": True}).url, "CODE", SLICES)
    with database.reading() as session:
        assert membership(session).town == "urk"
        assert session.query(Circle).count() == 1
    assert "joined anew after its data were lost" in begun.get("/sync")


@pytest.mark.parametrize("is_lost", [False, True], ids=["stolen", "lost"])
def test_a_node_that_joins_again_keeps_its_log_and_takes_another_key(blank, begun, answering, tmp_path, is_lost):
    settings, database = Settings(state=tmp_path), blank.extensions["site"].database
    begun.send("/membership/join", hub=answering(200, WELCOME).url, code="AAAAA")
    before = load_key(tmp_path / KEY)
    if is_lost:
        (tmp_path / KEY).unlink()
    hub = answering(200, WELCOME | {"anew": True})
    join_association(settings, database, hub.url, "CODE", SLICES, again=True)
    key = load_key(tmp_path / KEY)
    assert orjson.loads(hub.asked[0][1])["public_key"] == to_text(key.public) != to_text(before.public)
    assert load_key(tmp_path / PREVIOUS_KEY) == (None if is_lost else before)
    with database.reading() as session:
        assert read_head(session).key_id == key.key_id
        assert read_head(session).seq > 0
        assert set_back(session).why == "lost", "the whole public state comes next, in a new epoch"

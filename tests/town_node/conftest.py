"""A town's node with its real database and pages, joined without a hub."""

import re
from datetime import UTC, date, datetime

import pytest

from services.town_node.app import create_app
from services.town_node.circle import actions
from services.town_node.circle.membership import Membership
from services.town_node.config import Settings
from shared import login
from shared.db import Base, Database
from shared.eventlog import Author, open_epoch
from shared.keys import KeyPair, keep_key

TODAY = date(2012, 6, 20)
NOW = datetime(2012, 6, 20, 18, 0, tzinfo=UTC)


class Reader:
    """Somebody who reads the pages and fills in their forms as a browser would."""

    def __init__(self, app, code: str | None = None) -> None:
        self.client = app.test_client()
        self.client.set_cookie("language", "en")
        if code:
            database = app.extensions["site"].database
            with database.transaction() as session:
                token = login.make_link(session, code, app.extensions["site"].clock())
                cookie = login.enter(session, token, app.extensions["site"].clock())
            self.client.set_cookie("tuinkoepel", cookie)

    def get(self, path: str, expect: int = 200) -> str:
        answer = self.client.get(path)
        assert answer.status_code == expect, f"{path}: {answer.status_code}\n{answer.text}"
        return answer.text

    def send(self, path: str, expect: int = 302, page: str | None = None, **values) -> str:
        """Post a form, with the token of its page; the new address after a redirect, else the page."""
        shown = self.get(page or path)
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', shown)
        answer = self.client.post(path, data={"csrf_token": token[1] if token else "", **values})
        assert answer.status_code == expect, f"{path}: {answer.status_code}\n{answer.text}"
        return answer.headers["Location"] if expect == 302 else answer.text


@pytest.fixture
def node(tmp_path):
    settings = Settings(state=tmp_path)
    database = Database(settings.database_url)
    Base.metadata.create_all(database.engine)
    key: KeyPair = keep_key(tmp_path / "town.key", b"k" * 32)
    author = Author("almere", key, lambda: NOW, lambda length: b"r" * length)
    with database.transaction() as session:
        session.add(
            Membership(one=1, town="almere", name="Almere", association="Koepel", hub_url="http://hub", hub_key="", bus_url="")
        )
        open_epoch(session, author)
    database.close()
    app = create_app(settings)
    app.extensions["site"].clock = lambda: NOW
    yield app
    app.extensions["site"].database.close()


@pytest.fixture
def people(node):
    """Codes of a facilitator and a member, with plainly made-up names."""
    with node.extensions["site"].database.transaction() as session:
        first = actions.add_member(
            session, name="Roos Zonnebloem", email="Roos@example.org", role="facilitator", phone="036 555 01 02", today=TODAY
        )
        second = actions.add_member(session, name="Bas van der Biet", email="bas@example.org", today=TODAY)
    return {"facilitator": first.code, "member": second.code}


@pytest.fixture
def facilitator(node, people):
    return Reader(node, people["facilitator"])


@pytest.fixture
def member(node, people):
    return Reader(node, people["member"])


@pytest.fixture
def stranger(node, people):
    return Reader(node)


@pytest.fixture
def told(node):
    """The events of this node's log so far, oldest first."""
    from shared.envelope import read_event
    from shared.eventlog import read_head, read_log

    def read():
        with node.extensions["site"].database.reading() as session:
            return [read_event(entry) for entry in read_log(session, read_head(session).epoch, 0, 1000)]

    return read

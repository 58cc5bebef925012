"""A node and a hub as an attacker meets them: real databases, real pages, nobody logged in."""

import re
from datetime import timedelta

import pytest

from services.hub.app import create_app as create_hub
from services.hub.config import Settings as HubSettings
from services.town_node.app import create_app as create_node
from services.town_node.config import Settings as NodeSettings
from shared import login
from shared.db import Base, Database
from tests.api.conftest import NOW, make_hub, make_node


class Door:
    """A site and what people can do at it."""

    def __init__(self, app) -> None:
        self.app, self.site = app, app.extensions["site"]
        self.database = self.site.database
        self.now = NOW
        self.site.clock = lambda: self.now

    def guest(self, code: str = "", base_url: str = "http://localhost", language: str = "en", headers=None):
        """A browser, logged in as this person or as nobody."""
        client = self.app.test_client()
        client.environ_base["wsgi.url_scheme"] = base_url.partition(":")[0]
        client.environ_base["HTTP_ACCEPT_LANGUAGE"] = language
        if code:
            with self.database.transaction() as session:
                cookie = login.enter(session, login.make_link(session, code, self.now, timedelta(days=1)), self.now)
            client.set_cookie(self.site.cookie, cookie, domain=base_url.rpartition("/")[2].partition(":")[0])
        return client

    def wait(self, **much) -> None:
        """Time passes."""
        self.now += timedelta(**much)

    def rows(self, table) -> list:
        with self.database.reading() as session:
            return session.execute(table.select()).all()


def form_token(page) -> str:
    """The CSRF token of a page that was answered."""
    found = re.search(r'name="csrf_token"[^>]*?value="([^"]+)"', page.text) or re.search(
        r'value="([^"]+)"[^>]*?name="csrf_token"', page.text
    )
    assert found, page.text
    return found[1]


def person_code(door: Door, email: str) -> str:
    with door.database.reading() as session:
        return door.site.find_by_email(session, email).code


@pytest.fixture
def node(tmp_path):
    (tmp_path / "node").mkdir()
    made = make_node(tmp_path / "node")
    yield Door(made.app)
    made.database.close()


@pytest.fixture
def hub(tmp_path):
    (tmp_path / "hub").mkdir()
    made = make_hub(tmp_path / "hub")
    yield Door(made.app)
    made.database.close()


@pytest.fixture(params=["node", "hub"])
def door(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def people(node):
    """Codes of the node's facilitator and member."""
    return {role: person_code(node, f"{role}@example.org") for role in ("facilitator", "member")}


@pytest.fixture
def build(tmp_path):
    """Opens a node or a hub with these settings, on empty tables, with one person."""
    opened = []

    def make(kind: str = "node", **settings) -> Door:
        folder = tmp_path / f"{kind}-{len(opened)}"
        folder.mkdir()
        chosen = (NodeSettings if kind == "node" else HubSettings)(state=folder, **settings)
        blank = Database(chosen.database_url)
        Base.metadata.create_all(blank.engine)
        blank.close()
        made = Door((create_node if kind == "node" else create_hub)(chosen))
        opened.append(made)
        return made

    yield make
    for made in opened:
        made.database.close()

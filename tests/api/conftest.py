"""A node and a hub with something in them, and tokens of their people."""

from datetime import UTC, date, datetime, time

import pytest

from services.hub import worker
from services.hub.app import create_app as create_hub
from services.hub.config import Settings as HubSettings
from services.hub.towns.joining import PROOF, add_town, found_association, join_town
from services.hub.towns.people import AssociationMember
from services.town_node.app import create_app as create_node
from services.town_node.circle.actions import add_member
from services.town_node.circle.membership import Membership
from services.town_node.config import Settings as NodeSettings
from services.town_node.lessons.library import LibraryLesson
from shared import events, login
from shared.db import Base, Database
from shared.envelope import NO_HASH, pack, seal
from shared.eventlog import Author, open_epoch
from shared.keys import KeyPair, keep_key, to_text

NOW = datetime(2015, 6, 20, 18, 0, tzinfo=UTC)


class Site:
    """One application, its database and its people's tokens."""

    def __init__(self, app, tokens: dict[str, str]) -> None:
        self.app, self.tokens = app, tokens
        self.database = app.extensions["site"].database

    def call(self, method: str, path: str, role: str | None = None, headers: dict[str, str] | None = None, **body):
        """A program's call; the answer."""
        sent = {"Accept-Language": "en"} | (headers or {})
        if role:
            sent["Authorization"] = f"Bearer {self.tokens[role]}"
        return self.app.test_client().open(f"/api/v1{path}", method=method, headers=sent, json=body or None)

    def document(self) -> dict:
        return self.app.test_client().get("/api/v1/openapi.json").get_json()


def make_node(folder, database_url: str = "") -> Site:
    settings = NodeSettings(state=folder, database=database_url)
    database = Database(settings.database_url)
    Base.metadata.create_all(database.engine)
    author = Author("almere", keep_key(folder / "town.key", b"k" * 32), lambda: NOW, lambda length: b"r" * length)
    with database.transaction() as session:
        session.add(
            Membership(one=1, town="almere", name="Almere", association="Koepel", hub_url="http://hub", hub_key="", bus_url="")
        )
        open_epoch(session, author)
    database.close()
    app = create_node(settings)
    app.extensions["site"].clock = lambda: NOW
    tokens = {}
    with app.extensions["site"].database.transaction() as session:
        for role, name in (("facilitator", "Roos Zonnebloem"), ("member", "Bas van der Biet")):
            person = add_member(session, name=name, email=f"{role}@example.org", role=role, today=NOW.date())
            tokens[role] = login.make_api_token(session, person.code, "test", NOW)
        session.add(
            LibraryLesson(
                town="dronten", lesson="les-0001", title="Vraag water vroeg aan", body="Een half jaar.", kind="do", theme="water",
                shared_on=date(2015, 1, 1), stems="",
            )
        )  # fmt: skip
    return Site(app, tokens)


def make_hub(folder) -> Site:
    settings = HubSettings(state=folder)
    blank = Database(settings.database_url)
    Base.metadata.create_all(blank.engine)
    blank.close()
    app = create_hub(settings)
    app.extensions["site"].clock = lambda: NOW
    database = app.extensions["site"].database
    key = KeyPair.of(b"k" * 32)
    with database.transaction() as session:
        found_association(session)
        code = add_town(session, "almere", "Almere", NOW)
        plain = "".join(letter for letter in code if letter.isalnum())
        join_town(session, code, to_text(key.public), to_text(key.sign(PROOF, plain.encode() + key.public)), NOW)
        add_town(session, "zwolle", "Zwolle", NOW)
        session.add(AssociationMember(code="a1b2c3d4", name="Vera Voorbeeld", email="vera@example.org"))
        token = login.make_api_token(session, "a1b2c3d4", "test", NOW)
    told, hashed = [], NO_HASH
    for seq, happened in enumerate(TOLD, 1):
        sealed = seal(happened, town="almere", epoch="e1", seq=seq, prevhash=hashed, key=key, now=NOW, salt=bytes(32))
        told.append(sealed)
        hashed = sealed.hash
    worker.ingest(database, [pack(told)[0]])
    worker.speak_for_association(database)
    while worker.digest(database):
        pass
    return Site(app, {"association": token})


TOLD = (
    events.CircleDescribed(circle="circle", name="Kenniskring Almere", place_name="Almere", themes=("water",)),
    events.CircleCounted(circle="circle", day=date(2015, 1, 1), members=20),
    events.InitiativeRegistered(
        initiative="tuin-0001", name="De Regenton", kind="community_garden",
        history=(events.PhaseStep(phase="idea", since=date(2014, 4, 1)), events.PhaseStep(phase="plan", since=date(2015, 4, 1))),
        place=events.Place(latitude=52_371_000, longitude=5_215_000), visitors=True,
    ),
    events.InitiativeRegistered(
        initiative="tuin-0002", name="Het Zaadje", kind="school_garden",
        history=(events.PhaseStep(phase="operational", since=date(2012, 4, 1)),),
    ),
    events.MeetingHeld(
        meeting="avond-01", kind="circle", title="Vrijwilligers", day=date(2015, 2, 1), starts=time(19, 30), status="held",
        attended=15, theme="volunteers", agenda=(events.AgendaItem(title="Bijpraatronde", minutes=45),), report="Gezellig.",
    ),
    events.LessonShared(
        lesson="les-0001", title="Vraag water vroeg aan", body="Een **half** jaar.", kind="do", theme="water",
        shared_on=date(2015, 3, 1), phase="plan",
    ),
    events.LessonShared(
        lesson="les-0002", title="Bedank wie komt helpen", body="Koffie.", kind="tip", theme="volunteers",
        shared_on=date(2015, 4, 1),
    ),
)  # fmt: skip


@pytest.fixture
def node(tmp_path):
    (tmp_path / "node").mkdir()
    site = make_node(tmp_path / "node")
    yield site
    site.database.close()


@pytest.fixture
def hub(tmp_path):
    (tmp_path / "hub").mkdir()
    site = make_hub(tmp_path / "hub")
    yield site
    site.database.close()


@pytest.fixture(params=["node", "hub"])
def site(request):
    return request.getfixturevalue(request.param)

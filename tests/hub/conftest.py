"""A hub on real SQLite with made-up Dutch rows; and one with its real doors, real logs behind them, and Vera who looks after it."""

import html
import random
import re
from datetime import date, time

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

import services.hub.app  # noqa: F401  # every mapped class of the hub
from services.hub.initiatives.projection import initiatives
from services.hub.lessons.projection import NationalLesson, lessons
from services.hub.meetings.projection import meetings
from services.hub.towns.people import AssociationMember
from services.hub.towns.projection import towns
from shared import events, heads, login
from shared.db import Base, Database
from shared.envelope import seal
from shared.eventlog import Author, append, open_epoch, read_head
from shared.events import EpochOpened, EpochSettled
from shared.inbox import KOEPEL, inbox_cursor
from shared.keys import KeyPair
from shared.projections import Rows, apply
from shared.quarantine import quarantine_count
from tests.federation.conftest import Bus, Clock, Hub, Town
from tests.shared import worlds

PROJECTIONS = (towns, initiatives, meetings, lessons)


@pytest.fixture
def database(tmp_path):
    opened = Database(f"sqlite:///{tmp_path / 'hub.db'}")
    Base.metadata.create_all(opened.engine)
    yield opened
    opened.close()


@pytest.fixture
def session(database):
    with database.transaction() as open_session:
        yield open_session


@pytest.fixture
def tell():
    """Fold events of a town's log, as `inbox.apply` does for a batch."""

    def fold(session: Session, town: str, *happened: events.Event) -> None:
        for projection in PROJECTIONS:
            rows = Rows()
            for one in happened:
                if type(one) in projection.handlers:
                    projection.handlers[type(one)](rows, town, one)
            rows.save(session)

    return fold


@pytest.fixture
def share():
    """Makes a lesson."""
    return lesson


@pytest.fixture
def almere(session, tell):
    """One town with a garden, a meeting and three lessons."""
    admitted = events.TownAdmitted(town="almere", name="Almere", key_id="k" * 12, public_key="p" * 44)
    tell(session, KOEPEL, admitted)
    tell(
        session,
        "almere",
        events.CircleDescribed(
            circle="circle", name="Kenniskring Buurtmoestuinen Almere", place_name="Almere",
            place=events.Place(latitude=52_370_000, longitude=5_215_000), about_text="Wij **helpen** elkaar.",
            founded=date(2012, 6, 20), themes=("volunteers", "soil"),
        ),
        events.CircleCounted(circle="circle", day=date(2015, 1, 1), members=20),
        garden(),
        events.MeetingHeld(
            meeting="bijeen01", kind="circle", title="Hoe houd je vrijwilligers?", day=date(2014, 3, 12), starts=time(19, 30),
            status="held", attended=17, agenda=(events.AgendaItem(title="Bijpraatronde", minutes=45),), report="Er kwamen er veel.",
        ),
        lesson("les-0001", "Vrijwilligers vinden", "Vraag het aan de buurvrouw, en bedank haar met een kop koffie."),
        lesson("les-0002", "Compost maken", "Leg een **composthoop** aan naast de regenton.", theme="soil", phase="plan"),
        lesson("les-0003", "Praten met de gemeente", "Eén vaste contactpersoon scheelt veel geloop.", theme="municipality"),
    )  # fmt: skip
    return session


def garden(**other):
    steps = (events.PhaseStep(phase="idea", since=date(2012, 9, 1)), events.PhaseStep(phase="operational", since=date(2014, 4, 1)))
    said = {
        "initiative": "zenit-01", "name": "Stadslandbouw Zenit", "kind": "community_garden", "history": steps,
        "place": events.Place(latitude=52_365_000, longitude=5_220_000), "visitors": True,
    }  # fmt: skip
    return events.InitiativeRegistered(**(said | other))


def lesson(code, title, body, **other):
    said = {"kind": "tip", "theme": "volunteers", "shared_on": date(2014, 5, 1)} | other
    return events.LessonShared(lesson=code, title=title, body=body, **said)


# ---- A hub with its doors, and who looks after it -------------------------------------------------------------------------------


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def hub(request, tmp_path, clock):
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres").fresh_database()
    made = Hub(tmp_path / "hub", url, clock, Bus())
    with made.database.transaction() as session:
        session.add(AssociationMember(code="vera", name="Vera Voorbeeld", email="vera@koepel.example"))
    yield made
    made.close()


@pytest.fixture
def town(hub, tmp_path, clock):
    made = []

    def make(slug):
        made.append(Town(slug, hub, tmp_path, clock))
        made[-1].call()
        return made[-1]

    yield make
    for one in made:
        one.database.close()


class Vera:
    """Somebody of the association, at their browser."""

    def __init__(self, hub, clock):
        self.hub, self.clock, self.browser = hub, clock, hub.app.test_client()
        self.browser.environ_base["HTTP_ACCEPT_LANGUAGE"] = "en"
        self.log_in()

    def log_in(self):
        """Again after a long time."""
        with self.hub.database.transaction() as session:
            cookie = login.enter(session, login.make_link(session, "vera", self.clock()), self.clock())
        self.browser.set_cookie(self.hub.app.extensions["site"].cookie, cookie)

    def sees(self, path, status=200):
        answer = self.browser.get(path)
        assert answer.status_code == status, (path, answer.status_code)
        return html.unescape(answer.text)

    def does(self, path, page="/association", status=302, **values):
        token = re.search(
            r'name="csrf_token"[^>]*value="([^"]+)"|value="([^"]+)"[^>]*name="csrf_token"', self.browser.get(page).text
        )
        self.came_to = self.browser.post(path, data={"csrf_token": token[1] or token[2], **values})
        assert self.came_to.status_code == status, (path, self.came_to.status_code, self.came_to.text)
        return html.unescape(self.came_to.text)

    def gets_code(self, path, page="/association", **values):
        """By a button or a form that makes one."""
        self.does(path, page, **values)
        page = self.sees(self.came_to.location)
        assert "http://127.0.0.1:8000" in page, "the node asks for it, beside the code"
        return code_in(page)

    def makes_town(self, slug):
        return self.gets_code("/association/towns/new", "/association/towns/new", name=slug.capitalize(), slug=slug)


def code_in(page):
    return re.search(r"<code>([A-Z0-9-]{23})</code>", page)[1]


@pytest.fixture
def vera(hub, clock):
    return Vera(hub, clock)


def shown(hub):
    with hub.database.reading() as session:
        return set(session.execute(select(NationalLesson.town, NationalLesson.title)).all())


def cursor_of(hub, slug):
    with hub.database.reading() as session:
        return session.execute(select(inbox_cursor).where(inbox_cursor.c.town == slug)).first()


def refused_for(hub, slug):
    with hub.database.reading() as session:
        return dict(
            session.execute(
                select(quarantine_count.c.verdict, quarantine_count.c.times).where(quarantine_count.c.town == slug)
            ).all()
        )


def stranger_of(town):
    """The key of another node that would like to speak for this town."""
    return KeyPair.of(random.Random(f"stranger {town.slug}").randbytes(32))


def stolen(town, title):
    """What somebody who has the town's key signs as its next event."""
    with town.database.reading() as session:
        last = read_head(session)
    place = {"epoch": last.epoch, "seq": last.seq + 1, "prevhash": last.hash}
    return seal(worlds.lesson(title, code="stolen-1"), town=town.slug, key=town.key, now=town.clock(), salt=bytes(32), **place)


def join_anew(town, code):
    """A node with an empty folder and another key: its answer, once the code was shown."""
    town.key = KeyPair.of(random.Random(f"anew {town.slug}").randbytes(32))
    return town.join(code, town.key)


def library(town):
    """What a node makes of what it pulled."""
    with town.database.transaction() as session:
        while apply(session, [lessons]):
            pass
        return set(session.execute(select(NationalLesson.town, NationalLesson.title)).all())


def speak_anew(town, after=None):
    """Let in, the node begins a new epoch after everything that the association holds, or after this place."""
    held = cursor_of(town.hub, town.slug)
    epoch, seq, hashed = after or (held.epoch, held.seq, bytes(held.hash))
    town.author = Author(town.slug, town.key, town.clock, town.random.randbytes)
    town.database.info["author"], town.instance = town.author, "b" * 16
    with town.database.transaction() as session:
        opened = {"previous": epoch, "last": seq, "last_hash": hashed.hex()}
        epoch = open_epoch(session, town.author)
        opened = EpochOpened(epoch=epoch, **opened)
        append(session, opened)
        append(session, EpochSettled(epoch=epoch))
    return epoch


def heads_status(hub, key, call):
    body = heads.orjson.dumps(heads.asdict(call))
    signed = heads.to_text(key.sign(heads.ASKS, body))
    return hub.app.test_client().post("/federation/v1/heads", data=body, headers={"Tuinkoepel-Signature": signed}).status_code


def stolen_with(town, key, title):
    here, town.key = town.key, key
    made = stolen(town, title)
    town.key = here
    return made

"""A hub on real SQLite, with made-up Dutch rows."""

from datetime import date, time

import pytest
from sqlalchemy.orm import Session

import services.hub.app  # noqa: F401  # every mapped class of the hub
from services.hub.initiatives.projection import initiatives
from services.hub.lessons.projection import lessons
from services.hub.meetings.projection import meetings
from services.hub.towns.projection import towns
from shared import events
from shared.db import Base, Database
from shared.inbox import KOEPEL
from shared.projections import Rows

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

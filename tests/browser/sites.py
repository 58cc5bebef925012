"""The sites as a browser meets them: Almere's node, a node just set up, and the hub, each served by a thread of this process.

The sample circles of the demo are loaded through the node's own actions, and an evening is under way on this day: somebody ticked
who came, a garden told in the round, an older report is published. What the hub and the library of other towns show was folded by
their own projections from the towns' logs. The clock stands still, so that a screenshot of today is the screenshot of tomorrow.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import insert, update
from sqlalchemy.orm import Session
from werkzeug.serving import make_server

from deploy import sample
from services.hub.app import create_app as create_hub
from services.hub.config import Settings as HubSettings
from services.hub.config import open_hub
from services.hub.towns.joining import Town, found_association
from services.hub.towns.people import AssociationMember
from services.hub.worker import PROJECTIONS as NATIONAL
from services.town_node.app import create_app as create_node
from services.town_node.circle.actions import add_member
from services.town_node.circle.membership import Membership, open_node
from services.town_node.config import Settings as NodeSettings
from services.town_node.home.erasures import erase
from services.town_node.initiatives.model import Initiative
from services.town_node.lessons.actions import share_lesson, withdraw_lesson
from services.town_node.lessons.library import PROJECTIONS as LIBRARY
from services.town_node.meetings.actions import hold_meeting, plan_meeting, publish_report, tell_in_round
from services.town_node.meetings.model import Meeting
from shared import login
from shared.db import Base, Database
from shared.envelope import NO_HASH, pack, read_event, seal
from shared.eventlog import Author, open_epoch, read_head, read_log
from shared.events import Event, LessonShared, TownAdmitted
from shared.heads import known_head, received_head
from shared.inbox import accept_messages, freeze, speaks_of_erased
from shared.keys import KeyPair, keep_key, to_text
from shared.pins import pin_key
from shared.projections import Rows
from shared.quarantine import quarantine_message
from shared.restore import comeback, conflict

NOW = datetime(2015, 6, 17, 16, 30, tzinfo=UTC)
"""Half past six in the evening, on the day of an excursion."""
TODAY = date(2015, 6, 17)
HUB_URL = "https://koepel.example"
TOWNS = {"almere": "Almere", "dronten": "Dronten", "lelystad": "Lelystad", "urk": "Urk"}


@dataclass
class Served:
    """A site, where it is, and who may log in."""

    app: Flask
    url: str
    people: dict[str, str] = field(default_factory=dict)
    """role → code"""
    codes: dict[str, str] = field(default_factory=dict)
    """What a test may want to open."""
    _cookies: dict[str, str] = field(default_factory=dict)

    @property
    def session_cookie(self) -> str:
        return self.app.extensions["site"].cookie

    @property
    def database(self) -> Database:
        return self.app.extensions["site"].database

    def cookie(self, role: str) -> str:
        """The session of somebody with this role."""
        if role not in self._cookies:
            with self.database.transaction() as session:
                self._cookies[role] = login.enter(session, login.make_link(session, self.people[role], NOW), NOW)
        return self._cookies[role]


@dataclass
class Sites:
    """All of them, with the same sample as the demo."""

    almere: Served
    fresh: Served
    blank: Served
    alone: Served
    troubled: Served
    hub: Served

    def named(self, name: str) -> Served:
        return getattr(self, name)


def _database(settings: Any) -> Database:
    settings.state.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database_url)
    Base.metadata.create_all(database.engine)
    return database


def _found_town(folder: Path, slug: str) -> tuple[NodeSettings, Database]:
    """A node that has joined, without a hub to join."""
    settings = NodeSettings(state=folder / slug, demo=True)
    blank = _database(settings)
    key: KeyPair = keep_key(settings.state / "town.key", slug.encode().ljust(32, b"-"))
    author = Author(slug, key, lambda: NOW, lambda length: b"r" * length)
    with blank.transaction() as session:
        association = "Algemene Vereniging voor Buurtmoestuinen"
        session.add(
            Membership(one=1, town=slug, name=TOWNS[slug], association=association, hub_url=HUB_URL, hub_key="", bus_url="")
        )
        open_epoch(session, author)
    blank.close()
    return settings, open_node(settings)


def _events(database: Database) -> list[Event]:
    with database.reading() as session:
        head = read_head(session)
        return [told for entry in read_log(session, head.epoch, 0, 1000) if (told := read_event(entry)) is not None]


def _fold(database: Database, projections: Any, told: dict[str, list[Event]]) -> None:
    with database.transaction() as session:
        for projection in projections:
            for town, events in told.items():
                rows = Rows()
                for event in events:
                    if type(event) in projection.handlers:
                        projection.handlers[type(event)](rows, town, event)
                rows.save(session)


def _live_in_almere(database: Database) -> tuple[dict[str, str], dict[str, str]]:
    """The evening, and people to log in as."""
    with database.transaction() as session:
        sample.almere(session, TODAY)
        people = {
            "facilitator": add_member(
                session,
                name="Fenna Facilitator",
                email="fenna@almere.example",
                role="facilitator",
                phone="036 555 01 02",
                today=TODAY,
            ).code,
            "member": add_member(session, name="Daan Deelnemer", email="daan@almere.example", today=TODAY).code,
        }
        gardens = {garden.name: garden.code for garden in session.query(Initiative)}
        meetings = {meeting.title: meeting.code for meeting in session.query(Meeting)}
        evening = meetings["Excursie langs tuinen in Almere"]
        before = meetings["De buurt erbij betrekken"]
        tell_in_round(
            session, evening, gardens["Moestuin De Regenton"],
            happened="Twaalf nieuwe bakken, en de buren kwamen helpen.",
            learned="Vraag de buren met een briefje. **Bellen** werkt nog beter.",
            next_step="Een oogstfeest in september.", circle_could="", tips="Begin klein, en begin met koffie.",
        )  # fmt: skip
        forgotten = plan_meeting(
            session, kind="circle", title="Avond over zaden ruilen", theme=None, day=TODAY - timedelta(days=6), starts=time(19, 30),
            ends=time(22), place_name="Stadsboerderij", agenda=[],
        )  # fmt: skip
        notes = "We begonnen buiten. Iedereen kon zijn verhaal kwijt."
        hold_meeting(session, before, attended=15, members=sorted(people.values()), notes=notes, today=TODAY)
        publish_report(
            session, before, "Vijftien mensen kwamen.\n\n## Wat we leerden\n\n- Vraag het persoonlijk.\n- Vier de oogst."
        )
        with_all = share_lesson(
            session, people["member"], today=TODAY, title="Vier de oogst met de hele straat", kind="success_factor",
            theme="neighbourhood", phase="operational", initiative=gardens["Moestuin De Regenton"], meeting=before,
            body="Soep van eigen groente, op een **lange tafel** voor het hek.\n\n1. Kies een dag.\n2. Nodig uit met een briefje.",
        )  # fmt: skip
        last = read_head(session)
        session.execute(
            insert(received_head).values(
                id=1,
                epoch=last.epoch,
                cursor=last.seq,
                everywhere=last.seq,
                trouble="",
                complaints=[],
                answered_at=NOW,
                challenge="c",
            )
        )
    codes = {
        "evening": evening,
        "before": before,
        "garden": gardens["Moestuin De Regenton"],
        "lesson": with_all.code,
        "passed": forgotten.code,
    }
    return people, codes | {"silent": gardens["Pluktuin Buiten"], "coming": meetings["Excursie naar Rotterdam"]}


def _work_alone(folder: Path) -> tuple[NodeSettings, str]:
    """A node that has not joined, and its facilitator."""
    settings = NodeSettings(state=folder / "alone", demo=True)
    database = _database(settings)
    with database.transaction() as session:
        loner = add_member(session, name="Lies Los", email="lies@urk.example", role="facilitator", today=TODAY).code
        lesson = share_lesson(
            session, loner, today=TODAY, title="Alleen gaat het ook", body="Een tijdje.", kind="tip", theme="soil", phase=None
        )
        withdraw_lesson(session, lesson.code, TODAY)
    database.close()
    return settings, loner


def _be_in_trouble(folder: Path) -> tuple[NodeSettings, str]:
    """A node with everything on its sync page that can stand there, and its facilitator."""
    settings, database = _found_town(folder, "urk")
    told = {"title": "Een lange titel over water in de zomer", "body": "Zo deden wij het.", "kind": "tip", "theme": "water"}
    with database.transaction() as session:
        worried = add_member(session, name="Wim Wacht", email="wim@urk.example", role="facilitator", today=TODAY).code
        lesson, gone = (share_lesson(session, worried, today=TODAY, phase=None, **told) for _ in range(2))
    with database.transaction() as session:
        erase(session, "lesson", gone.code, NOW)
        other = json.dumps(told | {"title": "Zoals het bij de vereniging stond", "body": "Heel anders.", "theme": "soil"})
        rows = [{"subject": lesson.code, "type": "nl.tuinkoepel.lesson.revised.v1", "other": other, "noticed_at": NOW}]
        session.execute(insert(conflict), rows)
        session.execute(insert(comeback), [{"why": "hub", "came_at": NOW, "entries": 12, "conflicts": 1, "new_epoch": "e2"}])
        session.execute(
            insert(received_head).values(
                id=1, epoch=read_head(session).epoch, cursor=2, everywhere=1, trouble="two_copies", answered_at=NOW, challenge="c",
                complaints=[{"verdict": "bad_signature", "times": 3, "last_at": int(NOW.timestamp())}],
            )
        )  # fmt: skip
        quarantine_message(session, "dronten", "unknown_key", "feed entry 1", b"bytes", NOW, speaks_of_erased)
    database.close()
    return settings, worried


def _be_guarded(session: Session) -> None:
    """The hub has everything that the association's pages about towns can show: keys, a town that stands still, one that asks to
    join, one that left, and refused messages.
    """
    for slug in ("almere", "dronten", "elburg"):
        pin_key(session, slug, KeyPair.of(slug.encode().ljust(32, b"-")).public, NOW)
    earlier = NOW - timedelta(hours=3)
    freeze(session, "dronten", "two_copies", earlier)
    call = {"town": "dronten", "instance": "a" * 16, "earlier": ["b" * 16], "epoch": "e1", "seq": 9, "sent": 9, "feed_cursor": 0}
    session.execute(insert(known_head), [call | {"challenge": "c", "called_at": earlier, "behind_at": earlier}])
    session.execute(update(Town).where(Town.slug == "urk").values(asked_at=NOW, asked_key=to_text(b"u" * 32)))
    session.add(Town(slug="elburg", name="Elburg", code_hash="e", code_until=NOW, made_at=NOW, joined_at=NOW, left_at=NOW))
    event = LessonShared(lesson="nagelaten", title="Wat Elburg leerde", body="Veel.", kind="tip", theme="soil", shared_on=TODAY)
    place = {"town": "elburg", "epoch": "e1", "seq": 1, "prevhash": NO_HASH, "key": KeyPair.of(b"elburg".ljust(32, b"-"))}
    accept_messages(session, pack([seal(event, now=NOW, salt=bytes(32), **place)])[:1], NOW)
    for verdict, raw in (("malformed", b"<b>\xff\x00 not ours"), ("bad_signature", b'{"town":"almere"}')):
        quarantine_message(
            session, "almere" if verdict == "bad_signature" else "", verdict, "seen in a test", raw, NOW, speaks_of_erased
        )


@contextlib.contextmanager
def _serve(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.log = lambda *_: None
    server.RequestHandlerClass.log_request = lambda *_: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.extensions["site"].database.close()


@contextlib.contextmanager
def serve_sites(folder: Path) -> Iterator[Sites]:
    """All sites, from empty folders."""
    with contextlib.ExitStack() as stack:
        almere_settings, almere = _found_town(folder, "almere")
        _dronten_settings, dronten = _found_town(folder, "dronten")
        people, codes = _live_in_almere(almere)
        with dronten.transaction() as session:
            sample.dronten(session, TODAY)
        told = {"almere": _events(almere), "dronten": _events(dronten)}
        admitted = [TownAdmitted(town=slug, name=TOWNS[slug], key_id="k" * 12, public_key="p" * 44) for slug in told]
        _fold(almere, LIBRARY, {"koepel": admitted, "dronten": told["dronten"]})
        for database in (almere, dronten):
            database.close()

        fresh_settings, fresh = _found_town(folder, "lelystad")
        with fresh.transaction() as session:
            first = add_member(session, name="Eva Eerste", email="eva@lelystad.example", role="facilitator", today=TODAY).code
        fresh.close()

        blank_settings = NodeSettings(state=folder / "blank", demo=True)
        _database(blank_settings).close()
        alone_settings, loner = _work_alone(folder)
        troubled_settings, worried = _be_in_trouble(folder)

        hub_settings = HubSettings(state=folder / "hub", demo=True)
        _database(hub_settings).close()
        hub, _author = open_hub(hub_settings)
        with hub.transaction() as session:
            found_association(session)
            session.add(AssociationMember(code="vera", name="Vera Voorbeeld", email="vera@koepel.example"))
            for slug, name in TOWNS.items():
                joined = NOW if slug in told else None
                session.add(Town(slug=slug, name=name, code_hash=slug, code_until=NOW, made_at=NOW, joined_at=joined))
            _be_guarded(session)
        _fold(hub, NATIONAL, {"koepel": admitted, **told})
        hub.close()

        served = {}
        for name, app in (
            ("almere", create_node(almere_settings)),
            ("fresh", create_node(fresh_settings)),
            ("blank", create_node(blank_settings)),
            ("alone", create_node(alone_settings)),
            ("troubled", create_node(troubled_settings)),
            ("hub", create_hub(hub_settings)),
        ):
            app.extensions["site"].clock = lambda: NOW
            served[name] = Served(app, stack.enter_context(_serve(app)))
        served["almere"].people, served["almere"].codes = people, codes
        served["fresh"].people = {"facilitator": first}
        served["alone"].people, served["troubled"].people = {"facilitator": loner}, {"facilitator": worried}
        served["hub"].people = {"association": "vera"}
        garden = next(event for event in told["almere"] if getattr(event, "name", "") == "Moestuin De Regenton")
        lesson = next(event for event in reversed(told["almere"]) if type(event).__name__ == "LessonShared")
        meeting = next(event for event in reversed(told["almere"]) if getattr(event, "report", ""))
        served["hub"].codes = {"garden": garden.initiative, "lesson": lesson.lesson, "meeting": meeting.meeting}
        other = next(event for event in told["dronten"] if type(event).__name__ == "LessonShared")
        with served["almere"].database.transaction() as session:
            served["almere"].codes["link"] = login.make_link(session, people["member"], NOW)
        served["almere"].codes["elsewhere"] = other.lesson
        yield Sites(**served)

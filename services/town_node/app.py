"""A node's web side: the circle's own pages and its API."""

from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from sqlalchemy import select

from services.town_node.circle.api import room as circle_room
from services.town_node.circle.membership import keep_author, membership, open_node
from services.town_node.circle.model import Circle, Member
from services.town_node.circle.naming import name_people
from services.town_node.circle.pages import pages as circle_pages
from services.town_node.config import HERE, Settings, load_settings, utc_now, web_secret
from services.town_node.home.deeds import DEEDS
from services.town_node.home.doors import pages as door_pages
from services.town_node.home.pages import erasing, sync
from services.town_node.home.pages import pages as home_pages
from services.town_node.home.sync import glance, quiet_after, state_of
from services.town_node.initiatives.api import room as initiative_room
from services.town_node.initiatives.pages import pages as initiative_pages
from services.town_node.lessons.api import library_room
from services.town_node.lessons.api import room as lesson_room
from services.town_node.lessons.pages import library_pages
from services.town_node.lessons.pages import pages as lesson_pages
from services.town_node.meetings.api import room as meeting_room
from services.town_node.meetings.pages import pages as meeting_pages
from services.town_node.transfer.pages import pages as transfer_pages
from shared.api import open_interface
from shared.db import Database
from shared.language import N_
from shared.limits import Limits
from shared.operations import worker_runs
from shared.site import open_site
from shared.web import Item, Site, now

NAVIGATION = (
    Item(N_("Today"), "home.today", "house"),
    Item(N_("Meetings"), "meetings.index", "calendar-event"),
    Item(N_("Initiatives"), "initiatives.index", "flower1"),
    Item(N_("Lessons"), "lessons.index", "lightbulb"),
    Item(N_("Association"), "library.index", "globe2"),
    Item(N_("People"), "circle.people", "people", role="member"),
    Item(N_("Our circle"), "circle.profile", "tree"),
)
ABOUT_API = (
    "One town's circle: its initiatives, meetings and lessons, and what it knows of other towns' lessons. Reading needs no token; "
    "a token may what its person may. What is changed here reaches the association and the other towns by itself."
)


def create_app(settings: Settings | None = None) -> Flask:
    """The application, for gunicorn and for tests."""
    settings = settings or load_settings()
    database = open_node(settings)
    known: dict[str, str] = {}
    app = open_site(
        Site(
            package=__package__ or "services.town_node",
            folder=HERE,
            name=lambda: name_of(database, known),
            database=database,
            secret=web_secret(settings),
            navigation=NAVIGATION,
            find_person=lambda session, code: session.scalar(select(Member).where(Member.code == code, Member.left_on.is_(None))),
            find_by_email=lambda session, email: session.scalar(
                select(Member).where(Member.email == email, Member.left_on.is_(None))
            ),
            profile="circle.edit_person",
            cookie=f"tuinkoepel_{urlsplit(settings.url).port}" if settings.demo else "tuinkoepel",
            secure_cookies=settings.url.startswith("https://"),
            mail_folder=settings.state / "mail" if settings.demo else None,
            base_url=settings.url,
            state=settings.state,
            map_background=settings.map_background,
            foot=lambda: sync_state(database, settings),
            clock=utc_now,
            hosts=settings.hosts,
            proxies=settings.proxies,
            limits=Limits(settings.limits),
            deeds=DEEDS,
            name_people=name_people,
        )
    )
    app.extensions["node"] = settings
    for pages in (sync, erasing, door_pages):
        app.register_blueprint(pages)
    for pages in (home_pages, circle_pages, initiative_pages, meeting_pages, lesson_pages, library_pages, transfer_pages):
        app.register_blueprint(pages)
    rooms = (circle_room, initiative_room, meeting_room, lesson_room, library_room)
    open_interface(app, rooms, title="Tuinkoepel: a town's node", description=ABOUT_API)

    @app.before_request
    def keep_right_key() -> None:
        keep_author(settings, database)

    return app


def name_of(database: Database, known: dict[str, str]) -> str:
    """What this site is called: after its town, once it has joined; until then as the circle calls itself."""
    if "joined" not in known:
        with database.reading() as session:
            joined = membership(session)
            if joined is None:
                return session.scalar(select(Circle.name)) or "Kenniskring"
        known["joined"] = f"Kenniskring {joined.name}"
    return known["joined"]


def sync_state(database: Database, settings: Settings) -> dict[str, Any]:
    """For the foot of every page: what the association has received, and until when (design §4)."""
    with database.reading() as session:
        seen = glance(session)
    state = state_of(seen, now(), quiet_after(settings))
    works = state not in {"at_door", "away", "set_back", "key_ended"} or worker_runs(settings.state)
    return {"state": state, "waiting": seen.waiting, "answered_at": seen.answered_at, "works": works}

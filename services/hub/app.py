"""The hub's web side: the public national view, the association's pages, the doors of the protocol, the API."""

from typing import Any
from urllib.parse import urlsplit

from flask import Flask

from services.hub.config import HERE, Settings, load_settings, utc_now, web_secret
from services.hub.federation.doors import doors
from services.hub.initiatives.api import room as initiative_room
from services.hub.initiatives.pages import pages as initiative_pages
from services.hub.lessons.api import room as lesson_room
from services.hub.lessons.pages import pages as lesson_pages
from services.hub.meetings.api import room as meeting_room
from services.hub.meetings.pages import pages as meeting_pages
from services.hub.memory import open_remembering
from services.hub.towns.api import room as town_room
from services.hub.towns.association import pages as association_pages
from services.hub.towns.deeds import DEEDS
from services.hub.towns.guarding import pages as guarding_pages
from services.hub.towns.pages import home_pages
from services.hub.towns.pages import pages as town_pages
from services.hub.towns.people import find_by_email, find_person, name_people
from shared.api import open_interface
from shared.asyncapi import describe_events
from shared.language import N_
from shared.limits import Limits
from shared.site import open_site
from shared.web import Item, Site

NAVIGATION = (
    Item(N_("National view"), "home.national", "map"),
    Item(N_("Lessons"), "lessons.index", "lightbulb"),
    Item(N_("Meetings"), "meetings.index", "calendar-event"),
    Item(N_("Initiatives"), "initiatives.index", "flower1"),
    Item(N_("Towns"), "towns.index", "building"),
    Item(N_("Sync"), "association.sync", "cloud-check", role="association"),
)
ABOUT_API = (
    "The national view: towns, initiatives, meetings and lessons of all circles. Reading needs no token. Things are changed in the "
    "towns, through the API of their nodes; here the association only makes towns."
)


def create_app(settings: Settings | None = None) -> Flask:
    """The application, for gunicorn and for tests."""
    settings = settings or load_settings()
    database, author = open_remembering(settings)
    app = open_site(
        Site(
            package=__package__ or "services.hub",
            folder=HERE,
            name=lambda: settings.name,
            database=database,
            secret=web_secret(settings),
            navigation=NAVIGATION,
            find_person=find_person,
            find_by_email=find_by_email,
            roles=("association",),
            cookie=f"tuinkoepel_{urlsplit(settings.url).port}" if settings.demo else "tuinkoepel",
            secure_cookies=settings.url.startswith("https://"),
            mail_folder=settings.state / "mail" if settings.demo else None,
            base_url=settings.url,
            state=settings.state,
            map_background=settings.map_background,
            clock=utc_now,
            hosts=settings.hosts,
            proxies=settings.proxies,
            limits=Limits(settings.limits),
            deeds=DEEDS,
            name_people=name_people,
        )
    )
    app.extensions["hub"] = settings, author
    app.extensions["csrf"].exempt(doors)
    own = doors, home_pages, town_pages, initiative_pages, meeting_pages, lesson_pages, association_pages, guarding_pages
    for pages in own:
        app.register_blueprint(pages)
    rooms = (town_room, initiative_room, meeting_room, lesson_room)
    open_interface(app, rooms, title="Tuinkoepel: the association", description=ABOUT_API)

    @app.get("/asyncapi.json")
    def asyncapi() -> Any:
        return describe_events("Tuinkoepel: what travels between the towns and the association")

    return app

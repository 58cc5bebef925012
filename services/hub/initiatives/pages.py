"""All initiatives, to choose from, and a page for each (R1, R27)."""

from datetime import date
from typing import Any

from flask import Blueprint, url_for
from sqlalchemy import select

from services.hub.initiatives.projection import NationalInitiative
from services.hub.lessons.projection import NationalLesson
from services.hub.towns.projection import town_names
from shared import atlas
from shared.events import INITIATIVE_KINDS, PHASES
from shared.finding import Tally, asked, find, paged
from shared.labels import label
from shared.language import _, day
from shared.web import reading, render

pages = Blueprint("initiatives", __name__, url_prefix="/initiatives")


@pages.get("")
def index() -> Any:
    columns = {"phase": NationalInitiative.phase, "kind": NationalInitiative.kind, "town": NationalInitiative.town}
    wanted = {name: column == asked(name) for name, column in columns.items() if asked(name)}
    with reading() as session:
        names = town_names(session)
        tally = Tally(session, columns, wanted)
        facets = [
            tally.facet(_("Phase"), "phase", lambda code: label(code, "phase"), PHASES),
            tally.facet(_("Kind"), "kind", lambda code: label(code, "initiative_kind"), INITIATIVE_KINDS),
            tally.facet(_("Town"), "town", lambda town: names.get(town, town)),
        ]
        query = select(NationalInitiative).where(*wanted.values()).order_by(NationalInitiative.name, NationalInitiative.town)
        page = paged(session, query, tally.total)
    return render("initiatives/index.html", page=page, facets=facets, names=names, clear_url=url_for(".index") if wanted else None)


@pages.get("/<town>/<code>")
def show(town: str, code: str) -> Any:
    with reading() as session:
        initiative = find(session, NationalInitiative, town, code)
        names = town_names(session)
        query = select(NationalLesson).where(NationalLesson.town == town, NationalLesson.initiative == code)
        lessons = session.scalars(query.order_by(NationalLesson.shared_on.desc()).limit(20)).all()
    steps = [
        {"when": day(date.fromisoformat(step["since"])), "title": label(step["phase"], "phase"), "state": "done"}
        for step in initiative.history
    ]
    if steps:
        steps[-1]["state"] = "current"
    chart = atlas.told(url_for("home.places", town=town), url_for(".index") + "/{town}/{code}", choose=f"{town}/{code}")
    return render("initiatives/show.html", initiative=initiative, names=names, lessons=lessons, steps=steps, chart=chart)

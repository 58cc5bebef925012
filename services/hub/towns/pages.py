"""The national view (R27), and a page for every town."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Blueprint, jsonify, request, url_for
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.hub.initiatives import drawing
from services.hub.initiatives.projection import NationalInitiative
from services.hub.lessons.projection import NationalLesson
from services.hub.meetings.projection import NationalMeeting
from services.hub.towns.projection import NationalCircle, NationalCount, NationalTown, town_names, version
from services.hub.towns.sync import left_towns
from shared import atlas
from shared.events import INITIATIVE_KINDS, PHASES, Place
from shared.finding import Tally, asked, count, find, here, paged
from shared.labels import label
from shared.language import _
from shared.web import reading, render, today

pages = Blueprint("towns", __name__, url_prefix="/towns")
home_pages = Blueprint("home", __name__)

ON_THE_MAP, IN_THE_LIST, DRAWN_EACH = 5000, 40, 150
_STATIC = Path(__file__).parent.parent / "static"


@lru_cache(maxsize=8)
def _fingerprint(name: str) -> str:
    return hashlib.sha256((_STATIC / name).read_bytes()).hexdigest()[:12]


def _file(name: str) -> str:
    """The address of a file of the hub's own; it changes with the file, because browsers keep it for a year."""
    return url_for("static", filename=name, v=_fingerprint(name))


def _numbers(session: Session) -> dict[str, int]:
    """What the national view counts, by the names that `live.js` knows."""
    phases = select(NationalInitiative.phase, func.count()).group_by(NationalInitiative.phase)
    by_phase = dict(session.execute(phases).all())
    return {
        "towns": count(session, NationalTown),
        "initiatives": sum(by_phase.values()),
        "meetings": count(session, NationalMeeting, NationalMeeting.status == "held"),
        "lessons": count(session, NationalLesson),
        **{f"phase-{phase}": by_phase.get(phase, 0) for phase in PHASES},
    }


def _wanted() -> dict[str, Any]:
    """What the address asks for; the map and the list show the same."""
    wanted = {}
    if asked("phase") in PHASES:
        wanted["phase"] = NationalInitiative.phase == asked("phase")
    if asked("kind") in INITIATIVE_KINDS:
        wanted["kind"] = NationalInitiative.kind == asked("kind")
    return wanted


@home_pages.get("/")
def national() -> Any:
    wanted = _wanted()
    with reading() as session:
        tally = Tally(session, {"phase": NationalInitiative.phase, "kind": NationalInitiative.kind}, wanted)
        facets = [
            tally.facet(_("Phase"), "phase", lambda code: label(code, "phase"), PHASES),
            tally.facet(_("Kind"), "kind", lambda code: label(code, "initiative_kind"), INITIATIVE_KINDS),
        ]
        query = (
            select(NationalInitiative)
            .outerjoin(NationalTown, NationalTown.town == NationalInitiative.town)
            .where(*wanted.values())
            .order_by(NationalTown.name, NationalInitiative.town, NationalInitiative.name)
        )
        page = paged(session, query, tally.total, IN_THE_LIST)
        marks, homes, names = _marks(session, wanted), _homes(session), town_names(session)
        values = {"numbers": _numbers(session), "version": version(session)}
    by_town: dict[str, list[NationalInitiative]] = {}
    for initiative in page.rows:
        by_town.setdefault(initiative.town, []).append(initiative)
    chosen = {name: asked(name) for name in wanted}
    return render(
        "towns/national.html",
        facets=facets,
        phases=PHASES,
        phase_urls={code: here(phase="" if asked("phase") == code else code) for code in PHASES},
        chosen=asked("phase"),
        clear_url=url_for("home.national") if wanted else None,
        page=page,
        by_town=by_town,
        names=names,
        drawing=_drawing(marks, homes, names),
        chart=atlas.told(url_for("home.places", **chosen), url_for("initiatives.index") + "/{town}/{code}"),
        homes=homes,
        missing=sum(mark.place is None and mark.town not in homes for mark in marks),
        script=_file("live.js"),
        **values,
    )


def _marks(session: Session, wanted: dict[str, Any]) -> list[atlas.Mark]:
    of = NationalInitiative
    columns = of.town, of.initiative, of.name, of.phase, of.kind, of.latitude, of.longitude, of.place_exact
    rows = session.execute(select(*columns).where(*wanted.values()).order_by(of.town, of.name).limit(ON_THE_MAP))
    return [
        atlas.Mark(town, code, name, phase, kind, None if north is None else Place(north, east, exact))
        for town, code, name, phase, kind, north, east, exact in rows
    ]


def _homes(session: Session) -> dict[str, Place]:
    """Where the circles are at home: an initiative that keeps its place to itself stands there."""
    of = NationalCircle
    rows = session.execute(select(of.town, of.latitude, of.longitude).where(of.latitude.is_not(None)).order_by(of.town))
    return {town: Place(north, east) for town, north, east in rows}


def _drawing(marks: list[atlas.Mark], homes: dict[str, Place], names: dict[str, str]) -> dict[str, Any]:
    """The map as the server draws it: a mark for each initiative, or one for each town when they would be too many to see."""
    at_home = {town: at for town, home in homes.items() if (at := drawing.point(home.latitude, home.longitude))}
    marked = []
    for mark in marks:
        at = drawing.point(mark.place.latitude, mark.place.longitude) if mark.place else at_home.get(mark.town)
        if at:
            marked.append((mark, at))
    together: list[dict[str, Any]] = []
    if len(marked) > DRAWN_EACH:
        by_town: dict[str, list[drawing.Point]] = {}
        for mark, at in marked:
            by_town.setdefault(mark.town, []).append(at_home.get(mark.town, at))
        marked = []
        together = [
            {"town": town, "name": names.get(town, town), "n": len(points), "x": points[0][0], "y": points[0][1]}
            for town, points in by_town.items()
        ]
    spots = drawing.spread([at for _mark, at in marked])
    taken = spots or [(one["x"], one["y"]) for one in together]
    labels = drawing.label_spots([(at, names.get(town, town)) for town, at in at_home.items()], taken)
    return {
        "width": drawing.WIDTH,
        "height": drawing.HEIGHT,
        "outline": drawing.outline(),
        "marks": [{"of": mark, "x": spot[0], "y": spot[1]} for (mark, _at), spot in zip(marked, spots, strict=True)],
        "together": together,
        "towns": [
            {"town": town, "name": names.get(town, town), "x": at[0], "y": at[1]} for town, at in zip(at_home, labels, strict=True)
        ],
    }


@home_pages.get("/map.json")
def places() -> Any:
    """What the map fetches, of all towns or of one; nothing is looked up while nothing changed."""
    wanted = _wanted()
    if asked("town"):
        wanted["town"] = NationalInitiative.town == asked("town")
    with reading() as session:
        return atlas.answer_places(
            lambda: atlas.places(_marks(session, wanted), town_names(session), _homes(session)), str(version(session))
        )


@home_pages.get("/numbers.json")
def numbers() -> Any:
    """What `live.js` asks every second: nothing but the version is looked up while nothing changed."""
    with reading() as session:
        tag = str(version(session))
        answer = jsonify() if tag in request.if_none_match else jsonify({"version": int(tag), "counts": _numbers(session)})
    answer.set_etag(tag)
    answer.headers["Cache-Control"] = "no-cache"
    return answer.make_conditional(request)


@pages.get("")
def index() -> Any:
    with reading() as session:
        towns = session.execute(
            select(NationalTown, NationalCircle)
            .outerjoin(NationalCircle, NationalCircle.town == NationalTown.town)
            .order_by(NationalTown.name)
        ).all()
        amounts = {
            name: dict(session.execute(select(model.town, func.count()).group_by(model.town)).all())
            for name, model in (("initiatives", NationalInitiative), ("lessons", NationalLesson))
        }
        left = left_towns(session)
    # A town that left without a trace is no longer shown; one whose lessons stay is.
    shown = [row for row in towns if row[0].town not in left or row[1] or any(of.get(row[0].town) for of in amounts.values())]
    return render("towns/index.html", towns=shown, amounts=amounts, left=left)


@pages.get("/<slug>")
def show(slug: str) -> Any:
    with reading() as session:
        town = find(session, NationalTown, slug)
        circle = session.get(NationalCircle, slug)
        meetings = select(NationalMeeting).where(NationalMeeting.town == slug)
        coming = NationalMeeting.status == "planned", NationalMeeting.day >= today()
        lessons = select(NationalLesson).where(NationalLesson.town == slug).order_by(NationalLesson.shared_on.desc())
        initiatives = select(NationalInitiative).where(NationalInitiative.town == slug).order_by(NationalInitiative.name)
        values = {
            "left": left_towns(session).get(slug),
            "initiatives": session.scalars(initiatives.limit(IN_THE_LIST)).all(),
            "coming": session.scalars(meetings.where(*coming).order_by(NationalMeeting.day).limit(3)).all(),
            "held": session.scalars(
                meetings.where(NationalMeeting.status == "held").order_by(NationalMeeting.day.desc()).limit(4)
            ).all(),
            "lessons": session.scalars(lessons.limit(6)).all(),
            "counted": session.scalar(
                select(NationalCount).where(NationalCount.town == slug).order_by(NationalCount.day.desc()).limit(1)
            ),
            "amounts": [
                {
                    "number": count(session, model, model.town == slug, *more),
                    "label": words,
                    "url": url_for(endpoint, town=slug),
                }
                for model, more, words, endpoint in (
                    (NationalInitiative, (), _("initiatives"), "initiatives.index"),
                    (NationalMeeting, (NationalMeeting.status == "held",), _("meetings"), "meetings.index"),
                    (NationalLesson, (), _("lessons"), "lessons.index"),
                )
            ],
        }
    chart = atlas.told(url_for("home.places", town=slug), url_for("initiatives.index") + "/{town}/{code}", fit=True)
    return render("towns/show.html", town=town, circle=circle, names={slug: town.name}, chart=chart, **values)

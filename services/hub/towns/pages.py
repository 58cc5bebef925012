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
from shared.events import INITIATIVE_KINDS, PHASES
from shared.finding import asked, count, facet, find, here
from shared.labels import label
from shared.language import _
from shared.web import reading, render, today

pages = Blueprint("towns", __name__, url_prefix="/towns")
home_pages = Blueprint("home", __name__)

ON_THE_MAP, IN_THE_LIST = 1500, 40
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


@home_pages.get("/")
def national() -> Any:
    wanted = {}
    if asked("phase") in PHASES:
        wanted["phase"] = NationalInitiative.phase == asked("phase")
    if asked("kind") in INITIATIVE_KINDS:
        wanted["kind"] = NationalInitiative.kind == asked("kind")
    with reading() as session:
        phase, kind = NationalInitiative.phase, NationalInitiative.kind
        facets = [
            facet(session, _("Phase"), "phase", phase, wanted, lambda code: label(code, "phase"), PHASES),
            facet(session, _("Kind"), "kind", kind, wanted, lambda code: label(code, "initiative_kind"), INITIATIVE_KINDS),
        ]
        query = select(NationalInitiative).where(*wanted.values()).order_by(NationalInitiative.town, NationalInitiative.name)
        found = session.scalars(query.limit(ON_THE_MAP)).all()
        names, circles = town_names(session), session.scalars(select(NationalCircle)).all()
        values = {
            "numbers": _numbers(session),
            "total": count(session, NationalInitiative, *wanted.values()),
            "version": version(session),
        }
    by_town: dict[str, list[NationalInitiative]] = {}
    for initiative in found[:IN_THE_LIST]:
        by_town.setdefault(initiative.town, []).append(initiative)
    return render(
        "towns/national.html",
        facets=facets,
        phases=PHASES,
        phase_urls={code: here(phase="" if asked("phase") == code else code) for code in PHASES},
        chosen=asked("phase"),
        clear_url=url_for("home.national") if wanted else None,
        by_town=sorted(by_town.items(), key=lambda pair: names.get(pair[0], pair[0]).casefold()),
        names=names,
        listed=IN_THE_LIST,
        map=_map(found, circles, names),
        script=_file("live.js"),
        style=_file("hub.css"),
        **values,
    )


def _map(found: Any, circles: Any, names: dict[str, str]) -> dict[str, Any]:
    """The marks and labels on the map. An initiative that keeps its place to itself stands with its circle."""
    homes = {
        circle.town: at
        for circle in circles
        if circle.latitude is not None and (at := drawing.point(circle.latitude, circle.longitude))
    }
    marked = []
    for initiative in found:
        own = (
            drawing.point(initiative.latitude, initiative.longitude)
            if initiative.latitude is not None
            else homes.get(initiative.town)
        )
        if own:
            marked.append((initiative, own))
    spots = drawing.spread([at for _initiative, at in marked])
    labels = drawing.label_spots([(at, names.get(town, town)) for town, at in homes.items()], spots)
    return {
        "width": drawing.WIDTH,
        "height": drawing.HEIGHT,
        "outline": drawing.outline(),
        "marks": [{"of": initiative, "x": spot[0], "y": spot[1]} for (initiative, _at), spot in zip(marked, spots, strict=True)],
        "towns": [
            {"town": town, "name": names.get(town, town), "x": at[0], "y": at[1]} for town, at in zip(homes, labels, strict=True)
        ],
        "missing": len(found) - len(marked),
    }


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
    return render("towns/index.html", towns=towns, amounts=amounts)


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
                    (NationalMeeting, (NationalMeeting.status == "held",), _("meetings held"), "meetings.index"),
                    (NationalLesson, (), _("lessons"), "lessons.index"),
                )
            ],
        }
    return render("towns/show.html", town=town, circle=circle, names={slug: town.name}, **values)

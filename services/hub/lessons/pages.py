"""The national library of lessons: searching and choosing (R18, R28)."""

from typing import Any

from flask import Blueprint, url_for
from sqlalchemy import or_, select

from services.hub.initiatives.projection import NationalInitiative
from services.hub.lessons.projection import NationalLesson
from services.hub.meetings.projection import NationalMeeting
from services.hub.towns.projection import town_names
from shared.events import LESSON_KINDS, PHASES, THEMES
from shared.finding import Tally, asked, find, paged
from shared.labels import label
from shared.language import _
from shared.search import matching, rank
from shared.web import reading, render

pages = Blueprint("lessons", __name__, url_prefix="/lessons")


@pages.get("")
def index() -> Any:
    columns = {
        "theme": NationalLesson.theme,
        "phase": NationalLesson.phase,
        "kind": NationalLesson.kind,
        "town": NationalLesson.town,
    }
    wanted = {name: column == asked(name) for name, column in columns.items() if asked(name)}
    words = asked("q")
    with reading() as session:
        if words:
            wanted["q"] = matching(session, NationalLesson, words)
        names = town_names(session)
        tally = Tally(session, columns, wanted)
        facets = [
            tally.facet(_("Theme"), "theme", lambda code: label(code, "theme"), THEMES),
            tally.facet(_("Helps in this phase"), "phase", lambda code: label(code, "phase"), PHASES),
            tally.facet(_("Kind"), "kind", lambda code: label(code, "lesson_kind"), LESSON_KINDS),
            tally.facet(_("Town"), "town", lambda town: names.get(town, town)),
        ]
        query = select(NationalLesson).where(*wanted.values())
        if words:
            query = query.order_by(rank(session, NationalLesson, words))
        query = query.order_by(NationalLesson.shared_on.desc(), NationalLesson.lesson)
        page = paged(session, query, tally.total)
    kept = {name: asked(name) for name in columns if asked(name)}
    clear_url = url_for(".index") if wanted else None
    return render("lessons/index.html", page=page, facets=facets, names=names, words=words, kept=kept, clear_url=clear_url)


@pages.get("/<town>/<code>")
def show(town: str, code: str) -> Any:
    with reading() as session:
        lesson = find(session, NationalLesson, town, code)
        names = town_names(session)
        meeting = session.get(NationalMeeting, (town, lesson.meeting)) if lesson.meeting else None
        initiative = session.get(NationalInitiative, (town, lesson.initiative)) if lesson.initiative else None
        same = select(NationalLesson).where(NationalLesson.theme == lesson.theme)
        same = same.where(or_(NationalLesson.town != town, NationalLesson.lesson != code))
        others = session.scalars(same.order_by(NationalLesson.shared_on.desc()).limit(5)).all()
    return render("lessons/show.html", lesson=lesson, names=names, meeting=meeting, initiative=initiative, others=others)

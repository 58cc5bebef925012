"""`/api/v1/lessons` of the association: the national library, for programs."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.hub.lessons.projection import NationalLesson
from shared import events
from shared.api import Room, chosen, listed, listing
from shared.finding import find
from shared.search import matching, rank
from shared.shapes import Asked, Gives, Sought, Wire

room = Room("lessons", "What the circles of all towns learned.")


class LessonOut(Gives):
    """A lesson. `town` and `code` together name it."""

    town = Wire(events.Slug)
    code = Wire(events.Code, attribute="lesson")
    title = Wire(events.Name)
    body = Wire(events.PublicText, "Markdown.")
    kind = Wire(events.LessonKind)
    theme = Wire(events.Theme)
    phase = Wire(events.Phase, "In which phase it helps; null: in every one.", allow_none=True)
    meeting = Wire(events.Code, allow_none=True)
    initiative = Wire(events.Code, allow_none=True)
    byline = Wire(events.Name, "Who wrote it, if that person agreed to be named.", allow_none=True)
    shared_on = Wire(events.Day)


class SoughtLessons(Sought):
    """Which lessons."""

    q = Asked(events.Line, "Words to find: their Dutch stems, the last one also by how it begins.")
    theme = Asked(events.Theme)
    phase = Asked(events.Phase)
    kind = Asked(events.LessonKind)
    town = Asked(events.Slug)


@room.operation("GET", "", takes=SoughtLessons(), gives=listing(LessonOut, "LessonsOut"))
def list_all(session: Session, wanted: dict[str, Any]) -> Any:
    """The lessons, the latest first; the best match first when `q` asks for words."""
    columns = {name: getattr(NationalLesson, name) for name in ("theme", "phase", "kind", "town")}
    query, words = select(NationalLesson).where(*chosen(columns, wanted)), wanted.get("q")
    if words:
        query = query.where(matching(session, NationalLesson, words))
    order = [(NationalLesson.shared_on, True), (NationalLesson.town, False), (NationalLesson.lesson, False)]
    return listed(session, query, order, wanted, rank(session, NationalLesson, words) if words else None)


@room.operation("GET", "/<town>/<code>", gives=LessonOut)
def show(session: Session, town: str, code: str) -> Any:
    """One lesson."""
    return find(session, NationalLesson, town, code)

"""`/api/v1/lessons`, and `/api/v1/library` for the lessons of other towns."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.town_node.circle.api import TellsOthers, ask_about_names
from services.town_node.initiatives.actions import find_initiative
from services.town_node.lessons import actions
from services.town_node.lessons.library import LibraryLesson
from services.town_node.lessons.model import Lesson
from services.town_node.meetings.actions import find_meeting
from shared import events
from shared.api import Room, chosen, listed, listing
from shared.finding import find
from shared.language import N_, Words
from shared.refusals import NotAllowed, NotFound, Refusal
from shared.search import matching, rank
from shared.shapes import Asked, Gives, Sought, Wire
from shared.web import may, me, person, today

room = Room("lessons", "What this circle learned.")
library_room = Room("library", "What other towns learned, as far as this node heard of it.")


class NoSuchThing(Refusal):
    """A lesson can only be learned at something that is there."""

    status, text = 422, N_("There is no such thing here.")

    def __init__(self, field: str) -> None:
        super().__init__(fields={field: Words(self.text)})


class NotYourName(Refusal):
    """Only the author can agree to be named (R34)."""

    status, text = 403, N_("Only who wrote the lesson can agree to be named.")

    def __init__(self) -> None:
        super().__init__(fields={"signed": Words(self.text)})


class LessonOut(Gives):
    """A lesson of this circle."""

    code = Wire(events.Code)
    title = Wire(events.Name)
    body = Wire(events.PublicText, "Markdown.")
    kind = Wire(events.LessonKind)
    theme = Wire(events.Theme)
    phase = Wire(events.Phase, "In which phase it helps; null: in every one.", allow_none=True)
    meeting = Wire(events.Code, "The code of the meeting it was told at.", allow_none=True)
    initiative = Wire(events.Code, "The code of the initiative it was learned at.", allow_none=True)
    byline = Wire(events.Name, "Who wrote it, if that person agreed to be named.", attribute="byline_name", allow_none=True)
    shared_on = Wire(events.Day)


class LessonIn(TellsOthers):
    """A lesson to share."""

    title = Wire(events.Name, "In one sentence.", required=True)
    body = Wire(events.PublicText, "The whole story, in Markdown.", required=True)
    kind = Wire(events.LessonKind, load_default="tip")
    theme = Wire(events.Theme, required=True)
    phase = Wire(events.Phase, "In which phase it helps; null: in every one.", load_default=None, allow_none=True)
    meeting = Wire(events.Code, "The code of a meeting of this circle.", load_default=None, allow_none=True)
    initiative = Wire(events.Code, "The code of an initiative of this circle.", load_default=None, allow_none=True)
    signed = Wire(
        events.Flag,
        "Whether it carries the name of the person of this token, who by sending true agrees that everybody sees it.",
        load_default=False,
    )


class SoughtLessons(Sought):
    """Which lessons."""

    q = Asked(events.Line, "Words to find: their Dutch stems, the last one also by how it begins.")
    theme = Asked(events.Theme)
    phase = Asked(events.Phase)
    kind = Asked(events.LessonKind)


@room.operation("GET", "", takes=SoughtLessons(), gives=listing(LessonOut, "LessonsOut"))
def list_all(session: Session, wanted: dict[str, Any]) -> Any:
    """The lessons, the latest first; the best match first when `q` asks for words."""
    return _listed(session, Lesson, Lesson.code, wanted, {}, Lesson.withdrawn_on.is_(None))


def _listed(session: Session, model: Any, code: Any, wanted: dict[str, Any], more: dict[str, Any], *conditions: Any) -> Any:
    columns = {"theme": model.theme, "phase": model.phase, "kind": model.kind} | more
    query, words = select(model).where(*conditions, *chosen(columns, wanted)), wanted.get("q")
    if words:
        query = query.where(matching(session, model, words))
    order = [(model.shared_on, True), *((column, False) for column in more.values()), (code, False)]
    return listed(session, query, order, wanted, rank(session, model, words) if words else None)


@room.operation("GET", "/<code>", gives=LessonOut)
def show(session: Session, code: str) -> Any:
    """One lesson."""
    return actions.find_lesson(session, code)


@room.operation("POST", "", takes=LessonIn(), gives=LessonOut, role="member")
def share(session: Session, told: dict[str, Any]) -> Any:
    """Share a lesson."""
    told = ask_about_names(session, told, ("title", "body"))
    _look_up(session, told)
    byline = person().name if told.pop("signed") else None  # type: ignore[union-attr]  # the operation needs a role
    return actions.share_lesson(session, me(), today=today(), byline=byline, **told)


@room.operation("PATCH", "/<code>", takes=LessonIn.change(), gives=LessonOut, role="member")
def revise(session: Session, told: dict[str, Any], code: str) -> Any:
    """Say it better. Members change their own lessons, the facilitator all."""
    told = ask_about_names(session, told, ("title", "body"))
    lesson = _mine(session, code)
    _look_up(session, told)
    byline = lesson.byline_name
    if "signed" in told:
        if lesson.author != me():
            raise NotYourName
        byline = person().name if told.pop("signed") else None  # type: ignore[union-attr]  # the operation needs a role
    if told or byline != lesson.byline_name:
        actions.revise_lesson(session, code, today=today(), byline=byline, **told)
    return lesson


@room.operation("DELETE", "/<code>", gives=None, role="member")
def withdraw(session: Session, code: str) -> None:
    """Take a lesson back, here and in the other towns."""
    _mine(session, code)
    actions.withdraw_lesson(session, code, today())


def _mine(session: Session, code: str) -> Lesson:
    lesson = actions.find_lesson(session, code)
    if not may("facilitator") and (lesson.author is None or lesson.author != me()):
        raise NotAllowed
    return lesson


def _look_up(session: Session, told: dict[str, Any]) -> None:
    for field, finds in (("initiative", find_initiative), ("meeting", find_meeting)):
        if told.get(field):
            try:
                finds(session, told[field])
            except NotFound:
                raise NoSuchThing(field) from None


class LibraryLessonOut(Gives):
    """A lesson of another town. `town` and `code` together name it."""

    town = Wire(events.Slug)
    code = Wire(events.Code, attribute="lesson")
    title = Wire(events.Name)
    body = Wire(events.PublicText, "Markdown.")
    kind = Wire(events.LessonKind)
    theme = Wire(events.Theme)
    phase = Wire(events.Phase, allow_none=True)
    meeting = Wire(events.Code, allow_none=True)
    initiative = Wire(events.Code, allow_none=True)
    byline = Wire(events.Name, allow_none=True)
    shared_on = Wire(events.Day)


class SoughtElsewhere(SoughtLessons):
    """Which lessons of other towns."""

    town = Asked(events.Slug)


@library_room.operation("GET", "", takes=SoughtElsewhere(), gives=listing(LibraryLessonOut, "LibraryOut"))
def list_library(session: Session, wanted: dict[str, Any]) -> Any:
    """The lessons of other towns, the latest first; the best match first when `q` asks for words."""
    return _listed(session, LibraryLesson, LibraryLesson.lesson, wanted, {"town": LibraryLesson.town})


@library_room.operation("GET", "/<town>/<code>", gives=LibraryLessonOut)
def show_elsewhere(session: Session, town: str, code: str) -> Any:
    """One lesson of another town."""
    return find(session, LibraryLesson, town, code)

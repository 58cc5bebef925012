"""What people do with lessons."""

from datetime import date
from typing import Any

from sqlalchemy.orm import Session

from services.town_node.circle.membership import membership
from services.town_node.circle.model import new_code
from services.town_node.lessons.model import Lesson
from shared.erasure import EVERYWHERE, erasures_of
from shared.eventlog import append
from shared.language import N_
from shared.refusals import NotFound, Refusal


class ErasedElsewhere(Refusal):
    """What was erased at the association and in the other towns stays erased, whatever is told of it."""

    text = N_("This lesson was erased at the association and in the other towns, so no change of it reaches them.")


def share_lesson(session: Session, author: str | None, *, today: date, byline: str | None = None, **told: Any) -> Lesson:
    """Write down what was learned, for everybody. `byline` is the name the author agreed to be known by."""
    lesson = Lesson(code=new_code(), author=author, **told)
    lesson.sign(byline, today)
    happened = lesson.share(today)
    session.add(lesson)
    append(session, happened)
    return lesson


def revise_lesson(session: Session, code: str, *, today: date, byline: str | None = None, **told: Any) -> Lesson:
    """Say it better. Raises `NotFound` or `ErasedElsewhere`."""
    lesson = find_lesson(session, code)
    if is_only_here(session, code):
        raise ErasedElsewhere
    lesson.sign(byline, today)
    append(session, lesson.revise(**told))
    return lesson


def withdraw_lesson(session: Session, code: str, today: date) -> None:
    """Take a lesson back, here and in the other towns. Raises `NotFound`."""
    append(session, find_lesson(session, code).withdraw(today))


def is_only_here(session: Session, code: str) -> bool:
    """Whether this circle takes part in an association that was asked to erase this lesson.

    It keeps what it had told before it left and erased everything; the association may have erased it for a circle that was gone.
    """
    joined = membership(session)
    return joined is not None and joined.left_at is None and code in erasures_of(session, [joined.town, EVERYWHERE])


def find_lesson(session: Session, code: str) -> Lesson:
    """The lesson with this code, if it was not withdrawn. Raises `NotFound`."""
    lesson = session.get(Lesson, code) if code.isprintable() else None  # PostgreSQL refuses NUL in a text
    if lesson is None or lesson.withdrawn_on is not None:
        raise NotFound
    return lesson

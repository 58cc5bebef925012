"""How the circle's lessons come back from the association, and how they are told again (`shared/restore.py`)."""

from collections.abc import Iterator
from datetime import date

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from services.town_node.lessons.model import Lesson
from shared.events import Event, LessonRevised, LessonShared, LessonState, LessonWithdrawn, Redacted
from shared.restore import Slice


def retell(session: Session, today: date) -> Iterator[Event]:
    """Every lesson as it stands."""
    for lesson in session.scalars(select(Lesson).where(Lesson.withdrawn_on.is_(None)).order_by(Lesson.code)):
        yield lesson.revise()


lessons = Slice("lessons", retell)


@lessons.put_back(LessonShared, LessonRevised)
def put_back_lesson(session: Session, happened: LessonState, today: date) -> None:
    lesson = session.get(Lesson, happened.lesson)
    if lesson is None:
        lesson = Lesson(code=happened.lesson, author=None)  # who wrote it never left the town
        session.add(lesson)
    lesson.take(happened)


@lessons.put_back(LessonWithdrawn)
def put_back_withdrawal(session: Session, happened: LessonWithdrawn, today: date) -> None:
    lesson = session.get(Lesson, happened.lesson)
    if lesson is not None and lesson.withdrawn_on is None:
        lesson.withdraw(today)


@lessons.put_back(Redacted)
def forget_lesson(session: Session, happened: Redacted, today: date) -> None:
    session.execute(delete(Lesson).where(Lesson.code == happened.redacts))

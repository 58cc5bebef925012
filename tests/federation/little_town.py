"""What a town tells in the tests of copies: lessons that have a code and a title, how others fold them, and how they come back."""

from sqlalchemy import Column, MetaData, String, Table, delete, select

from shared.db import upsert
from shared.events import LessonRevised, LessonShared, LessonWithdrawn, Redacted
from shared.projections import Projection, Rows
from shared.restore import Slice
from tests.shared.worlds import lesson

TABLES = MetaData()
own_lesson = Table("own_lesson", TABLES, Column("code", String, primary_key=True), Column("title", String))
told_lesson = Table(
    "told_lesson", TABLES, *(Column(name, String(160), primary_key=name != "title") for name in ("town", "lesson", "title"))
)


def fold_into(table: Table) -> Projection:
    made = Projection("lessons", [table])

    @made.on(LessonShared, LessonRevised)
    def keep(rows: Rows, town: str, happened: LessonShared) -> None:
        rows.put(table, town=town, lesson=happened.lesson, title=happened.title)

    @made.on(LessonWithdrawn)
    def forget(rows: Rows, town: str, happened: LessonWithdrawn) -> None:
        rows.drop(table, town=town, lesson=happened.lesson)

    return made


def retell(session, today):
    for row in session.execute(select(own_lesson).order_by(own_lesson.c.code)):
        yield lesson(row.title, code=row.code, kind=LessonRevised)


SLICE = Slice("lessons", retell)


@SLICE.put_back(LessonShared, LessonRevised)
def put_back_lesson(session, happened, today):
    upsert(session, own_lesson, [{"code": happened.lesson, "title": happened.title}])


@SLICE.put_back(LessonWithdrawn)
def put_back_withdrawal(session, happened, today):
    session.execute(delete(own_lesson).where(own_lesson.c.code == happened.lesson))


@SLICE.put_back(Redacted)
def forget_lesson(session, happened, today):
    session.execute(delete(own_lesson).where(own_lesson.c.code == happened.redacts))

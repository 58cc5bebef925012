"""The library: the lessons of all towns, as their circles tell them now, and findable."""

from datetime import date

from sqlalchemy import Date, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base
from shared.events import LessonRevised, LessonShared, LessonState, LessonWithdrawn
from shared.projections import Projection, Rows
from shared.search import searchable, stems


class NationalLesson(Base):
    """A lesson that others can use."""

    __tablename__ = "national_lesson"
    __table_args__ = (
        Index("ix_national_lesson_theme", "theme", "phase"),
        Index("ix_national_lesson_kind", "kind"),
        Index("ix_national_lesson_shared_on", "shared_on"),
    )

    town: Mapped[str] = mapped_column(String(40), primary_key=True)
    lesson: Mapped[str] = mapped_column(String(40), primary_key=True)
    title: Mapped[str] = mapped_column(String(160))
    body: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(40))
    theme: Mapped[str] = mapped_column(String(40))
    phase: Mapped[str | None] = mapped_column(String(40))
    """None: it helps in every phase."""
    shared_on: Mapped[date] = mapped_column(Date)
    meeting: Mapped[str | None] = mapped_column(String(40))
    initiative: Mapped[str | None] = mapped_column(String(40))
    byline: Mapped[str | None] = mapped_column(String(160))
    stems: Mapped[str] = mapped_column(Text)


searchable(NationalLesson.__table__)
lessons = Projection("lessons", [NationalLesson])


@lessons.on(LessonShared, LessonRevised)
def add_to_library(rows: Rows, town: str, happened: LessonState) -> None:
    rows.put(
        NationalLesson,
        town=town,
        lesson=happened.lesson,
        title=happened.title,
        body=happened.body,
        kind=happened.kind,
        theme=happened.theme,
        phase=happened.phase,
        shared_on=happened.shared_on,
        meeting=happened.meeting,
        initiative=happened.initiative,
        byline=happened.byline.name if happened.byline else None,
        # The title twice: a word in it says more than the same word further on.
        stems=stems(f"{happened.title} {happened.title} {happened.body}"),
    )


@lessons.on(LessonWithdrawn)
def take_out_of_library(rows: Rows, town: str, happened: LessonWithdrawn) -> None:
    rows.drop(NationalLesson, town=town, lesson=happened.lesson)

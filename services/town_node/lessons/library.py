"""The library: what other towns' circles learned, folded from the association's feed (R18).

Tables: `library_lesson`, `known_town`.
"""

from collections.abc import Mapping
from datetime import date

from sqlalchemy import Date, String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from shared.db import Base
from shared.events import LessonRevised, LessonShared, LessonState, LessonWithdrawn, TownAdmitted
from shared.inbox import KOEPEL
from shared.projections import Projection, Rows
from shared.search import searchable, stems


class LibraryLesson(Base):
    """A lesson of another town."""

    __tablename__ = "library_lesson"

    town: Mapped[str] = mapped_column(String(40), primary_key=True)
    lesson: Mapped[str] = mapped_column(String(40), primary_key=True)
    title: Mapped[str] = mapped_column(String(160))
    body: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(40), index=True)
    theme: Mapped[str] = mapped_column(String(40), index=True)
    phase: Mapped[str | None] = mapped_column(String(40))
    """None: it helps in every phase."""
    shared_on: Mapped[date] = mapped_column(Date, index=True)
    meeting: Mapped[str | None] = mapped_column(String(40))
    initiative: Mapped[str | None] = mapped_column(String(40))
    byline: Mapped[str | None] = mapped_column(String(160))
    stems: Mapped[str] = mapped_column(Text)


class KnownTown(Base):
    """A town of the association, as the association calls it."""

    __tablename__ = "known_town"

    slug: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(160))


searchable(LibraryLesson.__table__)
library = Projection("library", [LibraryLesson, KnownTown])
PROJECTIONS = [library]


@library.on(LessonShared, LessonRevised)
def add_to_library(rows: Rows, town: str, happened: LessonState) -> None:
    rows.put(
        LibraryLesson,
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


@library.on(LessonWithdrawn)
def take_out_of_library(rows: Rows, town: str, happened: LessonWithdrawn) -> None:
    rows.drop(LibraryLesson, town=town, lesson=happened.lesson)


@library.on(TownAdmitted)
def know_town(rows: Rows, town: str, happened: TownAdmitted) -> None:
    if town == KOEPEL:  # a town cannot name another one, whatever it writes in its own log
        rows.put(KnownTown, slug=happened.town, name=happened.name)


def town_names(session: Session) -> Mapping[str, str]:
    """Slug → name, for the towns of the association."""
    return dict(session.execute(select(KnownTown.slug, KnownTown.name)).all())

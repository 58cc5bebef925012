"""A lesson: what this circle learned, and others can use (R17)."""

from datetime import date
from typing import Any

from sqlalchemy import Date, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base
from shared.events import Byline, LessonRevised, LessonShared, LessonState, LessonWithdrawn
from shared.language import N_
from shared.refusals import Refusal
from shared.search import searchable, stems


class Withdrawn(Refusal):
    """What was taken back is not told again."""

    text = N_("This lesson was withdrawn.")


class Lesson(Base):
    """A lesson of this circle."""

    __tablename__ = "lesson"

    code: Mapped[str] = mapped_column(String(40), primary_key=True)
    title: Mapped[str] = mapped_column(String(160))
    body: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(40), index=True)
    theme: Mapped[str] = mapped_column(String(40), index=True)
    phase: Mapped[str | None] = mapped_column(String(40))
    """None: it helps in every phase."""
    meeting: Mapped[str | None] = mapped_column(String(40), index=True)
    initiative: Mapped[str | None] = mapped_column(String(40), index=True)
    author: Mapped[str | None] = mapped_column(String(40))
    """The member who wrote it; stays here."""
    byline_name: Mapped[str | None] = mapped_column(String(160))
    byline_agreed: Mapped[date | None] = mapped_column(Date)
    shared_on: Mapped[date] = mapped_column(Date)
    withdrawn_on: Mapped[date | None] = mapped_column(Date)
    stems: Mapped[str] = mapped_column(Text)

    def share(self, today: date) -> LessonShared:
        self.shared_on = today
        self._index()
        return LessonShared(**self._state())

    def revise(self, **told: Any) -> LessonRevised:
        if self.withdrawn_on is not None:
            raise Withdrawn
        for name, value in told.items():
            setattr(self, name, value)
        self._index()
        return LessonRevised(**self._state())

    def withdraw(self, today: date) -> LessonWithdrawn:
        if self.withdrawn_on is not None:
            raise Withdrawn
        self.withdrawn_on = today
        return LessonWithdrawn(lesson=self.code)

    def take(self, told: LessonState) -> None:
        """Say what was told of this lesson before; how it comes back after a backup."""
        for name in ("title", "body", "kind", "theme", "phase", "meeting", "initiative", "shared_on"):
            setattr(self, name, getattr(told, name))
        self.byline_name = told.byline.name if told.byline else None
        self.byline_agreed = told.byline.agreed if told.byline else None
        self.withdrawn_on = None
        self._index()

    def sign(self, name: str | None, today: date) -> None:
        """The author agrees, today, that the lesson carries this name; None takes the name off."""
        if name != self.byline_name:
            self.byline_name, self.byline_agreed = name, today if name else None

    def _index(self) -> None:
        # The title twice: a word in it says more than the same word further on.
        self.stems = stems(f"{self.title} {self.title} {self.body}")

    def _state(self) -> dict[str, Any]:
        signed = self.byline_name and self.byline_agreed
        return {
            "lesson": self.code,
            "title": self.title,
            "body": self.body,
            "kind": self.kind,
            "theme": self.theme,
            "shared_on": self.shared_on,
            "phase": self.phase or None,
            "meeting": self.meeting or None,
            "initiative": self.initiative or None,
            "byline": Byline(self.byline_name, self.byline_agreed) if signed else None,
        }


searchable(Lesson.__table__)

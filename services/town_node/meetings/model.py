"""An evening of the circle: planned, held, told about (R9–R14).

Who came, what was said in the round and the notes stay in this town; outside goes the plan, how many came, and the report once
the circle publishes it.
"""

from datetime import date, time, timedelta
from typing import Any

from sqlalchemy import JSON, Boolean, Date, Integer, String, Text, Time, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base
from shared.events import AgendaItem, MeetingCancelled, MeetingChanged, MeetingHeld, MeetingPlanned, MeetingState
from shared.language import N_
from shared.refusals import Refusal


class EndsBeforeStart(Refusal):
    """An evening has one direction."""

    text = N_("The meeting would end before it starts.")


class NotYet(Refusal):
    """Nobody can have come to an evening that is still to come."""

    text = N_("This meeting is still to come. Write down who came on the day itself, or later.")


class NotHeldYet(Refusal):
    """A report tells what happened."""

    text = N_("Write down first how many people came. Then the report can be published.")


class Cancelled(Refusal):
    """What does not take place cannot be changed."""

    text = N_("This meeting was cancelled.")


class HeldAlready(Refusal):
    """What took place cannot be cancelled."""

    text = N_("This meeting was held already.")


class MoreCameThanCounted(Refusal):
    """The number holds at least those whose names are ticked."""

    text = N_("More people are ticked than you counted.")


RECENT = timedelta(days=31)
"""How long an evening that is not finished asks for attention."""
ANSWERS = ("happened", "learned", "next_step", "circle_could", "tips")
"""The five questions of the round (§2.2.1)."""


class Meeting(Base):
    """One meeting of the circle."""

    __tablename__ = "meeting"

    code: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(40))
    title: Mapped[str] = mapped_column(String(160))
    theme: Mapped[str | None] = mapped_column(String(40))
    day: Mapped[date] = mapped_column(Date, index=True)
    starts: Mapped[time] = mapped_column(Time)
    """Local wall time, like `ends`."""
    ends: Mapped[time | None] = mapped_column(Time)
    place_name: Mapped[str] = mapped_column(String(160), default="")
    agenda: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """Items as {title, minutes}."""
    status: Mapped[str] = mapped_column(String(40), index=True)
    """planned, held or cancelled"""
    attended: Mapped[int | None] = mapped_column(Integer)
    notes: Mapped[str] = mapped_column(Text, default="")
    """Stays here."""
    report: Mapped[str] = mapped_column(Text, default="")
    report_published: Mapped[bool] = mapped_column(Boolean, default=False)

    @property
    def items(self) -> list[AgendaItem]:
        return [AgendaItem(item["title"], item["minutes"]) for item in self.agenda or []]

    def plan(self) -> MeetingPlanned:
        self._check_times()
        self.status = "planned"
        return MeetingPlanned(**self._state())

    def change(self, **told: Any) -> MeetingChanged:
        self._refuse_cancelled()
        for name, value in told.items():
            setattr(self, name, value)
        self._check_times()
        return MeetingChanged(**self._state())

    def hold(self, attended: int, today: date, ticked: int = 0) -> MeetingHeld:
        """So many came; said again, it corrects the number."""
        self._refuse_cancelled()
        if self.day > today:
            raise NotYet
        if attended < ticked:
            raise MoreCameThanCounted(fields={"attended": MoreCameThanCounted().words})
        self.status, self.attended = "held", attended
        return MeetingHeld(**self._state())

    def publish_report(self, report: str) -> MeetingChanged:
        self._refuse_cancelled()
        if self.status != "held":
            raise NotHeldYet
        self.report, self.report_published = report, True
        return MeetingChanged(**self._state())

    def cancel(self) -> MeetingCancelled:
        self._refuse_cancelled()
        if self.status == "held":
            raise HeldAlready
        self.status = "cancelled"
        return MeetingCancelled(meeting=self.code)

    def take(self, told: MeetingState) -> None:
        """Say what was told of this meeting before; how it comes back after a backup."""
        for name in ("kind", "title", "theme", "day", "starts", "ends", "place_name", "status", "attended", "report"):
            setattr(self, name, getattr(told, name))
        self.agenda = [{"title": item.title, "minutes": item.minutes} for item in told.agenda]
        self.report_published = bool(told.report)

    def _refuse_cancelled(self) -> None:
        if self.status == "cancelled":
            raise Cancelled

    def _check_times(self) -> None:
        if self.ends is not None and self.ends <= self.starts:
            raise EndsBeforeStart(fields={"ends": EndsBeforeStart().words})

    def _state(self) -> dict[str, Any]:
        return {
            "meeting": self.code,
            "kind": self.kind,
            "title": self.title,
            "day": self.day,
            "starts": self.starts,
            "status": self.status,
            "ends": self.ends,
            "place_name": self.place_name or "",
            "theme": self.theme or None,
            "agenda": tuple(self.items),
            "attended": self.attended,
            "report": self.report if self.report_published else "",
        }


class Attendance(Base):
    """This member was there. Stays in the town."""

    __tablename__ = "attendance"

    meeting: Mapped[str] = mapped_column(String(40), primary_key=True)
    member: Mapped[str] = mapped_column(String(40), primary_key=True)


class RoundEntry(Base):
    """What an initiative told in the round (R10). Stays in the town; a lesson is made of it by hand."""

    __tablename__ = "round_entry"
    __table_args__ = (UniqueConstraint("meeting", "initiative"),)

    code: Mapped[str] = mapped_column(String(40), primary_key=True)
    meeting: Mapped[str] = mapped_column(String(40))
    initiative: Mapped[str] = mapped_column(String(40))
    happened: Mapped[str] = mapped_column(Text, default="")
    learned: Mapped[str] = mapped_column(Text, default="")
    next_step: Mapped[str] = mapped_column(Text, default="")
    circle_could: Mapped[str] = mapped_column(Text, default="")
    tips: Mapped[str] = mapped_column(Text, default="")

    @property
    def heard(self) -> bool:
        """Whether it told something; an entry without answers says that it was not heard this evening."""
        return any(getattr(self, name) for name in ANSWERS)

"""The meetings of all circles: planned, held, and how many came."""

from datetime import date, time
from typing import Any

from sqlalchemy import JSON, Date, Index, String, Text, Time
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base
from shared.events import MeetingCancelled, MeetingChanged, MeetingHeld, MeetingPlanned, MeetingState
from shared.projections import Projection, Rows


class NationalMeeting(Base):
    """A meeting of a circle."""

    __tablename__ = "national_meeting"
    __table_args__ = (
        Index("ix_national_meeting_day", "status", "day"),
        Index("ix_national_meeting_town", "town", "day"),
    )

    town: Mapped[str] = mapped_column(String(40), primary_key=True)
    meeting: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(40))
    title: Mapped[str] = mapped_column(String(160))
    day: Mapped[date] = mapped_column(Date)
    starts: Mapped[time] = mapped_column(Time)
    ends: Mapped[time | None] = mapped_column(Time)
    status: Mapped[str] = mapped_column(String(40))
    place_name: Mapped[str] = mapped_column(String(160))
    theme: Mapped[str | None] = mapped_column(String(40))
    agenda: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    attended: Mapped[int | None]
    report: Mapped[str] = mapped_column(Text)


meetings = Projection("meetings", [NationalMeeting])


@meetings.on(MeetingPlanned, MeetingChanged, MeetingHeld)
def show_meeting(rows: Rows, town: str, happened: MeetingState) -> None:
    rows.put(
        NationalMeeting,
        town=town,
        meeting=happened.meeting,
        kind=happened.kind,
        title=happened.title,
        day=happened.day,
        starts=happened.starts,
        ends=happened.ends,
        status=happened.status,
        place_name=happened.place_name,
        theme=happened.theme,
        agenda=[{"title": item.title, "minutes": item.minutes} for item in happened.agenda],
        attended=happened.attended,
        report=happened.report,
    )


@meetings.on(MeetingCancelled)
def take_away_meeting(rows: Rows, town: str, happened: MeetingCancelled) -> None:
    rows.drop(NationalMeeting, town=town, meeting=happened.meeting)

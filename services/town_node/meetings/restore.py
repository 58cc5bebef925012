"""How meetings come back from the association, and how they are told again (`shared/restore.py`).

Who came, the round and the notes never left the town: they come back with a backup, or not at all.
"""

from collections.abc import Iterator
from datetime import date

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from services.town_node.meetings.model import Attendance, Meeting, RoundEntry
from shared.events import Event, MeetingCancelled, MeetingChanged, MeetingHeld, MeetingPlanned, MeetingState, Redacted
from shared.restore import Slice


def retell(session: Session, today: date) -> Iterator[Event]:
    """Every meeting as it stands."""
    for meeting in session.scalars(select(Meeting).where(Meeting.status != "cancelled").order_by(Meeting.code)):
        yield meeting.change()


meetings = Slice("meetings", retell)


@meetings.put_back(MeetingPlanned, MeetingChanged, MeetingHeld)
def put_back_meeting(session: Session, happened: MeetingState, today: date) -> None:
    meeting = session.get(Meeting, happened.meeting)
    if meeting is None:
        meeting = Meeting(code=happened.meeting, notes="")
        session.add(meeting)
    meeting.take(happened)


@meetings.put_back(MeetingCancelled)
def put_back_cancellation(session: Session, happened: MeetingCancelled, today: date) -> None:
    meeting = session.get(Meeting, happened.meeting)
    if meeting is not None:
        meeting.status = "cancelled"


@meetings.put_back(Redacted)
def forget_meeting(session: Session, happened: Redacted, today: date) -> None:
    for table, column in (
        (RoundEntry, RoundEntry.meeting),
        (RoundEntry, RoundEntry.initiative),  # what an initiative told is about it
        (Attendance, Attendance.meeting),
        (Meeting, Meeting.code),
    ):
        session.execute(delete(table).where(column == happened.redacts))

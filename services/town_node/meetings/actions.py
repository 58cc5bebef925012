"""What people do with meetings."""

from collections.abc import Collection, Sequence
from datetime import date
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from services.town_node.circle.model import new_code
from services.town_node.initiatives.actions import find_initiative
from services.town_node.initiatives.model import Initiative
from services.town_node.meetings.model import ANSWERS, Attendance, Meeting, RoundEntry
from shared.eventlog import append
from shared.refusals import NotFound


def plan_meeting(session: Session, **told: Any) -> Meeting:
    """The circle will meet. Raises `EndsBeforeStart`."""
    meeting = Meeting(code=new_code(), **told)
    happened = meeting.plan()
    session.add(meeting)
    append(session, happened)
    return meeting


def change_meeting(session: Session, code: str, **told: Any) -> Meeting:
    """Something about the plan is different now. Raises `EndsBeforeStart` or `Cancelled`."""
    meeting = find_meeting(session, code)
    append(session, meeting.change(**told))
    return meeting


def hold_meeting(session: Session, code: str, *, attended: int, members: Collection[str], notes: str, today: date) -> Meeting:
    """The circle met: so many came, among them these members. Raises `NotYet` or `MoreCameThanCounted`."""
    meeting = find_meeting(session, code)
    happened = meeting.hold(attended, today, ticked=len(members))
    meeting.notes = notes
    session.execute(delete(Attendance).where(Attendance.meeting == code))
    session.add_all(Attendance(meeting=code, member=member) for member in sorted(set(members)))
    append(session, happened)
    return meeting


def cancel_meeting(session: Session, code: str) -> None:
    """The meeting does not take place. Raises `HeldAlready`."""
    append(session, find_meeting(session, code).cancel())


def publish_report(session: Session, code: str, report: str) -> Meeting:
    """Tell everybody what the evening was about. Raises `NotHeldYet`."""
    meeting = find_meeting(session, code)
    append(session, meeting.publish_report(report))
    return meeting


def tell_in_round(session: Session, code: str, initiative: str, **answers: str) -> RoundEntry:
    """Write down what an initiative tells in the round. It stays here, so nobody outside hears of it."""
    find_meeting(session, code)
    find_initiative(session, initiative)
    entry = round_entry(session, code, initiative)
    if entry is None:
        entry = RoundEntry(code=new_code(), meeting=code, initiative=initiative)
        session.add(entry)
    for name in ANSWERS:
        setattr(entry, name, answers.get(name, ""))
    session.flush()
    return entry


def close_round(session: Session, code: str) -> None:
    """Who has not told anything yet was not heard this evening; whoever it is can still be written down afterwards."""
    find_meeting(session, code)
    session.add_all(RoundEntry(code=new_code(), meeting=code, initiative=garden.code) for garden in silent_gardens(session, code))


def silent_gardens(session: Session, meeting: str) -> Sequence[Initiative]:
    """The active initiatives of which this meeting's round says nothing yet, not even that they were not heard; by name."""
    told = select(RoundEntry.initiative).where(RoundEntry.meeting == meeting)
    active = Initiative.withdrawn_on.is_(None), Initiative.phase != "stopped"
    return session.scalars(select(Initiative).where(*active, Initiative.code.not_in(told)).order_by(Initiative.name)).all()


def round_entries(session: Session, meeting: str) -> Sequence[tuple[RoundEntry, Initiative]]:
    """What this meeting's round says of each initiative, by name."""
    query = select(RoundEntry, Initiative).join(Initiative, Initiative.code == RoundEntry.initiative)
    here = RoundEntry.meeting == meeting, Initiative.withdrawn_on.is_(None)
    return [(entry, garden) for entry, garden in session.execute(query.where(*here).order_by(Initiative.name))]


def round_entry(session: Session, meeting: str, initiative: str) -> RoundEntry | None:
    """What this initiative told at this meeting."""
    return session.scalar(select(RoundEntry).where(RoundEntry.meeting == meeting, RoundEntry.initiative == initiative))


def find_meeting(session: Session, code: str) -> Meeting:
    """The meeting with this code, if it was not cancelled. Raises `NotFound`."""
    meeting = session.get(Meeting, code) if code.isprintable() else None  # PostgreSQL refuses NUL in a text
    if meeting is None or meeting.status == "cancelled":
        raise NotFound
    return meeting

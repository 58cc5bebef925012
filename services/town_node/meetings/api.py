"""`/api/v1/meetings`: what everybody may know of them. Who came, the round and the notes are not here; they stay on the pages."""

from typing import Any

from marshmallow import fields
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.town_node.circle.api import TellsOthers, ask_about_names
from services.town_node.meetings import actions
from services.town_node.meetings.model import Attendance, HeldAlready, Meeting
from shared import events
from shared.api import Room, chosen, listed, listing
from shared.language import N_, Words
from shared.refusals import Refusal
from shared.shapes import Asked, Gives, Several, Sought, Takes, Wire
from shared.web import today

room = Room("meetings", "The circle's meetings: planned, held and reported.")


class HowMany(Refusal):
    """A meeting that was held had people."""

    status, text = 422, N_("Send how many people came.")

    def __init__(self) -> None:
        super().__init__(fields={"attended": Words(self.text)})


class ItemOut(Gives):
    """An item of the agenda."""

    title = Wire(events.Name)
    minutes = Wire(events.Minutes)


class ItemIn(Takes):
    """An item of the agenda."""

    title = Wire(events.Name, required=True)
    minutes = Wire(events.Minutes, load_default=0)


class MeetingOut(Gives):
    """A meeting."""

    code = Wire(events.Code)
    kind = Wire(events.MeetingKind)
    title = Wire(events.Name)
    theme = Wire(events.Theme, allow_none=True)
    day = Wire(events.Day)
    starts = Wire(events.Clock, "Local time (Europe/Amsterdam), as is `ends`.")
    ends = Wire(events.Clock, allow_none=True)
    place_name = Wire(events.Line)
    agenda = fields.List(fields.Nested(ItemOut))
    status = Wire(events.MeetingStatus)
    attended = Wire(events.Count, "How many people came.", allow_none=True)
    report = fields.Function(
        lambda meeting: meeting.report if meeting.report_published else "",
        metadata={"type": "string", "description": "Markdown; empty until it is published."},
    )


class MeetingIn(TellsOthers):
    """A meeting to plan."""

    title = Wire(events.Name, required=True)
    kind = Wire(events.MeetingKind, load_default="circle")
    theme = Wire(events.Theme, load_default=None, allow_none=True)
    day = Wire(events.Day, required=True)
    starts = Wire(events.Clock, "Local time (Europe/Amsterdam), as is `ends`.", required=True)
    ends = Wire(events.Clock, load_default=None, allow_none=True)
    place_name = Wire(events.Line, "Not the address of somebody's home: everybody can read this.", load_default="")
    agenda = Several(fields.Nested(ItemIn), load_default=list)


class MeetingHappenedIn(MeetingIn):
    """What changed in the plan, or what came of it."""

    status = Wire(events.MeetingStatus, "`held` writes down that the circle met; send `attended` along.")
    attended = Wire(events.Count, "How many people came, guests too. Sent again, it corrects the number.")
    report = Wire(events.PublicText, "Markdown; sending it publishes it. The meeting must have been held.")


class SoughtMeetings(Sought):
    """Which meetings."""

    kind = Asked(events.MeetingKind)
    status = Asked(events.MeetingStatus)
    theme = Asked(events.Theme)


@room.operation("GET", "", takes=SoughtMeetings(), gives=listing(MeetingOut, "MeetingsOut"))
def list_all(session: Session, wanted: dict[str, Any]) -> Any:
    """The meetings, the latest first; cancelled ones are left out."""
    columns = {"kind": Meeting.kind, "status": Meeting.status, "theme": Meeting.theme}
    query = select(Meeting).where(Meeting.status != "cancelled", *chosen(columns, wanted))
    return listed(session, query, [(Meeting.day, True), (Meeting.code, False)], wanted)


@room.operation("GET", "/<code>", gives=MeetingOut)
def show(session: Session, code: str) -> Any:
    """One meeting."""
    return actions.find_meeting(session, code)


@room.operation("POST", "", takes=MeetingIn(), gives=MeetingOut, role="facilitator")
def plan(session: Session, told: dict[str, Any]) -> Any:
    """Plan a meeting."""
    return actions.plan_meeting(session, **_asked_about(session, told))


@room.operation("PATCH", "/<code>", takes=MeetingHappenedIn.change(), gives=MeetingOut, role="facilitator")
def change(session: Session, told: dict[str, Any], code: str) -> Any:
    """Change the plan, write down that the circle met, publish the report: each alone, or all at once."""
    meeting = actions.find_meeting(session, code)
    told = _asked_about(session, told)
    status, attended, report = (told.pop(name, None) for name in ("status", "attended", "report"))
    if status == "planned" and meeting.status == "held":
        raise HeldAlready
    if status == "held" and meeting.status != "held" and attended is None:
        raise HowMany
    if told:
        actions.change_meeting(session, code, **told)
    if attended is not None:
        came = session.scalars(select(Attendance.member).where(Attendance.meeting == code)).all()
        actions.hold_meeting(session, code, attended=attended, members=came, notes=meeting.notes or "", today=today())
    if report is not None:
        actions.publish_report(session, code, report)
    return meeting


@room.operation("DELETE", "/<code>", gives=None, role="facilitator")
def cancel(session: Session, code: str) -> None:
    """The meeting does not take place."""
    actions.cancel_meeting(session, code)


def _asked_about(session: Session, told: dict[str, Any]) -> dict[str, Any]:
    items = "\n".join(item["title"] for item in told.get("agenda", []))
    asked = ask_about_names(session, told | {"items": items}, ("title", "place_name", "items", "report"))
    return {name: value for name, value in asked.items() if name != "items"}

"""`/api/v1/meetings` of the association: what circles plan and what they held."""

from typing import Any

from marshmallow import fields
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.hub.meetings.projection import NationalMeeting
from shared import events
from shared.api import Room, chosen, listed, listing
from shared.finding import find
from shared.shapes import Asked, Gives, Sought, Wire

room = Room("meetings", "The meetings of all circles: planned, held and reported.")


class ItemOut(Gives):
    """An item of the agenda."""

    title = Wire(events.Name)
    minutes = Wire(events.Minutes)


class MeetingOut(Gives):
    """A meeting. `town` and `code` together name it."""

    town = Wire(events.Slug)
    code = Wire(events.Code, attribute="meeting")
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
    report = Wire(events.PublicText, "Markdown; empty until it is published.")


class SoughtMeetings(Sought):
    """Which meetings."""

    town = Asked(events.Slug)
    kind = Asked(events.MeetingKind)
    status = Asked(events.MeetingStatus)
    theme = Asked(events.Theme)


@room.operation("GET", "", takes=SoughtMeetings(), gives=listing(MeetingOut, "MeetingsOut"))
def list_all(session: Session, wanted: dict[str, Any]) -> Any:
    """The meetings, the latest first."""
    columns = {name: getattr(NationalMeeting, name) for name in ("town", "kind", "status", "theme")}
    order = [(NationalMeeting.day, True), (NationalMeeting.town, False), (NationalMeeting.meeting, False)]
    return listed(session, select(NationalMeeting).where(*chosen(columns, wanted)), order, wanted)


@room.operation("GET", "/<town>/<code>", gives=MeetingOut)
def show(session: Session, town: str, code: str) -> Any:
    """One meeting."""
    return find(session, NationalMeeting, town, code)

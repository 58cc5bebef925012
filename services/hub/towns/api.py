"""`/api/v1/towns` of the association: what everybody may know of a town, and for the association how far it is in sync."""

from typing import Any

from marshmallow import fields
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.hub.initiatives.projection import NationalInitiative
from services.hub.lessons.projection import NationalLesson
from services.hub.meetings.projection import NationalMeeting
from services.hub.towns.joining import BadSlug, Town, TownExists, add_town
from services.hub.towns.projection import NationalCircle, NationalTown
from services.hub.towns.sync import InSync, sync_of_towns
from shared import events
from shared.api import Room, listed, listing
from shared.finding import find
from shared.shapes import LATITUDE, LONGITUDE, Gives, Sought, Takes, Wire
from shared.web import may, now

room = Room("towns", "The towns of the association.")


class CircleOut(Gives):
    """The circle of a town, as it presents itself."""

    name = Wire(events.Name)
    place_name = Wire(events.Line)
    latitude = Wire(LATITUDE, "Degrees north (WGS 84).", allow_none=True)
    longitude = Wire(LONGITUDE, "Degrees east (WGS 84).", allow_none=True)
    about_text = Wire(events.PublicText, "Markdown.")
    status = Wire(events.CircleStatus)
    method = Wire(events.WorkingMethod)
    founded = Wire(events.Day, allow_none=True)
    themes = fields.List(Wire(events.Theme))
    public_phone = Wire(events.PublicPhone, allow_none=True)


class SyncOut(Gives):
    """How far a town is in sync."""

    joined = fields.AwareDateTime(attribute="joined_at", allow_none=True)
    last_heard = fields.AwareDateTime(allow_none=True, metadata={"description": "When its node called last."})
    cursor = fields.Integer(metadata={"description": "The last event of its log that the association holds."})
    lag = fields.Integer(allow_none=True, metadata={"description": "Events it said it has, and the association has not."})
    stalled = fields.List(fields.String(), metadata={"description": "The views that stand still for this town."})


class TownOut(Gives):
    """A town."""

    town = Wire(events.Slug, "Its short name.")
    name = Wire(events.Name)
    circle = fields.Nested(CircleOut, allow_none=True)
    initiatives = fields.Integer(metadata={"description": "How many."})
    lessons = fields.Integer(metadata={"description": "How many."})
    meetings_held = fields.Integer(metadata={"description": "How many."})
    sync = fields.Nested(SyncOut, allow_none=True, metadata={"description": "With a token of the association only."})


class NewTownOut(TownOut):
    """A town that was just made."""

    joining_code = fields.String(
        metadata={
            "description": "For the town's facilitator. Shown only now; it works once. The node that used it then waits until "
            "somebody of the association lets it in."
        }
    )


class TownIn(Takes):
    """A town to make."""

    town = Wire(events.Slug, "Its short name, for ever: 2 to 30 letters a-z, digits or hyphens, a letter first.", required=True)
    name = Wire(events.Name, required=True)


@room.operation("GET", "", takes=Sought(), gives=listing(TownOut, "TownsOut"))
def list_all(session: Session, wanted: dict[str, Any]) -> Any:
    """The towns, by short name; with a token of the association also those that still have to join."""
    if may("association"):
        page = listed(session, select(Town), [(Town.slug, False)], wanted)
        names = {town.slug: town.name for town in page["items"]}
        return page | {"items": _told(session, names, sync_of_towns(session, names))}
    page = listed(session, select(NationalTown), [(NationalTown.town, False)], wanted)
    return page | {"items": _told(session, {town.town: town.name for town in page["items"]})}


@room.operation("GET", "/<town>", gives=TownOut)
def show(session: Session, town: str) -> Any:
    """One town."""
    if may("association"):
        return _told(session, {town: find(session, Town, town).name}, sync_of_towns(session, [town]))[0]
    return _told(session, {town: find(session, NationalTown, town).name})[0]


@room.operation("POST", "", takes=TownIn(), gives=NewTownOut, role="association")
def make(session: Session, told: dict[str, Any]) -> Any:
    """Make a town, and the code with which its node joins."""
    try:
        code = add_town(session, told["town"], told["name"], now(), vouched=False)
    except (BadSlug, TownExists) as refusal:  # the page calls this field otherwise
        refusal.fields = {"town": refusal.words}
        raise
    session.flush()
    return _told(session, {told["town"]: told["name"]}, sync_of_towns(session, [told["town"]]))[0] | {"joining_code": code}


def _told(session: Session, names: dict[str, str], states: list[InSync] | None = None) -> list[dict[str, Any]]:
    circles = {circle.town: circle for circle in session.scalars(select(NationalCircle).where(NationalCircle.town.in_(names)))}
    sync = {state.town: state for state in states or []}
    counts = {
        "initiatives": _counts(session, NationalInitiative, names),
        "lessons": _counts(session, NationalLesson, names),
        "meetings_held": _counts(session, NationalMeeting, names, NationalMeeting.status == "held"),
    }
    return [
        {"town": town, "name": name, "circle": circles.get(town), "sync": sync.get(town)}
        | {what: by_town.get(town, 0) for what, by_town in counts.items()}
        for town, name in names.items()
    ]


def _counts(session: Session, model: Any, names: dict[str, str], *conditions: Any) -> dict[str, int]:
    query = select(model.town, func.count()).where(model.town.in_(names), *conditions).group_by(model.town)
    return {town: number for town, number in session.execute(query)}  # noqa: C416  # a row is no pair to mypy

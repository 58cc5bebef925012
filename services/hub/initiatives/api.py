"""`/api/v1/initiatives` of the association: the initiatives of all towns."""

from typing import Any

from marshmallow import fields
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.hub.initiatives.projection import NationalInitiative
from shared import events
from shared.api import Room, chosen, listed, listing
from shared.finding import find
from shared.shapes import LATITUDE, LONGITUDE, Asked, Gives, Sought, Wire

room = Room("initiatives", "The initiatives of all towns.")


class StepOut(Gives):
    """An initiative is in this phase since that day."""

    phase = Wire(events.Phase)
    since = fields.String(metadata={"format": "date"})


class InitiativeOut(Gives):
    """An initiative. `town` and `code` together name it."""

    town = Wire(events.Slug)
    code = Wire(events.Code, attribute="initiative")
    name = Wire(events.Name)
    kind = Wire(events.InitiativeKind)
    phase = Wire(events.Phase, "The present phase: the last step of the history.")
    history = fields.List(fields.Nested(StepOut), metadata={"description": "Oldest step first."})
    about_text = Wire(events.PublicText, "Markdown.")
    place_name = Wire(events.Line)
    latitude = Wire(LATITUDE, "Degrees north (WGS 84).", allow_none=True)
    longitude = Wire(LONGITUDE, "Degrees east (WGS 84).", allow_none=True)
    place_exact = Wire(events.Flag, "False when the place is the middle of a square of some 500 metres in which it lies.")
    purposes = fields.List(Wire(events.Purpose))
    visitors = Wire(events.Flag, "Whether visitors are welcome.")
    visiting = Wire(events.Line, "When to visit.")


class SoughtInitiatives(Sought):
    """Which initiatives."""

    town = Asked(events.Slug)
    phase = Asked(events.Phase)
    kind = Asked(events.InitiativeKind)


@room.operation("GET", "", takes=SoughtInitiatives(), gives=listing(InitiativeOut, "InitiativesOut"))
def list_all(session: Session, wanted: dict[str, Any]) -> Any:
    """The initiatives, by name."""
    columns = {"town": NationalInitiative.town, "phase": NationalInitiative.phase, "kind": NationalInitiative.kind}
    order = [(NationalInitiative.name, False), (NationalInitiative.town, False), (NationalInitiative.initiative, False)]
    return listed(session, select(NationalInitiative).where(*chosen(columns, wanted)), order, wanted)


@room.operation("GET", "/<town>/<code>", gives=InitiativeOut)
def show(session: Session, town: str, code: str) -> Any:
    """One initiative."""
    return find(session, NationalInitiative, town, code)

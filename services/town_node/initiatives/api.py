"""`/api/v1/initiatives`: the register, for programs."""

from typing import Any

from marshmallow import fields, post_dump
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.town_node.circle.api import TellsOthers, ask_about_names, refuse_half_a_place
from services.town_node.initiatives import actions
from services.town_node.initiatives.model import Initiative
from shared import events
from shared.api import Room, chosen, listed, listing
from shared.language import N_, Words
from shared.refusals import Refusal
from shared.shapes import LATITUDE, LONGITUDE, Asked, Gives, Several, Sought, Wire
from shared.web import may, today

room = Room("initiatives", "The gardens and other green projects in this circle's register.")
TEXTS = ("name", "about_text", "place_name", "visiting")


class SinceWithoutPhase(Refusal):
    """A day says nothing without the phase it belongs to."""

    status, text = 422, N_("Send the phase that began on this day along.")

    def __init__(self) -> None:
        super().__init__(fields={"phase": Words(self.text)})


class StepOut(Gives):
    """An initiative is in this phase since that day."""

    phase = Wire(events.Phase)
    since = fields.String(metadata={"format": "date"})


class InitiativeOut(Gives):
    """An initiative."""

    code = Wire(events.Code)
    name = Wire(events.Name)
    kind = Wire(events.InitiativeKind)
    phase = Wire(events.Phase, "The present phase: the last step of the history.")
    history = fields.List(fields.Nested(StepOut), metadata={"description": "Oldest step first."})
    about_text = Wire(events.PublicText, "Markdown.")
    place_name = Wire(events.Line)
    latitude = Wire(LATITUDE, "Degrees north (WGS 84).", allow_none=True)
    longitude = Wire(LONGITUDE, "Degrees east (WGS 84).", allow_none=True)
    place_shown = Wire(events.PlaceShown, "How exactly others see the place; a token of the circle sees it as it was given.")
    purposes = fields.List(Wire(events.Purpose))
    visitors = Wire(events.Flag, "Whether visitors are welcome.")
    visiting = Wire(events.Line, "When to visit.")

    @post_dump(pass_original=True)
    def only_what_is_shown(self, given: dict[str, Any], initiative: Initiative, **_more: Any) -> dict[str, Any]:
        """Who is no member of this circle sees the place as the initiative shows it."""
        if may("member"):
            return given
        place = initiative.shown_place
        north, east = (place.latitude / 1_000_000, place.longitude / 1_000_000) if place else (None, None)
        return given | {"latitude": north, "longitude": east, "place_name": initiative.shown_place_name}


class InitiativeIn(TellsOthers):
    """An initiative to register."""

    name = Wire(events.Name, required=True)
    kind = Wire(events.InitiativeKind, required=True)
    phase = Wire(events.Phase, required=True)
    since = Wire(events.Day, "The first day of this phase; today when left out.")
    about_text = Wire(events.PublicText, "Markdown.", load_default="")
    place_name = Wire(events.Line, "A street or a neighbourhood; not the address of somebody's home.", load_default="")
    latitude = Wire(LATITUDE, "Degrees north (WGS 84).", load_default=None, allow_none=True)
    longitude = Wire(LONGITUDE, "Degrees east (WGS 84).", load_default=None, allow_none=True)
    place_shown = Wire(events.PlaceShown, "How exactly others see the place.", load_default="exact")
    purposes = Several(Wire(events.Purpose), load_default=list)
    visitors = Wire(events.Flag, "Whether visitors are welcome.", load_default=False)
    visiting = Wire(events.Line, "When to visit.", load_default="")


class SoughtInitiatives(Sought):
    """Which initiatives."""

    phase = Asked(events.Phase)
    kind = Asked(events.InitiativeKind)


@room.operation("GET", "", takes=SoughtInitiatives(), gives=listing(InitiativeOut, "InitiativesOut"))
def list_all(session: Session, wanted: dict[str, Any]) -> Any:
    """The initiatives, by name."""
    query = select(Initiative).where(
        Initiative.withdrawn_on.is_(None), *chosen({"phase": Initiative.phase, "kind": Initiative.kind}, wanted)
    )
    return listed(session, query, [(Initiative.name, False), (Initiative.code, False)], wanted)


@room.operation("GET", "/<code>", gives=InitiativeOut)
def show(session: Session, code: str) -> Any:
    """One initiative."""
    return actions.find_initiative(session, code)


@room.operation("POST", "", takes=InitiativeIn(), gives=InitiativeOut, role="member")
def register(session: Session, told: dict[str, Any]) -> Any:
    """Register an initiative."""
    told = ask_about_names(session, told, TEXTS)
    refuse_half_a_place(told["latitude"], told["longitude"])
    return actions.register_initiative(session, since=told.pop("since", today()), today=today(), **told)


@room.operation("PATCH", "/<code>", takes=InitiativeIn.change(), gives=InitiativeOut, role="member")
def change(session: Session, told: dict[str, Any], code: str) -> Any:
    """Tell something else about an initiative, or that it came into another phase.

    A new `phase` is a step of the history, on the day `since` (today when left out).
    """
    told = ask_about_names(session, told, TEXTS)
    initiative = actions.find_initiative(session, code)
    refuse_half_a_place(told.get("latitude", initiative.latitude), told.get("longitude", initiative.longitude))
    phase, since = told.pop("phase", None), told.pop("since", None)
    if told:
        actions.change_initiative(session, code, **told)
    if phase is None and since is not None:
        raise SinceWithoutPhase
    # The same phase on the same day is what a program sends that read the initiative and sends it back.
    if phase is not None and (phase != initiative.phase or since not in {None, initiative.steps[-1].since}):
        actions.reach_phase(session, code, phase=phase, since=since or today(), today=today())
    return initiative


@room.operation("DELETE", "/<code>", gives=None, role="facilitator")
def withdraw(session: Session, code: str) -> None:
    """Take an initiative out of the register, here and in the other towns."""
    actions.withdraw_initiative(session, code, today())

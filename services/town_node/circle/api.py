"""`/api/v1/circle`, and what the node's whole API shares: the question about names (R34)."""

from collections.abc import Iterable
from typing import Any

from marshmallow import fields
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.town_node.circle import actions
from services.town_node.circle.membership import membership
from services.town_node.circle.model import Circle
from services.town_node.circle.naming import people_named_in
from shared import events
from shared.api import Room
from shared.language import N_, Words
from shared.refusals import NotFound, Refusal
from shared.shapes import LATITUDE, LONGITUDE, Gives, Several, Takes, Wire

room = Room("circle", "The circle of this town, as it presents itself.")


class NamesSomebody(Refusal):
    """A text names or reaches a person, and nobody said yet that they agreed (R34)."""

    status = 422
    text = N_("These words may tell who somebody is: %(words)s. Send them in names_agreed if these people agreed.")

    def __init__(self, words: str) -> None:
        super().__init__(fields={"names_agreed": Words(self.text, {"words": words})}, words=words)


class HalfAPlace(Refusal):
    """Half a place is no place."""

    status, text = 422, N_("Send both the latitude and the longitude, or neither.")

    def __init__(self) -> None:
        super().__init__(fields=dict.fromkeys(("latitude", "longitude"), Words(self.text)))


class TellsOthers(Takes):
    """What a program sends when texts leave the town."""

    names_agreed = Several(
        Wire(events.Line),
        "Words of your texts in which the node recognised a person, who agreed that everybody reads them. "
        "Without it such a text is refused, and the answer says which words.",
        load_default=list,
    )


def ask_about_names(session: Session, told: dict[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """What was told, without `names_agreed`. Raises `NamesSomebody` for words in these texts that nobody agreed to."""
    agreed = told.pop("names_agreed", [])
    said = "\n\n".join(str(told[name]) for name in texts if told.get(name))
    found = [word for word in (" ".join(found.split()) for found in people_named_in(session, said)) if word not in agreed]
    if found:
        raise NamesSomebody(", ".join(found))
    return told


def refuse_half_a_place(latitude: int | None, longitude: int | None) -> None:
    """Raises `HalfAPlace`."""
    if (latitude is None) != (longitude is None):
        raise HalfAPlace


class CircleOut(Gives):
    """The circle."""

    code = Wire(events.Code)
    town = Wire(events.Slug, "The town's short name in the association.")
    name = Wire(events.Name)
    place_name = Wire(events.Line, "The town.")
    latitude = Wire(LATITUDE, "Degrees north (WGS 84).", allow_none=True)
    longitude = Wire(LONGITUDE, "Degrees east (WGS 84).", allow_none=True)
    about_text = Wire(events.PublicText, "Markdown.")
    status = Wire(events.CircleStatus)
    method = Wire(events.WorkingMethod, "How the circle works.")
    founded = Wire(events.Day, allow_none=True)
    themes = fields.List(Wire(events.Theme))
    public_phone = Wire(events.PublicPhone, "The one number that the circle marks as public.", allow_none=True)


class CircleIn(TellsOthers):
    """What can be told about the circle."""

    name = Wire(events.Name)
    place_name = Wire(events.Name, "The town.")
    latitude = Wire(LATITUDE, "Degrees north (WGS 84).", allow_none=True)
    longitude = Wire(LONGITUDE, "Degrees east (WGS 84).", allow_none=True)
    about_text = Wire(events.PublicText, "Markdown.")
    status = Wire(events.CircleStatus)
    method = Wire(events.WorkingMethod)
    founded = Wire(events.Day, allow_none=True)
    themes = Several(Wire(events.Theme))
    public_phone = Wire(events.PublicPhone, "Everybody will see this number.", allow_none=True)


@room.operation("GET", "", gives=CircleOut, refuses=[404])
def show(session: Session) -> Any:
    """The circle."""
    circle, joined = session.scalar(select(Circle)), membership(session)
    if circle is None or joined is None:
        raise NotFound
    return {name: getattr(circle, name, None) for name in CircleOut().fields} | {"town": joined.town}


@room.operation("PATCH", "", takes=CircleIn.change(), gives=CircleOut, role="facilitator")
def describe(session: Session, told: dict[str, Any]) -> Any:
    """Tell anew what the circle is."""
    told = ask_about_names(session, told, ("name", "place_name", "about_text"))
    circle = actions.the_circle(session)
    refuse_half_a_place(told.get("latitude", circle.latitude), told.get("longitude", circle.longitude))
    if told:
        actions.describe_circle(session, **told)
    return show(session)

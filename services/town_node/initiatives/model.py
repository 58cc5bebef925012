"""An initiative and the phases it went through (§2.1.2)."""

from datetime import date
from typing import Any

from sqlalchemy import JSON, Boolean, Date, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from services.town_node.circle.model import place_of
from shared.coordinates import neighbourhood
from shared.db import Base
from shared.events import (
    InitiativeChanged,
    InitiativePhaseReached,
    InitiativeRegistered,
    InitiativeState,
    InitiativeWithdrawn,
    PhaseStep,
    Place,
)
from shared.language import N_
from shared.refusals import Refusal


class InFuture(Refusal):
    """A register tells what is, not what is hoped for."""

    text = N_("This day is in the future.")


class BeforeLastStep(Refusal):
    """A history has one direction."""

    text = N_("The initiative came into its present phase on a later day.")


class SamePhase(Refusal):
    """Nothing would change."""

    text = N_("The initiative is in this phase already.")


SHOWN = {None, "exact", "neighbourhood"}
"""With which `place_shown` others are told where it is."""


def shown_place_name(place_name: str | None, place_shown: str | None) -> str:
    """What others read at Place: a street would tell what a hidden place does not."""
    return "" if place_shown == "hidden" else place_name or ""


class Initiative(Base):
    """A garden or other green project, in whatever phase (R1)."""

    __tablename__ = "initiative"

    code: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(160))
    kind: Mapped[str] = mapped_column(String(40))
    phase: Mapped[str] = mapped_column(String(40))
    """The last step of the history."""
    history: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """Steps as {phase, since}, oldest first."""
    about_text: Mapped[str] = mapped_column(Text, default="")
    latitude: Mapped[int | None] = mapped_column(Integer)
    longitude: Mapped[int | None] = mapped_column(Integer)
    """As exact as it was given; what others see of it is `shown_place`."""
    place_shown: Mapped[str] = mapped_column(String(40), default="exact")
    """How exactly others see the place: one of `events.PLACE_SHOWN`."""
    place_name: Mapped[str] = mapped_column(String(160), default="")
    purposes: Mapped[list[Any]] = mapped_column(JSON, default=list)
    visitors: Mapped[bool] = mapped_column(Boolean, default=False)
    visiting: Mapped[str] = mapped_column(String(160), default="")
    withdrawn_on: Mapped[date | None] = mapped_column(Date)

    # The list by name, and the counts beside it, without reading every text.
    __table_args__ = (
        Index("ix_initiative_withdrawn_on_name", "withdrawn_on", "name"),
        Index("ix_initiative_withdrawn_on_phase_kind", "withdrawn_on", "phase", "kind"),
    )

    @property
    def steps(self) -> list[PhaseStep]:
        return [PhaseStep(step["phase"], date.fromisoformat(step["since"])) for step in self.history or []]

    @property
    def place(self) -> Place | None:
        """The place as the circle knows it: for members only."""
        return place_of(self.latitude, self.longitude)

    @property
    def shown_place(self) -> Place | None:
        """The place as the initiative wishes to show it to everybody else, this town's own public pages included."""
        if self.place is None or self.place_shown not in SHOWN:
            return None
        return neighbourhood(self.place) if self.place_shown == "neighbourhood" else self.place

    @property
    def shown_place_name(self) -> str:
        return shown_place_name(self.place_name, self.place_shown)

    def register(self, phase: str, since: date, today: date) -> InitiativeRegistered:
        self._step(phase, since, today)
        return InitiativeRegistered(**self._state())

    def change(self, **told: Any) -> InitiativeChanged:
        for name, value in told.items():
            setattr(self, name, value)
        return InitiativeChanged(**self._state())

    def reach_phase(self, phase: str, since: date, today: date) -> InitiativePhaseReached:
        if phase == self.phase:
            raise SamePhase(fields={"phase": SamePhase().words})
        self._step(phase, since, today)
        return InitiativePhaseReached(**self._state())

    def withdraw(self, today: date) -> InitiativeWithdrawn:
        self.withdrawn_on = today
        return InitiativeWithdrawn(initiative=self.code)

    def take(self, told: InitiativeState) -> None:
        """Say what was told of this initiative before; how it comes back after a backup.

        A place that this node knows more exactly than it was told stays as it is.
        """
        for name in ("name", "kind", "about_text", "visitors", "visiting"):
            setattr(self, name, getattr(told, name))
        self.place_name = told.place_name or self.place_name or ""
        self.history = [{"phase": step.phase, "since": step.since.isoformat()} for step in told.history]
        self.phase = told.history[-1].phase if told.history else "idea"
        self.purposes, self.withdrawn_on = list(told.purposes), None
        if told.place is not None and self.shown_place != told.place:
            self.latitude, self.longitude = told.place.latitude, told.place.longitude
            self.place_shown = "exact" if told.place.exact else "neighbourhood"
        elif told.place is None and self.place is not None:
            self.place_shown = "hidden"

    def _step(self, phase: str, since: date, today: date) -> None:
        if since > today:
            raise InFuture(fields={"since": InFuture().words})
        if self.steps and since < self.steps[-1].since:
            raise BeforeLastStep(fields={"since": BeforeLastStep().words})
        self.history = [*(self.history or []), {"phase": phase, "since": since.isoformat()}]
        self.phase = phase

    def _state(self) -> dict[str, Any]:
        return {
            "initiative": self.code,
            "name": self.name,
            "kind": self.kind,
            "history": tuple(self.steps),
            "about_text": self.about_text or "",
            "place": self.shown_place,
            "place_name": self.shown_place_name,
            "purposes": tuple(self.purposes or ()),
            "visitors": bool(self.visitors),
            "visiting": self.visiting or "",
        }

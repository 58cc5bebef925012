"""The initiatives of all towns, each in its present phase and with the way it went."""

from datetime import date
from typing import Any

from sqlalchemy import JSON, Date, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base
from shared.events import (
    InitiativeChanged,
    InitiativePhaseReached,
    InitiativeRegistered,
    InitiativeState,
    InitiativeWithdrawn,
)
from shared.projections import Projection, Rows


class NationalInitiative(Base):
    """An initiative somewhere in the country."""

    __tablename__ = "national_initiative"
    __table_args__ = (
        Index("ix_national_initiative_phase", "phase", "kind"),
        Index("ix_national_initiative_name", "name"),
    )

    town: Mapped[str] = mapped_column(String(40), primary_key=True)
    initiative: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(160))
    kind: Mapped[str] = mapped_column(String(40))
    phase: Mapped[str] = mapped_column(String(40))
    phase_since: Mapped[date | None] = mapped_column(Date)
    history: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """Each step as `{"phase": …, "since": "YYYY-MM-DD"}`, oldest first."""
    about_text: Mapped[str] = mapped_column(Text)
    latitude: Mapped[int | None]
    longitude: Mapped[int | None]
    place_exact: Mapped[bool]
    """Whether the garden is there, or somewhere in the neighbourhood."""
    place_name: Mapped[str] = mapped_column(String(160))
    purposes: Mapped[list[str]] = mapped_column(JSON)
    visitors: Mapped[bool]
    visiting: Mapped[str] = mapped_column(String(160))


initiatives = Projection("initiatives", [NationalInitiative])


@initiatives.on(InitiativeRegistered, InitiativeChanged, InitiativePhaseReached)
def show_initiative(rows: Rows, town: str, happened: InitiativeState) -> None:
    last = happened.history[-1] if happened.history else None
    rows.put(
        NationalInitiative,
        town=town,
        initiative=happened.initiative,
        name=happened.name,
        kind=happened.kind,
        phase=last.phase if last else "idea",
        phase_since=last.since if last else None,
        history=[{"phase": step.phase, "since": step.since.isoformat()} for step in happened.history],
        about_text=happened.about_text,
        latitude=happened.place.latitude if happened.place else None,
        longitude=happened.place.longitude if happened.place else None,
        place_exact=happened.place is None or happened.place.exact,
        place_name=happened.place_name,
        purposes=list(happened.purposes),
        visitors=happened.visitors,
        visiting=happened.visiting,
    )


@initiatives.on(InitiativeWithdrawn)
def take_back_initiative(rows: Rows, town: str, happened: InitiativeWithdrawn) -> None:
    rows.drop(NationalInitiative, town=town, initiative=happened.initiative)

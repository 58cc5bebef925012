"""What people do with the register of initiatives."""

from datetime import date
from typing import Any

from sqlalchemy.orm import Session

from services.town_node.circle.model import new_code
from services.town_node.initiatives.model import Initiative
from shared.eventlog import append
from shared.refusals import NotFound


def register_initiative(session: Session, *, phase: str, since: date, today: date, **told: Any) -> Initiative:
    """Enter an initiative into the register. Raises `InFuture`."""
    initiative = Initiative(code=new_code(), **told)
    happened = initiative.register(phase, since, today)
    session.add(initiative)
    append(session, happened)
    return initiative


def change_initiative(session: Session, code: str, **told: Any) -> Initiative:
    """Tell something else about an initiative."""
    initiative = find_initiative(session, code)
    append(session, initiative.change(**told))
    return initiative


def reach_phase(session: Session, code: str, *, phase: str, since: date, today: date) -> Initiative:
    """An initiative came into another phase. Raises `SamePhase`, `InFuture` or `BeforeLastStep`."""
    initiative = find_initiative(session, code)
    append(session, initiative.reach_phase(phase, since, today))
    return initiative


def withdraw_initiative(session: Session, code: str, today: date) -> None:
    """Take an initiative out of the register."""
    append(session, find_initiative(session, code).withdraw(today))


def find_initiative(session: Session, code: str) -> Initiative:
    """The initiative with this code, if it was not withdrawn. Raises `NotFound`."""
    initiative = session.get(Initiative, code) if code.isprintable() else None  # PostgreSQL refuses NUL in a text
    if initiative is None or initiative.withdrawn_on is not None:
        raise NotFound
    return initiative

"""How the register comes back from the association, and how it is told again (`shared/restore.py`)."""

from collections.abc import Iterator
from datetime import date

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from services.town_node.initiatives.model import Initiative
from shared.events import (
    Event,
    InitiativeChanged,
    InitiativePhaseReached,
    InitiativeRegistered,
    InitiativeState,
    InitiativeWithdrawn,
    Redacted,
)
from shared.restore import Slice


def retell(session: Session, today: date) -> Iterator[Event]:
    """Every initiative as it stands."""
    for initiative in session.scalars(select(Initiative).where(Initiative.withdrawn_on.is_(None)).order_by(Initiative.code)):
        yield initiative.change()


initiatives = Slice("initiatives", retell)


@initiatives.put_back(InitiativeRegistered, InitiativeChanged, InitiativePhaseReached)
def put_back_initiative(session: Session, happened: InitiativeState, today: date) -> None:
    initiative = session.get(Initiative, happened.initiative)
    if initiative is None:
        initiative = Initiative(code=happened.initiative)
        session.add(initiative)
    initiative.take(happened)


@initiatives.put_back(InitiativeWithdrawn)
def put_back_withdrawal(session: Session, happened: InitiativeWithdrawn, today: date) -> None:
    initiative = session.get(Initiative, happened.initiative)
    if initiative is not None and initiative.withdrawn_on is None:
        initiative.withdraw(today)


@initiatives.put_back(Redacted)
def forget_initiative(session: Session, happened: Redacted, today: date) -> None:
    session.execute(delete(Initiative).where(Initiative.code == happened.redacts))

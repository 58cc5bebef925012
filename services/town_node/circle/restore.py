"""How the circle's profile comes back from the association, and how it is told again (`shared/restore.py`).

The people do not come back: no event ever held more of them than their number (R34).
"""

from collections.abc import Iterator
from datetime import date

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.town_node.circle.model import Circle, Member
from shared.events import CircleDescribed, Event
from shared.restore import Slice


def retell(session: Session, today: date) -> Iterator[Event]:
    """The circle as it presents itself, and how many people take part."""
    circle = session.scalar(select(Circle))
    if circle is not None:
        yield circle.describe()
        members = session.scalar(select(func.count()).select_from(Member).where(Member.left_on.is_(None))) or 0
        yield circle.count(members, today)


circle = Slice("circle", retell)


@circle.put_back(CircleDescribed)
def put_back_profile(session: Session, happened: CircleDescribed, today: date) -> None:
    held = session.scalar(select(Circle))
    if held is None:
        held = Circle(code=happened.circle)
        session.add(held)
    held.take(happened)

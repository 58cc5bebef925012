"""What people do with the circle itself and with who is in it."""

from datetime import date
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.town_node.circle.membership import membership
from services.town_node.circle.model import Circle, EmailKnown, Member, new_code
from shared import login
from shared.eventlog import append
from shared.refusals import NotFound

ALONE = "van onze buurt"
"""What a circle is called at first while it works alone: it has no town from the association yet, and renames itself."""


def the_circle(session: Session) -> Circle:
    """The circle of this node; at the first use it is named after the town it joined as, and the others hear of it.

    A circle that has not joined anything yet begins under a name of its own.
    """
    circle = session.scalar(select(Circle))
    if circle is None:
        joined = membership(session)
        place = joined.name if joined else ALONE
        circle = Circle(code=new_code(), name=f"Kenniskring {place}", place_name=place)
        session.add(circle)
        append(session, circle.describe())
    return circle


def describe_circle(session: Session, **told: Any) -> Circle:
    """Tell anew what the circle is."""
    circle = the_circle(session)
    append(session, circle.describe(**told))
    return circle


def add_member(
    session: Session, *, name: str, email: str, today: date, role: str = "member", phone: str = "", language: str = "nl"
) -> Member:
    """Somebody joins the circle. Raises `EmailKnown`."""
    email = _free_email(session, email)
    circle = the_circle(session)
    member = Member(
        code=new_code(), name=name, email=email, phone=phone, role=role, language=language, joined_on=today, left_on=None
    )
    session.add(member)
    session.flush()
    append(session, circle.count(_members(session), today))
    return member


def change_details(session: Session, code: str, *, name: str, email: str, phone: str, language: str) -> Member:
    """Correct how a member is called and reached. Tells nobody outside. Raises `EmailKnown`."""
    member = find_member(session, code)
    member.email = _free_email(session, email, besides=code)
    member.name, member.phone, member.language = name, phone, language
    return member


def change_role(session: Session, code: str, role: str) -> Member:
    """Make somebody a facilitator, or a member again. Raises `LastFacilitator`."""
    member = find_member(session, code)
    member.change_role(role, _facilitators(session))
    return member


def remove_member(session: Session, code: str, today: date) -> None:
    """Somebody leaves; what lets them in ends at once. Raises `LastFacilitator`."""
    member = find_member(session, code)
    member.leave(today, _facilitators(session))
    login.forget(session, code)
    session.flush()
    append(session, the_circle(session).count(_members(session), today))


def find_member(session: Session, code: str) -> Member:
    """The member with this code, who has not left. Raises `NotFound`."""
    member = session.get(Member, code) if code.isprintable() else None  # PostgreSQL refuses NUL in a text
    if member is None or member.left_on is not None:
        raise NotFound
    return member


def _free_email(session: Session, email: str, besides: str = "") -> str:
    email = email.strip().casefold()
    if session.scalar(select(Member.code).where(Member.email == email, Member.code != besides)):
        raise EmailKnown(fields={"email": EmailKnown().words})
    return email


def _members(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Member).where(Member.left_on.is_(None))) or 0


def _facilitators(session: Session) -> int:
    return (
        session.scalar(select(func.count()).select_from(Member).where(Member.left_on.is_(None), Member.role == "facilitator")) or 0
    )

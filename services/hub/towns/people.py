"""Who works for the association: they see the towns' sync state and hand out joining codes."""

from collections.abc import Collection

from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from shared.db import Base


class AssociationMember(Base):
    """Somebody of the association, known by an e-mail address."""

    __tablename__ = "association_member"
    code: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(160))
    email: Mapped[str] = mapped_column(String(320), unique=True)
    language: Mapped[str] = mapped_column(String(8), default="nl")
    role: Mapped[str] = mapped_column(String(20), default="association")


def find_person(session: Session, code: str) -> AssociationMember | None:
    """By code."""
    return session.get(AssociationMember, code)


def find_by_email(session: Session, email: str) -> AssociationMember | None:
    """By e-mail address, casefolded."""
    return session.scalar(select(AssociationMember).where(AssociationMember.email == email))


def name_people(session: Session, codes: Collection[str]) -> dict[str, str]:
    """The names of these people."""
    of = AssociationMember
    return {row.code: row.name for row in session.execute(select(of.code, of.name).where(of.code.in_(codes)))}

"""The circle as it presents itself, and its people.

What a `Member` holds is personal and stays in this town (R34): no method here puts any of it into an event but the bare count.
"""

import re
import secrets
import unicodedata
from datetime import date
from typing import Any

from sqlalchemy import JSON, Date, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base
from shared.events import CircleCounted, CircleDescribed, Place
from shared.language import N_
from shared.refusals import Refusal


class LastFacilitator(Refusal):
    """Without a facilitator no circle (§3.5)."""

    text = N_("This is the only facilitator. Make somebody else a facilitator first.")


class EmailKnown(Refusal):
    """Two people with one address could not be told apart when they log in."""

    text = N_("Somebody in the circle already has this e-mail address.")


def new_code() -> str:
    """A random code for a new thing."""
    return secrets.token_hex(6)


def theme_code(word: str) -> str:
    """A theme in the spelling that travels: small letters, digits and _."""
    folded = "".join(sign for sign in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(sign))
    return re.sub(r"[^a-z0-9]+", "_", folded).strip("_")[:40].strip("_")


def place_of(latitude: int | None, longitude: int | None) -> Place | None:
    """The point, if both halves are known."""
    return None if latitude is None or longitude is None else Place(latitude, longitude)


class Circle(Base):
    """The one circle of this node."""

    __tablename__ = "circle"

    code: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(160))
    place_name: Mapped[str] = mapped_column(String(160))
    latitude: Mapped[int | None] = mapped_column(Integer)
    """In millionths of a degree, like the longitude."""
    longitude: Mapped[int | None] = mapped_column(Integer)
    about_text: Mapped[str] = mapped_column(Text, default="")
    status: Mapped[str] = mapped_column(String(40), default="active")
    method: Mapped[str] = mapped_column(String(40), default="circle")
    founded: Mapped[date | None] = mapped_column(Date)
    themes: Mapped[list[Any]] = mapped_column(JSON, default=list)
    public_phone: Mapped[str | None] = mapped_column(String(20))
    """The one number the circle marks as public."""

    @property
    def place(self) -> Place | None:
        """Where the circle is at home."""
        return place_of(self.latitude, self.longitude)

    def describe(self, **told: Any) -> CircleDescribed:
        for name, value in told.items():
            setattr(self, name, value)
        return CircleDescribed(
            circle=self.code,
            name=self.name,
            place_name=self.place_name,
            place=self.place,
            about_text=self.about_text or "",
            status=self.status or "active",
            method=self.method or "circle",
            founded=self.founded,
            themes=tuple(self.themes or ()),
            public_phone=self.public_phone or None,
        )

    def take(self, told: CircleDescribed) -> None:
        """Say what was told of the circle before; how it comes back after a backup."""
        for name in ("name", "place_name", "about_text", "status", "method", "founded", "public_phone"):
            setattr(self, name, getattr(told, name))
        self.latitude = told.place.latitude if told.place else None
        self.longitude = told.place.longitude if told.place else None
        self.themes = list(told.themes)

    def count(self, members: int, today: date) -> CircleCounted:
        return CircleCounted(circle=self.code, day=today, members=members)


class Member(Base):
    """A person in the circle."""

    __tablename__ = "member"

    code: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(160))
    email: Mapped[str | None] = mapped_column(String(320), unique=True)
    """Casefolded; gone when the person has left."""
    phone: Mapped[str] = mapped_column(String(40), default="")
    role: Mapped[str] = mapped_column(String(40), default="member")
    language: Mapped[str] = mapped_column(String(8), default="nl")
    joined_on: Mapped[date] = mapped_column(Date)
    left_on: Mapped[date | None] = mapped_column(Date)

    def change_role(self, role: str, facilitators: int) -> None:
        """`facilitators` counts those the circle has now, this one included."""
        if self.role == "facilitator" and role != "facilitator" and facilitators <= 1:
            raise LastFacilitator
        self.role = role

    def leave(self, today: date, facilitators: int) -> None:
        """The name stays, for the evenings this person came to; how to reach them does not."""
        if self.role == "facilitator" and facilitators <= 1:
            raise LastFacilitator
        self.left_on, self.email, self.phone = today, None, ""

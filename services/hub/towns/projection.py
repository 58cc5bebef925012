"""The towns of the association and what their circles tell about themselves."""

from datetime import date

from sqlalchemy import JSON, Date, String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from shared.db import Base
from shared.events import CircleCounted, CircleDescribed, TownAdmitted
from shared.inbox import KOEPEL
from shared.projections import Projection, Rows, version

__all__ = ["NationalCircle", "NationalCount", "NationalTown", "town_names", "towns", "version"]


class NationalTown(Base):
    """A town that was admitted."""

    __tablename__ = "national_town"

    town: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(160))


class NationalCircle(Base):
    """The circle of a town, as it presents itself."""

    __tablename__ = "national_circle"

    town: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(160))
    place_name: Mapped[str] = mapped_column(String(160))
    latitude: Mapped[int | None]
    longitude: Mapped[int | None]
    about_text: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(40))
    method: Mapped[str] = mapped_column(String(40))
    founded: Mapped[date | None] = mapped_column(Date)
    themes: Mapped[list[str]] = mapped_column(JSON)
    public_phone: Mapped[str | None] = mapped_column(String(20))


class NationalCount(Base):
    """How many people took part in a circle on a day; for the association only."""

    __tablename__ = "national_count"

    town: Mapped[str] = mapped_column(String(40), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    members: Mapped[int]


towns = Projection("towns", [NationalTown, NationalCircle, NationalCount], told_by_others=[NationalTown])


@towns.on(TownAdmitted)
def show_town(rows: Rows, town: str, happened: TownAdmitted) -> None:
    if town == KOEPEL:  # a town cannot admit another one, whatever it writes in its own log
        rows.put(NationalTown, town=happened.town, name=happened.name)


@towns.on(CircleDescribed)
def describe_circle(rows: Rows, town: str, happened: CircleDescribed) -> None:
    rows.put(
        NationalCircle,
        town=town,
        name=happened.name,
        place_name=happened.place_name,
        latitude=happened.place.latitude if happened.place else None,
        longitude=happened.place.longitude if happened.place else None,
        about_text=happened.about_text,
        status=happened.status,
        method=happened.method,
        founded=happened.founded,
        themes=list(happened.themes),
        public_phone=happened.public_phone,
    )


@towns.on(CircleCounted)
def count_members(rows: Rows, town: str, happened: CircleCounted) -> None:
    rows.put(NationalCount, town=town, day=happened.day, members=happened.members)


def town_names(session: Session) -> dict[str, str]:
    """Short name → name, by name."""
    return dict(session.execute(select(NationalTown.town, NationalTown.name).order_by(NationalTown.name)).all())

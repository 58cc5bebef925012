"""Finding one's way in a list: what the address asks for, the choices beside the list with their counts, and its pages.

Everything stands in the address, so a choice can be sent to somebody else and works without JavaScript.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from flask import request
from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from shared.refusals import NotFound

PAGE_SIZE, LAST_PAGE = 50, 10_000


@dataclass
class Option:
    """One choice: a link that makes it, or undoes it."""

    label: str
    count: int
    active: bool
    url: str


@dataclass
class Facet:
    """Choices of one sort."""

    legend: str
    options: list[Option]


def asked(name: str, most: int = 200) -> str:
    """What the address says about this, if anything."""
    return request.args.get(name, "").replace("\0", "").strip()[:most]


def here(**changes: Any) -> str:
    """This page with other arguments; an empty one is left out, and the list starts at its first page."""
    arguments = {name: value for name, value in request.args.items() if name != "page"} | changes
    said = urlencode({name: value for name, value in arguments.items() if value})
    return f"{request.path}?{said}" if said else request.path


class Tally:
    """What there is of each sort, in one look at the database: for the choices beside a list, and for its length.

    `wanted` holds the list's conditions by name; one that is named like a column is a choice from that column.
    """

    def __init__(self, session: Session, columns: Mapping[str, Any], wanted: Mapping[str, ColumnElement[bool]]) -> None:
        self._chosen = {name: asked(name) for name in columns if name in wanted}
        fixed = [condition for name, condition in wanted.items() if name not in columns]
        rows = session.execute(select(*columns.values(), func.count()).where(*fixed).group_by(*columns.values()))
        self._rows = [(dict(zip(columns, values, strict=True)), number) for *values, number in rows]

    @property
    def total(self) -> int:
        """How many the choices leave."""
        return sum(number for value, number in self._rows if self._fits(value))

    def _fits(self, value: Mapping[str, Any], but: str = "") -> bool:
        return all(value[name] == chosen for name, chosen in self._chosen.items() if name != but)

    def facet(self, legend: str, name: str, label: Callable[[str], str], order: Sequence[str] = ()) -> Facet:
        """The values of a column that occur among what the other choices leave, with how often; chosen ones stay even at nought."""
        counts: dict[str, int] = {}
        for value, number in self._rows:
            if value[name] is not None and self._fits(value, but=name):
                counts[value[name]] = counts.get(value[name], 0) + number
        chosen = self._chosen.get(name)
        if chosen:
            counts.setdefault(chosen, 0)
        values = [value for value in order if value in counts]
        values += sorted((value for value in counts if value not in order), key=lambda value: label(value).casefold())
        options = [
            Option(label(value), counts[value], value == chosen, here(**{name: "" if value == chosen else value}))
            for value in values
        ]
        return Facet(legend, options)


@dataclass
class Page:
    """A part of a list, and the way to the next and the previous part."""

    rows: Sequence[Any]
    total: int
    next_url: str | None
    previous_url: str | None


def paged(session: Session, query: Select[Any], total: int, size: int = PAGE_SIZE) -> Page:
    """The part of the list that the address asks for; a query of columns gives rows of them, which cost half of what objects do."""
    number = asked("page", 6)
    page = min(int(number), LAST_PAGE) if number.isascii() and number.isdigit() and int(number) else 1
    found = session.execute(query.limit(size).offset((page - 1) * size))
    rows: Sequence[Any] = found.scalars().all() if len(query.column_descriptions) == 1 else found.all()
    return Page(
        rows,
        total,
        here(page=page + 1) if page * size < total else None,
        here(page=page - 1 if page > 2 else "") if page > 1 else None,
    )


def count(session: Session, model: Any, *conditions: ColumnElement[bool]) -> int:
    """How many rows there are, of those."""
    return session.scalar(select(func.count()).select_from(model).where(*conditions)) or 0


def find(session: Session, model: Any, *key: str) -> Any:
    """The row that an address names. Raises `NotFound`."""
    found = session.get(model, key) if all(part.isprintable() for part in key) else None  # PostgreSQL refuses NUL in a text
    if found is None:
        raise NotFound
    return found

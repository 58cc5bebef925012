"""Choices beside a list, and pages of it: the same for initiatives, lessons and the library."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from flask import request
from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

PAGE = 30


def asked(name: str) -> str:
    """What the address asks for under this name."""
    return request.args.get(name, "").replace("\0", "").strip()[:200]


def here(**changed: Any) -> str:
    """This list with other choices; None leaves one out, and another choice begins at the first page."""
    arguments = {name: value for name, value in request.args.items() if name != "page"} | changed
    said = urlencode({name: value for name, value in arguments.items() if value})
    return f"{request.path}?{said}" if said else request.path


def facet(
    session: Session,
    legend: str,
    name: str,
    column: Any,
    wanted: Mapping[str, ColumnElement[bool]],
    word: Callable[[str], str],
) -> dict[str, Any]:
    """One group of choices, each with how many rows it would leave; the other choices hold."""
    others = [condition for key, condition in wanted.items() if key != name]
    rows = session.execute(
        select(column, func.count()).where(column.is_not(None), *others).group_by(column).order_by(func.count().desc(), column)
    ).all()
    chosen = asked(name)
    return {
        "legend": legend,
        "options": [
            {
                "label": word(code),
                "count": count,
                "active": code == chosen,
                "url": here(**{name: None if code == chosen else code}),
            }
            for code, count in rows
        ],
    }


@dataclass(frozen=True)
class Page:
    """Some rows of a list."""

    rows: Sequence[Any]
    total: int
    next_url: str | None
    previous_url: str | None


def paged(session: Session, query: Select[Any], total: int) -> Page:
    """The page of the list that the address asks for."""
    said = request.args.get("page", "1")
    number = int(said) if said.isascii() and said.isdigit() and 0 < len(said) < 7 and int(said) > 0 else 1
    rows = session.scalars(query.limit(PAGE + 1).offset((number - 1) * PAGE)).all()
    return Page(
        rows[:PAGE],
        total,
        here(page=number + 1) if len(rows) > PAGE else None,
        here(page=number - 1) if number > 1 else None,
    )

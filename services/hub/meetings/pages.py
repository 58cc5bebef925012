"""What circles will do and what they did, in all towns (R9, R14)."""

from typing import Any

from flask import Blueprint, url_for
from sqlalchemy import select

from services.hub.lessons.projection import NationalLesson
from services.hub.meetings.projection import NationalMeeting
from services.hub.towns.projection import town_names
from shared.events import MEETING_KINDS
from shared.finding import Tally, asked, count, find, paged
from shared.labels import label
from shared.language import _
from shared.web import reading, render, today

pages = Blueprint("meetings", __name__, url_prefix="/meetings")

COMING = 12


@pages.get("")
def index() -> Any:
    columns = {"kind": NationalMeeting.kind, "town": NationalMeeting.town}
    held = NationalMeeting.status == "held"
    # One that was planned, and of which nobody told how it went, is on no list: so it does not count either.
    wanted: dict[str, Any] = {"shown": held | (NationalMeeting.day >= today())}
    wanted |= {name: column == asked(name) for name, column in columns.items() if asked(name)}
    with reading() as session:
        names = town_names(session)
        tally = Tally(session, columns, wanted)
        facets = [
            tally.facet(_("Town"), "town", lambda town: names.get(town, town)),
            tally.facet(_("Kind"), "kind", lambda code: label(code, "meeting_kind"), MEETING_KINDS),
        ]
        ahead = select(NationalMeeting).where(~held, NationalMeeting.day >= today(), *wanted.values())
        coming = session.scalars(ahead.order_by(NationalMeeting.day, NationalMeeting.starts).limit(COMING)).all()
        behind = select(NationalMeeting).where(held, *wanted.values()).order_by(NationalMeeting.day.desc(), NationalMeeting.town)
        page = paged(session, behind, count(session, NationalMeeting, held, *wanted.values()))
    return render(
        "meetings/index.html",
        coming=coming,
        page=page,
        facets=facets,
        names=names,
        clear_url=url_for(".index") if len(wanted) > 1 else None,
    )


@pages.get("/<town>/<code>")
def show(town: str, code: str) -> Any:
    with reading() as session:
        meeting = find(session, NationalMeeting, town, code)
        names = town_names(session)
        lessons = session.scalars(
            select(NationalLesson).where(NationalLesson.town == town, NationalLesson.meeting == code).limit(20)
        ).all()
    return render("meetings/show.html", meeting=meeting, names=names, lessons=lessons)

"""Today, the sync page, and what was erased for good.

Today: the next meeting, what to do first, and what other towns learned. The sync page says what the association has, what waits,
since when and what to do; who reads it need not know what a log is.
"""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from flask import Blueprint, current_app, redirect, url_for
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.town_node.circle.membership import membership, present_key, spelled
from services.town_node.circle.model import Circle, Member
from services.town_node.config import Settings
from services.town_node.home import erasures
from services.town_node.home.setup import is_new
from services.town_node.home.sync import (
    TwoVersions,
    complaints,
    glance,
    quiet_after,
    refused_here,
    state_of,
    two_versions,
    what_waits,
)
from services.town_node.initiatives.model import Initiative
from services.town_node.lessons.library import LibraryLesson, town_names
from services.town_node.lessons.model import Lesson
from services.town_node.meetings.model import RECENT, Meeting
from shared.labels import label
from shared.language import N_, _, day
from shared.operations import worker_runs
from shared.refusals import NotAllowed
from shared.restore import last_comeback, settle_conflict
from shared.web import Form, flash_ok, may, me, now, reading, render, require, today, transaction

pages = Blueprint("home", __name__)
sync = Blueprint("sync", __name__, url_prefix="/sync")
erasing = Blueprint("erasures", __name__, url_prefix="/erasures")


COMEBACK_TOLD = timedelta(days=7)
"""How long the first page tells that this site was put back."""


@pages.get("/", endpoint="today")
def today_page() -> Any:
    with reading() as session:
        nobody = is_new(session)
        if nobody and membership(session) is None:
            return redirect(url_for("membership.begin"))
        circle = session.scalar(select(Circle))
        tonight = session.scalars(
            select(Meeting).where(Meeting.status != "cancelled", Meeting.day == today()).order_by(Meeting.starts).limit(1)
        ).first()
        coming = session.scalars(
            select(Meeting)
            .where(Meeting.status == "planned", Meeting.day >= today(), Meeting.code != (tonight.code if tonight else ""))
            .order_by(Meeting.day, Meeting.starts)
            .limit(1)
        ).first()
        unfinished = session.scalars(
            select(Meeting)
            .where(Meeting.status == "planned", Meeting.day < today(), Meeting.day >= today() - RECENT)
            .order_by(Meeting.day.desc())
            .limit(3)
        ).all()
        counts = {
            "members": session.scalar(select(func.count()).select_from(Member).where(Member.left_on.is_(None))) or 0,
            "initiatives": session.scalar(
                select(func.count()).select_from(Initiative).where(Initiative.withdrawn_on.is_(None))
            ) or 0,
            "lessons": session.scalar(select(func.count()).select_from(Lesson).where(Lesson.withdrawn_on.is_(None))) or 0,
            "held": session.scalar(select(func.count()).select_from(Meeting).where(Meeting.status == "held")) or 0,
        }  # fmt: skip
        elsewhere = session.scalars(
            select(LibraryLesson).order_by(LibraryLesson.shared_on.desc(), LibraryLesson.lesson).limit(5)
        ).all()
        names = town_names(session)
        back = last_comeback(session) if may("facilitator") else None
    to_begin = [step for step in _first_steps(circle, counts, tonight or coming) if not step["done"]] if may("facilitator") else []
    return render(
        "home/today.html", circle=circle, coming=coming, unfinished=unfinished, counts=counts, elsewhere=elsewhere, names=names,
        to_begin=to_begin, tonight=tonight, nobody=nobody,
        came_back=back is not None and now() - back.came_at < COMEBACK_TOLD,
    )  # fmt: skip


def _first_steps(circle: Circle | None, counts: dict[str, int], coming: Meeting | None) -> list[dict[str, Any]]:
    """What makes a new circle run, in the order that worked in Almere (§4.2)."""
    return [
        {"title": _("Tell who you are"), "url": url_for("circle.edit"), "done": bool(circle and circle.about_text)},
        {"title": _("Let people in"), "url": url_for("circle.add_person"), "done": counts["members"] > 1},
        {"title": _("Register the first initiative"), "url": url_for("initiatives.register"), "done": counts["initiatives"] > 0},
        {"title": _("Plan a meeting"), "url": url_for("meetings.plan"), "done": coming is not None or counts["held"] > 0},
        {"title": _("Share a first lesson"), "url": url_for("lessons.share"), "done": counts["lessons"] > 0},
    ]


# ---- What the association has ----------------------------------------------------------------------------------------------

FIELDS = {
    "name": N_("Name"), "title": N_("Title"), "body": N_("The whole story"), "about_text": N_("Description"), "kind": N_("Kind"),
    "theme": N_("Theme"), "themes": N_("Themes"), "phase": N_("Helps in this phase"), "history": N_("How it grew"),
    "place": N_("On the map"), "place_name": N_("Place"), "purposes": N_("What for"), "visitors": N_("Visitors are welcome"),
    "visiting": N_("When to visit"), "day": N_("Day"), "starts": N_("From"), "ends": N_("Until"), "agenda": N_("Agenda"),
    "status": N_("How it stands"), "attended": N_("People who came"), "report": N_("Report"), "method": N_("How the circle works"),
    "founded": N_("Founded on"), "public_phone": N_("Public telephone number"), "initiative": N_("Learned at"),
    "meeting": N_("Told at the meeting"), "shared_on": N_("Shared on"), "byline": N_("Written by"),
}  # fmt: skip
"""What the fields of events are called on a page."""
GROUPS = {"theme": "theme", "themes": "theme", "phase": "phase", "purposes": "purpose", "method": "working_method"}
CHANGE: dict[str, Callable[[str], str]] = {
    "circle": lambda _code: url_for("circle.edit"),
    "initiative": lambda code: url_for("initiatives.change", code=code),
    "meeting": lambda code: url_for("meetings.change", code=code),
    "lesson": lambda code: url_for("lessons.revise", code=code),
}


@sync.get("", endpoint="index")
def sync_page() -> Any:
    with reading() as session:
        seen, joined = glance(session), membership(session)
        inside, key = may("member"), present_key(session, current_app.extensions["node"])
        shown = {
            "waits": what_waits(session, seen),
            "came_back": last_comeback(session),
            "versions": [_side_by_side(session, one) for one in two_versions(session)] if inside else [],
            "complaints": complaints(session) if inside else [],
            "refused": refused_here(session) if inside else [],
            "names": town_names(session),
        }
    settings: Settings = current_app.extensions["node"]
    state = state_of(seen, now(), quiet_after(settings))
    return render(
        "home/sync.html", seen=seen, state=state, joined=joined, works=worker_runs(settings.state),
        short=spelled(key[0]) if key else "", quiet=seen.town is not None and seen.is_quiet(now(), quiet_after(settings)), **shown,
    )  # fmt: skip


@sync.post("/<code>/settle")
@require("facilitator")
def settle(code: str) -> Any:
    with transaction() as session:
        settle_conflict(session, code)
    flash_ok(_("Good. What stands here now is what counts."))
    return redirect(url_for(".index"))


def _side_by_side(session: Session, one: TwoVersions) -> dict[str, Any]:
    """A thing that changed on both sides, in the words of the page."""
    here = True
    if one.kind in erasures.ERASABLE:
        found = session.get(erasures.ERASABLE[one.kind], one.subject)
        here = found is not None and getattr(found, "withdrawn_on", None) is None and getattr(found, "status", "") != "cancelled"
    return {
        "subject": one.subject,
        "title": one.title or _("Something of this circle"),
        "noticed_at": one.noticed_at,
        "gone_here": one.gone_here,
        "gone_there": one.gone_there,
        "differs": [(_(FIELDS.get(name, name)), _say(name, mine), _say(name, theirs)) for name, mine, theirs in one.differs],
        "change_url": CHANGE[one.kind](one.subject) if here and one.kind in CHANGE else None,
    }


def _say(name: str, value: Any) -> str:
    """What a field of an event holds, in words."""
    if value is None or value in ("", [], {}):
        return "–"
    if isinstance(value, bool):
        return _("Yes") if value else _("No")
    if isinstance(value, list):
        return ", ".join(_say(name, part) for part in value)
    if isinstance(value, dict):
        return " ".join(_say(part, said) for part, said in value.items())
    if name in {"day", "founded", "shared_on", "since", "agreed"}:
        return day(date.fromisoformat(str(value)))
    return label(str(value), GROUPS[name]) if name in GROUPS else str(value)


# ---- Erased for good -------------------------------------------------------------------------------------------------------

KINDS = {"lesson": N_("Lesson"), "initiative": N_("Initiative"), "meeting": N_("Meeting"), "": N_("Something")}


@erasing.get("")
@require("member")
def index() -> Any:
    with reading() as session:
        joined, erased = membership(session), erasures.read_erasures(session)
        gone = erasures.taken_back(session) if may("facilitator") else []
    return render(
        "home/erasures.html", joined=joined, erased=erased, taken_back=gone, kinds={kind: _(word) for kind, word in KINDS.items()}
    )


@erasing.route("/<kind>/<code>", methods=["GET", "POST"])
@require("member")
def erase(kind: str, code: str) -> Any:
    with reading() as session:
        thing, joined = erasures.find(session, kind, code), membership(session)
    if not may("facilitator") and not (kind == "lesson" and thing.author is not None and thing.author == me()):
        raise NotAllowed
    form = Form()
    if form.validate_on_submit():
        with transaction() as session:
            erasures.erase(session, kind, code, now())
        flash_ok(_("It is erased here. Below you see when the others have confirmed it."))
        return redirect(url_for(".index"))
    back = {"lesson": "lessons.show", "initiative": "initiatives.show", "meeting": "meetings.show"}[kind]
    here = getattr(thing, "withdrawn_on", None) is None and getattr(thing, "status", "") != "cancelled"
    return render(
        "home/erase.html", kind=kind, code=code, what=_(KINDS[kind]), joined=joined,
        title=thing.name if kind == "initiative" else thing.title,
        back_url=url_for(back, code=code) if here else url_for(".index"),
    )  # fmt: skip

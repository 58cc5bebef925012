"""Today: the next meeting, what to do first, and what other towns learned."""

from typing import Any

from flask import Blueprint, url_for
from sqlalchemy import func, select

from services.town_node.circle.model import Circle, Member
from services.town_node.initiatives.model import Initiative
from services.town_node.lessons.library import LibraryLesson, town_names
from services.town_node.lessons.model import Lesson
from services.town_node.meetings.model import Meeting
from shared.language import _
from shared.web import may, reading, render, today

pages = Blueprint("home", __name__)


@pages.get("/", endpoint="today")
def today_page() -> Any:
    with reading() as session:
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
            select(Meeting).where(Meeting.status == "planned", Meeting.day < today()).order_by(Meeting.day.desc()).limit(3)
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
    to_begin = [step for step in _first_steps(circle, counts, tonight or coming) if not step["done"]] if may("facilitator") else []
    return render(
        "home/today.html", circle=circle, coming=coming, unfinished=unfinished, counts=counts, elsewhere=elsewhere, names=names,
        to_begin=to_begin, tonight=tonight,
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

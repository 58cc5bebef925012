"""The circle's own lessons, and the association: the lessons of other towns."""

import re
from typing import Any

from flask import Blueprint, current_app, redirect, request, url_for
from sqlalchemy import select
from sqlalchemy.orm import Session
from wtforms import BooleanField

from services.town_node.circle.fields import AskingForm, area, choose, is_right, line, look_first
from services.town_node.circle.membership import membership
from services.town_node.circle.model import Circle
from services.town_node.config import Settings
from services.town_node.initiatives.model import Initiative
from services.town_node.lessons import actions
from services.town_node.lessons.library import LibraryLesson, town_names
from services.town_node.lessons.model import Lesson
from services.town_node.meetings.model import Meeting, RoundEntry
from shared.events import LESSON_KINDS, PHASES, THEMES
from shared.finding import Tally, asked, paged
from shared.labels import choices, label
from shared.language import N_, Words, _, day
from shared.refusals import NotAllowed, NotFound
from shared.search import matching, rank
from shared.web import flash_ok, markdown, may, me, person, reading, render, require, today, transaction

pages = Blueprint("lessons", __name__, url_prefix="/lessons")
library_pages = Blueprint("library", __name__, url_prefix="/association")


class LessonForm(AskingForm):
    title = line(
        N_("In one sentence"),
        needed=True,
        hint=N_("As you would say it to somebody who starts a garden, such as: Ask the neighbours in person."),
    )
    body = area(N_("The whole story"), needed=True, hint=N_("What happened, what you would do again, what not."))
    kind = choose(N_("Kind"), needed=True)
    theme = choose(N_("Theme"), needed=True)
    phase = choose(N_("Helps in this phase"))
    initiative = choose(N_("Learned at"))
    meeting = choose(N_("Told at the meeting"))
    signed = BooleanField(
        Words(N_("Put my name under it")), description=Words(N_("Then everybody sees your name, in other towns too."))
    )
    look = look_first()

    def offer(self, session: Session) -> None:
        """Fill in the choices."""
        own = session.scalar(select(Circle.themes)) or []
        wanted = self.meeting.data or ""  # the meeting that was asked for, whenever it is
        begun = (Meeting.day <= today()) | (Meeting.code == (wanted if wanted.isprintable() else ""))
        met = session.execute(
            select(Meeting.code, Meeting.title, Meeting.day)
            .where(Meeting.status != "cancelled", begun)
            .order_by(Meeting.day.desc(), Meeting.code)
        ).all()
        known = choices("theme")
        used = session.scalars(select(Lesson.theme).distinct()).all()
        codes = [code for code, _word in known]
        more = [(code, label(code, "theme")) for code in dict.fromkeys([*own, *used]) if code not in codes]
        self.theme.choices = [("", _("Choose a theme")), *known, *more]
        self.kind.choices = [("", _("Choose a kind")), *choices("lesson_kind")]
        self.phase.choices = [("", _("Every phase")), *choices("phase")]
        self.initiative.choices = [("", _("No initiative in particular")), *_initiatives(session)]
        self.meeting.choices = [("", _("No meeting in particular")), *((code, f"{title}, {day(on)}") for code, title, on in met)]

    @property
    def told(self) -> dict[str, Any]:
        return {name: self[name].data for name in ("title", "body", "kind", "theme")} | {
            name: self[name].data or None for name in ("phase", "initiative", "meeting")
        }


def _initiatives(session: Session) -> list[tuple[str, str]]:
    query = select(Initiative.code, Initiative.name).where(Initiative.withdrawn_on.is_(None)).order_by(Initiative.name)
    return [(code, name) for code, name in session.execute(query)]


def _list(session: Session, model: Any, extra: dict[str, Any], newest: Any, names: dict[str, str] | None = None) -> dict[str, Any]:
    """What a list of lessons shows: found, chosen, counted."""
    columns = {"theme": model.theme, "phase": model.phase, "kind": model.kind}
    if names is not None:
        columns["town"] = model.town
    wanted = extra | {name: column == asked(name) for name, column in columns.items() if asked(name)}
    words = asked("q")
    if words:
        wanted["q"] = matching(session, model, words)
    tally = Tally(session, columns, wanted)
    facets = [
        tally.facet(_("Theme"), "theme", lambda code: label(code, "theme"), THEMES),
        tally.facet(_("Helps in this phase"), "phase", lambda code: label(code, "phase"), PHASES),
        tally.facet(_("Kind"), "kind", lambda code: label(code, "lesson_kind"), LESSON_KINDS),
    ]
    if names is not None:
        facets.append(tally.facet(_("Town"), "town", lambda town: names.get(town, town)))
    query = select(model).where(*wanted.values())
    if words:
        query = query.order_by(rank(session, model, words))
    return {
        "page": paged(session, query.order_by(model.shared_on.desc(), newest), tally.total),
        "facets": facets,
        "words": words,
        "kept": {name: asked(name) for name in columns if asked(name)},
        "clear_url": url_for(".index") if len(wanted) > len(extra) else None,
    }


@pages.get("")
def index() -> Any:
    with reading() as session:
        shown = _list(session, Lesson, {"here": Lesson.withdrawn_on.is_(None)}, Lesson.code)
    return render("lessons/index.html", **shown)


@pages.get("/<code>")
def show(code: str) -> Any:
    with reading() as session:
        lesson = actions.find_lesson(session, code)
        initiative = session.get(Initiative, lesson.initiative) if lesson.initiative else None
        meeting = session.get(Meeting, lesson.meeting) if lesson.meeting else None
        elsewhere = session.scalars(
            select(LibraryLesson)
            .where(LibraryLesson.theme == lesson.theme)
            .order_by(LibraryLesson.shared_on.desc(), LibraryLesson.lesson)
            .limit(4)
        ).all()
        names = town_names(session)
        only_here = actions.is_only_here(session, code)
    return render(
        "lessons/show.html",
        lesson=lesson,
        initiative=initiative if initiative and initiative.withdrawn_on is None else None,
        meeting=meeting if meeting and meeting.status != "cancelled" else None,
        elsewhere=elsewhere,
        names=names,
        mine=_may_change(lesson),
        only_here=only_here,
    )


def _may_change(lesson: Lesson) -> bool:
    return may("facilitator") or (lesson.author is not None and lesson.author == me())


@pages.route("/new", methods=["GET", "POST"])
@require("member")
def share() -> Any:
    form = LessonForm()
    with reading() as session:
        if not form.is_submitted():
            _begin_from_round(session, form)
            _begin_from_lesson(session, form)
        form.offer(session)
    if is_right(form, [form.title.data, form.body.data]):
        with transaction() as session:
            lesson = actions.share_lesson(session, me(), today=today(), byline=_byline(form), **form.told)
            flash_ok(_("Thank you. Members find this lesson now, and so will the other towns."))
            return redirect(url_for(".show", code=lesson.code))
    return _form_page(form, None)


def _form_page(form: LessonForm, lesson: Lesson | None) -> Any:
    page = render("lessons/form.html", form=form, lesson=lesson)
    return page, 422 if form.is_submitted() and not form.look.data else 200


def _byline(form: LessonForm) -> str | None:
    who = person()
    return who.name if who and form.signed.data else None


def _begin_from_lesson(session: Session, form: LessonForm) -> None:
    """What was erased elsewhere can be told once more, as another lesson."""
    before = session.get(Lesson, asked("lesson")) if asked("lesson") else None
    if before is not None and before.withdrawn_on is None:
        for name in form.told:
            form[name].data = getattr(before, name) or ""


SENTENCE_MAX = 80
"""Characters; what is longer is no sentence to find a lesson by."""


def _one_sentence(told: str) -> str:
    """The first sentence of what was told, if it can stand alone; else nothing, and the page asks for one."""
    line = markdown(told.strip().partition("\n")[0]).striptags()
    sentence = re.split(r"(?<=[.!?])\s", line)[0].rstrip(". ")
    return sentence if len(sentence) <= SENTENCE_MAX and " " in sentence else ""


def _begin_from_round(session: Session, form: LessonForm) -> None:
    """What was said in a round becomes a lesson in one step (R17)."""
    entry = session.get(RoundEntry, asked("round")) if asked("round") else None
    if entry is None:
        form.initiative.data = asked("initiative")
        told_at = session.get(Meeting, asked("meeting")) if asked("meeting") else None
        if told_at is not None:
            form.meeting.data, form.theme.data = told_at.code, told_at.theme or ""
        return
    answer = asked("answer") if asked("answer") in {"learned", "tips"} else "learned"
    form.body.data = getattr(entry, answer) or ""
    form.title.data = _one_sentence(form.body.data)
    form.kind.data = "tip" if answer == "tips" else "do"
    meeting, initiative = session.get(Meeting, entry.meeting), session.get(Initiative, entry.initiative)
    if meeting is not None:
        form.meeting.data = meeting.code
        form.theme.data = meeting.theme or ""
    if initiative is not None and initiative.withdrawn_on is None:
        form.initiative.data = initiative.code
        form.phase.data = initiative.phase


@pages.route("/<code>/edit", methods=["GET", "POST"])
@require("member")
def revise(code: str) -> Any:
    with reading() as session:
        lesson = actions.find_lesson(session, code)
        if not _may_change(lesson):
            raise NotAllowed
        if actions.is_only_here(session, code):
            raise actions.ErasedElsewhere
        form = LessonForm(obj=lesson)
        form.offer(session)
    own = lesson.author == me()
    if not own:
        del form.signed  # only the author can agree to be named
    elif not form.is_submitted():
        form.signed.data = bool(lesson.byline_name)
    if is_right(form, [form.title.data, form.body.data]):
        with transaction() as session:
            byline = _byline(form) if own else lesson.byline_name
            actions.revise_lesson(session, code, today=today(), byline=byline, **form.told)
            flash_ok(_("Saved. The other towns will see this too."))
            return redirect(url_for(".show", code=code))
    return _form_page(form, lesson)


@pages.post("/<code>/withdraw")
@require("member")
def withdraw(code: str) -> Any:
    with transaction() as session:
        if not _may_change(actions.find_lesson(session, code)):
            raise NotAllowed
        actions.withdraw_lesson(session, code, today())
    flash_ok(_("The lesson is taken back, here and in the other towns."))
    return redirect(url_for(".index"))


@library_pages.get("", endpoint="index")
def index_of_all() -> Any:
    with reading() as session:
        names = dict(town_names(session))
        shown = _list(session, LibraryLesson, {}, LibraryLesson.lesson, names)
        joined = membership(session)
    settings: Settings = current_app.extensions["node"]
    hub_url = (settings.hub or joined.hub_url).rstrip("/") if joined else ""
    return render("library/index.html", names=names, hub_url=hub_url, **shown)


@library_pages.get("/<town>/<code>", endpoint="show")
def show_one(town: str, code: str) -> Any:
    if not request.path.isprintable():  # PostgreSQL refuses NUL in a text
        raise NotFound
    with reading() as session:
        lesson = session.get(LibraryLesson, (town, code))
        if lesson is None:
            raise NotFound
        names = town_names(session)
        own = session.scalars(
            select(Lesson)
            .where(Lesson.theme == lesson.theme, Lesson.withdrawn_on.is_(None))
            .order_by(Lesson.shared_on.desc())
            .limit(4)
        ).all()
    return render("library/show.html", lesson=lesson, names=names, own=own)

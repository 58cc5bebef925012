"""Meetings: the list, the plan, the evening itself, the round and the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from flask import Blueprint, redirect, url_for
from sqlalchemy import select
from sqlalchemy.orm import Session
from wtforms import (
    BooleanField,
    DateField,
    FormField,
    HiddenField,
    IntegerField,
    SelectMultipleField,
    StringField,
    TimeField,
    widgets,
)
from wtforms.validators import InputRequired, Length, NumberRange, Optional, ValidationError

from services.town_node.circle.fields import AskingForm, area, choose, is_right, line, look_first, one_line
from services.town_node.circle.model import Circle, Member
from services.town_node.initiatives.actions import find_initiative
from services.town_node.initiatives.model import Initiative
from services.town_node.lessons.model import Lesson
from services.town_node.meetings import actions
from services.town_node.meetings.model import (
    ANSWERS,
    RECENT,
    Attendance,
    EndsBeforeStart,
    Meeting,
    MoreCameThanCounted,
    NotHeldYet,
    RoundEntry,
)
from shared.events import LINE_MAX
from shared.fields import Rows
from shared.finding import PAGE_SIZE, count, paged
from shared.labels import choices, label
from shared.language import HOUSE, N_, Words, _, ngettext, number, speak
from shared.web import Form, flash_ok, may, naming, reading, render, require, today, transaction

pages = Blueprint("meetings", __name__, url_prefix="/meetings")

FIXED = ((N_("Welcome, with something to drink"), 15), (N_("Round: how is it going?"), 45), (N_("Theme"), 45),
         (N_("Strengthening the circle"), 15))  # fmt: skip
"""The fixed ingredients of an evening (§2.2), in minutes."""
QUESTIONS = {
    "happened": N_("What went well, and what else happened?"),
    "learned": N_("What did you learn?"),
    "next_step": N_("What is the next step?"),
    "circle_could": N_("What could the circle do?"),
    "tips": N_("Which tips do you have for others?"),
}


class ItemForm(Form):
    """One item of the agenda."""

    class Meta(Form.Meta):
        """The form around it has the token."""

        csrf = False

    title = StringField(Words(N_("Item %(n)s: what")), filters=[one_line], validators=[Length(max=LINE_MAX)])
    minutes = IntegerField(
        Words(N_("Item %(n)s: minutes")),
        validators=[Optional(), NumberRange(0, 1440)],
        render_kw={"inputmode": "numeric", "min": 0},
    )

    def validate_title(self, field: Any) -> None:
        if not field.data and self.minutes.data:
            raise ValidationError(_("Write what these minutes are for, or leave the whole row empty."))


class MeetingForm(AskingForm):
    title = line(N_("Title"), needed=True)
    kind = choose(N_("Kind"))
    theme = choose(N_("Theme"))
    day = DateField(Words(N_("Day")), validators=[InputRequired()])
    past_seen = HiddenField()
    past_agreed = BooleanField(Words(N_("Yes, the meeting was on this day.")))
    starts = TimeField(Words(N_("From")), validators=[InputRequired()])
    ends = TimeField(Words(N_("Until")), validators=[Optional()])
    place_name = line(N_("Place"), hint=N_("Not the address of somebody's home: everybody can read this."))
    agenda = Rows(
        FormField(ItemForm),
        Words(N_("Agenda")),
        description=Words(N_("What the evening is made of. Without minutes: as long as it takes. An empty row is left out.")),
    )
    passed = False
    """Whether it asks about a day that has passed."""

    def offer(self, session: Session) -> None:
        """Fill in the choices."""
        known = choices("theme")
        codes = [code for code, _word in known]
        own = [code for code in session.scalar(select(Circle.themes)) or [] if code not in codes]
        self.kind.choices = choices("meeting_kind")
        self.theme.choices = [("", _("No theme")), *known, *((code, label(code, "theme")) for code in own)]

    def validate_ends(self, field: Any) -> None:
        if field.data and self.starts.data and field.data <= self.starts.data:
            raise ValidationError(_(EndsBeforeStart.text))

    def validate_agenda(self, field: Any) -> None:
        if len(self.items) > Rows.MOST:
            raise ValidationError(_("An agenda has at most %(most)s items.", most=Rows.MOST))

    @property
    def asked(self) -> set[str]:
        return super().asked | ({"past_agreed"} if self.passed else set())

    @property
    def balance(self) -> dict[str, Any]:
        """What the items come to beside the length of the evening: for the page, which says it, and for `enhance.js`."""
        starts, ends = self.starts.data, self.ends.data
        takes = sum(item["minutes"] for item in self.items)
        lasts = (ends.hour - starts.hour) * 60 + ends.minute - starts.minute if starts and ends else 0
        return {"takes": takes, "lasts": lasts, "from": self.starts.id, "until": self.ends.id} | {
            "alone": _("The agenda takes %(takes)s minutes."),
            "free": _("The agenda takes %(takes)s of the evening's %(lasts)s minutes. Still free: %(rest)s."),
            "full": _("The agenda fills the whole evening: %(takes)s minutes."),
            "over": _("The agenda takes %(takes)s minutes; the evening has %(lasts)s. Too much: %(rest)s."),
        }

    @property
    def items(self) -> list[dict[str, Any]]:
        rows = self.agenda.data
        return [{"title": row["title"], "minutes": row["minutes"] or 0} for row in rows if row["title"]]

    @property
    def told(self) -> dict[str, Any]:
        names = ("title", "kind", "day", "starts", "ends", "place_name")
        return {name: self[name].data for name in names} | {"theme": self.theme.data or None, "agenda": self.items}

    @property
    def texts(self) -> list[str]:
        """What may name somebody."""
        return [self.title.data, self.place_name.data, *(item["title"] for item in self.items)]


def ask_about_day(form: MeetingForm, today: date, was: date | None = None) -> bool:
    """Whether this day may stand. If it has passed, the form comes back once with everything typed, and asks.

    A circle may write down an evening that was; more often somebody took the wrong year. A tick holds for
    the day it was shown with.
    """
    told = form.day.data
    if told is None or told >= today or told == was or (form.past_agreed.data and form.past_seen.data == told.isoformat()):
        return True
    form.passed = True
    form.past_seen.data = told.isoformat()
    form.past_agreed.data = False
    form.past_agreed.errors = [_("This day has passed. Is that the day you mean?")]
    return False


class HoldForm(Form):
    attended = IntegerField(
        Words(N_("How many people came?")),
        validators=[Optional(), NumberRange(0, 10_000)],
        description=Words(N_("Everybody counts, guests too. Empty: those who are ticked.")),
        render_kw={"inputmode": "numeric"},
    )

    members = SelectMultipleField(
        Words(N_("Members who came")),
        widget=widgets.ListWidget(prefix_label=False),
        option_widget=widgets.CheckboxInput(),
        description=Words(N_("Stays in this circle.")),
    )
    notes = area(N_("Notes"), hint=N_("Stay in this circle. They are the start of the report."))

    def validate_attended(self, field: Any) -> None:
        if field.data is not None and field.data < len(self.members.data or []):
            raise ValidationError(_(MoreCameThanCounted.text))


class RoundForm(Form):
    # Ask what went well first: the round must not become a complaint (R11).
    happened = area(QUESTIONS["happened"], rows=4)
    learned = area(QUESTIONS["learned"], rows=4)
    next_step = area(QUESTIONS["next_step"], rows=3)
    circle_could = area(QUESTIONS["circle_could"], rows=3)
    tips = area(QUESTIONS["tips"], rows=4)


class ReportForm(AskingForm):
    look = look_first()
    report = area(N_("Report"), needed=True, rows=18, hint=N_("Everybody can read this, in other towns too: leave names out."))


@pages.get("")
def index() -> Any:
    held, planned = Meeting.status == "held", Meeting.status == "planned"
    with reading() as session:
        page = paged(session, select(Meeting).where(held).order_by(Meeting.day.desc(), Meeting.code), count(session, Meeting, held))
        coming, unfinished = [], []
        if page.previous_url is None:  # what is to be done stands on the first page only
            soonest = select(Meeting).where(planned).order_by(Meeting.day, Meeting.starts, Meeting.code)
            coming = session.scalars(soonest.where(Meeting.day >= today()).limit(PAGE_SIZE)).all()
            unfinished = session.scalars(soonest.where(Meeting.day < today()).limit(PAGE_SIZE)).all()
    tonight = next((meeting for meeting in coming if meeting.day == today()), None)
    coming = [meeting for meeting in coming if meeting is not tonight]
    return render("meetings/index.html", coming=coming, unfinished=unfinished, page=page, tonight=tonight)


@pages.route("/new", methods=["GET", "POST"])
@require("facilitator")
def plan() -> Any:
    with speak(HOUSE):  # the whole circle reads it, and the other towns
        fixed = [{"title": _(title), "minutes": minutes} for title, minutes in FIXED]
    form = MeetingForm(data={"agenda": fixed})
    with reading() as session:
        form.offer(session)
        if not form.is_submitted():
            _copy_last(session, form)
    if _may_be_saved(form):
        with naming(form), transaction() as session:
            meeting = actions.plan_meeting(session, **form.told)
            passed = meeting.day < today()
            flash_ok(_("The meeting is in the list. Who came?") if passed else _("The meeting is planned."))
            return redirect(url_for(".show", code=meeting.code))
    return _form_page(form, None)


def _copy_last(session: Session, form: MeetingForm) -> None:
    """Eight meetings a year are planned one by one; the next one looks like the last."""
    last = session.scalar(select(Meeting).where(Meeting.status != "cancelled").order_by(Meeting.day.desc()).limit(1))
    if last is not None:
        form.starts.data, form.ends.data, form.place_name.data = last.starts, last.ends, last.place_name


def _may_be_saved(form: MeetingForm, was: date | None = None) -> bool:
    """Whether this may be saved. What is wrong and what is to be asked is said at once, not one after the other."""
    if not form.is_submitted() or form.agenda.pressed:
        return False
    return all([is_right(form, form.texts), ask_about_day(form, today(), was)])


def _form_page(form: MeetingForm, meeting: Meeting | None) -> Any:
    page = render("meetings/form.html", form=form, meeting=meeting)
    return page, 422 if form.is_submitted() and not form.agenda.pressed else 200


@pages.get("/<code>")
def show(code: str) -> Any:
    with reading() as session:
        meeting = actions.find_meeting(session, code)
        came, standing = [], Round()
        if may("member"):
            came = session.scalars(
                select(Member.name)
                .join(Attendance, Attendance.member == Member.code)
                .where(Attendance.meeting == code)
                .order_by(Member.name)
            ).all()
            standing = _round(session, code)
        lessons = session.scalars(
            select(Lesson).where(Lesson.meeting == code, Lesson.withdrawn_on.is_(None)).order_by(Lesson.shared_on)
        ).all()
    return render(
        "meetings/show.html",
        meeting=meeting,
        came=came,
        entries=[(entry, initiative, _answers(entry)) for entry, initiative in standing.told],
        round=standing,
        lessons=lessons,
        begun=meeting.day <= today(),
        passed=meeting.status == "planned" and meeting.day < today(),
        recent=today() - meeting.day <= RECENT,
        steps=_evening_steps(meeting, standing, learned=bool(lessons)) if may("facilitator") else [],
    )


NAMED = 4
"""So many gardens are named in a sentence; all of them stand in the list below it."""


@dataclass(frozen=True)
class Round:
    """How far the round of an evening is."""

    told: Sequence[tuple[RoundEntry, Initiative]] = ()
    unheard: Sequence[Initiative] = ()
    """Those who were not heard this evening."""
    left: Sequence[Initiative] = ()
    """Those of whom nothing is written down yet."""

    @property
    def gardens(self) -> int:
        return len(self.told) + len(self.unheard) + len(self.left)

    @property
    def standing(self) -> str:
        """For people: 9 of 14 gardens heard."""
        told = number(len(self.told))
        return ngettext("%(told)s of %(n)s garden heard.", "%(told)s of %(n)s gardens heard.", self.gardens, told=told)

    @property
    def who_is_left(self) -> str:
        """For people, by name."""
        names = ", ".join(garden.name for garden in self.left[:NAMED])
        more = len(self.left) - NAMED
        if more > 0:
            return ngettext(
                "Still to come: %(names)s and %(n)s other.", "Still to come: %(names)s and %(n)s others.", more, names=names
            )
        return _("Still to come: %(names)s.", names=names) if names else ""


def _round(session: Session, meeting: str) -> Round:
    entries = actions.round_entries(session, meeting)
    return Round(
        told=[(entry, garden) for entry, garden in entries if entry.heard],
        unheard=[garden for entry, garden in entries if not entry.heard],
        left=actions.silent_gardens(session, meeting),
    )


def _evening_steps(meeting: Meeting, standing: Round, *, learned: bool) -> list[dict[str, Any]]:
    """What the facilitator does on the evening and after it, in this order; the first that is not done is the next.

    Of an evening of long ago nothing is next: whoever likes may still finish it.
    """
    if meeting.day > today() or meeting.report_published or (meeting.status == "planned" and meeting.day < today()):
        return []
    here, held = {"code": meeting.code}, meeting.status == "held"
    steps = [
        {"title": _("Who came?"), "url": url_for(".hold", **here), "icon": "people", "done": held},
        {
            "title": _("Write down the round"),
            "text": f"{standing.standing} {standing.who_is_left}".strip(),
            "url": url_for(".show", _anchor="round", **here),
            "icon": "pencil",
            "done": not standing.left,
        },
        {
            "title": _("Share what was learned"),
            "url": url_for("lessons.share", meeting=meeting.code),
            "icon": "lightbulb",
            "done": learned,
        },
        {
            "title": _("Publish the report"),
            "text": "" if held else _("After step 1."),
            "url": url_for(".report", **here) if held else "",
            "icon": "journal-text",
            "done": meeting.report_published,
        },
    ]
    if not standing.gardens:
        del steps[1]  # nobody is there to tell
    recent = today() - meeting.day <= RECENT
    first = next((step for step in steps if not step["done"]), None) if recent else None
    return [step | {"state": "done" if step["done"] else "current" if step is first else ""} for step in steps]


def _answers(entry: RoundEntry) -> list[tuple[str, str, str]]:
    """(name, question, answer), for what was answered."""
    return [(name, _(QUESTIONS[name]), getattr(entry, name)) for name in ANSWERS if getattr(entry, name)]


@pages.route("/<code>/edit", methods=["GET", "POST"])
@require("facilitator")
def change(code: str) -> Any:
    with reading() as session:
        meeting = actions.find_meeting(session, code)
        names = ("title", "kind", "theme", "day", "starts", "ends", "place_name")
        held = {name: getattr(meeting, name) for name in names}
        form = MeetingForm(data=held | {"theme": meeting.theme or "", "agenda": meeting.agenda or []})
        form.offer(session)
    if _may_be_saved(form, meeting.day):
        with naming(form), transaction() as session:
            actions.change_meeting(session, code, **form.told)
            flash_ok(_("Saved. The other towns will see this too."))
            return redirect(url_for(".show", code=code))
    return _form_page(form, meeting)


@pages.route("/<code>/hold", methods=["GET", "POST"])
@require("facilitator")
def hold(code: str) -> Any:
    with reading() as session:
        meeting = actions.find_meeting(session, code)
        ticked = session.scalars(select(Attendance.member).where(Attendance.meeting == code)).all()
        people = session.execute(
            select(Member.code, Member.name).where(Member.left_on.is_(None) | Member.code.in_(ticked)).order_by(Member.name)
        ).all()
    form = HoldForm(obj=meeting)
    form.members.choices = [(member, name) for member, name in people]
    if not form.is_submitted():
        form.members.data = list(ticked)
    if form.validate_on_submit():
        members = form.members.data or []
        with naming(form):
            with transaction() as session:
                actions.hold_meeting(
                    session,
                    code,
                    attended=len(members) if form.attended.data is None else form.attended.data,
                    members=members,
                    notes=form.notes.data,
                    today=today(),
                )
            flash_ok(_("Written down. Now write down the round, if you have not yet."))
            return redirect(url_for(".show", code=code))
    return render("meetings/hold.html", form=form, meeting=meeting), 422 if form.is_submitted() else 200


@pages.route("/<code>/round/<initiative>", methods=["GET", "POST"])
@require("member")
def tell(code: str, initiative: str) -> Any:
    with reading() as session:
        meeting = actions.find_meeting(session, code)
        garden = find_initiative(session, initiative)
        form = RoundForm(obj=actions.round_entry(session, code, initiative))
    if form.validate_on_submit():
        with transaction() as session:
            actions.tell_in_round(session, code, initiative, **{name: form[name].data for name in ANSWERS})
            standing = _round(session, code)
        all_told = _("Written down. Every garden has had its turn.")
        flash_ok(_("Written down. %(standing)s", standing=standing.standing) if standing.left else all_told)
        return redirect(url_for(".show", code=code))  # the page's top says that it was kept, and what comes next
    return render("meetings/round.html", form=form, meeting=meeting, garden=garden), 422 if form.is_submitted() else 200


@pages.post("/<code>/close-round")
@require("facilitator")
def close_round(code: str) -> Any:
    with transaction() as session:
        actions.close_round(session, code)
    flash_ok(_("The round is closed. Does a garden still want to tell something? You can always write it down."))
    return redirect(url_for(".show", code=code))


@pages.route("/<code>/report", methods=["GET", "POST"])
@require("facilitator")
def report(code: str) -> Any:
    form = ReportForm()
    with reading() as session:
        meeting = actions.find_meeting(session, code)
        if meeting.status != "held":
            begun = meeting.day <= today()
            way_on = {"url": url_for(".hold" if begun else ".show", code=code), "label": _("Who came?") if begun else meeting.title}
            return render("message.html", title=_(NotHeldYet.text), text="", kind="warning", way_on=way_on), NotHeldYet.status
        if not form.is_submitted():
            with speak(HOUSE):
                form.report.data = meeting.report or _draft(session, meeting)
    if is_right(form, [form.report.data]):
        with transaction() as session:
            actions.publish_report(session, code, form.report.data)
            flash_ok(_("The report is published. The other towns will see it too."))
            return redirect(url_for(".show", code=code))
    page = render("meetings/report.html", form=form, meeting=meeting)
    return page, 422 if form.is_submitted() and not form.look.data else 200


def _draft(session: Session, meeting: Meeting) -> str:
    """The report of the evening, ready before the drinks are (R14): how many came, the notes, and what the round brought.

    Everybody will read it, so call it in the house's language, whoever asks.
    """
    parts = []
    if meeting.attended is not None:
        parts.append(ngettext("%(n)s person came.", "%(n)s people came.", meeting.attended))
    if meeting.notes:
        parts.append(meeting.notes)
    told = _round(session, meeting.code).told
    if told:
        parts.append(f"## {_('The round')}")
    for entry, garden in told:
        parts.append(f"### {garden.name}")
        for _name, question, answer in _answers(entry):
            parts += [f"**{question}**", answer]  # each a paragraph of its own: an answer may begin with a list
    return "\n\n".join(parts)


@pages.post("/<code>/cancel")
@require("facilitator")
def cancel(code: str) -> Any:
    with transaction() as session:
        passed = actions.find_meeting(session, code).day < today()
        actions.cancel_meeting(session, code)
    flash_ok(_("Noted: this meeting did not take place.") if passed else _("The meeting is cancelled."))
    return redirect(url_for(".index"))

"""The register of initiatives."""

from typing import Any

from flask import Blueprint, redirect, url_for
from sqlalchemy import select
from wtforms import BooleanField, DateField, RadioField, SelectMultipleField, widgets
from wtforms.validators import InputRequired

from services.town_node.circle.fields import (
    NOT_UNDERSTOOD,
    AskingForm,
    area,
    choose,
    halves,
    is_right,
    line,
    no_coordinates,
    spot,
)
from services.town_node.circle.membership import membership
from services.town_node.circle.model import Circle
from services.town_node.initiatives import actions
from services.town_node.initiatives.model import SHOWN, Initiative, shown_place_name
from services.town_node.lessons.model import Lesson
from shared import atlas
from shared.coordinates import read_place, write_place
from shared.events import INITIATIVE_KINDS, PHASES
from shared.finding import Tally, asked, paged
from shared.labels import choices, label
from shared.language import N_, Words, _, day
from shared.web import Form, flash_ok, may, naming, reading, render, require, today, transaction

pages = Blueprint("initiatives", __name__, url_prefix="/initiatives")

CHOICES = {"phase": Initiative.phase, "kind": Initiative.kind}
LISTED = (
    *(Initiative.code, Initiative.name, Initiative.kind, Initiative.phase),
    *(Initiative.place_name, Initiative.place_shown, Initiative.latitude),
)
"""What a list shows of each; not its texts and its history."""


class InitiativeForm(AskingForm):
    name = line(N_("Name"), needed=True)
    kind = choose(N_("Kind"))
    phase = choose(N_("Phase"))
    since = DateField(Words(N_("In this phase since")), validators=[InputRequired()])
    about_text = area(N_("About the initiative"), hint=N_("What grows there, who it is for, what makes it special."))
    purposes = SelectMultipleField(
        Words(N_("What for")), widget=widgets.ListWidget(prefix_label=False), option_widget=widgets.CheckboxInput()
    )
    place_name = line(N_("Place"), hint=N_("A street or a neighbourhood. Not the address of somebody's home."))
    place = spot()
    place_shown = RadioField(
        Words(N_("Who may know the place?")),
        default="exact",
        description=Words(
            N_("The members of this circle always see what you fill in. What others saw before, you cannot take back.")
        ),
    )
    visitors = BooleanField(Words(N_("Visitors are welcome")))
    visiting = line(N_("When to visit"), hint=N_("Such as: Saturdays from 10 to 12."))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind.choices = choices("initiative_kind")
        self.phase.choices = choices("phase")
        self.purposes.choices = choices("purpose")
        self.place_name.validators = [*self.place_name.validators, no_coordinates]
        self.place_shown.choices = [
            ("exact", _("Everybody sees exactly where it is")),
            ("neighbourhood", _("Others see only the neighbourhood (within 500 metres or so) and what you wrote at Place")),
            ("hidden", _("Others do not see the place, nor the street")),
        ]

    @property
    def texts(self) -> list[str]:
        return [self.name.data, self.about_text.data, self.place_name.data, self.visiting.data]

    @property
    def told(self) -> dict[str, Any]:
        names = ("name", "kind", "about_text", "purposes", "place_name", "place_shown", "visitors", "visiting")
        return {name: self[name].data for name in names} | halves(self.place.data)


class PhaseForm(Form):
    phase = choose(N_("The new phase"))
    since = DateField(Words(N_("Since")), validators=[InputRequired()])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.phase.choices = choices("phase")


def _wanted() -> dict[str, Any]:
    """What the address asks for; the list and the map show the same."""
    wanted: dict[str, Any] = {"here": Initiative.withdrawn_on.is_(None)}
    return wanted | {name: column == asked(name) for name, column in CHOICES.items() if asked(name)}


def _chart(**more: Any) -> dict[str, Any]:
    chosen = {name: asked(name) or None for name in ("phase", "kind")}
    return atlas.told(url_for(".map_places", **chosen), url_for(".index") + "/{code}", **more)


@pages.get("")
def index() -> Any:
    wanted, inside = _wanted(), may("member")
    with reading() as session:
        tally = Tally(session, CHOICES, wanted)
        facets = [
            tally.facet(_("Phase"), "phase", lambda code: label(code, "phase"), PHASES),
            tally.facet(_("Kind"), "kind", lambda code: label(code, "initiative_kind"), INITIATIVE_KINDS),
        ]
        query = select(*LISTED).where(*wanted.values()).order_by(Initiative.name)
        page = paged(session, query, tally.total)
        placed = {it.code for it in page.rows if it.latitude is not None and (inside or it.place_shown in SHOWN)}
        if len(placed) < len(page.rows) and session.scalar(select(Circle.latitude)) is not None:
            placed = {it.code for it in page.rows}  # the others stand with their circle
    list_url = url_for(".index")
    return render(
        "initiatives/index.html",
        page=page,
        rows=[
            (
                *(f"{list_url}/{it.code}", it.name, it.kind, it.phase),
                it.place_name if inside else shown_place_name(it.place_name, it.place_shown),
                it.code if it.code in placed else "",
            )
            for it in page.rows
        ],
        facets=facets,
        clear_url=list_url if len(wanted) > 1 else None,
        chart=_chart(fit=True),
    )


@pages.get("/map.json")
def map_places() -> Any:
    """The places for the map: as the circle knows them for its members, as the initiatives show them for others."""
    with reading() as session:
        circle, joined = session.scalar(select(Circle)), membership(session)
        found = session.scalars(select(Initiative).where(*_wanted().values()).order_by(Initiative.name)).all()
    town, inside = joined.town if joined else "", may("member")
    marks = [atlas.Mark(town, it.code, it.name, it.phase, it.kind, it.place if inside else it.shown_place) for it in found]
    homes = {town: circle.place} if circle and circle.place else {}
    return atlas.answer_places(lambda: atlas.places(marks, {town: joined.name if joined else ""}, homes))


@pages.get("/place.json")
@require("member")
def understood() -> Any:
    """How a typed place is understood, for the map beside the field."""
    read = read_place(asked("said"))
    if read is None:
        return {"words": _(NOT_UNDERSTOOD)}
    said = write_place(read.place.latitude, read.place.longitude)
    words = {
        "degrees": _("Understood as %(place)s.", place=said),
        "swapped": _("Understood as %(place)s; latitude and longitude were the other way round.", place=said),
        "rd": _("Understood as %(place)s, from the national grid (RD).", place=said),
    }
    return {"words": words[read.how], "at": [read.place.latitude / 1e6, read.place.longitude / 1e6]}


@pages.get("/<code>")
def show(code: str) -> Any:
    with reading() as session:
        initiative = actions.find_initiative(session, code)
        learned = session.scalars(
            select(Lesson).where(Lesson.initiative == code, Lesson.withdrawn_on.is_(None)).order_by(Lesson.shared_on.desc())
        ).all()
    steps = [
        {
            "when": day(step.since),
            "title": label(step.phase, "phase"),
            "state": "current" if nth == len(initiative.steps) else "done",
        }
        for nth, step in enumerate(initiative.steps, start=1)
    ]
    place = initiative.place if may("member") else initiative.shown_place
    return render(
        "initiatives/show.html",
        initiative=initiative,
        steps=steps,
        learned=learned,
        place=place,
        place_name=initiative.place_name if may("member") else initiative.shown_place_name,
        place_words=write_place(place.latitude, place.longitude) if place and place.exact else "",
        chart=_chart(choose=code) if place else None,
    )


def _picking(own: str = "") -> dict[str, Any]:
    return _chart(pick={"field": "place", "shown": "place_shown", "url": url_for(".understood"), "own": own})


@pages.route("/new", methods=["GET", "POST"])
@require("member")
def register() -> Any:
    form = InitiativeForm()
    if not form.is_submitted():
        form.since.data = today()
    if is_right(form, form.texts):
        with naming(form), transaction() as session:
            initiative = actions.register_initiative(
                session, phase=form.phase.data, since=form.since.data, today=today(), **form.told
            )
            flash_ok(_("%(name)s is in the register now. The other towns will see it too.", name=initiative.name))
            return redirect(url_for(".show", code=initiative.code))
    return render("initiatives/form.html", form=form, initiative=None, chart=_picking()), 422 if form.is_submitted() else 200


@pages.route("/<code>/edit", methods=["GET", "POST"])
@require("member")
def change(code: str) -> Any:
    with reading() as session:
        initiative = actions.find_initiative(session, code)
    form = InitiativeForm(obj=initiative)
    del form.phase, form.since  # a phase is reached, with its own day
    if is_right(form, form.texts):
        with transaction() as session:
            actions.change_initiative(session, code, **form.told)
            flash_ok(_("Saved. The other towns will see this too."))
            return redirect(url_for(".show", code=code))
    page = render("initiatives/form.html", form=form, initiative=initiative, chart=_picking(code))
    return page, 422 if form.is_submitted() else 200


@pages.route("/<code>/phase", methods=["GET", "POST"])
@require("member")
def phase(code: str) -> Any:
    with reading() as session:
        initiative = actions.find_initiative(session, code)
    form = PhaseForm()
    if not form.is_submitted():
        form.since.data = today()
        order = [known for known, _word in choices("phase")]
        form.phase.data = order[min(order.index(initiative.phase) + 1, len(order) - 2)]
    if form.validate_on_submit():
        with naming(form):
            with transaction() as session:
                actions.reach_phase(session, code, phase=form.phase.data, since=form.since.data, today=today())
            flash_ok(_("The new phase is in the register."))
            return redirect(url_for(".show", code=code))
    return render("initiatives/phase.html", form=form, initiative=initiative), 422 if form.is_submitted() else 200


@pages.post("/<code>/withdraw")
@require("facilitator")
def withdraw(code: str) -> Any:
    with transaction() as session:
        actions.withdraw_initiative(session, code, today())
    flash_ok(_("The initiative is out of the register, here and in the other towns."))
    return redirect(url_for(".index"))

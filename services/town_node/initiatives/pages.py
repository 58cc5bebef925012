"""The register of initiatives."""

from typing import Any

from flask import Blueprint, redirect, url_for
from sqlalchemy import select
from wtforms import BooleanField, DateField, SelectMultipleField, widgets
from wtforms.validators import InputRequired

from services.town_node.circle.fields import (
    AskingForm,
    area,
    ask_about_names,
    both_degrees,
    choose,
    latitude,
    line,
    longitude,
)
from services.town_node.initiatives import actions
from services.town_node.initiatives.model import Initiative
from services.town_node.lessons.model import Lesson
from shared.events import INITIATIVE_KINDS, PHASES
from shared.finding import asked, count, facet, paged
from shared.labels import choices, label
from shared.language import N_, Words, _, day
from shared.web import Form, flash_ok, naming, reading, render, require, today, transaction

pages = Blueprint("initiatives", __name__, url_prefix="/initiatives")


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
    latitude = latitude()
    longitude = longitude()
    visitors = BooleanField(Words(N_("Visitors are welcome")))
    visiting = line(N_("When to visit"), hint=N_("Such as: Saturdays from 10 to 12."))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind.choices = choices("initiative_kind")
        self.phase.choices = choices("phase")
        self.purposes.choices = choices("purpose")

    @property
    def texts(self) -> list[str]:
        return [self.name.data, self.about_text.data, self.place_name.data, self.visiting.data]

    @property
    def told(self) -> dict[str, Any]:
        names = ("name", "kind", "about_text", "purposes", "place_name", "latitude", "longitude", "visitors", "visiting")
        return {name: self[name].data for name in names}


class PhaseForm(Form):
    phase = choose(N_("The new phase"))
    since = DateField(Words(N_("Since")), validators=[InputRequired()])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.phase.choices = choices("phase")


@pages.get("")
def index() -> Any:
    columns = {"phase": Initiative.phase, "kind": Initiative.kind}
    wanted: dict[str, Any] = {"here": Initiative.withdrawn_on.is_(None)}
    wanted |= {name: column == asked(name) for name, column in columns.items() if asked(name)}
    with reading() as session:
        facets = [
            facet(session, _("Phase"), "phase", Initiative.phase, wanted, lambda code: label(code, "phase"), PHASES),
            facet(
                session, _("Kind"), "kind", Initiative.kind, wanted, lambda code: label(code, "initiative_kind"), INITIATIVE_KINDS
            ),
        ]
        total = count(session, Initiative, *wanted.values())
        page = paged(session, select(Initiative).where(*wanted.values()).order_by(Initiative.name), total)
    clear_url = url_for(".index") if len(wanted) > 1 else None
    return render("initiatives/index.html", page=page, facets=facets, clear_url=clear_url)


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
    return render("initiatives/show.html", initiative=initiative, steps=steps, learned=learned)


@pages.route("/new", methods=["GET", "POST"])
@require("member")
def register() -> Any:
    form = InitiativeForm()
    if not form.is_submitted():
        form.since.data = today()
    if form.validate_on_submit() and both_degrees(form):
        with naming(form), transaction() as session:
            if ask_about_names(form, session, form.texts):
                initiative = actions.register_initiative(
                    session, phase=form.phase.data, since=form.since.data, today=today(), **form.told
                )
                flash_ok(_("%(name)s is in the register now. The other towns will see it too.", name=initiative.name))
                return redirect(url_for(".show", code=initiative.code))
    return render("initiatives/form.html", form=form, initiative=None), 422 if form.is_submitted() else 200


@pages.route("/<code>/edit", methods=["GET", "POST"])
@require("member")
def change(code: str) -> Any:
    with reading() as session:
        initiative = actions.find_initiative(session, code)
    form = InitiativeForm(obj=initiative)
    del form.phase, form.since  # a phase is reached, with its own day
    if form.validate_on_submit() and both_degrees(form):
        with transaction() as session:
            if ask_about_names(form, session, form.texts):
                actions.change_initiative(session, code, **form.told)
                flash_ok(_("Saved. The other towns will see this too."))
                return redirect(url_for(".show", code=code))
    return render("initiatives/form.html", form=form, initiative=initiative), 422 if form.is_submitted() else 200


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

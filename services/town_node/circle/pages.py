"""The circle's profile and its people."""

from typing import Any

from flask import Blueprint, redirect, url_for
from sqlalchemy import select
from wtforms import DateField, StringField
from wtforms.validators import InputRequired, Length, Optional

from services.town_node.circle import actions
from services.town_node.circle.fields import (
    AskingForm,
    area,
    choose,
    email_like,
    halves,
    is_right,
    line,
    no_coordinates,
    one_line,
    phone_like,
    spot,
)
from services.town_node.circle.membership import membership
from services.town_node.circle.model import Circle, Member, theme_code
from shared import atlas
from shared.finding import count, paged
from shared.labels import choices, label
from shared.language import LANGUAGES, N_, Words, _
from shared.refusals import NotAllowed
from shared.web import Form, flash_ok, may, me, naming, reading, render, require, today, transaction

pages = Blueprint("circle", __name__, url_prefix="/circle")


class ThemesField(StringField):
    """Codes on our side, words with commas between on the reader's."""

    def process_data(self, value: Any) -> None:
        self.data = ", ".join(label(code, "theme") for code in value or [])


class CircleForm(AskingForm):
    name = line(N_("Name of the circle"), needed=True)
    place_name = line(N_("Town"), needed=True)
    about_text = area(N_("About the circle"), hint=N_("Who you are and what you do together."))
    status = choose(N_("How the circle is doing"))
    method = choose(N_("How the circle works"))
    founded = DateField(Words(N_("Founded on")), validators=[Optional()])
    themes = ThemesField(
        Words(N_("Themes")),
        filters=[one_line],
        validators=[Optional(), Length(max=800)],
        description=Words(N_("What you talk about, with commas between.")),
    )
    public_phone = line(
        N_("Public telephone number"), hint=N_("Everybody will see this number. Leave it empty if it is somebody's own."), most=20
    )
    place = spot()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.status.choices = choices("circle_status")
        self.method.choices = choices("working_method")
        self.place_name.validators = [*self.place_name.validators, no_coordinates]
        self.public_phone.validators = [*self.public_phone.validators, phone_like]


class MemberForm(Form):
    name = line(N_("Name"), needed=True)
    email = line(N_("E-mail address"), needed=True, hint=N_("For the link to log in, and for invitations."), most=320)
    phone = line(N_("Telephone"), hint=N_("Seen by the members of this circle only."), most=20)
    language = choose(N_("Language of mails"))
    role = choose(N_("Role"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.language.choices = list(LANGUAGES.items())
        self.role.choices = [("member", _("Member")), ("facilitator", _("Facilitator"))]
        self.email.validators = [InputRequired(), Length(max=320), email_like]
        self.phone.validators = [Optional(), phone_like]
        if not may("facilitator"):
            del self.role


@pages.get("")
def profile() -> Any:
    with reading() as session:
        circle = session.scalar(select(Circle))
        joined = membership(session)
    return render("circle/profile.html", circle=circle, joined=joined)


@pages.route("/edit", methods=["GET", "POST"])
@require("facilitator")
def edit() -> Any:
    with reading() as session:
        circle = session.scalar(select(Circle))
        joined = membership(session)
    form = CircleForm(obj=circle)
    if not form.is_submitted() and circle is None and joined:
        form.name.data, form.place_name.data = f"Kenniskring {joined.name}", joined.name
    if is_right(form, [form.name.data, form.place_name.data, form.about_text.data, form.themes.data]):
        with transaction() as session:
            actions.describe_circle(
                session,
                name=form.name.data,
                place_name=form.place_name.data,
                about_text=form.about_text.data,
                status=form.status.data,
                method=form.method.data,
                founded=form.founded.data,
                themes=_theme_codes(form.themes.data),
                public_phone=form.public_phone.data or None,
                **halves(form.place.data),
            )
            flash_ok(_("Saved. The other towns will see this too."))
            return redirect(url_for(".profile"))
    chart = atlas.told(
        url_for("initiatives.map_places"),
        url_for("initiatives.index") + "/{code}",
        pick={"field": "place", "url": url_for("initiatives.understood")},
    )
    return render("circle/edit.html", form=form, chart=chart), 422 if form.is_submitted() else 200


def _theme_codes(said: str) -> list[str]:
    """The codes of known themes by their word in the reader's language, and of own themes by their spelling."""
    known = {word.casefold(): code for code, word in choices("theme")}
    codes = [known.get(word.strip().casefold()) or theme_code(word) for word in said.split(",")]
    return list(dict.fromkeys(code for code in codes if len(code) >= 2))[:100]


@pages.get("/people")
@require("member")
def people() -> Any:
    with reading() as session:
        here = Member.left_on.is_(None)
        page = paged(session, select(Member).where(here).order_by(Member.name, Member.code), count(session, Member, here))
    return render("circle/people.html", page=page, mine=me())


@pages.route("/people/new", methods=["GET", "POST"])
@require("facilitator")
def add_person() -> Any:
    form = MemberForm()
    if form.validate_on_submit():
        with naming(form):
            with transaction() as session:
                actions.add_member(
                    session,
                    name=form.name.data,
                    email=form.email.data,
                    phone=form.phone.data,
                    language=form.language.data,
                    role=form.role.data,
                    today=today(),
                )
            flash_ok(_("%(name)s is in the circle now, and can log in with this address.", name=form.name.data))
            return redirect(url_for(".people"))
    return render("circle/person.html", form=form, person=None), 422 if form.is_submitted() else 200


@pages.route("/people/<code>", methods=["GET", "POST"])
@require("member")
def edit_person(code: str) -> Any:
    if code != me() and not may("facilitator"):
        raise NotAllowed
    with reading() as session:
        person = actions.find_member(session, code)
    form = MemberForm(obj=person)
    if form.validate_on_submit():
        with naming(form):
            with transaction() as session:
                actions.change_details(
                    session,
                    code,
                    name=form.name.data,
                    email=form.email.data,
                    phone=form.phone.data,
                    language=form.language.data,
                )
                if "role" in form:
                    actions.change_role(session, code, form.role.data)
            flash_ok(_("Saved."))
            return redirect(url_for(".people"))
    return render("circle/person.html", form=form, person=person), 422 if form.is_submitted() else 200


@pages.post("/people/<code>/remove")
@require("facilitator")
def remove_person(code: str) -> Any:
    with transaction() as session:
        actions.remove_member(session, code, today())
    flash_ok(_("This person has left the circle. The e-mail address and telephone number are erased."))
    return redirect(url_for(".people"))

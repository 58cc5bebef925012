"""How a circle begins, joins, changes its key and leaves: pages for the facilitator, the first one for the operator.

The key files lie in the state folder and are made by the web process here, in the same way as by the command line
(`circle/membership.py`).
"""

import io
from datetime import datetime
from typing import Any

from flask import Blueprint, current_app, redirect, request, send_file, url_for
from sqlalchemy.orm import Session
from wtforms import EmailField, RadioField, SelectField, StringField
from wtforms.validators import InputRequired, Length, ValidationError

from services.town_node.circle.fields import email_like, line, one_line
from services.town_node.circle.membership import (
    KEY,
    CodeRefused,
    HubAway,
    NoHub,
    erasures,
    join_association,
    membership,
    present_key,
    rotate_key,
    spelled,
)
from services.town_node.config import Settings
from services.town_node.home import leaving, setup
from services.town_node.home.slices import SLICES
from services.town_node.home.sync import glance
from shared import limits, login
from shared.language import LANGUAGES, N_, Words, _, spoken
from shared.settings import web_address
from shared.web import Form, flash_ok, hold_back, me, naming, note_deed, now, reading, render, require, site, today, transaction

pages = Blueprint("membership", __name__, url_prefix="/membership")


class BeginForm(Form):
    code = StringField(
        Words(N_("Setup code")),
        filters=[one_line],
        validators=[InputRequired(), Length(max=60)],
        description=Words(N_("Who set this site up gets it by typing: town-node setup-code")),
        render_kw={"autocomplete": "off", "autocapitalize": "characters", "spellcheck": "false"},
    )
    name = line(N_("Your name"), needed=True)
    email = EmailField(Words(N_("Your e-mail address")), validators=[InputRequired(), Length(max=320), email_like])
    language = SelectField(Words(N_("Language of mails")))
    circle = line(N_("Name of the circle"), needed=True, hint=N_("Such as: Kenniskring Almere. You can change it later."))
    town = line(N_("Town"), needed=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.language.choices = list(LANGUAGES.items())


class JoinForm(Form):
    hub = StringField(
        Words(N_("Address of the association")),
        filters=[one_line],
        validators=[InputRequired(), Length(max=300)],
        description=Words(N_("As the association told you, such as https://koepel.example.org")),
        render_kw={"inputmode": "url", "autocapitalize": "none", "spellcheck": "false"},
    )
    code = StringField(
        Words(N_("Code")),
        filters=[one_line],
        validators=[InputRequired(), Length(max=60)],
        description=Words(N_("Capitals and dashes make no difference. It works once.")),
        render_kw={"autocomplete": "off", "autocapitalize": "characters", "spellcheck": "false"},
    )

    def validate_hub(self, field: Any) -> None:
        said = field.data if "://" in (field.data or "") else f"https://{field.data}"
        try:
            field.data = web_address(said)
        except ValueError:
            raise ValidationError(_("This is no web address. Write it as https://koepel.example.org")) from None


class LeaveForm(Form):
    library = RadioField(Words(N_("What is to become of what this circle told?")), validators=[InputRequired()])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.library.choices = [
            ("keep", _("The library may keep it: other towns go on learning from it")),
            ("erase", _("Erase it at the association and in the other towns, for good")),
        ]


@pages.route("/begin", methods=["GET", "POST"])
def begin() -> Any:
    with reading() as session:
        fresh, joined = setup.is_new(session), membership(session)
    if not fresh:
        raise setup.BegunAlready
    form = BeginForm()
    if joined is not None:  # a dead disk: the circle itself comes back from the association
        del form.circle, form.town
    if not form.is_submitted():
        form.language.data = spoken()
    if form.validate_on_submit():
        hold_back(limits.JOINING, limits.client_of(request.remote_addr))
        with naming(form):
            with transaction() as session:
                first = setup.begin_circle(
                    session,
                    settings(),
                    form.code.data or "",
                    name=form.name.data or "",
                    email=form.email.data or "",
                    language=form.language.data,
                    circle=form.circle.data if joined is None else "",
                    town=form.town.data if joined is None else "",
                    today=today(),
                )
                token = login.make_link(session, first.code, now(), login.CLI_LINK_LASTS)
            return redirect(url_for("login.open_link", token=token, next="/" if joined else url_for(".join")))
    return render("home/begin.html", form=form, joined=joined), 422 if form.is_submitted() else 200


@pages.get("")
@require("facilitator")
def index() -> Any:
    with reading() as session:
        joined, seen = membership(session), glance(session)
        short, since = _present_key(session)
    return render("home/membership.html", joined=joined, short=short, since=since, seen=seen)


@pages.route("/join", methods=["GET", "POST"])
@require("facilitator")
def join() -> Any:
    with reading() as session:
        joined, seen = membership(session), glance(session)
    if joined is not None and not seen.may_join_again:
        return redirect(url_for(".index"))
    form = JoinForm(data={"hub": joined.hub_url} if joined else None)
    if form.validate_on_submit():
        try:
            words = form.hub.data or "", form.code.data or ""
            joined = join_association(settings(), site().database, *words, SLICES, again=joined is not None)
        except (HubAway, NoHub) as refusal:
            form.hub.errors = [str(refusal.words)]
        except CodeRefused as refusal:
            form.code.errors = [str(refusal.words)]
        else:
            _note(joined.town)
            flash_ok(
                _(
                    "The code is right. As soon as %(association)s lets you in, everything goes out by itself.",
                    association=joined.association,
                )
            )
            return redirect(url_for(".index"))
    return render("home/join.html", form=form, left=seen.left_at), 422 if form.is_submitted() else 200


@pages.get("/sheet")
@require("facilitator")
def sheet() -> Any:
    with reading() as session:
        joined, (short, _since) = membership(session), _present_key(session)
    places = {"key": settings().state / KEY, "erasures": erasures(settings()).path, "state": settings().state}
    return render("home/sheet.html", joined=joined, short=short, places=places, settings=settings())


@pages.post("/key")
@require("facilitator")
def rotate() -> Any:
    key_id = rotate_key(settings(), site().database)
    _note(key_id)
    flash_ok(_("The town signs with key %(key)s now. Print the recovery sheet again.", key=spelled(key_id)))
    return redirect(url_for(".index"))


@pages.route("/leave", methods=["GET", "POST"])
@require("facilitator")
def leave() -> Any:
    with reading() as session:
        joined, seen = membership(session), glance(session)
    form = LeaveForm()
    if joined is not None and joined.left_at is None and form.validate_on_submit():
        with transaction() as session:
            leaving.say_goodbye(session, now(), erase=form.library.data == "erase")
        flash_ok(_("The circle has said goodbye. The association hears of it as soon as it can be reached."))
        return redirect(url_for(".leave"))
    return render("home/leave.html", form=form, joined=joined, seen=seen), 422 if form.is_submitted() else 200


@pages.get("/everything.zip")
@require("facilitator")
def everything() -> Any:
    with reading() as session:
        content = leaving.pack_everything(session, today())
    name = _("everything") + f"-{today().isoformat()}.zip"
    answer = send_file(io.BytesIO(content), "application/zip", as_attachment=True, download_name=name, max_age=0)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def settings() -> Settings:
    """The node's own, which say where its keys and codes lie."""
    found: Settings = current_app.extensions["node"]
    return found


def _present_key(session: Session) -> tuple[str, datetime | None]:
    """Its short name as one reads it out, and since when it counts."""
    key_id, since = present_key(session, settings()) or ("", None)
    return spelled(key_id), since


def _note(subject: str) -> None:
    """Write down who did it, after what has a transaction of its own."""
    with site().database.transaction() as session:
        note_deed(session, me() or "", subject)

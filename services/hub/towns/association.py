"""For the association: the towns, how far each is in sync, their joining codes, and letting a town in.

What it does when something is wrong with a town stands in `guarding.py`.
"""

from typing import Any

from flask import Blueprint, redirect, request, url_for
from sqlalchemy import select
from wtforms import StringField
from wtforms.validators import InputRequired, Length

from services.hub.towns.joining import add_town, let_in, readmit_town, renew_code
from services.hub.towns.parting import count_told
from services.hub.towns.sync import InSync, read_epochs, read_keys, sync_of_towns
from shared.heads import ingest_pulse
from shared.language import N_, _, ago
from shared.projections import stalls
from shared.quarantine import ADVICE, count_quarantine
from shared.refusals import NotFound
from shared.web import Form, flash_ok, naming, now, reading, render, require, site, transaction

pages = Blueprint("association", __name__, url_prefix="/association")

STATES = {
    "left": N_("has left"),
    "frozen": N_("stands still: decide"),
    "asking": N_("waits to be let in"),
    "invited": N_("waiting for its code"),
    "keyless": N_("has no key: give it a code"),
    "stalled": N_("a view stands still"),
    "silent": N_("not heard for a day"),
    "behind": N_("on its way"),
    "well": N_("in sync"),
}
TROUBLES = {
    "forked": N_("two histories"),
    "two_copies": N_("two copies of the node"),
    "second_epoch": N_("began again twice in a day"),
}
INGEST_LATE = 60
"""Seconds after which the worker that takes in messages should have shown itself again."""


class TownForm(Form):
    """A new town."""

    name = StringField(validators=[InputRequired(), Length(max=160)])
    slug = StringField(validators=[InputRequired(), Length(min=2, max=30)])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name.label.text = _("Name of the town")
        self.slug.label.text = _("Short name (a-z, digits, hyphens)")


def shown(state: InSync) -> dict[str, Any]:
    """What the pages say of a town."""
    code = state.state(now())
    return {
        "of": state,
        "state": code,
        "state_words": _(STATES[code]),
        "called": ago(state.last_heard, now()) if state.last_heard else None,
        "waiting": ago(state.waiting_since, now()) if state.waiting_since else None,
        "trouble": _(TROUBLES.get(state.trouble, state.trouble)),
        "code_expired": state.code_until is not None and state.code_until < now(),
        "gone": state.is_gone(now()),
    }


def spelled(key_id: str) -> str:
    """A key's short name in groups of four, as the town's own page shows it: it is read aloud over the telephone."""
    return " ".join(key_id[start : start + 4] for start in range(0, len(key_id), 4))


def state_of(session: Any, slug: str) -> InSync:
    """One town. Raises `NotFound`."""
    states = sync_of_towns(session, [slug]) if slug.isprintable() else []
    if not states:
        raise NotFound
    return states[0]


@pages.get("")
@require("association")
def sync() -> Any:
    with reading() as session:
        towns = [shown(state) for state in sync_of_towns(session)]
        stalled = len(stalls(session))
        refused = sum(row.times for row in count_quarantine(session))
        pulse = session.execute(select(ingest_pulse.c.seen_at)).scalar()
    late = bool(pulse and (now() - pulse).total_seconds() > INGEST_LATE)
    return render(
        "association/sync.html", towns=towns, stalled=stalled, refused=refused, ingest_late=ago(pulse, now()) if late else None
    )


@pages.get("/towns/<slug>")
@require("association")
def show(slug: str) -> Any:
    with reading() as session:
        town = shown(state_of(session, slug))
        values = {
            "stalls": [stall for stall in stalls(session) if stall.town == slug],
            "refused": count_quarantine(session, slug),
            "keys": read_keys(session, slug),
            "epochs": read_epochs(session, slug),
            "told": count_told(session, slug) if town["gone"] else 0,
        }
    return render(
        "association/town.html", town=town, spelled=spelled, advice={name: _(words) for name, words in ADVICE.items()}, **values
    )


@pages.route("/towns/new", methods=["GET", "POST"])
@require("association")
def new_town() -> Any:
    form = TownForm()
    if form.validate_on_submit():
        slug = str(form.slug.data).strip()
        with naming(form), transaction() as session:
            code = add_town(session, slug, str(form.name.data).strip(), now(), vouched=False)
            return render("association/code.html", address=site().base_url, name=form.name.data, slug=slug, code=code, anew=False)
    return render("association/new_town.html", form=form), 422 if form.is_submitted() else 200


@pages.post("/towns/<slug>/code")
@require("association")
def renew(slug: str) -> Any:
    """Another code for a town that has not joined yet; whoever waits with the one before is sent away."""
    with transaction() as session:
        state = state_of(session, slug)
        code = renew_code(session, slug, now(), vouched=False)
    return render("association/code.html", address=site().base_url, name=state.name, slug=slug, code=code, anew=False)


@pages.post("/towns/<slug>/anew")
@require("association")
def readmit(slug: str) -> Any:
    """A code for a town that lost its node or its key, or comes back."""
    with transaction() as session:
        state = state_of(session, slug)
        code = readmit_town(session, slug, now(), vouched=False)
    return render(
        "association/code.html", address=site().base_url, name=state.name, slug=slug, code=code, anew=state.joined_at is not None
    )


@pages.post("/towns/<slug>/let-in")
@require("association")
def admit(slug: str) -> Any:
    with transaction() as session:
        let_in(session, slug, request.form.get("key_id", ""), now())
    flash_ok(_("The town is let in. What it tells arrives within a minute."))
    return redirect(url_for(".show", slug=slug))

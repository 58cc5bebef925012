"""For the association: the towns, how far each is in sync, their joining codes, and letting a town in.

What it does when something is wrong with a town stands in `guarding.py`.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Any

import orjson
from flask import Blueprint, flash, redirect, request, url_for
from flask import session as browser
from nacl.encoding import URLSafeBase64Encoder
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from sqlalchemy import select
from wtforms import StringField
from wtforms.validators import InputRequired, Length

from services.hub.towns.joining import add_town, is_open, let_in, readmit_town, renew_code
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
CODE_SHOWN = timedelta(hours=1)
"""For so long the browser in which a code was made can show it again."""
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
        with naming(form):
            with transaction() as session:
                code = add_town(session, slug, str(form.name.data).strip(), now(), vouched=False)
            return _lead_to(slug, code)
    return render("association/new_town.html", form=form), 422 if form.is_submitted() else 200


@pages.post("/towns/<slug>/code")
@require("association")
def renew(slug: str) -> Any:
    """Another code for a town that has not joined yet; whoever waits with the one before is sent away."""
    with transaction() as session:
        state_of(session, slug)
        code = renew_code(session, slug, now(), vouched=False)
    return _lead_to(slug, code)


@pages.post("/towns/<slug>/anew")
@require("association")
def readmit(slug: str) -> Any:
    """A code for a town that lost its node or its key, or comes back."""
    with transaction() as session:
        state_of(session, slug)
        code = readmit_town(session, slug, now(), vouched=False)
    return _lead_to(slug, code)


@pages.get("/towns/<slug>/code")
@require("association")
def show_code(slug: str) -> Any:
    """The code that was made in this browser, as long as it may still be needed here: the page can be loaded again."""
    made = _made_here(slug, now())
    with reading() as session:
        town = state_of(session, slug)
        if not made or not is_open(session, slug, made, now()):
            flash(_("The code is not shown any more. If you do not have it, make another one."), "info")
            return redirect(url_for(".show", slug=slug))
    return render("association/code.html", address=site().base_url, town=town, code=made)


def _lead_to(slug: str, code: str) -> Any:
    """To the page that shows a fresh code, with the code in the browser's own keeping.

    The hub knows its hash only, and an address stands in log files and histories. So the cookie of the forms carries it, sealed:
    who has that cookie may load the page again, and who reads the cookie reads nothing.
    """
    told = orjson.dumps([slug, code, int((now() + CODE_SHOWN).timestamp())])
    browser["code"] = _box().encrypt(told, encoder=URLSafeBase64Encoder).decode()
    return redirect(url_for(".show_code", slug=slug))


def _made_here(slug: str, now: datetime) -> str:
    """The code that was made for this town in this browser not long ago; empty when there is none."""
    try:
        town, code, until = orjson.loads(_box().decrypt(str(browser.get("code", "")).encode(), encoder=URLSafeBase64Encoder))
    except (CryptoError, ValueError):
        return ""
    return str(code) if town == slug and now.timestamp() < until else ""


def _box() -> SecretBox:
    return SecretBox(hashlib.sha256(b"code1" + site().secret).digest())


@pages.post("/towns/<slug>/let-in")
@require("association")
def admit(slug: str) -> Any:
    with transaction() as session:
        let_in(session, slug, request.form.get("key_id", ""), now())
    flash_ok(_("The town is let in. What it tells arrives within a minute."))
    return redirect(url_for(".show", slug=slug))

"""For the association, when something is wrong with a town: what was refused, a town that stands still, a view that stands still, a
key in wrong hands, a town that leaves, and what is erased for one that is gone.
"""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, redirect, request, url_for
from wtforms import IntegerField, RadioField, SelectField
from wtforms.validators import AnyOf, InputRequired

from services.hub.towns.association import shown, state_of
from services.hub.towns.parting import (
    Run,
    StillSpeaks,
    count_told,
    erase_for_town,
    leave,
    read_latest,
    read_told,
    revoke_keys,
    runs_of,
)
from services.hub.towns.sync import read_epochs, read_instances
from shared.finding import here
from shared.heads import thaw
from shared.language import N_, _, day_time
from shared.projections import retry_stalls
from shared.quarantine import ADVICE, REASONS, clear_quarantine, count_quarantine, read_quarantine, read_refused
from shared.refusals import NotFound, Refusal
from shared.web import Form, flash_ok, naming, now, reading, render, require, transaction

pages = Blueprint("guarding", __name__, url_prefix="/association")

PAGE = 50
SEEN_MAX = 4000
"""Bytes of a refused message that are shown."""
NOBODY = "-"
"""Stands in an address for the messages that name no town known here."""
KINDS = {
    "lesson": N_("Lesson"),
    "initiative": N_("Initiative"),
    "meeting": N_("Meeting"),
    "circle": N_("The circle"),
    "barrier": N_("Barrier"),
    "evaluation": N_("Evaluation"),
}
HAPPENED = {
    "forked": N_(
        "Two different events came in for one and the same place of its log. That happens when a node was put back from a backup "
        "and worked on, or when two copies of it run at the same time."
    ),
    "two_copies": N_(
        "An earlier start of its node called after a later one. So two copies of this node are running, and each believes that it "
        "speaks for the town."
    ),
    "second_epoch": N_(
        "Its log began anew twice within a day. Once is a node that was put back from a backup. Twice so soon looks like two "
        "copies that take turns."
    ),
}


class NotFrozen(Refusal):
    """Somebody else decided already."""

    text = N_("This town does not stand still (any more).")


class RevokeForm(Form):
    """Up to where a key is believed."""

    epoch = SelectField()
    last = IntegerField(validators=[InputRequired()])

    def __init__(self, runs: Sequence[Run], **kwargs: Any) -> None:
        super().__init__(data={"last": runs[-1].held if runs else 0, "epoch": runs[-1].epoch if runs else ""}, **kwargs)
        self.epoch.label.text = _("In which run of numbers")
        self.epoch.choices = [
            (run.epoch, _("begun on %(moment)s, %(n)s events", moment=day_time(run.opened_at), n=run.held))
            for run in reversed(runs)
        ]
        self.last.label.text = _("The last event that you believe")
        if len(runs) < 2:
            del self.epoch


class LeaveForm(Form):
    """What becomes of what a town shared."""

    forgets = RadioField(validators=[InputRequired(), AnyOf(["nothing", "lessons", "everything"])])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.forgets.label.text = _("What does the town wish?")
        self.forgets.choices = [
            ("nothing", _("Everything it shared stays")),
            ("lessons", _("Its lessons are erased, the rest stays")),
            ("everything", _("Everything it told is erased")),
        ]


# ---- What was refused ------------------------------------------------------------------------------------------------------


@pages.get("/quarantine")
@require("association")
def quarantine() -> Any:
    town, verdict, before = request.args.get("town"), request.args.get("reason", "")[:20], request.args.get("before", "")
    known = int(before) if before.isascii() and before.isdigit() and len(before) < 10 else 0
    whose = None if not town or not town.isprintable() else "" if town == NOBODY else town[:40]
    with reading() as session:
        counts = count_quarantine(session)
        reason = verdict if verdict in ADVICE else ""
        rows = read_quarantine(session, PAGE + 1, town=whose, verdict=reason, before=known)
    towns = [
        {"name": name or _("no town that is known here"), "url": here(town=name or NOBODY, before=""), "here": name == whose}
        for name in sorted({row.town for row in counts})
    ]
    return render(
        "association/quarantine.html",
        counts=counts,
        rows=rows[:PAGE],
        towns=towns,
        whose=whose,
        reason=reason,
        town_key=NOBODY if whose == "" else whose,
        all_url=url_for(".quarantine"),
        more=here(before=rows[PAGE - 1].id) if len(rows) > PAGE else None,
        again=bool(known),
        advice={name: _(words) for name, words in ADVICE.items()},
        reasons=_reasons(),
    )


def _reasons() -> dict[str, str]:
    return {name: _(words) for name, words in REASONS.items()}


@pages.get("/quarantine/<int:number>")
@require("association")
def refused(number: int) -> Any:
    with reading() as session:
        row = read_refused(session, number) if number < 2**31 else None
    if row is None:
        raise NotFound
    raw = bytes(row.message)
    return render(
        "association/refused.html",
        row=row,
        bytes=_readable(raw[:SEEN_MAX]),
        cut=len(raw) > SEEN_MAX,
        reason=_reasons().get(row.verdict, row.verdict),
        advice=_(ADVICE.get(row.verdict, "")),
    )


def _readable(raw: bytes) -> str:
    """Bytes as plain ASCII: what cannot be printed stands there by its number, so that nothing in it can do anything."""
    return raw.decode("ascii", "backslashreplace").translate(_UNPRINTABLE)


_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(10), *range(11, 32), 127)}


@pages.post("/quarantine/<slug>/clear")
@require("association")
def clear(slug: str) -> Any:
    """Somebody looked at what came in this town's name: it is thrown away, and counted anew."""
    town = "" if slug == NOBODY else slug
    with transaction() as session:
        if not any(row.town == town for row in count_quarantine(session)):
            raise NotFound
        clear_quarantine(session, town)
    flash_ok(_("Thrown away. What comes from now on is counted anew."))
    return redirect(url_for(".quarantine"))


# ---- What stands still -----------------------------------------------------------------------------------------------------


@pages.post("/towns/<slug>/retry")
@require("association")
def retry(slug: str) -> Any:
    """Let one view try again where it stands still for this town."""
    with transaction() as session:
        freed = retry_stalls(session, [request.form.get("projection", "")], slug)
    flash_ok(_("It is tried again now.") if freed else _("This view does not stand still (any more)."))
    return redirect(url_for("association.show", slug=slug))


@pages.get("/towns/<slug>/frozen")
@require("association")
def frozen(slug: str) -> Any:
    with reading() as session:
        state = state_of(session, slug)
        if state.frozen_at is None:
            return redirect(url_for("association.show", slug=slug))
        values = {
            "instances": read_instances(session, slug),
            "epochs": read_epochs(session, slug),
            "refused": count_quarantine(session, slug),
        }
    happened = _(HAPPENED.get(state.trouble, ""))
    return render("association/frozen.html", town=shown(state), happened=happened, reasons=_reasons(), **values)


@pages.post("/towns/<slug>/thaw")
@require("association")
def go_on(slug: str) -> Any:
    """One node speaks for this town: go on."""
    with transaction() as session:
        if state_of(session, slug).frozen_at is None:
            raise NotFrozen
        thaw(session, slug, now())
    flash_ok(_("The town goes on. The node that calls next speaks for it."))
    return redirect(url_for("association.show", slug=slug))


# ---- How a town's word ends ------------------------------------------------------------------------------------------------


@pages.route("/towns/<slug>/revoke", methods=["GET", "POST"])
@require("association")
def revoke(slug: str) -> Any:
    with reading() as session:
        town, runs, latest = shown(state_of(session, slug)), runs_of(session, slug), read_latest(session, slug)
    form = RevokeForm(runs)
    if form.validate_on_submit():
        with naming(form):
            with transaction() as session:
                revoke_keys(session, slug, now(), form.last.data, form.epoch.data if form.epoch else None)
            flash_ok(_("The key counts no longer. Give the town a code, so that it can join anew."))
            return redirect(url_for("association.show", slug=slug))
    kinds = {kind: _(word) for kind, word in KINDS.items()}
    return render("association/revoke.html", form=form, town=town, latest=latest, kinds=kinds), 422 if form.is_submitted() else 200


@pages.route("/towns/<slug>/leave", methods=["GET", "POST"])
@require("association")
def depart(slug: str) -> Any:
    with reading() as session:
        town = shown(state_of(session, slug))
        told = count_told(session, slug)
    form = LeaveForm()
    if form.validate_on_submit():
        with transaction() as session:
            erased = leave(session, slug, form.forgets.data, now())
        flash_ok(_("The town has left. Things that are being erased everywhere: %(n)s.", n=erased))
        return redirect(url_for("association.show", slug=slug))
    return render("association/leave.html", form=form, town=town, told=told), 422 if form.is_submitted() else 200


@pages.get("/towns/<slug>/told")
@require("association")
def told(slug: str) -> Any:
    asked = request.args.get("page", "")
    page = max(1, int(asked)) if asked.isascii() and asked.isdigit() and len(asked) < 6 else 1  # far enough
    with reading() as session:
        town = shown(state_of(session, slug))
        if not town["gone"]:
            raise StillSpeaks
        total = count_told(session, slug)
        rows = read_told(session, slug, PAGE, (page - 1) * PAGE)
    things = [{"subject": row.subject, "title": row.title or row.subject, "kind": _(KINDS.get(row.kind, row.kind))} for row in rows]
    return render(
        "association/told.html",
        town=town,
        things=things,
        total=total,
        next_url=here(page=page + 1) if page * PAGE < total else None,
        previous_url=here(page=page - 1) if page > 1 else None,
    )


@pages.post("/towns/<slug>/told/<subject>/erase")
@require("association")
def erase(slug: str, subject: str) -> Any:
    """Erase everywhere what a town that is gone told about this."""
    with transaction() as session:
        erase_for_town(session, slug, subject, now())
    flash_ok(_("It is being erased everywhere. The towns hear of it when they read the feed."))
    return redirect(url_for(".told", slug=slug))

"""The page that says who did what: for the facilitator of a circle, or for the association.

It shows the deeds that were written beside their changes (`deeds.py`), with the names that the directory has today. What a view
does is said in the words that its service gave it (`web.Site.deeds`). What is known of somebody who has left can be erased here; of
somebody who is still there it stays, so that nobody wipes out their own tracks.
"""

from typing import Any

from flask import Blueprint, redirect, request, url_for
from werkzeug.routing import BuildError

from shared import deeds
from shared.language import N_, Words, _
from shared.refusals import NotFound, Refusal
from shared.web import Form, flash_ok, reading, render, require, site, transaction

PAGE = 50
OF_EVERY_SITE = {
    "login.ask": N_("Asked for a login link"),
    "login.open_link": N_("Logged in"),
    "login.leave": N_("Logged out"),
    "tokens.mine": N_("Made an API token"),
    "tokens.revoke": N_("Revoked an API token"),
    "trail.erase": N_("Erased what somebody did from this list"),
}


class StillHere(Refusal):
    """The trail of somebody who may still change things."""

    text = N_("This person is still here. Only of somebody who has left can this be erased.")


def words_for(what: str) -> str:
    """What a view does, in the reader's language; the view's own name where nobody gave it words."""
    words = OF_EVERY_SITE.get(what) or site().deeds.get(what)
    return _(words) if words else what


def pages(role: str) -> Blueprint:
    """The blueprint, for people with this role."""
    blueprint = Blueprint("trail", __name__, url_prefix="/trail")

    @blueprint.get("")
    @require(role)
    def index() -> Any:
        whose, before = request.args.get("person", "")[:40].replace("\0", ""), request.args.get("before", "")
        with reading() as session:
            known = int(before) if before.isascii() and before.isdigit() and len(before) < 10 else 0
            rows = deeds.read_deeds(session, person=whose, before=known, limit=PAGE + 1)
            people = {row.person for row in rows} | {row.subject for row in rows} | {whose}
            names = site().name_people(session, sorted(people))
            here = bool(whose and site().find_person(session, whose))
        more = url_for(".index", person=whose or None, before=rows[PAGE - 1].id) if len(rows) > PAGE else None
        shown = [
            {
                "at": row.at,
                "name": names.get(row.person),
                "url": url_for(".index", person=row.person),
                "what": words_for(row.what),
                "about": names.get(row.subject) if row.subject != row.person else None,
                "leads": _leads(row) if row.subject not in names else None,
                "by_program": row.way == deeds.API,
            }
            for row in rows[:PAGE]
        ]
        erasable = bool(whose and rows and not here)
        return render(
            "trail.html",
            rows=shown,
            more=more,
            whose=whose,
            name=names.get(whose),
            erasable=erasable,
            again=bool(known),
            form=Form(),
        )

    @blueprint.post("/erase")
    @require(role)
    def erase() -> Any:
        whose = request.form.get("person", "")[:40].replace("\0", "")
        with transaction() as session:
            if not whose:
                raise NotFound
            if site().find_person(session, whose):
                raise StillHere(fields={"person": Words(StillHere.text)})
            deeds.forget(session, whose)
        flash_ok(_("What this person did is erased from the list."))
        return redirect(url_for(".index"))

    return blueprint


def _leads(of: deeds.Deed) -> str | None:
    """Where the thing itself is, if its room shows things by their code."""
    shows = f"{of.what.partition('.')[0]}.show"
    for name in ("code", "slug"):
        try:
            return url_for(shows, _anchor=None, **{name: of.subject}) if of.subject else None  # type: ignore[arg-type]  # a rule's own word
        except BuildError:
            continue
    return None

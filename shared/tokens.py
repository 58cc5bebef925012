"""The page with one's own API tokens: made here, shown once, revoked at once.

A token acts for its person, with the same rights. Only its hash is kept (`login.py`); the list shows its name, and on which day it
was used last, so that a forgotten one can go.
"""

from typing import Any

from flask import Blueprint, redirect, url_for
from wtforms import StringField
from wtforms.validators import DataRequired, Length

from shared import login
from shared.language import N_, Words, _
from shared.refusals import NotFound, Refusal
from shared.web import Form, flash_ok, me, naming, now, reading, render, require, transaction

TOKENS_MAX = 20


class TooManyTokens(Refusal):
    """Nobody can keep an eye on so many."""

    text = N_("You have %(most)s tokens already. Revoke one that is not used any more.")

    def __init__(self) -> None:
        super().__init__(fields={"name": Words(self.text, {"most": TOKENS_MAX})}, most=TOKENS_MAX)


class TokenForm(Form):
    """A new token."""

    name = StringField(
        Words(N_("What is it for?")),
        description=Words(N_("So that you recognise it later, such as: the website of our garden.")),
        filters=[lambda said: " ".join((said or "").split())],
        validators=[DataRequired(), Length(max=160)],
    )


def pages(role: str) -> Blueprint:
    """The blueprint, for people with this role."""
    blueprint = Blueprint("tokens", __name__, url_prefix="/tokens")

    @blueprint.route("", methods=["GET", "POST"])
    @require(role)
    def mine() -> Any:
        form, fresh, person = TokenForm(), None, me() or ""
        if form.validate_on_submit():
            with naming(form), transaction() as session:
                if len(login.api_tokens(session, person)) >= TOKENS_MAX:
                    raise TooManyTokens
                fresh = login.make_api_token(session, person, str(form.name.data), now())
        with reading() as session:
            tokens = login.api_tokens(session, person)
        wrong = form.is_submitted() and fresh is None
        return render("tokens.html", form=form, tokens=tokens, fresh=fresh), 422 if wrong else 200

    @blueprint.post("/<code>/revoke")
    @require(role)
    def revoke(code: str) -> Any:
        with transaction() as session:
            name = login.revoke_api_token(session, me() or "", code if code.isalnum() else "", now())
        if name is None:
            raise NotFound
        flash_ok(_("%(name)s does not work any more.", name=name))
        return redirect(url_for(".mine"))

    return blueprint

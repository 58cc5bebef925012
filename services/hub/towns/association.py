"""For the association: the towns, their joining codes, and how far each is in sync."""

from typing import Any

from flask import Blueprint
from wtforms import StringField
from wtforms.validators import InputRequired, Length

from services.hub.towns.joining import add_town
from services.hub.towns.sync import sync_of_towns
from shared.language import _, ago
from shared.projections import stalls
from shared.web import Form, naming, now, reading, render, require, transaction

pages = Blueprint("association", __name__, url_prefix="/association")


class TownForm(Form):
    """A new town."""

    name = StringField(validators=[InputRequired(), Length(max=160)])
    slug = StringField(validators=[InputRequired(), Length(min=2, max=30)])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name.label.text = _("Name of the town")
        self.slug.label.text = _("Short name (a-z, digits, hyphens)")


@pages.get("")
@require("association")
def sync() -> Any:
    with reading() as session:
        towns = [
            {
                "name": state.name,
                "slug": state.town,
                "joined": state.joined_at,
                "called": ago(state.last_heard, now()) if state.last_heard else None,
                "cursor": state.cursor,
                "lag": state.lag,
            }
            for state in sync_of_towns(session)
        ]
        stalled = list(stalls(session))
    return render("association/sync.html", towns=towns, stalled=stalled)


@pages.route("/towns/new", methods=["GET", "POST"])
@require("association")
def new_town() -> Any:
    form = TownForm()
    if form.validate_on_submit():
        with naming(form), transaction() as session:
            code = add_town(session, str(form.slug.data).strip(), str(form.name.data).strip(), now())
            return render("association/code.html", name=form.name.data, code=code)
    return render("association/new_town.html", form=form), 422 if form.is_submitted() else 200

"""For the association: the towns, their joining codes, and how far each is in sync."""

from typing import Any

from flask import Blueprint
from sqlalchemy import select
from wtforms import StringField
from wtforms.validators import InputRequired, Length

from services.hub.towns.joining import Town, add_town
from shared.heads import known_head
from shared.inbox import inbox_cursor, stalls
from shared.language import _, ago
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
        rows = session.execute(
            select(Town, inbox_cursor.c.seq.label("held"), known_head.c.seq.label("head"), known_head.c.called_at)
            .outerjoin(inbox_cursor, inbox_cursor.c.town == Town.slug)
            .outerjoin(known_head, known_head.c.town == Town.slug)
            .order_by(Town.name)
        ).all()
        towns = [
            {
                "name": row.Town.name,
                "slug": row.Town.slug,
                "joined": row.Town.joined_at,
                "called": ago(row.called_at, now()) if row.called_at else None,
                "cursor": row.held or 0,
                "lag": max(0, row.head - (row.held or 0)) if row.called_at else None,
            }
            for row in rows
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

"""How the pages of the node ask: fields whose values fit what may travel, and the question about names (R34)."""

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy.orm import Session
from wtforms import BooleanField, HiddenField, SelectField, StringField, TextAreaField
from wtforms.validators import InputRequired, Length, Optional, ValidationError

from services.town_node.circle.naming import people_named_in
from shared.events import LINE_MAX, TEXT_MAX
from shared.language import N_, Words, _
from shared.web import Form

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u0085\u2028\u2029]")


def one_line(said: str | None) -> str:
    """Without breaks, control signs and blanks around it."""
    return re.sub(r"\s+", " ", _CONTROL.sub(" ", said or "")).strip()


def plain_text(said: str | None) -> str:
    """Browsers send Windows line ends; the wire knows one kind."""
    return _CONTROL.sub("", (said or "").replace("\r\n", "\n").replace("\r", "\n")).strip()


def line(text: str, *, needed: bool = False, hint: str = "", most: int = LINE_MAX) -> StringField:
    """One line of text."""
    rules = [InputRequired() if needed else Optional(), Length(max=most)]
    return StringField(Words(text), filters=[one_line], validators=rules, description=_lazy(hint))


def area(text: str, *, needed: bool = False, hint: str = "", rows: int = 8) -> TextAreaField:
    """A longer text, in Markdown where it is shown."""
    rules = [InputRequired() if needed else Optional(), Length(max=TEXT_MAX)]
    return TextAreaField(Words(text), filters=[plain_text], validators=rules, description=_lazy(hint), render_kw={"rows": rows})


def choose(text: str, hint: str = "") -> SelectField:
    """A closed list; the form fills in its choices."""
    return SelectField(Words(text), description=_lazy(hint))


def _lazy(text: str) -> Any:
    return Words(text) if text else ""


class DegreesField(StringField):
    """Degrees, with a comma or a point; `data` is whole millionths, or None. The place is as exact as its owner wishes."""

    def __init__(self, label: Any, most: int, **more: Any) -> None:
        super().__init__(label, validators=[Optional()], render_kw={"inputmode": "decimal"}, **more)
        self.most = most

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return "" if self.data is None else f"{Decimal(self.data) / 1_000_000:f}"

    def process_formdata(self, valuelist: list[str]) -> None:
        self.data = None
        said = valuelist[0].strip().replace(",", ".") if valuelist else ""
        if not said:
            return
        try:
            degrees = Decimal(said)
        except InvalidOperation:
            degrees = Decimal("NaN")
        if not degrees.is_finite() or abs(degrees) > self.most:
            raise ValueError(_("Write degrees with a comma or a point, such as 52,37."))
        self.data = int((degrees * 1_000_000).to_integral_value())


def latitude() -> DegreesField:
    """North."""
    return DegreesField(Words(N_("Latitude")), 90, description=Words(N_("In degrees, such as 52,37.")))


def longitude() -> DegreesField:
    """East."""
    return DegreesField(Words(N_("Longitude")), 180, description=Words(N_("In degrees, such as 5,22.")))


def both_degrees(form: Any) -> bool:
    """Half a place is no place."""
    if (form.latitude.data is None) == (form.longitude.data is None):
        return True
    empty = form.latitude if form.latitude.data is None else form.longitude
    empty.errors = [*empty.errors, _("Fill in both the latitude and the longitude, or neither.")]
    return False


class AskingForm(Form):
    """A form whose texts leave the town."""

    names_seen = HiddenField()
    names_agreed = BooleanField(Words(N_("They agreed that this is told to everybody, or this is no person.")))
    found: Iterable[str] = ()
    """What the node recognised and asks about; the form shows it with the box to tick."""


def ask_about_names(form: AskingForm, session: Session, texts: Iterable[str | None]) -> bool:
    """Whether these texts may leave as they are. If not, the form comes back with everything typed, and asks (R34).

    A tick holds for what was shown beside it: a name that was added afterwards is asked about again.
    """
    found = people_named_in(session, "\n\n".join(text for text in texts if text))
    seen = set((form.names_seen.data or "").split("|"))
    if not found or (form.names_agreed.data and set(found) <= seen):
        return True
    form.found = found
    form.names_seen.data = "|".join(found)
    form.names_seen.raw_data = None
    form.names_agreed.data = False
    form.names_agreed.errors = [_("Look at these words before this leaves the town: %(words)s", words=", ".join(found))]
    return False


def phone_like(_form: Any, field: Any) -> None:
    """A validator: what a telephone number may consist of."""
    if field.data and not re.fullmatch(r"\+?[0-9][0-9 ()-]{5,19}", field.data):
        raise ValidationError(_("Write a telephone number, with digits, spaces and dashes only."))


def email_like(_form: Any, field: Any) -> None:
    """A validator: what could be an e-mail address."""
    if field.data and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", field.data):
        raise ValidationError(_("This is no e-mail address."))

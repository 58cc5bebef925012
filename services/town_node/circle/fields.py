"""How the pages of the node ask: fields whose values fit what may travel, and the question about names (R34)."""

import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import Session
from wtforms import BooleanField, HiddenField, SelectField, StringField, SubmitField
from wtforms.validators import InputRequired, Length, Optional, ValidationError

from services.town_node.circle.naming import people_named_in
from shared.coordinates import read_place, write_place
from shared.events import LINE_MAX, TEXT_MAX, Place
from shared.fields import MarkedText
from shared.language import N_, Words, _
from shared.web import Form, reading

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


def area(text: str, *, needed: bool = False, hint: str = "", rows: int = 8) -> MarkedText:
    """A longer text, in Markdown where it is shown."""
    rules = [InputRequired() if needed else Optional(), Length(max=TEXT_MAX)]
    return MarkedText(Words(text), filters=[plain_text], validators=rules, description=_lazy(hint), render_kw={"rows": rows})


def look_first() -> SubmitField:
    """The button that shows how a text will look, and saves nothing."""
    return SubmitField(Words(N_("Look at it first")))


def choose(text: str, hint: str = "", *, needed: bool = False) -> SelectField:
    """A closed list; the form fills in its choices. In a needed one the first choice is empty: nobody chooses by not looking."""
    return SelectField(Words(text), validators=[InputRequired()] if needed else [], description=_lazy(hint))


def _lazy(text: str) -> Any:
    return Words(text) if text else ""


class PlaceField(StringField):
    """A place as people write it (`coordinates.read_place`), or as a press on the map fills it in; `data` is a `Place`, or None."""

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return write_place(self.data.latitude, self.data.longitude) if self.data else ""

    def process_formdata(self, valuelist: list[str]) -> None:
        said = one_line(valuelist[0]) if valuelist else ""
        read = read_place(said) if said else None
        self.data = read.place if read else None
        if said and read is None:
            raise ValueError(_(NOT_UNDERSTOOD))


NOT_UNDERSTOOD = N_(
    "This is no place in the Netherlands that we understand. Write two numbers, such as 52,3701 5,2220 or 155000 463000 (RD)."
)


def spot() -> PlaceField:
    """A place on the map."""
    return PlaceField(
        Words(N_("Coordinates")),
        validators=[Optional()],
        description=Words(N_("Press on the map, or write 52,3701 5,2220 or 155000 463000 (RD). No address is looked up anywhere.")),
        render_kw={"autocomplete": "off"},
    )


def halves(place: Place | None) -> dict[str, int | None]:
    """The place as a row keeps it."""
    return {"latitude": place.latitude if place else None, "longitude": place.longitude if place else None}


def no_coordinates(_form: Any, field: Any) -> None:
    """A validator: exact coordinates written as the name of a place would leave the town, whatever was chosen for them."""
    if field.data and read_place(field.data):
        raise ValidationError(
            _("These are coordinates. Write them in the field for coordinates, and here a street or a neighbourhood.")
        )


class AskingForm(Form):
    """A form whose texts leave the town."""

    names_seen = HiddenField()
    names_agreed = BooleanField(Words(N_("They agreed that this is told to everybody, or this is no person.")))
    look: Any = None
    """The button of `look_first`, in a form that has one."""
    found: Iterable[str] = ()
    """What the node recognised and asks about; the form shows it with the box to tick."""

    @property
    def asks(self) -> bool:
        """Whether it came back with one question and nothing else; that is shown instead of a list of what is wrong."""
        return len(self.asked) == 1 and not any(field.errors for field in self if field.name not in self.asked)

    @property
    def asked(self) -> set[str]:
        """The fields that hold a question."""
        return {"names_agreed"} if self.found else set()


def is_right(form: AskingForm, texts: Iterable[str | None]) -> bool:
    """Whether what was sent may be acted on. What is wrong and what is to be asked is said at once, not one after the other."""
    if not form.is_submitted() or (form.look is not None and form.look.data):
        return False
    right = form.validate()
    with reading() as session:
        return ask_about_names(form, session, texts) and right


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

"""Dutch first, English complete (R36): texts are marked where they are written and translated where they are read.

`N_("…")` marks a text without translating it (domain code, module level). `_("…")` translates it into the reader's language, which
`speak(language)` sets for the work at hand: a request, or one mail. The msgid is plain English. Catalogues are Babel's: one beside
`shared`, one in each service; a service names its own with `use_catalogues`.

Dates and numbers go through `day`, `day_time`, `clock` and `number`, which write them as the language does.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

from babel import dates, numbers
from babel.support import NullTranslations, Translations

LANGUAGES = {"nl": "Nederlands", "en": "English"}
"""What a reader can choose from."""
HOUSE = "nl"
"""In what a whole circle keeps and reads is written for it, whoever asks for it."""
_WRITTEN_AS = {"nl": "nl_NL", "en": "en_GB"}
"""How each writes dates: English as it is read in Europe, the day before the month."""
HERE = ZoneInfo("Europe/Amsterdam")
"""What people plan is in local wall time (design §6)."""

_language: ContextVar[str] = ContextVar("language", default="nl")
_folders: list[Path] = [Path(__file__).parent / "translations"]
_catalogues: dict[str, NullTranslations] = {}


def use_catalogues(folder: Path) -> None:
    """Add a service's own catalogues to those of `shared`."""
    if folder not in _folders:
        _folders.append(folder)
        _catalogues.clear()


def _catalogue() -> NullTranslations:
    language = _language.get()
    if language not in _catalogues:
        merged: NullTranslations = NullTranslations()
        for folder in _folders:
            found = Translations.load(folder, [language])
            if isinstance(found, Translations):
                merged = merged.merge(found) if isinstance(merged, Translations) else found
        _catalogues[language] = merged
    return _catalogues[language]


@contextmanager
def speak(language: str) -> Iterator[None]:
    """Translate into this language until the block ends."""
    token = _language.set(language if language in LANGUAGES else HOUSE)
    try:
        yield
    finally:
        _language.reset(token)


def spoken() -> str:
    """The reader's language, as a code."""
    return _language.get()


def N_(text: str) -> str:  # noqa: N802  # gettext's own name
    """Mark a text for translation; it is translated later, where it is read."""
    return text


def _(text: str, **values: object) -> str:
    """The text in the reader's language, its `%(name)s` places filled."""
    translated: str = _catalogue().ugettext(text) if text else ""
    return translated % values if values else translated


def ngettext(one: str, more: str, n: int, **values: object) -> str:
    """The singular or plural text in the reader's language; `%(n)s` is the number."""
    translated: str = _catalogue().ungettext(one, more, n)
    return translated % {"n": number(n), **values}


def gettext_plain(text: str) -> str:
    """For Jinja, which fills the places itself."""
    return _(text)


def ngettext_plain(one: str, more: str, n: int) -> str:
    """For Jinja, which fills the places itself."""
    translated: str = _catalogue().ungettext(one, more, n)
    return translated


@dataclass(frozen=True)
class Words:
    """A marked text with its values, still untranslated. `str()` translates it."""

    text: str
    values: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return _(self.text, **self.values)


def inside(words: str) -> str:
    """A text that stands alone elsewhere, as it is written within a sentence: without its capital, unless of an abbreviation."""
    return words if words[1:2].isupper() else words[:1].lower() + words[1:]


def _locale() -> str:
    return _WRITTEN_AS[_language.get()]


def day(value: date, *, style: str = "long") -> str:
    """A date as the reader writes it: `20 juni 2012`; `full` adds the weekday."""
    return str(dates.format_date(value, style, locale=_locale()))


def month(value: date) -> str:
    """The month, abbreviated: `jun`."""
    return str(dates.format_date(value, "MMM", locale=_locale())).rstrip(".")


def date_part(value: date, pattern: str) -> str:
    """A part of a date by Unicode's pattern: `EEE`, `d`, `MMM`."""
    return str(dates.format_date(value, pattern, locale=_locale())).rstrip(".")


def clock(value: time) -> str:
    """A local wall time: `19:30`."""
    return f"{value:%H:%M}"


def day_time(value: datetime) -> str:
    """A moment (UTC) in Dutch local time: `20 juni 2012, 19:30`."""
    local = value.astimezone(HERE)
    return f"{day(local.date())}, {local:%H:%M}"


def ago(value: datetime, now: datetime) -> str:
    """How long ago a moment was, roundly: `3 minuten geleden`."""
    return str(dates.format_timedelta(value - now, add_direction=True, locale=_locale()))


def number(value: float) -> str:
    """A number as the reader writes it: `1.234`."""
    return str(numbers.format_decimal(value, locale=_locale()))

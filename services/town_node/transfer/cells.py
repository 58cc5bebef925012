"""What one cell says: days, times, numbers, yes and no, and words for codes, as people write them in Dutch and in English.

Each reader takes a cell that is not empty and returns a value, or raises `Wrong` with words for whoever made the file. Nothing is
guessed: what could mean two things is refused, and what was understood in another way than it stands there is shown in the preview.
"""

import re
import unicodedata
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from services.town_node.circle.model import theme_code
from services.town_node.transfer.spreadsheets import Cell
from shared.events import LINE_MAX, TEXT_MAX
from shared.labels import GROUPS, ORDER, label
from shared.language import LANGUAGES, N_, Words, speak, spoken

Reader = Callable[[Any], Any]
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u0085\u2028\u2029\ud800-\udfff]")


class Wrong(ValueError):  # noqa: N818  # it names what the cell is
    """A cell does not say what its column asks for."""

    def __init__(self, text: str, **values: object) -> None:
        super().__init__(text)
        self.words = Words(text, values)


def plain(cell: Cell) -> str:
    """The cell as text, as somebody would type it."""
    if isinstance(cell, bool):
        return "1" if cell else "0"
    if isinstance(cell, float):
        return f"{int(cell)}" if cell.is_integer() else f"{Decimal(repr(cell)):f}"
    if isinstance(cell, datetime):
        return cell.isoformat(sep=" ", timespec="minutes").removesuffix(" 00:00")
    if isinstance(cell, time):
        return f"{cell:%H:%M}"
    return "" if cell is None else str(cell)


def short(cell: Cell) -> str:
    """The same for a message: not too long."""
    said = re.sub(r"\s+", " ", plain(cell)).strip()
    return said if len(said) <= 60 else said[:59] + "…"


def folded(said: str) -> str:
    """How two words are compared: small letters, one blank, without marks around it."""
    return re.sub(r"[\s_\-/]+", " ", unicodedata.normalize("NFKC", said).casefold()).strip(" .,:;*?!()[]\"'“”")


# ---- Text --------------------------------------------------------------------------------------------------------------------


def read_line(cell: Cell, most: int = LINE_MAX) -> str:
    """One line."""
    said = re.sub(r"\s+", " ", _CONTROL.sub(" ", plain(cell))).strip()
    if len(said) > most:
        raise Wrong(N_("This is too long: at most %(most)s characters."), most=most)
    return said


def read_lines(cell: Cell) -> str:
    """A longer text."""
    said = _CONTROL.sub("", plain(cell)).strip()
    if len(said) > TEXT_MAX:
        raise Wrong(N_("This is too long: at most %(most)s characters."), most=TEXT_MAX)
    return said


def read_email(cell: Cell) -> str:
    """An e-mail address."""
    said = read_line(cell, 320).removeprefix("mailto:").casefold()
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", said):
        raise Wrong(N_("This is no e-mail address."))
    return said


def read_phone(cell: Cell) -> str:
    """A telephone number; Excel takes the first 0 off what it believes to be a number."""
    said = read_line(cell).replace("/", "-").replace(".", " ").replace("–", "-")
    if re.fullmatch(r"[1-9]\d{8}", said):
        said = f"0{said}"
    if said.startswith("("):  # (036) 555 01 02
        said = said.replace("(", "", 1).replace(")", "", 1)
    if not re.fullmatch(r"\+?[0-9][0-9 ()-]{5,19}", said):
        raise Wrong(N_("Write a telephone number, with digits, spaces and dashes only."))
    return said


def read_count(cell: Cell) -> int:
    """A whole number of people."""
    said = plain(cell).strip()
    if not re.fullmatch(r"\d{1,5}", said, re.ASCII):
        raise Wrong(N_("“%(said)s” is no whole number."), said=short(cell))
    return int(said)


_YES = frozenset(["ja", "j", "yes", "y", "waar", "true", "wel", "x", "v", "✓", "✔", "☑", "1", "welkom", "welcome"])
_NO = frozenset(["nee", "n", "no", "onwaar", "false", "niet", "geen", "0", "☐", "op afspraak", "alleen op afspraak", ""])


def read_flag(cell: Cell) -> bool:
    """Yes or no."""
    said = folded(plain(cell))
    if said in _YES:
        return True
    if said in _NO:
        return False
    raise Wrong(N_("Write yes or no, not “%(said)s”."), said=short(cell))


# ---- Days and times ----------------------------------------------------------------------------------------------------------

_MONTHS = {
    word: month
    for month, words in enumerate(
        ("jan", "feb", "mrt maa mar", "apr", "mei may", "jun", "jul", "aug", "sep", "okt oct", "nov", "dec"), start=1
    )
    for word in words.split()
}
_FIRST_SERIAL, _LAST_SERIAL = 18_264, 73_051
"""Excel counts days since 1900; these are 1950 and 2100."""


def read_day(cell: Cell) -> date:
    """A day: `20-6-2012`, `20 juni 2012`, `2012-06-20`, Excel's own; a month or year alone means its first day."""
    found: date | None = None
    try:
        if isinstance(cell, datetime):
            found = cell.date()
        elif isinstance(cell, date):
            found = cell
        elif not isinstance(cell, time | bool):
            found = _day_in(plain(cell))
    except (ValueError, OverflowError):
        found = None
    if found is None or not 1900 <= found.year <= 2199:
        raise Wrong(N_("“%(said)s” is no day. Write it as 20-6-2012."), said=short(cell))
    return found


def _day_in(text: str) -> date | None:
    said = text.strip().casefold()
    if re.fullmatch(r"\d{5}([.,]\d+)?", said, re.ASCII):
        serial = int(said[:5])
        return date(1899, 12, 30) + timedelta(days=serial) if _FIRST_SERIAL <= serial <= _LAST_SERIAL else None
    if match := re.fullmatch(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})([t ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?", said, re.ASCII):
        return date(int(match[1]), int(match[2]), int(match[3]))
    if match := re.fullmatch(r"(\d{1,2})[-/. ](\d{1,2})[-/. ](\d{4}|'?\d{2})( \d{1,2}:\d{2}(:\d{2})?)?", said, re.ASCII):
        return date(_year(match[3]), int(match[2]), int(match[1]))
    if match := re.fullmatch(r"(\d{1,2})[-/](\d{4})", said, re.ASCII):
        return date(int(match[2]), int(match[1]), 1)
    if re.fullmatch(r"(19|20)\d\d", said, re.ASCII):
        return date(int(said), 1, 1)
    words = re.sub(r"^(maan|dins|woens|donder|vrij|zater|zon|mon|tues|wednes|thurs|fri|satur|sun)(dag|day),?\s*", "", said)
    words = re.sub(r"^(ma|di|wo|do|vr|za|zo)\.?,?\s+", "", words)
    if match := re.fullmatch(r"(\d{1,2})(?:e|st|nd|rd|th)?[-\s./]+([^\W\d]+)\.?,?[-\s./]*(\d{4}|'?\d{2})", words, re.ASCII):
        return date(_year(match[3]), _month(match[2]), int(match[1]))
    if match := re.fullmatch(r"([^\W\d]+)\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})", words, re.ASCII):
        return date(int(match[3]), _month(match[1]), int(match[2]))
    if match := re.fullmatch(r"([^\W\d]+)\.?[-\s]+(\d{4})", words, re.ASCII):
        return date(int(match[2]), _month(match[1]), 1)
    return None


def _year(said: str) -> int:
    year = int(said.lstrip("'"))
    return year if len(said.lstrip("'")) == 4 else year + (1900 if year >= 70 else 2000)


def _month(word: str) -> int:
    month = _MONTHS.get(word[:3])
    if month is None:
        raise ValueError(word)
    return month


def read_clock(cell: Cell) -> time:
    """A time of the day: `19:30`, `19.30`, `19u30`, `7:30 pm`, Excel's own."""
    found: time | None = None
    if isinstance(cell, datetime):
        found = cell.time()
    elif isinstance(cell, time):
        found = cell
    elif isinstance(cell, float) and 0 < cell < 1:  # a part of the day
        found = _part_of_day(cell)
    elif not isinstance(cell, date | bool):
        found = _clock_in(f"{cell:.2f}" if isinstance(cell, float) else plain(cell))
    if found is None:
        raise Wrong(N_("“%(said)s” is no time. Write it as 19:30."), said=short(cell))
    return found.replace(second=0, microsecond=0, tzinfo=None)


def _clock_in(text: str) -> time | None:
    said = text.strip().casefold()
    match = re.fullmatch(
        r"(\d{1,2})(?:\s*[:.uh]\s*(\d{2})(?::\d{2}(?:\.\d+)?)?|\s*[uh])?\s*(uur|u|h)?\.?\s*([ap]\.?m\.?)?", said, re.ASCII
    )
    if not match:
        part = re.fullmatch(r"0[.,](\d{2,})", said, re.ASCII)
        return _part_of_day(float(f"0.{part[1]}")) if part else None
    hours, minutes = int(match[1]), int(match[2] or 0)
    if match[4]:
        hours = hours % 12 + (12 if match[4].startswith("p") else 0)
    return time(hours, minutes) if hours < 24 and minutes < 60 else None


def _part_of_day(part: float) -> time:
    hours, minutes = divmod(round(part * 1440) % 1440, 60)
    return time(hours, minutes)


def read_clocks(cell: Cell) -> tuple[time, time | None]:
    """From and, if it is there, until: `19:30 - 22:00`."""
    parts = re.split(r"\s*(?:-|–|—|\btot\b|\bto\b|\buntil\b)\s*", plain(cell).strip(), maxsplit=1)
    if isinstance(cell, str) and len(parts) == 2:
        return read_clock(parts[0]), read_clock(parts[1])
    return read_clock(cell), None


# ---- Codes -------------------------------------------------------------------------------------------------------------------

_MORE_WORDS = {
    "initiative_kind": {
        "moestuin": "community_garden", "buurttuin": "community_garden", "volkstuin": "community_garden",
        "gemeenschapstuin": "community_garden", "groenstroken": "green_strip", "zelfbeheer": "self_managed_green",
        "bakken": "planters", "plantenbakken": "planters", "moestuinbakken": "planters", "stadslandbouw": "urban_farm",
        "stadsboerderij": "urban_farm", "overig": "other", "overige": "other",
    },
    "phase": {
        "ideefase": "idea", "planfase": "plan", "in voorbereiding": "plan", "bijna klaar": "almost_operational",
        "nearly operational": "almost_operational", "in bedrijf": "operational", "loopt": "operational", "actief": "operational",
        "beëindigd": "stopped", "ended": "stopped",
    },
    "lesson_kind": {
        "doen": "do", "wel": "do", "niet": "dont", "don't": "dont", "do not": "dont", "tips": "tip", "succes": "success_factor",
    },
    "meeting_kind": {
        "bijeenkomst": "circle", "kring": "circle", "startbijeenkomst": "start", "overig": "other", "overige": "other",
    },
    "purpose": {
        "sociaal": "social", "commercieel": "commercial", "educatie": "education", "onderwijs": "education", "leren": "education",
    },
}  # fmt: skip
"""What else people write; beside the codes, and the words of the screens in both languages."""


@lru_cache(maxsize=32)
def _words_for(group: str) -> dict[str, str]:
    found = {folded(word): code for word, code in _MORE_WORDS.get(group, {}).items()}
    for language in LANGUAGES:
        with speak(language):
            found |= {folded(label(code, group)): code for code in ORDER[group]}
    return found | {folded(text): code for code, text in GROUPS[group].items()} | {folded(code): code for code in ORDER[group]}


def choice(group: str) -> Reader:
    """A reader of one of a closed list (`shared.labels`), by code or by word."""

    def read(cell: Cell) -> str:
        code = _words_for(group).get(folded(plain(cell)))
        if code is None:
            raise Wrong(N_("“%(said)s” is not among these: %(words)s."), said=short(cell), words=_Choices(group))
        return code

    return read


def several(group: str) -> Reader:
    """A reader of some of a closed list, in its own order."""
    one = choice(group)

    def read(cell: Cell) -> list[str]:
        said = re.split(r"[;,/\n+]|\ben\b|\band\b", plain(cell)) if folded(plain(cell)) not in _words_for(group) else [plain(cell)]
        codes = {one(part) for part in said if folded(part)}
        return [code for code in ORDER[group] if code in codes]

    return read


class _Choices:
    """The words of a list, in the language of who reads the message."""

    def __init__(self, group: str) -> None:
        self.group = group

    def __str__(self) -> str:
        return ", ".join(label(code, self.group) for code in ORDER[self.group])


def read_theme(cell: Cell) -> str:
    """A theme: one of the report's, or the circle's own."""
    said = plain(cell)
    code = _words_for("theme").get(folded(said)) or theme_code(said)
    if len(code) < 2:
        raise Wrong(N_("“%(said)s” is no theme."), said=short(cell))
    return code


def written(code: str | None, group: str) -> Cell:
    """The word for a code in the reader's language, so that it is read back as the same code."""
    if not code:
        return None
    word = label(code, group)
    known = _words_for(group).get(folded(word))
    return word if known == code or (known is None and group == "theme" and theme_code(word) == code) else code


def write_flag(value: object) -> str:
    """Yes or no, in the reader's language."""
    yes, no = {"nl": ("ja", "nee")}.get(spoken(), ("yes", "no"))
    return yes if value else no

"""Recognising people in a free text before it leaves the town (R34).

The node knows its own directory, and what an e-mail address or a Dutch telephone number looks like. It asks rather than forbids:
a surname may be a plant. So it may find too much, and should not find too little; capitals and accents make no difference.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.town_node.circle.model import Circle, Member

SURNAME_LEAST = 4
"""Shorter surnames are found only together with a first name: too many are everyday words."""
_EMAIL = re.compile(r"[^\s@<>()\[\],;:]+@[^\s@<>()\[\],;:]+\.[^\W\d_]{2,}")
_PHONE = re.compile(r"(?<![\d+])(?:\+31|0031|\(?0)(?:[\s().-]{0,3}\d){8,11}(?!\d)")
_DIGITS = re.compile(r"\+?\d(?:[\s().-]{0,3}\d){5,14}")


def people_named_in(session: Session, text: str) -> list[str]:
    """The snippets of a text that name or reach a person, each once, as they stand there."""
    people = session.execute(select(Member.name, Member.email, Member.phone)).all()
    public = session.scalar(select(Circle.public_phone))
    return find_people(text, [(row.name, row.email, row.phone) for row in people], public or "")


def name_people(session: Session, codes: Collection[str]) -> dict[str, str]:
    """The names of these people, of those too who have left."""
    return {row.code: row.name for row in session.execute(select(Member.code, Member.name).where(Member.code.in_(codes)))}


def find_people(text: str, people: Iterable[tuple[str, str | None, str]], public_phone: str = "") -> list[str]:
    """The same over values: people as (name, e-mail, phone). The number a circle made public is nobody's."""
    folded, places = _fold(text)
    spans = [match.span() for match in _EMAIL.finditer(text)]
    open_number = _national(public_phone)
    spans += [match.span() for match in _PHONE.finditer(text) if not open_number or _national(match[0]) != open_number]
    lowered, numbers = text.casefold(), [(match.span(), _national(match[0])) for match in _DIGITS.finditer(text)]
    for name, email, phone in people:
        for pattern in _name_patterns(name, folded):
            spans += [(places[m.start()], places[m.end() - 1] + 1) for m in pattern.finditer(folded)]
        if email and email in lowered:
            found = re.compile(rf"(?<!\w){re.escape(email)}(?!\w)", re.IGNORECASE)
            spans += [match.span() for match in found.finditer(text)]
        number = _national(phone)
        if len(number) >= 6 and number != open_number:
            spans += [span for span, other in numbers if other == number]
    return _longest(text, spans)


def _fold(text: str) -> tuple[str, list[int]]:
    """The text in small letters without accents, and for each of its signs its place in the original."""
    signs, places = [], []
    for place, sign in enumerate(text):
        for part in unicodedata.normalize("NFKD", sign).casefold():
            if not unicodedata.combining(part):
                signs.append(part)
                places.append(place)
    return "".join(signs), places


def _name_patterns(name: str, text: str) -> list[re.Pattern[str]]:
    words = _fold(name)[0].split()
    if not words or words[-1] not in text:  # every form ends with it; a whole spreadsheet may be looked through (`transfer`)
        return []
    forms = {tuple(words)} if len(words) > 1 or len(words[0]) >= SURNAME_LEAST else set()
    if len(words) > 1:
        forms.add((words[0], words[-1]))
        if len(words[-1]) >= SURNAME_LEAST:
            forms.add((words[-1],))
    return [re.compile(r"(?<!\w)" + r"[\s.]+".join(map(re.escape, form)) + r"(?!\w)") for form in sorted(forms)]


def _national(phone: str) -> str:
    """The digits that stay the same however a number is written."""
    digits = re.sub(r"\D", "", phone.replace("(0)", ""))
    return re.sub(r"^(0031|31(?=\d{9}$)|0)", "", digits)


def _longest(text: str, spans: list[tuple[int, int]]) -> list[str]:
    """Without what lies inside a longer find."""
    found: list[str] = []
    last = -1
    for start, end in sorted(set(spans), key=lambda span: (span[0], -span[1])):
        if end > last:
            last = end
            snippet = text[start:end].strip()
            if snippet not in found:
                found.append(snippet)
    return found

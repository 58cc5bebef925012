"""What a file of each kind holds: its columns, their names in both languages, and how a column is recognised.

The names are part of the format, not of the screen's translations: a file that was exported last year must be understood after a
translator found a better word. A column is recognised by either name, by its field, or by one of the words that people use for it;
what is not recognised can be mapped by hand, and is left alone otherwise.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.town_node.transfer import cells
from services.town_node.transfer.cells import Reader, Wrong, choice, folded, several
from services.town_node.transfer.spreadsheets import Cell, Row, Unreadable
from shared.events import LINE_MAX, PHASES
from shared.language import N_, spoken

KINDS = ("initiatives", "members", "lessons", "meetings")
SAYS_NOTHING = object()


@dataclass(frozen=True)
class Column:
    """One column of a kind. `leaves`: its text is told to other towns, so it is asked about names (R34)."""

    field: str
    dutch: str
    english: str
    read: Reader
    also: str = ""
    """Other names, with commas between."""
    needed: bool = False
    leaves: bool = False
    empty: Any = SAYS_NOTHING
    """What an empty cell means; most say nothing, and leave what is known as it is."""
    exported: bool = True
    sample: tuple[Cell, Cell] | None = None
    """What the sample file shows, in Dutch and in English."""

    @property
    def header(self) -> str:
        """Its name in the reader's language."""
        return self.dutch if spoken() == "nl" else self.english


# ---- Parts that hold more than one thing -------------------------------------------------------------------------------------


def read_history(cell: Cell) -> list[tuple[str, Any]]:
    """`Idee 2012-06-20; Plan 1-1-2013`: the phases with the day each began, oldest first."""
    steps = []
    for part in re.split(r"[;\n]", cells.plain(cell)):
        if not part.strip():
            continue
        match = re.fullmatch(r"\s*([^\d(:]+?)[\s:(]+(?:sinds |since |vanaf |from )?(\d[^)]*)\)?\s*", part)
        if not match:
            raise Wrong(N_("Write the history as: Idea 20-6-2012; Plan 1-1-2013."))
        steps.append((choice("phase")(match[1]), cells.read_day(match[2].strip())))
    return steps


def write_history(steps: Iterable[tuple[str, Any]]) -> str:
    """The same, in the reader's language."""
    return "; ".join(f"{cells.written(phase, 'phase')} {since.isoformat()}" for phase, since in steps)


def read_agenda(cell: Cell) -> list[dict[str, Any]]:
    """Lines `title | minutes`; minutes may be left out."""
    items = []
    said = cells.plain(cell)
    for text in said.split("\n" if "\n" in said else ";"):
        match = re.fullmatch(r"\s*(.+?)\s*(?:\|\s*(\d{1,4})?\s*(?:min(?:uten|utes)?\.?|')?\s*)?", text, re.ASCII)
        if not match:
            continue
        title, minutes = cells.read_line(match[1]), int(match[2] or 0)
        if ("|" in title and not match[2]) or minutes > 1440 or len(items) == 100:
            raise Wrong(N_("Write each item as: title | minutes. A title has at most %(most)s characters."), most=LINE_MAX)
        items.append({"title": title, "minutes": minutes})
    return items


def write_agenda(items: Iterable[Mapping[str, Any]]) -> str:
    """The same."""
    return "\n".join(f"{item['title']} | {item['minutes']}" if item["minutes"] else item["title"] for item in items)


def _one_of(words: Mapping[str, str]) -> Reader:
    """A reader of a short list of our own."""

    def read(cell: Cell) -> str:
        code = words.get(folded(cells.plain(cell)))
        if code is None:
            raise Wrong(N_("“%(said)s” is not among these: %(words)s."), said=cells.short(cell), words=", ".join(words))
        return code

    return read


_LANGUAGE = {"nl": "nl", "nederlands": "nl", "dutch": "nl", "en": "en", "engels": "en", "english": "en"}
_ROLE = {"deelnemer": "member", "member": "member", "lid": "member", "facilitator": "facilitator"}
_STATUS = {"gepland": "planned", "planned": "planned", "gehouden": "held", "held": "held"}
_PLACE_SHOWN = {
    "exact": "exact",
    "buurt": "neighbourhood",
    "neighbourhood": "neighbourhood",
    "verborgen": "hidden",
    "hidden": "hidden",
}


def write_place_shown(code: str | None) -> Cell:
    """How exactly others see the place, in the reader's language."""
    return next((word for word, known in _PLACE_SHOWN.items() if known == code and (spoken() == "nl" or word == known)), code)


def read_list(cell: Cell) -> list[str]:
    """Names or addresses, with semicolons, commas or line breaks between."""
    return [said for part in re.split(r"[;,\n]", cells.plain(cell)) if (said := cells.read_line(part, 320))]


# ---- The kinds ---------------------------------------------------------------------------------------------------------------

CODE = Column("code", "Code", "Code", cells.read_line, "kenmerk, id")
COLUMNS: dict[str, tuple[Column, ...]] = {
    "initiatives": (
        CODE,
        Column("name", "Naam", "Name", cells.read_line, "initiatief, naam initiatief, tuin, naam tuin, project, initiative, garden",
               needed=True, leaves=True, sample=("Voorbeeldtuin de Zon", "Sample garden the Sun")),
        Column("kind", "Soort", "Kind", choice("initiative_kind"), "type, soort initiatief, categorie, category", needed=True,
               sample=("Buurtmoestuin", "Community garden")),
        Column("phase", "Fase", "Phase", choice("phase"), "stadium, stand van zaken, status, stage", needed=True,
               sample=("Plan", "Plan")),
        Column("since", "Sinds", "Since", cells.read_day,
               "in deze fase sinds, fase sinds, datum, start, startdatum, date, in this phase since",
               sample=("20-6-2012", "20-6-2012")),
        Column("history", "Verloop", "History", read_history, "geschiedenis, fasen, phases"),
        *(Column(f"since_{phase}", f"{dutch} sinds", f"{english} since", cells.read_day,
                 f"datum {dutch}, {dutch} vanaf, {dutch} op", exported=False)
          for phase, dutch, english in zip(PHASES, ("Idee", "Plan", "Bijna operationeel", "Operationeel", "Gestopt"),
                                           ("Idea", "Plan", "Almost operational", "Operational", "Stopped"), strict=True)),
        Column("about_text", "Over het initiatief", "About the initiative", cells.read_lines,
               "omschrijving, beschrijving, toelichting, over, description, about", leaves=True,
               sample=("Twaalf bakken en een bijenkast.", "Twelve beds and a beehive."), empty=""),
        Column("purposes", "Waarvoor", "What for", several("purpose"), "doel, doelen, purpose, purposes",
               sample=("Ontmoeten, Leren", "Meeting each other, Learning"), empty=()),
        Column("place_name", "Plaats", "Place", cells.read_line,
               "locatie, adres, wijk, buurt, straat, location, neighbourhood, address",
               leaves=True, sample=("Filmwijk", "Filmwijk"), empty=""),
        Column("latitude", "Breedtegraad", "Latitude", cells.plain, "breedte, noorderbreedte, nb, lat, y, rd y, y coördinaat, rdy",
               sample=("52,3702", "52.3702"), empty=""),
        Column("longitude", "Lengtegraad", "Longitude", cells.plain,
               "lengte, oosterlengte, ol, lon, lng, long, x, rd x, x coördinaat, rdx",
               sample=("5,2220", "5.2220"), empty=""),
        Column("point", "Coördinaten", "Coordinates", cells.plain, "coordinaten, gps, rd, rd coördinaten, lat lon", exported=False),
        Column("place_shown", "Plaats tonen", "Place shown", _one_of(_PLACE_SHOWN), "zichtbaarheid, place_shown"),
        Column("visitors", "Bezoekers welkom", "Visitors welcome", cells.read_flag,
               "bezoek, bezoekers, bezoek mogelijk, visitors, visitors are welcome", sample=("ja", "yes"), empty=False),
        Column("visiting", "Wanneer te bezoeken", "When to visit", cells.read_line, "openingstijden, bezoektijden, opening hours",
               leaves=True, sample=("Zaterdag van 10 tot 12", "Saturdays from 10 to 12"), empty=""),
    ),
    "members": (
        CODE,
        Column("name", "Naam", "Name", cells.read_line, "deelnemer, naam deelnemer, volledige naam, full name, member", needed=True,
               sample=("Roos Voorbeeld", "Rose Sample")),
        Column("email", "E-mailadres", "E-mail address", cells.read_email,
               "e-mail, email, mail, mailadres, emailadres, email address",
               needed=True, sample=("roos@example.org", "rose@example.org")),
        Column("phone", "Telefoon", "Telephone", cells.read_phone, "telefoonnummer, tel, mobiel, gsm, phone, phone number, mobile",
               sample=("036 555 01 02", "036 555 01 02"), empty=""),
        Column("language", "Taal", "Language", _one_of(_LANGUAGE), "taal van mails, language of mails", sample=("nl", "en")),
        Column("role", "Rol", "Role", _one_of(_ROLE), sample=("deelnemer", "member")),
        Column("joined_on", "Deelnemer sinds", "Member since", cells.read_day, "sinds, lid sinds, since, joined",
               sample=("20-6-2012", "20-6-2012")),
    ),
    "lessons": (
        CODE,
        Column("title", "In één zin", "In one sentence", cells.read_line, "titel, les, geleerde les, kop, title, lesson",
               needed=True, leaves=True, sample=("Vraag vroeg om water", "Ask early for water")),
        Column("body", "Het hele verhaal", "The whole story", cells.read_lines,
               "verhaal, tekst, toelichting, omschrijving, uitleg, text, story, body",
               needed=True, leaves=True,
               sample=("De gemeente heeft er een jaar voor nodig.", "The municipality needs a year for it.")),
        Column("kind", "Soort", "Kind", choice("lesson_kind"), "type, soort les", needed=True, sample=("Tip", "Tip")),
        Column("theme", "Thema", "Theme", cells.read_theme, "onderwerp, subject, topic", needed=True, leaves=True,
               sample=("Water", "Water")),
        Column("phase", "Helpt in fase", "Helps in phase", choice("phase"), "fase, helpt in deze fase, phase, helps in this phase",
               sample=("Plan", "Plan"), empty=None),
        Column("initiative", "Geleerd bij", "Learned at", cells.read_line, "initiatief, tuin, initiative", empty=None),
        Column("meeting", "Verteld op de bijeenkomst", "Told at the meeting", cells.read_line, "bijeenkomst, meeting", empty=None),
        Column("shared_on", "Gedeeld op", "Shared on", cells.read_day, "datum, date, dag", sample=("20-6-2012", "20-6-2012")),
        Column("byline", "Naam eronder", "Name under it", cells.read_line, "auteur, geschreven door, author, written by"),
    ),
    "meetings": (
        CODE,
        Column("title", "Titel", "Title", cells.read_line, "bijeenkomst, naam, onderwerp, meeting, name", needed=True, leaves=True,
               sample=("Startbijeenkomst", "Start meeting")),
        Column("day", "Dag", "Day", cells.read_day, "datum, date", needed=True, sample=("20-6-2012", "20-6-2012")),
        Column("starts", "Van", "From", cells.read_clocks, "tijd, tijdstip, begin, begint, aanvang, starttijd, time, starts, start",
               needed=True, sample=("19:30", "19:30")),
        Column("ends", "Tot", "Until", cells.read_clock, "einde, eindigt, eindtijd, ends, end", sample=("22:00", "22:00"),
               empty=None),
        Column("kind", "Soort", "Kind", choice("meeting_kind"), "type, soort bijeenkomst", needed=True,
               sample=("Startbijeenkomst", "Start meeting")),
        Column("theme", "Thema", "Theme", cells.read_theme, "topic", leaves=True, sample=("Vrijwilligers", "Volunteers"),
               empty=None),
        Column("place_name", "Plaats", "Place", cells.read_line, "locatie, waar, location, where", leaves=True,
               sample=("Stadsboerderij Almere", "Stadsboerderij Almere"), empty=""),
        Column("agenda", "Agenda", "Agenda", read_agenda, "programma, programme", leaves=True,
               sample=("Welkom | 15\nBijpraatronde | 45", "Welcome | 15\nRound | 45"), empty=()),
        Column("status", "Stand", "Status", _one_of(_STATUS), "status"),
        Column("attended", "Aantal aanwezigen", "People who came", cells.read_count,
               "aanwezig, aanwezigen, aantal, opkomst, hoeveel kwamen er, attended, attendance", sample=("13", "13")),
        Column("members", "Wie er waren", "Who was there", read_list, "deelnemers, namen, names, members"),
        Column("notes", "Notities", "Notes", cells.read_lines, "aantekeningen, notulen", empty=""),
        Column("report", "Verslag", "Report", cells.read_lines, "rapport", leaves=True),
    ),
}  # fmt: skip


def column(kind: str, field: str) -> Column:
    """The column of this field."""
    return next(found for found in COLUMNS[kind] if found.field == field)


# ---- Which column is which ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A file's rows with its header found. `headers` holds what each column is called, by its place in the file."""

    headers: tuple[str, ...]
    rows: Sequence[Row]

    def recognised(self, kind: str) -> dict[int, str]:
        """Place → field, for the columns whose name says what they are. Of two with one meaning the first counts."""
        names = _names(kind)
        found: dict[int, str] = {}
        for place, header in enumerate(self.headers):
            field = names.get(folded(header))
            if field and field not in found.values():
                found[place] = field
        return found


def open_table(rows: Sequence[Row], kind: str) -> Table:
    """Find the header: the first line that names two columns or more (a title may stand above it), else the first line."""
    names = _names(kind)
    head = rows[0]
    for row in rows[:10]:
        if len({field for cell in row.cells if (field := names.get(folded(cells.plain(cell))))}) >= 2:
            head = row
            break
    beyond = [row for row in rows if row.number > head.number]
    width = max((place + 1 for row in [head, *beyond] for place, cell in enumerate(row.cells) if cell is not None), default=0)
    headers = tuple(cells.short(head.cells[place]) if place < len(head.cells) else "" for place in range(width))
    return Table(headers, beyond)


def _names(kind: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for known in COLUMNS[kind]:
        for name in (known.field, known.dutch, known.english, *known.also.split(",")):
            names.setdefault(folded(name), known.field)
    names.pop("", None)
    return names


def map_columns(table: Table, kind: str, by_hand: Mapping[str, str]) -> dict[int, str]:
    """Place → field. `by_hand` gives a field (or "" for none) to a place in the file, and wins over what was recognised.

    Raises `Unreadable` when two columns would fill one field.
    """
    fields = {known.field for known in COLUMNS[kind]}
    chosen = {int(place): field for place, field in by_hand.items() if field in fields | {""} and int(place) < len(table.headers)}
    mapped = {place: field for place, field in table.recognised(kind).items() if place not in chosen}
    mapped = {place: field for place, field in mapped.items() if field not in chosen.values()}
    mapped |= {place: field for place, field in chosen.items() if field}
    for field in mapped.values():
        if list(mapped.values()).count(field) > 1:
            raise Unreadable(N_("Two columns are chosen for “%(field)s”. Choose one."), field=column(kind, field).header)
    return dict(sorted(mapped.items()))


def name_by_hand(table: Table, kind: str, said: Iterable[str]) -> dict[str, str]:
    """What `Header=field` says, for the command line: a column by its name in the file, a field by any of its names."""
    names = _names(kind)
    by_hand = {}
    for text in said:
        header, _sign, field = text.rpartition("=")
        places = [place for place, name in enumerate(table.headers) if folded(name) == folded(header)]
        if not places:
            raise Unreadable(N_("This file has no column “%(name)s”."), name=header)
        if field.strip() and folded(field) not in names:
            known = ", ".join(known.field for known in COLUMNS[kind])
            raise Unreadable(N_("There is no field “%(name)s”. Choose one of: %(words)s."), name=field, words=known)
        by_hand[str(places[0])] = names.get(folded(field), "")
    return by_hand


def sample(kind: str) -> list[list[Cell]]:
    """A small file to begin with, in the reader's language."""
    shown = [known for known in COLUMNS[kind] if known.sample]
    nth = 0 if spoken() == "nl" else 1
    return [[known.header for known in shown], [known.sample[nth] for known in shown if known.sample]]

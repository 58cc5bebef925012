"""Importing and exporting: a plan that changes nothing, then all of it in one transaction, or nothing.

`plan_import` says for every row what would happen; the page and the command line show it. `carry_out` does it, row by row, through
the actions of the slices, inside the caller's one transaction: if anything is refused, everything is. A row that says what is known
already does nothing, so importing a file twice changes nothing the second time, and neither does importing an export.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from sqlalchemy import delete
from sqlalchemy.orm import Session

from services.town_node.circle.model import new_code
from services.town_node.circle.naming import people_named_in
from services.town_node.transfer import cells
from services.town_node.transfer.cells import Wrong
from services.town_node.transfer.columns import COLUMNS, SAYS_NOTHING, Column, Table, column, map_columns, open_table
from services.town_node.transfer.kinds import KIND_CLASSES, Kind, WrongField
from services.town_node.transfer.model import KEPT_FOR, Upload, forget_old_uploads
from services.town_node.transfer.spreadsheets import ROWS_MAX, Cell, Row, Unreadable, read_table
from shared.events import Misfit
from shared.language import N_, Words, day
from shared.refusals import NotFound, Refusal

STATES = ("wrong", "new", "changed", "unchanged")


class NotImported(Refusal):
    """Something changed since the preview, or was refused after all. Nothing of the file was taken over."""

    text = N_("Line %(line)s could not be imported, so nothing was. %(why)s")


@dataclass
class Change:
    """One field of a row that would be different, as texts for the page."""

    header: str
    after: str
    before: str = ""


@dataclass
class Step:
    """What would happen to one row."""

    line: int
    """The row's number in the spreadsheet."""
    state: str = "new"
    title: str = ""
    changes: list[Change] = field(default_factory=list)
    errors: list[tuple[str, Words]] = field(default_factory=list)
    """(the column, what is wrong)"""
    notes: list[Words] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Words that may tell who somebody is, in what would leave the town (R34)."""
    thing: Any = None
    told: dict[str, Any] = field(default_factory=dict)

    def is_wrong(self, header: str, words: Words) -> None:
        """Say what does not fit."""
        self.state = "wrong"
        self.errors.append((header, words))


@dataclass
class Plan:
    """What an import would do."""

    kind: Kind
    table: Table
    mapping: dict[int, str]
    steps: list[Step]
    names: list[str]
    """Every word of every step's `names`, once."""

    def count(self, state: str) -> int:
        """How many rows would end so."""
        return sum(step.state == state for step in self.steps)

    @property
    def unknown(self) -> list[str]:
        """The columns that would be left alone."""
        return [header for place, header in enumerate(self.table.headers) if header and place not in self.mapping]

    @property
    def ready(self) -> bool:
        """Whether it can be carried out and would do something."""
        return not self.count("wrong") and any(step.state in {"new", "changed"} for step in self.steps)


# ---- The plan ----------------------------------------------------------------------------------------------------------------


def plan_import(session: Session, kind: str, rows: Sequence[Row], by_hand: Mapping[str, str], today: date) -> Plan:
    """What importing these rows would do. Raises `Unreadable` for a file that is no table of this kind."""
    table = open_table(rows, kind)
    if len(table.rows) > ROWS_MAX:
        raise Unreadable(N_("This file has more than %(most)s lines. Divide it into several files."), most=ROWS_MAX)
    if not table.rows:
        raise Unreadable(N_("This file has a line with names of columns, and nothing under it."))
    mapping = map_columns(table, kind, by_hand)
    rules = KIND_CLASSES[kind](session, today)
    steps: list[Step] = []
    lines: dict[Any, int] = {}
    for row in table.rows:
        step = _plan_row(rules, mapping, row)
        if step.state != "wrong":
            about = step.thing.code if step.thing else ("new", rules.key(step.told))
            if lines.setdefault(about, row.number) != row.number:
                step.is_wrong("", Words(N_("Line %(line)s is about the same one. Keep one of the two."), {"line": lines[about]}))
        if step.state != "wrong":
            _try(rules, step)
        steps.append(step)
    names = _ask_about_names(session, rules, steps)
    return Plan(rules, table, mapping, steps, names)


def _plan_row(rules: Kind, mapping: Mapping[int, str], row: Row) -> Step:
    said = {name: row.cells[place] if place < len(row.cells) else None for place, name in mapping.items()}
    step = Step(row.number)
    told: dict[str, Any] = {}
    for known in COLUMNS[rules.name]:
        if known.field in said and known.field != "code":
            _read(rules, known, said[known.field], told, step)
    step.title = cells.short(said.get(column(rules.name, "name" if rules.name in {"initiatives", "members"} else "title").field))
    try:
        step.thing = rules.find(cells.plain(said.get("code")).strip(), told)
    except Wrong as wrong:
        step.is_wrong("", wrong.words)
        return step
    if step.thing is None:
        wrong_already = {header for header, _words in step.errors}
        for name in rules.lacks(told):
            if (header := column(rules.name, name).header) not in wrong_already:
                step.is_wrong(header, Words(N_("This must be filled in.")))
    else:
        _leave_what_is_known(rules, said, told, step)
    if step.errors:
        return step
    now = rules.current(step.thing) if step.thing else {}
    step.changes = [
        Change(column(rules.name, name).header, _shown(rules, name, value), _shown(rules, name, now.get(name)))
        for name, value in told.items()
    ]
    try:
        step.told = rules.combine(dict(told), step.thing, step.notes)
    except WrongField as wrong:
        step.is_wrong(column(rules.name, wrong.field).header, wrong.words)
        return step
    if step.thing is not None:
        step.state = "changed" if step.told else "unchanged"
    if step.state == "unchanged":
        step.changes = []
    return step


def _read(rules: Kind, known: Column, cell: Cell, told: dict[str, Any], step: Step) -> None:
    if not cells.plain(cell).strip():
        if known.needed or known.empty is not SAYS_NOTHING:
            told[known.field] = None if known.needed else known.empty
        return
    try:
        if isinstance(cell, str) and cell in _SHEET_ERRORS:
            raise Wrong(N_("This cell holds an error of the spreadsheet: %(said)s"), said=cell)
        told[known.field] = rules.readers.get(known.field, known.read)(cell)
    except Wrong as wrong:
        step.errors.append((known.header, wrong.words))
        step.state = "wrong"


_SHEET_ERRORS = frozenset(
    {"#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NULL!", "#NUM!", "#N/B", "#VERW!", "#WAARDE!", "#NAAM?", "#DEEL/0!"}
)


def _leave_what_is_known(rules: Kind, said: Mapping[str, Cell], told: dict[str, Any], step: Step) -> None:
    """Take out what the thing says already; a cell that stands as an export would write it is not even judged."""
    now = rules.current(step.thing)
    for name, cell in said.items():
        header = column(rules.name, name).header
        if name in now and (_same(cell, rules.write(name, now[name])) or (name in told and told[name] == now[name])):
            told.pop(name, None)
            step.errors = [error for error in step.errors if error[0] != header]
        elif name in told and told[name] is None and column(rules.name, name).needed:
            step.errors.append((header, Words(N_("This must be filled in."))))
    step.state = "wrong" if step.errors else "changed"


def _same(cell: Cell, written: Cell) -> bool:
    said, known = cells.plain(cell), cells.plain(written)
    return said == known or (isinstance(written, float) and said.replace(",", ".") == known) or said.strip() == known.strip()


def _shown(rules: Kind, name: str, value: Any) -> str:
    if isinstance(value, date):
        return day(value)
    try:
        return cells.short(rules.write(name, value))
    except (TypeError, ValueError, AttributeError):
        return cells.short(str(value))


def _try(rules: Kind, step: Step) -> None:
    """Let the model's own rules look at it."""
    if step.state == "unchanged":
        return
    try:
        rules.attempt(step.thing, step.told)
    except Refusal as refusal:
        known = {known.field: known.header for known in COLUMNS[rules.name]}
        headers = [known[name] for name in refusal.fields if name in known]
        step.is_wrong(headers[0] if headers else "", refusal.words)


def _ask_about_names(session: Session, rules: Kind, steps: Sequence[Step]) -> list[str]:
    """Mark the words that may tell who somebody is, with one look over the whole file: a look per row would take minutes."""
    leaving = {known.field for known in COLUMNS[rules.name] if known.leaves}
    texts = {
        step.line: "\n".join(_text(step.told[name]) for name in sorted(leaving & step.told.keys()))
        for step in steps
        if step.state in {"new", "changed"}
    }
    # A middle dot on a line of its own keeps two rows apart: no name, number or address goes across it.
    found = people_named_in(session, "\n·\n".join(text for text in texts.values() if text))
    for step in steps:
        step.names = [words for words in found if words in texts.get(step.line, "")]
    return found


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(item["title"] if isinstance(item, dict) else str(item) for item in value)
    return str(value or "")


# ---- Doing it ----------------------------------------------------------------------------------------------------------------


def carry_out(session: Session, plan: Plan) -> Iterator[int]:
    """Do what the plan says, inside the caller's transaction; yields how many rows are done. Raises `NotImported`."""
    for done, step in enumerate(plan.steps, start=1):
        if step.state == "wrong":
            raise NotImported(line=step.line, why=step.errors[0][1])
        if step.state != "unchanged":
            try:
                plan.kind.carry_out(session, step.thing, step.told)
            except Refusal as refusal:
                raise NotImported(line=step.line, why=refusal.words) from refusal
            except (Misfit, ValueError) as misfit:  # what no other town could read: too long a text, say
                raise NotImported(line=step.line, why=Words(N_("A text in it is too long to be told to other towns."))) from misfit
        yield done


def export(session: Session, kind: str, today: date) -> list[list[Cell]]:
    """Everything of a kind that the circle has, as `plan_import` reads it back: the header, and a row each."""
    rules = KIND_CLASSES[kind](session, today)
    shown = [known for known in COLUMNS[kind] if known.exported]
    rows: list[list[Cell]] = [[known.header for known in shown]]
    for thing in rules.known.values():
        now = rules.current(thing) | {"code": thing.code}
        rows.append([rules.write(known.field, now[known.field]) for known in shown])
    return rows


# ---- The file in between -----------------------------------------------------------------------------------------------------


def keep_upload(session: Session, owner: str, *, kind: str, name: str, content: bytes, now: datetime) -> Upload:
    """Keep a file until it is imported, or for a day. Raises `Unreadable` before anything is kept."""
    open_table(read_table(content), kind)
    forget_old_uploads(session, now)
    upload = Upload(code=new_code(), kind=kind, name=name[:160], content=content, by_hand={}, owner=owner, made_at=now)
    session.add(upload)
    return upload


def find_upload(session: Session, code: str, owner: str, now: datetime) -> Upload:
    """The file that this member chose. Raises `NotFound`, also when its day has passed."""
    upload = session.get(Upload, code) if code.isprintable() else None  # PostgreSQL refuses NUL in a text
    if upload is None or upload.owner != owner or upload.made_at < now - KEPT_FOR:
        raise NotFound
    return upload


def plan_upload(session: Session, upload: Upload, today: date) -> Plan:
    """What importing a kept file would do. Raises `Unreadable`."""
    return plan_import(session, upload.kind, read_table(upload.content), upload.by_hand, today)


def choose_columns(session: Session, upload: Upload, typed: Mapping[str, str]) -> None:
    """Say by hand what the columns are. Raises `Unreadable`, and then all stays as it was."""
    table = open_table(read_table(upload.content), upload.kind)
    map_columns(table, upload.kind, typed)
    upload.by_hand = dict(typed)


def forget_upload(session: Session, code: str) -> None:
    """Erase the file. Of two imports of one file at the same moment, the second waits here and raises `NotFound`."""
    if not session.execute(delete(Upload).where(Upload.code == code)).rowcount:
        raise NotFound

"""Tables out of files and back: CSV and XLSX as people have them, bytes in and rows out.

CSV is read as Excel writes it, in Dutch or English: parted by semicolons, tabs or commas (a first line `sep=;` decides), in UTF-8,
UTF-16 or Windows-1252, with or without a byte order mark, with line breaks inside quotation marks. XLSX is read by openpyxl, the
first sheet that holds something. What cannot be read is refused with `Unreadable`, in words that say what to do; no bytes raise
anything else. A file from outside is met with distrust: the sizes that a zip declares are added up before anything is unpacked
(zipfile never unpacks more than was declared), rows and columns are counted while reading.

A cell is what the file says: text, a number, a day, a time, yes or no. None is an empty cell. Rows keep the number they have in the
spreadsheet, so that an error can be found back there.

**Formulas.** A text that begins with = + - or @ is a formula to a spreadsheet program, and could fetch or send something. Written
out, such a text gets an apostrophe in front; read in, exactly that apostrophe is taken off again: the trip changes nothing.
"""

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from shared.language import N_, Words
from shared.refusals import Refusal

Cell = str | int | float | bool | date | datetime | time | None

ROWS_MAX, COLUMNS_MAX = 2_000, 100
"""A hundred times what a circle has. All rows are one transaction: 2,000 lessons take 7 s, and others wait 10 s at most."""
CELL_MAX = 32_767
"""Characters in one cell: Excel's own limit."""
UNPACKED_MAX = 24 * 1024 * 1024
"""Bytes that an XLSX may hold when unpacked: far more than 2,000 rows need."""
FORMS = ("csv", "xlsx")
_PARTS_MAX, _SHEET_ENDS = 500, 1_048_576


class Unreadable(Refusal):
    """This file cannot be read as a table; `words` say why, and what to do."""

    status = 422
    text = N_("This file cannot be read as a spreadsheet. Choose a CSV file or an Excel file (.xlsx).")

    def __init__(self, text: str = "", **values: object) -> None:
        super().__init__(**values)
        self.words = Words(text or self.text, values)


@dataclass(frozen=True)
class Row:
    """One line of a table, by the number it has in the spreadsheet."""

    number: int
    cells: tuple[Cell, ...]


def read_table(content: bytes) -> list[Row]:
    """The rows of a file that hold something, the header among them. Raises `Unreadable`."""
    if not content.strip(b"\0\t\r\n "):
        raise Unreadable(N_("This file is empty."))
    if content.startswith(b"PK"):
        rows = _read_xlsx(content)
    elif content.startswith(b"\xd0\xcf\x11\xe0"):
        raise Unreadable(
            N_("This is a file of an old Excel, or one with a password. Save it as .xlsx, without a password, and try again.")
        )
    elif content.startswith((b"%PDF", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"{\\rtf", b"\x1f\x8b")):
        raise Unreadable
    else:
        rows = _read_csv(_decoded(content))
    found = []
    for row in rows:
        if any(cell is not None for cell in row.cells):
            found.append(row)
        if len(found) > ROWS_MAX + 20:  # a title and a header stand above
            raise Unreadable(N_("This file has more than %(most)s lines. Divide it into several files."), most=ROWS_MAX)
    if not found:
        raise Unreadable(N_("This file is empty."))
    return found


# ---- CSV ---------------------------------------------------------------------------------------------------------------------


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ("utf-16",)
    elif b"\0" in content:
        raise Unreadable
    else:
        encodings = ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeError:
            continue
        # Text of another sort has control signs; a table does not.
        if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\ud800-\udfff]", text):
            break
        return text.removeprefix("\ufeff")
    raise Unreadable(N_("The letters of this file cannot be read. Save it anew, as “CSV UTF-8” or as an Excel file (.xlsx)."))


def _read_csv(text: str) -> Iterator[Row]:
    named = re.match(r"sep=(.)\r?\n", text, re.IGNORECASE)
    if named:
        text = text[named.end() :]
    delimiter = named[1] if named and named[1] not in {'"', "\r"} else _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):
            if len(cells) > COLUMNS_MAX and any(cells[COLUMNS_MAX:]):
                raise Unreadable(N_("Line %(line)s has more than %(most)s columns."), line=number, most=COLUMNS_MAX)
            yield Row(number, tuple(_read_text(cell, number) for cell in cells[:COLUMNS_MAX]))
    except csv.Error as error:
        if "limit" in str(error):
            raise _too_long(number + 1) from None
        raise Unreadable(
            N_("At line %(line)s a quotation mark is opened and not closed, or closed in the middle of a cell."), line=number + 1
        ) from None


def _delimiter(text: str) -> str:
    """What the first line that says something is parted by; signs between quotation marks do not count."""
    beginning = text.lstrip("\r\n;,\t ")[:20_000]
    first = re.match(r'(?:"(?:[^"]|"")*"|[^"\r\n])*', beginning)
    bare = re.sub(r'"(?:[^"]|"")*"', "", first[0] if first else "")
    return max(";\t,", key=bare.count)


# ---- XLSX --------------------------------------------------------------------------------------------------------------------


def _read_xlsx(content: bytes) -> Iterator[Row]:
    _weigh(content)
    import openpyxl  # noqa: PLC0415  # heavy: only who imports pays for it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about charts, pictures and rules in cells: we want the values only
            book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
            try:
                yield from _first_filled(book.worksheets)
            finally:
                book.close()
    except Unreadable:
        raise
    except Exception as error:  # openpyxl lets out whatever its parts raise: KeyError, ParseError, TypeError …
        raise Unreadable(N_("This Excel file is damaged. Open it in Excel, save it anew and try again.")) from error


def _weigh(content: bytes) -> None:
    """Refuse what is no workbook, or would be too much when unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            parts = packed.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError):
        raise Unreadable(N_("This Excel file is damaged. Open it in Excel, save it anew and try again.")) from None
    names = {part.filename for part in parts}
    if "[Content_Types].xml" not in names or not any(name.startswith("xl/") for name in names):
        raise Unreadable(N_("This is another sort of file. Save the spreadsheet as an Excel file (.xlsx) or as CSV."))
    if len(parts) > _PARTS_MAX or sum(part.file_size for part in parts) > UNPACKED_MAX:
        raise Unreadable(N_("This Excel file is too large when it is unpacked. Remove pictures and sheets, or save it as CSV."))
    if any(part.flag_bits & 1 for part in parts):
        raise Unreadable(N_("This Excel file has a password. Save it without one."))


def _first_filled(sheets: Iterable[Any]) -> Iterator[Row]:
    for sheet in sheets:
        sheet.reset_dimensions()  # what a sheet says about its own size need not be true
        filled = False
        for number, cells in enumerate(sheet.iter_rows(max_col=COLUMNS_MAX + 1, values_only=True), start=1):
            if number > _SHEET_ENDS:  # a forged row number would make openpyxl count for ever
                raise Unreadable(N_("This Excel file is damaged. Open it in Excel, save it anew and try again."))
            if cells.count(None) == len(cells):  # a million of these can stand between two rows
                continue
            row = tuple(_read_value(cell, number) for cell in cells)
            if row[COLUMNS_MAX] is not None:
                raise Unreadable(N_("Line %(line)s has more than %(most)s columns."), line=number, most=COLUMNS_MAX)
            filled = True
            yield Row(number, row[:COLUMNS_MAX])
        if filled:
            return


def _read_value(value: Any, number: int) -> Cell:
    if value is None or isinstance(value, bool | int | time | date):
        return value  # a datetime is a date too
    if isinstance(value, float):
        return value if abs(value) < 1e15 else str(value)
    if isinstance(value, timedelta):  # hours beyond a day; what somebody meant as 19:30 is less than one
        seconds = int(value.total_seconds())
        return time(seconds // 3600, seconds % 3600 // 60) if 0 <= seconds < 86_400 else str(value)
    return _read_text(str(value), number)


# ---- Both --------------------------------------------------------------------------------------------------------------------

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")
_NO_SIGN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""What XML, and so XLSX, cannot hold."""


def escape(text: str) -> str:
    """So that no spreadsheet program takes it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unescape(text: str) -> str:
    """The same text without what `escape` put before it."""
    return text[1:] if _ESCAPED.match(text) else text


def _read_text(text: str, number: int) -> str | None:
    if len(text) > CELL_MAX:
        raise _too_long(number)
    return unescape(text.replace("\r\n", "\n").replace("\r", "\n")) or None


def _too_long(number: int) -> Unreadable:
    return Unreadable(N_("A cell at line %(line)s is too long: at most %(most)s characters."), line=number, most=CELL_MAX)


def write_csv(rows: Iterable[Sequence[Cell]]) -> bytes:
    """As a Dutch Excel opens it with a double click: semicolons, decimal commas, UTF-8 with a byte order mark."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=";", lineterminator="\r\n")
    for row in rows:
        writer.writerow([_written(cell) for cell in row])
    return out.getvalue().encode("utf-8-sig")


def _written(cell: Cell) -> str:
    if isinstance(cell, bool):
        return str(int(cell))
    if isinstance(cell, float):
        return f"{Decimal(repr(cell)):f}".replace(".", ",")
    if isinstance(cell, time):
        return f"{cell:%H:%M}"
    if isinstance(cell, date):
        return cell.isoformat()
    return "" if cell is None else escape(_NO_SIGN.sub("", cell)) if isinstance(cell, str) else str(cell)


def write_xlsx(rows: Iterable[Sequence[Cell]], title: str) -> bytes:
    """A workbook with one sheet: the first row stays in sight, days and numbers are days and numbers."""
    import openpyxl  # noqa: PLC0415  # heavy: only who exports pays for it

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet(title=re.sub(r"[\\/*?:\[\]]", " ", title)[:31])
    sheet.freeze_panes = "A2"
    for nth, row in enumerate(rows):
        if nth == 0:
            for column, head in enumerate(row, start=1):
                sheet.column_dimensions[openpyxl.utils.get_column_letter(column)].width = min(40, max(12, len(str(head)) + 4))
        cells = []
        for value in row:
            text = isinstance(value, str)
            cell = openpyxl.cell.WriteOnlyCell(sheet, escape(_NO_SIGN.sub("", value.replace("\r", ""))) if text else value)
            if text:
                cell.data_type, cell.number_format = "s", "@"  # stays text when somebody edits it
                cell.alignment = openpyxl.styles.Alignment(wrap_text="\n" in value, vertical="top")
            if nth == 0:
                cell.font = openpyxl.styles.Font(bold=True)
            cells.append(cell)
        sheet.append(cells)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()

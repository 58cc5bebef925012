"""Tables out of bytes and back, with files as people have them and as attackers make them."""

import io
import zipfile
from contextlib import suppress
from datetime import date, datetime, time

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.town_node.transfer.spreadsheets import (
    CELL_MAX,
    ROWS_MAX,
    UNPACKED_MAX,
    Unreadable,
    escape,
    read_table,
    unescape,
    write_csv,
    write_xlsx,
)

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]) | st.sampled_from("\n\t'=+-@;,\" "), max_size=30)
CELLS = st.none() | TEXT.map(lambda text: text or None)
TABLES = st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=6).map(lambda rows: [["naam", "dag", "plaats"], *rows])


def cells(content: bytes) -> list[list]:
    return [list(row.cells) for row in read_table(content)]


def workbook(*rows, **sheets) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for title, more in sheets.items():
        sheet = book.create_sheet(title)
        for row in more:
            sheet.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def why(content: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        read_table(content)
    return caught.value.words.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("sign", [";", "\t", ","])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_a_csv_is_read_in_whatever_way_excel_wrote_it(encoding, sign, end):
    text = end.join([f"Naam{sign}Plaats", f"Café de Bij{sign}Één", f'"met{sign} en ""zo"""{sign}€'])
    assert cells(text.encode(encoding)) == [["Naam", "Plaats"], ["Café de Bij", "Één"], [f'met{sign} en "zo"', "€"]]


def test_line_breaks_in_a_cell_stay_and_rows_keep_the_numbers_of_the_spreadsheet():
    rows = read_table(b'Naam;Tekst\r\n\r\nZon;"een\r\ntwee"\r\n;;\r\nMaan;x')
    assert [(row.number, row.cells) for row in rows] == [
        (1, ("Naam", "Tekst")), (3, ("Zon", "een\ntwee")), (5, ("Maan", "x")),
    ]  # fmt: skip


def test_excels_first_line_about_the_sign_decides():
    assert cells(b"sep=,\r\nNaam,a;b\r\nZon,c;d") == [["Naam", "a;b"], ["Zon", "c;d"]]


def test_a_sign_between_quotation_marks_does_not_count():
    assert cells(b'"a;b;c",d\r\n1,2') == [["a;b;c", "d"], ["1", "2"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"), (b"\r\n \t\n", "empty"), (b";;\r\n;", "empty"), (b"\xd0\xcf\x11\xe0" + b"x" * 600, "old Excel"),
        (b"%PDF-1.4 a", "cannot be read as a spreadsheet"), (b"MZ\0\0\x01", "cannot be read as a spreadsheet"),
        (b"naam;\x81\x8d", "letters"), (b"naam;b\x02\x03", "letters"),
        (b'naam;tekst\r\nZon;"nooit dicht\r\nMaan;x', "quotation mark"),
        (b'naam\r\n"Zon" fout;x', "quotation mark"), (b"PK\x03\x04 half a zip", "damaged"),
        (b"naam\n" + b"x\n" * (ROWS_MAX + 30), "more than"), (b"naam\n" + b"x" * (CELL_MAX + 1), "too long"),
        (b"naam\n" + b"x" * 200_000, "too long"), (b";".join([b"x"] * 101), "columns"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_plain_words(content, words):
    assert words in why(content)


def test_other_zips_are_no_workbook():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    assert "another sort of file" in why(out.getvalue())


def packed_with(name: str, content: bytes) -> bytes:
    """A real workbook, with one part put in its place or added."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook(["naam"], ["Zon"]))) as real, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for part in real.namelist():
            if part != name:
                made.writestr(part, real.read(part))
        made.writestr(name, content)
    return out.getvalue()


def test_a_zip_bomb_is_not_unpacked():
    bomb = packed_with("xl/media/bomb.bin", b"\0" * (UNPACKED_MAX + 1))
    assert len(bomb) < 100_000
    assert "too large when it is unpacked" in why(bomb)


SHEET = '<?xml version="1.0"?>%s<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>%s</sheetData></worksheet>'


def test_a_row_number_without_end_does_not_count_for_ever():
    row = '<row r="99999999999"><c r="A99999999999" t="inlineStr"><is><t>x</t></is></c></row>'
    assert "damaged" in why(packed_with("xl/worksheets/sheet1.xml", (SHEET % ("", row)).encode()))


def test_entities_that_grow_are_refused():
    grow = "".join(f'<!ENTITY {name} "{f"&{below};" * 10}">' for below, name in zip("abcdefgh", "bcdefghi", strict=True))
    laughs = f'<!DOCTYPE x [<!ENTITY a "ha">{grow}]>'
    row = '<row r="1"><c r="A1" t="inlineStr"><is><t>&i;</t></is></c></row>'
    assert why(packed_with("xl/worksheets/sheet1.xml", (SHEET % (laughs, row)).encode()))


def test_values_of_a_workbook_keep_their_type():
    rows = [["naam", None], ["Zon", datetime(2012, 6, 20)], [5.22, 13], [True, time(19, 30)]]  # noqa: DTZ001  # local, as in Excel
    assert [row[:2] for row in cells(workbook(*rows))] == rows


def test_the_first_sheet_that_holds_something_is_read():
    assert cells(workbook(Blad2=[["naam"], ["Zon"]]))[1][0] == "Zon"


def test_formulas_are_defused_and_come_back_as_they_were():
    rows = [["naam"], ["=1+1"], ["+31 36 555"], ["-x"], ["@hallo"], ["'=x"], ["'gewoon"], ["\tx"]]
    for content in (write_csv(rows), write_xlsx(rows, "x")):
        assert [row[:1] for row in cells(content)] == rows
    assert not [line for line in write_csv(rows).decode("utf-8-sig").split("\r\n") if line[:1] in set("=+-@")]
    book = openpyxl.load_workbook(io.BytesIO(write_xlsx(rows, "x")))
    assert {cell.data_type for row in book.active for cell in row} == {"s"}


def test_a_dutch_excel_opens_the_csv_and_the_workbook_has_days():
    content = write_csv([["dag", "graad", "tijd"], [date(2012, 6, 20), 52.37, time(19, 30)]])
    assert content == "\ufeffdag;graad;tijd\r\n2012-06-20;52,37;19:30\r\n".encode()
    book = openpyxl.load_workbook(io.BytesIO(write_xlsx([["dag"], [date(2012, 6, 20)]], "Dagen: [1/2]")))
    assert book.active["A2"].value == datetime(2012, 6, 20)  # noqa: DTZ001  # local, as in Excel
    assert book.active.freeze_panes == "A2"


@given(TEXT)
def test_escaping_is_undone(text):
    assert unescape(escape(text)) == text
    assert escape(text)[:1] not in set("=+-@\t")


@given(TABLES)
def test_what_is_written_as_csv_is_read_back(rows):
    assert cells(write_csv(rows)) == [row for row in rows if any(row)]


@settings(max_examples=60, deadline=None)
@given(TABLES)
def test_what_is_written_as_a_workbook_is_read_back(rows):
    assert [row[:3] for row in cells(write_xlsx(rows, "x"))] == [row for row in rows if any(row)]


def answers(content: bytes) -> None:
    with suppress(Unreadable):
        read_table(content)


@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda rest: b"PK\x03\x04" + rest))
def test_any_bytes_are_read_or_refused(content):
    answers(content)


GOOD = workbook(["naam", "dag"], ["Zon", date(2012, 6, 20)], ["Maan", 5])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_workbook_is_read_or_refused(changes):
    content = bytearray(GOOD)
    for place, byte in changes:
        content[place] = byte
    answers(bytes(content))


PARTS = ("xl/worksheets/sheet1.xml", "xl/workbook.xml", "xl/styles.xml", "[Content_Types].xml")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PARTS), st.data())
def test_a_workbook_with_a_broken_part_is_read_or_refused(part, data):
    with zipfile.ZipFile(io.BytesIO(GOOD)) as packed:
        content = bytearray(packed.read(part))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 20))] = data.draw(
            st.binary(max_size=12) | st.sampled_from([b'"', b"<", b"1e9"])
        )
    answers(packed_with(part, bytes(content)))

"""Import and export as the facilitator meets them: on the page, and at the command line."""

import io
import re
from datetime import timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from services.town_node.circle.model import Member
from services.town_node.cli import cli
from services.town_node.initiatives.model import Initiative
from services.town_node.transfer.model import Upload
from services.town_node.transfer.spreadsheets import read_table, write_xlsx
from shared.db import Database
from shared.events import LessonShared

MEMBERS = "Naam;E-mail\r\nAns Appel;ans@example.org\r\nJan Jonagold;jan@example.org"
LESSON = "titel;verhaal;soort;thema\r\nBel even;Vraag het Zonnebloem.;tip;water"


def choose(reader, kind: str, content, name: str = "lijst.csv", expect: int = 302) -> str:
    """Send a file; the address of its preview, or the page that says why not."""
    data = content if isinstance(content, bytes) else content.encode("cp1252")
    return reader.send("/transfer", expect, kind=kind, file=(io.BytesIO(data), name))


def all_of(node, model):
    with node.extensions["site"].database.reading() as session:
        return session.scalars(select(model)).all()


def test_choose_look_import_and_nothing_the_second_time(facilitator, node, told):
    preview = choose(facilitator, "members", MEMBERS)
    page = facilitator.get(preview)
    for words in ("Ans Appel", "jan@example.org", "Nothing is imported yet", "lijst.csv", "Line 3"):
        assert words in page
    assert len(all_of(node, Member)) == 2
    done = facilitator.send(preview, 200)
    assert "2 lines are new." in done
    assert {member.name for member in all_of(node, Member)} >= {"Ans Appel", "Jan Jonagold"}
    assert all_of(node, Upload) == []
    facilitator.get(preview, 404)
    before = len(told())
    again = choose(facilitator, "members", MEMBERS)
    assert "There is nothing to import" in facilitator.get(again)
    facilitator.send(again, 422)
    assert len(told()) == before


def test_mistakes_are_told_per_line_and_nothing_is_imported(facilitator, node):
    preview = choose(facilitator, "initiatives", "naam;soort;fase;sinds\r\nZon;moestuin;idee;2010\r\nMaan;kasteel;idee;gisteren")
    page = facilitator.get(preview)
    assert "1 line is not right." in page
    assert "Kind: “kasteel” is not among these" in page
    assert "Since: “gisteren” is no day" in page
    assert ">Import<" not in page
    assert "Zon" in facilitator.get(f"{preview}?show=all")
    facilitator.send(preview, 422)
    assert all_of(node, Initiative) == []


def test_the_reader_is_answered_in_dutch(facilitator, node):
    preview = choose(facilitator, "initiatives", "naam;soort;fase;sinds\r\nMaan;kasteel;idee;2010")
    facilitator.client.set_cookie("language", "nl")
    page = facilitator.get(preview)
    assert '<html lang="nl">' in page
    assert "Buurtmoestuin" in page


def test_columns_are_chosen_by_hand_and_a_choice_that_cannot_be_stays_as_typed(facilitator):
    preview = choose(facilitator, "members", "Wie;Post\r\nAns;ans@example.org")
    page = facilitator.get(preview)
    assert "We found no column for: Name, E-mail address" in page
    assert "such as: ans@example.org" in page
    page = facilitator.send(f"{preview}/columns", 422, page=preview, **{"column-0": "name", "column-1": "name"})
    assert "Two columns are chosen" in page
    assert page.count('<option value="name" selected>') == 2
    facilitator.send(
        f"{preview}/columns", page=preview, **{"column-0": "name", "column-1": "email", "column-x": "y", "column-99": "phone"}
    )
    assert "Nothing is imported yet" in facilitator.get(preview)


def test_a_column_is_missed_only_where_it_is_needed(facilitator):
    history = choose(facilitator, "initiatives", "naam;soort;verloop\r\nZon;moestuin;idee 2010")
    assert "We found no column" not in facilitator.get(history)
    facilitator.send(history, 200)
    part = choose(facilitator, "initiatives", "naam;plaats\r\nZon;Filmwijk")
    assert "We found no column" not in facilitator.get(part)
    assert "Filmwijk" in facilitator.get(part)


def test_names_are_asked_about_once_for_the_whole_file(facilitator, told):
    preview = choose(facilitator, "lessons", LESSON)
    page = facilitator.get(preview)
    assert "Tells this who somebody is? Zonnebloem" in page
    facilitator.send(preview, 422)
    facilitator.send(preview, 422, names_seen="Zonnebloem")
    facilitator.send(preview, 422, names_seen="Iemand", names_agreed="y")
    assert not [event for event in told() if isinstance(event, LessonShared)]
    facilitator.send(preview, 200, names_seen="Zonnebloem", names_agreed="y")
    assert isinstance(told()[-1], LessonShared)


def test_what_cannot_be_read_is_said_beside_the_file(facilitator, node):
    for content, words in (
        (b"", "This file is empty."),
        (b"PK\x03\x04x", "This Excel file is damaged."),
        (b"\xd0\xcf\x11\xe0", "old Excel"),
    ):
        assert words in choose(facilitator, "members", content, expect=422)
    assert "Choose a file first." in facilitator.send("/transfer", 422, kind="members")
    facilitator.send("/transfer", 422, kind="planets", file=(io.BytesIO(b"a;b\nc;d"), "x.csv"))
    large = facilitator.client.post("/transfer", data=b"x" * (2 * 1024 * 1024 + 1), content_type="multipart/form-data; boundary=x")
    assert large.status_code == 413
    assert all_of(node, Upload) == []


def test_only_the_facilitator_and_only_ones_own_file(facilitator, member, stranger, people, node):
    preview = choose(facilitator, "members", MEMBERS)
    for path in ("/transfer", preview, "/transfer/export/members.csv", "/transfer/sample/members.csv"):
        member.get(path, 403)
        stranger.get(path, 302)
    member.get("/circle/people", 200)
    with node.extensions["site"].database.transaction() as session:
        session.get(Member, people["member"]).role = "facilitator"
    member.get(preview, 404)
    for path in (
        "/transfer/nothing",
        "/transfer/a%00b",
        "/transfer/export/members.exe",
        "/transfer/export/planets.csv",
        "/transfer/sample/x.csv",
    ):
        facilitator.get(path, 404)


def test_a_file_is_erased_on_request_and_after_a_day(facilitator, node):
    preview = choose(facilitator, "members", MEMBERS)
    facilitator.send(f"{preview}/forget", page=preview)
    assert all_of(node, Upload) == []
    preview = choose(facilitator, "members", MEMBERS)
    site = node.extensions["site"]
    moment = site.clock()
    site.clock = lambda: moment + timedelta(hours=23)
    facilitator.get(preview)
    with site.database.transaction() as session:
        session.scalars(select(Upload)).one().made_at = moment - timedelta(days=2)
    facilitator.get(preview, 404)
    choose(facilitator, "members", MEMBERS)
    assert len(all_of(node, Upload)) == 1


def test_a_change_in_the_meantime_imports_nothing(facilitator, node, monkeypatch):
    """The preview said yes, and then the actions refuse: the page says so, and all is as before."""
    from services.town_node.circle import actions as circle

    preview = choose(facilitator, "members", MEMBERS)
    really, calls = circle.add_member, []

    def refuse_the_second(session, **told):
        calls.append(told["email"])
        if len(calls) == 2:
            raise circle.EmailKnown
        return really(session, **told)

    monkeypatch.setattr(circle, "add_member", refuse_the_second)
    page = facilitator.send(preview, 200)
    assert "Nothing was imported." in page
    assert "Line 3 could not be imported" in page
    assert len(all_of(node, Member)) == 2
    assert len(all_of(node, Upload)) == 1


def test_a_failure_halfway_is_no_stack_trace(facilitator, node, monkeypatch, caplog):
    from services.town_node.circle import actions as circle

    preview = choose(facilitator, "members", MEMBERS)
    monkeypatch.setattr(circle, "add_member", lambda *_args, **_told: 1 / 0)
    page = facilitator.send(preview, 200)
    assert "Something went wrong on our side" in page
    assert '<html lang="en">' in page
    assert "</html>" in page
    assert "ZeroDivisionError" not in page
    assert "import.failed" in caplog.text
    assert len(all_of(node, Upload)) == 1


def test_a_long_file_shows_how_far_it_is(facilitator, node):
    lines = "\r\n".join(f"Mens {number};mens{number}@example.org" for number in range(120))
    preview = choose(facilitator, "members", f"Naam;E-mail\r\n{lines}")
    assert "page=2" in facilitator.get(preview)
    assert "Line 102" in facilitator.get(f"{preview}?page=3")
    for query in ("?page=0", "?page=²", "?page=99", "?show=x", "?show=remarks"):
        facilitator.get(preview + query)
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', facilitator.get(preview))[1]
    answer = facilitator.client.post(preview, data={"csrf_token": token}, headers={"Accept-Encoding": "gzip"}, buffered=False)
    pieces = [piece.decode() for piece in answer.iter_encoded()]
    seen = [piece for piece in pieces if "<progress" in piece]
    assert len(seen) == 4
    assert pieces.index(seen[0]) < pieces.index(seen[-1])
    assert "120 lines are new." in "".join(pieces)
    assert len(all_of(node, Member)) == 122


@pytest.mark.parametrize("form", ["csv", "xlsx"])
def test_export_and_sample_are_files_that_import_again(facilitator, form, people):
    for kind in ("initiatives", "members", "lessons", "meetings"):
        for what in ("sample", "export"):
            answer = facilitator.client.get(f"/transfer/{what}/{kind}.{form}")
            assert answer.status_code == 200
            assert f".{form}" in answer.headers["Content-Disposition"]
            assert answer.headers["Cache-Control"] == "no-store"
            assert read_table(answer.data)
    exported = facilitator.client.get(f"/transfer/export/members.{form}").data
    assert b"Zonnebloem" in exported or form == "xlsx"
    assert "There is nothing to import" in facilitator.get(choose(facilitator, "members", exported, f"leden.{form}"))


def test_the_way_there_is_on_the_people_page_and_the_circles(facilitator, member):
    assert 'href="/transfer' in facilitator.get("/circle/people")
    assert 'href="/transfer' in facilitator.get("/circle")
    assert 'href="/transfer' not in member.get("/circle/people")


# ---- At the command line -----------------------------------------------------------------------------------------------------


@pytest.fixture
def town_node(node, people, tmp_path, monkeypatch):
    """Runs a command of this node's, as an operator does."""
    monkeypatch.setenv("TUINKOEPEL_NODE_STATE", str(tmp_path))

    def run(*arguments, answer: str = "", expect: int = 0) -> str:
        done = CliRunner().invoke(cli, arguments, input=answer)
        assert done.exit_code == expect, done.output
        return done.output

    return run


@pytest.fixture
def listed(tmp_path):
    """A file with these lines."""

    def write(text: str, name: str = "lijst.csv") -> str:
        (tmp_path / name).write_bytes(text.encode("cp1252"))
        return str(tmp_path / name)

    return write


def test_the_command_shows_asks_and_imports(town_node, listed, node):
    file = listed(MEMBERS)
    assert "2 lines are new." in town_node("import", "members", file, answer="n\n", expect=1)
    assert len(all_of(node, Member)) == 2
    assert "The file is imported." in town_node("import", "members", file, answer="y\n")
    assert "2 lines are known already." in town_node("import", "members", file, "--language", "en")
    assert len(all_of(node, Member)) == 4


def test_the_command_says_what_is_wrong_and_takes_columns_by_hand(town_node, listed):
    file = listed("Wie;Post\r\nAns;ans@example.org")
    said = town_node("import", "members", file, expect=1)
    assert "Left out, because it is unknown: Wie, Post" in said
    assert "Name: This must be filled in." in said
    assert "is imported" in town_node("import", "members", file, "--map", "Wie=name", "--map", "Post=E-mailadres", "--yes")
    assert "no column" in town_node("import", "members", file, "--map", "Wat=name", expect=1)
    assert "damaged" in town_node("import", "members", listed("PK\x03\x04"), expect=1)


def test_the_command_asks_about_names(town_node, listed, told):
    file = listed(LESSON)
    assert "Zonnebloem" in town_node("import", "lessons", file, "--yes", expect=1)
    town_node("import", "lessons", file, "--yes", "--names-agreed")
    assert isinstance(told()[-1], LessonShared)


def test_the_command_exports_what_it_imports(town_node, tmp_path):
    for name in ("uit.csv", "uit.xlsx"):
        town_node("export", "members", str(tmp_path / name), "--language", "nl")
        assert "2 lines are known already." in town_node("import", "members", str(tmp_path / name))
    assert read_table((tmp_path / "uit.csv").read_bytes())[0].cells[:3] == ("Code", "Naam", "E-mailadres")
    town_node("export", "members", str(tmp_path / "uit.pdf"), expect=1)


def test_an_import_works_on_postgresql(postgres, tmp_path, monkeypatch, listed):
    """One transaction there too, and the file is erased with it."""
    from services.town_node.circle.membership import Membership, open_node
    from services.town_node.config import load_settings
    from shared.db import Base
    from shared.eventlog import Author, open_epoch
    from shared.keys import keep_key

    monkeypatch.setenv("TUINKOEPEL_NODE_STATE", str(tmp_path))
    monkeypatch.setenv("TUINKOEPEL_NODE_DATABASE", postgres.fresh_database().replace("postgresql://", "postgresql+psycopg://"))
    settings = load_settings()
    database = Database(settings.database_url)
    Base.metadata.create_all(database.engine)
    key = keep_key(tmp_path / "town.key", b"k" * 32)
    with database.transaction() as session:
        session.add(Membership(one=1, town="almere", name="Almere", association="K", hub_url="", hub_key="", bus_url=""))
        open_epoch(
            session,
            Author("almere", key, lambda: __import__("datetime").datetime.now(__import__("datetime").UTC), lambda n: b"r" * n),
        )
    database.close()
    rows = [["naam", "soort", "fase", "sinds"], ["Zon", "moestuin", "idee", "2010"]]
    (tmp_path / "tuinen.xlsx").write_bytes(write_xlsx(rows, "x"))
    for expected in ("1 line is new.", "1 line is known already."):
        done = CliRunner().invoke(cli, ["import", "initiatives", str(tmp_path / "tuinen.xlsx"), "--yes", "--language", "en"])
        assert done.exit_code == 0, done.output
        assert expected in done.output
    opened = open_node(settings)
    with opened.reading() as session:
        assert [garden.name for garden in session.scalars(select(Initiative))] == ["Zon"]
    opened.close()

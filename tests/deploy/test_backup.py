"""`hub backup` and `town-node backup`, run as an operator runs them; and a backup put back by the words of the runbook."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from shared.db import Database
from tests.conftest import ROOT
from tests.console import Console

RUNBOOK = (ROOT / "deploy" / "runbook.md").read_text()
MEMBER = ("person", "add", "Fenna Facilitator", "fenna@almere.example", "--role", "facilitator")
LOGIN = ("login-link", "fenna@almere.example")


@pytest.fixture
def node(tmp_path):
    made = Console("town-node", tmp_path)
    made.does("db", "upgrade")
    return made


def backups(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in {".db", ".dump"})


def run(line: str, **paths: object) -> None:
    """A line of the runbook, with the test's places in it."""
    for name, path in paths.items():
        assert name in line, line
        line = line.replace(name, str(path))
    subprocess.run(shlex.split(line), check=True, capture_output=True)


def test_a_backup_that_is_put_back_is_the_whole_node_of_that_moment(node, tmp_path):
    """What is written while it is made, or stands in the WAL only, is in it; what came later is not."""
    safe, living = tmp_path / "safe", Database(f"sqlite:///{node.state / 'node.db'}")
    node.does(*MEMBER)
    with living.transaction() as session:  # open: the WAL is not emptied before it closes
        session.execute(text("UPDATE member SET name = 'Fenna van de WAL'"))
    assert (node.state / "node.db-wal").stat().st_size > 0
    (node.state / "erasures").write_text("earlier\n")
    said = node.does("backup", str(safe))
    (made,) = backups(safe)
    assert said == str(made)
    living.close()
    node.does("person", "add", "Later", "later@almere.example")
    (node.state / "erasures").write_text("earlier\nlater\n")
    later = Path(node.does("backup", str(safe), "--keep", "5"))

    assert later.with_suffix(".erasures").read_text() == "earlier\nlater\n"
    assert made.with_suffix(".erasures").read_text() == "earlier\n", "a site that lost its list begins a poorer one"
    lines = re.findall(r"^    (rm -f \S+node\.db\S+ \S+|cp \S+ /var/lib/tuinkoepel-node/node\.db)$", RUNBOOK, re.MULTILINE)
    (node.state / "node.db").write_bytes(b"a disk that is damaged")
    for line in lines:
        copies = {"/var/lib/tuinkoepel-node-backup/node-20270620-033000.db": made} if line.startswith("cp") else {}
        run(line, **copies, **{"/var/lib/tuinkoepel-node": node.state})
    assert len(lines) == 2
    assert node.does(*LOGIN).startswith("http")
    assert "nobody here" in node.refuses("login-link", "later@almere.example")
    assert "Fenna van de WAL" in node_names(node)


def node_names(node: Console) -> str:
    """In another process: to close a database file in this one drops the locks that others hold on it."""
    look = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT name FROM member').fetchall())"
    return subprocess.run([sys.executable, "-c", look, node.state / "node.db"], check=True, capture_output=True, text=True).stdout


def test_a_hub_on_postgresql_is_put_back_from_its_dump(postgres, tmp_path):
    hub, safe = Console("hub", tmp_path), tmp_path / "safe"
    before, after = postgres.fresh_database(), postgres.fresh_database()
    hub.does("db", "upgrade", DATABASE=before)
    hub.does("town", "add", "almere", "Almere", DATABASE=before)
    hub.does("backup", str(safe), DATABASE=before)
    hub.does("town", "add", "breda", "Breda", DATABASE=before)
    (dump,) = backups(safe)
    (line,) = re.findall(r"^    sudo -u postgres (pg_restore .*)$", RUNBOOK, re.MULTILINE)
    address = make_url(after)
    where = f"--host={address.host} --port={address.port} --username={address.username} --dbname={address.database}"
    places = {"--dbname=koepel": where, "/var/lib/tuinkoepel-hub-backup/hub-20270620-033000.dump": dump}
    run(line.replace("--role=koepel", f"--role={address.username}"), **places)
    assert hub.does("town", "code", "almere", DATABASE=after)
    assert hub.refuses("town", "code", "breda", DATABASE=after)


def test_the_password_of_the_database_is_told_to_pg_dump_and_to_nobody_else(tmp_path, monkeypatch):
    """A pg_dump that writes down what it was called with: the tests' own PostgreSQL asks for no password."""
    fake, told = tmp_path / "bin" / "pg_dump", tmp_path / "told"
    fake.parent.mkdir()
    fake.write_text(f"""#!/bin/sh
        echo "$@" >{told}
        cat "$(echo "$@" | sed 's/.*passfile=//; s/%2F/\\//g')" >>{told}
    """)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    Console("hub", tmp_path).does("backup", str(tmp_path / "safe"), DATABASE="postgresql://koepel:se%3Acr%5Cet@db.example/koepel")
    words, passfile = told.read_text().splitlines()
    assert " --dbname=postgresql://koepel@db.example/koepel?passfile=" in words
    assert passfile == r"*:*:*:*:se\:cr\\et"


def test_only_the_latest_are_kept_and_only_their_owner_reads_them(node, tmp_path):
    safe = tmp_path / "safe"
    safe.mkdir()
    others = [safe / name for name in ("node-20270101-033000.dump", "hub-20270101-033000.db", "notes.txt")]
    old = [safe / f"node-202701{day:02}-033000.db" for day in range(1, 6)]
    beside = [path.with_suffix(".erasures") for path in old]
    for path in (*others, *old, *beside):
        path.write_text("of before")
    made = Path(node.does("backup", str(safe), "--keep", "3"))
    assert set(safe.glob("node-*.db")) == {made, *old[-2:]}, "the one just made stays, though a clock ran ahead of it"
    assert {path for path in beside if path.exists()} == set(beside[-2:]), "what lies beside a backup goes with it"
    assert all(path.exists() for path in others), "what is not ours to throw away"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert not list(safe.glob("*.key")), "who finds the backup must not speak for the town"


def test_what_is_no_whole_backup_is_never_there_under_its_name(node, tmp_path):
    safe = tmp_path / "safe"
    assert node.refuses("backup", str(safe), file_size=10_000)
    assert list(safe.iterdir()) == []
    shutil.copyfile(node.state / "node.db", node.state / "whole.db")
    pages = bytearray((node.state / "node.db").read_bytes())
    pages[8192:] = b"\xff" * len(pages[8192:])
    (node.state / "node.db").write_bytes(pages)
    assert "no backup was" in node.refuses("backup", str(safe))
    (node.state / "node.db").unlink()
    assert "no backup was made of" in node.refuses("backup", str(safe))
    assert not (node.state / "node.db").exists(), "looking for it does not make one"
    away = "postgresql://nobody:secret@127.0.0.1:1/none"
    assert "secret" not in node.refuses("backup", str(safe), DATABASE=away)
    assert list(safe.iterdir()) == []

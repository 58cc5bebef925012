"""The migrations make, on an empty database of either kind, exactly the tables that the classes say (design §2, deploy)."""

import subprocess
import sys

import pytest

from shared.serving import newest_revision
from tests.conftest import ROOT
from tests.console import Console

SERVICES = {"hub": "hub", "town-node": "town_node"}
EVERY_TABLE = """
import importlib, pkgutil, sys
from pathlib import Path
import services, shared
from shared.db import Base
for room in (f"services.{sys.argv[1]}", "shared"):
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, room + "."):
        if ".migrations" not in module.name and ".assets" not in module.name:
            importlib.import_module(module.name)
from sqlalchemy import create_engine, inspect
print(sorted(set(Base.metadata.tables) - set(inspect(create_engine(sys.argv[2])).get_table_names())))
"""

EARLIER = """
import sys
from pathlib import Path
from alembic import command
from sqlalchemy import text
from shared.db import Database
from shared.serving import _alembic
database = Database(sys.argv[2])
_alembic(command.upgrade, Path(sys.argv[1]), database, "0002")
with database.transaction() as session:
    session.execute(text("INSERT INTO projection (name, folded_with, version) VALUES ('lessons', 'all', 3)"))
    session.execute(
        text(
            "INSERT INTO projection_cursor (projection, town, epoch, seq, stalled_at, reason)"
            " VALUES ('lessons', 'almere', 'e1', 7, 8, 'KeyError')"
        )
    )
"""
KEPT = """
import sys
from sqlalchemy import create_engine, text
with create_engine(sys.argv[1]).connect() as connection:
    for table in ("projection_cursor", "projection"):
        print(*(word for row in connection.execute(text(f"SELECT * FROM {table}")) for word in row))
"""


def addresses(kind, folder, request):
    return f"sqlite:///{folder / 'one.db'}" if kind == "sqlite" else request.getfixturevalue("postgres").fresh_database()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("program", SERVICES)
def test_an_empty_database_gets_what_the_classes_say(program, kind, tmp_path, request):
    console, address = Console(program, tmp_path), addresses(kind, tmp_path, request)
    console.does("db", "upgrade", DATABASE=address)
    assert console.does("db", "check", DATABASE=address).endswith("No new upgrade operations detected.")
    missing = subprocess.run(
        [sys.executable, "-c", EVERY_TABLE, SERVICES[program], address], capture_output=True, text=True, check=False
    )
    assert missing.stdout.strip() == "[]", f"{missing.stdout}{missing.stderr}: a module that env.py does not import"
    console.does("db", "upgrade", DATABASE=address)  # a second time changes nothing


@pytest.mark.parametrize("program", SERVICES)
def test_a_migration_that_is_missing_is_noticed(program, tmp_path):
    import sqlite3

    console = Console(program, tmp_path)
    console.does("db", "upgrade", DATABASE=f"sqlite:///{tmp_path / 'one.db'}")
    with sqlite3.connect(tmp_path / "one.db") as database:
        database.execute("ALTER TABLE mail DROP COLUMN trouble")
    database.close()
    assert "New upgrade operations detected" in console.refuses("db", "check", DATABASE=f"sqlite:///{tmp_path / 'one.db'}")


@pytest.mark.parametrize("service", SERVICES.values())
def test_the_newest_revision_is_found_without_alembic(service):
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    migrations = ROOT / "services" / service / "migrations"
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == newest_revision(migrations)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("program", SERVICES)
def test_a_database_of_an_earlier_release_keeps_how_far_it_was_folded(program, kind, tmp_path, request):
    console, address = Console(program, tmp_path), addresses(kind, tmp_path, request)
    migrations = ROOT / "services" / SERVICES[program] / "migrations"
    told = subprocess.run([sys.executable, "-c", EARLIER, str(migrations), address], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    console.does("db", "upgrade", DATABASE=address)
    assert console.does("db", "check", DATABASE=address).endswith("No new upgrade operations detected.")
    kept = subprocess.run([sys.executable, "-c", KEPT, address], capture_output=True, text=True, check=False)
    assert kept.stdout.split() == ["lessons", "almere", "e1", "7", "0", "lessons", "all", "3", "0"], kept.stderr

"""Alembic's entry: batch mode, so that the same migrations run on SQLite and PostgreSQL."""

import importlib
import pkgutil
from pathlib import Path

from alembic import context

from shared.db import Base, Moment

SERVICE = Path(__file__).parents[1].name
for module in pkgutil.walk_packages([str(Path(__file__).parents[1])], f"services.{SERVICE}."):
    if module.name.rpartition(".")[2] in {
        "model",
        "projection",
        "library",
        "joining",
        "membership",
        "people",
        "forwarding",
    }:
        importlib.import_module(module.name)
for kernel in ("eventlog", "relay", "inbox", "heads", "feed", "mail", "login"):
    importlib.import_module(f"shared.{kernel}")

database = context.config.attributes["database"]


def ours(name: str | None, kind: str, _parents: object) -> bool:
    """Leave alone what the full-text index keeps for itself."""
    return not (kind == "table" and name is not None and "_search" in name)


def plain(kind: str, item: object, _context: object) -> str | bool:
    """A migration says what the database keeps, and does not depend on our classes."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, Moment) else False


with database.engine.connect() as connection:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET lock_timeout = '5s'")
        connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        include_name=ours,
        compare_type=True,
        render_item=plain,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()

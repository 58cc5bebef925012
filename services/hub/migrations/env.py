"""Alembic's entry: batch mode, so that the same migrations run on SQLite and PostgreSQL."""

import importlib
import pkgutil
from pathlib import Path

from alembic import context

from shared.db import Base, Moment

SERVICE = Path(__file__).parents[1].name
# Whatever may declare tables: this service and the kernel, without what only faces the outside.
for room, folder in ((f"services.{SERVICE}", Path(__file__).parents[1]), ("shared", Path(__file__).parents[3] / "shared")):
    for module in pkgutil.walk_packages([str(folder)], f"{room}."):
        if not {"migrations", "assets", "cli", "app", "worker", "pages", "doors"} & set(module.name.split(".")):
            importlib.import_module(module.name)

database = context.config.attributes["database"]


def ours(name: str | None, kind: str, _parents: object) -> bool:
    """Leave alone what `shared/search.py` makes for the full-text index, and SQLite keeps for itself: it is in no class."""
    words = name or ""
    return not (kind == "table" and "_search" in words) and not (kind == "index" and words.endswith("_stems"))


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

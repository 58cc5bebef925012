"""The database: an engine per process, and `Database.transaction()`, the only place that commits.

SQLite runs in WAL with `synchronous=FULL`, so that what was committed survives a power cut, and every writing transaction begins
with BEGIN IMMEDIATE: with the defaults of the driver 155 of 240 concurrent updates vanished without an error (`libraries.md` §0).
Reading goes through `reading()`, which never waits for a writer. PostgreSQL needs none of this; the same code runs on both.

Inside a transaction, `session.info` carries who writes the log (`eventlog.Author`), so that actions need only the session.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Engine, MetaData, Table, TypeDecorator, create_engine, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.orm import DeclarativeBase, Session

from shared.observability import failpoint

log = logging.getLogger(__name__)

BUSY_TIMEOUT = 10.0
"""Seconds a writer waits for another one on SQLite, and a statement for a lock on PostgreSQL."""


class Moment(TypeDecorator[datetime]):
    """A moment in UTC, with its time zone in Python on both databases."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # SQLAlchemy's
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # SQLAlchemy's
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The mapped classes of both services; constraint names are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Moment}  # SQLAlchemy reads it as a class attribute


class Database:
    """One database, one engine; `info` is handed to every writing session (`eventlog` keeps the log's author there)."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.info: dict[str, Any] = {}
        self.after_append: Callable[[], None] = lambda: None
        """Called after a commit that added to the log: wakes the relay."""
        self.engine = _sqlite(url) if self.url.get_backend_name() == "sqlite" else _postgresql(url)
        self._reader = self.engine.execution_options(reading=True, postgresql_readonly=True)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that is committed at the end of the block, or rolled back as a whole if anything is raised."""
        with Session(self.engine, info=dict(self.info), expire_on_commit=False) as session:
            with session.begin():
                yield session
            if session.info.get("appended"):
                failpoint("log.committed")
                self.after_append()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for looking only; it sees one consistent state and waits for nobody."""
        with Session(self._reader, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def _sqlite(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reading") else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: str) -> Engine:
    options = f"-c lock_timeout={int(BUSY_TIMEOUT * 1000)} -c idle_in_transaction_session_timeout=600000"
    return create_engine(url, pool_pre_ping=True, connect_args={"options": options, "connect_timeout": 10})


def upsert(session: Session, table: Table, rows: list[dict[str, Any]]) -> None:
    """Put rows in place by primary key, in one statement: inserted, or replaced where the key is there already."""
    if not rows:
        return
    insert = _insert(session)(table)
    keys = [column.name for column in table.primary_key]
    others = {name: insert.excluded[name] for name in rows[0] if name not in keys}
    statement = insert.on_conflict_do_update(index_elements=keys, set_=others) if others else insert.on_conflict_do_nothing()
    session.execute(statement, rows)


def insert_missing(session: Session, table: Table, rows: list[dict[str, Any]]) -> None:
    """Put rows in place whose primary key is not there yet; what is there stays as it is."""
    if rows:
        session.execute(_insert(session)(table).on_conflict_do_nothing(), rows)


def _insert(session: Session) -> Any:
    """The insert of this session's database."""
    if is_sqlite(session):
        return sqlite.insert
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415  # two megabytes, which SQLite does not need

    return postgresql.insert


def is_sqlite(session: Session) -> bool:
    """Whether this session talks to SQLite; only search and migrations need to know."""
    return session.get_bind().dialect.name == "sqlite"

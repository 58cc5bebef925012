"""Erasure: what was told about a subject is forgotten here and everywhere, and the chain still verifies (design §4, R34, I18).

A header names only the hash of its body with a random salt, so when body and salt are gone nothing can be guessed back from it.
`redact` is what a town does with a subject of its own: it forgets the payloads in its log and appends `redacted`; whoever stores
that event, the hub and the other towns, erases what it holds of the subject, in every epoch, and refuses the bodies from then on.

A backup that is put back would bring the bodies back. So the list of erasures also stands in a file beside the database, which does
not belong into the database's backup; `replay` erases again before a copy that was put back serves anybody. What the backup lost
may be the asking itself, before it had left: `ask_again` says it once more, as soon as the log is known to be whole.

SQLite runs with `secure_delete`, and `scrub` cuts its WAL off; on PostgreSQL it vacuums. So nothing lingers in the files either.
"""

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from shared.db import Database, upsert
from shared.eventlog import append, forget_payloads, headers_about
from shared.events import Redacted
from shared.inbox import EVERYWHERE, KOEPEL, erase_stored, erased
from shared.observability import failpoint
from shared.projections import Projection, rebuild
from shared.quarantine import erase_from_quarantine
from shared.restore import conflict


def redact(session: Session, town: str, subject: str) -> None:
    """Forget what this town ever told about a subject, and ask everybody to do the same. The last thing an action does."""
    forget_payloads(session, subject)
    session.execute(delete(conflict).where(conflict.c.subject == subject))
    upsert(session, erased, [{"town": town, "subject": subject}])
    append(session, Redacted(redacts=subject))


def erasures_of(session: Session, towns: Iterable[str]) -> Sequence[str]:
    """The subjects that these towns erased."""
    return session.scalars(select(erased.c.subject).where(erased.c.town.in_(sorted(set(towns)))).order_by(erased.c.subject)).all()


class ErasureList:
    """The file: one line `town subject` for each erasure, only ever added to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owes_scrub = True
        """What was deleted may linger in the database's files.

        So it may after every start, because a process can die before it cleaned.
        """

    def read(self) -> set[tuple[str, str]]:
        """What it says; a line that was cut off by a crash is passed over, for the database still knows it."""
        try:
            lines = self.path.read_text().splitlines()
        except FileNotFoundError:
            return set()
        return {(parts[0], parts[1]) for line in lines if len(parts := line.split()) == 2}

    def add(self, fresh: Sequence[tuple[str, str]]) -> None:
        """Add these; on the disk before this returns."""
        with self.path.open("a") as file:
            file.write("".join(f"\n{town} {subject}" for town, subject in fresh))
            file.flush()
            os.fsync(file.fileno())


def note_erasures(database: Database, kept: ErasureList) -> int:
    """Write what the database knows and the file does not yet into the file; how many there were. Cheap when there is nothing.

    The file first, because it is what protects from backups; the cleaning is owed until it succeeds.
    """
    known = kept.read()
    with database.reading() as session:
        fresh = [(row.town, row.subject) for row in session.execute(select(erased)) if (row.town, row.subject) not in known]
    if fresh:
        kept.add(fresh)
        kept.owes_scrub = True
        failpoint("erasure.noted")
    if kept.owes_scrub and scrub(database):
        kept.owes_scrub = False
    return len(fresh)


def replay(database: Database, kept: ErasureList, projections: Sequence[Projection], own: Collection[str] = ()) -> list[str]:
    """Erase again what a backup brought back; the subjects. Call it before the database serves anybody.

    `own`: under which names this service's own log is erased from; another town's erasures say nothing about it.
    """
    listed = kept.read()
    with database.transaction() as session:
        known = {(row.town, row.subject) for row in session.execute(select(erased))}
        missing = sorted(listed - known)
        for town, subject in missing:
            upsert(session, erased, [{"town": town, "subject": subject}])
            if town in own:
                forget_payloads(session, subject)
            erase_stored(session, town, subject)
        erase_from_quarantine(session, [(None if town == EVERYWHERE else town, subject) for town, subject in missing])
        if missing:
            rebuild(session, projections)
    if missing:
        failpoint("erasure.replayed")
        scrub(database)
    return [subject for _, subject in missing]


def ask_again(session: Session, town: str) -> int:
    """Append `redacted` for what this town erased and its log never asked; how often. Call it when the heads were compared and the
    log is not behind: a log that was put back is not to be written on before its tail is there.
    """
    whose = EVERYWHERE if town == KOEPEL else town
    never = [
        subject
        for subject in erasures_of(session, {whose})
        if all(says.type != Redacted.wire for says in headers_about(session, subject))
    ]
    for subject in never:
        append(session, Redacted(redacts=subject))
    return len(never)


_FULL_TEXT = "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE%USING fts5%'"


def scrub(database: Database) -> bool:
    """Let nothing of what was deleted linger in the database's files. False when somebody was reading all the while: try again."""
    if database.engine.dialect.name != "sqlite":
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM"))
        return True
    held = database.engine.raw_connection()
    try:
        cursor = held.cursor()  # the driver begins no transactions of its own (`db.py`)
        cursor.execute(_FULL_TEXT)
        for (name,) in cursor.fetchall():  # its segments keep the words of rows that are gone, until they are merged
            cursor.execute(f"INSERT INTO {name} ({name}) VALUES ('optimize')")  # noqa: S608  # names of our own tables
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        busy, *_pages = cursor.fetchone() or (1,)
        return not busy
    finally:
        held.close()


__all__ = ["EVERYWHERE", "ErasureList", "ask_again", "erasures_of", "note_erasures", "redact", "replay", "scrub"]

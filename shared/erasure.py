"""Erasure: what was told about a subject is forgotten here and everywhere, and the chain still verifies (design §4, R34, I18).

A header names only the hash of its body with a random salt, so when body and salt are gone nothing can be guessed back from it.
`redact` is what a town does with a subject of its own: it forgets the payloads in its log and appends `redacted`; whoever stores
that event, the hub and the other towns, erases what it holds of the subject, in every epoch, and refuses the bodies from then on.

A backup that is put back would bring the bodies back. So the list of erasures also stands in a file beside the database, which does
not belong into the database's backup; `replay` erases again before a copy that was put back serves anybody.

SQLite runs with `secure_delete`, and `scrub` cuts its WAL off; on PostgreSQL it vacuums. So nothing lingers in the files either.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from shared.db import Database, upsert
from shared.eventlog import append, forget_payloads
from shared.events import Redacted
from shared.inbox import EVERYWHERE, erase_stored, erased
from shared.projections import Projection, rebuild


def redact(session: Session, town: str, subject: str) -> None:
    """Forget what this town ever told about a subject, and ask everybody to do the same. The last thing an action does."""
    forget_payloads(session, subject)
    upsert(session, erased, [{"town": town, "subject": subject}])
    append(session, Redacted(redacts=subject))


class ErasureList:
    """The file: one line `town subject` for each erasure, only ever added to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> set[tuple[str, str]]:
        """What it says; a line that was cut off by a crash is passed over, for the database still knows it."""
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return set()
        return {(parts[0], parts[1]) for line in lines if len(parts := line.split()) == 2}

    def add(self, fresh: Sequence[tuple[str, str]]) -> None:
        """Add these; on the disk before this returns."""
        with self._path.open("a") as file:
            file.write("".join(f"\n{town} {subject}" for town, subject in fresh))
            file.flush()
            os.fsync(file.fileno())


def note_erasures(database: Database, kept: ErasureList) -> int:
    """Write what the database knows and the file does not yet into the file; how many there were. Cheap when there is nothing."""
    known = kept.read()
    with database.reading() as session:
        fresh = [(row.town, row.subject) for row in session.execute(select(erased)) if (row.town, row.subject) not in known]
    if fresh:
        kept.add(fresh)
        scrub(database)
    return len(fresh)


def replay(database: Database, kept: ErasureList, projections: Sequence[Projection]) -> list[str]:
    """Erase again what a backup brought back; the subjects. Call it before the database serves anybody."""
    listed = kept.read()
    with database.transaction() as session:
        known = {(row.town, row.subject) for row in session.execute(select(erased))}
        missing = sorted(listed - known)
        for town, subject in missing:
            upsert(session, erased, [{"town": town, "subject": subject}])
            forget_payloads(session, subject)
            erase_stored(session, town, subject)
        if missing:
            rebuild(session, projections)
    if missing:
        scrub(database)
    return [subject for _, subject in missing]


def scrub(database: Database) -> None:
    """Let nothing of what was deleted linger in the database's files."""
    sqlite = database.engine.dialect.name == "sqlite"
    with database.engine.connect().execution_options(isolation_level=None if sqlite else "AUTOCOMMIT") as connection:
        if sqlite:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.exec_driver_sql("BEGIN")
        else:
            connection.execute(text("VACUUM inbox, payload, quarantine"))


__all__ = ["EVERYWHERE", "ErasureList", "note_erasures", "redact", "replay", "scrub"]

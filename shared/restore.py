"""A log that was put back from a backup, or lost: how a town comes back (design §4, "Restored, cloned and lost nodes"; I14).

**Noticing.** The association's answer in a head exchange carries the last entry it holds, with the town's own signature. If that
entry is of the present epoch (or of a later one) and not in this log, the log was put back: nobody but this town could have signed
it, so a hub that lies cannot bring it about. A file beside the database, the *sidecar*, remembers the last head that was confirmed
and shows the same before any call, also offline. From then on the town works on, but nothing is published.

**Coming back.** The tail (what the association holds and this log does not) is fetched, checked against the town's own keys, and
put back into the circle's tables by each slice's `Slice.put_back`. Then one of two things, in the same transaction:

- nothing was told since the log was put back → the tail's own bytes are entered into the log, and it goes on as if nothing
  happened;
- something was told (or the key is new) → a **new epoch** begins: `epoch.opened` names what it follows, the whole public state is
  told again, `epoch.settled` closes it, and hub and nodes swap this town's rows at once.

What changed on both sides keeps the version of this node; the other one is kept in `conflict`, for somebody to look at. What never
left the town, such as persons and notes, is not with the association and cannot come back from there.

Tables: `setback` (one row while the log is behind), `comeback` (what was done, newest last), `conflict`.
"""

import dataclasses
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import BigInteger, Column, Integer, String, Table, Text, delete, select
from sqlalchemy.orm import Session

from shared.db import Base, Moment, upsert
from shared.envelope import NO_HASH, Entry, Malformed, from_json, header_hash, open_entry, read_event, signed_by
from shared.eventlog import (
    Author,
    Head,
    adopt_all,
    append,
    change_key,
    forget_payloads,
    has_epoch,
    last_signed,
    lock_head,
    number_of,
    open_epoch,
    read_hash,
    read_head,
    read_log,
)
from shared.events import EXEMPT_FROM_ERASURE, EpochOpened, EpochSettled, Event, KeyRotated, Redacted
from shared.inbox import EVERYWHERE, KOEPEL, erased
from shared.language import HERE
from shared.observability import facts
from shared.pins import NEVER, end_key, pin, read_pins, take_own_key
from shared.relay import mark_sent

log = logging.getLogger(__name__)

TAIL_MAX = 200_000
"""Entries of the longest tail that is read."""
TAIL_BYTES_MAX = 256 * 2**20
"""Bytes of it: it is in memory until its last signature is verified, and a hub could make up one without end."""
TAIL = b"tail1"
"""What the signature on a call for the tail is made for."""

setback = Table(
    "setback",
    Base.metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("why", String(20), nullable=False),
    Column("noticed_at", Moment, nullable=False),
)
comeback = Table(
    "comeback",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("why", String(20), nullable=False),
    Column("came_at", Moment, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("conflicts", Integer, nullable=False),
    Column("new_epoch", String(40)),
)
conflict = Table(
    "conflict",
    Base.metadata,
    Column("subject", String(40), primary_key=True),
    Column("type", String(80), nullable=False),
    Column("other", Text, nullable=False),
    Column("noticed_at", Moment, nullable=False),
)


PutBack = Callable[[Session, Any, date], None]
"""(session, event, today)"""


@dataclass
class Slice:
    """What one subject of the service contributes: how its tables take back what was told, and how it tells everything again."""

    name: str
    retell: Callable[[Session, date], Iterable[Event]]
    """The whole public state as it stands, one event per entity."""
    handlers: dict[type[Event], PutBack] = field(default_factory=dict)

    def put_back(self, *happened: type[Event]) -> Callable[[PutBack], PutBack]:
        """Enter a function that makes the tables say what this event says. It may run twice."""

        def enter(handler: PutBack) -> PutBack:
            for cls in happened:
                self.handlers[cls] = handler
            return handler

        return enter


# ---- Noticing --------------------------------------------------------------------------------------------------------------


def set_back(session: Session) -> Any:
    """The row that says since when and why the log is behind what this town told before; None when all is well."""
    return session.execute(select(setback)).first()


def note_setback(session: Session, why: str, now: datetime) -> None:
    """The log is behind: nothing may be published until the tail is back. `why`: sidecar, hub or lost, which weighs most."""
    held = set_back(session)
    if held is None or (why == "lost" and held.why != why):
        upsert(session, setback, [{"one": 1, "why": why, "noticed_at": now}])
        log.warning("restore.noticed", extra=facts(why=why))


def proves_setback(session: Session, author: Author, header: bytes, signature: bytes) -> bool:
    """Whether this entry shows that the log was put back: signed by this town, of the present epoch or a later one, not in the log.

    An epoch that this log closed itself proves nothing: its lost end was taken back, or given up, when the next one began.
    """
    try:
        entry = open_entry(header, signature, None, None)
    except Malformed:
        return False
    says, last = entry.says, read_head(session)
    if says.town != author.town or last is None or read_hash(session, says.epoch, says.seq) == entry.hash:
        return False
    if says.epoch != last.epoch and has_epoch(session, says.epoch):
        return False
    return _is_own(session, author, entry)


def _is_own(session: Session, author: Author, entry: Entry) -> bool:
    """Whether this town signed this entry of its present epoch or a later one, with a key that counts there.

    What a key that has ended signs beyond its end counts for nothing: it may be in wrong hands. The keys on the disk are in no
    backup, so they may be newer than what the database knows.
    """
    says, pins = entry.says, read_pins(session, [author.town])
    end = pins.end_of(author.town, says.key_id)
    if end is not None and (end[0] == NEVER or has_epoch(session, end[0])) and not (end[0] == says.epoch and says.seq <= end[1]):
        return False
    on_disk = {key.key_id: key.public for key in (author.key, author.previous) if key is not None}
    key = pins.public_of(author.town, says.key_id) or on_disk.get(says.key_id)
    return key is not None and signed_by(entry, key)


def note_heard(session: Session, author: Author, header: bytes) -> None:
    """The association shows the last entry it holds. If it comes after the place where the previous key ended, that one has ended.

    Not before: what the association has not heard of yet it cannot heed, so until then another copy of this node may still have
    written with that key, and rightly.
    """
    if author.previous is None or read_pins(session, [author.town]).has_ended(author.town, author.previous.key_id):
        return
    try:
        says = open_entry(header, b"", None, None).says
    except Malformed:
        return
    if says.town == author.town and read_hash(session, says.epoch, says.seq) == header_hash(header):
        number, last = last_signed(session, author.previous.key_id)
        if last is not None and last.type == KeyRotated.wire and (number, last.seq) <= (number_of(session, says.epoch), says.seq):
            end_key(session, author.town, author.previous.key_id, last.epoch, last.seq)


class Sidecar:
    """A small file beside the database.

    The last head that the bus confirmed, or the feed's last number. Not in the database's backup.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Any]:
        """What was noted last; nothing when there is no such file, or it was cut off."""
        try:
            said = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    def note(self, **said: Any) -> None:
        """Replace what it says; on the disk before this returns."""
        fresh = self._path.with_suffix(".new")
        with fresh.open("w") as file:
            json.dump(said, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


def contradicts(session: Session, sidecar: Sidecar) -> bool:
    """Whether the sidecar knows a place of the present or an unknown epoch that this log does not have."""
    said, last = sidecar.read(), read_head(session)
    if last is None or not said.get("seq") or not {"epoch", "hash"} <= said.keys():
        return False
    if said["epoch"] != last.epoch and has_epoch(session, said["epoch"]):
        return False
    known = read_hash(session, said["epoch"], said["seq"])
    return known is None or known.hex() != said["hash"]


# ---- Coming back -----------------------------------------------------------------------------------------------------------


class NoTail(Exception):  # noqa: N818  # named for its reason
    """What the hub shows is no continuation of this log: nothing is put back, and the town goes on waiting."""


FetchTail = Callable[[str, int], bytes]
"""(epoch, after) → a page of the town's own entries beyond that place, through to later epochs."""


def fetch_tail(session: Session, author: Author, fetch: FetchTail) -> tuple[list[Entry], int]:
    """What the association holds beyond the last place that both know, and that place in the present epoch. Raises `NoTail`, or
    what `fetch` raises.

    Nothing, and 0, when it holds nothing of this town at all.
    """
    last = read_head(session)
    start, step = (last.seq if last else 0), 500
    while True:
        entries = _pages(last.epoch if last else "", start, fetch)
        if last is None or (not entries and start == 0) or _continues(session, last, start, entries):
            break
        if start == 0 and entries[0].says.seq == 1:
            break  # nothing of the present epoch: that side was put back too, or never heard of it
        if start == 0:
            raise NoTail
        start, step = max(0, start - step), step * 2
    if last is None:
        return entries, start
    known = 0
    for entry in entries:
        if read_hash(session, entry.says.epoch, entry.says.seq) != entry.hash:
            break
        known += 1
        if entry.says.epoch == last.epoch:
            start = entry.says.seq
    # The end of an epoch that this log closed itself was taken back or given up then.
    return [entry for entry in entries[known:] if entry.says.epoch == last.epoch or not has_epoch(session, entry.says.epoch)], start


def _pages(epoch: str, after: int, fetch: FetchTail) -> list[Entry]:
    entries: list[Entry] = []
    size = 0
    while True:
        raw = fetch(epoch, after)
        size += len(raw)
        try:
            fresh = [from_json(item) for item in orjson.loads(raw)["items"]]
        except (orjson.JSONDecodeError, KeyError, TypeError, Malformed) as error:
            raise NoTail from error
        if not fresh:
            return entries
        goes_on = (fresh[0].says.epoch, fresh[0].says.seq) == (epoch, after + 1) or fresh[0].says.seq == 1
        if not goes_on or len(entries) > TAIL_MAX or size > TAIL_BYTES_MAX:
            raise NoTail  # a page that leads nowhere, or has no end
        entries += fresh
        epoch, after = fresh[-1].says.epoch, fresh[-1].says.seq


def _continues(session: Session, last: Head, start: int, entries: Sequence[Entry]) -> bool:
    """Whether the first of these entries comes right after the place `start` of this log."""
    if not entries:
        return False
    first = entries[0]
    if first.says.epoch == last.epoch:
        before = read_hash(session, last.epoch, start) if start else bytes(32)
        return first.says.seq == start + 1 and first.says.prevhash == before
    opened = _opened(first)
    return (
        opened is not None
        and (opened.previous, opened.last) == (last.epoch, start)
        and (start == 0 or opened.last_hash == (read_hash(session, last.epoch, start) or b"").hex())
    )


def _opened(entry: Entry) -> EpochOpened | None:
    try:
        happened = read_event(entry)
    except ValueError:
        return None
    return happened if isinstance(happened, EpochOpened) else None


def check_tail(session: Session, author: Author, entries: Sequence[Entry]) -> None:
    """One chain, through all its epochs, vouched for by the last signature. Raises `NoTail`."""
    for before, entry in zip([None, *entries], entries, strict=False):
        if entry.says.town != author.town:
            raise NoTail
        if before is None:
            continue
        if before.says.epoch == entry.says.epoch:
            if entry.says.seq != before.says.seq + 1 or entry.says.prevhash != before.hash:
                raise NoTail
        else:
            opened = _opened(entry)
            follows = opened and (opened.previous, opened.last, opened.last_hash) == (
                before.says.epoch, before.says.seq, before.hash.hex(),
            )  # fmt: skip
            if not follows or entry.says.seq != 1:
                raise NoTail
    if entries and not _is_own(session, author, entries[-1]):
        raise NoTail


def come_back(
    session: Session,
    author: Author,
    tail: Sequence[Entry],
    common: int,
    slices: Sequence[Slice],
    now: datetime,
    *,
    anew: bool = False,
) -> str | None:
    """Put the tail back and go on; the id of the new epoch, or None when the old one goes on. Call `check_tail` before.

    `common` is the last place of the present epoch that both sides know. `anew`: with a new key a new epoch begins in any case.
    """
    last = lock_head(session)
    why = set_back(session)
    tail = _without_erased(session, author.town, tail)
    mine = read_log(session, last.epoch, common, 1_000_000) if last else []
    fold_alone = bool(tail) and not mine and not anew and last is not None
    conflicts = _put_back(session, tail, {entry.says.subject: entry for entry in mine}, slices, now)
    epoch = None
    if fold_alone:
        for here, run in itertools.groupby(tail, key=lambda entry: entry.says.epoch):
            entries = list(run)
            if not has_epoch(session, here):
                open_epoch(session, author, here)
            adopt_all(session, entries)
            change_key(session, author.key.key_id)
            mark_sent(session, here, entries[-1].says.seq)
    else:
        # With nothing of ours over there, or nothing more than we have, what was told and lost may still be known to others.
        held = common if tail or common else last.seq if last else 0
        ours = read_log(session, last.epoch, held - 1, 1) if last and held else []
        # What the tail ran through is closed for this log as well, and proves nothing when the association shows it once more.
        for here in dict.fromkeys(entry.says.epoch for entry in tail):
            if not has_epoch(session, here):
                open_epoch(session, author, here)
        epoch = begin_epoch(session, author, tail[-1] if tail else ours[0] if ours else None, slices)
    _settle_keys(session, author, now)
    session.execute(delete(setback))
    done = {"why": why.why if why else "hub", "came_at": now, "entries": len(tail), "conflicts": conflicts, "new_epoch": epoch}
    session.execute(comeback.insert(), done)
    log.warning("restore.came_back", extra=facts(entries=len(tail), conflicts=conflicts, new_epoch=epoch))
    return epoch


def _settle_keys(session: Session, author: Author, now: datetime) -> None:
    """Of this town's keys those count that it speaks with now; the others ended where they signed last."""
    take_own_key(session, author.town, author.key.public, now)
    unended = select(pin.c.key_id).where(pin.c.town == author.town, pin.c.ends_epoch.is_(None), pin.c.key_id != author.key.key_id)
    for key_id in session.scalars(unended).all():
        _, last = last_signed(session, key_id)
        if last is None:
            end_key(session, author.town, key_id, NEVER, 0)
        elif last.type != KeyRotated.wire or author.previous is None or author.previous.key_id != key_id:  # or `note_heard` will
            end_key(session, author.town, key_id, last.epoch, last.seq)


def begin_epoch(session: Session, author: Author, after: Entry | None, slices: Sequence[Slice], *, first: bool = False) -> str:
    """Open a new epoch and tell the whole public state in it. `after`: the last entry that the association holds of this town.

    It may hold nothing any more, while other towns still do; so only a town's very first epoch goes without opening words.
    """
    epoch = open_epoch(session, author)
    if not first:
        place = (after.says.epoch, after.says.seq, after.hash) if after is not None else (NEVER, 0, NO_HASH)
        append(session, EpochOpened(epoch=epoch, previous=place[0], last=place[1], last_hash=place[2].hex()))
    # What was asked to be erased may have been asked in an epoch whose end was given up.
    asked = select(erased.c.subject).where(erased.c.town == _whose(author.town)).order_by(erased.c.subject)
    gone = session.scalars(asked).all()
    for each in slices:
        for happened in each.retell(session, author.now().astimezone(HERE).date()):
            if happened.subject not in gone:  # a circle that left may have kept for itself what it had erased elsewhere
                append(session, happened)
    for subject in gone:
        append(session, Redacted(redacts=subject))
    if not first:
        append(session, EpochSettled(epoch=epoch))
    return epoch


def _without_erased(session: Session, town: str, tail: Sequence[Entry]) -> list[Entry]:
    """The tail without the words about what was erased here, or is erased further on in it: the association may not know it yet."""
    gone = set(session.scalars(select(erased.c.subject).where(erased.c.town == _whose(town))))
    gone |= {entry.says.subject for entry in tail if entry.says.type == Redacted.wire}
    return [
        dataclasses.replace(entry, salt=None, body=None)
        if entry.says.subject in gone and entry.says.type not in EXEMPT_FROM_ERASURE
        else entry
        for entry in tail
    ]


def _whose(town: str) -> str:
    """Under which name in `erased` stands what this log asked to be erased. The association asks for all towns."""
    return EVERYWHERE if town == KOEPEL else town


def _put_back(session: Session, tail: Sequence[Entry], mine: dict[str, Entry], slices: Sequence[Slice], now: datetime) -> int:
    """Hand the tail's events to the slices; what changed here meanwhile keeps this version. Returns how many did."""
    other: dict[str, dict[str, Any]] = {}
    for entry in tail:
        try:
            happened = read_event(entry)
        except ValueError:
            continue  # a form this release does not know: it stays in the association's log
        if happened is None:
            continue  # erased, or unknown here
        if isinstance(happened, Redacted):
            forget_payloads(session, happened.redacts)
            upsert(
                session,
                erased,
                [{"town": _whose(entry.says.town), "subject": happened.redacts}],
            )
        handlers = [each.handlers[type(happened)] for each in slices if type(happened) in each.handlers]
        local = mine.get(entry.says.subject)
        if local is not None and local.says.type == Redacted.wire:
            continue  # it was erased here; what is told there goes as well
        if local is None or isinstance(happened, Redacted):
            for handler in handlers:
                handler(session, happened, now.astimezone(HERE).date())
            if session.new:
                session.flush()
        elif handlers and (local.body, local.says.type) != (entry.body, entry.says.type):
            body = (entry.body or b"").decode()
            row = {"subject": entry.says.subject, "type": entry.says.type, "other": body, "noticed_at": now}
            other[entry.says.subject] = row
    upsert(session, conflict, list(other.values()))
    return len(other)


def read_conflicts(session: Session) -> Sequence[Any]:
    """What changed on both sides, with the version that was not taken."""
    return session.execute(select(conflict).order_by(conflict.c.noticed_at.desc())).all()


def settle_conflict(session: Session, subject: str) -> None:
    """Somebody has looked at it."""
    session.execute(delete(conflict).where(conflict.c.subject == subject))


def last_comeback(session: Session) -> Any:
    """The latest coming back, for the sync page."""
    return session.execute(select(comeback).order_by(comeback.c.id.desc()).limit(1)).first()

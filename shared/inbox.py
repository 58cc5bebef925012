"""The inbox: what other logs told us. Accepted first, understood later (design §1, point 5; `projections.py` understands).

On the hub a message is a run of a town's log and must continue it exactly: the chain is checked against what is stored, and the
town's cursor moves in the same transaction (`accept_messages`). On a node the feed brings single entries with gaps between them
(what the town may not see), so each carries its own signature (`accept_entries`). What fails is kept in quarantine with its reason,
moves no cursor, and delays nobody else (I11, I12).

Four kinds of events are heeded here already, because accepting depends on them: `epoch.opened` and `epoch.settled` (which run of
numbers counts), `key.rotated` (who may sign what follows), `redacted` (which bodies may not be kept). On a node the association's
own entries are heeded too: they say whose key is whose.

Two different entries at one place are a **fork**: the town is frozen, what is stored stays, and the other history is in quarantine
(I13). So is a town that runs twice, or that begins a second new epoch within a day (I15). `heads.thaw` is the association's
decision.

Tables: `inbox` (entries), `inbox_cursor` (one row per town: the last place that is held of its present epoch), `erased`.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, String, Table, select, tuple_, update
from sqlalchemy.orm import Session

from shared.db import Base, Moment, insert_missing, upsert
from shared.envelope import NO_HASH, Entry, Malformed, Message, read_event, signed_by, unpack
from shared.events import (
    EXEMPT_FROM_ERASURE,
    EpochOpened,
    EpochSettled,
    KeyRevoked,
    KeyRotated,
    Redacted,
    TownAdmitted,
    TownReadmitted,
)
from shared.keys import from_text
from shared.observability import facts
from shared.pins import (
    epoch_order,
    follow_key,
    note_epoch,
    pin_key,
    proven,
    read_pins,
    replace_keys,
    revoke_key,
    settle_epoch,
)
from shared.quarantine import erase_from_quarantine, quarantine_message

log = logging.getLogger(__name__)

KOEPEL = "koepel"
"""The association's own slug; its key is handed over at joining."""
EPOCH_LEAST = timedelta(days=1)
"""A second new epoch within this time looks like two copies of one node."""
EVERYWHERE = "*"
"""Under this name in `erased`, a subject is erased from every town: the association's word, for towns that are gone."""

inbox = Table(
    "inbox",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("epoch", String(40), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("type", String(80), nullable=False),
    Column("subject", String(40), nullable=False),
    Column("header", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("salt", LargeBinary),
    Column("body", LargeBinary),
    Index("ix_inbox_subject", "subject"),
)
inbox_cursor = Table(
    "inbox_cursor",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("epoch", String(40), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("heard_at", Moment),
    Column("gap_at", Moment),
    Column("frozen_at", Moment),
    Column("trouble", String(20), nullable=False, default=""),
    Column("thawed", Boolean, nullable=False, default=False),
    Column("filled", BigInteger, nullable=False, default=0, server_default="0"),
)
"""`thawed`: the association decided whose word counts, so the next new epoch is believed, whatever it says that it follows.
`filled`: how many entries came after a later one was held already, as they do in a feed that first kept them back."""
erased = Table(
    "erased",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("subject", String(40), primary_key=True),
)

Verdict = Literal[
    "stored", "known", "ahead", "frozen", "left",
    "malformed", "unknown_key", "ended_key", "bad_signature", "broken_chain", "forked", "other_epoch",
]  # fmt: skip
KEPT: frozenset[Verdict] = frozenset(
    ["malformed", "unknown_key", "ended_key", "bad_signature", "broken_chain", "forked", "other_epoch"]
)
"""What goes into quarantine. The rest is stored, or comes again by itself; or a town tells it after it left, such as a goodbye that
comes after the association wrote down that the town goes: nobody has to look at that."""


@dataclass
class Outcome:
    """What became of a message. `stored` counts new entries."""

    verdict: Verdict
    town: str = ""
    stored: int = 0
    reason: str = ""


def _new_cursor(town: str, epoch: str) -> dict[str, Any]:
    return {
        "town": town, "epoch": epoch, "seq": 0, "hash": NO_HASH, "heard_at": None, "gap_at": None, "frozen_at": None, "trouble": "",
        "thawed": False, "filled": 0,
    }  # fmt: skip


class _Store:
    """One transaction's work on some towns' entries: what is known of them, and the rows that are to be written."""

    def __init__(self, session: Session, towns: Iterable[str], now: datetime) -> None:
        self.session, self.now, self.towns = session, now, sorted(set(towns))
        known = read_pins(session, self.towns)
        missing = [_new_cursor(town, "") for town in self.towns if known.knows(town)]
        # A row to lock: two who found none would overwrite one another.
        insert_missing(session, inbox_cursor, missing)
        query = select(inbox_cursor).where(inbox_cursor.c.town.in_(self.towns)).order_by(inbox_cursor.c.town)
        self.cursors = {row.town: dict(row._mapping) for row in session.execute(query.with_for_update())}  # noqa: SLF001  # SQLAlchemy's public name
        self.pins = read_pins(session, self.towns)  # after the lock: a key that ends while we wait for it must not count here
        gone = session.execute(select(erased.c.town, erased.c.subject).where(erased.c.town.in_([*self.towns, EVERYWHERE])))
        self.erased = {(row.town, row.subject) for row in gone}
        self.to_forget: list[tuple[str | None, str]] = []
        self.rows: dict[tuple[str, str, int], dict[str, Any]] = {}

    def add(self, entry: Entry) -> None:
        """Store this entry, without its body if that was erased, and heed what it says about the log itself."""
        says = entry.says
        kept = not ({(says.town, says.subject), (EVERYWHERE, says.subject)} & self.erased) or says.type in _EXEMPT
        self.rows[says.town, says.epoch, says.seq] = {
            "town": says.town, "epoch": says.epoch, "seq": says.seq, "type": says.type[:80], "subject": says.subject[:40],
            "header": entry.header, "hash": entry.hash, "signature": entry.signature,
            "salt": entry.salt if kept else None, "body": entry.body if kept else None,
        }  # fmt: skip
        if says.type in _HEEDED:
            self._heed(entry)

    def stored_hashes(self, places: Sequence[tuple[str, str, int]]) -> dict[tuple[str, str, int], bytes]:
        """The hashes at these places, as far as they are taken."""
        found = {place: self.rows[place]["hash"] for place in places if place in self.rows}
        place = tuple_(inbox.c.town, inbox.c.epoch, inbox.c.seq)
        for start in range(0, len(places), 200):
            query = select(*place.clauses, inbox.c.hash).where(place.in_(places[start : start + 200]))
            found |= {(row.town, row.epoch, row.seq): bytes(row.hash) for row in self.session.execute(query)}
        return found

    def holds(self, town: str, epoch: str) -> bool:
        """Whether anything of this epoch is held. A hub that was put back may know of it all the same."""
        here = select(inbox.c.seq).where(inbox.c.town == town, inbox.c.epoch == epoch).limit(1)
        return any(place[:2] == (town, epoch) for place in self.rows) or self.session.scalar(here) is not None

    def know_epoch(self, town: str, epoch: str) -> None:
        """A log is heard of for the first time.

        Its first epoch counts from the beginning. One that was never opened counts least.
        """
        if self.pins.number_of(town, epoch) is None:
            first = not any(whose == town for whose, _ in self.pins.numbers)
            note_epoch(self.session, town, epoch, 1 if first else 0, self.now, 0)
            self.pins = read_pins(self.session, self.towns)

    def freeze(self, town: str, trouble: str) -> None:
        """This town stands still until the association has decided; the association itself never does, for who would thaw it."""
        cursor = self.cursors[town]
        if cursor["frozen_at"] is None and town != KOEPEL:
            cursor.update(frozen_at=self.now, trouble=trouble, moved=True)
            log.error("inbox.frozen", extra=facts(town=town, trouble=trouble))

    def save(self) -> None:
        """Write it all, in one statement per table."""
        if self.rows:
            self.session.execute(inbox.insert(), list(self.rows.values()))
        moved = [cursor for cursor in self.cursors.values() if cursor.pop("moved", False)]
        upsert(self.session, inbox_cursor, sorted(moved, key=lambda cursor: str(cursor["town"])))
        erase_from_quarantine(self.session, self.to_forget)

    def _heed(self, entry: Entry) -> None:
        says = entry.says
        try:
            happened = read_event(entry)
        except ValueError:
            return  # a projection will stall on it, visibly; for accepting it says nothing
        if isinstance(happened, EpochOpened) and says.seq == 1 and happened.epoch == says.epoch:
            if self.pins.number_of(says.town, says.epoch) is None:
                # After everything that is known, whatever it says that it follows: no two epochs may have one number.
                before = max((number for (town, _), number in self.pins.numbers.items() if town == says.town), default=0)
                note_epoch(self.session, says.town, says.epoch, before + 1, self.now, None)
        elif isinstance(happened, EpochSettled) and happened.epoch == says.epoch:
            settle_epoch(self.session, says.town, says.epoch, says.seq)
        elif isinstance(happened, KeyRotated):
            public = proven(entry, happened)
            if public is not None:
                follow_key(self.session, says.town, says.key_id, public, says.epoch, says.seq, self.now)
        elif isinstance(happened, Redacted):
            self._erase(EVERYWHERE if says.town == KOEPEL else says.town, happened.redacts)
            return
        elif says.town == KOEPEL and isinstance(happened, TownAdmitted | KeyRevoked):
            self._believe_association(happened)
        self.pins = read_pins(self.session, self.towns)

    def _believe_association(self, happened: TownAdmitted | KeyRevoked) -> None:
        """Whose key is whose. The hub heard it already when it admitted the town; saying it again changes nothing."""
        if isinstance(happened, KeyRevoked):
            revoke_key(self.session, happened.town, happened.key_id, happened.epoch, happened.last, self.now)
            return
        try:
            public = from_text(happened.public_key, 32)
        except ValueError:
            return
        author = self.session.info.get("author")
        earlier = author is not None and author.town == happened.town and author.key.public != public
        if happened.town == KOEPEL or earlier:
            return  # a node knows its present key, and may read only now how it came to the ones before it
        if isinstance(happened, TownReadmitted):
            replace_keys(self.session, happened.town, public, happened.epoch, happened.last, self.now)
        else:
            pin_key(self.session, happened.town, public, self.now)

    def _erase(self, town: str, subject: str) -> None:
        upsert(self.session, erased, [{"town": town, "subject": subject}])
        self.erased.add((town, subject))
        for row in self.rows.values():
            if row["subject"] == subject and town in {row["town"], EVERYWHERE} and row["type"] not in _EXEMPT:
                row.update(salt=None, body=None)
        erase_stored(self.session, town, subject)
        self.to_forget.append((None if town == EVERYWHERE else town, subject))


ASSOCIATION_SAYS = frozenset(cls.wire for cls in (TownAdmitted, TownReadmitted, KeyRevoked))
"""What only the association can say; in a town's own log it means nothing."""
_EXEMPT = EXEMPT_FROM_ERASURE | {KeyRevoked.wire}
_HEEDED = EXEMPT_FROM_ERASURE | ASSOCIATION_SAYS
"""Types that accepting depends on."""


def erase_stored(session: Session, town: str, subject: str) -> None:
    """Body and salt of everything that is stored about this subject go."""
    whose = () if town == EVERYWHERE else (inbox.c.town == town,)
    session.execute(
        update(inbox).where(inbox.c.subject == subject, inbox.c.type.not_in(_EXEMPT), *whose).values(salt=None, body=None)
    )


def speaks_of_erased(session: Session, raw: bytes) -> bool:
    """Whether these bytes name something that was erased, in whatever form and in whoever's name they came."""
    return any(subject.encode() in raw for subject in session.scalars(select(erased.c.subject).distinct()))


# ---- Messages from the bus -------------------------------------------------------------------------------------------------


def accept_messages(
    session: Session, raws: Sequence[bytes], now: datetime, has_left: Callable[[str], bool] = lambda _town: False
) -> list[Outcome]:
    """Store what is new in these messages, in one transaction; an outcome for each. Acknowledge them after its commit.

    `has_left`: whether this town's key ended because it left.
    """
    outcomes: list[tuple[Outcome, Message | None]] = []
    for raw in raws:
        try:
            opened = unpack(raw)
        except Malformed as error:
            outcomes.append((Outcome("malformed", reason=str(error)), None))
        else:
            outcomes.append((Outcome("known", opened.town), opened))
    store = _Store(session, {message.town for _, message in outcomes if message}, now)
    for outcome, message in outcomes:
        if message is not None:
            _judge(store, outcome, message)
    store.save()
    for (outcome, _), raw in zip(outcomes, raws, strict=True):
        if outcome.verdict == "ended_key" and has_left(outcome.town):
            outcome.verdict = "left"
        if outcome.verdict in KEPT:
            known = outcome.town if outcome.verdict != "unknown_key" or store.pins.knows(outcome.town) else ""
            quarantine_message(session, known, outcome.verdict, outcome.reason, raw, now, speaks_of_erased)
        _report(outcome)
    return [outcome for outcome, _ in outcomes]


def _judge(store: _Store, outcome: Outcome, message: Message) -> None:
    town, first, last = message.town, message.entries[0].says.seq, message.entries[-1].says.seq
    key = store.pins.key_for(town, message.key_id, message.epoch, last, hears_all=True)
    if key is None:
        ended = store.pins.has_ended(town, message.key_id)
        outcome.verdict = "ended_key" if ended else "unknown_key"
        outcome.reason = f"key {message.key_id} {'counts no longer' if ended else 'is not pinned for this town'}"
        return
    if not signed_by(message.entries[-1], key):
        outcome.verdict, outcome.reason = "bad_signature", "the last signature is not this key's"
        return
    cursor = store.cursors.setdefault(town, _new_cursor(town, message.epoch))
    if cursor["frozen_at"] is not None:
        outcome.verdict, outcome.reason = "frozen", cursor["trouble"]
        cursor.update(gap_at=store.now, moved=True)  # after the thaw it has to come again
        return
    if not cursor["epoch"]:  # frozen before anything of it had arrived
        cursor.update(epoch=message.epoch)
    if cursor["epoch"] != message.epoch and not _turns_page(store, outcome, message, cursor):
        return
    if cursor["seq"] == 0 and _opening(message) is None:
        store.know_epoch(town, message.epoch)
    known = cursor["seq"]
    if first > known + 1:
        # Dropped, not kept: the head exchange brings it again from the right place.
        outcome.verdict, outcome.reason = "ahead", f"{first} came, {known + 1} is missing"
        cursor.update(gap_at=store.now, moved=True)
        return
    old = [entry for entry in message.entries if entry.says.seq <= known]
    fresh = message.entries[len(old) :]
    if _differs(store, old):
        outcome.verdict, outcome.reason = "forked", f"another history than the stored one, between {first} and {known}"
        store.freeze(town, "forked")
        return
    if not fresh:
        return
    if fresh[0].says.prevhash != bytes(cursor["hash"]):
        outcome.verdict, outcome.reason = "broken_chain", f"{fresh[0].says.seq} does not continue what is stored"
        return
    for entry in fresh:
        store.add(entry)
    cursor.update(seq=fresh[-1].says.seq, hash=fresh[-1].hash, heard_at=store.now, gap_at=None, moved=True)
    outcome.verdict, outcome.stored = "stored", len(fresh)


def _opening(message: Message) -> EpochOpened | None:
    """What the message says about the epoch that it begins, if it begins one."""
    first = message.entries[0]
    if first.says.seq != 1 or first.says.type != EpochOpened.wire:
        return None
    try:
        happened = read_event(first)
    except ValueError:
        return None
    return happened if isinstance(happened, EpochOpened) and happened.epoch == message.epoch else None


def _turns_page(store: _Store, outcome: Outcome, message: Message, cursor: dict[str, Any]) -> bool:
    """The message is of another epoch than the town's present one.

    Whether it rightly begins a new one, to which the cursor then goes.
    """
    town, present = message.town, cursor["epoch"]
    here = store.pins.number_of(town, message.epoch)
    if here is not None and here <= (store.pins.number_of(town, present) or 0):
        if _differs(store, message.entries):
            outcome.verdict, outcome.reason = "other_epoch", f"epoch {message.epoch} was closed"
        return False
    opened = _opening(message)
    if opened is None:
        # Dropped: the head exchange brings the new epoch from its beginning.
        outcome.verdict, outcome.reason = "ahead", f"epoch {message.epoch} is not opened yet"
        cursor.update(gap_at=store.now, moved=True)
        return False
    begun = store.session.execute(select(epoch_order).where(epoch_order.c.town == town, epoch_order.c.epoch == present)).first()
    follows = store.holds(town, opened.previous)
    reach, reached = cursor["seq"], bytes(cursor["hash"])
    counts_to = store.pins.counts_to(town, present)
    if counts_to is not None and counts_to < reach:  # what lies beyond is nobody's word
        reach = counts_to
        reached = store.stored_hashes([(town, present, reach)]).get((town, present, reach), NO_HASH)
    knows_all = opened.previous == present and (opened.last > reach or (opened.last == reach and opened.last_hash == reached.hex()))
    trusted = cursor["thawed"] or town == KOEPEL
    if not knows_all and follows and not trusted:
        outcome.verdict, outcome.reason = "forked", f"epoch {message.epoch} does not follow what is stored"
        store.freeze(town, "two_copies" if opened.previous != present else "forked")
        return False
    was_opened = begun is not None and begun.settled != 0  # a town's very first epoch follows nothing
    if begun is not None and was_opened and store.now - begun.opened_at < EPOCH_LEAST and not trusted:
        outcome.verdict, outcome.reason = "forked", "a second new epoch within a day"
        store.freeze(town, "second_epoch")
        return False
    cursor.update(epoch=message.epoch, seq=0, hash=NO_HASH, gap_at=None, thawed=False, moved=True)
    return True


def _differs(store: _Store, old: Sequence[Entry]) -> bool:
    """Whether any of these entries is not what is stored at its place."""
    if not old:
        return False
    places = [(entry.says.town, entry.says.epoch, entry.says.seq) for entry in old]
    stored = store.stored_hashes(places)
    return any(stored.get(place) != entry.hash for place, entry in zip(places, old, strict=True))


def _report(outcome: Outcome) -> None:
    if outcome.verdict not in {"stored", "known"}:
        about = facts(town=outcome.town, verdict=outcome.verdict, reason=outcome.reason)
        log.log(logging.INFO if outcome.verdict in {"ahead", "frozen", "left"} else logging.WARNING, "inbox.dropped", extra=about)


def freeze(session: Session, town: str, trouble: str, now: datetime) -> None:
    """A town stands still from now on, because of what a head exchange showed."""
    store = _Store(session, [town], now)
    store.cursors.setdefault(town, _new_cursor(town, ""))
    store.freeze(town, trouble)
    store.save()


def thaw_log(session: Session, town: str) -> None:
    """This town's messages are heard again, and it may begin a new epoch at once. `heads.thaw` is the whole decision."""
    session.execute(
        update(inbox_cursor).where(inbox_cursor.c.town == town).values(frozen_at=None, trouble="", gap_at=None, thawed=True)
    )


# ---- Entries from the feed -------------------------------------------------------------------------------------------------


def accept_entries(session: Session, entries: Sequence[Entry], now: datetime) -> int:
    """Store single entries from the feed, each by its own signature; returns how many were new.

    One that is not signed by a pinned key of its town, or that differs from what is held, goes into quarantine and is passed over:
    the hub cannot put words into a town's mouth.
    """
    store = _Store(session, {entry.says.town for entry in entries} | _named_by_association(entries), now)
    held = store.stored_hashes([(entry.says.town, entry.says.epoch, entry.says.seq) for entry in entries])
    before = len(store.rows)
    for entry in entries:
        says = entry.says
        place = (says.town, says.epoch, says.seq)
        key = store.pins.key_for(says.town, says.key_id, says.epoch, says.seq)
        verdict: Verdict = "stored"
        if key is None:
            verdict = "ended_key" if store.pins.has_ended(says.town, says.key_id) else "unknown_key"
        elif not signed_by(entry, key):
            verdict = "bad_signature"
        elif place in held:
            verdict = "known" if held[place] == entry.hash else "forked"
        if verdict == "stored":
            if says.type != EpochOpened.wire:
                store.know_epoch(says.town, says.epoch)
            store.add(entry)
            held[place] = entry.hash
            _move(store, entry)
        elif verdict != "known":
            reason = f"feed entry {says.seq} of epoch {says.epoch}"
            known = says.town if store.pins.knows(says.town) else ""  # what names no town of ours shares one cap
            quarantine_message(session, known, verdict, reason, entry.header + b"\n" + (entry.body or b""), now, speaks_of_erased)
            _report(Outcome(verdict, says.town, reason=reason))
    fresh = len(store.rows) - before
    store.save()
    return fresh


def _named_by_association(entries: Sequence[Entry]) -> set[str]:
    """The towns of which the association says in these entries whose key is theirs."""
    return {entry.says.subject for entry in entries if entry.says.town == KOEPEL and entry.says.type in _HEEDED}


def _move(store: _Store, entry: Entry) -> None:
    """The last place that is held of each log; how many came only after it."""
    says = entry.says
    cursor = store.cursors.setdefault(says.town, _new_cursor(says.town, says.epoch))
    here, present = store.pins.number_of(says.town, says.epoch) or 0, store.pins.number_of(says.town, cursor["epoch"]) or 0
    if (here, says.seq) > (present, cursor["seq"]):
        cursor.update(epoch=says.epoch, seq=says.seq, hash=entry.hash, heard_at=store.now, moved=True)
    else:
        cursor.update(filled=cursor["filled"] + 1, moved=True)

"""Pins: whose key is whose, and until which place in a log it counts (design §4, Joining and Feed).

A town's first key is pinned when the association says whose it is. A later one is believed only on the word of the key before it
(`key.rotated`, signed by the old key and proven with the new one), or because the association says that the town joined anew
(`town.readmitted`). A key ends at a place `(epoch, seq)`, never at a time: clocks can be wrong, places cannot.

Epochs have an order per town, which lives here too, because "up to this place" means nothing without it: the first is 1, and one
that names another as its previous comes right after it.

The association's word may come before what it is about: a late town reads that a key was revoked before it reads that there is such
a key. It is remembered all the same.

Tables: `pin` (one row per town and key; without its bytes while only its end is known), `epoch` (one row per town and epoch),
`cut_off`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Table, func, select, update
from sqlalchemy.orm import Session

from shared.db import Base, Moment, upsert
from shared.envelope import Entry
from shared.events import KeyRotated
from shared.keys import from_text, key_id_of, to_text, verified

NEVER = "none"
"""The epoch of an end that comes before everything: this key counts nowhere."""
WHOLE = 2**53 - 1
"""The last place there can be: an end here lets a key count for all of its epoch."""
ROTATES = b"rotate1"
"""What a new key's proof is made for."""

pin = Table(
    "pin",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("key_id", String(40), primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("pinned_at", Moment, nullable=False),
    Column("ends_epoch", String(40)),
    Column("ends_seq", BigInteger),
)
epoch_order = Table(
    "epoch",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("epoch", String(40), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("settled", BigInteger),
)
"""`settled`: the place of its `epoch.settled`; 0 for a town's first epoch, None until the town has told everything again."""
cut_off = Table(
    "cut_off",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("epoch", String(40), primary_key=True),
    Column("last", BigInteger, nullable=False),
)
"""Up to where an epoch counts, by the association's word. What lies beyond was taken in before, stays in the log, and is shown to
nobody."""


@dataclass(frozen=True)
class Pin:
    """A town's key, and the last place it may sign for; no place means that it still counts."""

    public: bytes
    ends: tuple[str, int] | None = None


class Pins:
    """The keys of some towns, looked up once for a batch."""

    def __init__(
        self,
        keys: Mapping[tuple[str, str], Pin],
        numbers: Mapping[tuple[str, str], int],
        cuts: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        self._keys, self.numbers, self._cuts = dict(keys), dict(numbers), dict(cuts or {})

    def key_for(self, town: str, key_id: str, epoch: str, seq: int, *, hears_all: bool = False) -> bytes | None:
        """The public key that may sign this place; None when there is none, or when it ended before it.

        A key may have ended in an epoch that is unknown here. For a town that reads the feed this place then comes before it. The
        hub `hears_all`: it knew that epoch once, lost its logs, and must not believe the key in any other.
        """
        found = self._keys.get((town, key_id))
        if found is None or not found.public:
            return None
        if found.ends is None or (found.ends[0] == epoch and seq <= found.ends[1]):
            return found.public
        here, end = self.numbers.get((town, epoch)), self.numbers.get((town, found.ends[0]))
        if end is None:  # "none" comes before everything
            return found.public if found.ends[0] != NEVER and not hears_all else None
        return found.public if here is not None and here < end else None

    def knows(self, town: str) -> bool:
        """Whether any key of this town was ever pinned."""
        return any(whose == town for whose, _ in self._keys)

    def has_ended(self, town: str, key_id: str) -> bool:
        """Whether this key is known, and counts up to some place only."""
        found = self._keys.get((town, key_id))
        return found is not None and found.ends is not None

    def end_of(self, town: str, key_id: str) -> tuple[str, int] | None:
        """The last place that this key may sign; None while it has no end, or is unknown."""
        found = self._keys.get((town, key_id))
        return found.ends if found else None

    def counts_to(self, town: str, epoch: str) -> int | None:
        """The last place of this epoch that counts, by the association's word; None when it said nothing of it."""
        return self._cuts.get((town, epoch))

    def ending_after(self, town: str, epoch: str, last: int) -> list[str]:
        """The short names of the keys that count beyond this place of an epoch that is known, or still count."""
        here = (self.numbers.get((town, epoch), 0), last)

        def ends(held: Pin) -> tuple[float, int]:
            if held.ends is None:
                return (float("inf"), 0)
            return (-1, 0) if held.ends[0] == NEVER else (self.numbers.get((town, held.ends[0]), float("inf")), held.ends[1])

        return [key_id for (whose, key_id), held in self._keys.items() if whose == town and ends(held) > here]

    def public_of(self, town: str, key_id: str) -> bytes | None:
        """This key of the town, whether it has ended or not; None if it was never pinned."""
        found = self._keys.get((town, key_id))
        return found.public if found else None

    def keys_of(self, town: str) -> list[bytes]:
        """The keys that still count."""
        return [held.public for (whose, _), held in self._keys.items() if whose == town and held.ends is None]

    def ended_keys_of(self, town: str) -> list[bytes]:
        """The keys that counted once."""
        return [held.public for (whose, _), held in self._keys.items() if whose == town and held.ends is not None and held.public]

    def number_of(self, town: str, epoch: str) -> int | None:
        """Where this epoch stands in the town's order; None if it is unknown."""
        return self.numbers.get((town, epoch))


def read_pins(session: Session, towns: Iterable[str]) -> Pins:
    """Everything that is known about the keys and the epochs of these towns."""
    wanted = sorted(set(towns))
    keys = {
        (row.town, row.key_id): Pin(bytes(row.public_key), (row.ends_epoch, row.ends_seq) if row.ends_epoch else None)
        for row in session.execute(select(pin).where(pin.c.town.in_(wanted)))
    }
    numbers = {
        (row.town, row.epoch): row.number for row in session.execute(select(epoch_order).where(epoch_order.c.town.in_(wanted)))
    }
    cuts = {(row.town, row.epoch): row.last for row in session.execute(select(cut_off).where(cut_off.c.town.in_(wanted)))}
    return Pins(keys, numbers, cuts)


_HEARD_OF = func.length(pin.c.public_key) > 0


def pin_key(session: Session, town: str, public: bytes, now: datetime) -> bool:
    """Remember a town's first key. A different one later is refused here. Returns whether this very key is pinned."""
    key_id = key_id_of(public)
    held = session.execute(select(pin.c.key_id).where(pin.c.town == town, _HEARD_OF)).scalars().all()
    if not held:
        session.execute(pin.insert(), {"town": town, "key_id": key_id, "public_key": public, "pinned_at": now})
    return not held or key_id in held


def end_key(session: Session, town: str, key_id: str, epoch: str, last: int) -> None:
    """This key counts up to that place, and no further. An end that is already there is never moved on."""
    row = session.execute(select(pin).where(pin.c.town == town, pin.c.key_id == key_id)).first()
    if row is None or (
        row.ends_epoch is not None and place_of(session, town, row.ends_epoch, row.ends_seq) <= place_of(session, town, epoch, last)
    ):
        return
    session.execute(update(pin).where(pin.c.town == town, pin.c.key_id == key_id).values(ends_epoch=epoch, ends_seq=last))


def place_of(session: Session, town: str, epoch: str, seq: int) -> tuple[float, int]:
    """Something by which places of a town's log can be compared; an epoch that is unknown here is still to come."""
    if epoch == NEVER:
        return (-1, 0)
    number = session.scalar(select(epoch_order.c.number).where(epoch_order.c.town == town, epoch_order.c.epoch == epoch))
    return (float("inf") if number is None else number, seq)


def revoke_key(session: Session, town: str, key_id: str, epoch: str, last: int, now: datetime) -> None:
    """The association says that this key, and with it the town's word, counts up to that place and no further."""
    if session.execute(select(pin.c.key_id).where(pin.c.town == town, pin.c.key_id == key_id)).first() is None:
        unheard = {"town": town, "key_id": key_id, "public_key": b"", "pinned_at": now, "ends_epoch": epoch, "ends_seq": last}
        session.execute(pin.insert(), unheard)
    end_key(session, town, key_id, epoch, last)
    shorten(session, town, epoch, last)


def shorten(session: Session, town: str, epoch: str, last: int) -> None:
    """This epoch counts up to that place at most. A whole one (`WHOLE`) is not shortened."""
    here = cut_off.c.town == town, cut_off.c.epoch == epoch
    before = session.scalar(select(cut_off.c.last).where(*here))
    if epoch != NEVER and last < WHOLE and (before is None or before > last):
        upsert(session, cut_off, [{"town": town, "epoch": epoch, "last": last}])


def follow_key(session: Session, town: str, before: str, public: bytes, epoch: str, last: int, now: datetime) -> None:
    """A key named the one after it. That one counts as far as the first would have counted; nothing else changes."""
    held = session.execute(select(pin).where(pin.c.town == town, pin.c.key_id == before)).first()
    if held is None:
        return
    fresh = {"town": town, "key_id": key_id_of(public), "public_key": public, "pinned_at": now}
    here = pin.c.town == town, pin.c.key_id == fresh["key_id"]
    if session.execute(select(pin.c.key_id).where(*here)).first() is None:
        session.execute(pin.insert(), fresh | {"ends_epoch": held.ends_epoch, "ends_seq": held.ends_seq})
    else:
        session.execute(update(pin).where(*here, ~_HEARD_OF).values(public_key=public))  # its end was told first
    end_key(session, town, before, epoch, last)


def take_own_key(session: Session, town: str, public: bytes, now: datetime) -> None:
    """On the town's own node: it speaks with this key from now on, whatever was known of it before."""
    row = {"town": town, "key_id": key_id_of(public), "public_key": public, "pinned_at": now, "ends_epoch": None, "ends_seq": None}
    upsert(session, pin, [row])


def replace_keys(session: Session, town: str, public: bytes, epoch: str, last: int, now: datetime) -> None:
    """The association says that the town speaks with another key, in another epoch: every key before it ends at that place.

    A key that is pinned already was heard of before, and others may have come after it: then no key changes.
    """
    shorten(session, town, epoch, last)
    fresh = {"town": town, "key_id": key_id_of(public), "public_key": public, "pinned_at": now}
    if session.execute(select(pin.c.key_id).where(pin.c.town == town, pin.c.key_id == fresh["key_id"])).first() is not None:
        return
    for (key_id,) in session.execute(select(pin.c.key_id).where(pin.c.town == town, pin.c.ends_epoch.is_(None))).all():
        end_key(session, town, key_id, epoch, last)
    session.execute(pin.insert(), fresh)


def rotation_proof(town: str, epoch: str, seq: int, prevhash: bytes) -> bytes:
    """What the new key signs to prove that it is there, and at which place: nobody can show it elsewhere."""
    return f"{town}\n{epoch}\n{seq}\n".encode() + prevhash


def proven(entry: Entry, happened: KeyRotated) -> bytes | None:
    """The new public key, if this `key.rotated` is proven with it at its very place; else None."""
    says = entry.says
    try:
        public, proof = from_text(happened.public_key, 32), from_text(happened.proof, 64)
    except ValueError:
        return None
    place = rotation_proof(says.town, says.epoch, says.seq, says.prevhash)
    return public if happened.key_id == key_id_of(public) and verified(public, proof, ROTATES, place) else None


def rotated(key_id: str, public: bytes, proof: bytes) -> KeyRotated:
    """The event that names the new key."""
    return KeyRotated(key_id=key_id, public_key=to_text(public), proof=to_text(proof))


def note_epoch(session: Session, town: str, epoch: str, number: int, now: datetime, settled: int | None) -> None:
    """This epoch is there, at this place in the town's order."""
    row = {"town": town, "epoch": epoch, "number": number, "opened_at": now, "settled": settled}
    upsert(session, epoch_order, [row])


def settle_epoch(session: Session, town: str, epoch: str, seq: int) -> None:
    """The town has told everything again: from now on this epoch counts."""
    session.execute(
        update(epoch_order)
        .where(epoch_order.c.town == town, epoch_order.c.epoch == epoch, epoch_order.c.settled.is_(None))
        .values(settled=seq)
    )

"""How a town joins (R32, design §4): the association makes a town and hands over one code; the node proves that it holds its key.

A code works once, for thirty days, and is kept as a hash only. Asking again with the same code and the same key gives the same
answer, so a node whose first answer was lost simply asks again.

A code may be overheard, so whoever shows one only **waits at the door**: its key is written down and counts nowhere yet, the node
is told so when it calls, and publishes nothing. Both sides show the key's short name; somebody of the association compares them
by telephone and lets the town in (`let_in`), or gives another code. `town.admitted` in the association's own log then tells the
others. A town made at the command line is let in at once: whoever sits there has the node before their eyes.

A town that lost its disk, and with it its key, gets a code for the same short name (`readmit_town`). It joins anew with another
key; `town.readmitted` says up to which place of its log the old key counts, and the node gets its public state back from here. That
settles which node speaks for the town: a town that stood still goes on, and the new epoch is not too soon after the last.
How a town's word ends otherwise stands in `parting.py`.

Tables: `town`.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Boolean, String, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from shared.db import Base
from shared.eventlog import append, open_epoch, read_head
from shared.events import Event, KeyRevoked, KeyRotated, TownAdmitted, TownReadmitted
from shared.heads import thaw
from shared.inbox import KOEPEL, inbox, inbox_cursor
from shared.keys import from_text, key_id_of, to_text, verified
from shared.language import N_, Words
from shared.pins import NEVER, WHOLE, cut_off, pin, pin_key, place_of, read_pins, replace_keys
from shared.refusals import NotFound, Refusal

PROOF = b"join1"
"""What the signature of a joining town is made for: over code (capitals and digits only) ‖ public key."""
CODE_LASTS = timedelta(days=30)
_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
"""Without what is easily misread."""


class TownExists(Refusal):
    """The slug is taken."""

    text = N_("There is a town with this short name already.")

    def __init__(self) -> None:
        super().__init__(fields={"slug": Words(self.text)})


class BadSlug(Refusal):
    """The slug cannot be used on the bus (RabbitMQ expands it in permissions unescaped)."""

    def __init__(self) -> None:
        super().__init__(fields={"slug": Words(self.text)})

    status, text = 422, N_("A short name has 2 to 30 letters a-z, digits or hyphens, and begins with a letter.")


class TownJoined(Refusal):
    """A new code would let a second node speak for the town."""

    text = N_("This town has joined already. If its node lost everything, give it a code to join anew.")


class CodeUnknown(Refusal):
    """No such code, or it has expired, or another key used it. One answer for all three: it must not help guessing."""

    status, text = 403, N_("This code does not work (any more). Ask the association for a new one.")


class NobodyWaits(Refusal):
    """No node waits for this town, or not with the key that was looked at."""

    text = N_("No node waits with this key (any more). Look at the town again.")


class Town(Base):
    """A town that may join, or has joined."""

    __tablename__ = "town"
    slug: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(160))
    code_hash: Mapped[str] = mapped_column(String(64), unique=True)
    code_until: Mapped[datetime]
    made_at: Mapped[datetime]
    vouched: Mapped[bool] = mapped_column(Boolean, default=True)
    """Whoever shows its code is let in at once."""
    asked_at: Mapped[datetime | None]
    asked_key: Mapped[str | None] = mapped_column(String(64))
    """The public key that the present code was used with, and when."""
    joined_at: Mapped[datetime | None]
    key_id: Mapped[str | None] = mapped_column(String(40))
    anew: Mapped[bool] = mapped_column(Boolean, default=False)
    """The present code is for a town that lost its key: it may come in with another one."""
    left_at: Mapped[datetime | None]

    @property
    def asking(self) -> str | None:
        """The short name of the key that waits at the door; None when nobody does."""
        key_id = key_id_of(from_text(self.asked_key, 32)) if self.asked_key else None
        return key_id if key_id != self.key_id else None

    def code_works(self, now: datetime) -> bool:
        """Whether a node may still come with the present code."""
        return self.asked_key is None and now <= self.code_until and (self.joined_at is None or self.anew)

    def ask(self, public: bytes, now: datetime) -> None:
        """A node shows the code and this key. Refuses another key than the first, and a code that expired."""
        if self.asked_key == to_text(public):
            return
        if not self.code_works(now):
            raise CodeUnknown
        self.asked_at, self.asked_key = now, to_text(public)

    def admit(self, now: datetime) -> TownAdmitted:
        """Let in the node that waits. Refuses when there is none."""
        if self.asking is None or self.asked_key is None:
            raise NobodyWaits
        self.joined_at, self.key_id, self.left_at = self.joined_at or now, self.asking, None
        return TownAdmitted(town=self.slug, name=self.name, key_id=self.key_id, public_key=self.asked_key)


def add_town(session: Session, slug: str, name: str, now: datetime, *, vouched: bool = True) -> str:
    """Make a town and its joining code; the code is shown once. Raises `BadSlug` or `TownExists`.

    `vouched`: who shows the code is let in at once.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,29}", slug) or slug == KOEPEL:
        raise BadSlug
    if session.get(Town, slug) is not None:
        raise TownExists
    code = _new_code()
    made = {"code_hash": _hash(code), "code_until": now + CODE_LASTS, "made_at": now, "vouched": vouched}
    session.add(Town(slug=slug, name=name, **made))
    return code


def renew_code(session: Session, slug: str, now: datetime, *, vouched: bool = True) -> str:
    """Another code, when the first was lost, has expired, or was used by a stranger, who then waits no longer.

    Raises `NotFound`, or `TownJoined`: then it is too late for one.
    """
    town = find_town(session, slug)
    if town.joined_at is not None:
        raise TownJoined
    return _give_code(town, now, vouched=vouched)


def is_open(session: Session, slug: str, code: str, now: datetime) -> bool:
    """Whether this is the town's present code, and no node has used it yet."""
    town = session.get(Town, slug)
    return town is not None and town.code_hash == _hash(code) and town.code_works(now)


def readmit_town(session: Session, slug: str, now: datetime, *, vouched: bool = True) -> str:
    """A code with which a town that lost its node, or had left, joins anew, under another key.

    The old key counts until it does. Raises `NotFound`.
    """
    town = find_town(session, slug)
    town.anew = town.joined_at is not None
    return _give_code(town, now, vouched=vouched)


def find_town(session: Session, slug: str) -> Town:
    """The town, locked until the transaction ends. Raises `NotFound`."""
    town = session.get(Town, slug, with_for_update=True) if slug.isprintable() else None
    if town is None:
        raise NotFound
    return town


def _give_code(town: Town, now: datetime, *, vouched: bool) -> str:
    code = _new_code()
    town.code_hash, town.code_until, town.vouched = _hash(code), now + CODE_LASTS, vouched
    town.asked_at = town.asked_key = None
    return code


def end_codes(session: Session, now: datetime) -> None:
    """No code that was given works any more. Who waits at the door with one goes on waiting."""
    session.execute(update(Town).where(Town.code_until > now).values(code_until=now))


def join_town(session: Session, code: str, public_key: str, proof: str, now: datetime) -> Town:
    """A node shows its code and proves its key; then it waits, or is let in. Raises `CodeUnknown`."""
    town = session.query(Town).filter_by(code_hash=_hash(code)).with_for_update().one_or_none()
    try:
        public, signature = from_text(public_key, 32), from_text(proof, 64)
    except ValueError:
        raise CodeUnknown from None
    if town is None or not verified(public, signature, PROOF, _plain(code).encode() + public):
        raise CodeUnknown
    key_id = key_id_of(public)
    if town.key_id != key_id and read_pins(session, [town.slug]).public_of(town.slug, key_id) is not None:
        raise CodeUnknown  # it was this town's key once: a key that ended never counts again
    town.ask(public, now)
    if town.vouched and town.asking is not None:
        _let_in(session, town, now)
    return town


def let_in(session: Session, slug: str, key_id: str, now: datetime) -> None:
    """The association compared the short name of the waiting key by telephone, and it is this one. Raises `NobodyWaits`."""
    town = find_town(session, slug)
    if town.asking is None or town.asking != key_id:
        raise NobodyWaits
    _let_in(session, town, now)


def _let_in(session: Session, town: Town, now: datetime) -> None:
    """From here on the key counts, and the others hear of it."""
    was_in = town.joined_at is not None
    admitted = town.admit(now)
    public = from_text(admitted.public_key, 32)
    if was_in:
        epoch, last = held_place(session, town.slug)
        replace_keys(session, town.slug, public, epoch, last, now)
        thaw(session, town.slug, now)
        key = {"key_id": admitted.key_id, "public_key": admitted.public_key}
        append(session, TownReadmitted(town=town.slug, name=town.name, **key, epoch=epoch, last=last))
    else:
        pin_key(session, town.slug, public, now)
        append(session, admitted)


def held_place(session: Session, slug: str) -> tuple[str, int]:
    """The last place that is held of a town's log; locked, so that nothing comes in beyond it while its key changes."""
    held = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == slug).with_for_update()).first()
    return (held.epoch, held.seq) if held is not None and held.epoch else ("none", 0)


def waits_with(session: Session, slug: str, says: bytes, signature: bytes, context: bytes) -> bool:
    """Whether these bytes are signed with the key that waits at this town's door: that node may know that it waits."""
    town = session.get(Town, slug) if slug.isprintable() else None
    return town is not None and town.asking is not None and verified(from_text(town.asked_key, 32), signature, context, says)


def retell_towns(session: Session, today: date) -> Iterator[Event]:
    """Every town that joined, with its keys as they came, and where each ended by the association's word.

    So the association tells everything again. Whoever read some of it learns the rest; for whoever read all of it nothing changes.
    """
    for town in session.scalars(select(Town).where(Town.joined_at.is_not(None)).order_by(Town.slug)):
        yield from _retell_keys(session, town)


def _retell_keys(session: Session, town: Town) -> Iterator[Event]:
    cuts = dict(session.execute(select(cut_off.c.epoch, cut_off.c.last).where(cut_off.c.town == town.slug)).all())
    keys = sorted(session.execute(select(pin).where(pin.c.town == town.slug)), key=lambda key: _came(session, key))
    named = set(session.scalars(select(inbox.c.subject).where(inbox.c.town == town.slug, inbox.c.type == KeyRotated.wire)))
    heard = [key for key in keys if key.public_key]  # of the others nothing is known but that they ended
    for before, key in zip([None, *heard], heard, strict=False):
        if before is None:
            yield _admitted(town, bytes(key.public_key))
        elif key.key_id not in named:  # else the town's own log says it
            epoch, last = before.ends_epoch or NEVER, before.ends_seq or 0
            if epoch != NEVER and cuts.get(epoch) != last:
                last = WHOLE  # the key before it named it in words that are lost here: what came after those counts too
            admitted = _admitted(town, bytes(key.public_key))
            yield TownReadmitted(**asdict(admitted), epoch=epoch, last=last)
    revoked = [key for key in keys if key.ends_epoch and (key.ends_epoch == NEVER or cuts.get(key.ends_epoch) == key.ends_seq)]
    if town.left_at is not None:  # here its key may end where this copy's log does; what other towns hold of it goes on counting
        revoked = [key for key in keys if key in revoked or key.ends_epoch in cuts]
    said = {(key.ends_epoch, cuts.get(key.ends_epoch, key.ends_seq)) for key in revoked}
    for key in revoked:
        last = cuts.get(key.ends_epoch, key.ends_seq)
        yield KeyRevoked(town=town.slug, key_id=key.key_id, epoch=key.ends_epoch, last=last)
    for place in sorted(cuts.items()):
        if revoked and place not in said:
            yield KeyRevoked(town=town.slug, key_id=revoked[-1].key_id, epoch=place[0], last=place[1])


def _came(session: Session, key: Any) -> tuple[Any, ...]:
    """The order in which a town's keys came is the one in which they ended."""
    end = place_of(session, key.town, key.ends_epoch, key.ends_seq) if key.ends_epoch else (float("inf"), WHOLE)
    return *end, key.pinned_at, key.key_id


def _admitted(town: Town, public: bytes) -> TownAdmitted:
    return TownAdmitted(town=town.slug, name=town.name, key_id=key_id_of(public), public_key=to_text(public))


def found_association(session: Session) -> None:
    """At the first start: open the association's own log and pin its key, so that its inbox believes it."""
    author = session.info["author"]
    if read_head(session) is None:
        open_epoch(session, author)
        pin_key(session, KOEPEL, author.key.public, author.now())


def _new_code() -> str:
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4))


def _plain(code: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", code.upper())


def _hash(code: str) -> str:
    return hashlib.sha256(_plain(code).encode()).hexdigest()

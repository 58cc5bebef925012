"""How a town joins (R32, design §4): the association makes a town and hands over one code; the node proves that it holds its key.

A code works once, for thirty days, and is kept as a hash only. Asking again with the same code and the same key gives the same
answer, so a node whose first answer was lost simply asks again. `town.admitted` in the association's own log tells the others.

A town that lost its disk, and with it its key, gets a code for the same short name (`readmit_town`). It joins anew with another
key; `town.readmitted` says up to which place of its log the old key counts, and the node gets its public state back from here.

Tables: `town`.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator
from datetime import date, datetime, timedelta

from sqlalchemy import Boolean, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from shared.db import Base
from shared.eventlog import append, open_epoch, read_head
from shared.events import Event, TownAdmitted, TownReadmitted
from shared.inbox import KOEPEL, inbox_cursor
from shared.keys import from_text, key_id_of, to_text, verified
from shared.language import N_, Words
from shared.pins import pin_key, read_pins, replace_keys
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


class Town(Base):
    """A town that may join, or has joined."""

    __tablename__ = "town"
    slug: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(160))
    code_hash: Mapped[str] = mapped_column(String(64), unique=True)
    code_until: Mapped[datetime]
    made_at: Mapped[datetime]
    joined_at: Mapped[datetime | None]
    key_id: Mapped[str | None] = mapped_column(String(40))
    anew: Mapped[bool] = mapped_column(Boolean, default=False)
    """The present code is for a town that lost its key: it may come in with another one."""
    left_at: Mapped[datetime | None]

    def admit(self, public: bytes, now: datetime) -> TownAdmitted | None:
        """Let the town in with this key; None when it is in already. Refuses another key, and a code that expired."""
        key_id = key_id_of(public)
        if self.joined_at is not None and self.key_id == key_id:
            return None
        if now > self.code_until or (self.joined_at is not None and not self.anew):
            raise CodeUnknown
        self.joined_at, self.key_id = self.joined_at or now, key_id
        return TownAdmitted(town=self.slug, name=self.name, key_id=key_id, public_key=to_text(public))


def add_town(session: Session, slug: str, name: str, now: datetime) -> str:
    """Make a town and its joining code; the code is shown once. Raises `BadSlug` or `TownExists`."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,29}", slug) or slug == KOEPEL:
        raise BadSlug
    if session.get(Town, slug) is not None:
        raise TownExists
    code = _new_code()
    session.add(Town(slug=slug, name=name, code_hash=_hash(code), code_until=now + CODE_LASTS, made_at=now))
    return code


def renew_code(session: Session, slug: str, now: datetime) -> str:
    """Another code, when the first was lost or has expired. Raises `NotFound`, or `TownJoined`: then it is too late for one."""
    town = session.get(Town, slug)
    if town is None:
        raise NotFound
    if town.joined_at is not None:
        raise TownJoined
    return _give_code(town, now)


def readmit_town(session: Session, slug: str, now: datetime) -> str:
    """A code with which a town that lost its node joins anew, under another key.

    The old key counts until it does. Raises `NotFound`.
    """
    town = session.get(Town, slug)
    if town is None:
        raise NotFound
    town.anew = town.joined_at is not None
    return _give_code(town, now)


def _give_code(town: Town, now: datetime) -> str:
    code = _new_code()
    town.code_hash, town.code_until = _hash(code), now + CODE_LASTS
    return code


def join_town(session: Session, code: str, public_key: str, proof: str, now: datetime) -> Town:
    """A node shows its code and proves its key. Raises `CodeUnknown`."""
    town = session.query(Town).filter_by(code_hash=_hash(code)).with_for_update().one_or_none()
    try:
        public, signature = from_text(public_key, 32), from_text(proof, 64)
    except ValueError:
        raise CodeUnknown from None
    if town is None or not verified(public, signature, PROOF, _plain(code).encode() + public):
        raise CodeUnknown
    was_in = town.joined_at is not None
    admitted = town.admit(public, now)
    if admitted is not None and was_in:
        held = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == town.slug)).first()
        epoch, last = (held.epoch, held.seq) if held is not None and held.epoch else ("none", 0)
        replace_keys(session, town.slug, public, epoch, last, now)
        key = {"key_id": admitted.key_id, "public_key": admitted.public_key}
        append(session, TownReadmitted(town=town.slug, name=town.name, **key, epoch=epoch, last=last))
    elif admitted is not None:
        pin_key(session, town.slug, public, now)
        append(session, admitted)
    return town


def retell_towns(session: Session, today: date) -> Iterator[Event]:
    """Every town that joined, with the key that counts now; how the association tells everything again."""
    pins = read_pins(session, session.scalars(select(Town.slug)).all())
    for town in session.scalars(select(Town).where(Town.joined_at.is_not(None)).order_by(Town.slug)):
        for public in pins.keys_of(town.slug):
            yield TownAdmitted(town=town.slug, name=town.name, key_id=key_id_of(public), public_key=to_text(public))


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

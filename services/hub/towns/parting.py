"""How a town's word ends: a key in wrong hands, a town that leaves, and what is erased for a town that is gone (design §4).

**Revoking.** A key ends at a place of the town's log, never at a time: what it signed up to there stays, what it signs beyond
reaches neither log nor cursor, here and at every town that has read `key.revoked`. Here the end holds at once, in the transaction
that tells it. The place is what is held now, or an earlier one; what is held beyond that stays in the log, counts for nothing, and
is shown nowhere any more (`shared/pins.py`, `cut_off`). The town joins anew with a code (`joining.readmit_town`).

**Leaving.** The town's key ends, its row says since when, and what it shared stays or is erased, as the town says. What it told
before is taken; what comes after that, such as a goodbye that its node says when it goes, is passed over: nobody has to decide.

**Erasing.** A town erases by itself. For one that is gone the association does: `redacted` in the association's own log holds for
every town's log. Because of that a subject of which another log speaks too is left alone: it may have been copied on purpose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Select, delete, exists, func, select
from sqlalchemy.orm import Session

from services.hub.towns.joining import Town, find_town, held_place
from services.hub.towns.sync import sync_of_towns
from shared.envelope import read_event, stored_entry
from shared.erasure import redact
from shared.eventlog import append
from shared.events import EpochOpened, EpochSettled, KeyRevoked, KeyRotated, Redacted
from shared.heads import known_head
from shared.inbox import EVERYWHERE, inbox
from shared.language import N_, Words
from shared.pins import epoch_order, read_pins, revoke_key
from shared.refusals import NotFound, Refusal

Forgets = Literal["nothing", "lessons", "everything"]
"""What is erased of a town that leaves."""
_ABOUT_THE_LOG = [cls.wire for cls in (EpochOpened, EpochSettled, KeyRotated, KeyRevoked, Redacted)]
_LESSONS = "nl.tuinkoepel.lesson.%"


class NoKey(Refusal):
    """There is nothing to revoke."""

    text = N_("This town has no key that counts.")


class NotHeld(Refusal):
    """A key cannot end where the log has not come yet: that would let its holder go on."""

    status, text = 422, N_("Write a number from 0 to %(held)s: the events that are held now.")

    def __init__(self, held: int) -> None:
        super().__init__(held=held, fields={"last": Words(self.text, {"held": held})})


class HasLeft(Refusal):
    """It was marked before."""

    text = N_("This town has left already.")


class StillSpeaks(Refusal):
    """The town can erase by itself, and the association is not its censor."""

    text = N_("This town is still there. Ask its facilitator: it can erase this on its own node, and then it is erased everywhere.")


@dataclass(frozen=True)
class Run:
    """A run of numbers of a town's log: its epoch, since when it is known, and how far it goes."""

    epoch: str
    opened_at: datetime
    held: int


def runs_of(session: Session, slug: str) -> list[Run]:
    """The town's runs of numbers, the present one last."""
    held = select(inbox.c.epoch, func.max(inbox.c.seq).label("held")).where(inbox.c.town == slug).group_by(inbox.c.epoch).subquery()
    query = select(epoch_order.c.epoch, epoch_order.c.opened_at, held.c.held).join(held, held.c.epoch == epoch_order.c.epoch)
    return [Run(*row) for row in session.execute(query.where(epoch_order.c.town == slug).order_by(epoch_order.c.number))]


@dataclass(frozen=True)
class Spoken:
    """An event as whoever revokes a key has to recognise it: its number and run, the time it claims, what it is about."""

    epoch: str
    seq: int
    at: datetime
    kind: str
    title: str


def read_latest(session: Session, slug: str, limit: int = 20) -> list[Spoken]:
    """What the town told last, the latest first."""
    of = inbox.c
    rows = session.execute(
        select(of.type, of.header, of.hash, of.signature, of.salt, of.body)
        .join(epoch_order, (epoch_order.c.town == of.town) & (epoch_order.c.epoch == of.epoch))
        .where(of.town == slug)
        .order_by(epoch_order.c.number.desc(), of.seq.desc())
        .limit(limit)
    )
    latest = []
    for kind, *parts in rows:
        says = stored_entry(*parts).says
        what = kind.removeprefix("nl.tuinkoepel.").partition(".")[0]
        latest.append(Spoken(says.epoch, says.seq, datetime.fromisoformat(says.time), what, _title(parts)))
    return latest


def revoke_keys(session: Session, slug: str, now: datetime, last: int | None = None, epoch: str | None = None) -> None:
    """The town's keys count up to this place of this epoch, and no further; in what is not named, up to what is held now.

    A key that has ended already can end earlier. Raises `NotFound`, `NoKey`, `NotHeld`.
    """
    find_town(session, slug)
    present, held = held_place(session, slug)
    runs = runs_of(session, slug) or [Run(present, now, held)]
    at = next((nth for nth, run in enumerate(runs) if run.epoch == epoch), len(runs) - 1)
    if last is not None and not 0 <= last <= runs[at].held:
        raise NotHeld(runs[at].held)
    place = runs[at].epoch, runs[at].held if last is None else last
    keys = read_pins(session, [slug]).ending_after(slug, *place)
    if not keys:
        raise NoKey
    for cut_epoch, cut_at in (place, *((later.epoch, 0) for later in runs[at + 1 :])):
        for key_id in keys:
            revoke_key(session, slug, key_id, cut_epoch, cut_at, now)
        for key_id in keys:
            append(session, KeyRevoked(town=slug, key_id=key_id, epoch=cut_epoch, last=cut_at))


def leave(session: Session, slug: str, forgets: Forgets, now: datetime) -> int:
    """The town leaves the association; returns how many things it had told are erased. Raises `NotFound`, `HasLeft`."""
    town = find_town(session, slug)
    if town.left_at is not None:
        raise HasLeft
    town.left_at, town.code_until = now, min(now, town.code_until)
    # It will not call again: nobody may wait for it to read an erasure.
    session.execute(delete(known_head).where(known_head.c.town == slug))
    if read_pins(session, [slug]).keys_of(slug):
        revoke_keys(session, slug, now)
    subjects: Sequence[str] = []
    if forgets != "nothing":
        subjects = session.scalars(_own_subjects(slug, "%" if forgets == "everything" else _LESSONS)).all()
    for subject in subjects:
        redact(session, EVERYWHERE, subject)
    return len(subjects)


def has_left(session: Session, slug: str) -> bool:
    """Whether the town is marked as one that left, and has not come back."""
    town = session.get(Town, slug)
    return town is not None and town.left_at is not None


# ---- Erasing for a town that is gone ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """Something a town told about, as its last event says. `kind` is the first word of its type."""

    subject: str
    kind: str
    title: str


def _own_subjects(slug: str, types: str = "%") -> Select[tuple[str]]:
    """What this town told about, and nobody else, as far as a body of it is left."""
    other = inbox.alias("other")
    shared = exists().where(other.c.subject == inbox.c.subject, other.c.town != slug)
    return (
        select(inbox.c.subject)
        .where(inbox.c.town == slug, inbox.c.type.like(types), inbox.c.type.not_in(_ABOUT_THE_LOG), inbox.c.body.is_not(None))
        .where(~shared)
        .group_by(inbox.c.subject)
        .order_by(inbox.c.subject)
    )


def count_told(session: Session, slug: str) -> int:
    """How many things there are that could be erased for this town."""
    return session.scalar(select(func.count()).select_from(_own_subjects(slug).subquery())) or 0


def read_told(session: Session, slug: str, limit: int, offset: int = 0) -> list[Told]:
    """Those things, with the last that was said of each."""
    subjects = session.scalars(_own_subjects(slug).limit(limit).offset(offset)).all()
    of = inbox.c
    rows = session.execute(
        select(of.subject, of.type, of.header, of.hash, of.signature, of.salt, of.body)
        .outerjoin(epoch_order, (epoch_order.c.town == of.town) & (epoch_order.c.epoch == of.epoch))
        .where(of.town == slug, of.subject.in_(subjects), of.body.is_not(None))
        .order_by(epoch_order.c.number, of.seq)
    )
    told: dict[str, Told] = {}
    for subject, kind, *parts in rows:
        before = told.get(subject)
        title = _title(parts) or (before.title if before else "")
        told[subject] = Told(subject, kind.removeprefix("nl.tuinkoepel.").partition(".")[0], title)
    return [told[subject] for subject in subjects]


def _title(parts: Sequence[Any]) -> str:
    """What an entry calls its thing; nothing when it is a tombstone, or cannot be read here."""
    try:
        happened = read_event(stored_entry(*parts))
    except ValueError:
        return ""
    return str(getattr(happened, "title", "") or getattr(happened, "name", ""))


def erase_for_town(session: Session, slug: str, subject: str, now: datetime) -> None:
    """Erase everywhere what a town that is gone told about this. Raises `NotFound`, `StillSpeaks`."""
    states = sync_of_towns(session, [slug]) if slug.isprintable() else []
    if not states or not subject.isprintable():
        raise NotFound
    if not states[0].is_gone(now):
        raise StillSpeaks
    if session.scalar(_own_subjects(slug).where(inbox.c.subject == subject)) is None:
        raise NotFound
    redact(session, EVERYWHERE, subject)

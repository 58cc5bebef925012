"""The town's membership of the association: how the node joins it, and under which name and key it speaks.

The private key is made and safely on disk before the association hears of it, and it never goes into the database. If the answer to
a joining call is lost, calling again with the same code gives the same answer. A circle may work alone for as long as it likes:
when it joins, its log begins with its whole public state.

A circle that left comes back with a code of the association (`hub town readmit`): its log goes on in a new epoch, under a new key,
with everything told anew. Its people and all it kept to itself are still there.

A new key is on the disk before the log names it, beside the old one, which is kept until the association has heard of the change.

Tables: `membership` (one row).
"""

import contextlib
import fcntl
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
import urllib3
from sqlalchemy import BigInteger, Integer, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from services.town_node.circle.model import Circle
from services.town_node.config import Settings, utc_now
from shared.db import Base, Database
from shared.doorbell import Doorbell
from shared.envelope import is_name
from shared.erasure import ErasureList
from shared.eventlog import Author, append, change_key, lock_head, read_head, read_log
from shared.heads import AT_DOOR, calling_keys, note_door, received_head
from shared.inbox import KOEPEL
from shared.keys import KeyPair, from_text, keep_key, load_key, to_text
from shared.language import N_
from shared.observability import failpoint
from shared.pins import ROTATES, pin, pin_key, rotated, rotation_proof, take_own_key
from shared.refusals import Refusal
from shared.restore import Slice, begin_epoch, note_setback, set_back
from shared.serving import BUS_ADDRESS

PROOF = b"join1"
SHORT_NAME = 4
"""Signs of a key's short name that stand together."""
KEY, NEXT_KEY, PREVIOUS_KEY = "town.key", "town.next.key", "town.previous.key"
TIMEOUT = urllib3.Timeout(connect=5.0, read=20.0)


class HubAway(Refusal):
    """The hub does not answer."""

    status, text = 503, N_("The association does not answer at %(url)s. Is the address right? You can try again later.")


class NoHub(Refusal):
    """Something answers there, and not as a hub does."""

    status, text = 502, N_("What answers at %(url)s is not the page of an association. Is the address right?")


class CodeRefused(Refusal):
    """The hub does not accept the code."""

    status, text = 403, N_("The association does not accept this code. Ask for a new one.")


class JoinedAlready(Refusal):
    """This node is a member already."""

    text = N_("This node has joined already, as %(town)s.")


class NotMember(Refusal):
    """Only who has joined has a key that others know."""

    text = N_("This node has not joined the association yet.")


class NotNow(Refusal):
    """Two changes of the key at once could leave nobody who knows which one counts."""

    text = N_("The last change is still on its way to the association. Please try again when it has heard of it.")


class KeyGone(Refusal):
    """Without its key the node cannot speak for the town, and must not pretend that it never joined."""

    status = 503
    text = N_(
        "The key file %(path)s is gone. Put it back from your backup. Is it lost? Ask the association for a code to join anew."
    )


class Membership(Base):
    """What the association told when this node joined."""

    __tablename__ = "membership"
    one: Mapped[int] = mapped_column(Integer, primary_key=True)
    town: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(160))
    association: Mapped[str] = mapped_column(String(160))
    hub_url: Mapped[str] = mapped_column(String(300))
    hub_key: Mapped[str] = mapped_column(String(64))
    bus_url: Mapped[str] = mapped_column(String(500))
    left_at: Mapped[datetime | None]
    """When the circle said that it leaves."""
    left_seq: Mapped[int | None] = mapped_column(BigInteger)
    """The place in the log of its goodbye; nothing beyond goes out."""


def membership(session: Session) -> Membership | None:
    """The membership, if this node has joined."""
    return session.get(Membership, 1)


def open_node(settings: Settings) -> Database:
    """The node's database; once joined, with the town as the author of its log."""
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(settings.database_url)
    database.after_append = doorbell(settings).ring
    become_author(settings, database)
    return database


def doorbell(settings: Settings) -> Doorbell:
    """What wakes the worker after a commit."""
    return Doorbell(settings.state / "relay.bell")


def become_author(settings: Settings, database: Database) -> Author | None:
    """Let this process write the log, if the node has joined. Raises `KeyGone`."""
    seen = _key_seen(settings)  # before the keys are read, so that a change while they are is noticed later
    key = load_key(settings.state / KEY)
    with database.reading() as session:
        joined, head = membership(session), read_head(session)
    if joined is None:
        return None
    fresh = load_key(settings.state / NEXT_KEY)
    if fresh is not None and head is not None and head.key_id == fresh.key_id:  # a rotation was committed, and then cut off
        key = _take_up_next_key(settings)
    if key is None:
        raise KeyGone(path=settings.state / KEY)
    if head is not None and head.key_id != key.key_id:
        key = _notice_older_log(settings, database) or key
    author = Author(joined.town, key, utc_now, secrets.token_bytes, load_key(settings.state / PREVIOUS_KEY))
    database.info |= {"author": author, "key_seen": seen}
    return author


def keep_author(settings: Settings, database: Database) -> None:
    """Notice that another process of this node joined, or changed the key; a look at one file. Raises `KeyGone`."""
    # While a next key lies there, somebody is changing the key, or died at it: then no file tells when the log names it.
    if database.info.get("key_seen") != _key_seen(settings) or (settings.state / NEXT_KEY).exists():
        become_author(settings, database)


def _key_seen(settings: Settings) -> int | None:
    try:
        return (settings.state / KEY).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _notice_older_log(settings: Settings, database: Database) -> KeyPair | None:
    """The present key, looked at again behind the log's lock: another process may just have changed it.

    If it still is not the log's, the log was put back. Then it is written on with the present key, and nothing is published (I14).
    """
    with database.transaction() as session:
        last = lock_head(session)
        key, fresh = load_key(settings.state / KEY), load_key(settings.state / NEXT_KEY)
        if last is not None and key is not None and last.key_id not in {one.key_id for one in (key, fresh) if one is not None}:
            change_key(session, key.key_id)
            note_setback(session, "sidecar", utc_now())
    return key


def rotate_key(settings: Settings, database: Database) -> str:
    """Sign with another key from now on; its short name. The association and the towns hear of it as of anything else.

    One change at a time: the next waits until the association has heard of the last, and a log that was put back is whole again.
    Raises `NotMember` or `NotNow`.
    """
    author = become_author(settings, database)
    if author is None:
        raise NotMember
    with database.reading() as session:
        if set_back(session) is not None or calling_keys(session, author)[0].key_id != author.key.key_id:
            raise NotNow
    (settings.state / NEXT_KEY).unlink(missing_ok=True)  # one that no log ever named
    fresh = keep_key(settings.state / NEXT_KEY, secrets.token_bytes(32))
    failpoint("rotation.keyed")
    with database.transaction() as session:
        last = lock_head(session)
        if last is None:
            raise NotMember
        name_key(session, author, fresh)
    failpoint("rotation.told")
    _take_up_next_key(settings)
    become_author(settings, database)
    return fresh.key_id


def name_key(session: Session, author: Author, fresh: KeyPair) -> None:
    """Say in the log, signed by the author's key and proven with the fresh one, that this one signs from the next entry on.

    Where the author's key ends, this node heeds once the association holds that place (`restore.note_heard`).
    """
    last = lock_head(session)
    if last is None:
        raise NotMember
    place = rotation_proof(author.town, last.epoch, last.seq + 1, last.hash)
    append(session, rotated(fresh.key_id, fresh.public, fresh.sign(ROTATES, place)))
    take_own_key(session, author.town, fresh.public, author.now())
    change_key(session, fresh.key_id)


def _take_up_next_key(settings: Settings) -> KeyPair | None:
    """The next key becomes the present one, and the present one the previous.

    Harmless when it was done halfway, or by another process at the same time; and at no moment is there no key.
    """
    present, fresh = settings.state / KEY, settings.state / NEXT_KEY
    with (settings.state / "town.key.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if fresh.exists():
            if present.exists():
                spare = present.with_suffix(".spare")
                spare.unlink(missing_ok=True)
                spare.hardlink_to(present)
                spare.replace(settings.state / PREVIOUS_KEY)
            fresh.replace(present)
    return load_key(present)


def present_key(session: Session, settings: Settings) -> tuple[str, datetime | None] | None:
    """The short name of the key that signs for this town now, and since when others count it, if they do; None while alone."""
    joined, key = membership(session), load_key(settings.state / KEY)
    if joined is None or key is None:
        return None
    counts = select(pin.c.pinned_at).where(pin.c.town == joined.town, pin.c.key_id == key.key_id, pin.c.ends_epoch.is_(None))
    return key.key_id, session.scalar(counts)


def spelled(key_id: str) -> str:
    """A key's short name in groups, as the association's pages show it: town and association compare it by telephone."""
    return " ".join(key_id[start : start + SHORT_NAME] for start in range(0, len(key_id), SHORT_NAME))


def erasures(settings: Settings) -> ErasureList:
    """The erasures, in a file that does not belong into the database's backup."""
    return ErasureList(settings.state / "erasures")


def join_association(
    settings: Settings, database: Database, hub_url: str, code: str, slices: Sequence[Slice], *, again: bool = False
) -> Membership:
    """Join with a code, and begin the log with everything the circle has to tell. Raises `HubAway`, `NoHub`, `CodeRefused` or
    `JoinedAlready`.

    A town that joins anew waits with that: its public state comes back from the association first (`shared/restore.py`). One that
    had left has everything here. `again`: a node that still has its log, and whose key is lost, stolen or not known there any more,
    takes another one.
    """
    with database.reading() as session:
        joined = membership(session)
        at_door = session.scalar(select(received_head.c.trouble)) == AT_DOOR
    returns = joined is not None and joined.left_at is not None
    if joined is not None and not again and not returns:
        raise JoinedAlready(town=joined.name)
    if joined is not None and not returns:
        with contextlib.suppress(KeyGone):
            become_author(settings, database)  # if it died at a change of keys, that is finished first
    is_first = joined is None or (at_door and not returns)  # else the key it had counts no longer, or not for long
    path = settings.state / (KEY if is_first else NEXT_KEY)
    key = load_key(path) or keep_key(path, secrets.token_bytes(32))
    failpoint("join.keyed")
    told = _call_hub(hub_url.rstrip("/"), code, key)
    failpoint("join.answered")
    with database.transaction() as session:
        joined = membership(session)
        if joined is not None and (joined.town != told["town"] or returns != (joined.left_at is not None)):
            raise JoinedAlready(town=joined.name)
        if joined is None:
            joined = Membership(one=1, town=told["town"])
            session.add(joined)
        joined.name, joined.association, joined.hub_url = told["name"], told["association"], hub_url.rstrip("/")
        joined.hub_key, joined.bus_url = told["hub_key"], told["bus"]
        pin_key(session, KOEPEL, from_text(told["hub_key"], 32), utc_now())
        author = session.info["author"] = Author(joined.town, key, utc_now, secrets.token_bytes)
        note_door(session, utc_now(), AT_DOOR if told.get("let_in") is False else "")
        if returns:
            _take_part_again(session, joined, author, slices)
        if not told["anew"]:  # else the association's log tells it, or the coming back
            pin_key(session, joined.town, key.public, utc_now())
        elif not returns:
            change_key(session, key.key_id)
            note_setback(session, "lost", utc_now())
        if read_head(session) is None and not told["anew"]:
            begin_epoch(session, author, None, slices, first=True)
    failpoint("join.joined")
    database.info["author"] = author
    if path.name == NEXT_KEY:
        _take_up_next_key(settings)
    if returns:
        (settings.state / PREVIOUS_KEY).unlink(missing_ok=True)  # nobody is called with it any more
        become_author(settings, database)
    return joined


def _take_part_again(session: Session, joined: Membership, author: Author, slices: Sequence[Slice]) -> None:
    """Take back the goodbye and tell everything anew, but for what was erased with it. The key with which it left signs no more."""
    last, circle = lock_head(session), session.scalar(select(Circle))
    goodbye = read_log(session, last.epoch, last.seq - 1, 1) if last else []
    joined.left_at = joined.left_seq = None
    if circle is not None:
        circle.status = "active"
    begin_epoch(session, author, goodbye[0] if goodbye else None, slices)


def _call_hub(hub_url: str, code: str, key: KeyPair) -> dict[str, Any]:
    plain = "".join(letter for letter in code.upper() if letter.isalnum())
    body = {
        "code": code,
        "public_key": to_text(key.public),
        "proof": to_text(key.sign(PROOF, plain.encode() + key.public)),
    }
    try:
        answer = urllib3.request(
            "POST", f"{hub_url}/federation/v1/join", json=body, timeout=TIMEOUT, retries=False, preload_content=False
        )
        said = answer.read(_WELCOME_MAX)
        answer.close()
    except urllib3.exceptions.HTTPError as error:
        raise HubAway(url=hub_url) from error
    if answer.status == 403:  # HTTP's own number
        raise CodeRefused
    if answer.status in {429, 502, 503}:
        raise HubAway(url=hub_url)
    told = _welcome(said) if answer.status == 200 else None
    if told is None:
        raise NoHub(url=hub_url)
    return told


_WELCOME_MAX = 16_384
"""Bytes of the longest answer to a joining call that is read."""
_LONGEST = {"town": 40, "name": 160, "association": 160, "hub_key": 64, "bus": 500}
"""Characters, as the columns hold them."""


def _welcome(said: bytes) -> dict[str, Any] | None:
    """What the association answers to a joining call; None when this is no such answer."""
    try:
        told = orjson.loads(said)
        from_text(told["hub_key"], 32)
        BUS_ADDRESS(told["bus"])
        sound = type(told["anew"]) is bool and is_name(told["town"]) and told["town"] != KOEPEL
        fits = all(0 < len(told[name]) <= longest and told[name].isprintable() for name, longest in _LONGEST.items())
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return dict(told) if sound and fits else None

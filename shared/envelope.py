"""How an event is wrapped, sealed, packed into a message and opened again (design §4, Header and Message).

An **entry** is one place `(town, epoch, seq)` in a log: a header, a signature, a salt and a body. The header names CloudEvents
1.0 attributes; its **exact bytes** are stored, sent and verified, and never written out again from what was read, because two JSON
writers seldom agree to the byte. It holds

    payloadhash = SHA-256(salt ‖ body)      so that a body can be erased and the chain still verifies
    prevhash    = the hash of the entry before it, 64 zeros before the first
    hash        = SHA-256("hdr1" ‖ header)  which the town signs

A **message** is a run of consecutive entries of one epoch under one key. Its receiver recomputes the chain and verifies the last
signature only: that one vouches for all before it, at 3 µs an event instead of 90 (`limits.md` A4).

Nothing here touches a database or a network; all of it reads bytes from strangers, so every check names its reason.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from shared.events import Event, Misfit, event_class, from_body, to_body
from shared.keys import KeyPair, from_text, to_text, verified

BODY_MAX = 64 * 1024
"""Longest body in bytes; `eventlog.append` refuses more, so that no valid chain can ever stick."""
HEADER_MAX = 2048
MESSAGE_MAX = 1024 * 1024
MESSAGE_EVENTS_MAX = 500
HASH_LENGTH, SALT_LENGTH, SIGNATURE_LENGTH = 32, 32, 64
NO_HASH = bytes(HASH_LENGTH)
"""What the first entry of an epoch names as the hash before it."""
SIGNS_EVENT = b"event1"


class Malformed(ValueError):  # noqa: N818  # named for its reason
    """These bytes are no valid message or entry; the text says why, for a log."""


class BodyTooLong(ValueError):  # noqa: N818  # named for its reason
    """The event's body is longer than `BODY_MAX`."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says. `time` is the town's claim, in UTC, and never a reason to refuse (design §4)."""

    type: str
    subject: str
    time: str
    town: str
    epoch: str
    seq: int
    prevhash: bytes
    payloadhash: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One place in a log, sealed. `salt` and `body` are None once erased."""

    header: bytes
    says: Header
    hash: bytes
    signature: bytes
    salt: bytes | None
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Message:
    """A run of consecutive entries, its inner chain already checked."""

    town: str
    epoch: str
    key_id: str
    entries: Sequence[Entry]


# ---- Sealing ---------------------------------------------------------------------------------------------------------------


def seal(happened: Event, *, town: str, epoch: str, seq: int, prevhash: bytes, key: KeyPair, now: datetime, salt: bytes) -> Entry:
    """Wrap and sign an event for its place. Raises `Misfit` or `BodyTooLong` for what every receiver would refuse."""
    body = orjson.dumps(to_body(happened))
    if len(body) > BODY_MAX:
        raise BodyTooLong(len(body))
    says = Header(
        type=happened.wire,
        subject=happened.subject,
        time=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        town=town,
        epoch=epoch,
        seq=seq,
        prevhash=prevhash,
        payloadhash=_payload_hash(salt, body),
        key_id=key.key_id,
    )
    header = _write_header(says)
    hashed = header_hash(header)
    return Entry(header, says, hashed, key.sign(SIGNS_EVENT, hashed), salt, body)


def _write_header(says: Header) -> bytes:
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": f"{says.epoch}.{says.seq}",
            "source": f"/towns/{says.town}",
            "type": says.type,
            "time": says.time,
            "subject": says.subject,
            "dataschema": f"/schemas/{says.type}",
            "town": says.town,
            "epoch": says.epoch,
            "sequence": says.seq,
            "prevhash": says.prevhash.hex(),
            "payloadhash": says.payloadhash.hex(),
            "keyid": says.key_id,
        }
    )


def header_hash(header: bytes) -> bytes:
    """SHA-256 over the header's exact bytes, behind a word of its own."""
    return hashlib.sha256(b"hdr1" + header).digest()


def _payload_hash(salt: bytes, body: bytes) -> bytes:
    return hashlib.sha256(salt + body).digest()


# ---- Opening ---------------------------------------------------------------------------------------------------------------


def open_entry(header: bytes, signature: bytes, salt: bytes | None, body: bytes | None) -> Entry:
    """An entry from its parts. Checks its form and that the body is the one the header names; not the signature."""
    says = _read_header(header)
    if (salt is None) != (body is None):
        msg = "salt and body go together"
        raise Malformed(msg)
    if salt is not None and body is not None:
        if len(body) > BODY_MAX:
            msg = "body too long"
            raise Malformed(msg)
        if _payload_hash(salt, body) != says.payloadhash:
            msg = "body is not the one its header names"
            raise Malformed(msg)
    return Entry(header, says, header_hash(header), signature, salt, body)


_WORDS = (
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "subject",
    "dataschema",
    "town",
    "epoch",
    "prevhash",
    "payloadhash",
    "keyid",
)


def _read_header(header: bytes) -> Header:
    if len(header) > HEADER_MAX or not header.isascii():
        msg = "header too long, or not ASCII"
        raise Malformed(msg)
    says = _json(header, "header")
    for word in _WORDS:
        value = says.get(word)
        if type(value) is not str or not value.isascii() or not value.isprintable():  # PostgreSQL refuses a NUL in a text
            msg = f"header without {word}"
            raise Malformed(msg)
    seq = says.get("sequence")
    if type(seq) is not int or not 1 <= seq < 2**53:
        msg = "header without sequence"
        raise Malformed(msg)
    if says["specversion"] != "1.0":
        msg = "unknown specversion"
        raise Malformed(msg)
    if not is_name(says["town"]) or not is_name(says["epoch"]) or not is_name(says["keyid"]):
        msg = "header with a bad town, epoch or keyid"
        raise Malformed(msg)
    if says["source"] != f"/towns/{says['town']}" or says["id"] != f"{says['epoch']}.{seq}":
        msg = "header with a source or id of another place"
        raise Malformed(msg)
    return _header_from(says)


def _header_from(says: dict[str, Any]) -> Header:
    return Header(
        type=says["type"],
        subject=says["subject"],
        time=says["time"],
        town=says["town"],
        epoch=says["epoch"],
        seq=says["sequence"],
        prevhash=_hash(says["prevhash"]),
        payloadhash=_hash(says["payloadhash"]),
        key_id=says["keyid"],
    )


def stored_entry(header: bytes, hashed: bytes, signature: bytes, salt: bytes | None, body: bytes | None) -> Entry:
    """An entry out of our own inbox: read again, not checked again. That saves two thirds of `open_entry`.

    It was opened and verified in the transaction that stored it. Whoever could change the row since could change the tables folded
    from it just as well, so hashing it again would protect nothing; and it does not travel on the strength of it: forwarding
    verifies the signature over `hashed`, and every node opens and verifies for itself what the feed brings.
    """
    return Entry(header, _header_from(_json(header, "header")), hashed, signature, salt, body)


def is_name(text: Any) -> bool:
    """Whether this can be the name of a town, an epoch, a key or a feed."""
    return (
        isinstance(text, str)
        and 2 <= len(text) <= 40
        and text.isascii()
        and text.replace("-", "").isalnum()
        and text == text.lower()
    )  # the slug's rule


def _hash(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != HASH_LENGTH:
        msg = "header with a bad hash"
        raise Malformed(msg)
    return raw


def _json(raw: bytes, what: str) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        msg = f"{what} is no JSON"
        raise Malformed(msg) from error
    if type(value) is not dict:
        msg = f"{what} is no JSON object"
        raise Malformed(msg)
    return value


def signed_by(entry: Entry, public: bytes) -> bool:
    """Whether the holder of this key signed the entry."""
    return verified(public, entry.signature, SIGNS_EVENT, entry.hash)


# ---- Messages --------------------------------------------------------------------------------------------------------------


def to_json(entry: Entry) -> dict[str, Any]:
    """An entry as it travels, in a message or on a feed page."""
    parts: dict[str, Any] = {"header": entry.header.decode("ascii"), "signature": to_text(entry.signature)}
    if entry.body is None or entry.salt is None:
        return parts | {"erased": True}
    return parts | {"salt": to_text(entry.salt), "body": entry.body.decode()}


def from_json(parts: Any) -> Entry:
    """An entry that travelled. Raises `Malformed`."""
    if type(parts) is not dict or type(parts.get("header")) is not str:
        msg = "entry without header"
        raise Malformed(msg)
    try:
        header = parts["header"].encode("ascii")
        signature = from_text(parts.get("signature"), SIGNATURE_LENGTH)
        if parts.get("erased") is True:
            return open_entry(header, signature, None, None)
        if type(parts.get("body")) is not str:
            msg = "entry without body"
            raise Malformed(msg)
        return open_entry(header, signature, from_text(parts.get("salt"), SALT_LENGTH), parts["body"].encode())
    except UnicodeEncodeError as error:
        msg = "text that is no Unicode"
        raise Malformed(msg) from error
    except Malformed:
        raise
    except ValueError as error:
        msg = "bad signature or salt text"
        raise Malformed(msg) from error


def pack(entries: Sequence[Entry]) -> tuple[bytes, int]:
    """A message of as many of these consecutive entries as fit; the bytes, and how many. Takes at least one."""
    first, size = entries[0].says, 200
    parts: list[orjson.Fragment] = []
    for entry in entries[:MESSAGE_EVENTS_MAX]:
        part = orjson.dumps(to_json(entry))
        size += len(part) + 1
        if parts and (size > MESSAGE_MAX or entry.says.key_id != first.key_id or entry.says.epoch != first.epoch):
            break
        parts.append(orjson.Fragment(part))
    last = entries[len(parts) - 1].says
    message = {"v": 1, "town": first.town, "epoch": first.epoch, "from": first.seq, "to": last.seq, "events": parts}
    return orjson.dumps(message), len(parts)


def unpack(raw: bytes) -> Message:
    """A message with its inner chain verified (its signature is not: that needs the town's key). Raises `Malformed`."""
    if len(raw) > MESSAGE_MAX:
        msg = "message too long"
        raise Malformed(msg)
    says = _json(raw, "message")
    parts = says.get("events")
    if says.get("v") != 1 or type(parts) is not list or not 1 <= len(parts) <= MESSAGE_EVENTS_MAX:
        msg = "not a message of version 1 with 1 to 500 events"
        raise Malformed(msg)
    entries = [from_json(part) for part in parts]
    first = entries[0].says
    town, epoch, key_id = first.town, first.epoch, first.key_id
    if (says.get("town"), says.get("epoch"), says.get("from"), says.get("to")) != (
        town,
        epoch,
        first.seq,
        entries[-1].says.seq,
    ):
        msg = "the message says another place than its events"
        raise Malformed(msg)
    for before, entry in itertools.pairwise(entries):
        here = entry.says
        if (here.town, here.epoch, here.key_id, here.seq) != (town, epoch, key_id, before.says.seq + 1):
            msg = "events that do not follow one another"
            raise Malformed(msg)
        if here.prevhash != before.hash:
            msg = "broken chain"
            raise Malformed(msg)
    return Message(town, epoch, key_id, entries)


def read_event(entry: Entry) -> Event | None:
    """What happened; None when it was erased, or when this release does not know the type. Raises `Misfit`."""
    known = event_class(entry.says.type)
    if known is None or entry.body is None:
        return None
    cls, version = known
    try:
        body = orjson.loads(entry.body)
    except orjson.JSONDecodeError as error:
        field, expected = "body", "JSON"
        raise Misfit(field, expected) from error
    happened: Event = from_body(cls, body, version)
    if happened.subject != entry.says.subject:
        raise Misfit(cls.about, "the subject that the header names")
    return happened

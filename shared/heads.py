"""The head exchange: how a town and the association find out what is missing (design §4).

The node calls over HTTPS and says, signed, how far its log goes and how far its relay came; the hub answers, signed over the
node's nonce, how far it holds that log. This one call is heartbeat, proof of what was received, lost-tail detection (a hole can
be seen in the middle of a log, never at its end) and gap repair: `want_from` rewinds the relay.

The hub asks for a repeat only when its ingest saw a gap, or when two heads in a row say the same `sent` beyond what is held and
ingest found its queue empty **between** them: a hub worker that is merely off must not make every town send its backlog again. (A
sign of life from before the first head proves nothing: the worker may have died since, with the messages waiting on the bus.)

Each call uses up a challenge that the hub gave before, so an old call shown again says nothing (stale → 409 and a fresh one).

Tables: `known_head` (hub: what each town said last, and its challenge), `ingest_pulse` (hub), `received_head` (node: what the
association holds).
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import BigInteger, Boolean, Column, Integer, String, Table, select
from sqlalchemy.orm import Session

from shared.db import Base, Database, Moment, upsert
from shared.eventlog import Author, read_head
from shared.inbox import inbox_cursor, pinned_keys
from shared.keys import from_text, to_text, verified
from shared.relay import position, rewind

ASKS, ANSWERS = b"heads1", b"heads1-answer"
"""What the two signatures are made for."""

known_head = Table(
    "known_head",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("instance", String(40), nullable=False),
    Column("epoch", String(40), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("sent", BigInteger, nullable=False),
    Column("feed_cursor", BigInteger, nullable=False),
    Column("challenge", String(64), nullable=False),
    Column("called_at", Moment),
)
ingest_pulse = Table(
    "ingest_pulse",
    Base.metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seen_at", Moment, nullable=False),
    Column("empty", Boolean, nullable=False),
)
received_head = Table(
    "received_head",
    Base.metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("cursor", BigInteger, nullable=False),
    Column("answered_at", Moment, nullable=False),
    Column("challenge", String(64), nullable=False),
)


class NotAuthentic(Exception):  # noqa: N818  # named for its reason
    """The call or the answer is not signed by whom it names, or is no call at all."""


@dataclass(frozen=True)
class Call:
    """What a node says. `sent` is its relay's position; `feed` how far it read the hub's feed."""

    town: str
    instance: str
    epoch: str
    seq: int
    hash: str
    sent: int
    feed_id: str
    feed_cursor: int
    challenge: str
    nonce: str


@dataclass(frozen=True)
class Answer:
    """What the hub says. `cursor` is the last place it holds; `want_from` asks for a repeat from there."""

    status: str
    cursor: int
    want_from: int | None
    feed_id: str
    feed_head: int
    challenge: str


# ---- The node's end --------------------------------------------------------------------------------------------------------


def ask(session: Session, author: Author, instance: str, feed: tuple[str, int]) -> tuple[bytes, bytes, str]:
    """The call to make now: its body, its signature, and the nonce the answer must be signed over."""
    last = read_head(session)
    epoch, seq, hashed = (last.epoch, last.seq, last.hash.hex()) if last else ("", 0, "")
    challenge = session.scalar(select(received_head.c.challenge)) or ""
    nonce = author.randomness(16).hex()
    sent = position(session, epoch)
    call = Call(author.town, instance, epoch, seq, hashed, sent, *feed, challenge, nonce)
    body = orjson.dumps(asdict(call))
    return body, author.key.sign(ASKS, body), nonce


def hear(database: Database, body: bytes, signature: str, nonce: str, hub_key: bytes, now: datetime) -> Answer:
    """Believe the hub's answer: note what it holds, and rewind the relay if it misses something. Raises `NotAuthentic`."""
    if not _signed(hub_key, signature, ANSWERS, nonce.encode() + body):
        raise NotAuthentic
    answer: Answer = _read(Answer, body)
    with database.transaction() as session:
        cursor = answer.cursor
        if answer.status != "ok":
            cursor = session.scalar(select(received_head.c.cursor)) or 0
        upsert(session, received_head, [{"id": 1, "cursor": cursor, "answered_at": now, "challenge": answer.challenge}])
        last = read_head(session)
        if last is not None and answer.want_from is not None and answer.want_from >= 1:
            rewind(session, last.epoch, answer.want_from)
    return answer


# ---- The hub's end ---------------------------------------------------------------------------------------------------------


def show_pulse(session: Session, now: datetime, *, empty: bool) -> None:
    """Ingest is alive, and its queue is empty or not."""
    upsert(session, ingest_pulse, [{"id": 1, "seen_at": now, "empty": empty}])


def answer_call(
    session: Session, author: Author, body: bytes, signature: str, feed: tuple[str, int], now: datetime, challenge: str
) -> tuple[bytes, bytes, bool]:
    """Answer a node: body, signature, and whether its challenge was fresh. Raises `NotAuthentic`. `challenge` is the next one."""
    call = _read(Call, body)
    keys = pinned_keys(session, [call.town])
    if not any(_signed(key, signature, ASKS, body) for key in keys.values()):
        raise NotAuthentic
    before = session.execute(select(known_head).where(known_head.c.town == call.town).with_for_update()).first()
    fresh = before is not None and bool(before.challenge) and before.challenge == call.challenge
    held = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == call.town)).first()
    cursor = held.seq if held is not None and held.epoch == call.epoch else 0
    want_from = _wanted(session, call, before, held, cursor) if fresh else None
    row = {
        "town": call.town, "instance": call.instance, "epoch": call.epoch, "seq": call.seq, "sent": call.sent,
        "feed_cursor": call.feed_cursor, "challenge": challenge, "called_at": now,
    }  # fmt: skip
    if not fresh:  # an old call shown again may not change what is known, but for the challenge
        kept = dict(before._mapping) if before is not None else row | {"seq": 0, "sent": -1, "called_at": None}  # noqa: SLF001  # SQLAlchemy's public name
        row = kept | {"challenge": challenge}
    upsert(session, known_head, [row])
    answer = Answer("ok" if fresh else "stale", cursor, want_from, *feed, challenge)
    said = orjson.dumps(asdict(answer))
    return said, author.key.sign(ANSWERS, call.nonce.encode() + said), fresh


def _wanted(session: Session, call: Call, before: Any, held: Any, cursor: int) -> int | None:
    """From where the town should send again, if anything is known to be missing."""
    if call.sent <= cursor:
        return None
    if held is not None and held.gap_at is not None:
        return cursor + 1
    if before is None or before.called_at is None or (before.epoch, before.sent) != (call.epoch, call.sent):
        return None
    pulse = session.execute(select(ingest_pulse)).first()
    return cursor + 1 if pulse is not None and pulse.empty and pulse.seen_at >= before.called_at else None


def _signed(key: bytes, signature: str, context: bytes, message: bytes) -> bool:
    try:
        return verified(key, from_text(signature, 64), context, message)
    except ValueError:
        return False


def _read(cls: Any, body: bytes) -> Any:
    try:
        says = orjson.loads(body)
        made = cls(**{name: says[name] for name in cls.__dataclass_fields__})
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise NotAuthentic from error
    for name, field in cls.__dataclass_fields__.items():
        value = getattr(made, name)
        wanted = (int,) if field.type is int else (str,) if field.type is str else (int, type(None))
        if type(value) not in wanted or not _is_sane(value):
            raise NotAuthentic
    return made


def _is_sane(value: object) -> bool:
    return (
        len(value) <= 128 if isinstance(value, str) else value is None or (isinstance(value, int) and -1 <= value < 2**53)
    )  # no field of a call is longer


def signature_text(raw: bytes) -> str:
    """A signature as it stands in the `Tuinkoepel-Signature` header."""
    return to_text(raw)

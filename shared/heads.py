"""The head exchange: how a town and the association find out what is missing (design §4).

The node calls over HTTPS and says, signed, how far its log goes and how far its relay came; the hub answers, signed over the
node's nonce, how far it holds that log, and shows the last entry it holds. This one call is heartbeat, proof of what was received,
lost-tail detection (a hole can be seen in the middle of a log, never at its end), gap repair (`want_from` rewinds the relay), and
detection of a log that was put back or runs twice.

The hub asks for a repeat only when its ingest saw a gap, or when two heads in a row say the same `sent` beyond what is held and
ingest found its queue empty **between** them: a hub worker that is merely off must not make every town send its backlog again. (A
sign of life from before the first head proves nothing: the worker may have died since, with the messages on the bus.) And it asks
`REPEATS_MAX` towns at a time: a hub that lost its log would otherwise have all of them at once.

Each call uses up a challenge that the hub gave before, so an old call shown again says nothing (stale → 409 and a fresh one).
`instance` is random per start of a worker: when an earlier one calls after a later one, the node runs twice, and the town is frozen
until the association has decided (I15).

A node whose town was not let in yet has no key that counts, nor has one whose key was revoked. It is told so, signed as well
(`answer_without_key`): somebody has to act, and should not look for a fault in the line. Nothing hangs on it: the node shows it,
and goes on calling and holding back.

Tables: `known_head` (hub: what each town said last, and its challenge), `ingest_pulse` (hub), `received_head` (node: what the
association holds).
"""

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import JSON, BigInteger, Boolean, Column, Integer, String, Table, delete, func, select, update
from sqlalchemy.orm import Session

from shared.db import Base, Database, Moment, upsert
from shared.envelope import NO_HASH
from shared.eventlog import Author, read_head
from shared.feed import feed_head, fits, spread_of
from shared.inbox import freeze, inbox, inbox_cursor, thaw_log
from shared.keys import KeyPair, from_text, to_text, verified
from shared.pins import read_pins
from shared.quarantine import complaints_about
from shared.relay import position, rewind
from shared.restore import note_heard, note_setback, proves_setback
from shared.routes import partition_of

AT_DOOR = "at_door"
"""The status, and the trouble, of a node whose code and key are with the association, which has not let the town in yet."""
KEY_ENDED = "key_ended"
"""The same of a node whose key counted once, and counts no longer."""
WITHOUT_KEY = (AT_DOOR, KEY_ENDED)
ASKS, ANSWERS = b"heads1", b"heads1-answer"
"""What the two signatures are made for."""
REPEATS_MAX = 20
"""Towns that may be sending again at one time."""
REPEAT_LASTS = timedelta(minutes=2)
"""How long a town that was asked to send again counts among them."""
INSTANCES_KEPT = 50
ANSWER_MAX = 32 * 1024
"""Longest answer a node reads, in bytes."""

known_head = Table(
    "known_head",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("instance", String(40), nullable=False),
    Column("earlier", JSON, nullable=False),
    Column("epoch", String(40), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("sent", BigInteger, nullable=False),
    Column("feed_cursor", BigInteger, nullable=False),
    Column("challenge", String(64), nullable=False),
    Column("called_at", Moment),
    Column("asked_at", Moment),
    Column("behind_at", Moment),
)
"""`earlier`: the instances before the present one; `asked_at`: when it was last asked to send again; `behind_at`: since when each
call said more than was held."""
ingest_pulse = Table(
    "ingest_pulse",
    Base.metadata,
    Column("partitions", Integer, primary_key=True, autoincrement=False),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("seen_at", Moment, nullable=False),
    Column("empty", Boolean, nullable=False),
)
"""One row for each queue that ingest takes from; rows of another number of partitions are queues that must be emptied first."""
received_head = Table(
    "received_head",
    Base.metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", String(40), nullable=False),
    Column("cursor", BigInteger, nullable=False),
    Column("everywhere", BigInteger, nullable=False),
    Column("trouble", String(20), nullable=False),
    Column("complaints", JSON, nullable=False),
    Column("answered_at", Moment, nullable=False),
    Column("challenge", String(64), nullable=False),
)
"""`everywhere`: up to which place all other towns have it too; `trouble`: why the town is frozen, if it is, or one of
`WITHOUT_KEY`."""


class NotAuthentic(Exception):  # noqa: N818  # named for its reason
    """The call or the answer is not signed by whom it names, or is no call at all."""


@dataclass(frozen=True)
class Call:
    """What a node says. `sent` is its relay's position; `feed_…` how far it read the hub's feed."""

    town: str
    instance: str
    epoch: str
    seq: int
    hash: str
    sent: int
    feed_id: str
    feed_cursor: int
    feed_chain: str
    challenge: str
    nonce: str


@dataclass(frozen=True)
class Answer:
    """What the hub says.

    `status` is ok, stale (call again with this challenge), frozen or one of `WITHOUT_KEY`; `cursor` the last place of the call's
    epoch that it holds; `want_from` asks for a repeat from there; `header` and `signature` are the last entry it holds of this
    town, as proof; `quiet` says that nothing of this town can be under way on the bus any more: only then may a log that was put
    back go on. `everywhere` is the place up to which all other towns have pulled; `complaints` is what it had to refuse.
    """

    status: str
    cursor: int
    want_from: int | None
    feed_id: str
    feed_head: int
    challenge: str
    header: str = ""
    signature: str = ""
    quiet: bool = False
    trouble: str = ""
    everywhere: int = 0
    complaints: list[dict[str, Any]] = field(default_factory=list)


# ---- The node's end --------------------------------------------------------------------------------------------------------


def ask(
    session: Session, author: Author, instance: str, feed: tuple[str, int, str], key: KeyPair | None = None
) -> tuple[bytes, bytes, str]:
    """The call to make now: its body, its signature, and the nonce the answer must be signed over. `key`: one of `calling_keys`."""
    last = read_head(session)
    epoch, seq, hashed = (last.epoch, last.seq, last.hash.hex()) if last else ("", 0, NO_HASH.hex())
    challenge = session.scalar(select(received_head.c.challenge)) or ""
    nonce = author.randomness(16).hex()
    call = Call(author.town, instance, epoch, seq, hashed, position(session, epoch), *feed, challenge, nonce)
    body = orjson.dumps(asdict(call))
    return body, (key or author.key).sign(ASKS, body), nonce


def calling_keys(session: Session, author: Author) -> list[KeyPair]:
    """The keys to sign a call with, the likelier one first; the caller tries the next when the hub does not know one.

    After a rotation that is the previous key, until the association has shown that it holds the place where that one ended. A
    backup may be wrong about what was received, on either side, hence the second.
    """
    if author.previous is None:
        return [author.key]
    heard = read_pins(session, [author.town]).has_ended(author.town, author.previous.key_id)
    return [author.key, author.previous] if heard else [author.previous, author.key]


def hear(database: Database, author: Author, body: bytes, signature: str, nonce: str, hub_key: bytes, now: datetime) -> Answer:
    """Believe the hub's answer: note what it holds, rewind the relay if it misses something, and notice a log that was put back.

    Raises `NotAuthentic`.
    """
    if len(body) > ANSWER_MAX or not _signed(hub_key, signature, ANSWERS, nonce.encode() + body):
        raise NotAuthentic
    answer: Answer = _read(Answer, body)
    with database.transaction() as session:
        last = read_head(session)
        row = {
            "id": 1, "epoch": last.epoch if last else "", "cursor": answer.cursor, "everywhere": answer.everywhere,
            "trouble": answer.trouble[:20], "complaints": answer.complaints[:20], "answered_at": now, "challenge": answer.challenge,
        }  # fmt: skip
        if answer.status in WITHOUT_KEY:
            note_door(session, now, answer.status)
            return answer
        if answer.status == "stale":  # it says nothing but the next challenge
            before = session.execute(select(received_head)).first()
            row = dict(before._mapping) | {"challenge": answer.challenge} if before else row  # noqa: SLF001  # SQLAlchemy's public name
        upsert(session, received_head, [row])
        if answer.header and proves_setback(session, author, answer.header.encode(), _bytes(answer.signature)):
            note_setback(session, "hub", now)
            return answer
        if answer.header:
            note_heard(session, author, answer.header.encode())
        if last is not None and answer.want_from is not None and answer.want_from >= 1:
            rewind(session, last.epoch, answer.want_from)
    return answer


def note_door(session: Session, now: datetime, why: str) -> None:
    """Why this node's key does not count there (one of `WITHOUT_KEY`), or nothing. What was known to be held stays noted."""
    if not why:
        session.execute(delete(received_head).where(received_head.c.trouble.in_(WITHOUT_KEY)))
        return
    before = session.execute(select(received_head)).first()
    blank = {"id": 1, "epoch": "", "cursor": 0, "everywhere": 0, "complaints": [], "challenge": ""}
    row = dict(before._mapping) if before else blank  # noqa: SLF001  # SQLAlchemy's public name
    upsert(session, received_head, [row | {"trouble": why, "answered_at": now}])


# ---- The hub's end ---------------------------------------------------------------------------------------------------------


def show_pulse(session: Session, now: datetime, *, empty: bool, partition: int = 0, partitions: int = 1) -> None:
    """Ingest is alive, and its queue is empty or not."""
    upsert(session, ingest_pulse, [{"partitions": partitions, "partition": partition, "seen_at": now, "empty": empty}])


def former_partitions(session: Session, partitions: int) -> list[int]:
    """Other numbers of partitions there once were, whose queues may still hold something."""
    others = select(ingest_pulse.c.partitions).where(ingest_pulse.c.partitions != partitions)
    return sorted(set(session.scalars(others)))


def forget_partitions(session: Session, partitions: int) -> None:
    """The queues of this number of partitions are empty and gone."""
    session.execute(delete(ingest_pulse).where(ingest_pulse.c.partitions == partitions))


def answer_call(
    session: Session, author: Author, body: bytes, signature: str, feed: tuple[str, int], now: datetime, challenge: str
) -> tuple[bytes, bytes, bool]:
    """Answer a node: body, signature, and whether its challenge was fresh. Raises `NotAuthentic`. `challenge` is the next one."""
    call: Call = _read(Call, body)
    if not any(_signed(key, signature, ASKS, body) for key in read_pins(session, [call.town]).keys_of(call.town)):
        raise NotAuthentic
    before = session.execute(select(known_head).where(known_head.c.town == call.town).with_for_update()).first()
    fresh = before is not None and bool(before.challenge) and before.challenge == call.challenge
    answer = Answer("stale", 0, None, *feed, challenge)
    if fresh:
        row, answer = _heed(session, call, before, feed, now, challenge)
    else:  # an old call shown again may not change what is known, but for the challenge
        row = _row(call, "", [], challenge) | {"seq": 0, "sent": -1, "feed_cursor": 0}
        row = dict(before._mapping) | {"challenge": challenge} if before is not None else row  # noqa: SLF001  # SQLAlchemy's public name
    upsert(session, known_head, [row])
    said = orjson.dumps(asdict(answer))
    return said, author.key.sign(ANSWERS, call.nonce.encode() + said), fresh


def answer_without_key(session: Session, author: Author, body: bytes, signature: bytes, *, waits: bool) -> tuple[bytes, bytes]:
    """Tell a node why its key does not count: body and signature. Only who has such a key hears it. Raises `NotAuthentic`.

    `waits`: it was seen already that the key which waits at the door signed this.
    """
    call: Call = _read(Call, body)
    ended = read_pins(session, [call.town]).ended_keys_of(call.town)
    if not waits and not any(verified(key, signature, ASKS, body) for key in ended):
        raise NotAuthentic
    said = orjson.dumps(asdict(Answer(AT_DOOR if waits else KEY_ENDED, 0, None, "", 0, "")))
    return said, author.key.sign(ANSWERS, call.nonce.encode() + said)


def _heed(
    session: Session, call: Call, before: Any, feed: tuple[str, int], now: datetime, challenge: str
) -> tuple[dict[str, Any], Answer]:
    """What is known of the town after this call, and the answer to it."""
    earlier = list(before.earlier)
    if call.instance != before.instance:
        if call.instance in earlier:
            freeze(session, call.town, "two_copies", now)
            earlier.remove(call.instance)
        if before.instance:
            earlier = [before.instance, *earlier][:INSTANCES_KEPT]
    held = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == call.town)).first()
    cursor = held.seq if held is not None and held.epoch == call.epoch else 0
    frozen = held is not None and held.frozen_at is not None
    want_from = None if frozen else _wanted(session, call, before, held, cursor, now)
    header, signature = _last_entry(session, held)
    reached = call.feed_cursor if fits(session, call.feed_id, call.feed_cursor, call.feed_chain) else 0
    row = _row(call, call.instance, earlier, challenge) | {
        "called_at": now,
        "asked_at": now if want_from else before.asked_at,
        "feed_cursor": reached,
        "behind_at": (before.behind_at or now) if call.seq > cursor else None,
    }
    answer = Answer(
        status="frozen" if frozen else "ok",
        cursor=cursor,
        want_from=want_from,
        feed_id=feed[0],
        feed_head=feed[1],
        challenge=challenge,
        header=header,
        signature=signature,
        quiet=before.instance == call.instance and _was_empty_since(session, before),
        trouble=held.trouble if held is not None and frozen else "",
        everywhere=spread_of(session, call.town, call.epoch, cursor, _slowest(session, call.town)),
        complaints=complaints_about(session, call.town),
    )
    return row, answer


def thaw(session: Session, town: str, now: datetime) -> None:
    """The association has decided that one node speaks for this town.

    Whoever calls next is that node, if need be under a new epoch.
    """
    session.execute(update(known_head).where(known_head.c.town == town).values(instance="", earlier=[]))
    thaw_log(session, town)


def forget_reach(session: Session) -> None:
    """The feed began anew: nobody has read any of it."""
    session.execute(update(known_head).values(feed_cursor=0))


def _row(call: Call, instance: str, earlier: list[str], challenge: str) -> dict[str, Any]:
    return {
        "town": call.town, "instance": instance, "earlier": earlier, "epoch": call.epoch, "seq": call.seq, "sent": call.sent,
        "feed_cursor": call.feed_cursor, "challenge": challenge, "called_at": None, "asked_at": None,
        "behind_at": None,
    }  # fmt: skip


def _was_empty_since(session: Session, before: Any) -> bool:
    """Whether ingest has found the town's queue empty after its last call: what was sent before it has been taken, or lost."""
    pulses = session.execute(select(ingest_pulse)).all()
    if len({pulse.partitions for pulse in pulses}) != 1 or before.called_at is None:
        return False  # it has not begun, or the queues before these still hold something
    ours = [pulse for pulse in pulses if pulse.partition == partition_of(before.town, pulse.partitions)]
    return any(pulse.empty and pulse.seen_at >= before.called_at for pulse in ours)


def _slowest(session: Session, besides: str) -> int:
    """How far the slowest of the other towns has read the feed, by what it said last; to its end when there is no other town."""
    reached = session.scalar(select(func.min(known_head.c.feed_cursor)).where(known_head.c.town != besides))
    return feed_head(session)[1] if reached is None else reached


def _last_entry(session: Session, held: Any) -> tuple[str, str]:
    """The header and the signature of the last entry that is stored: the town's own word for where it was."""
    if held is None or held.seq == 0:
        return "", ""
    place = inbox.c.town == held.town, inbox.c.epoch == held.epoch, inbox.c.seq == held.seq
    row = session.execute(select(inbox.c.header, inbox.c.signature).where(*place)).first()
    return ("", "") if row is None else (bytes(row.header).decode(), to_text(bytes(row.signature)))


def _wanted(session: Session, call: Call, before: Any, held: Any, cursor: int, now: datetime) -> int | None:
    """From where the town should send again, if anything is known to be missing and not too many others do so already."""
    if call.sent <= cursor:
        return None
    seen_twice = (before.epoch, before.sent) == (call.epoch, call.sent) and _was_empty_since(session, before)
    if not seen_twice and (held is None or held.gap_at is None):
        return None
    busy = session.scalar(select(func.count()).where(known_head.c.asked_at > now - REPEAT_LASTS, known_head.c.town != call.town))
    return cursor + 1 if (busy or 0) < REPEATS_MAX else None


# ---- Bytes from the other side ---------------------------------------------------------------------------------------------


def _signed(key: bytes, signature: str, context: bytes, message: bytes) -> bool:
    return verified(key, _bytes(signature), context, message)


def _bytes(signature: str) -> bytes:
    try:
        return from_text(signature, 64)
    except ValueError:
        return b""


_KINDS: dict[Any, tuple[type, ...]] = {
    int: (int,),
    str: (str,),
    bool: (bool,),
    int | None: (int, type(None)),
    list[dict[str, Any]]: (list,),
}


def _read(cls: Any, body: bytes) -> Any:
    """A call or an answer from its bytes; members that are unknown here are passed over."""
    try:
        says = orjson.loads(body)
        made = cls(**{name: says[name] for name in cls.__dataclass_fields__})
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise NotAuthentic from error
    for name, one in cls.__dataclass_fields__.items():
        value = getattr(made, name)
        if type(value) not in _KINDS[one.type] or not _is_sane(name, value):
            raise NotAuthentic
    return made


_LONGEST = {"header": 2500, "signature": 100} | dict.fromkeys(("hash", "feed_chain", "challenge", "nonce"), 64)
"""Characters; every other text is a name of at most 40. PostgreSQL refuses what is longer than its column."""


def _is_sane(name: str, value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST.get(name, 40) and value.isprintable()
    if isinstance(value, list):
        return all(type(one) is dict for one in value)
    return value is None or (isinstance(value, int) and -1 <= value < 2**53)


def signature_text(raw: bytes) -> str:
    """A signature as it stands in the `Tuinkoepel-Signature` header."""
    return to_text(raw)

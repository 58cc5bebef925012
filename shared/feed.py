"""The feed: how what one town told reaches the other towns (design §4).

On the hub, an entry that may be forwarded gets a **national number**: gapless, from one row, locked last in its transaction. Before
that its own signature is verified, because a page shows entries without their neighbours. A town pulls pages from its cursor:
original headers, bodies and signatures, at most 500. What belongs to another audience is left out.

The feed has a random id and a chain: every number carries the hash of all before it. A node says where it is and which chain it saw
there; when the hub cannot confirm that, one of the two was put back from a backup, and the node reads again from 0 (accepting is
idempotent). A page also brings the association's own entries, which say whose key is whose; the node pins it.

Tables: `feed` (number → place), `feed_state` (id and last number, one row), `feed_cursor` (node).
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime

import orjson
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Table, UniqueConstraint, and_, func, select, update
from sqlalchemy.orm import Session

from shared.db import Base, upsert
from shared.envelope import Entry, Malformed, from_json, is_name, stored_entry, to_json
from shared.inbox import KOEPEL, accept_entries, inbox, speaks_of_erased
from shared.pins import read_pins
from shared.quarantine import quarantine_message

PAGE_MAX = 500
PAGE_BYTES_MAX = 2 * 1024 * 1024
PULLS = b"feed1"
"""What the signature on a pull is made for."""

feed = Table(
    "feed",
    Base.metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("town", String(40), nullable=False),
    Column("epoch", String(40), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    UniqueConstraint("town", "epoch", "seq"),
)
feed_state = Table(
    "feed_state",
    Base.metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("id", String(40), nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
)
feed_cursor = Table(
    "feed_cursor",
    Base.metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("id", String(40), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("chain", String(64), nullable=False),
)


# ---- The hub's end ---------------------------------------------------------------------------------------------------------


def number_entries(session: Session, entries: Sequence[Entry], fresh_id: str) -> int:
    """Give these entries the next national numbers; the last number. The lock is taken here, so call it last."""
    state = session.execute(select(feed_state).with_for_update()).first()
    last, chain = (state.last, bytes(state.chain)) if state else (0, b"")
    rows = []
    for entry in entries:
        last, chain = last + 1, hashlib.sha256(chain + entry.hash).digest()
        rows.append({"number": last, "town": entry.says.town, "epoch": entry.says.epoch, "seq": entry.says.seq, "chain": chain})
    if rows:
        session.execute(feed.insert(), rows)
    if state is None:
        session.execute(feed_state.insert(), {"one": 1, "id": fresh_id, "last": last, "chain": chain})
    elif rows:
        session.execute(update(feed_state).values(last=last, chain=chain))
    return int(last)


def renew_feed(session: Session, fresh_id: str) -> None:
    """The hub was put back: under a new id every town reads from the beginning again."""
    session.execute(update(feed_state).values(id=fresh_id))


def fits(session: Session, feed_id: str, cursor: int, chain: str) -> bool:
    """Whether a town's cursor is a place of this feed, as far as it has read."""
    return feed_id == feed_head(session)[0] and (cursor == 0 or _confirms(session, cursor, chain))


def _confirms(session: Session, cursor: int, chain: str) -> bool:
    held = session.scalar(select(feed.c.chain).where(feed.c.number == cursor))
    return held is not None and bytes(held).hex() == chain


def spread_of(session: Session, town: str, epoch: str, cursor: int, reached: int) -> int:
    """Up to which place of its log all other towns have a town's entries, when the slowest of them has read up to `reached`."""
    place = feed.c.town == town, feed.c.epoch == epoch
    unread = session.scalar(select(func.min(feed.c.seq)).where(*place, feed.c.number > reached))
    if unread is not None:
        return int(unread) - 1
    return min(cursor, session.scalar(select(func.max(feed.c.seq)).where(*place)) or 0)


def feed_head(session: Session) -> tuple[str, int]:
    """The feed's id and its last number; empty and 0 before the first."""
    state = session.execute(select(feed_state)).first()
    return (state.id, state.last) if state else ("", 0)


def read_page(session: Session, feed_id: str, after: int, chain: str) -> bytes:
    """The next page beyond `after`, as JSON; `again` when the town has to begin at 0, because its cursor does not fit."""
    held_id, last = feed_head(session)
    if after and (feed_id != held_id or not _confirms(session, after, chain)):
        return orjson.dumps({"v": 1, "id": held_id, "last": last, "items": [], "again": True})
    rows = session.execute(
        select(feed.c.number, feed.c.chain, inbox.c.header, inbox.c.hash, inbox.c.signature, inbox.c.salt, inbox.c.body)
        .join(inbox, and_(inbox.c.town == feed.c.town, inbox.c.epoch == feed.c.epoch, inbox.c.seq == feed.c.seq))
        .where(feed.c.number > after)
        .order_by(feed.c.number)
        .limit(PAGE_MAX)
    )
    items: list[orjson.Fragment] = []
    size = 0
    for number, chain_here, *parts in rows:
        item = orjson.dumps(to_json(stored_entry(*parts)) | {"number": number, "chain": bytes(chain_here).hex()})
        size += len(item)
        if items and size > PAGE_BYTES_MAX:
            break
        items.append(orjson.Fragment(item))
    return orjson.dumps({"v": 1, "id": held_id, "last": last, "items": items})


def read_tail(session: Session, town: str, epoch: str, after: int) -> bytes:
    """A town's own entries beyond a place, as far as they count, through to its later epochs, for a node that was put back.

    An empty epoch: from the first.
    """
    pins = read_pins(session, [town])
    epochs = sorted((number, here) for (_, here), number in pins.numbers.items())
    known = [here for _, here in epochs]
    start = known.index(epoch) if epoch in known else 0
    after = after if epoch in known else 0
    for here in known[start:]:
        counts_to = pins.counts_to(town, here)
        upto = () if counts_to is None else (inbox.c.seq <= counts_to,)
        rows = session.execute(
            select(inbox.c.header, inbox.c.hash, inbox.c.signature, inbox.c.salt, inbox.c.body)
            .where(inbox.c.town == town, inbox.c.epoch == here, inbox.c.seq > after, *upto)
            .order_by(inbox.c.seq)
            .limit(PAGE_MAX)
        )
        items = [to_json(stored_entry(*row)) for row in rows]
        if items:
            return orjson.dumps({"v": 1, "items": items})
        after = 0
    return orjson.dumps({"v": 1, "items": []})


# ---- The node's end --------------------------------------------------------------------------------------------------------


def pull_cursor(session: Session) -> tuple[str, int, str]:
    """The feed this node reads, how far it came, and the chain it saw there."""
    row = session.execute(select(feed_cursor)).first()
    return (row.id, row.number, row.chain) if row else ("", 0, "")


def accept_page(session: Session, raw: bytes, own_town: str, now: datetime) -> int:
    """Store what a page brings and move the cursor; how far it moved. Raises `Malformed` if it is no page.

    An item that is no entry is kept in quarantine and passed over, so that one bad item does not keep the rest away.
    """
    try:
        page = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        msg = "feed page is no JSON"
        raise Malformed(msg) from error
    if (
        type(page) is not dict
        or page.get("v") != 1
        or not (page.get("id") == "" or is_name(page.get("id")))
        or type(page.get("items")) is not list
    ):
        msg = "not a feed page of version 1"
        raise Malformed(msg)
    held_id, reached, chain = pull_cursor(session)
    before = reached
    again = page.get("again") is True
    if again and not before:
        msg = "a feed that wants to be read from its beginning, and was"
        raise Malformed(msg)
    if again or (before and held_id and page["id"] != held_id):
        upsert(session, feed_cursor, [{"one": 1, "id": page["id"], "number": 0, "chain": ""}])
        return 1
    entries: list[Entry] = []
    for item in page["items"][:PAGE_MAX]:
        number = item.get("number") if type(item) is dict else None
        if type(number) is not int or not reached < number < 2**53:
            continue
        reached, chain = number, item.get("chain")
        try:
            entry = from_json(item)
        except Malformed as error:
            quarantine_message(session, "", "malformed", str(error), orjson.dumps(item), now, speaks_of_erased)
            continue
        if entry.says.town != own_town:
            entries.append(entry)
    accept_entries(session, sorted(entries, key=lambda entry: entry.says.town != KOEPEL), now)
    chain = chain if isinstance(chain, str) and len(chain) <= 64 and chain.isalnum() else ""
    upsert(session, feed_cursor, [{"one": 1, "id": page["id"], "number": reached, "chain": chain}])
    return reached - before

"""The feed: how what one town told reaches the other towns (design §4).

On the hub, an entry that may be forwarded gets a **national number**: gapless, from one row, locked last in its transaction. Before
that its own signature is verified, because a page shows entries without their neighbours. A town pulls pages from its cursor:
original headers, bodies and signatures, at most 500. What belongs to another audience is left out.

The feed has a random id; a node whose id differs, or whose cursor lies beyond the end, starts again at 0 (accepting is idempotent).
A page also brings the association's own entries; its `town.admitted` tells a node whose key is whose, and the node pins it.

Tables: `feed` (number → place), `feed_state` (id and last number, one row), `feed_cursor` (node).
"""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import BigInteger, Column, Integer, String, Table, UniqueConstraint, and_, select, update
from sqlalchemy.orm import Session

from shared.db import Base, upsert
from shared.envelope import Entry, Malformed, from_json, read_event, signed_by, stored_entry, to_json
from shared.events import TownAdmitted
from shared.inbox import accept_entries, inbox, pin_key, pinned_keys
from shared.keys import from_text

PAGE_MAX = 500
PAGE_BYTES_MAX = 2 * 1024 * 1024
PULLS = b"feed1"
"""What the signature on a pull is made for."""
KOEPEL = "koepel"
"""The association's own slug; its key is handed over at joining."""

feed = Table(
    "feed",
    Base.metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("town", String(40), nullable=False),
    Column("epoch", String(40), nullable=False),
    Column("seq", BigInteger, nullable=False),
    UniqueConstraint("town", "epoch", "seq"),
)
feed_state = Table(
    "feed_state",
    Base.metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("id", String(40), nullable=False),
    Column("last", BigInteger, nullable=False),
)
feed_cursor = Table(
    "feed_cursor",
    Base.metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("id", String(40), nullable=False),
    Column("number", BigInteger, nullable=False),
)


# ---- The hub's end ---------------------------------------------------------------------------------------------------------


def number_entries(session: Session, entries: Sequence[Entry], fresh_id: str) -> int:
    """Give these entries the next national numbers; the last number. The lock is taken here, so call it last."""
    state = session.execute(select(feed_state).with_for_update()).first()
    last = state.last if state else 0
    rows = [
        {"number": last + index, "town": entry.says.town, "epoch": entry.says.epoch, "seq": entry.says.seq}
        for index, entry in enumerate(entries, 1)
    ]
    if rows:
        session.execute(feed.insert(), rows)
    if state is None:
        session.execute(feed_state.insert(), {"one": 1, "id": fresh_id, "last": last + len(rows)})
    elif rows:
        session.execute(update(feed_state).values(last=last + len(rows)))
    return int(last + len(rows))


def feed_head(session: Session) -> tuple[str, int]:
    """The feed's id and its last number; empty and 0 before the first."""
    state = session.execute(select(feed_state)).first()
    return (state.id, state.last) if state else ("", 0)


def read_page(session: Session, after: int) -> bytes:
    """The next page beyond `after`, as JSON."""
    feed_id, last = feed_head(session)
    rows = session.execute(
        select(feed.c.number, inbox.c.header, inbox.c.hash, inbox.c.signature, inbox.c.salt, inbox.c.body)
        .join(inbox, and_(inbox.c.town == feed.c.town, inbox.c.epoch == feed.c.epoch, inbox.c.seq == feed.c.seq))
        .where(feed.c.number > after)
        .order_by(feed.c.number)
        .limit(PAGE_MAX)
    )
    items: list[orjson.Fragment] = []
    size = 0
    for row in rows:
        entry = stored_entry(row.header, row.hash, row.signature, row.salt, row.body)
        item = orjson.dumps(to_json(entry) | {"number": row.number})
        size += len(item)
        if items and size > PAGE_BYTES_MAX:
            break
        items.append(orjson.Fragment(item))
    return orjson.dumps({"v": 1, "id": feed_id, "last": last, "items": items})


# ---- The node's end --------------------------------------------------------------------------------------------------------


def pull_cursor(session: Session) -> tuple[str, int]:
    """The feed this node reads, and how far it came."""
    row = session.execute(select(feed_cursor)).first()
    return (row.id, row.number) if row else ("", 0)


def accept_page(session: Session, raw: bytes, own_town: str, now: Any) -> int:
    """Store what a page brings and move the cursor; how many items it had. Raises `Malformed` if it is no page.

    An item that is no entry is passed over, so that one bad item does not keep the rest away.
    """
    try:
        page = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        msg = "feed page is no JSON"
        raise Malformed(msg) from error
    if type(page) is not dict or page.get("v") != 1 or type(page.get("id")) is not str or type(page.get("items")) is not list:
        msg = "not a feed page of version 1"
        raise Malformed(msg)
    held_id, reached = pull_cursor(session)
    if page["id"] != held_id or (type(page.get("last")) is int and page["last"] < reached):
        reached = 0
        if held_id:  # another feed than ours, or one that lost its end: this page was asked for with an old cursor
            upsert(session, feed_cursor, [{"one": 1, "id": page["id"], "number": 0}])
            return len(page["items"])
    entries: list[Entry] = []
    for item in page["items"][:PAGE_MAX]:
        number = item.get("number") if type(item) is dict else None
        if type(number) is not int or number <= reached:
            continue
        reached = number
        try:
            entry = from_json(item)
        except Malformed:
            continue
        if entry.says.town != own_town:
            entries.append(entry)
    _pin_admitted(session, entries, now)
    accept_entries(session, entries)
    upsert(session, feed_cursor, [{"one": 1, "id": page["id"], "number": reached}])
    return len(page["items"])


def _pin_admitted(session: Session, entries: Sequence[Entry], now: Any) -> None:
    """Believe the association about whose key is whose, for towns that have none pinned yet."""
    koepel = pinned_keys(session, [KOEPEL])
    for entry in entries:
        key = koepel.get((entry.says.town, entry.says.key_id))
        if key is None or entry.says.type != TownAdmitted.wire or not signed_by(entry, key):
            continue
        try:
            admitted = read_event(entry)
            if isinstance(admitted, TownAdmitted) and admitted.town != KOEPEL:
                pin_key(session, admitted.town, admitted.key_id, from_text(admitted.public_key, 32), now)
        except ValueError:
            continue

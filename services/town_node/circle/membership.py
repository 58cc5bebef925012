"""The town's membership of the association: how the node joins it, and under which name and key it speaks.

The private key is made and safely on disk before the association hears of it, and it never goes into the database. If the answer
to a joining call is lost, calling again with the same code gives the same answer.

Tables: `membership` (one row).
"""

import secrets
from typing import Any

import orjson
import urllib3
from sqlalchemy import Integer, String
from sqlalchemy.orm import Mapped, Session, mapped_column

from services.town_node.config import Settings, utc_now
from shared.db import Base, Database
from shared.doorbell import Doorbell
from shared.eventlog import Author, open_epoch, read_head
from shared.feed import KOEPEL
from shared.inbox import pin_key
from shared.keys import KeyPair, from_text, keep_key, load_key, to_text
from shared.language import N_
from shared.observability import failpoint
from shared.refusals import Refusal

PROOF = b"join1"
TIMEOUT = urllib3.Timeout(connect=5.0, read=20.0)


class HubAway(Refusal):
    """The hub does not answer."""

    status, text = 503, N_("The association does not answer at %(url)s. Is the address right? You can try again later.")


class CodeRefused(Refusal):
    """The hub does not accept the code."""

    status, text = 403, N_("The association does not accept this code. Ask for a new one.")


class JoinedAlready(Refusal):
    """This node is a member already."""

    text = N_("This node has joined already, as %(town)s.")


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
    """Let this process write the log, if the node has joined."""
    key = load_key(settings.state / "town.key")
    if key is None:
        return None
    with database.reading() as session:
        joined = membership(session)
    if joined is None:
        return None
    author = Author(joined.town, key, utc_now, secrets.token_bytes)
    database.info["author"] = author
    return author


def join_association(settings: Settings, database: Database, hub_url: str, code: str) -> Membership:
    """Join with a code. Raises `HubAway`, `CodeRefused` or `JoinedAlready`."""
    with database.reading() as session:
        joined = membership(session)
    if joined is not None:
        raise JoinedAlready(town=joined.name)
    path = settings.state / "town.key"
    key = load_key(path) or keep_key(path, secrets.token_bytes(32))
    failpoint("join.keyed")
    told = _call_hub(hub_url.rstrip("/"), code, key)
    failpoint("join.answered")
    with database.transaction() as session:
        joined = Membership(
            one=1,
            town=told["town"],
            name=told["name"],
            association=told["association"],
            hub_url=hub_url.rstrip("/"),
            hub_key=told["hub_key"],
            bus_url=told["bus"],
        )
        session.add(joined)
        pin_key(session, KOEPEL, told["hub_key_id"], from_text(told["hub_key"], 32), utc_now())
        author = Author(joined.town, key, utc_now, secrets.token_bytes)
        pin_key(session, joined.town, key.key_id, key.public, utc_now())
        if read_head(session) is None:
            open_epoch(session, author)
    failpoint("join.joined")
    database.info["author"] = author
    return joined


def _call_hub(hub_url: str, code: str, key: KeyPair) -> dict[str, Any]:
    plain = "".join(letter for letter in code.upper() if letter.isalnum())
    body = {
        "code": code,
        "public_key": to_text(key.public),
        "proof": to_text(key.sign(PROOF, plain.encode() + key.public)),
    }
    try:
        answer = urllib3.request("POST", f"{hub_url}/federation/v1/join", json=body, timeout=TIMEOUT, retries=False)
        if answer.status == 403:  # HTTP's own number
            raise CodeRefused
        told = orjson.loads(answer.data)
        if answer.status != 200 or not all(
            isinstance(told.get(name), str) for name in ("town", "name", "hub_key", "hub_key_id", "bus", "association")
        ):  # HTTP's own number
            raise HubAway(url=hub_url)
    except (urllib3.exceptions.HTTPError, orjson.JSONDecodeError, AttributeError) as error:
        raise HubAway(url=hub_url) from error
    return dict(told)

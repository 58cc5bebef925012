"""A town's own user on RabbitMQ (design §4, Bus and Joining): it may publish under the town's key, and nothing else.

The user is named like the town, and told to it in the answer to its joining. It declares nothing, reads nothing, writes to one
exchange, there under one key, and may hold a few connections. The password is derived from a secret of this hub and the key with
which the town came in, and not kept: so the same question gets the same answer, a town that joins anew under another key gets
another password, and all users can be made again on a broker that lost everything, without asking a single town.

The association runs one of two ways. With `BROKER_API` the worker makes the users, through RabbitMQ's management. Without it `hub
broker definitions` prints a file to import, with everything that must be on the broker, as often as a town comes or goes.

The answer to a joining waits for neither, for the user is made **after** the commit that lets the town in, by the worker. Not in
that transaction: a broker that hangs would hold the database, and a transaction that is undone would leave a user whom nobody let
in. What is committed says who should have a user, with which key; the table says who has one; what differs is done, again and again
until it succeeds, and only then noted. A hub that dies anywhere between does it once more. Until then the town's relay is refused
and tries again. So a town gets its user whoever let it in, and loses it, with the connections it holds, once it has left or its key
was revoked. A node whose answer was lost asks again and is told the same.

A former user of that name goes first; rights come last, for RabbitMQ lets a user without rights on topics write to all of them.
Whatever call is the last one that got through, the user may do too little, never too much.

Tables: `broker_user`.
"""

import base64
import hashlib
import hmac
import logging
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import urllib3
from sqlalchemy import Column, String, Table, delete, select
from sqlalchemy.orm import Session

from services.hub.config import Settings, broker_secret
from services.hub.towns.joining import Town
from shared.db import Base, Database, upsert
from shared.observability import facts, failpoint
from shared.pins import read_pins
from shared.routes import ARGUMENTS, DEAD, DEAD_ARGUMENTS, EXCHANGE, ingest_queues, rights_of

log = logging.getLogger(__name__)

LIMITS = {"max-connections": 3, "max-channels": 6}
"""A relay needs one of each; after a power cut the broker notices only a minute later that the old ones are gone."""
PASSWORD = b"tuinkoepel broker password 1"
TIMEOUT = urllib3.Timeout(connect=5.0, read=15.0)


broker_user = Table(
    "broker_user",
    Base.metadata,
    Column("town", String(40), primary_key=True),
    Column("key_id", String(40), nullable=False),
)
"""Whose user was made through the management, with the password of which key."""


class BrokerAway(Exception):  # noqa: N818  # named for its reason
    """RabbitMQ's management does not do what it is asked."""


def bus_for(settings: Settings, slug: str, key_id: str) -> str:
    """The bus address that a town is told: with its own user if towns have any, whether it is made already or not."""
    if not _has_own_users(settings):
        return settings.town_bus_url
    parts = urlsplit(settings.town_bus_url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{slug}:{_password(settings, slug, key_id)}@{host}"))


def may_publish(session: Session) -> dict[str, str]:
    """The towns that should have a user, each with the key that its password is made of: who is in, and whose word counts."""
    towns = session.scalars(select(Town).where(Town.joined_at.is_not(None), Town.left_at.is_(None)).order_by(Town.slug)).all()
    pins = read_pins(session, [town.slug for town in towns])
    return {town.slug: town.key_id for town in towns if town.key_id and pins.keys_of(town.slug)}


def tend_users(database: Database, settings: Settings) -> None:
    """Make the users that should be there and take away those that should not. Raises `BrokerAway`."""
    if not settings.broker_api or not _has_own_users(settings):
        return
    with database.reading() as session:
        should = may_publish(session)
        there = {row.town: row.key_id for row in session.execute(select(broker_user))}
    for slug in sorted(there.keys() - should.keys()):
        remove_user(settings, slug)
        log.info("broker.removed", extra=facts(town=slug))
        with database.transaction() as session:
            session.execute(delete(broker_user).where(broker_user.c.town == slug))
    for slug, key_id in should.items():
        if there.get(slug) != key_id:
            make_user(settings, slug, key_id)
            failpoint("join.brokered")
            log.info("broker.made", extra=facts(town=slug))
            with database.transaction() as session:
                upsert(session, broker_user, [{"town": slug, "key_id": key_id}])


def forget_users(session: Session) -> None:
    """The broker was set up anew: the worker is to make all users again."""
    session.execute(delete(broker_user))


def make_user(settings: Settings, slug: str, key_id: str) -> None:
    """Make the town's user, in place of a former one. Raises `BrokerAway`."""
    user, vhost = _user(settings, slug, key_id), quote(_vhost(settings), safe="")
    may, topic = rights_of(slug)
    remove_user(settings, slug)
    _call(settings, "PUT", f"users/{slug}", {name: user[name] for name in ("password_hash", "hashing_algorithm", "tags")})
    for limit, most in LIMITS.items():
        _call(settings, "PUT", f"user-limits/{slug}/{limit}", {"value": most})
    _call(settings, "PUT", f"topic-permissions/{vhost}/{slug}", topic)
    _call(settings, "PUT", f"permissions/{vhost}/{slug}", may)


def remove_user(settings: Settings, slug: str) -> None:
    """The town can publish no longer, and RabbitMQ closes its connections. Raises `BrokerAway`."""
    _call(settings, "DELETE", f"users/{slug}", None)


def definitions(session: Session, settings: Settings) -> dict[str, Any]:
    """Everything that must be on the broker but the hub's own user, as RabbitMQ imports it; the same as long as nothing changes."""
    vhost, towns = _vhost(settings), may_publish(session)
    queues = ingest_queues(settings.partitions, session.scalars(select(Town.slug).order_by(Town.slug)).all())
    here: dict[str, Any] = {"vhost": vhost, "durable": True, "auto_delete": False}
    rights = {slug: rights_of(slug) for slug in towns}
    return {
        "vhosts": [{"name": vhost}],
        "users": [_user(settings, slug, key_id) for slug, key_id in towns.items()],
        "permissions": [{"user": slug, "vhost": vhost, **may} for slug, (may, _) in rights.items()],
        "topic_permissions": [{"user": slug, "vhost": vhost, **topic} for slug, (_, topic) in rights.items()],
        "exchanges": [{"name": EXCHANGE, "type": "topic", "internal": False, "arguments": {}, **here}],
        "queues": [
            {"name": DEAD, "arguments": DEAD_ARGUMENTS, **here},
            *({"name": queue, "arguments": ARGUMENTS, **here} for queue in queues),
        ],
        "bindings": [
            {
                "source": EXCHANGE, "vhost": vhost, "destination": queue, "destination_type": "queue", "routing_key": key,
                "arguments": {},
            }
            for queue, keys in queues.items()
            for key in keys
        ],
    }  # fmt: skip


def _has_own_users(settings: Settings) -> bool:
    """Whether each town has a user of its own: RabbitMQ, and no name in the address that stands for all of them."""
    parts = urlsplit(settings.town_bus_url)
    return parts.scheme in {"amqp", "amqps"} and (bool(settings.broker_api) or "@" not in parts.netloc)


def _vhost(settings: Settings) -> str:
    return unquote(urlsplit(settings.town_bus_url).path[1:]) or "/"


def _password(settings: Settings, slug: str, key_id: str) -> str:
    """Of the town's key, so that the next key makes another one."""
    return base64.urlsafe_b64encode(_derived(settings, b"password", slug, key_id)).decode().rstrip("=")


def _derived(settings: Settings, purpose: bytes, slug: str, key_id: str) -> bytes:
    about = b"\0".join((PASSWORD, purpose, slug.encode(), key_id.encode()))
    return hmac.digest(broker_secret(settings), about, "sha256")


def _user(settings: Settings, slug: str, key_id: str) -> dict[str, Any]:
    salt = _derived(settings, b"salt", slug, key_id)[:4]  # as long as RabbitMQ wants it
    hashed = hashlib.sha256(salt + _password(settings, slug, key_id).encode()).digest()
    return {
        "name": slug,
        "password_hash": base64.b64encode(salt + hashed).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": "",
        "limits": LIMITS,
    }


def _call(settings: Settings, method: str, path: str, body: dict[str, Any] | None) -> None:
    """Ask the management for something; that what is to go is gone already is no trouble. Raises `BrokerAway`."""
    parts = urlsplit(settings.broker_api)
    name = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    root = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
    headers = urllib3.util.make_headers(basic_auth=name)
    try:
        answer = urllib3.request(
            method, f"{root}/api/{path}", json=body, headers=headers, timeout=TIMEOUT, retries=False, redirect=False
        )
    except urllib3.exceptions.HTTPError as error:
        raise BrokerAway(f"{method} {path}: {error!r}") from error
    if answer.status >= 300 and (method, answer.status) != ("DELETE", 404):
        raise BrokerAway(f"{method} {path}: {answer.status} {answer.data[:300].decode(errors='replace')}")

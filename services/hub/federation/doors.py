"""`/federation/v1`: joining, the head exchange and the feed, over HTTPS (design §4).

Whoever calls is first counted by address (`site.py`), then must show a signature, and is only then counted as the town it names:
counting by name alone would let a stranger shut out a town.
"""

import hashlib
import secrets
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, request
from sqlalchemy.orm import Session

from services.hub.config import Settings
from services.hub.towns.broker import bus_for
from services.hub.towns.joining import join_town, waits_with
from shared import feed, heads, limits
from shared.eventlog import Author
from shared.keys import from_text, to_text, verified
from shared.language import N_
from shared.observability import failpoint
from shared.pins import read_pins
from shared.refusals import Invalid, Refusal
from shared.restore import TAIL
from shared.web import hold_back, now, reading, transaction

doors = Blueprint("federation", __name__, url_prefix="/federation/v1")
SIGNATURE = "Tuinkoepel-Signature"
CALL_MAX = 4096


class NotAuthentic(Refusal):
    """The call is not signed by the town that it names."""

    status, text = 401, N_("This call is not signed by the town that it names.")


def _hub() -> tuple[Settings, Author]:
    found: tuple[Settings, Author] = current_app.extensions["hub"]
    return found


def _read_call() -> bytes | None:
    """What was sent, if it is no longer than a call can be; no more than that is read."""
    if (request.content_length or 0) > CALL_MAX:
        return None
    body = request.stream.read(CALL_MAX + 1)
    return body if len(body) <= CALL_MAX else None


def _read_json() -> Any:
    """None if it is no JSON. orjson refuses bottomless nesting."""
    try:
        return orjson.loads(_read_call() or b"")
    except orjson.JSONDecodeError:
        return None


def _number(text: str) -> int:
    """A place in the feed, as a database can hold it. Raises `ValueError`."""
    number = int(text) if len(text) <= 18 else 0
    return max(0, number)


@doors.post("/join")
def join() -> Any:
    says = _read_json()
    if not isinstance(says, dict) or not all(isinstance(says.get(name), str) for name in ("code", "public_key", "proof")):
        raise Invalid(fields={name: N_("missing") for name in ("code", "public_key", "proof")})
    hold_back(limits.JOINING_CODE, hashlib.sha256(says["code"].upper().encode(errors="replace")).hexdigest())
    settings, author = _hub()
    with transaction() as session:
        town = join_town(session, says["code"], says["public_key"], says["proof"], now())
        slug, name, anew, waits = town.slug, town.name, town.anew, town.asking is not None
        bus = bus_for(settings, slug, town.asking or town.key_id)
    return {
        "town": slug,
        "name": name,
        "association": settings.name,
        "hub_key": to_text(author.key.public),
        "hub_key_id": author.key.key_id,
        "bus": bus,
        "anew": anew,
        "let_in": not waits,
    }


@doors.post("/heads")
def exchange_heads() -> Any:
    body = _read_call()
    if body is None:
        raise NotAuthentic
    author = _hub()[1]
    try:
        with transaction() as session:
            said, signature, fresh = heads.answer_call(
                session,
                author,
                body,
                request.headers.get(SIGNATURE, ""),
                feed.feed_head(session),
                now(),
                secrets.token_hex(16),
            )
            hold_back(limits.TOWN_CALLS, str(orjson.loads(body)["town"]))  # it is theirs: the signature was verified
    except heads.NotAuthentic:
        return _say_without_key(author, body)
    failpoint("hub.answered")
    return _signed(said, signature, 200 if fresh else 409)


def _signed(said: bytes, signature: bytes, status: int) -> Response:
    answer = _unkept(said)
    answer.status_code = status
    answer.headers[SIGNATURE] = heads.signature_text(signature)
    return answer


def _say_without_key(author: Author, body: bytes) -> Response:
    """To a node that waits to be let in, or whose key was revoked, and to nobody else. Raises `NotAuthentic`."""
    try:
        says, signature = orjson.loads(body), from_text(request.headers.get(SIGNATURE), 64)
        slug = says.get("town") if isinstance(says, dict) else None
        with reading() as session:
            waits = isinstance(slug, str) and waits_with(session, slug, body, signature, heads.ASKS)
            return _signed(*heads.answer_without_key(session, author, body, signature, waits=waits), 403)
    except (ValueError, heads.NotAuthentic):
        raise NotAuthentic from None


@doors.get("/feed")
def read_feed() -> Any:
    after = request.args.get("after", 0, type=_number)
    with reading() as session:
        _who_asks(session, feed.PULLS)
        return _unkept(feed.read_page(session, request.args.get("id", ""), after, request.args.get("chain", "")))


@doors.get("/tail")
def read_tail() -> Any:
    """A town's own entries, for a node that was put back or lost everything."""
    after = request.args.get("after", 0, type=_number)
    with reading() as session:
        town = _who_asks(session, TAIL)
        return _unkept(feed.read_tail(session, town, request.args.get("epoch", ""), after))


def _who_asks(session: Session, context: bytes) -> str:
    """The town that signed this very address. Raises `NotAuthentic`."""
    town = request.args.get("town", "")
    if not town.isprintable():  # PostgreSQL refuses to look for a NUL
        raise NotAuthentic
    try:
        signature = from_text(request.headers.get(SIGNATURE), 64)
    except ValueError:
        raise NotAuthentic from None
    keys = read_pins(session, [town]).keys_of(town)
    if not any(verified(key, signature, context, request.full_path.encode()) for key in keys):
        raise NotAuthentic
    hold_back(limits.TOWN_CALLS, town)
    return town


def _unkept(page: bytes) -> Response:
    answer = Response(page, mimetype="application/json")
    answer.headers["Cache-Control"] = "no-store"
    return answer

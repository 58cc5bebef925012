"""`/federation/v1`: joining, the head exchange and the feed, over HTTPS (design §4)."""

import secrets
from typing import Any

from flask import Blueprint, Response, current_app, request

from services.hub.config import Settings
from services.hub.towns.joining import join_town
from shared import feed, heads
from shared.eventlog import Author
from shared.inbox import pinned_keys
from shared.keys import from_text, to_text, verified
from shared.language import N_
from shared.refusals import Invalid, Refusal
from shared.web import now, reading, transaction

doors = Blueprint("federation", __name__, url_prefix="/federation/v1")
SIGNATURE = "Tuinkoepel-Signature"
CALL_MAX = 4096


class NotAuthentic(Refusal):
    """The call is not signed by the town that it names."""

    status, text = 401, N_("This call is not signed by the town that it names.")


def _hub() -> tuple[Settings, Author]:
    found: tuple[Settings, Author] = current_app.extensions["hub"]
    return found


@doors.post("/join")
def join() -> Any:
    says = request.get_json(silent=True)
    if not isinstance(says, dict) or not all(isinstance(says.get(name), str) for name in ("code", "public_key", "proof")):
        raise Invalid(fields={name: N_("missing") for name in ("code", "public_key", "proof")})
    settings, author = _hub()
    with transaction() as session:
        town = join_town(session, says["code"], says["public_key"], says["proof"], now())
        slug, name = town.slug, town.name
    return {
        "town": slug,
        "name": name,
        "association": settings.name,
        "hub_key": to_text(author.key.public),
        "hub_key_id": author.key.key_id,
        "bus": settings.town_bus or settings.bus_url,
    }


@doors.post("/heads")
def exchange_heads() -> Any:
    body = request.get_data(cache=False)
    if len(body) > CALL_MAX:
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
    except heads.NotAuthentic:
        raise NotAuthentic from None
    answer = Response(said, status=200 if fresh else 409, mimetype="application/json")
    answer.headers[SIGNATURE] = heads.signature_text(signature)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@doors.get("/feed")
def read_feed() -> Any:
    town, after = request.args.get("town", ""), request.args.get("after", 0, type=int)
    asked = request.full_path.encode()
    with reading() as session:
        try:
            signature = from_text(request.headers.get(SIGNATURE), 64)
        except ValueError:
            raise NotAuthentic from None
        if not any(verified(key, signature, feed.PULLS, asked) for key in pinned_keys(session, [town]).values()):
            raise NotAuthentic
        page = feed.read_page(session, after)
    answer = Response(page, mimetype="application/json")
    answer.headers["Cache-Control"] = "no-store"
    return answer

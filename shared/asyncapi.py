"""`/asyncapi.json`: what travels between the towns and the association, as AsyncAPI 3.0, made from the vocabulary itself.

Seen from the association, three channels: `log` is what a town tells, event by event (no address: the other two carry it); `bus`
is how it comes up, in signed runs; `feed` is how it goes out again to the other towns. Headers and bodies are the JSON Schemas of
the field types in `events.py` and of the header in `envelope.py`, so this document cannot say anything else than the code does.
"""

from typing import Any

from shared.envelope import BODY_MAX, HEADER_MAX, MESSAGE_EVENTS_MAX, MESSAGE_MAX
from shared.events import VOCABULARY, Event, body_schema

_DRAFT = "http://json-schema.org/draft-07/schema#"
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_NAME = {"type": "string", "pattern": "^[a-z0-9-]{2,40}$"}
_HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_SEQ = {"type": "integer", "minimum": 1, "maximum": 2**53 - 1}
AUDIENCES = {
    "hub": "Read by the association only.",
    "all": "Read by every town.",
    "parties": "Read by the towns that its body names.",
}


def describe_events(title: str) -> dict[str, Any]:
    """The whole document."""
    names = sorted(VOCABULARY)
    public = [name for name in names if VOCABULARY[name].audience == "all"]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": title,
            "version": "1.0.0",
            "description": "Every town keeps a log of what it tells the world: numbered without gaps, chained by hashes, signed. "
            "The log travels to the association in runs over a bus, and from there to the other towns in the feed. "
            "Changes are additive; an unknown member or type is passed over.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "log": {
                "address": None,
                "title": "The log of a town",
                "description": "What a town tells, one event after the other, as it stands inside `bus` and `feed`.",
                "messages": {name: _to("messages", name) for name in names},
            },
            "bus": {
                "address": "town.{town}.log",
                "title": "From a town to the association",
                "description": "A topic exchange of RabbitMQ, or its embedded twin. Delivered at least once; order, gaps and "
                "repeats are settled by the numbers, not by the bus.",
                "parameters": {"town": {"description": "The town's short name."}},
                "messages": {"run": _to("messages", "run")},
                "bindings": {
                    "amqp": {
                        "is": "routingKey",
                        "exchange": {"name": "tuinkoepel.events", "type": "topic", "durable": True, "autoDelete": False},
                        "bindingVersion": "0.3.0",
                    }
                },
            },
            "feed": {
                "address": "/federation/v1/feed",
                "title": "From the association to the towns",
                "description": "A page that a node pulls over HTTPS with a signed call; `after` is the last number it has.",
                "messages": {"page": _to("messages", "page")},
            },
        },
        "operations": {
            "receiveRuns": {
                "action": "receive",
                "channel": {"$ref": "#/channels/bus"},
                "summary": "Verify and store what a town tells, once.",
                "messages": [{"$ref": "#/channels/bus/messages/run"}],
            },
            "readEvents": {
                "action": "receive",
                "channel": {"$ref": "#/channels/log"},
                "summary": "Fold every event into what the association shows.",
                "messages": [{"$ref": f"#/channels/log/messages/{name}"} for name in names],
            },
            "forwardEvents": {
                "action": "send",
                "channel": {"$ref": "#/channels/log"},
                "summary": "Hand on what every town may read, with its own town's signature.",
                "messages": [{"$ref": f"#/channels/log/messages/{name}"} for name in public],
            },
            "servePages": {
                "action": "send",
                "channel": {"$ref": "#/channels/feed"},
                "summary": "Answer a town that pulls.",
                "messages": [{"$ref": "#/channels/feed/messages/page"}],
            },
        },
        "components": {
            "messages": {name: _message(name, VOCABULARY[name]) for name in names} | _carriers(),
            "schemas": {"header": _header(), "entry": _entry()}
            | {f"{name}.body": {"$schema": _DRAFT} | body_schema(VOCABULARY[name]) for name in names},
        },
    }


def _to(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _message(name: str, cls: type[Event]) -> dict[str, Any]:
    words = " ".join((cls.__doc__ or "").split())
    own = {"type": {"const": cls.wire}, "dataschema": {"const": f"/schemas/{cls.wire}"}}
    return {
        "name": cls.wire,
        "title": name,
        "summary": words,
        "description": f"{AUDIENCES[cls.audience]} It is about the `{cls.about}` that its `subject` names.",
        "contentType": "application/json",
        "headers": {"allOf": [_to("schemas", "header"), {"type": "object", "properties": own}]},
        "payload": _to("schemas", f"{name}.body"),
        "tags": [{"name": cls.audience, "description": AUDIENCES[cls.audience]}],
    }


def _header() -> dict[str, Any]:
    """The header of an entry: CloudEvents 1.0 attributes."""
    members: dict[str, Any] = {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "description": "epoch.sequence"},
        "source": {"type": "string", "description": "/towns/ and the town's short name"},
        "type": {"type": "string", "description": "The wire name, with its major version."},
        "time": {"type": "string", "format": "date-time", "description": "The town's claim, in UTC; never a reason to refuse."},
        "subject": {"type": "string", "description": "The code of what the event is about."},
        "dataschema": {"type": "string"},
        "town": _NAME,
        "epoch": _NAME,
        "sequence": _SEQ | {"description": "Without gaps, from 1 in every epoch."},
        "prevhash": _HASH | {"description": "The hash of the entry before it; zeros before the first."},
        "payloadhash": _HASH | {"description": "SHA-256 over salt and body, so that an erased body leaves the chain whole."},
        "keyid": _NAME,
    }
    return {
        "$schema": _DRAFT,
        "type": "object",
        "description": f"CloudEvents 1.0 attributes; ASCII, at most {HEADER_MAX} bytes. hash = SHA-256('hdr1' + header bytes), and "
        "the signature is Ed25519 over 'event1' + hash.",
        "properties": members,
        "required": list(members),
    }


def _entry() -> dict[str, Any]:
    """An entry as it travels."""
    return {
        "$schema": _DRAFT,
        "type": "object",
        "description": "One event, sealed. Header and body are JSON texts, because their exact bytes are hashed and signed.",
        "properties": {
            "header": {
                "type": "string",
                "maxLength": HEADER_MAX,
                "contentMediaType": "application/json",
                "description": "A JSON text: the schema `header`.",
            },
            "signature": _BASE64,
            "salt": _BASE64 | {"description": "32 random bytes; gone with the body."},
            "body": {
                "type": "string",
                "contentMediaType": "application/json",
                "description": f"A JSON text of at most {BODY_MAX} bytes: the schema of the event's body.",
            },
            "erased": {"const": True, "description": "Instead of salt and body, when these were erased."},
        },
        "required": ["header", "signature"],
    }


def _carriers() -> dict[str, Any]:
    """The messages that entries travel in."""
    item = {"allOf": [_to("schemas", "entry"), {"type": "object", "properties": {"number": _SEQ}, "required": ["number"]}]}
    run: dict[str, Any] = {
        "v": {"const": 1},
        "town": _NAME,
        "epoch": _NAME,
        "from": _SEQ,
        "to": _SEQ,
        "events": {"type": "array", "minItems": 1, "maxItems": MESSAGE_EVENTS_MAX, "items": _to("schemas", "entry")},
    }
    page: dict[str, Any] = {
        "v": {"const": 1},
        "id": {"type": "string", "description": "The feed's random id; another one means: begin again at 0."},
        "last": {"type": "integer", "minimum": 0, "description": "The last national number there is."},
        "items": {"type": "array", "items": item},
    }
    return {
        "run": {
            "name": "run",
            "title": "A run of a town's log",
            "summary": f"Consecutive events of one epoch under one key: at most {MESSAGE_EVENTS_MAX}, and {MESSAGE_MAX} bytes.",
            "contentType": "application/json",
            "payload": {"$schema": _DRAFT, "type": "object", "properties": run, "required": list(run)},
        },
        "page": {
            "name": "page",
            "title": "A page of the feed",
            "summary": "Events of all towns, each with its national number.",
            "contentType": "application/json",
            "payload": {"$schema": _DRAFT, "type": "object", "properties": page, "required": list(page)},
        },
    }

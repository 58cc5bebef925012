"""The JSON API that both services share: `/api/v1`, its lists, its problem details, and OpenAPI 3.1 generated from what is in use.

An operation is a function from a session (and what was sent) to a thing; all around it is done once, in `Room.operation`:

    let in (401, 403) → read (400, 413, 415, 422) → open the transaction → was this done before? → act → write → commit → answer

The same declaration documents it, so that the document cannot say anything else. The answer is written **inside** the transaction,
because `Idempotency-Key` stores it there (`once.py`).

Everything wrong is answered with problem details (RFC 9457): `{type, title, status, errors}`, where `errors` names each wrong
member by its path (`agenda.2.minutes`) with what would be right, in the reader's language. `web.answer_trouble` writes them.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import date
from http import HTTPStatus
from typing import Any

import flask_smorest
import marshmallow
import orjson
from flask import Flask, Request, Response, request
from marshmallow import fields
from sqlalchemy import Select, and_, or_
from sqlalchemy.orm import Session
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import HTTPException

from shared import docs, shapes
from shared.language import N_, Words
from shared.once import KEY_MAX, Answer, Once
from shared.refusals import Invalid, NotAllowed, Refusal
from shared.web import NotLoggedIn, answer_trouble, bearer, may, now, person, reading, transaction

PROBLEMS = {
    400: "The body is no JSON, or holds text that is no Unicode.",
    401: "The token does not work (any more), or there is none where one is needed.",
    403: "The person of this token may not do this.",
    404: "There is no such thing, or no longer.",
    409: "It does not fit what is there now; or the first request with this Idempotency-Key is still running.",
    413: "The body is larger than 2 MB.",
    415: "The body has another Content-Type than application/json.",
    422: "Something that was sent does not fit; `errors` says what, and what would be right.",
    429: "Too many requests at once; `Retry-After` says how many seconds to wait.",
    503: "Nothing can be written down right now.",
}


class Unreadable(Refusal):
    """A body that is no JSON."""

    status, text = 400, N_("This is no JSON that can be read. Send an object, in UTF-8.")


class NotJson(Refusal):
    """A body of another type."""

    status, text = 415, N_("Send JSON, with Content-Type: application/json.")


class _Reader(FlaskParser):
    """Reads what a program sends; refuses in our own words."""

    DEFAULT_UNKNOWN_BY_LOCATION: dict[str, str | None] = {}

    def load_json(self, req: Request, schema: marshmallow.Schema) -> Any:
        if req.mimetype != "application/json":
            raise NotJson
        try:
            return orjson.loads(req.get_data())  # refuses NaN, lone surrogates and bottomless nesting, unlike Flask's
        except orjson.JSONDecodeError:
            raise Unreadable from None

    def load_querystring(self, req: Request, schema: marshmallow.Schema) -> Any:
        return {name: value for name, value in req.args.items() if value}  # an empty one asks nothing, as in a form

    def handle_error(self, error: marshmallow.ValidationError, req: Request, schema: marshmallow.Schema, **_more: Any) -> Any:
        (messages,) = error.messages.values()  # type: ignore[union-attr]  # webargs puts them under their location
        raise Invalid(fields={name: _first(words) for name, words in shapes.flat(messages).items()})


def _first(words: Any) -> Any:
    while isinstance(words, list):
        words = words[0]
    return words


class Room(flask_smorest.Blueprint):
    """The operations on one kind of thing, under `/api/v1/<name>`."""

    ARGUMENTS_PARSER = _Reader()

    def __init__(self, name: str, description: str) -> None:
        super().__init__(f"api_{name}", __name__, url_prefix=f"/api/v1/{name}", description=description)
        self.title = name

    def operation(
        self,
        method: str,
        rule: str,
        *,
        gives: type[marshmallow.Schema] | None,
        takes: marshmallow.Schema | None = None,
        role: str = "",
        refuses: Sequence[int] = (),
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Publish `def view(session, told, **path)`, or without `told` when nothing is sent. POST answers 201, nothing 204.

        `role` says who may; without one everybody may. `refuses` names the statuses the view's own refusals have.
        """
        writes = method != "GET"
        status = 201 if method == "POST" else 204 if gives is None else 200
        schema = gives() if gives else None

        def publish(view: Callable[..., Any]) -> Callable[..., Any]:
            def act(*told: Any, **path: str) -> Response:
                opened: AbstractContextManager[Session] = transaction() if writes else reading()
                asked: AbstractContextManager[Once | None] = _asked_once() if writes else nullcontext()
                with asked as once, opened as session:
                    before = once.before(session, now()) if once else None
                    if before:
                        return _answer(before, {"Idempotency-Replayed": "true"})
                    made = view(session, *told, **path)
                    location = f"{self.url_prefix}/{self.place(made)}" if method == "POST" else ""
                    answer = Answer(status, location, _written(schema.dump(made)) if schema else b"")
                    if once:
                        once.keep(session, answer, now())
                    return _answer(answer)

            act.__name__, act.__doc__ = view.__name__, view.__doc__
            shown = self.response(status, schema, headers=_LOCATION if method == "POST" else None)(act)
            if takes is not None:
                where = "json" if writes else "query"
                shown = self.arguments(takes, location=where)(shown)
            shown = self.doc(**self._facts(method, rule, role, refuses, takes, view.__name__))(_guarded(shown, role))
            self.route(rule, methods=[method], endpoint=view.__name__, tags=[self.title])(shown)
            return view

        return publish

    def place(self, made: Any) -> str:
        """Where, in this room, the thing is that was made."""
        return str(made["town"] if isinstance(made, dict) else made.code)

    def _facts(self, method: str, rule: str, role: str, refuses: Sequence[int], takes: Any, name: str) -> dict[str, Any]:
        writes = method != "GET"
        statuses = {401, 429, 503, *refuses}
        if role:
            statuses |= {403}
        if "<" in rule:
            statuses |= {404}
        if takes:
            statuses |= {400, 413, 415, 422} if writes else {422}
        if writes:
            statuses |= {409, 422}
        facts: dict[str, Any] = {
            "operationId": f"{name}_{self.title}",
            "security": [{"token": []}] if role else [{}, {"token": []}],
            "responses": {number: HTTPStatus(number).name for number in sorted(statuses)},
        }
        if writes:
            facts["parameters"] = ["IdempotencyKey"]
        if role:
            facts["x-role"] = role
        return facts


_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "Where the new thing is."}}


def _guarded(view: Callable[..., Any], role: str) -> Callable[..., Any]:
    """A token that does not work is refused everywhere: a program must not take a public answer for its own."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if person() is None and (role or request.headers.get("Authorization")):
            raise NotLoggedIn
        if role and not may(role):
            raise NotAllowed
        return view(*args, **kwargs)

    guarded.__dict__.update(view.__dict__)  # flask-smorest keeps what it documents there
    guarded.__name__, guarded.__doc__ = view.__name__, view.__doc__
    return guarded


@contextmanager
def _asked_once() -> Iterator[Once | None]:
    """Within it, no other request of this process has the same key; None when no key was sent."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        yield None
        return
    once = Once(bearer(), key, f"{request.method} {request.full_path}\n".encode() + request.get_data())
    with once.alone():
        yield once


def _written(made: Any) -> bytes:
    """JSON with a line end, so that a shell's next prompt does not stand behind it."""
    return orjson.dumps(made, option=orjson.OPT_APPEND_NEWLINE)


def _answer(of: Answer, headers: dict[str, str] | None = None) -> Response:
    answer = Response(of.body, status=of.status, mimetype="application/json", headers=headers)
    answer.headers["Cache-Control"] = "no-store"
    if of.location:
        answer.headers["Location"] = of.location
    if of.status == 204:
        del answer.headers["Content-Type"]
    return answer


# ---- Lists -----------------------------------------------------------------------------------------------------------------


def listing(item: type[marshmallow.Schema], name: str) -> type[marshmallow.Schema]:
    """The schema of a list: a page of items, and the cursor of the next page."""
    cursor = fields.String(allow_none=True, metadata={"description": "Send it as `after` for the next page; null: this was all."})
    return type(name, (shapes.Gives,), {"items": fields.List(fields.Nested(item)), "next": cursor})


def listed(
    session: Session,
    query: Select[Any],
    order: Sequence[tuple[Any, bool]],
    wanted: dict[str, Any],
    rank: Any = None,
) -> dict[str, Any]:
    """A page of a list. `order` names columns that together are unique, each with whether it runs downwards.

    The cursor holds the last row's values in these columns, so that a page neither repeats nor leaves out anything when rows are
    added meanwhile. Found by words, the best match comes first (`rank`), and the cursor counts.
    """
    limit, after = wanted["limit"], wanted["after"] or wanted["cursor"]
    columns = [column.desc() if down else column for column, down in order]
    if rank is not None:
        start = _read_cursor(after, [int])[0] if after else 0
        rows = session.scalars(query.order_by(rank, *columns).offset(start).limit(limit + 1)).all()
        following = [start + limit]
    else:
        if after:
            query = query.where(_beyond(order, _read_cursor(after, [column.type.python_type for column, _ in order])))
        rows = session.scalars(query.order_by(*columns).limit(limit + 1)).all()
        following = [getattr(rows[limit - 1], column.key) for column, _ in order] if len(rows) > limit else []
    return {"items": rows[:limit], "next": _write_cursor(following) if len(rows) > limit else None}


def _beyond(order: Sequence[tuple[Any, bool]], values: list[Any]) -> Any:
    """The rows that come after these values."""
    arms: list[Any] = []
    same: list[Any] = []
    for (column, down), value in zip(order, values, strict=True):
        arms.append(and_(*same, column < value if down else column > value))
        same.append(column == value)
    return or_(*arms)


def _write_cursor(values: list[Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


def _read_cursor(said: str, kinds: list[type]) -> list[Any]:
    try:
        values = orjson.loads(base64.urlsafe_b64decode(said.encode("ascii") + b"=" * (-len(said) % 4)))
        if not isinstance(values, list) or len(values) != len(kinds):
            raise ValueError
        return [_of_kind(value, kind) for value, kind in zip(values, kinds, strict=True)]
    except (ValueError, TypeError, binascii.Error):
        raise Invalid(fields={"after": Words(N_("This cursor is not one of this list. Begin without one."))}) from None


def _of_kind(value: Any, kind: type[Any]) -> Any:
    if kind is date:
        return date.fromisoformat(value)
    if type(value) is not kind or (kind is str and "\0" in value) or (kind is int and not 0 <= value < 2**31):
        raise ValueError
    return value


def chosen(columns: dict[str, Any], wanted: dict[str, Any]) -> list[Any]:
    """The conditions that a query names."""
    return [column == wanted[name] for name, column in columns.items() if wanted.get(name) is not None]


# ---- The interface as a whole ----------------------------------------------------------------------------------------------


class Interface(flask_smorest.Api):
    """flask-smorest, whose own error handler would also catch the pages' errors, and whose own error schema is not ours."""

    DEFAULT_ERROR_RESPONSE_NAME = None

    def handle_http_exception(self, error: HTTPException) -> Any:
        return answer_trouble(error)

    def _register_responses(self) -> None:
        """Our problems instead of its own errors."""
        self.ma_plugin.converter.add_attribute_function(shapes.document)
        components = self.spec.components
        components.security_scheme(
            "token",
            {
                "type": "http",
                "scheme": "bearer",
                "description": "An API token, made on the page `/tokens` or with the command line.",
            },
        )
        components.parameter(
            "IdempotencyKey",
            "header",
            {
                "name": "Idempotency-Key",
                "description": "A key of your own for this one change, such as a random UUID. Asked again within 30 days with the "
                "same key, the same answer comes back and nothing is changed twice.",
                "schema": {"type": "string", "minLength": 1, "maxLength": KEY_MAX, "pattern": "^[!-~]+$"},
            },
        )
        components.schema("Problem", _PROBLEM)
        for status, text in PROBLEMS.items():
            body: dict[str, Any] = {
                "description": text,
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }
            if status == 401:
                body["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "`Bearer`."}}
            if status == 429:
                body["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
            components.response(HTTPStatus(status).name, body)  # the name that flask-smorest uses too

    def register_blueprint(self, blp: Any, **_more: Any) -> None:
        self._app.extensions["flask-smorest"]["blp_name_to_api"][blp.name] = self
        self._app.register_blueprint(blp)
        blp.register_views_in_doc(self, self._app, self.spec, name=blp.name, parameters=None)
        self.spec.tag({"name": blp.title, "description": blp.description})


_PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "What is wrong, in the language of Accept-Language (Dutch by default)."},
        "status": {"type": "integer"},
        "errors": {
            "type": "object",
            "description": "Each wrong member by its path (`name`, `agenda.2.minutes`), with what would be right.",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
    },
    "required": ["type", "title", "status", "errors"],
}


def open_interface(app: Flask, rooms: Sequence[Room], *, title: str, description: str) -> Interface:
    """Add `/api/v1` and `/api/docs`; tokens, never cookies, so no CSRF protection is needed there."""
    app.config.update(API_TITLE=title)
    api = Interface(app, spec_kwargs={"info": {"description": description}, "servers": [{"url": "/"}]})
    for room in rooms:
        api.register_blueprint(room)
        app.extensions["csrf"].exempt(room)
    app.register_blueprint(docs.pages(api.spec))
    return api

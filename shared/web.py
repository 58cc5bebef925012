"""What every page of both services is made with.

A page parses, acts and answers with what stands here: `transaction`, `reading`, `render`, `require`, `me`, `today`, `naming`.
Whatever goes wrong is answered in one place, `answer_trouble`: a page in words for people, problem details (RFC 9457) for programs.

`site.py` opens the application itself, `api.py` adds the JSON API.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Protocol

import nh3
from flask import (
    Response,
    current_app,
    flash,
    g,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_wtf import FlaskForm
from markdown_it import MarkdownIt
from markupsafe import Markup
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException

from shared import language, login
from shared.db import Database
from shared.events import Misfit
from shared.language import HERE, N_, _
from shared.observability import facts
from shared.refusals import Invalid, NotAllowed, NotFound, Refusal

log = logging.getLogger(__name__)

COOKIE = "tuinkoepel"
_HERE = Path(__file__).parent


class Person(Protocol):
    """Whoever is logged in, as far as this module cares."""

    code: str
    name: str
    role: str
    email: str
    language: str


@dataclass(frozen=True)
class Item:
    """One entry of the main navigation. `endpoint` is a view; `role` hides it from who lacks that role."""

    label: str
    endpoint: str
    icon: str
    role: str = ""


@dataclass
class Site:
    """What makes a service a site of its own."""

    package: str
    folder: Path
    name: Callable[[], str]
    database: Database
    secret: bytes
    navigation: Sequence[Item]
    find_person: Callable[[Session, str], Person | None]
    find_by_email: Callable[[Session, str], Person | None]
    roles: Sequence[str] = ("member", "facilitator")
    """From the least to the most; who may do more may do less."""
    secure_cookies: bool = True
    mail_folder: Path | None = None
    """Set only in a demo: where its mails lie, shown at `/dev/mail`."""
    base_url: str = ""
    ready: Callable[[Session], None] = lambda _session: None
    foot: Callable[[], dict[str, Any]] = dict
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))


def site() -> Site:
    """The site that answers this request."""
    found: Site = current_app.extensions["site"]
    return found


def now() -> datetime:
    """This moment, in UTC."""
    return site().clock()


def today() -> date:
    """Today in the Netherlands."""
    return now().astimezone(HERE).date()


def transaction() -> AbstractContextManager[Session]:
    """A session that commits at the end of the block."""
    return site().database.transaction()


def reading() -> AbstractContextManager[Session]:
    """A session for looking only."""
    return site().database.reading()


# ---- Who asks --------------------------------------------------------------------------------------------------------------


def person() -> Person | None:
    """Who is logged in, looked up once per request: by cookie, or in the API by token."""
    if "person" not in g:
        g.person = None
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        cookie = request.cookies.get(COOKIE, "")
        by_token = request.path.startswith("/api/")  # a cookie must not act there: other sites' forms would carry it along
        if bearer if by_token else cookie:
            with reading() as session:
                code = login.whose_api_token(session, bearer) if by_token else login.who_is(session, cookie, now())
                g.person = site().find_person(session, code) if code else None
    found: Person | None = g.person
    return found


def me() -> str | None:
    """The code of who is logged in."""
    who = person()
    return who.code if who else None


def may(role: str) -> bool:
    """Whether who is logged in has this role, or one that may do more."""
    who = person()
    roles = site().roles
    return who is not None and who.role in roles and roles.index(who.role) >= roles.index(role)


def require(role: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A view for people with this role only; a reader who is not logged in is sent to the login page, and back afterwards."""

    def lock(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def locked(*args: Any, **kwargs: Any) -> Any:
            if person() is None:
                if request.path.startswith("/api/"):
                    raise NotLoggedIn
                return redirect(url_for("login.ask", next=request.full_path if request.method == "GET" else "/"))
            if not may(role):
                raise NotAllowed
            return view(*args, **kwargs)

        return locked

    return lock


class NotLoggedIn(Refusal):
    """A program without a valid token."""

    status = 401
    text = N_("Send a valid API token: Authorization: Bearer …")


# ---- What pages answer with ------------------------------------------------------------------------------------------------


class Form(FlaskForm):
    """A form in the reader's language, protected against forgery."""

    class Meta(FlaskForm.Meta):
        """Where WTForms finds its own words."""

        @property
        def locales(self) -> list[str]:
            return [language.spoken()]

        cache_translations = False


def render(template: str, /, **values: Any) -> str:
    """A page."""
    return render_template(template, **values)


def render_live(template: str, version: int, /, **values: Any) -> Response:
    """A page that changes only with `version`; a reader who has it already gets 304 and no body."""
    tag = f"{version}-{language.spoken()}-{_asset_hash('style.css')}"
    if tag in request.if_none_match:
        answer = Response(status=304)
    else:
        answer = current_app.make_response(render_template(template, **values))
    answer.set_etag(tag)
    answer.headers["Cache-Control"] = "no-cache"
    return answer


def flash_ok(words: str) -> None:
    """Say at the top of the next page that it worked."""
    flash(words, "ok")


_markdown = MarkdownIt("commonmark", {"html": False}).disable(["image"])
_TAGS = {
    "p",
    "br",
    "em",
    "strong",
    "a",
    "ul",
    "ol",
    "li",
    "blockquote",
    "code",
    "pre",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
}


@lru_cache(maxsize=256)
def markdown(source: str) -> Markup:
    """Markdown as safe HTML, wherever the text came from: an allow-list after a renderer that passes no HTML through."""
    html = _markdown.render(source).replace("<h1>", "<h2>").replace("</h1>", "</h2>")
    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes={"a": {"href"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noopener",
    )
    return Markup(clean)  # noqa: S704  # nh3 has just cleaned it


@lru_cache(maxsize=64)
def _asset_hash(path: str) -> str:
    file = _HERE / "static" / path
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else "0"


def asset(path: str) -> str:
    """The address of a shared static file; it changes with the file, so that browsers may keep it for a year."""
    return url_for("shared.static", filename=path, v=_asset_hash(path))


@contextmanager
def naming(form: FlaskForm) -> Iterator[None]:
    """Put a refusal's words beside the fields it names; what names none of them goes on its way."""
    try:
        yield
    except Refusal as refusal:
        known = {name: words for name, words in refusal.fields.items() if name in form}
        if not known:
            raise
        for name, words in known.items():
            form[name].errors = [*form[name].errors, str(words)]


# ---- What goes wrong -------------------------------------------------------------------------------------------------------


_TROUBLE = {
    400: N_("We could not read what was sent. Go back, reload the page and try again."),
    404: NotFound.text,
    405: N_("This address does not do that."),
    413: N_("What you sent is too large. The limit is 2 MB."),
    415: N_("Send JSON, with Content-Type: application/json."),
    422: Invalid.text,
    429: N_("That was a bit much at once. Wait a minute and try again."),
    500: N_("Something went wrong on our side. Nothing of yours is lost; try again in a minute."),
    503: N_("We cannot write anything down right now: the disk may be full. Please tell the person who runs this site."),
}


def answer_trouble(error: Exception) -> Response:
    """One answer for everything that goes wrong: a page for people, problem details for programs."""
    fields: dict[str, Any] = {}
    if isinstance(error, Refusal):
        status, words = error.status, str(error.words)
        fields = {name: [str(said)] for name, said in error.fields.items()}
    elif isinstance(error, Misfit):
        status, words, fields = 422, str(_(Invalid.text)), {error.field: [error.expected]}
    elif isinstance(error, OperationalError):
        status, words = 503, _(_TROUBLE[503])
        log.error("database.refused", extra=facts(error=str(error.orig)))
    elif isinstance(error, HTTPException):
        status = error.code or 500
        words = _(_TROUBLE.get(status, _TROUBLE[400] if status < 500 else _TROUBLE[500]))  # HTTP's own border
        data = getattr(error, "data", None) or {}
        fields = _flat(data.get("messages", {}).get("json", {}) or data.get("messages", {}).get("query", {}))
    else:
        status, words = 500, _(_TROUBLE[500])
        log.exception("request.failed", exc_info=error, extra=facts(path=request.path))
    if request.path.startswith(("/api/", "/federation/")):
        body = {"type": "about:blank", "title": words, "status": status, "errors": fields}
        answer: Response = current_app.json.response(body)  # type: ignore[assignment]  # Flask's own response class
        answer.mimetype = "application/problem+json"
    else:
        answer = current_app.make_response(render_template("message.html", title=words, text="", kind="warning"))
    answer.status_code = status
    if isinstance(error, HTTPException):
        allow = dict(error.get_headers()).get("Allow")
        if allow:
            answer.headers["Allow"] = allow
    if status == 401:  # RFC 9110 asks for it
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _flat(messages: Any, path: str = "") -> dict[str, list[str]]:
    """Marshmallow's nested messages as `path → texts`."""
    if isinstance(messages, dict):
        return {
            name: words
            for key, inner in messages.items()
            for name, words in _flat(inner, f"{path}.{key}" if path else str(key)).items()
        }
    return {path: [str(words) for words in (messages if isinstance(messages, list) else [messages])]}

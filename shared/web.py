"""What every page of both services is made with.

A page parses, acts and answers with what stands here: `transaction`, `reading`, `render`, `require`, `me`, `today`, `naming`.
Whatever goes wrong is answered in one place, `answer_trouble`: a page in words for people, problem details (RFC 9457) for programs.

`site.py` opens the application itself, `api.py` adds the JSON API.
"""

import hashlib
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from markupsafe import Markup, escape
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import NotFound as WerkzeugNotFound

from shared import deeds, language, login
from shared.db import Database
from shared.envelope import BodyTooLong
from shared.events import Misfit
from shared.language import HERE, N_, _
from shared.limits import Door, Limits
from shared.observability import facts
from shared.refusals import Invalid, NotAllowed, NotFound, Refusal

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
WRITES = {"POST", "PUT", "PATCH", "DELETE"}


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
    state: Path | None = None
    """The folder in which its worker holds a lock while it runs."""
    mail_folder: Path | None = None
    """Set only in a demo: where its mails lie, shown at `/dev/mail`."""
    base_url: str = ""
    map_background: bool = False
    """Whether the operator allows maps to fetch a background from the Kadaster."""
    ready: Callable[[Session], None] = lambda _session: None
    foot: Callable[[], dict[str, Any]] = dict
    profile: str = ""
    """The view of a person's own details, which takes their `code`."""
    cookie: str = "tuinkoepel"
    """Sites that share a host, as in the demo, must not share a session: a cookie knows no ports."""
    hosts: Sequence[str] = ()
    """Names it is reached by, beside that in `base_url`."""
    proxies: int = 0
    """How many proxies in front are believed about who asks."""
    limits: Limits = field(default_factory=Limits)
    deeds: Mapping[str, str] = field(default_factory=dict)
    """What the views of this service that write do, in marked words, for the trail (`trail.py`)."""
    name_people: Callable[[Session, Collection[str]], Mapping[str, str]] = lambda _session, _codes: {}
    """The names of people by their codes, of those too who have left."""
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if self.secure_cookies:  # no other host or path can set a cookie of this name, nor send it without TLS
            self.cookie = f"__Host-{self.cookie}"


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


@contextmanager
def transaction() -> Iterator[Session]:
    """A session that commits at the end of the block; if something changed, it is noted who did it (`deeds.py`)."""
    doer = me() if request.method in WRITES and "noted" not in g else None
    with site().database.transaction() as session:
        watch = deeds.Watch(session) if doer else None
        yield session
        if doer and watch and watch.sees(session):
            note_deed(session, doer, watch.made)


def note_deed(session: Session, doer: str, made: str = "") -> None:
    """Write down that this request was theirs: once for each, whatever it does."""
    path = request.view_args or {}
    subject = path.get("code") or path.get("slug") or made or next((str(value) for value in path.values()), "")
    what, way = (request.endpoint or "").removeprefix("api_"), deeds.API if by_program() else deeds.PAGE
    deeds.note(session, person=doer, what=what, subject=subject, way=way, now=now())
    g.noted = True


def reading() -> AbstractContextManager[Session]:
    """A session for looking only."""
    return site().database.reading()


# ---- Who asks --------------------------------------------------------------------------------------------------------------


def person() -> Person | None:
    """Who is logged in, looked up once per request: by cookie, or in the API by token."""
    if "person" not in g:
        g.person = None
        cookie = request.cookies.get(site().cookie, "")
        if by_program():  # a cookie must not act there: other sites' forms would carry it along
            g.person = _whose_token(bearer())
        elif cookie:
            with reading() as session:
                code = login.who_is(session, cookie, now())
                g.person = site().find_person(session, code) if code else None
    found: Person | None = g.person
    return found


def by_program() -> bool:
    """Whether a program asks: it is known by its token, and gets problem details instead of a page."""
    return request.path.startswith(("/api/", "/federation/")) and not request.path.startswith("/api/docs")


def bearer() -> str:
    """The API token that was sent along, if any."""
    scheme, _space, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _whose_token(token: str) -> Person | None:
    if not token:
        return None
    with reading() as session:
        found = login.whose_api_token(session, token, today())
        who = site().find_person(session, found[0]) if found else None
    if who is not None and found is not None and found[1]:
        try:
            with site().database.transaction() as session:
                login.note_use(session, token, today())
        except OperationalError:  # a full disk must not keep a program from reading
            log.warning("token.use_not_noted")
    return who


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
                if by_program():
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


class TooMuch(Refusal):
    """Somebody comes more often than the door lets in."""

    status = 429
    text = N_("That was a bit much at once. Wait a minute and try again.")

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = max(1, math.ceil(seconds))


def hold_back(door: Door, guest: str) -> None:
    """Count this guest's turn. Raises `TooMuch`."""
    wait = site().limits.wait(door, guest)
    if wait:
        log.warning("request.held_back", extra=facts(door=door.name))
        raise TooMuch(wait)


# ---- What pages answer with ------------------------------------------------------------------------------------------------


_KINDER = {
    "This field is required.": N_("Fill this in."),
    "Not a valid date value.": N_("Write a date, such as 20-06-2027."),
    "Not a valid time value.": N_("Write a time, such as 19:30."),
    "Not a valid integer value.": N_("Write a whole number, such as 12."),
    "Number must be between %(min)s and %(max)s.": N_("Write a number from %(min)s to %(max)s."),
    "Field must be between %(min)d and %(max)d characters long.": N_("Write %(min)d to %(max)d characters."),
    "Number must be at least %(min)s.": N_("Write a number of at least %(min)s."),
    "Number must be at most %(max)s.": N_("Write a number of at most %(max)s."),
    "Not a valid decimal value.": N_("Write a number, such as 1,5."),
    "Not a valid choice.": N_("Choose something from the list."),
    "'%(value)s' is not a valid choice for this field.": N_("Choose something from the list."),
    "'%(value)s' are not valid choices for this field.": N_("Choose something from the list."),
    "Invalid input.": N_("This is not written as it should be."),
    "Invalid Choice: could not coerce.": N_("Choose something from the list."),
}
"""What WTForms says, and what we say instead: shorter, and in the reader's language."""
_TOO_LONG = N_("This is too long: at most %(max)d characters."), N_("This is too short: at least %(min)d characters.")


class _OurWords:
    """WTForms asks here for its texts."""

    def gettext(self, text: str) -> str:
        return _(_KINDER.get(text, text))

    def ngettext(self, one: str, _more: str, n: int) -> str:
        words = {"%(max)d" in one: _TOO_LONG[0], "%(min)d" in one: _TOO_LONG[1]}.get(True, one)  # which place it has
        return self.gettext(words)


class Form(FlaskForm):
    """A form in the reader's language, protected against forgery."""

    class Meta(FlaskForm.Meta):
        """Where WTForms finds its words."""

        cache_translations = False

        def get_translations(self, form: Any) -> Any:
            return _OurWords()


def render(template: str, /, **values: Any) -> str:
    """A page."""
    return render_template(template, **values)


def render_live(template: str, version: int, /, **values: Any) -> Response:
    """A page that changes only with `version`; a reader who has it already gets 304 and no body."""
    reader = hashlib.sha256(f"{me()}".encode()).hexdigest()[:8]  # who logs out must not see a kept page with their name
    tag = f"{version}-{language.spoken()}-{_asset_hash('style.css')}-{reader}"
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


def leading_out(url: str, words: str) -> Markup:
    """A link to elsewhere, in another tab: what is being filled in around it stays."""
    return Markup('<a href="{}" target="_blank" rel="noopener">{}</a>').format(url, words)


@lru_cache(maxsize=64)
def _asset_hash(path: str) -> str:
    file = _HERE / "static" / path
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else "0"


def asset(path: str) -> str:
    """The address of a shared static file; it changes with the file, so that browsers may keep it for a year."""
    return _asset(request.script_root, path)


@lru_cache(maxsize=256)
def _asset(_root: str, path: str) -> str:
    """Kept, because a page asks a hundred times for its icons; `_root` is where a proxy has put us, and is part of the address."""
    return url_for("shared.static", filename=path, v=_asset_hash(path))


def icon(name: str) -> Markup:
    """An icon of the set."""
    return _icon(asset("vendor/icons.svg"), name)


@lru_cache(maxsize=256)
def _icon(icons: str, name: str) -> Markup:
    drawn = '<svg class="icon" width="20" height="20" aria-hidden="true"><use href="{}#{}"/></svg>'
    return Markup(drawn).format(icons, name)  # noqa: S704  # our own words; `format` escapes the rest


def remembered(macro: Any, rows: Iterable[tuple[Any, ...]]) -> Markup:
    """What a macro makes of each row's words in the reader's language, one after the other; made once, and kept for later pages.

    For long lists, whose rows are half the work of a page. The macro may look at nothing but its words.
    """
    here, made = (macro.name, language.spoken(), request.script_root), []
    for words in rows:
        key = (*here, *words)
        said = _made.get(key)
        if said is None:
            if len(_made) >= MADE_MAX:
                _made.clear()
            said = _made[key] = macro(*words)
        made.append(said)
    return Markup("".join(made))  # noqa: S704  # each is Markup


MADE_MAX = 1000
"""Rows that are kept, of a kilobyte or so each."""
_made: dict[tuple[Any, ...], Markup] = {}


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
    429: TooMuch.text,
    500: N_("Something went wrong on our side. Nothing of yours is lost; try again in a minute."),
    503: N_("We cannot write anything down right now: the disk may be full. Please tell the person who runs this site."),
}

_TO_PROGRAMS: dict[type[Exception], str] = {
    NotAllowed: N_("The person of this token may not do this."),
    NotFound: N_("This does not exist, or no longer does."),
    WerkzeugNotFound: N_("This does not exist, or no longer does."),
}
"""What is not a page to a program."""


def answer_trouble(error: Exception) -> Response:
    """One answer for everything that goes wrong: a page for people, problem details for programs."""
    fields: dict[str, Any] = {}
    if isinstance(error, Refusal):
        status, words = error.status, str(error.words)
        fields = {name: [str(said)] for name, said in error.fields.items()}
    elif isinstance(error, Misfit):
        status, words, fields = 422, str(_(Invalid.text)), {error.field: [error.expected]}
    elif isinstance(error, BodyTooLong):
        status, words = 422, _(N_("This is too much for one message: all texts together may have 64 kB."))
    elif isinstance(error, OperationalError):
        status, words = 503, _(_TROUBLE[503])
        log.error("database.refused", extra=facts(error=str(error.orig)))
    elif isinstance(error, HTTPException):
        status = error.code or 500
        words = _(_TROUBLE.get(status, _TROUBLE[400] if status < 500 else _TROUBLE[500]))  # HTTP's own border
    else:
        status, words = 500, _(_TROUBLE[500])
        log.exception("request.failed", exc_info=error, extra=facts(path=request.path))
    if by_program():
        words = _(_TO_PROGRAMS.get(type(error), "")) or words
        body = {"type": "about:blank", "title": words, "status": status, "errors": fields}
        answer: Response = current_app.json.response(body)  # type: ignore[assignment]  # Flask's own response class
        answer.mimetype = "application/problem+json"
        answer.content_language.add(language.spoken())
    else:
        answer = current_app.make_response(_page_in_words(words))
    answer.status_code = status
    if isinstance(error, TooMuch):
        answer.headers["Retry-After"] = str(error.seconds)
    if isinstance(error, HTTPException):
        allow = dict(error.get_headers()).get("Allow")
        if allow:
            answer.headers["Allow"] = allow
    if status == 401:  # RFC 9110 asks for it
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _page_in_words(words: str) -> str:
    """A page like the others; or, where not even the name of the circle can be looked up, the words alone."""
    try:
        return render_template("message.html", title=words, text="", kind="warning")
    except Exception:
        log.exception("trouble.page_failed")
        head = f'<!doctype html><html lang="{language.spoken()}"><meta charset="utf-8">'
        return f"{head}<title>{escape(words)}</title><p>{escape(words)}</p></html>"

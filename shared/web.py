"""The web side that both services share: one site, its doors locked by default.

`open_site` makes a Flask application out of a `Site`: sessions and login, CSRF, a strict Content-Security-Policy, the reader's
language, refusals answered in words (a page for people, problem details (RFC 9457) for programs), `/healthz`, `/readyz`,
`/metrics`. Pages parse, act and answer with what stands here: `transaction`, `reading`, `render`, `require`, `me`, `today`.

A web process holds no broker connection and waits for nobody.
"""

import hashlib
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from email import policy
from email.parser import BytesParser
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Protocol

import flask_smorest
import nh3
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    flash,
    g,
    redirect,
    render_template,
    request,
    send_from_directory,
    url_for,
)
from flask_wtf import CSRFProtect, FlaskForm
from jinja2 import ChoiceLoader, FileSystemLoader
from markdown_it import MarkdownIt
from markupsafe import Markup
from prometheus_client import generate_latest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException
from wtforms import EmailField
from wtforms.validators import InputRequired, Length, Regexp

from shared import labels, language, login
from shared.db import Database
from shared.events import Misfit
from shared.language import HERE, LANGUAGES, N_, _
from shared.mail import queue_mail
from shared.observability import METRICS, REQUESTS, facts
from shared.refusals import Invalid, NotAllowed, NotFound, Refusal

log = logging.getLogger(__name__)

COOKIE = "tuinkoepel"
REQUEST_MAX = 2 * 1024 * 1024
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
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


# ---- The application -------------------------------------------------------------------------------------------------------


def open_site(of: Site) -> Flask:
    """The application of a service, without its pages."""
    app = Flask(of.package, root_path=str(of.folder), static_folder="static", template_folder="templates")
    app.extensions["site"] = of
    app.config.update(
        SECRET_KEY=of.secret,
        MAX_CONTENT_LENGTH=REQUEST_MAX,
        SESSION_COOKIE_NAME="tuinkoepel_form",
        SESSION_COOKIE_SECURE=of.secure_cookies,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_HTTPONLY=True,
        WTF_CSRF_TIME_LIMIT=None,
        SEND_FILE_MAX_AGE_DEFAULT=31_536_000,
        API_TITLE=f"Tuinkoepel {of.package.rpartition('.')[2]}",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/api/v1",
        OPENAPI_JSON_PATH="openapi.json",
    )
    language.use_catalogues(of.folder / "translations")
    app.jinja_loader = ChoiceLoader([FileSystemLoader(of.folder / "templates"), FileSystemLoader(_HERE / "templates")])
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_callables(language.gettext_plain, language.ngettext_plain, newstyle=True)  # type: ignore[attr-defined]  # the extension adds it
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(
        day=language.day, month=language.month, clock=language.clock, number=language.number, day_time=language.day_time,
        dateformat=language.date_part, label=labels.label, markdown=markdown,
    )  # fmt: skip
    app.jinja_env.globals.update(site=_SiteInTemplates(), may=may, foot_facts=lambda: site().foot())
    CSRFProtect(app)
    _language_first(app)
    _headers_last(app)
    _answers_to_trouble(app)
    app.register_blueprint(_shared_files())
    app.register_blueprint(_doors())
    app.register_blueprint(_operations())
    if of.mail_folder is not None:
        app.register_blueprint(_demo_post(of.mail_folder))
    return app


class Interface(flask_smorest.Api):
    """The JSON API: flask-smorest, whose own error handler would also catch the pages' errors (`libraries.md` §0.8)."""

    def handle_http_exception(self, error: HTTPException) -> Any:
        return _trouble(error)


def open_interface(app: Flask, blueprints: Sequence[Any]) -> Interface:
    """Add `/api/v1`; tokens, never cookies, so no CSRF protection is needed there."""
    api = Interface(app)
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
        app.extensions["csrf"].exempt(blueprint)
    return api


class _SiteInTemplates:
    """What the layout asks for as `site`."""

    asset = staticmethod(asset)

    @property
    def name(self) -> str:
        return site().name()

    @property
    def language(self) -> str:
        return language.spoken()

    @property
    def languages(self) -> list[dict[str, Any]]:
        here = request.full_path.rstrip("?") if request.method == "GET" else "/"
        return [
            {
                "code": code,
                "label": label,
                "url": url_for("login.speak", code=code, next=here),
                "active": code == language.spoken(),
            }
            for code, label in LANGUAGES.items()
        ]

    @property
    def navigation(self) -> list[dict[str, Any]]:
        here = request.endpoint or ""
        return [
            {
                "label": _(item.label),
                "url": url_for(item.endpoint),
                "icon": item.icon,
                "active": here.rpartition(".")[0] == item.endpoint.rpartition(".")[0],
            }
            for item in site().navigation
            if not item.role or may(item.role)
        ]

    @property
    def person(self) -> Person | None:
        return person()

    login_url = property(lambda _self: url_for("login.ask"))
    logout_url = property(lambda _self: url_for("login.leave"))
    home_url = "/"


def _language_first(app: Flask) -> None:
    @app.before_request
    def speak() -> None:
        wanted = request.cookies.get("language") or request.accept_languages.best_match(list(LANGUAGES)) or "nl"
        g.speaking = language.speak(wanted)
        g.speaking.__enter__()

    @app.teardown_request
    def fall_silent(_error: BaseException | None) -> None:
        speaking = g.pop("speaking", None)
        if speaking is not None:
            speaking.__exit__(None, None, None)


def _headers_last(app: Flask) -> None:
    @app.after_request
    def protect(answer: Response) -> Response:
        answer.headers.setdefault("Content-Security-Policy", CSP)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "same-origin"
        answer.headers["Permissions-Policy"] = "camera=(), microphone=(), geolocation=(self)"
        if site().secure_cookies:
            answer.headers["Strict-Transport-Security"] = "max-age=31536000"
        if answer.mimetype == "text/html":
            answer.headers.setdefault("Cache-Control", "no-store" if g.get("person") else "no-cache")
            answer.vary.update(("Cookie", "Accept-Language"))
        REQUESTS.labels(f"{answer.status_code // 100}xx").inc()
        return answer


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


def _trouble(error: Exception) -> Response:
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


def _answers_to_trouble(app: Flask) -> None:
    for kind in (Refusal, Misfit, HTTPException, OperationalError, Exception):
        app.register_error_handler(kind, _trouble)


def _shared_files() -> Blueprint:
    return Blueprint("shared", __name__, static_folder=str(_HERE / "static"), static_url_path="/shared")


# ---- Login -----------------------------------------------------------------------------------------------------------------


class LoginForm(Form):
    """Where to send the link."""

    email = EmailField(
        validators=[InputRequired(), Length(max=320), Regexp(r"[^@\s]+@[^@\s]+\.[^@\s]+")],
        render_kw={"autocomplete": "email"},
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.email.label.text = _("E-mail address")


class EnterForm(Form):
    """Only the button."""


def _inside(address: str) -> str:
    """An address on this site to go on to, and never one elsewhere."""
    return address if address.startswith("/") and not address.startswith(("//", "/\\")) and "\n" not in address else "/"


def _doors() -> Blueprint:
    doors = Blueprint("login", __name__, url_prefix="/login")

    @doors.route("", methods=["GET", "POST"])
    def ask() -> Any:
        form = LoginForm()
        if not form.validate_on_submit():
            return render("login.html", form=form), 422 if form.is_submitted() else 200
        with transaction() as session:
            who = site().find_by_email(session, str(form.email.data).strip().casefold())
            token = login.make_link(session, who.code, now()) if who else None
            if who and token:
                with language.speak(who.language):
                    address = site().base_url + url_for("login.open_link", token=token, next=_inside(request.args.get("next", "/")))
                    queue_mail(
                        session,
                        to=who.email,
                        subject=_("Log in at %(site)s", site=site().name()),
                        text=_(
                            "Hello %(name)s,\n\nThis link logs you in. It works once, for half an hour:\n\n%(link)s\n\n"
                            "Did you not ask for this? Then you can throw this mail away.",
                            name=who.name,
                            link=address,
                        ),
                        now=now(),
                    )
        mail_url = url_for("dev.mail") if site().mail_folder else None
        return render("login_sent.html", login_url=url_for("login.ask"), minutes=30, mail_url=mail_url)

    @doors.route("/link/<token>", methods=["GET", "POST"])
    def open_link(token: str) -> Any:
        form = EnterForm()
        if form.validate_on_submit():
            with transaction() as session:
                cookie = login.enter(session, token, now())
            if cookie:
                answer = redirect(_inside(request.args.get("next", "/")))
                answer.set_cookie(
                    COOKIE,
                    cookie,
                    max_age=login.SESSION_LASTS,
                    secure=site().secure_cookies,
                    httponly=True,
                    samesite="Lax",
                )
                return answer
        with reading() as session:
            code = login.who_may_enter(session, token, now())
            who = site().find_person(session, code) if code else None
        if who is None:
            way_on = {"url": url_for("login.ask"), "label": _("Ask for a new link")}
            words = _("A link works once, and for a short while. Ask for a new one; it is there in a moment.")
            return render("message.html", title=_("This link does not work any more"), text=words, kind="info", way_on=way_on), 410
        return render("login_confirm.html", form=form, name=who.name)

    @doors.post("/leave")
    def leave() -> Any:
        with transaction() as session:
            login.leave(session, request.cookies.get(COOKIE, ""))
        answer = redirect("/")
        answer.delete_cookie(COOKIE)
        return answer

    @doors.get("/language/<code>")
    def speak(code: str) -> Any:
        answer = redirect(_inside(request.args.get("next", "/")))
        if code in LANGUAGES:
            answer.set_cookie("language", code, max_age=31_536_000, secure=site().secure_cookies, httponly=True, samesite="Lax")
        return answer

    return doors


# ---- For operators and demos -----------------------------------------------------------------------------------------------


def _operations() -> Blueprint:
    pages = Blueprint("operations", __name__)

    @pages.get("/healthz")
    def healthz() -> Any:
        return {"status": "ok"}

    @pages.get("/readyz")
    def readyz() -> Any:
        with reading() as session:
            session.execute(text("SELECT 1"))
            site().ready(session)
        return {"status": "ok"}

    @pages.get("/metrics")
    def metrics() -> Any:
        return Response(generate_latest(METRICS), mimetype="text/plain")

    @pages.get("/favicon.ico")
    def favicon() -> Any:
        return Response(status=204)

    return pages


def _demo_post(folder: Path) -> Blueprint:
    pages = Blueprint("dev", __name__, url_prefix="/dev")

    @pages.get("/mail")
    def mail() -> Any:
        files = sorted(folder.glob("*.eml"), key=lambda file: file.stat().st_mtime, reverse=True)[:30]
        mails = []
        for file in files:
            message = BytesParser(policy=policy.default).parsebytes(file.read_bytes())
            words = message.get_content()
            link = next((word for word in words.split() if word.startswith("http")), None)
            mails.append(
                {
                    "to": message["To"],
                    "subject": message["Subject"],
                    "text": words,
                    "link": link,
                    "sent": message["Date"],
                }
            )
        return render("dev_mail.html", mails=mails)

    return pages


def new_code() -> str:
    """A random code for a new thing: 12 letters and digits."""
    return secrets.token_hex(6)


__all__ = [
    "Form", "Interface", "Item", "NotLoggedIn", "Person", "Site", "abort", "asset", "flash_ok", "markdown", "may", "me", "naming",
    "new_code", "now", "open_interface", "open_site", "person", "reading", "render", "render_live", "require",
    "send_from_directory", "site", "today", "transaction",
]  # fmt: skip

"""A site: what turns a service into a web application, its doors locked by default.

`open_site` makes a Flask application out of a `Site`: CSRF, a strict Content-Security-Policy, the reader's language, errors in
words (`web.answer_trouble`), and the pages that every site has: login by a link in the mail, `/healthz`, `/readyz`, `/metrics`,
and in a demo `/dev/mail`. A web process holds no broker connection and waits for nobody.

A request passes, in this order: the reader's language, so that a refusal is understood · the name it was sent to
(`_known_by_name`) · how often this guest came (`_not_too_often`, `limits.py`) · where a form came from (`_from_our_own_pages`) ·
its CSRF token. What each door defends against, and what not, stands in `deploy/security.md`.
"""

import gzip
import hashlib
import io
import secrets
from collections.abc import Callable
from datetime import date, time
from email import policy
from email.parser import BytesParser
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, after_this_request, g, redirect, request, session, url_for
from flask_wtf import CSRFProtect
from jinja2 import ChoiceLoader, FileSystemLoader
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix
from wtforms import BooleanField, EmailField, FormField, IntegerField, SelectField, SelectMultipleField, StringField
from wtforms.validators import InputRequired, Length, Regexp
from wtforms.widgets import CheckboxInput, ListWidget

from shared import deeds, labels, language, limits, login, operations, tokens, trail
from shared.events import Misfit
from shared.fields import MarkedText, Rows
from shared.language import LANGUAGES, N_, Words, _
from shared.mail import queue_mail
from shared.observability import count_answer
from shared.refusals import Refusal
from shared.web import (
    WRITES,
    Form,
    Person,
    Site,
    answer_trouble,
    asset,
    bearer,
    by_program,
    hold_back,
    icon,
    markdown,
    may,
    note_deed,
    now,
    person,
    reading,
    remembered,
    render,
    site,
    today,
    transaction,
)

REQUEST_MAX = 2 * 1024 * 1024
FORM_FIELDS_MAX = 1000
FORM_TEXT_MAX = 1024 * 1024
"""Bytes of all texts of a form with a file: five of the longest, in emoji."""
ADDRESS_MAX = 2000
"""Characters of an address to go back to."""
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
COMPRESSED = {"text/html", "text/css", "text/javascript", "application/javascript", "application/json", "image/svg+xml"}
COMPRESSED_LEAST = 1000
"""Bytes; below, it is not worth the trouble."""
_HERE = Path(__file__).parent


def open_site(of: Site) -> Flask:
    """The application of a service, without its pages."""
    app = Flask(of.package, root_path=str(of.folder), static_folder="static", template_folder="templates")
    app.extensions["site"] = of
    app.config.update(
        SECRET_KEY=of.secret,
        MAX_CONTENT_LENGTH=REQUEST_MAX,
        MAX_FORM_PARTS=FORM_FIELDS_MAX,
        MAX_FORM_MEMORY_SIZE=FORM_TEXT_MAX,
        SESSION_COOKIE_NAME=f"{of.cookie}_form",
        SESSION_COOKIE_SECURE=of.secure_cookies,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_HTTPONLY=True,
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_SSL_STRICT=False,  # it wants a Referer, which login pages must not send; see _from_our_own_pages
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
        day=_day_in_one_piece, month=language.month, clock=language.clock, number=language.number, day_time=language.day_time,
        dateformat=language.date_part, label=labels.label, markdown=markdown, inside=language.inside,
    )  # fmt: skip
    app.jinja_env.globals.update(site=_SiteInTemplates(), may=may, remembered=remembered, foot_facts=lambda: site().foot())
    _language_first(app)
    _known_by_name(app, of)
    _not_too_often(app)
    _from_our_own_pages(app)
    CSRFProtect(app)
    _small_on_the_wire(app)
    _headers_last(app)
    _answers_to_trouble(app)
    app.register_blueprint(_shared_files())
    app.register_blueprint(_doors())
    app.register_blueprint(operations.pages(of.state))
    app.register_blueprint(tokens.pages(of.roles[0]))
    app.register_blueprint(trail.pages(of.roles[-1]))
    if of.mail_folder is not None:
        app.register_blueprint(_demo_post(of.mail_folder))
    if of.proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=of.proxies, x_proto=of.proxies)  # type: ignore[method-assign]  # as Flask says
    return app


_Made = TypeVar("_Made")


class _SiteInTemplates:
    """What the layout asks for as `site`."""

    asset = staticmethod(asset)
    icon = staticmethod(icon)

    @property
    def name(self) -> str:
        return self._asked_again("site_name", site().name)

    @property
    def language(self) -> str:
        return language.spoken()

    @property
    def languages(self) -> list[dict[str, Any]]:
        return self._asked_again("languages", self._languages)

    @property
    def navigation(self) -> list[dict[str, Any]]:
        return self._asked_again("navigation", self._navigation)

    @staticmethod
    def _asked_again(name: str, make: Callable[[], _Made]) -> _Made:
        """The layout asks again and again; made once a page."""
        made: _Made = g.get(name) or make()
        setattr(g, name, made)
        return made

    @staticmethod
    def _languages() -> list[dict[str, Any]]:
        shows = request.method == "GET" or (request.url_rule is not None and "GET" in (request.url_rule.methods or ()))
        here = request.full_path.rstrip("?") if shows else "/"
        return [
            {
                "code": code,
                "label": label,
                "url": url_for("login.speak", code=code, next=here),
                "active": code == language.spoken(),
            }
            for code, label in LANGUAGES.items()
        ]

    @staticmethod
    def _navigation() -> list[dict[str, Any]]:
        items = [(url_for(item.endpoint), item) for item in site().navigation if not item.role or may(item.role)]
        within = [url for url, _item in items if f"{request.path}/".startswith(f"{url.rstrip('/')}/") and url != "/"]
        here = max(within, key=len, default=request.path)  # /circle/people/… is under people, not under the circle
        return [{"label": _(item.label), "url": url, "icon": item.icon, "active": url == here} for url, item in items]

    @property
    def person(self) -> Person | None:
        return person()

    @property
    def profile_url(self) -> str | None:
        who = person()
        return url_for(site().profile, code=who.code) if who and site().profile else None

    @property
    def trail_url(self) -> str | None:
        return url_for("trail.index") if may(site().roles[-1]) else None

    @property
    def today(self) -> date:
        return today()

    login_url = property(lambda _self: url_for("login.ask"))
    logout_url = property(lambda _self: url_for("login.leave"))
    home_url = "/"


def _day_in_one_piece(value: date, *, style: str = "long") -> str:
    """A date that no line end cuts in two, unless it is a long one."""
    written = language.day(value, style=style)
    return written if style == "full" else written.replace(" ", "\N{NO-BREAK SPACE}")


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


class UnknownName(Refusal):
    """Somebody else's name leads here, or somebody made one up."""

    status, text = 400, N_("This site does not go by that name. Look at the address, or ask who runs it.")


class FromElsewhere(Refusal):
    """A page of another site wants to change something here."""

    status, text = 400, N_("This was sent from another site. Nothing was changed. Open this page yourself and try again.")


def _known_by_name(app: Flask, of: Site) -> None:
    """Answer to our own names only: a foreign one is a rebound DNS name, or wants to stand in somebody's cache.

    No link is made from the name in a request: mails have `base_url`. The machine itself may always ask, and what watches over us
    knows us by number.
    """
    own = {_host_in(f"//{name}") for name in of.hosts} | {_host_in(of.base_url)} | LOOPBACK

    @app.before_request
    def look() -> None:
        if request.blueprint != "operations" and _host_in(f"//{request.environ.get('HTTP_HOST', '')}") not in own:
            raise UnknownName


def _host_in(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _not_too_often(app: Flask) -> None:
    @app.before_request
    def count() -> None:
        guest, writes = limits.client_of(request.remote_addr), request.method in WRITES
        if request.path.startswith("/federation/"):
            hold_back(limits.JOINING if request.path.endswith("/join") else limits.CALLS, guest)
        elif by_program():
            hold_back(limits.API, guest)
            if bearer():
                hold_back(limits.API_TOKEN, hashlib.sha256(bearer().encode()).hexdigest())
        elif request.endpoint == "login.open_link":
            hold_back(limits.LOGIN_LINKS, guest)
        elif writes:
            hold_back(limits.LOGIN_MAILS if request.endpoint == "login.ask" else limits.FORMS, guest)


def _from_our_own_pages(app: Flask) -> None:
    """A second lock beside the CSRF token: browsers say themselves where a form comes from. Old ones do not, and have the token."""

    @app.before_request
    def look() -> None:
        if request.method in WRITES and not by_program():
            origin = request.headers.get("Sec-Fetch-Site", "none")
            if origin not in {"same-origin", "none"}:
                raise FromElsewhere


def _small_on_the_wire(app: Flask) -> None:
    """Text goes compressed, also where no proxy stands in front: a garden has a poor line.

    A file name of random length in the gzip header hides how long a page with a form's token really is (the BREACH attack).
    """

    @app.after_request
    def compress(answer: Response) -> Response:
        if answer.status_code != 200 or answer.mimetype not in COMPRESSED or "Content-Encoding" in answer.headers:
            return answer
        if answer.is_streamed and not answer.direct_passthrough:  # a page that is written while it works, to be seen at once
            return answer
        answer.vary.add("Accept-Encoding")
        if not request.accept_encodings.quality("gzip") or "Content-Range" in answer.headers:
            return answer
        answer.direct_passthrough = False
        plain = answer.get_data()
        if len(plain) < COMPRESSED_LEAST:
            return answer
        packed = io.BytesIO()
        level = 3 if answer.mimetype == "text/html" else 6  # a page is made for one reader, a file is kept for a year
        with gzip.GzipFile(secrets.token_hex(secrets.randbelow(50)), "wb", level, packed, mtime=0) as writer:
            writer.write(plain)
        answer.set_data(packed.getvalue())
        answer.headers["Content-Encoding"] = "gzip"
        tag, _weak = answer.get_etag()
        if tag:
            answer.set_etag(tag, weak=True)
        return answer


def _headers_last(app: Flask) -> None:
    @app.after_request
    def protect(answer: Response) -> Response:
        answer.headers.setdefault("Content-Security-Policy", CSP)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers.setdefault("Referrer-Policy", "same-origin")
        answer.headers["Permissions-Policy"] = "camera=(), microphone=(), geolocation=(), payment=(), usb=()"
        answer.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        if site().secure_cookies:
            answer.headers["Strict-Transport-Security"] = "max-age=31536000"
        if answer.mimetype == "text/html":
            answer.vary.update(("Cookie", "Accept-Language"))
        if g.get("person") and request.endpoint not in {"static", "shared.static"}:
            answer.headers["Cache-Control"] = "no-store"  # the next one at this computer must not go back to it
        elif answer.mimetype == "text/html":
            answer.headers.setdefault("Cache-Control", "no-cache")
        count_answer(answer.status_code)
        return answer


def _answers_to_trouble(app: Flask) -> None:
    for kind in (Refusal, Misfit, HTTPException, OperationalError, Exception):
        app.register_error_handler(kind, answer_trouble)


def _shared_files() -> Blueprint:
    return Blueprint("shared", __name__, static_folder=str(_HERE / "static"), static_url_path="/shared")


# ---- Login -----------------------------------------------------------------------------------------------------------------


class LoginForm(Form):
    """Where to send the link."""

    email = EmailField(
        validators=[
            InputRequired(),
            Length(max=320),
            Regexp(r"[^@\s]+@[^@\s]+\.[^@\s]+", message=Words(N_("Write an e-mail address, such as naam@voorbeeld.nl."))),
        ],
        render_kw={"autocomplete": "email"},
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.email.label.text = _("E-mail address")


class EnterForm(Form):
    """Only the button."""


def _inside(address: str) -> str:
    """An address on this site to go on to, and never one elsewhere: browsers read a backslash as / and drop tabs and line ends."""
    plain = address.isprintable() and "\\" not in address and len(address) <= ADDRESS_MAX
    return address if plain and address.startswith("/") and not address.startswith("//") else "/"


def _cookie_rules() -> dict[str, Any]:
    return {"secure": site().secure_cookies, "httponly": True, "samesite": "Lax"}


def _keep_quiet(answer: Response) -> Response:
    """An address with a secret in it is told to nobody, and kept nowhere."""
    answer.headers.update({"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"})
    return answer


def _queue_link(db: Session, who: Person, token: str) -> None:
    with language.speak(who.language):
        address = site().base_url + url_for("login.open_link", token=token, next=_inside(request.args.get("next", "/")))
        queue_mail(
            db,
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


def _doors() -> Blueprint:
    doors = Blueprint("login", __name__, url_prefix="/login")

    @doors.route("", methods=["GET", "POST"])
    def ask() -> Any:
        form = LoginForm()
        if not form.validate_on_submit():
            return render("login.html", form=form), 422 if form.is_submitted() else 200
        with transaction() as db:
            who = site().find_by_email(db, str(form.email.data).strip().casefold())
            token = login.make_link(db, who.code, now()) if who else None
            if who and token:
                _queue_link(db, who, token)
            else:  # the same work for whom we do not know, or who asked too often: the clock must not tell them apart
                login.pretend_link(db, now())
        mail_url = url_for("dev.mail") if site().mail_folder else None
        return render("login_sent.html", login_url=url_for("login.ask"), minutes=30, mail_url=mail_url)

    @doors.route("/link/<token>", methods=["GET", "POST"])
    def open_link(token: str) -> Any:
        form = EnterForm()
        with reading() as db:
            code = login.who_may_enter(db, token, now())
            who = site().find_person(db, code) if code else None
        if who and form.validate_on_submit():  # `who` is None too for somebody who left after asking
            with site().database.transaction() as db:
                cookie = login.enter(db, token, now())
                login.leave(db, request.cookies.get(site().cookie, ""))  # whoever was logged in here no longer is
                if cookie:
                    note_deed(db, who.code)
                    deeds.forget_old(db, now())
            if cookie:
                session.clear()  # the form's token of before, which somebody else may know, works no more
                answer = redirect(_inside(request.args.get("next", "/")))
                answer.set_cookie(site().cookie, cookie, max_age=login.SESSION_LASTS, **_cookie_rules())
                return answer
            who = None
        after_this_request(_keep_quiet)
        if who is None:
            way_on = {"url": url_for("login.ask"), "label": _("Ask for a new link")}
            words = _("A link works once, and for a short while. Ask for a new one; it is there in a moment.")
            return render("message.html", title=_("This link does not work any more"), text=words, kind="info", way_on=way_on), 410
        return render("login_confirm.html", form=form, name=who.name)

    @doors.post("/leave")
    def leave() -> Any:
        with transaction() as db:
            login.leave(db, request.cookies.get(site().cookie, ""))
        session.clear()
        answer = redirect("/")
        answer.delete_cookie(site().cookie, **_cookie_rules())
        return answer

    @doors.get("/language/<code>")
    def speak(code: str) -> Any:
        answer = redirect(_inside(request.args.get("next", "/")))
        if code in LANGUAGES:
            answer.set_cookie("language", code, max_age=31_536_000, **_cookie_rules())
        return answer

    return doors


# ---- For operators and demos -----------------------------------------------------------------------------------------------


class SampleRow(Form):
    """A row of the sample."""

    class Meta(Form.Meta):
        """The form around it has the token."""

        csrf = False

    title = StringField(Words("Regel %(n)s: wat"))
    minutes = IntegerField(Words("Regel %(n)s: minuten"), render_kw={"inputmode": "numeric", "min": 0})


class SampleForm(Form):
    """Every kind of field, for `/dev/components`."""

    name = StringField("Naam", description="Zo staat het op de kaart.", validators=[InputRequired()])
    story = MarkedText("Het verhaal", render_kw={"rows": 4})
    kind = SelectField("Soort")
    purposes = SelectMultipleField("Waarvoor", widget=ListWidget(prefix_label=False), option_widget=CheckboxInput())
    open = BooleanField("Bezoek is welkom")
    agenda = Rows(FormField(SampleRow), Words("Agenda"), description="Een lege regel telt niet mee.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind.choices, self.purposes.choices = labels.choices("initiative_kind"), labels.choices("purpose")


def _demo_post(folder: Path) -> Blueprint:
    """What exists in a demo only: its mails, and the parts that pages are made of."""
    pages = Blueprint("dev", __name__, url_prefix="/dev")

    @pages.get("/components")
    def components() -> Any:
        form = SampleForm(data={"agenda": [{"title": "Inloop", "minutes": 15}, {"title": "Rondje", "minutes": 45}]})
        form.name.errors = [_("Fill this in.")]
        return render("dev_components.html", form=form, starts=time(19, 30))

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

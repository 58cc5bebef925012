"""A site: what turns a service into a web application, its doors locked by default.

`open_site` makes a Flask application out of a `Site`: CSRF, a strict Content-Security-Policy, the reader's language, errors in
words (`web.answer_trouble`), and the pages that every site has: login by a link in the mail, `/healthz`, `/readyz`, `/metrics`,
and in a demo `/dev/mail`. A web process holds no broker connection and waits for nobody.
"""

from email import policy
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, g, redirect, request, url_for
from flask_wtf import CSRFProtect
from jinja2 import ChoiceLoader, FileSystemLoader
from prometheus_client import generate_latest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException
from wtforms import EmailField
from wtforms.validators import InputRequired, Length, Regexp

from shared import labels, language, login
from shared.events import Misfit
from shared.language import LANGUAGES, _
from shared.mail import queue_mail
from shared.observability import METRICS, REQUESTS
from shared.refusals import Refusal
from shared.web import (
    COOKIE,
    Form,
    Person,
    Site,
    answer_trouble,
    asset,
    markdown,
    may,
    now,
    person,
    reading,
    render,
    site,
    transaction,
)

REQUEST_MAX = 2 * 1024 * 1024
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
_HERE = Path(__file__).parent


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


def _answers_to_trouble(app: Flask) -> None:
    for kind in (Refusal, Misfit, HTTPException, OperationalError, Exception):
        app.register_error_handler(kind, answer_trouble)


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

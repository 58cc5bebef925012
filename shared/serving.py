"""How a service is run from its command line: web and worker processes, tables, and trouble said in one line."""

import contextlib
import ctypes
import fcntl
import functools
import gc
import logging
import os
import re
import secrets
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click
from sqlalchemy import inspect, text
from sqlalchemy.exc import SQLAlchemyError

from shared.db import Database
from shared.keys import DamagedKey, keep_key, load_key
from shared.mail import Away, compose, mail_address, post_office
from shared.observability import arm, facts, start_logging
from shared.settings import (
    BadSetting,
    address_of,
    failpoint_name,
    flag,
    folder,
    host_names,
    log_level,
    read_settings,
    setting,
    times,
    whole,
)

log = logging.getLogger(__name__)

WEB_THREADS = 4
M_ARENA_MAX = -8
"""glibc's name in `mallopt` for how many heaps a process may have."""
FIRST_WORD = 0.2
"""Seconds a thread waits for a guest who came in and says nothing; then the guest waits outside (gunicorn would wait 5 s)."""
REQUEST_LASTS = 60.0
"""Seconds within which a request must have come in and its answer have gone out."""
PORT = click.IntRange(1, 65535)
BUS_ADDRESS = address_of("sqlite", "amqp", "amqps")
T = TypeVar("T")


# ---- What hub and node are told alike ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Served:
    """The settings that hub and node have both; a service's own `Settings` add to them."""

    database_file: ClassVar[str]
    """What the SQLite file in the state folder is called."""
    state: Path = setting("Folder for the database and the keys, and on the hub for the bus", reads=folder)
    database: str = setting(
        "Database address: sqlite:///path or postgresql://…; SQLite in the state folder when empty",
        default="",
        reads=address_of("sqlite", "postgresql"),
    )
    mail: str = setting(
        "How mail leaves: smtp://user:password@host (port 587, TLS by STARTTLS), smtps://user:password@host (port 465), smtp://host"
        " (port 25, no password) or folder:/path; a folder in the state folder when empty",
        default="",
        reads=mail_address,
    )
    map_background: bool = setting(
        "Whether maps show a background that readers' browsers fetch from the Kadaster's public service (PDOK)",
        default=False,
        reads=flag,
    )
    hosts: tuple[str, ...] = setting(
        "Other names than that of its own address by which this site is reached, with commas between", default=(), reads=host_names
    )
    proxies: int = setting(
        "How many proxies stand in front; only then are X-Forwarded-For and X-Forwarded-Proto believed", default=0, reads=whole
    )
    limits: float = setting(
        "What the numbers of requests that are let in (shared/limits.py) are multiplied by; 0: no limits", default=1.0, reads=times
    )
    demo: bool = setting("Show the demo's own page of mails, /dev/mail", default=False, reads=flag)
    log_level: str = setting("Which log lines are written: DEBUG, INFO, WARNING or ERROR", default="INFO", reads=log_level)
    failpoint: str = setting("For the kill tests only: where the process ends itself", default="", reads=failpoint_name)

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.state / self.database_file}"

    @property
    def mail_url(self) -> str:
        return self.mail or f"folder:{self.state / 'mail'}"


Settings = TypeVar("Settings", bound=Served)


def load(cls: type[Settings], prefix: str) -> Settings:
    """The settings from the environment. Raises `BadSetting`."""
    settings = read_settings(cls, prefix=prefix)
    if settings.failpoint:
        arm(settings.failpoint)
    return settings


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


def web_secret(settings: Served) -> bytes:
    """What forms are signed with: random, made at the first start."""
    path = settings.state / "web.secret"
    return (load_key(path) or keep_key(path, secrets.token_bytes(32))).seed


# ---- What is typed -----------------------------------------------------------------------------------------------------------


class _Email(click.ParamType[str]):
    """An e-mail address, in small letters."""

    name = "mail address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        address = str(value).strip().casefold()
        if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", address) or not address.isprintable():
            self.fail(f"{value!r} is no e-mail address", param, ctx)
        return address


EMAIL = _Email()


def handed(load: Callable[[], T]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Hand a command its settings when it is run, and not before: `--help` must work without any."""

    def hand(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_settings(*args: Any, **kwargs: Any) -> Any:
            return command(load(), *args, **kwargs)

        return with_settings

    return hand


def serve_web(app: str, host: str, port: int, log_level: str) -> None:
    """Serve with gunicorn's threaded worker, alone: one process with a few threads, light enough for a Raspberry Pi.

    gunicorn's master, which would start the worker again when it dies, is left out: it weighs 14 MB at least, and whoever started
    this process has to start it again anyhow. A master that loads the application and forks shares its pages only for a while:
    after 200 pages the two weighed 22 MB more than this one does, because counting references is writing.
    """
    from gunicorn.app.base import BaseApplication  # imported late: only the web process pays for it
    from gunicorn.http import wsgi
    from gunicorn.sock import create_sockets
    from gunicorn.util import import_app
    from gunicorn.workers import gthread

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise click.ClickException(f"port {port} on {host} cannot be used: {error.strerror}") from None
    start_logging(app.rpartition(".app")[0], log_level)
    spare_memory()

    class Server(BaseApplication):
        def load_config(self) -> None:
            chosen = {
                "bind": f"{host}:{port}",
                "threads": WEB_THREADS,
                "graceful_timeout": 10,
                "loglevel": "warning",
                "limit_request_line": 4094,
                "limit_request_fields": 60,
                "limit_request_field_size": 8190,
                "forwarded_allow_ips": "",  # what a proxy says is believed by a setting only: see `site.py`
            }
            for name, value in chosen.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return import_app(app)

    class Alone(gthread.ThreadWorker):
        def is_parent_alive(self) -> bool:
            return True  # whoever started us may log out

        def handle(self, conn: Any) -> Any:
            begun[conn] = time.monotonic()
            try:
                return super().handle(conn)
            finally:
                begun.pop(conn, None)

        def notify(self) -> None:
            """Called every second. No master waits for it; but a guest may keep a thread waiting, and threads are few."""
            late = time.monotonic() - REQUEST_LASTS
            for conn in [conn for conn, at in list(begun.items()) if at < late]:
                with contextlib.suppress(OSError):  # gone already
                    conn.sock.shutdown(socket.SHUT_RDWR)

    begun: dict[Any, float] = {}
    gthread.DEFAULT_WORKER_DATA_TIMEOUT = FIRST_WORD
    wsgi.SERVER = "tuinkoepel"  # which server in which release is nobody's business; there is no setting for it
    server = Server()
    log = server.cfg.logger_class(server.cfg)
    sockets = create_sockets(server.cfg, log)
    server.wsgi()
    gc.collect()
    gc.freeze()  # the code stays as long as the process: never look through it again for garbage
    worker = Alone(1, os.getppid(), sockets, server, 0, server.cfg, log)
    code = 0
    try:
        worker.init_process()
    except SystemExit:
        pass  # its way to end at SIGINT
    except Exception:
        logging.getLogger(__name__).exception("web.failed")
        code = 1
    os._exit(code)  # an answer that hangs must not keep the process


def spare_memory() -> None:
    """Keep the memory of all threads in one heap: glibc gives each thread its own, and none of them back."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def stopped_by_signals() -> Callable[[], bool]:
    """A question that is answered yes after SIGTERM or SIGINT."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: asked.append(got))
    return lambda: bool(asked)


# ---- Workers ---------------------------------------------------------------------------------------------------------------

Job = Callable[[threading.Event], None]
"""Part of a worker: works until its event is set, and waits on that event instead of sleeping."""
FAREWELL = 3.0
"""Seconds for the jobs of a worker to end."""


def work_until_stopped(stop: Callable[[], bool], *jobs: Job) -> None:
    """Run a worker's jobs, each in a thread, until `stop` says so or one of them fails; what it raised is raised here.

    A job that is in the middle of a call is left behind, and dies with the process: a worker may die at any moment (I10).
    """
    ending, failures = threading.Event(), []

    def run(job: Job) -> None:
        try:
            job(ending)
        except BaseException as error:  # noqa: BLE001  # raised again below
            failures.append(error)
        finally:
            ending.set()

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    while not stop() and not ending.wait(0.2):
        pass
    ending.set()
    deadline = time.monotonic() + FAREWELL
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if failures:
        raise failures[0]


@contextlib.contextmanager
def holding(path: Path, stop: Callable[[], bool]) -> Iterator[bool]:
    """Wait until no other process holds this file, and hold it; False if stopped meanwhile. A dead holder holds nothing."""
    with path.open("w") as file:
        said = False
        while not stop():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not said:
                    log.warning("worker.second", extra=facts(waits_for=str(path)))
                said = True
                time.sleep(0.2)
            else:
                break
        yield not stop()


# ---- Tables ----------------------------------------------------------------------------------------------------------------


def upgrade_tables(migrations: Path, database: Database) -> None:
    """Bring the tables to what this release needs."""
    from alembic import command

    _alembic(command.upgrade, migrations, database, "head")


def check_tables(migrations: Path, database: Database) -> None:
    """Raise when the migrations do not lead to what the mapped classes say."""
    from alembic import command

    _alembic(command.check, migrations, database)


def require_tables(migrations: Path, database: Database, program: str) -> None:
    """Refuse to start on tables that are missing, or are not of this release."""
    with database.reading() as session:
        there = inspect(session.connection()).has_table("alembic_version")
        revision = session.scalar(text("SELECT version_num FROM alembic_version")) if there else None
    database.close()
    if revision is None:
        raise click.ClickException(f"there are no tables yet; run `{program} db upgrade` first")
    if revision != newest_revision(migrations):
        raise click.ClickException(f"the tables are those of another release ({revision}); run `{program} db upgrade` first")


def newest_revision(migrations: Path) -> str:
    """The revision that no other one comes after; read from the files, for Alembic would weigh on processes that run for months."""
    words = "\n".join(path.read_text() for path in (migrations / "versions").glob("*.py"))
    made, built_on = (re.findall(rf"^{name}\b.*?= *\"(\w+)\"", words, re.MULTILINE) for name in ("revision", "down_revision"))
    return str(next(revision for revision in made if revision not in built_on))


def _alembic(act: Callable[..., Any], migrations: Path, database: Database, *words: str) -> None:
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["database"] = database
    try:
        act(config, *words)
    except CommandError as error:
        if "locate revision" in str(error):
            raise click.ClickException(f"this database was made by a newer release ({error})") from None
        raise click.ClickException(str(error)) from None


# ---- Mail ------------------------------------------------------------------------------------------------------------------


def try_mail(address: str, sender: str, to: str, now: datetime) -> None:
    """Send one mail now, past the queue, and say plainly what went wrong."""
    message = compose(sender=sender, to=to, subject="Tuinkoepel", text="De mail werkt. / Mail works.", now=now, place="test")
    try:
        post_office(address)(message)
    except (Away, OSError, ValueError) as error:  # smtplib's exceptions are OSErrors
        raise click.ClickException(f"the mail could not be sent: {_one_line(error)}") from None
    click.echo(f"Sent to {to}.")


# ---- Trouble ---------------------------------------------------------------------------------------------------------------


def refuse_plainly(act: Callable[[], object], refusal: type[Exception]) -> int:
    """Run a command line; what cannot be done is said in one line, with an exit code that is not 0."""
    os.umask(os.umask(0) | 0o007)  # databases, keys and mails are no business of the machine's other users
    try:
        act()
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as error:
        return int(error.exit_code)
    except BadSetting as error:
        click.echo(f"Setting: {error}", err=True)
    except refusal as error:
        click.echo(str(error), err=True)
    except DamagedKey as error:
        click.echo(f"Key: {error}", err=True)
    except SQLAlchemyError as error:
        click.echo(f"Database: {_one_line(getattr(error, 'orig', None) or error)}{_way_out(error)}", err=True)
    except sqlite3.Error as error:
        click.echo(f"Bus: {_one_line(error)}", err=True)  # the only file we open without SQLAlchemy
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"{where}{error.strerror or _one_line(error)}", err=True)
    else:
        return 0
    return 1


def _way_out(error: SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None)
    old = type(cause).__name__ in {"UndefinedTable", "UndefinedColumn"} or re.match(r"no such (table|column)", str(cause))
    if str(cause) == "disk I/O error":  # what SQLite says of a full disk in some of its files
        return "; is the disk full?"
    return f"; run `{Path(sys.argv[0]).name} db upgrade` first" if old else ""


def _one_line(error: object) -> str:
    return " ".join(str(error).split())

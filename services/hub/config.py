"""The hub's settings, and what is opened with them."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shared.db import Database
from shared.doorbell import Doorbell
from shared.erasure import ErasureList
from shared.eventlog import Author
from shared.inbox import KOEPEL
from shared.keys import keep_key, load_key
from shared.mail import mail_address, mail_sender
from shared.observability import arm
from shared.settings import (
    address_of,
    failpoint_name,
    flag,
    folder,
    host_names,
    log_level,
    read_settings,
    setting,
    times,
    web_address,
    whole,
)

HERE = Path(__file__).parent
PREFIX = "TUINKOEPEL_HUB"
BUS, DATABASE = address_of("sqlite", "amqp", "amqps"), address_of("sqlite", "postgresql")


@dataclass(frozen=True)
class Settings:
    """Each is read from `TUINKOEPEL_HUB_<NAME>`."""

    state: Path = setting("Folder for the database, the bus and the keys", reads=folder)
    database: str = setting(
        "Database address: sqlite:///path or postgresql://…; SQLite in the state folder when empty", default="", reads=DATABASE
    )
    bus: str = setting("Bus address: sqlite:///path or amqp(s)://…; a file in the state folder when empty", default="", reads=BUS)
    town_bus: str = setting(
        "Bus address that joining towns are told, the hub's own when empty; if it is amqp(s) and names no user, each town is told"
        " a user of its own",
        default="",
        reads=BUS,
    )
    broker_api: str = setting(
        "RabbitMQ's management, http(s)://user:password@host:15672, where a joining town gets a user of its own; when empty"
        " `hub broker definitions` tells what to import",
        default="",
        reads=address_of("http", "https"),
    )
    ingest_partitions: int = setting(
        "How many queues the towns are divided over, 1 to 9 (RabbitMQ only); `hub run worker` serves all of them, or those named by"
        " --partition",
        default=1,
        reads=whole,
    )
    url: str = setting("This hub's own address, as people and towns reach it", default="http://127.0.0.1:8000", reads=web_address)
    name: str = setting("What the association is called", default="Algemene Vereniging voor Buurtmoestuinen")
    mail: str = setting(
        "How mail leaves: smtp://user:password@host (port 587, TLS by STARTTLS), smtps://user:password@host (port 465), smtp://host"
        " (port 25, no password) or folder:/path; a folder in the state folder when empty",
        default="",
        reads=mail_address,
    )
    mail_from: str = setting("Sender of mails", default="Tuinkoepel <koepel@tuinkoepel.invalid>", reads=mail_sender)
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
        return self.database or f"sqlite:///{self.state / 'hub.db'}"

    @property
    def bus_url(self) -> str:
        return self.bus or f"sqlite:///{self.state / 'bus.db'}"

    @property
    def town_bus_url(self) -> str:
        return self.town_bus or self.bus_url

    @property
    def partitions(self) -> int:
        return max(1, self.ingest_partitions) if self.bus_url.startswith("amqp") else 1

    @property
    def mail_url(self) -> str:
        return self.mail or f"folder:{self.state / 'mail'}"


def load_settings() -> Settings:
    """The settings from the environment. Raises `BadSetting`."""
    settings = read_settings(Settings, prefix=PREFIX)
    if settings.failpoint:
        arm(settings.failpoint)
    return settings


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


def open_hub(settings: Settings) -> tuple[Database, Author]:
    """The hub's database, and the association as the author of its own log. The key is made at the first start."""
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = settings.state / "koepel.key"
    key = load_key(path) or keep_key(path, secrets.token_bytes(32))
    author = Author(KOEPEL, key, utc_now, secrets.token_bytes)
    database = Database(settings.database_url)
    database.info["author"] = author
    database.after_append = doorbell(settings).ring
    return database, author


def doorbell(settings: Settings) -> Doorbell:
    """What wakes the folding of the worker after a commit."""
    return Doorbell(settings.state / "fold.bell")


def erasures(settings: Settings) -> ErasureList:
    """The erasures, in a file that does not belong into the database's backup."""
    return ErasureList(settings.state / "erasures")


def broker_secret(settings: Settings) -> bytes:
    """What the towns' passwords on the broker are derived from: random, made at the first use."""
    path = settings.state / "broker.secret"
    return (load_key(path) or keep_key(path, secrets.token_bytes(32))).seed


def web_secret(settings: Settings) -> bytes:
    """What forms are signed with: random, made at the first start."""
    path = settings.state / "web.secret"
    return (load_key(path) or keep_key(path, secrets.token_bytes(32))).seed

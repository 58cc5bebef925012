"""A node's settings."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

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
    seconds,
    setting,
    times,
    web_address,
    whole,
)

HERE = Path(__file__).parent
PREFIX = "TUINKOEPEL_NODE"
BUS, DATABASE = address_of("sqlite", "amqp", "amqps"), address_of("sqlite", "postgresql")


@dataclass(frozen=True)
class Settings:
    """Each is read from `TUINKOEPEL_NODE_<NAME>`."""

    state: Path = setting("Folder for the database and the keys", reads=folder)
    database: str = setting(
        "Database address: sqlite:///path or postgresql://…; SQLite in the state folder when empty", default="", reads=DATABASE
    )
    hub: str = setting("The hub's address; the one this node joined at when empty", default="", reads=web_address)
    bus: str = setting("Bus address; what the association told at joining when empty", default="", reads=BUS)
    url: str = setting("This node's own address, as its members reach it", default="http://127.0.0.1:8001", reads=web_address)
    mail: str = setting(
        "How mail leaves: smtp://user:password@host (port 587, TLS by STARTTLS), smtps://user:password@host (port 465), smtp://host"
        " (port 25, no password) or folder:/path; a folder in the state folder when empty",
        default="",
        reads=mail_address,
    )
    mail_from: str = setting("Sender of mails", default="Kenniskring <kring@tuinkoepel.invalid>", reads=mail_sender)
    head_period: float = setting("Seconds between two head exchanges while there is news", default=30.0, reads=seconds)
    idle_period: float = setting("Seconds between two head exchanges while there is none", default=300.0, reads=seconds)
    pull_period: float = setting("Seconds between two looks at the association's feed", default=15.0, reads=seconds)
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
        return self.database or f"sqlite:///{self.state / 'node.db'}"

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


def web_secret(settings: Settings) -> bytes:
    """What forms are signed with: random, made at the first start."""
    path = settings.state / "web.secret"
    return (load_key(path) or keep_key(path, secrets.token_bytes(32))).seed

"""The hub's settings, and what is opened with them."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shared.db import Database
from shared.doorbell import Doorbell
from shared.eventlog import Author
from shared.feed import KOEPEL
from shared.keys import keep_key, load_key
from shared.observability import arm
from shared.settings import flag, folder, read_settings, setting

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """Each is read from `TUINKOEPEL_HUB_<NAME>`."""

    state: Path = setting("Folder for the database, the bus and the keys", reads=folder)
    database: str = setting("Database address; SQLite in the state folder when empty", default="")
    bus: str = setting("Bus address: sqlite:///path or amqp(s)://…; a file in the state folder when empty", default="")
    town_bus: str = setting("Bus address that joining towns are told; the hub's own when empty", default="")
    url: str = setting("This hub's own address, as people and towns reach it", default="http://127.0.0.1:8000")
    name: str = setting("What the association is called", default="Algemene Vereniging voor Buurtmoestuinen")
    mail: str = setting("How mail leaves: smtp://…, smtps://… or folder:/path; a folder in the state folder when empty", default="")
    mail_from: str = setting("Sender of mails", default="Tuinkoepel <koepel@tuinkoepel.invalid>")
    demo: bool = setting("Show the demo's own pages (/dev/mail) and allow cookies without HTTPS", default=False, reads=flag)
    log_level: str = setting("DEBUG, INFO, WARNING or ERROR", default="INFO")
    failpoint: str = setting("For the kill tests only: where the process ends itself", default="")

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.state / 'hub.db'}"

    @property
    def bus_url(self) -> str:
        return self.bus or f"sqlite:///{self.state / 'bus.db'}"

    @property
    def mail_url(self) -> str:
        return self.mail or f"folder:{self.state / 'mail'}"


def load_settings() -> Settings:
    """The settings from the environment. Raises `BadSetting`."""
    settings = read_settings(Settings, prefix="TUINKOEPEL_HUB")
    if settings.failpoint:
        arm(settings.failpoint)
    return settings


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


def open_hub(settings: Settings) -> tuple[Database, Author]:
    """The hub's database, and the association as the author of its own log. The key is made at the first start."""
    settings.state.mkdir(parents=True, exist_ok=True)
    path = settings.state / "koepel.key"
    key = load_key(path) or keep_key(path, secrets.token_bytes(32))
    author = Author(KOEPEL, key, utc_now, secrets.token_bytes)
    database = Database(settings.database_url)
    database.info["author"] = author
    database.after_append = Doorbell(settings.state / "bus.db.hub.ingest.bell").ring
    return database, author


def web_secret(settings: Settings) -> bytes:
    """What forms are signed with: random, made at the first start."""
    path = settings.state / "web.secret"
    return (load_key(path) or keep_key(path, secrets.token_bytes(32))).seed

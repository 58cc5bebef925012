"""The hub's settings, and what is opened with them."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from shared.db import Database
from shared.doorbell import Doorbell
from shared.erasure import ErasureList
from shared.eventlog import Author
from shared.inbox import KOEPEL
from shared.keys import keep_key, load_key
from shared.mail import mail_sender
from shared.serving import BUS_ADDRESS, Served, load, utc_now, web_secret
from shared.settings import address_of, setting, web_address, whole

__all__ = [
    "HERE", "PREFIX", "Settings", "broker_secret", "doorbell", "erasures", "load_settings", "open_hub", "utc_now", "web_secret",
]  # fmt: skip

HERE = Path(__file__).parent
PREFIX = "TUINKOEPEL_HUB"


@dataclass(frozen=True, kw_only=True)
class Settings(Served):
    """Each is read from `TUINKOEPEL_HUB_<NAME>`."""

    database_file = "hub.db"
    bus: str = setting(
        "Bus address: sqlite:///path or amqp(s)://…; a file in the state folder when empty", default="", reads=BUS_ADDRESS
    )
    town_bus: str = setting(
        "Bus address that joining towns are told, the hub's own when empty; if it is amqp(s) and names no user, each town is told"
        " a user of its own",
        default="",
        reads=BUS_ADDRESS,
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
    mail_from: str = setting("Sender of mails", default="Tuinkoepel <koepel@tuinkoepel.invalid>", reads=mail_sender)

    @property
    def bus_url(self) -> str:
        return self.bus or f"sqlite:///{self.state / 'bus.db'}"

    @property
    def town_bus_url(self) -> str:
        return self.town_bus or self.bus_url

    @property
    def partitions(self) -> int:
        return max(1, self.ingest_partitions) if self.bus_url.startswith("amqp") else 1


def load_settings() -> Settings:
    """The settings from the environment. Raises `BadSetting`."""
    return load(Settings, PREFIX)


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

"""A node's settings."""

from dataclasses import dataclass
from pathlib import Path

from shared.mail import mail_sender
from shared.serving import BUS_ADDRESS, Served, load, utc_now, web_secret
from shared.settings import seconds, setting, web_address

__all__ = ["HERE", "PREFIX", "Settings", "load_settings", "utc_now", "web_secret"]

HERE = Path(__file__).parent
PREFIX = "TUINKOEPEL_NODE"


@dataclass(frozen=True, kw_only=True)
class Settings(Served):
    """Each is read from `TUINKOEPEL_NODE_<NAME>`."""

    database_file = "node.db"
    hub: str = setting("The hub's address; the one this node joined at when empty", default="", reads=web_address)
    bus: str = setting("Bus address; what the association told at joining when empty", default="", reads=BUS_ADDRESS)
    url: str = setting("This node's own address, as its members reach it", default="http://127.0.0.1:8001", reads=web_address)
    mail_from: str = setting("Sender of mails", default="Kenniskring <kring@tuinkoepel.invalid>", reads=mail_sender)
    head_period: float = setting("Seconds between two head exchanges while there is news", default=30.0, reads=seconds)
    idle_period: float = setting("Seconds between two head exchanges while there is none", default=300.0, reads=seconds)
    pull_period: float = setting("Seconds between two looks at the association's feed", default=15.0, reads=seconds)


def load_settings() -> Settings:
    """The settings from the environment. Raises `BadSetting`."""
    return load(Settings, PREFIX)

"""The first run: whoever set this node up lets in the first facilitator, who names the circle (R32).

A new node on the internet belongs to nobody yet, so its first page asks for a code that only the operator can read: `town-node
setup-code` prints it, and it lies in the state folder beside the keys. It works once, and only while there are no people at all.
"""

import hmac
import os
import secrets
from datetime import date
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.town_node.circle import actions
from services.town_node.circle.membership import membership
from services.town_node.circle.model import Member
from services.town_node.config import Settings
from shared.language import N_, Words
from shared.refusals import Refusal

FILE = "setup.code"
_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
"""Without what is easily misread."""


class BegunAlready(Refusal):
    """Somebody is in the circle: from now on they let others in."""

    text = N_("This circle has its people already. Ask its facilitator to let you in.")


class WrongSetupCode(Refusal):
    """No such code, or it was used."""

    status, text = 403, N_("This is not the setup code of this node. Ask who runs it to type: town-node setup-code")

    def __init__(self) -> None:
        super().__init__(fields={"code": Words(self.text)})


def is_new(session: Session) -> bool:
    """Whether nobody was ever let in."""
    return session.scalar(select(Member.code).limit(1)) is None


def setup_code(settings: Settings, session: Session) -> str:
    """The code for the first run; made at the first asking. Raises `BegunAlready`."""
    if not is_new(session):
        raise BegunAlready
    path = settings.state / FILE
    fresh = "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4))
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    with os.fdopen(handle, "w") as file:
        file.write(fresh + "\n")
    return fresh


def begin_circle(
    session: Session, settings: Settings, code: str, *, name: str, email: str, language: str, circle: str, town: str, today: date
) -> Member:
    """Let in the first facilitator, and name the circle unless the association holds its name. Raises `WrongSetupCode` or
    `BegunAlready`.
    """
    if not is_new(session):
        raise BegunAlready
    path = settings.state / FILE
    known = _read(path)
    if not known or not hmac.compare_digest(_plain(code), _plain(known)):
        raise WrongSetupCode
    first = actions.add_member(session, name=name, email=email, role="facilitator", language=language, today=today)
    if membership(session) is None:
        actions.describe_circle(session, name=circle, place_name=town)
    try:
        path.unlink()  # last: of two at the same moment, only one gets this far
    except FileNotFoundError:
        raise WrongSetupCode from None
    return first


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def _plain(code: str) -> bytes:
    return "".join(letter for letter in code.upper() if letter.isalnum()).encode()

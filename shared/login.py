"""Login by a link in the mail (R36): no password to forget.

A link carries a random token that works once and for half an hour; the database keeps its SHA-256 only. Opening the link shows a
button, because mail scanners follow links. Who presses it gets a session of 90 days, kept in the database under the hash of a
random cookie value, so that it can be ended there. Scripts use API tokens, hashed as well; a person makes and revokes them on a
page (`tokens.py`), and sees on which day each was used last.

Who a person is, each service says itself (`web.People`). An unknown address gets the same answer as a known one.

Tables: `login_link`, `login_session`, `api_token`.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Column, Date, String, Table, delete, func, select, update
from sqlalchemy.orm import Session

from shared.db import Base, Moment

LINK_LASTS = timedelta(minutes=30)
CLI_LINK_LASTS = timedelta(days=1)
SESSION_LASTS = timedelta(days=90)
LINKS_MAX = 4
"""Login mails to one person in a quarter of an hour; more would be somebody else's joke."""
LINKS_KEPT = timedelta(days=1)
"""After their end; then they are of no use, not even to count."""
NOBODY = ""
"""Whose links let nobody in."""
CODE_LENGTH = 12
"""Of a token's hash, so many digits name it."""

login_link = Table(
    "login_link",
    Base.metadata,
    Column("hash", String(64), primary_key=True),
    Column("person", String(40), nullable=False, index=True),
    Column("made_at", Moment, nullable=False),
    Column("until", Moment, nullable=False),
    Column("used_at", Moment),
)
login_session = Table(
    "login_session",
    Base.metadata,
    Column("hash", String(64), primary_key=True),
    Column("person", String(40), nullable=False, index=True),
    Column("until", Moment, nullable=False),
)
api_token = Table(
    "api_token",
    Base.metadata,
    Column("hash", String(64), primary_key=True),
    Column("person", String(40), nullable=False, index=True),
    Column("name", String(160), nullable=False),
    Column("made_at", Moment, nullable=False),
    Column("used_on", Date),
    Column("revoked_at", Moment),
)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def make_link(session: Session, person: str, now: datetime, lasts: timedelta = LINK_LASTS) -> str | None:
    """A token for a login link; None when this person asked too often just now."""
    if lasts == LINK_LASTS and _asked_lately(session, person, now) >= LINKS_MAX:
        return None
    return _keep_link(session, person, now, lasts)


def pretend_link(session: Session, now: datetime) -> None:
    """Do what making a link does, for nobody: an unknown address must not be known by a faster answer."""
    _asked_lately(session, NOBODY, now)
    _keep_link(session, NOBODY, now, timedelta(0))


def _asked_lately(session: Session, person: str, now: datetime) -> int:
    recent = select(func.count()).where(login_link.c.person == person, login_link.c.made_at > now - timedelta(minutes=15))
    return session.scalar(recent) or 0


def _keep_link(session: Session, person: str, now: datetime, lasts: timedelta) -> str:
    token = secrets.token_urlsafe(24)
    session.execute(delete(login_link).where(login_link.c.until < now - LINKS_KEPT))
    session.execute(login_link.insert(), {"hash": _hash(token), "person": person, "made_at": now, "until": now + lasts})
    return token


def who_may_enter(session: Session, token: str, now: datetime) -> str | None:
    """The person this link is for, while it still works."""
    return session.scalar(
        select(login_link.c.person).where(
            login_link.c.hash == _hash(token), login_link.c.used_at.is_(None), login_link.c.until > now
        )
    )


def enter(session: Session, token: str, now: datetime) -> str | None:
    """Use the link up and begin a session; the cookie's value, or None when the link does not work (any more)."""
    person = who_may_enter(session, token, now)
    used = session.execute(
        update(login_link).where(login_link.c.hash == _hash(token), login_link.c.used_at.is_(None)).values(used_at=now)
    )
    if person is None or not used.rowcount:  # type: ignore[attr-defined]  # an update gives a cursor result
        return None
    cookie = secrets.token_urlsafe(32)
    session.execute(delete(login_session).where(login_session.c.until < now))
    session.execute(login_session.insert(), {"hash": _hash(cookie), "person": person, "until": now + SESSION_LASTS})
    return cookie


def who_is(session: Session, cookie: str, now: datetime) -> str | None:
    """The person whose session this cookie holds."""
    return session.scalar(select(login_session.c.person).where(login_session.c.hash == _hash(cookie), login_session.c.until > now))


def leave(session: Session, cookie: str) -> None:
    """End a session."""
    session.execute(delete(login_session).where(login_session.c.hash == _hash(cookie)))


def forget(session: Session, person: str) -> None:
    """End all that lets this person in."""
    for table in (login_session, login_link, api_token):
        session.execute(delete(table).where(table.c.person == person))


def make_api_token(session: Session, person: str, name: str, now: datetime) -> str:
    """A token for scripts, shown once."""
    token = f"tk_{secrets.token_urlsafe(30)}"
    session.execute(api_token.insert(), {"hash": _hash(token), "person": person, "name": name, "made_at": now})
    return token


def whose_api_token(session: Session, token: str, today: date) -> tuple[str, bool] | None:
    """The person a script acts for, and whether this is the token's first use today."""
    row = session.execute(
        select(api_token.c.person, api_token.c.used_on).where(api_token.c.hash == _hash(token), api_token.c.revoked_at.is_(None))
    ).first()
    return (row.person, row.used_on != today) if row else None


def note_use(session: Session, token: str, today: date) -> None:
    """Remember the day: a token that nobody uses any more can go."""
    session.execute(update(api_token).where(api_token.c.hash == _hash(token)).values(used_on=today))


@dataclass(frozen=True)
class ApiToken:
    """A token as its owner sees it. `code` names it and lets nobody in."""

    code: str
    name: str
    made_at: datetime
    used_on: date | None


def api_tokens(session: Session, person: str) -> list[ApiToken]:
    """The tokens of this person that work, the latest first."""
    rows = session.execute(
        select(api_token)
        .where(api_token.c.person == person, api_token.c.revoked_at.is_(None))
        .order_by(api_token.c.made_at.desc(), api_token.c.hash)
    )
    return [ApiToken(row.hash[:CODE_LENGTH], row.name, row.made_at, row.used_on) for row in rows]


def revoke_api_token(session: Session, person: str, code: str, now: datetime) -> str | None:
    """End one of this person's tokens at once; its name, or None if there is no such token."""
    own = (
        (api_token.c.person == person) & (func.substr(api_token.c.hash, 1, CODE_LENGTH) == code) & api_token.c.revoked_at.is_(None)
    )
    name = session.scalar(select(api_token.c.name).where(own))
    if name is not None:
        session.execute(update(api_token).where(own).values(revoked_at=now))
    return name

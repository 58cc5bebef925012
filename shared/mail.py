"""Mail: queued as a row in the transaction that causes it, sent by the worker, recorded as sent after success (design §6).

`smtp://`, `smtps://` (with `user:password@`) or `folder:/path`, which keeps each mail as a file: the demo's post office.

Table: `mail`.
"""

import logging
import smtplib
from collections.abc import Callable
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import Column, Integer, String, Table, Text, select, update
from sqlalchemy.orm import Session

from shared.db import Base, Database, Moment
from shared.observability import facts

log = logging.getLogger(__name__)

TIMEOUT = 20.0
"""Seconds the mail server may take for each step."""
TRIES_MAX = 12
"""Beyond this a mail is given up; the pauses double from one minute, so that takes about two days."""

mail = Table(
    "mail",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("recipient", String(320), nullable=False),
    Column("subject", String(300), nullable=False),
    Column("text", Text, nullable=False),
    Column("queued_at", Moment, nullable=False),
    Column("next_try_at", Moment, nullable=False, index=True),
    Column("tries", Integer, nullable=False, default=0),
    Column("sent_at", Moment),
    Column("trouble", Text, nullable=False, default=""),
)

Send = Callable[[EmailMessage], None]


def queue_mail(session: Session, *, to: str, subject: str, text: str, now: datetime) -> None:
    """Send this after the commit."""
    session.execute(
        mail.insert(),
        {
            "recipient": to,
            "subject": " ".join(subject.split()),
            "text": text,
            "queued_at": now,
            "next_try_at": now,
            "tries": 0,
            "trouble": "",
        },
    )


def post_office(address: str) -> Send:
    """How mails leave, from the setting's text. Raises `ValueError` for an address that says neither smtp nor folder."""
    parts = urlsplit(address)
    if parts.scheme == "folder":
        return lambda message: _keep(Path(parts.path), message)
    if parts.scheme in {"smtp", "smtps"} and parts.hostname:
        return lambda message: _smtp(parts, message)
    msg = "expected smtp://host:port, smtps://user:password@host or folder:/path"
    raise ValueError(msg)


def _keep(folder: Path, message: EmailMessage) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = str(message["Message-ID"]).strip("<>").replace("/", "_")
    fresh = folder / f".{name}"
    fresh.write_bytes(bytes(message))
    fresh.rename(folder / f"{name}.eml")


def _smtp(parts: object, message: EmailMessage) -> None:
    scheme, host, port = parts.scheme, parts.hostname, parts.port  # type: ignore[attr-defined]  # a urlsplit result
    kind = smtplib.SMTP_SSL if scheme == "smtps" else smtplib.SMTP
    with kind(host, port or (465 if scheme == "smtps" else 25), timeout=TIMEOUT) as server:
        if scheme == "smtp" and server.has_extn("starttls"):
            server.starttls()
        if parts.username:  # type: ignore[attr-defined]  # a urlsplit result
            server.login(unquote(parts.username), unquote(parts.password or ""))  # type: ignore[attr-defined]  # a urlsplit result
        server.send_message(message)


def compose(*, sender: str, to: str, subject: str, text: str, now: datetime, place: str) -> EmailMessage:
    """A plain-text mail. `place` (queue number, or what it is about) makes its Message-ID the same on a second try."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, to, subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{place}.{now:%Y%m%d%H%M%S}@{sender.rpartition('@')[2].rstrip('>') or make_msgid()}>"
    message.set_content(text)
    return message


def send_waiting(database: Database, send: Send, sender: str, now: datetime, limit: int = 20) -> int:
    """Send what is due; returns how many left. One that fails is tried again later and never holds up the others."""
    with database.reading() as session:
        due = session.execute(
            select(mail)
            .where(mail.c.sent_at.is_(None), mail.c.next_try_at <= now, mail.c.tries < TRIES_MAX)
            .order_by(mail.c.id)
            .limit(limit)
        ).all()
    sent = 0
    for row in due:
        try:
            send(
                compose(
                    sender=sender,
                    to=row.recipient,
                    subject=row.subject,
                    text=row.text,
                    now=row.queued_at,
                    place=f"m{row.id}",
                )
            )
            changes = {"sent_at": now, "trouble": ""}
            sent += 1
        except (OSError, smtplib.SMTPException, ValueError) as error:
            log.warning("mail.failed", extra=facts(mail=row.id, error=type(error).__name__))
            pause = timedelta(minutes=2**row.tries)
            changes = {
                "tries": row.tries + 1,
                "next_try_at": now + pause,
                "trouble": f"{type(error).__name__}: {error}"[:500],
            }
        with database.transaction() as session:
            session.execute(update(mail).where(mail.c.id == row.id).values(**changes))
    return sent

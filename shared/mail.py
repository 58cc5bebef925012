"""Mail: queued as a row in the transaction that causes it, sent by the worker, recorded as sent after success (design §6).

So a mail is never lost, and never sent again once it is recorded. Between the mail server's yes and our record lies one moment in
which this process may die; then the mail goes once more, with the same Message-ID, by which mail programs know it as the same. A
mail that cannot be delivered is tried again after pauses that double up to a day; each try is recorded before it is made. A mail
server that does not answer makes all mail wait, not each mail in its turn: the worker has other things to do.

`smtp://user:password@host` is what most providers want: port 587, TLS by STARTTLS, then name and password. `smtps://` speaks TLS
from the first byte, on port 465. `smtp://host` is a server that knows us by our address, on port 25; `folder:/path` keeps each mail
as a file: the demo's post office.

A mail may hold a login link, and a password opens the mailbox. So TLS is taken wherever the server offers it, its certificate must
be of that name by an authority the system knows (`SSL_CERT_FILE` names another), and a password goes over TLS or nowhere. Only to a
server on this machine no TLS is spoken: nobody stands between, and seldom does anybody vouch for what it offers as a certificate.

Table: `mail`.
"""

import hashlib
import logging
import re
import smtplib
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from sqlalchemy import Column, Integer, String, Table, Text, select, update
from sqlalchemy.orm import Session

from shared.db import Base, Database, Moment
from shared.observability import facts, failpoint

log = logging.getLogger(__name__)

SMTP_PORT, SUBMISSION_PORT, SMTPS_PORT = 25, 587, 465
THIS_MACHINE = {"localhost", "127.0.0.1", "::1"}
TIMEOUT = 20.0
"""Seconds the mail server may take for each step."""
PAUSE_MAX = timedelta(days=1)
TRIES_MAX = 40
"""Beyond this a mail is not tried any more, after about a month; its row stays, with the reason."""

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


class Away(Exception):  # noqa: N818  # named for its reason
    """The mail server cannot be reached, or does not let us in: no mail will leave now, whoever it is for."""


# ---- Settings --------------------------------------------------------------------------------------------------------------


def mail_address(text: str) -> str:
    """Reads the setting that says how mail leaves. Raises `ValueError`."""
    post_office(text)
    return text


def mail_sender(text: str) -> str:
    """Reads the setting that says from whom mail comes: `Name <mail@example.org>`. Raises `ValueError`."""
    _sender(text)
    return text


def post_office(address: str) -> Send:
    """How mails leave, from the setting's text. Raises `ValueError` for an address by which none can leave."""
    parts = urlsplit(address)
    if parts.scheme == "folder" and parts.path.strip("/"):
        return lambda message: _keep(Path(parts.path), message)
    if parts.scheme not in {"smtp", "smtps"}:
        raise ValueError("expected smtp://user:password@host, smtps://user:password@host, smtp://host:port or folder:/path")
    # An odd sign in a password ends the host's name too early, or makes a bad port of it.
    if parts.path.strip("/") or parts.query or parts.fragment or not _port_is_good(parts):
        raise ValueError("this names no host and port; in a password write / ? # % @ as %2F %3F %23 %25 %40")
    if not parts.hostname or bool(parts.username) != bool(parts.password):
        raise ValueError("expected a host, and a name with its password or neither")
    if not unquote((parts.username or "") + (parts.password or "")).isascii():
        raise ValueError("mail servers take only names and passwords without accents")
    return lambda message: _smtp(parts, message)


def _port_is_good(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


# ---- The ways out ----------------------------------------------------------------------------------------------------------


def _keep(folder: Path, message: EmailMessage) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # mails carry login links
    name = str(message["Message-ID"]).strip("<>").replace("/", "_")
    fresh = folder / f".{name}"
    fresh.write_bytes(bytes(message))
    fresh.rename(folder / f"{name}.eml")


def _smtp(parts: SplitResult, message: EmailMessage) -> None:
    server = _connected(parts)
    try:
        server.send_message(message)
    finally:
        try:
            server.quit()
        except OSError:  # the mail has gone, or its own error says why not
            server.close()


def _connected(parts: SplitResult) -> smtplib.SMTP:
    """A connection on which the server takes our mail. Raises `Away`."""
    host = parts.hostname or ""
    server: smtplib.SMTP | None = None
    try:
        if parts.scheme == "smtps":
            server = smtplib.SMTP_SSL(host, parts.port or SMTPS_PORT, timeout=TIMEOUT, context=_trusted())
        else:
            server = smtplib.SMTP(host, parts.port or (SUBMISSION_PORT if parts.username else SMTP_PORT), timeout=TIMEOUT)
        server.ehlo_or_helo_if_needed()
        if parts.scheme == "smtp" and host not in THIS_MACHINE:
            if server.has_extn("starttls"):
                server.starttls(context=_trusted())
            elif parts.username:
                raise Away("the mail server offers no TLS (STARTTLS), so it does not get the password")
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))
    except BaseException as error:
        if server is not None:
            server.close()
        if isinstance(error, OSError):  # smtplib's own exceptions too
            raise Away(_why(error)) from error
        raise
    return server


def _trusted() -> ssl.SSLContext:
    """Whom we believe to be who they say; smtplib by itself would believe anybody."""
    return ssl.create_default_context()


def _why(error: OSError) -> str:
    """In one line, for the operator."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"the mail server's certificate is not trusted: {error.verify_message}"
        case smtplib.SMTPAuthenticationError():
            said = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
            return f"the mail server does not take this name and password: {error.smtp_code} {' '.join(said.split())}"
        case smtplib.SMTPNotSupportedError():
            return "the mail server lets nobody log in at this port (it offers no AUTH)"
        case smtplib.SMTPException() if str(error).startswith("No suitable authentication"):
            return "the mail server wants another way of logging in than name and password"
        case _:
            return f"{type(error).__name__}: {error}"


# ---- The letter ------------------------------------------------------------------------------------------------------------

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]")


def _address(address: str, name: str = "") -> Address:
    """One address, never a list, and nothing of another header in it. Raises `ValueError`."""
    if _CONTROL.search(address + name):
        raise ValueError("no e-mail address: it has control characters")
    try:
        return Address(name, addr_spec=address)
    except (MessageError, ValueError, IndexError, AttributeError) as error:  # the parser trips over some
        raise ValueError(f"no e-mail address: {error}") from error


def _sender(text: str) -> Address:
    name, address = parseaddr(text)
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", address) or _CONTROL.search(text):
        raise ValueError("expected Name <mail@example.org>")
    return _address(address, name)


def compose(*, sender: str, to: str, subject: str, text: str, now: datetime, place: str) -> EmailMessage:
    """A plain-text mail in UTF-8. Raises `ValueError` for an address that is none.

    `place` (queue number, or what it is about) and the words make its Message-ID, so that a second try has the same one.
    """
    message = EmailMessage()
    message["From"], message["To"] = _sender(sender), _address(to)
    message["Subject"] = " ".join(_CONTROL.sub(" ", subject).split())
    message["Date"] = format_datetime(now)
    words = hashlib.sha256(f"{to}\n{subject}\n{text}".encode()).hexdigest()[:16]
    message["Message-ID"] = f"<{place}.{now:%Y%m%d%H%M%S}.{words}@{message['From'].addresses[0].domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answer from who is on holiday
    message.set_content(text)
    return message


# ---- The queue -------------------------------------------------------------------------------------------------------------


def queue_mail(session: Session, *, to: str, subject: str, text: str, now: datetime) -> None:
    """Send this after the commit."""
    session.execute(
        mail.insert(),
        {
            "recipient": to,
            "subject": " ".join(_CONTROL.sub(" ", subject).split())[:300],
            "text": text.replace("\x00", ""),  # PostgreSQL takes none
            "queued_at": now,
            "next_try_at": now,
            "tries": 0,
            "trouble": "",
        },
    )


def send_waiting(database: Database, send: Send, sender: str, now: datetime, limit: int = 20) -> int:
    """Send what is due; returns how many left. One that fails is tried again later and never holds up the others."""
    with database.reading() as session:
        due = session.execute(
            select(mail)
            .where(mail.c.sent_at.is_(None), mail.c.next_try_at <= now, mail.c.tries < TRIES_MAX)
            .order_by(mail.c.next_try_at, mail.c.id)
            .limit(limit)
        ).all()
    sent = 0
    for index, row in enumerate(due):
        # The try is recorded first: a database that cannot record anything must not make us send the same mail at every start.
        _put_off(database, [row], "it is not known whether it left", now)
        try:
            send(
                compose(sender=sender, to=row.recipient, subject=row.subject, text=row.text, now=row.queued_at, place=f"m{row.id}")
            )
            failpoint("mail.sent")
        except Away as error:
            log.warning("mail.server_away", extra=facts(error=str(error), waiting=len(due) - index))
            _put_off(database, due[index:], str(error), now)
            break
        except Exception as error:  # noqa: BLE001  # one mail that cannot be made or sent must not hold up the others
            log.warning("mail.failed", extra=facts(mail=row.id, tries=row.tries + 1, error=type(error).__name__))
            _put_off(database, [row], f"{type(error).__name__}: {error}", now)
            continue
        with database.transaction() as session:  # the words go: they may hold a login link
            session.execute(update(mail).where(mail.c.id == row.id).values(sent_at=now, trouble="", text=""))
        sent += 1
    return sent


def _put_off(database: Database, rows: Sequence[Any], trouble: str, now: datetime) -> None:
    """Later: after a minute, two, four … a day."""
    with database.transaction() as session:
        for row in rows:
            later = now + min(PAUSE_MAX, timedelta(minutes=2 ** min(row.tries, 12)))
            session.execute(
                update(mail).where(mail.c.id == row.id).values(tries=row.tries + 1, next_try_at=later, trouble=trouble[:500])
            )

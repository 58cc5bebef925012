"""A change that is asked for twice is made once: `Idempotency-Key`.

A program that got no answer cannot know whether its change was made. If it sent a key along, it simply asks again: the answer is
stored **in the transaction of the change**, so there is a stored answer exactly if there was a change, whatever crashed in between.

A key belongs to one token and to one request: the same key with another method, address or body is refused (`OtherRequest`). While
the first request is still at work the second is refused too (`StillRunning`): within a process by a set of what is running, between
processes by an advisory lock on PostgreSQL. On SQLite a second process waits for the first one's commit, and then finds its answer.

Answers may hold a secret that is shown once (a joining code), so they are sealed with the token itself, which is nowhere at rest.

Table: `answered`.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import nacl.secret
import orjson
from sqlalchemy import Column, LargeBinary, String, Table, delete, func, select
from sqlalchemy.orm import Session

from shared.db import Base, Moment, is_sqlite
from shared.language import N_, Words
from shared.refusals import Refusal

LASTS = timedelta(days=30)
KEY_MAX = 255

answered = Table(
    "answered",
    Base.metadata,
    Column("token", String(64), primary_key=True),
    Column("key", String(KEY_MAX), primary_key=True),
    Column("request", LargeBinary, nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("answered_at", Moment, nullable=False, index=True),
)


class _KeyRefusal(Refusal):
    def __init__(self) -> None:
        super().__init__(fields={"Idempotency-Key": Words(self.text)})


class StillRunning(_KeyRefusal):
    """The first request with this key has no answer yet."""

    status, text = 409, N_("The first request with this key is still being worked on. Ask again in a moment.")


class OtherRequest(_KeyRefusal):
    """One key names one request."""

    status, text = 422, N_("This key was used for another request. Make a new key for every change.")


class BadKey(_KeyRefusal):
    """No key that could be found again."""

    status, text = 422, N_("A key has 1 to 255 letters, digits or other visible signs of ASCII.")


@dataclass(frozen=True)
class Answer:
    """What was answered."""

    status: int
    location: str
    body: bytes


class Once:
    """One request with a key. `token` is the secret itself, `request` everything that makes two requests the same."""

    def __init__(self, token: str, key: str, request: bytes) -> None:
        if not re.fullmatch(rf"[!-~]{{1,{KEY_MAX}}}", key):
            raise BadKey
        self._token, self._key = hashlib.sha256(token.encode()).hexdigest(), key
        self._request = hashlib.sha256(request).digest()
        self._box = nacl.secret.SecretBox(hashlib.sha256(b"answer1" + token.encode()).digest())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads of this process away until the block ends. Raises `StillRunning`."""
        place = (self._token, self._key)
        with _guard:
            if place in _running:
                raise StillRunning
            _running.add(place)
        try:
            yield
        finally:
            with _guard:
                _running.discard(place)

    def before(self, session: Session, now: datetime) -> Answer | None:
        """The answer that was given before, if there is one. Raises `OtherRequest` or `StillRunning`."""
        if not is_sqlite(session):
            number = int.from_bytes(hashlib.sha256(f"{self._token} {self._key}".encode()).digest()[:8], signed=True)
            if not session.scalar(select(func.pg_try_advisory_xact_lock(number))):
                raise StillRunning
        row = session.execute(select(answered).where(answered.c.token == self._token, answered.c.key == self._key)).first()
        if row is None or row.answered_at < now - LASTS:
            return None
        if bytes(row.request) != self._request:
            raise OtherRequest
        status, location, body = orjson.loads(self._box.decrypt(bytes(row.answer)))
        return Answer(status, location, body.encode())

    def keep(self, session: Session, answer: Answer, now: datetime) -> None:
        """Store the answer with the change; what is older than thirty days goes."""
        session.execute(delete(answered).where(answered.c.answered_at < now - LASTS))
        sealed = self._box.encrypt(orjson.dumps([answer.status, answer.location, answer.body.decode()]))
        row = {"token": self._token, "key": self._key, "request": self._request, "answer": bytes(sealed), "answered_at": now}
        session.execute(answered.insert(), row)


_running: set[tuple[str, str]] = set()
_guard = threading.Lock()

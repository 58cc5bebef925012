"""A hub, and towns that speak the protocol, in one process: real databases, the hub's real doors, a courier that can fail."""

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode

import pytest
from kombu import Connection

from services.hub import worker
from services.hub.app import create_app
from services.hub.config import HERE, Settings, open_hub
from services.hub.towns.joining import PROOF, add_town, found_association
from shared import feed, heads
from shared.bus import Deliveries, Publisher, body_of
from shared.db import Base, Database
from shared.eventlog import Author, append, open_epoch
from shared.events import LessonShared, LessonWithdrawn
from shared.keys import KeyPair, from_text, to_text
from shared.pins import pin_key
from shared.relay import Publish, relay_step
from shared.serving import upgrade_tables
from tests.federation.copies import World

SIGNATURE = "Tuinkoepel-Signature"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = datetime(2015, 6, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **time: float) -> None:
        self.now += timedelta(**time)


class Bus:
    """What lies between the towns and the hub: a list. A test may take what lies there, and put back what it likes."""

    def __init__(self) -> None:
        self._lying: list[bytes] = []

    def publisher(self, town: str) -> Publish:
        """A town's way in, for its relay."""
        return self._lying.append

    def put(self, *messages: bytes) -> None:
        for message in messages:
            self.publisher("anyone")(message)

    def deliver(self, store: Callable[[list[bytes]], None]) -> None:
        """All that lies there, the worker's way: what was stored is acknowledged."""
        waiting, self._lying[:] = list(self._lying), []
        if waiting:
            store(waiting)

    def take(self) -> list[bytes]:
        """All that lies there; it is gone then."""
        taken: list[bytes] = []
        self.deliver(taken.extend)
        return taken

    def close(self) -> None:
        """Nothing to close."""


class RealBus(Bus):
    """The same over a courier that is in use: an address, or what a kombu connection is made of."""

    def __init__(self, courier: str | dict) -> None:
        self.courier = courier
        self._publishers: dict[str, Publisher] = {}
        self._deliveries: Deliveries | None = None
        self.take()  # declares, and empties what an earlier test left

    def _address(self) -> str | Connection:
        return self.courier if isinstance(self.courier, str) else Connection(**self.courier)

    def publisher(self, town: str) -> Publish:
        return self._publishers.setdefault(town, Publisher(self._address(), town)).publish

    def deliver(self, store: Callable[[list[bytes]], None]) -> None:
        self._deliveries = self._deliveries or Deliveries(self._address())
        while True:
            messages = self._deliveries.take(0.02)
            if messages:
                store([body_of(message) for message in messages])
                self._deliveries.ack(messages)
            elif self._deliveries.is_empty():
                return

    def leave(self) -> None:
        """Nobody consumes until the next delivery."""
        if self._deliveries is not None:
            self._deliveries.close()
        self._deliveries = None

    def close(self) -> None:
        self.leave()
        for publisher in self._publishers.values():
            publisher.close()


class Hub:
    """The hub."""

    def __init__(self, folder, database_url: str, clock: Clock, bus: Bus) -> None:
        self.settings = Settings(state=folder, database=database_url, demo=True)
        self.clock = clock
        folder.mkdir()
        blank = Database(self.settings.database_url)
        upgrade_tables(HERE / "migrations", blank)
        blank.close()
        self.app = create_app(self.settings)
        self.app.extensions["site"].clock = clock
        self.database, self.author = open_hub(self.settings)
        with self.database.transaction() as session:
            found_association(session)
        self.bus = bus

    def work(self, *, empty: bool = True) -> None:
        """One round of the worker."""
        self.bus.deliver(lambda messages: worker.ingest(self.database, messages))
        worker.speak_for_association(self.database)
        while worker.digest(self.database):
            pass
        with self.database.transaction() as session:
            heads.show_pulse(session, self.clock(), empty=empty)

    def page(self, path: str) -> str:
        answer = self.app.test_client().get(path, headers={"Accept-Language": "en"})
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.text

    def close(self) -> None:
        self.bus.close()
        self.database.close()
        self.app.extensions["site"].database.close()


class Town:
    """A town as the hub sees it: a log, a relay, and calls."""

    def __init__(self, slug: str, hub: Hub, folder, clock: Clock) -> None:
        self.hub, self.clock, self.slug = hub, clock, slug
        self.random = random.Random(slug)
        self.key = KeyPair.of(self.random.randbytes(32))
        self.database = Database(f"sqlite:///{folder / slug}.db")
        Base.metadata.create_all(self.database.engine)
        self.author = Author(slug, self.key, clock, self.random.randbytes)
        self.database.info["author"] = self.author
        self.instance = "a" * 16
        self.publish = hub.bus.publisher(slug)
        with hub.database.transaction() as session:
            self.code = add_town(session, slug, slug.capitalize(), clock())
        answer = self.join()
        assert answer.status_code == 200, answer.text
        self.hub_key = from_text(answer.json["hub_key"], 32)
        with self.database.transaction() as session:
            open_epoch(session, self.author)
            pin_key(session, feed.KOEPEL, self.hub_key, clock())
            pin_key(session, slug, self.key.public, clock())

    def join(self, code: str | None = None, key: KeyPair | None = None):
        code, key = code or self.code, key or self.key
        proof = key.sign(PROOF, code.replace("-", "").encode() + key.public)
        body = {"code": code, "public_key": to_text(key.public), "proof": to_text(proof)}
        return self.hub.app.test_client().post("/federation/v1/join", json=body)

    def share(self, title: str) -> str:
        code = self.random.randbytes(6).hex()
        lesson = LessonShared(
            lesson=code, title=title, body=f"**{title}**", kind="tip", theme="water", shared_on=date(2015, 6, 1), phase="plan"
        )
        with self.database.transaction() as session:
            append(session, lesson)
        return code

    def withdraw(self, code: str) -> None:
        with self.database.transaction() as session:
            append(session, LessonWithdrawn(lesson=code))

    def relay(self) -> None:
        while relay_step(self.database, self.publish):
            pass

    def call(self) -> heads.Answer:
        """A head exchange; a stale challenge is answered once more."""
        for _ in range(2):
            with self.database.reading() as session:
                body, signature, nonce = heads.ask(session, self.author, self.instance, feed.pull_cursor(session))
            answer = self.hub.app.test_client().post("/federation/v1/heads", data=body, headers={SIGNATURE: to_text(signature)})
            heard = heads.hear(
                self.database, self.author, answer.data, answer.headers[SIGNATURE], nonce, self.hub_key, self.clock()
            )
            if heard.status == "ok":
                break
        return heard

    def pull(self) -> None:
        """Read the feed to its end."""
        while True:
            with self.database.reading() as session:
                feed_id, number, chain = feed.pull_cursor(session)
            path = "/federation/v1/feed?" + urlencode({"town": self.slug, "id": feed_id, "after": number, "chain": chain})
            signature = to_text(self.key.sign(feed.PULLS, path.encode()))
            answer = self.hub.app.test_client().get(path, headers={SIGNATURE: signature})
            assert answer.status_code == 200, answer.text
            with self.database.transaction() as session:
                if not feed.accept_page(session, answer.data, self.slug, self.clock()):
                    return


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["embedded", "servers"])
def hub(request, tmp_path, clock):
    """SQLite and a list; or PostgreSQL and RabbitMQ."""
    if request.param == "embedded":
        made = Hub(tmp_path / "hub", "", clock, Bus())
    else:
        database = request.getfixturevalue("postgres").fresh_database()
        made = Hub(tmp_path / "hub", database, clock, RealBus(request.getfixturevalue("rabbit").url))
    yield made
    made.close()


@pytest.fixture
def town(hub, tmp_path, clock):
    towns = []

    def make(slug: str) -> Town:
        towns.append(Town(slug, hub, tmp_path, clock))
        return towns[-1]

    yield make
    for one in towns:
        one.database.close()


@pytest.fixture
def world():
    """Two towns and a hub in memory, whose copies can be put back."""
    made = World()
    yield made
    made.close()

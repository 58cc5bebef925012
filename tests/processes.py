"""A hub and its towns as real processes, for the kill tests, the benchmarks and the browser story.

    with World(towns=("almere", "dronten")) as world:       # embedded parts; or database=postgres.fresh_database, bus=rabbit.url
        world.start()                                       # everything runs, is joined, and has answered once
        almere = world.towns["almere"]
        fenna = almere.visitor()                            # the facilitator, logged in through her link
        fenna.share("Vraag vroeg om water")                 # the code of a lesson that was acknowledged
        almere.kill("worker")                               # SIGKILL: no cleaning up
        almere.start("worker", failpoint="relay.published")
        almere.wait_for_death("worker")
        almere.start("worker")
        world.settle()                                      # until everything has arrived everywhere
        assert world.national_log("almere") == almere.log()

`Service` is the hub or a town: `start(kind, failpoint)`, `wait_until_ready(kind)`, `kill`, `stop`, `pause`, `resume` with kind
"web" or "worker"; `command(...)` runs its console script; `visitor(email)` logs somebody in; `token(email)` makes an API token;
`database` is a connection of our own, for looking. Tables, towns and people are made in this process by the services' own
functions, because every start of Python costs half a second and more. `World.tend()` is the supervisor: it starts again what ended.

Nothing outlives the test: `end()` kills every process, and each works in a folder of its own below this run's, so that the next run
ends what a killed one left behind (see `services.py`).
"""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import kombu
import psycopg
import urllib3
from sqlalchemy import func, select

from services.hub import config as hub_config
from services.hub.forwarding import forwarded
from services.hub.towns.joining import add_town, found_association
from services.hub.towns.people import AssociationMember
from services.hub.worker import PROJECTIONS as HUB_PROJECTIONS
from services.town_node import config as node_config
from services.town_node.circle.actions import add_member
from services.town_node.circle.membership import join_association, open_node
from services.town_node.circle.model import Member
from services.town_node.home.slices import SLICES
from services.town_node.lessons.library import PROJECTIONS as NODE_PROJECTIONS
from shared import login
from shared.db import Database
from shared.envelope import Entry, open_entry
from shared.eventlog import read_head, read_log
from shared.feed import feed, feed_cursor, feed_state
from shared.heads import ingest_pulse, received_head
from shared.inbox import inbox, inbox_cursor
from shared.projections import projection_cursor
from shared.relay import position
from shared.restore import set_back
from shared.serving import upgrade_tables
from shared.settings import read_settings
from tests.nursery import Child, nursery
from tests.services import clear, free_port, fresh_folder, wait_until

BIN = Path(sys.executable).parent
FACILITATOR, MEMBER, ASSOCIATION = "fenna@example.org", "daan@example.org", "vera@example.org"
QUICK = {"HEAD_PERIOD": "0.4", "IDLE_PERIOD": "1", "PULL_PERIOD": "0.2"}
"""Seconds between a node's calls, short for tests."""
PATIENCE = 30.0
"""Seconds that anything may take here; only a failure waits so long."""


def utc_now() -> datetime:
    """The clock of the processes too."""
    return datetime.now(UTC)


class Service:
    """The hub or a town: its settings, its two processes, its database."""

    def __init__(self, name: str, folder: Path, prefix: str, program: str, settings: dict[str, str]) -> None:
        self.name, self.folder, self.port = name, folder / name, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._prefix, self._program = prefix, program
        named = {"STATE": str(self.folder), "URL": self.url, "LOG_LEVEL": "INFO", **settings}
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("TUINKOEPEL_")}
        self.environment |= {f"{prefix}_{key}": value for key, value in named.items()}
        self._processes: dict[str, subprocess.Popen | Child] = {}
        self._begun: dict[str, tuple[datetime, int]] = {}
        self._copies = 0
        self.folder.mkdir(parents=True)

    # -- Its processes --

    def start(self, kind: str, failpoint: str = "") -> None:
        """Start the web process or the worker, once to die at that failpoint; its output goes to `<kind>.log`.

        A hub's worker may be named with its part: "worker --partition 1".
        """
        words = ["run", *kind.split(), *(["--port", str(self.port)] if kind == "web" else [])]
        said = self._output(kind)
        self._begun[kind] = utc_now(), said.stat().st_size if said.exists() else 0
        if self.forked:
            self._processes[kind] = nursery(self._program).start(words, self._armed(failpoint), self.folder, said)
            return
        with said.open("ab") as output:
            self._processes[kind] = subprocess.Popen(
                [BIN / self._program, *words], env=self._armed(failpoint), cwd=self.folder, stdout=output, stderr=output,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def _armed(self, failpoint: str) -> dict[str, str]:
        return self.environment | ({f"{self._prefix}_FAILPOINT": failpoint} if failpoint else {})

    def runs(self, kind: str) -> bool:
        """Whether it has not ended yet."""
        return kind in self._processes and self._processes[kind].poll() is None

    def wait_until_ready(self, kind: str) -> None:
        """Until the web process answers, or the worker has gone once round its work."""

        def ready() -> bool:
            if not self.runs(kind):
                raise RuntimeError(f"{self.name} {kind} ended:\n{self.said(kind)}")
            return self._answers() if kind == "web" else self._worked_since(self._begun[kind][0])

        wait_until(ready, f"{self.name} {kind}", PATIENCE)

    def _answers(self) -> bool:
        try:
            return urllib3.request("GET", f"{self.url}/healthz", timeout=2, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _worked_since(self, moment: datetime) -> bool:
        raise NotImplementedError

    def kill(self, kind: str) -> None:
        """SIGKILL."""
        process = self._processes.pop(kind, None)
        if process is not None:
            _signal(process, signal.SIGKILL)
            process.wait(PATIENCE)
            wait_until(lambda: not _members(process.pid), f"the end of {self.name} {kind}", PATIENCE)  # a child may hold the port

    def pids(self, kind: str) -> list[int]:
        """The processes that this one consists of."""
        return _members(self._processes[kind].pid)

    def strike(self, kind: str, choose: Callable[[Sequence[int]], Sequence[int]]) -> None:
        """SIGKILL to some of its processes, for `tend` to find."""
        if kind in self._processes:
            for victim in choose(_members(self._processes[kind].pid)):
                with contextlib.suppress(ProcessLookupError):  # it ended by itself
                    os.kill(victim, signal.SIGKILL)

    def stop(self, kind: str) -> None:
        """In good order."""
        process = self._processes.pop(kind, None)
        if process is not None:
            process.terminate()
            process.wait(PATIENCE)

    def pause(self, kind: str) -> None:
        """SIGSTOP: it holds what it holds and does nothing."""
        _signal(self._processes[kind], signal.SIGSTOP)

    def resume(self, kind: str) -> None:
        """SIGCONT."""
        _signal(self._processes[kind], signal.SIGCONT)

    def wait_for_death(self, kind: str) -> None:
        """Until it died at its failpoint, by SIGKILL; what is left of it is killed. Raises when it does not."""
        code = self._processes.pop(kind).wait(PATIENCE)
        if code != -signal.SIGKILL or "failpoint.reached" not in self.said(kind):
            raise RuntimeError(f"{self.name} {kind} ended with {code}, and not at its failpoint:\n{self.said(kind)}")

    def tend(self) -> None:
        """Start again what ended by itself or was killed behind our back, as a supervisor does."""
        for kind, process in list(self._processes.items()):
            if process.poll() is not None:
                self.start(kind)

    def said(self, kind: str) -> str:
        """What this process printed since its last start."""
        with self._output(kind).open("rb") as output:
            output.seek(self._begun[kind][1])
            return output.read().decode(errors="replace")

    def said_ever(self, kind: str) -> str:
        """What all these processes printed."""
        return self._output(kind).read_text(errors="replace") if self._output(kind).exists() else ""

    def _output(self, kind: str) -> Path:
        return self.folder / f"{kind}.log"

    def command(self, *words: str, failpoint: str = "") -> subprocess.CompletedProcess:
        """Run the console script with these words, to its end."""
        return subprocess.run(
            [BIN / self._program, *words], env=self._armed(failpoint), cwd=self.folder, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=PATIENCE,
        )  # fmt: skip

    # -- Its database, as an operator has it --

    def copy_database(self) -> str:
        """Make a copy, while nothing of it runs: a file without a WAL, or another database; where it is."""
        self._copies += 1
        self.database.close()
        if self.database.url.get_backend_name() == "sqlite":
            copy = f"{self.database.url.database}.copy{self._copies}"
            with (
                contextlib.closing(sqlite3.connect(self.database.url.database)) as here,
                contextlib.closing(sqlite3.connect(copy)) as there,
            ):
                here.backup(there)
            return copy
        copy = f"{self.database.url.database}_copy{self._copies}"
        self._ask_server(f"CREATE DATABASE {copy} TEMPLATE {self.database.url.database}")
        return copy

    def put_back(self, copy: str) -> None:
        """Put this copy in the place of the database, while nothing of it runs. The copy stays, for another time."""
        self.database.close()
        here = self.database.url.database
        if self.database.url.get_backend_name() == "sqlite":
            for ending in ("-wal", "-shm"):
                Path(here + ending).unlink(missing_ok=True)
            shutil.copyfile(copy, here)
            return
        self._ask_server(f"DROP DATABASE {here} WITH (FORCE)")
        self._ask_server(f"CREATE DATABASE {here} TEMPLATE {copy}")

    def _ask_server(self, statement: str) -> None:
        server = self.database.url.set(drivername="postgresql", database="postgres")
        with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(statement)

    def end(self) -> None:
        """Kill what runs and let go of the database."""
        for kind in list(self._processes):
            self.kill(kind)
        self.database.close()

    # -- Its people --

    database: Database
    forked = False
    """Whether its processes come from the nursery: quick starts, for tests that make many."""
    someone: str
    """Who does things here if nobody else is named: an e-mail address."""

    def _code_of(self, email: str) -> str:
        raise NotImplementedError

    def visitor(self, email: str = "") -> "Visitor":
        """Somebody with a browser, logged in by the link of the console (made here, used over HTTP)."""
        with self.database.transaction() as session:
            link = login.make_link(session, self._code_of(email or self.someone), utc_now(), login.CLI_LINK_LASTS)
        visitor = Visitor(self.url)
        visitor.send(f"/login/link/{link}")
        visitor.forget_form()
        return visitor

    def token(self, email: str = "") -> str:
        """A new API token."""
        with self.database.transaction() as session:
            return login.make_api_token(session, self._code_of(email or self.someone), "tests", utc_now())


class Hub(Service):
    """The association's hub."""

    someone = ASSOCIATION

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        super().__init__("hub", folder, "TUINKOEPEL_HUB", "hub", settings)
        self.settings = read_settings(hub_config.Settings, self.environment, prefix=self._prefix)
        _make_tables(hub_config.HERE, self.settings.database_url)
        self.database, self.author = hub_config.open_hub(self.settings)
        with self.database.transaction() as session:
            found_association(session)
            session.add(AssociationMember(code="vera", name="Vera Voorbeeld", email=ASSOCIATION, language="nl", role="association"))

    def _code_of(self, email: str) -> str:
        with self.database.reading() as session:
            return session.scalars(select(AssociationMember.code).where(AssociationMember.email == email)).one()

    def _worked_since(self, moment: datetime) -> bool:
        with self.database.reading() as session:
            seen = session.scalar(select(func.max(ingest_pulse.c.seen_at)))
        return seen is not None and seen > moment

    def code_for(self, slug: str) -> str:
        """A joining code for a new town."""
        with self.database.transaction() as session:
            return add_town(session, slug, slug.capitalize(), utc_now())

    def national_log(self, slug: str) -> list[Entry]:
        """What the association holds of a town's log: of its present epoch, in its order."""
        return held_log(self.database, slug)


class Town(Service):
    """A town's node. It has tables and no membership until `join`."""

    someone = FACILITATOR

    def __init__(self, slug: str, folder: Path, settings: dict[str, str]) -> None:
        super().__init__(slug, folder, "TUINKOEPEL_NODE", "town-node", QUICK | settings)
        self.settings = read_settings(node_config.Settings, self.environment, prefix=self._prefix)
        _make_tables(node_config.HERE, self.settings.database_url)
        self.database = open_node(self.settings)

    def join(self, hub: Hub) -> None:
        """Join with a code, and let in a facilitator and a member. The hub's web process must answer."""
        join_association(self.settings, self.database, hub.url, hub.code_for(self.name), SLICES)
        with self.database.transaction() as session:
            add_member(session, name="Fenna Facilitator", email=FACILITATOR, role="facilitator", today=utc_now().date())
            add_member(session, name="Daan Deelnemer", email=MEMBER, today=utc_now().date())

    def _code_of(self, email: str) -> str:
        with self.database.reading() as session:
            return session.scalars(select(Member.code).where(Member.email == email)).one()

    def _worked_since(self, moment: datetime) -> bool:
        with self.database.reading() as session:
            answered = session.scalar(select(received_head.c.answered_at))
        return answered is not None and answered > moment

    def log(self) -> list[Entry]:
        """Its own log, from the beginning."""
        return whole_log(self.database)

    def is_sent(self) -> bool:
        """Whether its relay has handed everything to the bus."""
        with self.database.reading() as session:
            last = read_head(session)
            return last is None or position(session, last.epoch) == last.seq


class Visitor:
    """Somebody's browser, as far as forms need one: cookies, and the token of a page. Every call is a connection of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._cookies: dict[str, str] = {"language": "nl"}
        self._form_token = ""

    def call(self, method: str, path: str, /, **values: Any) -> urllib3.BaseHTTPResponse:
        """Raises `urllib3.exceptions.HTTPError` when there is no answer: then nothing was acknowledged."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()), "Connection": "close"}
        headers["Accept-Encoding"] = "gzip"
        body = None
        if method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(values, doseq=True)
        answer = urllib3.request(
            method, self.url + path, body=body, headers=headers, redirect=False, retries=False, timeout=PATIENCE
        )
        for line in answer.headers.getlist("Set-Cookie"):
            self._cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
        return answer

    def get(self, path: str) -> str:
        """A page."""
        answer = self.call("GET", path)
        if answer.status != 200:
            raise AssertionError(f"GET {path}: {answer.status}\n{answer.data.decode()[:2000]}")
        return answer.data.decode()

    def send(self, path: str, page: str = "", expect: int = 302, **values: Any) -> str:
        """Send a form; the address it leads to, if it leads on. The token of the first form serves for all later ones."""
        if not self._form_token:
            found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.get(page or path))
            self._form_token = found[1] if found else ""
        answer = self.call("POST", path, csrf_token=self._form_token, **values)
        if answer.status != expect:
            raise AssertionError(f"POST {path}: {answer.status}\n{answer.data.decode().partition('<main')[2]}")
        return answer.headers.get("Location", "")

    def forget_form(self) -> None:
        """Take a fresh token at the next form."""
        self._form_token = ""

    def share(self, title: str, body: str = "Zo ging het.", **told: str) -> str:
        """Share a lesson; its code, once the node has acknowledged it."""
        told = {
            "title": title,
            "body": body,
            "kind": "tip",
            "theme": "water",
            "phase": "plan",
            "initiative": "",
            "meeting": "",
        } | told
        return self.send("/lessons/new", **told).rpartition("/")[2]

    def revise(self, code: str, title: str, body: str = "Zo ging het bij nader inzien.") -> None:
        """Say a lesson better."""
        told = {"title": title, "body": body, "kind": "do", "theme": "soil", "phase": "", "initiative": "", "meeting": ""}
        self.send(f"/lessons/{code}/edit", **told)

    def withdraw(self, code: str) -> None:
        """Take a lesson back."""
        self.send(f"/lessons/{code}/withdraw", page="/lessons/new")


class World:
    """A hub and towns in a folder of their own. `database()` gives addresses of new databases; without it everything is SQLite.

    `forked` takes the processes from a nursery (`nursery.py`), for tests that start a great many.
    """

    def __init__(
        self, towns: Sequence[str] = ("almere", "dronten"), *, database: Callable[[], str] | None = None, bus: str = "",
        hub_settings: dict[str, str] | None = None, town_settings: dict[str, str] | None = None, forked: bool = False,
    ) -> None:  # fmt: skip
        self.folder = fresh_folder()
        self._fresh = database or (lambda: "")
        self._town_settings = town_settings or {}
        self.bus, self._forked = bus, forked
        if bus:
            _empty_broker(bus)
        self.hub = Hub(self.folder, {"DATABASE": self._fresh(), "BUS": bus, **(hub_settings or {})})
        self.hub.forked = forked
        self.towns: dict[str, Town] = {}
        self._first = towns

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self, kinds: Sequence[str] = ("web", "worker")) -> None:
        """The hub runs, the towns have joined, and everything has answered once."""
        for kind in ("web", "worker"):
            self.hub.start(kind)
        made = [self.new_town(slug) for slug in self._first]
        for kind in ("web", "worker"):
            self.hub.wait_until_ready(kind)
        for town in made:
            town.join(self.hub)
            for kind in kinds:
                town.start(kind)
        for town in made:
            for kind in kinds:
                town.wait_until_ready(kind)

    def new_town(self, slug: str) -> Town:
        """Another node, with tables and people to come; it has not joined."""
        self.towns[slug] = Town(slug, self.folder, {"DATABASE": self._fresh(), **self._town_settings})
        self.towns[slug].forked = self._forked
        return self.towns[slug]

    def services(self) -> list[Service]:
        """The hub, then the towns."""
        return [self.hub, *self.towns.values()]

    def tend(self) -> None:
        """Start again whatever ended."""
        for service in self.services():
            service.tend()

    def settle(self, patience: float = PATIENCE) -> None:
        """Wait until everything has arrived everywhere. Raises `AssertionError` with what is behind, and what the workers said."""
        behind: dict[str, Any] = {}
        deadline = time.monotonic() + patience
        while behind := self.behind():
            if time.monotonic() > deadline:
                told = [f"--- {one.name} {kind}\n{one.said(kind)[-3000:]}" for one in self.services() for kind in one._begun]
                raise AssertionError(f"after {patience:.0f} s still behind: {behind}\n" + "\n".join(told))
            time.sleep(0.03)

    def behind(self) -> dict[str, Any]:
        """What has not arrived yet, as {what: (how far, of how far)}; a town that has not joined or has no worker is left out."""
        found: dict[str, tuple[Any, Any]] = {}
        present: dict[str, str] = {}
        libraries: dict[str, dict[tuple[str, str], tuple[str, int]]] = {}
        with self.hub.database.reading() as session:
            held = {row.town: (row.epoch, row.seq) for row in session.execute(select(inbox_cursor))}
            folded = {(row.projection, row.town): (row.epoch, row.seq) for row in session.execute(select(projection_cursor))}
            looked = {(row.town, row.epoch): row.seq for row in session.execute(select(forwarded))}
            feed_id, last_number = session.execute(select(feed_state.c.id, feed_state.c.last)).first() or ("", 0)
            state = select(feed.c.town, feed.c.epoch, func.max(feed.c.seq)).group_by(feed.c.town, feed.c.epoch)
            offered = {(town, epoch): seq for town, epoch, seq in session.execute(state)}
        for service in self.services():
            slug = "koepel" if service is self.hub else service.name
            with service.database.reading() as session:
                last = read_head(session)
                if last is None:
                    continue
                found[f"{slug} relay"] = position(session, last.epoch), last.seq
                here = last.epoch, last.seq
                present[slug] = last.epoch
                found[f"{slug} national log"] = held.get(slug, (last.epoch, 0)), here
                found[f"{slug} forwarded"] = looked.get((slug, last.epoch), 0), last.seq
                for projection in HUB_PROJECTIONS:
                    found[f"{slug} {projection.name}"] = folded.get((projection.name, slug), (last.epoch, 0)), here
                if isinstance(service, Town) and service.runs("worker"):
                    found[f"{slug} is set back"] = set_back(session) is not None, False
                    read = session.execute(select(feed_cursor.c.id, feed_cursor.c.number)).first() or (feed_id, 0)
                    found[f"{slug} feed"] = tuple(read), (feed_id, last_number)
                    cursors = session.execute(select(projection_cursor))
                    libraries[slug] = {(row.projection, row.town): (row.epoch, row.seq) for row in cursors}
        for slug, library in libraries.items():
            for (other, epoch), seq in offered.items():
                # Of a town that is gone, the epoch that is held is the present one.
                if other != slug and present.get(other, held.get(other, (epoch, 0))[0]) == epoch:
                    for projection in NODE_PROJECTIONS:
                        reached = library.get((projection.name, other), (epoch, 0))
                        found[f"{slug} {projection.name} of {other}"] = reached, (epoch, seq)
        return {what: counts for what, counts in found.items() if counts[0] != counts[1]}

    def national_log(self, slug: str) -> list[Entry]:
        """What the association holds of a town's log."""
        return self.hub.national_log(slug)

    def end(self) -> None:
        """Kill everything and remove what it left."""
        for service in self.services():
            service.end()
        clear(self.folder)


def whole_log(database: Database) -> list[Entry]:
    """A log of one's own, from its beginning."""
    entries: list[Entry] = []
    with database.reading() as session:
        last = read_head(session)
        while last is not None and len(entries) < last.seq:
            entries += read_log(session, last.epoch, len(entries), 1000)
    return entries


def held_log(database: Database, slug: str) -> list[Entry]:
    """What somebody holds of another's log: of its present epoch, in its order."""
    present = (inbox.c.town == inbox_cursor.c.town) & (inbox.c.epoch == inbox_cursor.c.epoch)
    query = select(inbox).join(inbox_cursor, present).where(inbox.c.town == slug).order_by(inbox.c.seq)
    with database.reading() as session:
        return [open_entry(row.header, row.signature, row.salt, row.body) for row in session.execute(query)]


def _make_tables(package: Path, address: str) -> None:
    blank = Database(address)
    upgrade_tables(package / "migrations", blank)
    blank.close()


def _empty_broker(url: str) -> None:
    """Forget the queues of an earlier world on the same broker."""
    with kombu.Connection(url) as connection:
        for queue in ("hub.ingest", "hub.dead"):
            connection.default_channel.queue_delete(queue)


def _signal(process: subprocess.Popen | Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself
        os.killpg(process.pid, number)


def _members(group: int) -> list[int]:
    """The living processes of a group, its leader first."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _parent, its_group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(process.name))
        except OSError:
            continue  # gone already
    return sorted(found)

"""What goes wrong: each misdeed is a method of `Nemesis` that does it, waits, and puts right what no supervisor would.

A supervisor (a thread) starts again whatever died. Where a human hand is needed, it is the operator's: freeing a disk, putting
back a copy, and the association's decision about a town that stands still.

Two kinds of copies are put back. Of a node, **after everything that it acknowledged has reached the association**: what it
acknowledged after the copy and had not sent is truly gone with the disk, and no protocol can bring it back. Of the hub, at any
moment: its towns send everything again. Both lie there without a WAL, as a copied file does.
"""

import contextlib
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
import psycopg
from sqlalchemy import select

from shared.bus import TROUBLE, Publisher
from shared.envelope import MESSAGE_MAX, pack, seal
from shared.eventlog import read_head, read_log
from shared.heads import thaw
from shared.inbox import inbox, inbox_cursor
from shared.keys import KeyPair, load_key
from shared.quarantine import clear_quarantine
from shared.restore import set_back
from tests.nemesis.load import Sampler, Writer
from tests.processes import Service, Town, World, utc_now
from tests.services import Postgres, Rabbit, wait_until
from tests.shared.worlds import lesson

EVERY = 20.0
"""Seconds from the beginning of one misdeed to that of the next."""
LASTS = 8.0
"""Seconds that something is stopped, full or silent."""
PATIENCE = 90.0
"""Seconds until what was put right has to work again."""
SMALL_DISK = 96 * 2**20
END_ALL = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname <> 'postgres'
"""


class Nemesis:
    """The hand that does it. `kinds` is what it can do in this world."""

    def __init__(
        self, world: World, writers: list[Writer], sampler: Sampler, seed: int, servers: tuple[Postgres, Rabbit] | None
    ) -> None:
        self.world, self.writers, self.sampler = world, {writer.town.name: writer for writer in writers}, sampler
        self.chance = random.Random(seed)
        self.postgres, self.rabbit = servers or (None, None)
        self.guard = threading.RLock()
        """Held by whoever starts or ends processes, so that supervisor and operator do not meet."""
        self.done: list[str] = []
        self.trouble: list[str] = []
        self.told_of: set[str] = set()
        self._over = threading.Event()
        self._copies: dict[str, str] = {}
        self._turn = 0
        self.kinds: list[Callable[[], str]] = [
            self.kill_something, self.kill_something, self.stop_something, self.silence_the_hub, self.fill_a_disk,
            self.put_back_a_node, self.put_back_the_hub, self.send_rubbish, self.send_another_history,
        ]  # fmt: skip
        if servers:
            self.kinds += [
                self.purge_the_broker,
                self.alarm_the_broker,
                self.hang_the_broker,
                self.kill_the_broker,
                self.end_connections,
            ]
        else:
            self.kinds += [self.delete_the_bus]

    # -- The course of it --

    def make_ready(self) -> None:
        """Copies to put back later, and a small disk for the last town."""
        for service in self.world.services():
            with self._at_rest(service):
                self._copies[service.name] = service.copy_database()
        last = list(self.world.towns.values())[-1]
        with self._at_rest(last):
            last.database.close()
            aside = last.folder.with_suffix(".aside")
            last.folder.rename(aside)
            last.folder.mkdir(mode=0o700)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=0700", "tmpfs", last.folder], check=True)
            shutil.copytree(aside, last.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.bell"))
            shutil.rmtree(aside)
        self.small_disk = last.folder

    def go_on(self, seconds: float) -> None:
        """One misdeed after the other, each kind once before any comes again."""
        begun, bag = time.monotonic(), []
        while (here := time.monotonic() - begun) < seconds:
            bag = bag or self.chance.sample(self.kinds, len(self.kinds))
            deed = bag.pop()
            say(f"{here:5.0f} s  {deed.__name__.replace('_', ' ')} …")
            try:
                what = deed()
            except (AssertionError, TimeoutError, RuntimeError, OSError) as error:
                what = f"did not come right: {deed.__name__}: {str(error)[:3000]}"
                self.trouble.append(what)
            self.done.append(deed.__name__)
            say(f"         {what} ({time.monotonic() - begun - here:.0f} s)")
            self.decide()
            time.sleep(max(0.0, here + EVERY - (time.monotonic() - begun)))

    def supervise(self) -> None:
        """Start again what died, and note what ended by itself, until told to stop."""
        while not self._over.wait(0.3):
            with self.guard:
                self.world.tend()

    def decide(self) -> None:
        """The association looks at the towns that stand still, and lets them go on."""
        with self.world.hub.database.transaction() as session:
            for town in session.scalars(select(inbox_cursor.c.town).where(inbox_cursor.c.frozen_at.is_not(None))).all():
                thaw(session, town, utc_now())
                clear_quarantine(session, town)
                say(f"         the association lets {town} go on")

    def end(self) -> None:
        self._over.set()

    def leave(self) -> None:
        """Take the small disk away."""
        subprocess.run(["umount", "--lazy", self.small_disk], check=False)

    # -- Processes --

    def kill_something(self) -> str:
        """SIGKILL to all of a process, or of a web process only to its master, or to its child."""
        service, kind = self._somebody()
        with self.guard:
            service.strike(kind, self.chance.choice([lambda pids: pids, lambda pids: pids[:1], lambda pids: pids[-1:]]))
        return f"killed {service.name} {kind}"

    def stop_something(self) -> str:
        """SIGSTOP, and SIGCONT later."""
        service, kind = self._somebody()
        self._stop(service, kind)
        return f"stopped {service.name} {kind}, and let it go on"

    def silence_the_hub(self) -> str:
        """The hub's web process holds every connection open, and answers nothing for longer than a call waits."""
        self._stop(self.world.hub, "web", 25.0)
        return "the hub answered nothing, its connections half open"

    def _stop(self, service: Service, kind: str, seconds: float = LASTS) -> None:
        service.pause(kind)
        try:
            time.sleep(seconds)
        finally:
            service.resume(kind)

    def _somebody(self) -> tuple[Service, str]:
        return self.chance.choice(self.world.services()), self.chance.choice(["web", "worker"])

    # -- The bus --

    def purge_the_broker(self) -> str:
        """Everything that lies there is gone."""
        for _ in range(5):
            self.rabbit.rabbitmqctl("purge_queue", "hub.ingest")
        return "purged the queue, five times"

    def alarm_the_broker(self) -> str:
        """The broker says that it has no memory left: nobody may publish."""
        self.rabbit.rabbitmqctl("set_vm_memory_high_watermark", "0.00001")
        try:
            time.sleep(LASTS)
        finally:
            self.rabbit.rabbitmqctl("set_vm_memory_high_watermark", "0.4")
        return "memory alarm, and its end"

    def hang_the_broker(self) -> str:
        """Its connections stay open and silent, longer than anybody waits for a confirm."""
        self.rabbit.pause()
        try:
            time.sleep(20.0)
        finally:
            self.rabbit.resume()
        return "the broker hung, its connections half open"

    def kill_the_broker(self) -> str:
        """SIGKILL, and a start."""
        self.rabbit.kill()
        self.rabbit.start()
        return "killed the broker, and started it"

    def delete_the_bus(self) -> str:
        """The file of the embedded courier is gone, with whatever lay in it."""
        for ending in ("", "-wal", "-shm"):
            Path(f"{self.world.hub.settings.state / 'bus.db'}{ending}").unlink(missing_ok=True)
        return "deleted the bus file"

    # -- Databases and disks --

    def end_connections(self) -> str:
        """PostgreSQL ends every connection of every service, again and again."""
        ended = 0
        with psycopg.connect(self.postgres.url, autocommit=True) as server:
            for _ in range(6):
                ended += server.execute(END_ALL).fetchone()[0]
                time.sleep(0.5)
        return f"ended {ended} connections to PostgreSQL"

    def fill_a_disk(self) -> str:
        """Not a byte more can be written on the last town's disk."""
        ballast = self.small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                for size in (2**20, 2**12, 1):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(bytes(size))
                time.sleep(LASTS)
            finally:
                ballast.unlink()
        return f"filled the disk of {self.small_disk.name}, and freed it"

    def put_back_a_node(self) -> str:
        """An older copy, once everything acknowledged has arrived. It serves, and people write, before it has its tail back."""
        towns = list(self.world.towns.values())
        self._turn += 1
        town = towns[self._turn % len(towns)]
        with self.writers[town.name].held():
            wait_until(lambda: self._has_arrived(town), f"all that {town.name} acknowledged at the hub", PATIENCE)
            self.sampler.look_away(town.name)
            with self._at_rest(town):
                town.put_back(self._copies[town.name])
        wait_until(lambda: self._has_come_back(town), f"the tail of {town.name}", PATIENCE)
        wait_until(lambda: not self._behind(town.name), f"{town.name} with all it had", PATIENCE)
        self.sampler.look_again(town.name)
        return f"put back an older copy of {town.name}"

    def put_back_the_hub(self) -> str:
        """An older copy, at any moment."""
        self.sampler.look_away("hub")
        with self._at_rest(self.world.hub):
            self.world.hub.put_back(self._copies["hub"])
        with contextlib.ExitStack() as nobody_writes:
            for writer in self.writers.values():
                nobody_writes.enter_context(writer.held())

            def whole() -> bool:
                self.decide()
                return not self.world.behind()

            try:
                wait_until(whole, "the hub with everything again", PATIENCE)
            except TimeoutError as error:
                raise AssertionError(f"{error}: {self.world.behind()}") from None
        self.sampler.look_again("hub")
        return "put back an older copy of the hub"

    @contextlib.contextmanager
    def _at_rest(self, service: Service) -> Iterator[None]:
        """None of its processes runs."""
        with self.guard:
            for kind in ("web", "worker"):
                service.kill(kind)
            try:
                yield
            finally:
                for kind in ("web", "worker"):
                    service.start(kind)
        for kind in ("web", "worker"):
            service.wait_until_ready(kind)

    def _has_arrived(self, town: Town) -> bool:
        with town.database.reading() as session:
            last, behind = read_head(session), set_back(session)
        with self.world.hub.database.reading() as session:
            held = session.execute(select(inbox_cursor).where(inbox_cursor.c.town == town.name)).first()
        self.decide()
        return behind is None and held is not None and (held.epoch, held.seq, bytes(held.hash)) == (last.epoch, last.seq, last.hash)

    def _has_come_back(self, town: Town) -> bool:
        with town.database.reading() as session:
            return set_back(session) is None

    def _behind(self, slug: str) -> dict:
        self.decide()
        return {what: how for what, how in self.world.behind().items() if what.startswith(f"{slug} library of")}

    # -- Messages --

    def send_rubbish(self) -> str:
        """Forged, replayed, cross-town, oversized, bad UTF-8, far future: each of each town, under its own key on the bus."""
        sent = 0
        slugs = list(self.world.towns)
        for number, town in enumerate(self.world.towns.values()):
            other = slugs[(number + 1) % len(slugs)]
            for raw in rubbish(town, other):
                sent += self._publish(town.name, raw)
            sent += self._publish(other, replayed(town))
        return f"sent {sent} messages of rubbish"

    def send_another_history(self) -> str:
        """Signed with the town's own key, something else at a place that is taken: the town has to stand still."""
        town = self.chance.choice(list(self.world.towns.values()))
        wait_until(lambda: self._has_come_back(town) and self._held(town) is not None, f"{town.name} at the hub", PATIENCE)

        def is_frozen() -> bool:
            self._publish(town.name, another_history(town, self._held(town)))
            return wait_a_little(lambda: self._trouble(town) == "forked", 3.0)

        wait_until(is_frozen, f"a town that stands still: {town.name}", PATIENCE)
        time.sleep(2.0)
        self.decide()
        return f"another history of {town.name}; it stood still"

    def _held(self, town: Town) -> object:
        present = (
            (inbox.c.town == inbox_cursor.c.town) & (inbox.c.epoch == inbox_cursor.c.epoch) & (inbox.c.seq == inbox_cursor.c.seq)
        )
        with self.world.hub.database.reading() as session:
            query = select(inbox.c.epoch, inbox.c.seq, inbox.c.header)
            return session.execute(query.join(inbox_cursor, present).where(inbox.c.town == town.name)).first()

    def _trouble(self, town: Town) -> str:
        with self.world.hub.database.reading() as session:
            return session.scalar(select(inbox_cursor.c.trouble).where(inbox_cursor.c.town == town.name)) or ""

    def _publish(self, slug: str, raw: bytes) -> int:
        publisher = Publisher(self.world.hub.settings.bus_url, slug)
        try:
            publisher.publish(raw)
        except TROUBLE:
            return 0  # a broker that is just coming back, or refuses: as well
        finally:
            publisher.close()
        return 1


def rubbish(town: Town, other: str) -> Iterator[bytes]:
    """What a stranger sends, and a town that means ill of another. Nothing of it may be believed."""
    key, thief = load_key(town.settings.state / "town.key"), KeyPair.of(os.urandom(32))
    with town.database.reading() as session:
        last = read_head(session)
        entries = read_log(session, last.epoch, max(0, last.seq - 3), 3)
    place = {
        "town": town.name,
        "epoch": last.epoch,
        "seq": last.seq + 1,
        "prevhash": last.hash,
        "now": utc_now(),
        "salt": os.urandom(32),
    }
    under_its_name = KeyPair(thief.seed, thief.public, key.key_id)
    for forger in (thief, under_its_name):
        yield pack([seal(lesson("Verzonnen", code="verzonnen"), **place | {"key": forger})])[0]
    yield pack([seal(lesson("Van een ander", code="verzonnen"), **place | {"key": key, "town": other})])[0]
    later = {"key": key, "seq": last.seq + 1000, "now": datetime(2999, 1, 1, tzinfo=UTC)}
    yield pack([seal(lesson("Uit de verre toekomst", code="verzonnen"), **place | later)])[0]
    message = orjson.loads(pack(entries)[0])
    yield orjson.dumps(message | {"town": other})
    yield orjson.dumps(message | {"from": 2**60})
    message["events"][-1]["body"] = message["events"][-1].get("body", "").replace("Les", "Nep")
    yield orjson.dumps(message)
    yield orjson.dumps(message) + b" " * MESSAGE_MAX
    yield b"\xff\xfe\x00" + os.urandom(100)
    yield orjson.dumps(message).replace(b"Nep", b"\xed\xa0\x80\xff")
    yield b""
    yield b"[" * 100_000


def replayed(town: Town) -> bytes:
    """True words, once more."""
    with town.database.reading() as session:
        return pack(read_log(session, read_head(session).epoch, 0, 50))[0]


def another_history(town: Town, held: object) -> bytes:
    """What a copy of the node would say at the last place that the association holds."""
    before = bytes.fromhex(orjson.loads(held.header)["prevhash"])
    key = load_key(town.settings.state / "town.key")
    place = {"town": town.name, "epoch": held.epoch, "seq": held.seq, "prevhash": before, "now": utc_now(), "salt": os.urandom(32)}
    return pack([seal(lesson("Een andere geschiedenis", code="verzonnen"), **place, key=key)])[0]


def wait_a_little(ready: Callable[[], bool], seconds: float) -> bool:
    """Whether it came."""
    with contextlib.suppress(TimeoutError):
        wait_until(ready, "it", seconds)
    return ready()


def say(what: str) -> None:
    print(what, flush=True)

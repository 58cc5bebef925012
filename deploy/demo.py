"""The demo: a hub and the nodes of Almere and Dronten on this machine, each a web process and a worker, until Ctrl-C.

Everything is real: the towns join with codes, and what the hub shows has travelled. State stays in one folder; a second start
finds it again, also with other ports, also after a kill in the middle of the first: every step here is done once, or may be done
twice. A process that ends is started again, and its reason is said.

It can also show what becomes of a town whose disk dies and that has no backup (`lose`, `take_back`).

Nothing outlives the demo. Its processes ask the kernel to end them when their starter has died (Linux), and hold the lock of the
state folder with it, so that the next start knows whom to wait for.
"""

import argparse
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PATIENCE = 60.0
"""Seconds a process may take to answer for the first time."""
FAREWELL = 15.0
"""Seconds processes may take to end."""
PAUSE_MAX = 30.0
"""Seconds before a process that keeps ending is started once more; the pause doubles from one second."""
SPACE_NEEDED = 50
"""Megabytes for a demo that runs for days."""
TOWNS = {"almere": "Almere", "dronten": "Dronten"}
THINGS = ("initiatives", "meetings", "lessons")
"""What a town tells the others, as its API lists it."""
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Role:
    """A sample person to log in as, in words who that is, and what to try first."""

    what: str
    service: str
    name: str
    email: str
    role: str
    first: str


ROLES = (
    Role(
        "for the association, on the hub", "hub", "Vera Voorbeeld", "vera@koepel.example", "association",
        "see under Sync how far each town is",
    ),
    Role(
        "facilitator of Almere", "almere", "Fenna Facilitator", "fenna@almere.example", "facilitator",
        "plan the next evening of the circle, under Meetings",
    ),
    Role(
        "member in Almere", "almere", "Daan Deelnemer", "daan@almere.example", "member",
        "share a lesson, under Lessons; it appears on the hub by itself",
    ),
    Role(
        "facilitator of Dronten", "dronten", "Farid Facilitator", "farid@dronten.example", "facilitator",
        "find under Association what Almere shared",
    ),
    Role(
        "member in Dronten", "dronten", "Dewi Deelnemer", "dewi@dronten.example", "member",
        "look at the gardens, under Initiatives",
    ),
)  # fmt: skip


class Trouble(Exception):  # noqa: N818  # it ends the demo with one line
    """The demo cannot go on; the message says why."""


def end_with_starter() -> None:
    """From now on this process gets SIGTERM when the one that started it has died, however it died."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    except (AttributeError, OSError):
        return  # not Linux: the lock will tell


class Service:
    """The hub or a node: its settings, its command line, its two processes."""

    def __init__(self, name: str, port: int, var: Path, extra: dict[str, str]) -> None:
        self.name, self.port, self.folder = name, port, var / name
        self.url = f"http://127.0.0.1:{port}"
        prefix = "TUINKOEPEL_HUB_" if name == "hub" else "TUINKOEPEL_NODE_"
        self.program = str(BIN / ("hub" if name == "hub" else "town-node"))
        settings = {"STATE": str(self.folder), "URL": self.url, "DEMO": "yes", **extra}
        # Settings of some other hub or node in the visitor's own environment are not for the demo.
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("TUINKOEPEL_")}
        self.environment |= {prefix + key: value for key, value in settings.items()}
        self.lock = -1
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._log_began: dict[str, int] = {}
        self._pause: dict[str, float] = {}

    # -- Commands --

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a command of this service."""
        return self._run([self.program, *words])

    def command(self, *words: str) -> str:
        """Run a command of this service; what it printed."""
        return self.finish(self.begin(*words), words[0])

    def finish(self, begun: subprocess.Popen[str], what: str) -> str:
        """Wait for a command; what it printed. Raises `Trouble` with its last line when it failed."""
        said, trouble = begun.communicate()
        if begun.returncode:
            raise Trouble(f"{self.name} {what}: {last_line(trouble)}")
        return said.strip()

    def sample(self) -> None:
        """Load the sample circle by acting on this node; does nothing when it is there already."""
        self.finish(self._run([sys.executable, str(ROOT / "deploy" / "sample.py"), self.name]), "sample")

    def _run(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, env=self.environment | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, pass_fds=[self.lock], preexec_fn=end_with_starter,  # noqa: PLW1509  # no threads here
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    # -- Processes --

    def start(self, kind: str) -> None:
        """Start the web process or the worker; its log goes to a file, beside the one of the run before."""
        words = ["run", kind] + (["--port", str(self.port)] if kind == "web" else [])
        path = self.folder / f"{kind}.log"
        if kind not in self.processes and path.exists():
            path.replace(path.with_suffix(".log.old"))
        with path.open("ab") as log:
            self._log_began[kind] = log.tell()
            self.processes[kind] = subprocess.Popen(
                [self.program, *words], env=self.environment, cwd=ROOT, pass_fds=[self.lock], preexec_fn=end_with_starter,  # noqa: PLW1509  # no threads here
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._started[kind] = time.monotonic()

    def tend(self) -> None:
        """Start again what ended, and say why it did; what keeps ending waits longer each time."""
        for kind, process in list(self.processes.items()):
            lived = time.monotonic() - self._started[kind]
            if process.poll() is None:
                if lived > PAUSE_MAX:
                    self._pause.pop(kind, None)
                continue
            if kind not in self._pause or lived > self._pause[kind]:
                pause = min(PAUSE_MAX, 2 * self._pause.get(kind, 0.5))
                print(f"  {self.name} {kind} ended ({self.reason(kind)}) and is started again", flush=True)
                self._pause[kind] = pause
                self.start(kind)

    def wait(self) -> None:
        """Until the web process answers. Raises `Trouble` with its reason when it ends instead."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urlopen(f"{self.url}/healthz", timeout=2):  # noqa: S310  # our own address
                    return
            except (URLError, OSError):
                if self.processes["web"].poll() is not None:
                    raise Trouble(f"{self.name} does not start: {self.reason('web')}") from None
                if time.monotonic() > deadline:
                    raise Trouble(f"{self.name} does not answer at {self.url}; see {self.folder / 'web.log'}") from None
                time.sleep(0.05)

    def read(self, path: str) -> str:
        """What it answers there to anybody. Raises `Trouble` when it does not answer."""
        try:
            with urlopen(self.url + path, timeout=10) as answer:  # noqa: S310  # our own address
                return str(answer.read().decode())
        except (URLError, OSError) as error:
            raise Trouble(f"{self.name} does not answer at {self.url}{path}: {error}") from None

    def count(self, things: str) -> int:
        """How many of these things its API lists."""
        found, after = 0, ""
        while True:
            page = json.loads(self.read(f"/api/v1/{things}?limit=100&after={quote(after)}"))
            found += len(page["items"])
            if not (after := page["next"]):
                return found

    def reason(self, kind: str) -> str:
        """The last line that this process wrote since it was started."""
        code = self.processes[kind].returncode
        with (self.folder / f"{kind}.log").open("rb") as log:
            log.seek(self._log_began[kind])
            said = last_line(log.read().decode(errors="replace"))
        return f"signal {-code}" if code < 0 else said

    def ask_to_end(self) -> None:
        """Politely first."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    def see_end(self) -> None:
        """Until both processes have ended."""
        for process in self.processes.values():
            try:
                process.wait(FAREWELL)
            except subprocess.TimeoutExpired:
                process.kill()


def last_line(text: str) -> str:
    """What a program said last; our own log lines are JSON, and say it in `what` and `error`."""
    lines = [line for line in text.splitlines() if line.strip()]
    line = lines[-1].strip() if lines else "no reason given"
    if line.startswith("{"):
        try:
            fact = json.loads(line)
        except ValueError:
            return line
        line = f"{fact.get('what', '')} {str(fact.get('error', '')).splitlines()[-1] if fact.get('error') else ''}".strip()
    return line.removeprefix("Error: ")


# ---- Before the start ------------------------------------------------------------------------------------------------------


def hold(var: Path) -> int:
    """Lock the state folder, for this demo and its processes together; the lock's handle."""
    try:
        var.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(var / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Trouble(f"the state folder {var} cannot be used: {error.strerror}") from None
    deadline, told = time.monotonic() + FAREWELL, False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode().strip()
            if holder and Path("/proc", holder).exists():
                raise Trouble(
                    f"a demo runs on {var} already (process {holder}); another one: make demo BASE_PORT=… VAR=…"
                ) from None
            if time.monotonic() > deadline:
                raise Trouble(f"processes of an earlier demo on {var} do not end; see: fuser {var / '.lock'}") from None
            if not told:
                print("Waiting until the processes of an earlier demo have ended …", flush=True)
            told = True
            time.sleep(0.1)
        else:
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            return handle


def look_first(ports: list[int], var: Path) -> None:
    """Refuse in one line what would fail later in many."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError) as error:
                why = getattr(error, "strerror", None) or "ports go from 1 to 65535"
                raise Trouble(f"port {port} cannot be used ({why}); choose others: make demo BASE_PORT=9000") from None
    try:
        free = shutil.disk_usage(var).free // 1_000_000
        if free < SPACE_NEEDED:
            raise Trouble(f"the disk of the state folder {var} is nearly full: {free} MB free, {SPACE_NEEDED} MB needed")
        trial = var / ".trial"
        trial.write_bytes(bytes(64 * 1024))
        trial.unlink()
    except OSError as error:
        raise Trouble(f"the state folder {var} cannot be used: {error.strerror}") from None


# ---- Setting up ------------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    """A file that only its owner may read, whole or not at all."""
    fresh = path.with_name(f".{path.name}")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)


def set_up(services: dict[str, Service]) -> None:
    """Tables, towns, people, tokens: done once, and repeated harmlessly."""
    hub, lost = services["hub"], [slug for slug in TOWNS if mark_of(services, slug).exists()]
    for slug in lost:
        put_aside(services, slug)
    print("  tables …", flush=True)
    for service in services.values():
        service.folder.mkdir(mode=0o700, exist_ok=True)
    for service, begun in [(service, service.begin("db", "upgrade")) for service in services.values()]:
        service.finish(begun, "db")
    hub.start("web")
    hub.start("worker")
    hub.wait()
    for slug, name in TOWNS.items():
        if not (services[slug].folder / "joined").exists():
            print(f"  {name} joins{' anew, with an empty node and another key' if slug in lost else ''} …", flush=True)
            join(hub, services[slug], name)
    for slug in TOWNS:
        services[slug].start("web")
        services[slug].start("worker")
    for slug in lost:
        take_back(services, slug)
    for name, service in services.items():
        env_file = service.folder / "api.env"
        if not env_file.exists():
            print(f"  people of {TOWNS.get(name, 'the association')} …", flush=True)
            theirs = [role for role in ROLES if role.service == name][: 1 if name in lost else None]
            for role in theirs:
                service.command("person", "add", role.name, role.email, *(["--role", role.role] if name != "hub" else []))
            token = service.command("token", theirs[0].email, "--name", "demo")
        else:
            token = env_file.read_text().rpartition("TOKEN=")[2].strip()
        write(env_file, f"URL={service.url}\nTOKEN={token}\n")


def join(hub: Service, node: Service, name: str) -> None:
    """Make the town at the hub and let its node join, from wherever an earlier try broke off."""
    code_file = hub.folder / f"code-{node.name}"
    if not code_file.exists():
        try:
            code = hub.command("town", "add", node.name, name)
        except Trouble as trouble:
            if "TownExists" not in str(trouble):
                raise
            code = hub.command("town", "code", node.name)  # the first one was made, and lost with its demo
        write(code_file, code)
    try:
        node.command("join", "--hub", hub.url, code_file.read_text())
    except Trouble as trouble:
        if "CodeRefused" in str(trouble):
            raise Trouble(
                f"the hub knows {name} with another key: {node.folder} is not as it was; begin anew with another VAR"
            ) from None
        if "JoinedAlready" not in str(trouble):
            raise
    (node.folder / "joined").touch()


# ---- A dead disk -----------------------------------------------------------------------------------------------------------


def mark_of(services: dict[str, Service], slug: str) -> Path:
    """Lies there from the moment at which a town is to lose its disk until it has come back; it says where the old folder goes.

    So a start that was killed at any point in between is gone on with by the next one.
    """
    return services["hub"].folder / f"lost-{slug}"


def look_what_to_lose(services: dict[str, Service], slug: str) -> None:
    """Raises `Trouble` when there is no such town, or no demo has run here that made it. Nothing is touched."""
    if slug not in TOWNS:
        raise Trouble(f"there is no town {slug} here that could lose its disk; choose: make demo LOSE={' or LOSE='.join(TOWNS)}")
    if not (services[slug].folder / "sampled").exists() and not mark_of(services, slug).exists():
        raise Trouble(f"{services[slug].folder} holds nothing to lose; run make demo there first, without LOSE")


def lose(services: dict[str, Service], slug: str) -> None:
    """From now on it is settled that this town's disk dies; `put_aside` does it."""
    if not mark_of(services, slug).exists():
        write(mark_of(services, slug), time.strftime(f"{slug}.lost-%Y%m%d-%H%M%S"))


def put_aside(services: dict[str, Service], slug: str) -> None:
    """The association gives a code to join anew; then the town's folder is taken away, and kept where nobody looks."""
    hub, folder = services["hub"], services[slug].folder
    aside = folder.with_name(mark_of(services, slug).read_text())
    if aside.exists():
        return  # an earlier start did it
    print(f"  {TOWNS[slug]} loses its disk: {folder} is put aside as {aside.name}, and nothing reads it any more", flush=True)
    hub.command("db", "upgrade")
    print(f"  the association gives a code to join anew (hub town readmit {slug}) …", flush=True)
    write(hub.folder / f"code-{slug}", hub.command("town", "readmit", slug))
    if folder.exists():
        folder.rename(aside)


def take_back(services: dict[str, Service], slug: str) -> None:
    """Wait until the worker has taken back what the association holds of this town; the circle is not loaded from the samples."""
    town, deadline = services[slug], time.monotonic() + PATIENCE
    print(f"  {TOWNS[slug]} takes back what the association holds of it …", flush=True)
    (town.folder / "sampled").touch()
    town.wait()
    while "tuinkoepel_log_events" not in town.read("/metrics"):  # a town that lost everything has no log before that
        if time.monotonic() > deadline:
            raise Trouble(f"nothing came back to {TOWNS[slug]} yet; see {town.folder / 'worker.log'}, and start again to go on")
        for service in services.values():
            service.tend()
        time.sleep(0.1)


def tell_what_came_back(services: dict[str, Service]) -> None:
    """For each town that lost its disk and is back: what happened, what came back and what did not, and where to look."""
    for slug, name in TOWNS.items():
        mark, town = mark_of(services, slug), services[slug]
        if not mark.exists():
            continue
        facilitator, *others = [role.name for role in ROLES if role.service == slug]
        came_back = ", ".join(f"{town.count(things)} {things}" for things in THINGS)
        print(f"\n  {name} lost its disk and had no backup. It has another key now; the old one counts no longer.")
        print(f"  Came back from the association: {came_back}, and how the circle presents itself.")
        print("  Gone, because it never left the town: people, notes, who was there, what was told in rounds.")
        print(f"  Let in again by hand: {facilitator}. Still to be let in again: {', '.join(others)}, and everybody else.")
        print(f"  Look: {town.url}/sync, and as {ROLES[0].name} {services['hub'].url}/association/towns/{slug}", flush=True)
        mark.unlink()


# ---- Running ---------------------------------------------------------------------------------------------------------------


def login_link(begun: subprocess.Popen[str], service: Service) -> str:
    """The link; or nothing when this person is not known there."""
    try:
        return service.finish(begun, "login-link")
    except Trouble as trouble:
        if "nobody here" not in str(trouble):
            raise
        return ""


def show_the_way_in(services: dict[str, Service]) -> None:
    """The addresses; then for each person who it is, what to do first, and the link."""
    links = [services[role.service].begin("login-link", role.email) for role in ROLES]
    print("\n  Everybody may look (pages are Dutch or English, as your browser asks):")
    for name, service in services.items():
        print(f"    {TOWNS.get(name, 'Association (hub)'):<20} {service.url}")
    print("\n  Open a link to be that person (it works once; every start makes new ones):")
    for role, begun in zip(ROLES, links, strict=True):
        link = login_link(begun, services[role.service])
        if link:
            print(f"    {role.name}, {role.what}: {role.first}\n      {link}")
        else:
            print(f"    {role.name}, {role.what}: not known there since the disk was lost, so no link")


def run(services: dict[str, Service], var: Path) -> NoReturn:
    """Set up, show the way in, and tend the processes until something is raised."""
    print("Tuinkoepel: a hub and two towns", flush=True)
    set_up(services)
    for slug, town in TOWNS.items():
        services[slug].wait()
        if not (services[slug].folder / "sampled").exists():
            print(f"  sample circle of {town} …", flush=True)
            services[slug].sample()
            (services[slug].folder / "sampled").touch()
    tell_what_came_back(services)
    show_the_way_in(services)
    print(f"\n  Mail: /dev/mail on each address. State and logs: {var}. Ctrl-C ends the demo.", flush=True)
    while True:
        time.sleep(0.3)
        for service in services.values():
            service.tend()


def stop_on(numbers: tuple[signal.Signals, ...], what: object) -> None:
    """How to answer these signals."""
    for number in numbers:
        signal.signal(number, what)  # type: ignore[arg-type]  # a handler, or SIG_IGN


def interrupt(_number: int, _frame: object) -> NoReturn:
    """Whatever asks us to end is treated as Ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-port", default="8000", help="the hub's port; the towns take the next two")
    parser.add_argument("--var", type=Path, default=Path("var"), help="the state folder")
    parser.add_argument("--lose", metavar="TOWN", default="", help="let this town's disk die: almere or dronten")
    parser.add_argument("--end-with-starter", action="store_true", help="end when the program that started this dies")
    asked = parser.parse_args()
    if asked.end_with_starter:
        end_with_starter()
    var = asked.var.expanduser().absolute()
    try:
        base_port = int(asked.base_port)
    except ValueError:
        print(f"demo: {asked.base_port!r} is no port: write a number, as in make demo BASE_PORT=9000", file=sys.stderr)
        return 1
    services = {"hub": Service("hub", base_port, var, {})}
    # Told again at every start, because ports and folder may be others than when the towns joined.
    quick = {"HUB": services["hub"].url, "BUS": f"sqlite:///{var / 'hub' / 'bus.db'}"}
    quick |= {"HEAD_PERIOD": "5", "IDLE_PERIOD": "15", "PULL_PERIOD": "1"}
    for offset, slug in enumerate(TOWNS, 1):
        services[slug] = Service(slug, base_port + offset, var, quick)
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    stop_on(ends, interrupt)
    try:
        if asked.lose:
            look_what_to_lose(services, asked.lose)
        lock = hold(var)
        for service in services.values():
            service.lock = lock
        look_first([service.port for service in services.values()], var)
        if asked.lose:
            lose(services, asked.lose)
        run(services, var)
    except KeyboardInterrupt:
        print("\nStopping …", flush=True)
        return 0
    except Trouble as trouble:
        print(f"demo: {trouble}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"demo: {error.filename or var}: {error.strerror}", file=sys.stderr)
        return 1
    finally:
        stop_on(ends, signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
        for service in services.values():
            service.ask_to_end()
        for service in services.values():
            service.see_end()


if __name__ == "__main__":
    sys.exit(main())

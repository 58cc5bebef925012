"""The demo: a hub and the nodes of Almere and Dronten on this machine, each a web process and a worker, until Ctrl-C.

Everything is real: the towns join with codes, and what the hub shows has travelled. State stays in one folder; a second start
finds it again. A process that ends is started again.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PATIENCE = 60.0
"""Seconds a process may take to answer for the first time."""
TOWNS = {"almere": "Almere", "dronten": "Dronten"}


@dataclass(frozen=True)
class Role:
    """A sample person to log in as."""

    what: str
    service: str
    name: str
    email: str
    role: str


ROLES = (
    Role("Vereniging (koepel)", "hub", "Vera Voorbeeld", "vera@koepel.example", "association"),
    Role("Almere, facilitator", "almere", "Fenna Facilitator", "fenna@almere.example", "facilitator"),
    Role("Almere, deelnemer", "almere", "Daan Deelnemer", "daan@almere.example", "member"),
    Role("Dronten, facilitator", "dronten", "Farid Facilitator", "farid@dronten.example", "facilitator"),
    Role("Dronten, deelnemer", "dronten", "Dewi Deelnemer", "dewi@dronten.example", "member"),
)


class Trouble(Exception):  # noqa: N818  # it ends the demo with one line
    """The demo cannot go on; the message says why."""


class Service:
    """The hub or a node: its settings, its command line, its two processes."""

    def __init__(self, name: str, port: int, var: Path, extra: dict[str, str]) -> None:
        self.name, self.port, self.folder = name, port, var / name
        self.url = f"http://127.0.0.1:{port}"
        self.prefix = "TUINKOEPEL_HUB_" if name == "hub" else "TUINKOEPEL_NODE_"
        self.program = str(BIN / ("hub" if name == "hub" else "town-node"))
        settings = {"STATE": str(self.folder), "URL": self.url, "DEMO": "yes", **extra}
        self.environment = os.environ | {self.prefix + key: value for key, value in settings.items()}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}

    def command(self, *words: str) -> str:
        """Run a command of this service; what it printed."""
        done = subprocess.run([self.program, *words], env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Trouble(f"{self.name} {words[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        return done.stdout.strip()

    def start(self, kind: str) -> None:
        """Start the web process or the worker; its log goes to a file."""
        words = ["run", kind] + (["--port", str(self.port)] if kind == "web" else [])
        with (self.folder / f"{kind}.log").open("ab") as log:
            self.processes[kind] = subprocess.Popen(
                [self.program, *words], env=self.environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        self._started[kind] = time.monotonic()

    def tend(self) -> None:
        """Start again what ended, but not faster than once a second."""
        for kind, process in self.processes.items():
            if process.poll() is not None and time.monotonic() - self._started[kind] > 1:
                self.start(kind)

    def wait(self) -> None:
        """Until the web process answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urlopen(f"{self.url}/healthz", timeout=2):  # noqa: S310  # our own address
                    return
            except (URLError, OSError):
                if self.processes["web"].poll() is not None or time.monotonic() > deadline:
                    lines = (self.folder / "web.log").read_text().strip().splitlines() or ["no reason given"]
                    raise Trouble(f"{self.name} does not start: {lines[-1]}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """End both processes, politely first."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def look_first(ports: list[int], var: Path) -> None:
    """Refuse in one line what would fail later in many."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError) as error:
                raise Trouble(f"port {port} cannot be used ({error}); choose others: make demo BASE_PORT=9000") from None
    try:
        var.mkdir(parents=True, exist_ok=True)
        trial = var / ".trial"
        trial.write_bytes(bytes(64 * 1024))
        trial.unlink()
    except OSError as error:
        raise Trouble(f"the state folder {var} cannot be used: {error.strerror}") from None


def set_up(services: dict[str, Service]) -> None:
    """Tables, towns, people, tokens: done once, and repeated harmlessly."""
    hub = services["hub"]
    print("  tables …", flush=True)
    for service in services.values():
        service.folder.mkdir(parents=True, exist_ok=True)
        service.command("db", "upgrade")
    hub.start("web")
    hub.start("worker")
    hub.wait()
    for slug, name in TOWNS.items():
        node = services[slug]
        if not (node.folder / "joined").exists():
            print(f"  {name} joins …", flush=True)
            code_file = hub.folder / f"code-{slug}"
            if not code_file.exists():
                code_file.write_text(hub.command("town", "add", slug, name))
            try:
                node.command("join", "--hub", hub.url, code_file.read_text())
            except Trouble as trouble:
                if "JoinedAlready" not in str(trouble):
                    raise
            (node.folder / "joined").touch()
    for role in ROLES:
        words = ["person", "add", role.name, role.email]
        services[role.service].command(*words, *(["--role", role.role] if role.service != "hub" else []))
    for name, service in services.items():
        address = next(role.email for role in ROLES if role.service == name)
        env_file = service.folder / "api.env"
        if not env_file.exists():
            token = service.command("token", address, "--name", "demo")
            env_file.write_text(f"URL={service.url}\nTOKEN={token}\n")
            env_file.chmod(0o600)
        elif f"URL={service.url}\n" not in env_file.read_text():
            token = env_file.read_text().rpartition("TOKEN=")[2].strip()
            env_file.write_text(f"URL={service.url}\nTOKEN={token}\n")


def main() -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-port", type=int, default=8000)
    parser.add_argument("--var", type=Path, default=Path("var"))
    asked = parser.parse_args()
    var = asked.var.absolute()
    quick = {"HEAD_PERIOD": "5", "IDLE_PERIOD": "15", "PULL_PERIOD": "1"}
    services = {"hub": Service("hub", asked.base_port, var, {})}
    for offset, slug in enumerate(TOWNS, 1):
        services[slug] = Service(slug, asked.base_port + offset, var, quick)
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        look_first([service.port for service in services.values()], var)
        print("Tuinkoepel: a hub and two towns", flush=True)
        set_up(services)
        for slug in TOWNS:
            services[slug].start("web")
            services[slug].start("worker")
        for slug, town in TOWNS.items():
            services[slug].wait()
            if not (services[slug].folder / "sampled").exists():
                print(f"  sample circle of {town} …", flush=True)
                sample = [sys.executable, str(ROOT / "deploy" / "sample.py"), slug]
                subprocess.run(sample, env=services[slug].environment | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, check=True)
                (services[slug].folder / "sampled").touch()
        print()
        for name, service in services.items():
            print(f"  {TOWNS.get(name, 'Association (hub)'):<20} {service.url}")
        print("\n  Log in as (each link works once; new ones come with every start):")
        for role in ROLES:
            print(f"  {role.what:<20} {services[role.service].command('login-link', role.email)}")
        print(f"\n  Mail: /dev/mail on each address. State and logs: {var}. Ctrl-C ends the demo.", flush=True)
        while True:
            time.sleep(0.3)
            for service in services.values():
                service.tend()
    except KeyboardInterrupt:
        print("\nStopping …", flush=True)
        return 0
    except (Trouble, subprocess.CalledProcessError) as trouble:
        print(f"demo: {trouble}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"demo: {error.strerror}: {error.filename or var}", file=sys.stderr)
        return 1
    finally:
        for service in services.values():
            service.stop()


if __name__ == "__main__":
    sys.exit(main())

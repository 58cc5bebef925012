"""Real parts for the tests: throw-away PostgreSQL, RabbitMQ and nginx, private to this run, on free ports.

TUINKOEPEL_TEST_POSTGRES_URL (of a user who may create databases) and TUINKOEPEL_TEST_RABBITMQ_URL name servers to use instead. A
run that was killed cannot clean up; the next one ends what it left behind.
"""

import contextlib
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

PATIENCE = 60.0
"""Seconds a server may take to start; a broken machine must not hang the tests."""


def free_port() -> int:
    """A port that nobody uses now, nor gets by chance for a connection of its own while a test has its server down.

    Tests that run side by side choose among other ones, for the same reason.
    """
    side, sides = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = random.randrange(20000 + side, 30000, sides)
        if not answers(port):
            return port


def wait_until(ready, what: str, patience: float = PATIENCE) -> None:
    """Look again and again until it is so."""
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            msg = f"{what} did not come within {patience:.0f} s"
            raise TimeoutError(msg)
        time.sleep(0.05)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def page_answers(url: str) -> bool:
    """Whether this page can be had."""
    try:
        with urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def _as(user: str) -> dict:
    """Run as that system user when the tests run as root, for the servers refuse root."""
    if os.getuid() != 0:
        return {}
    account = pwd.getpwnam(user)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def fresh_folder() -> Path:
    """A new folder of this run; whatever works in it when the run is gone is ended by the next one."""
    _end_what_dead_runs_left()
    return Path(tempfile.mkdtemp(prefix=f"tuinkoepel-test-{os.getpid()}-"))


def _folder_for(user: str) -> Path:
    """A new folder of that system user, in which its server lives with all it keeps."""
    folder = fresh_folder()
    if os.getuid() == 0:
        shutil.chown(folder, user, user)
    return folder


def _end_what_dead_runs_left() -> None:
    for folder in Path(tempfile.gettempdir()).glob("tuinkoepel-test-*-*"):
        if not Path("/proc", folder.name.split("-")[2]).exists():
            clear(folder)


def clear(folder: Path) -> None:
    """Kill whatever works in this folder, then remove it. Every server here starts in its own, which sets it apart from others."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                os.kill(int(process.name), 9)
        except OSError:
            continue  # gone already, or not ours
    shutil.rmtree(folder, ignore_errors=True)


def certificate(folder: Path, names: str) -> Path:
    """A certificate that vouches for itself ("DNS:localhost,IP:127.0.0.1"), with its key in `key.pem` beside it."""
    made = folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names_it = ["-subj", "/CN=test", "-addext", f"subjectAltName={names}", "-keyout", folder / "key.pem", "-out", made]
    subprocess.run([*command, *names_it], check=True, capture_output=True)
    return made


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser that reaches nothing beyond this computer."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=[
                *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
                *("--disable-sync", "--no-first-run", "--no-proxy-server"),
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


class Postgres:
    """A PostgreSQL of our own. `url` is the database from which others are made. `durable`: with fsync, for the benchmarks."""

    def __init__(self, *, durable: bool = False) -> None:
        self._durable = durable
        self.url = os.environ.get("TUINKOEPEL_TEST_POSTGRES_URL", "")
        self._folder: Path | None = None
        self._made: list[str] = []
        if not self.url:
            self._start()

    def _start(self) -> None:
        self._folder = _folder_for("postgres")
        binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        data = self._folder / "data"
        common = {"cwd": self._folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **_as("postgres")}
        make = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(make, check=True, **common)
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 60,
            "fsync": "on" if self._durable else "off",  # nobody will want to read a test's after the power failed
            "full_page_writes": "on" if self._durable else "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        self._server = subprocess.Popen([binaries / "postgres", "-D", data, *options], **common)
        try:
            wait_until(self._accepts, "PostgreSQL")
        except TimeoutError:
            self.end()
            raise

    def _accepts(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    def fresh_database(self, template: str = "template0") -> str:
        """The address of a new database: empty, or a copy of another that nobody uses now (by its name)."""
        name = f"t{len(self._made) + 1}_{secrets.token_hex(4)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        self._made.append(name)
        return f"{self.url.rsplit('/', 1)[0]}/{name}"

    def end(self) -> None:
        if self._folder is None:
            for name in self._made:
                self._run(f"DROP DATABASE {name} WITH (FORCE)")
            return
        clear(self._folder)
        self._server.wait(20)


class Rabbit:
    """A RabbitMQ of our own, which a test may stop, kill and start again; what is durable survives both.

    `managed`: with the management at `api`, always our own, slower to start. `conf`: more lines for its configuration.
    """

    def __init__(self, *, managed: bool = False, conf: str = "") -> None:
        self.url = "" if managed or conf else os.environ.get("TUINKOEPEL_TEST_RABBITMQ_URL", "")
        self._folder: Path | None = None
        self._server: subprocess.Popen | None = None
        if self.url:
            return
        self._folder = _folder_for("rabbitmq")
        self.port, distribution, names = free_port(), free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        api = free_port()
        self.api = f"http://guest:guest@127.0.0.1:{api}"
        (self._folder / "plugins").write_text("[rabbitmq_management]." if managed else "[].")
        lines = [f"listeners.tcp.default = 127.0.0.1:{self.port}", "log.console.level = error"]
        if managed:
            lines += ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {api}"]
        (self._folder / "rabbitmq.conf").write_text("\n".join([*lines, conf, ""]))
        self._ports = [self.port, api] if managed else [self.port]
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_NODENAME": f"tk{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
        }
        # Erlang's name server, else started by the first node and left behind for ever.
        self._names = self._spawn(shutil.which("epmd") or "/usr/bin/epmd", "-port", str(names), "-address", "127.0.0.1")
        try:
            wait_until(lambda: answers(names), "epmd")
            self.start()
        except (TimeoutError, RuntimeError):
            self.end()
            raise

    def _spawn(self, *command: str) -> subprocess.Popen:
        with (self._folder / "output").open("a") as output:
            where = {"cwd": self._folder, "env": self._environment, "stdout": output, "stderr": output}
            return subprocess.Popen(command, start_new_session=True, **where, **_as("rabbitmq"))

    def _must_be_ours(self) -> None:
        if self._folder is None:
            msg = "This test stops and starts RabbitMQ: leave TUINKOEPEL_TEST_RABBITMQ_URL unset."
            raise RuntimeError(msg)

    def start(self) -> None:
        self._must_be_ours()
        self._server = self._spawn("/usr/lib/rabbitmq/bin/rabbitmq-server")
        wait_until(self._accepts, "RabbitMQ")

    def _accepts(self) -> bool:
        if self._server.poll() is not None:
            msg = f"RabbitMQ ended while it started: {(self._folder / 'output').read_text()[-2000:]}"
            raise RuntimeError(msg)
        return all(answers(port) for port in self._ports)

    def stop(self) -> None:
        """In good order."""
        self.rabbitmqctl("stop")
        self._server.wait(PATIENCE)

    def kill(self) -> None:
        """SIGKILL: no cleaning up."""
        self._must_be_ours()
        os.killpg(self._server.pid, 9)
        self._server.wait(20)
        wait_until(lambda: not answers(self.port), "the end of RabbitMQ")

    def pause(self) -> None:
        """SIGSTOP: it hangs, its connections stay open and silent."""
        self._must_be_ours()
        os.killpg(self._server.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._server.pid, signal.SIGCONT)

    def rabbitmqctl(self, *arguments: str) -> str:
        """What the operator's tool answers."""
        self._must_be_ours()
        command = ["/usr/lib/rabbitmq/bin/rabbitmqctl", "--quiet", *arguments]
        done = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False, **_as("rabbitmq")
        )
        if done.returncode:
            msg = f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}"
            raise RuntimeError(msg)
        return done.stdout

    def end(self) -> None:
        if self._folder is None:
            return
        clear(self._folder)
        for process in (self._server, self._names):
            if process is not None:
                process.wait(20)


class Nginx:
    """An nginx of our own around these lines of its http block; what else it is told is what Debian's package tells it.

    `folder` is a fresh one, with what the lines name already in it; `ports` are those on which it must answer.
    """

    def __init__(self, lines: str, folder: Path, ports: Sequence[int]) -> None:
        self._folder, self._ports = folder, ports
        places = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
            f"http {{ {places} include /etc/nginx/mime.types; default_type application/octet-stream; sendfile on; tcp_nopush on;\n"
            f"ssl_prefer_server_ciphers on; access_log {folder}/access.log; gzip on;\n{lines}\n}}\n"
        )
        if os.getuid() == 0:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "www-data", "www-data")
        self.checked = subprocess.run(
            self._command("-t"), cwd=folder, capture_output=True, text=True, check=False, **_as("www-data")
        )
        if self.checked.returncode:
            raise RuntimeError(self.checked.stderr)
        self._server = subprocess.Popen(self._command(), cwd=folder, start_new_session=True, **_as("www-data"))
        try:
            wait_until(self._accepts, "nginx")
        except (TimeoutError, RuntimeError):
            self.end()
            raise

    def _command(self, *more: str) -> list[str | Path]:
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        return [program, "-e", self._folder / "error.log", "-c", self._folder / "nginx.conf", *more]

    def _accepts(self) -> bool:
        if self._server.poll() is not None:
            raise RuntimeError(f"nginx ended while it started: {self.logs()}")
        return all(answers(port) for port in self._ports)

    def logs(self) -> str:
        """All that it wrote down."""
        return "".join(path.read_text() for path in self._folder.glob("*.log"))

    def end(self) -> None:
        self._server.terminate()  # its worker first
        self._server.wait(20)
        clear(self._folder)

"""Real parts for the tests: throw-away PostgreSQL and RabbitMQ, private to this run, on free ports (`libraries.md` §12)."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

PATIENCE = 60.0
"""Seconds a server may take to start; a broken machine must not hang the tests."""


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def _own(folder: Path, user: str) -> None:
    if os.getuid() == 0:
        shutil.chown(folder, user, user)


class Postgres:
    """A PostgreSQL of our own."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tk-pg-"))
        _own(self._folder, "postgres")
        self.port = free_port()
        self._made = 0
        binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
        data = self._folder / "data"
        common = {"cwd": self._folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **_as("postgres")}
        subprocess.run([binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"], check=True, **common)
        self._server = subprocess.Popen(
            [
                *(binaries / "postgres", "-D", data, "-p", str(self.port), "-k", self._folder),
                *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=60"),
            ],
            **common,
        )
        wait_until(self._accepts, "PostgreSQL")

    def _accepts(self) -> bool:
        import psycopg

        try:
            psycopg.connect(f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def fresh_database(self) -> str:
        """The address of a new, empty database."""
        import psycopg

        self._made += 1
        name = f"t{self._made}"
        with psycopg.connect(f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def end(self) -> None:
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)


class Rabbit:
    """A RabbitMQ of our own, which a test may kill and start again."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tk-mq-"))
        _own(self._folder, "rabbitmq")
        self.port, distribution = free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        (self._folder / "plugins").write_text("[].")
        (self._folder / "rabbitmq.conf").write_text(f"listeners.tcp.default = 127.0.0.1:{self.port}\nlog.console.level = error\n")
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"tk{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
        }
        for path in self._folder.iterdir():
            _own(path, "rabbitmq")
        self._server = None
        self.start()

    def start(self) -> None:
        self._server = subprocess.Popen(
            ["/usr/lib/rabbitmq/bin/rabbitmq-server"], cwd=self._folder, env=self._environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, **_as("rabbitmq"),
        )  # fmt: skip
        wait_until(lambda: answers(self.port), "RabbitMQ")

    def kill(self) -> None:
        """SIGKILL: no cleaning up."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait(20)

    def end(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

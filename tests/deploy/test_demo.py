"""`make demo`, as a user meets it: it starts from nothing, finds its state again, and leaves nothing behind, however it ended."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from deploy.demo import ROLES
from tests.conftest import ROOT
from tests.services import answers, free_port, wait_until

PATIENCE = 240.0
"""Seconds for a start on a busy machine."""
READY = "Ctrl-C ends the demo."
SERVICES = ("hub", "almere", "dronten")


def three_ports() -> int:
    """The first of three free ports in a row."""
    while True:
        first = free_port()
        if not any(answers(port) for port in (first + 1, first + 2)):
            return first


class Demo:
    """A demo that was started, and what it said so far."""

    def __init__(self, var: Path, port: int | str, *words: str) -> None:
        self.var, self.port, self.said = var, port, ""
        command = [sys.executable, ROOT / "deploy" / "demo.py", "--base-port", str(port), "--var", str(var), *words]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        with self.process.stdout as lines:
            for line in lines:
                self.said += line

    def refuses(self) -> str:
        """What it said; it must end by itself, not well, and without a stack trace."""
        assert self.process.wait(60) == 1
        self._listener.join()
        assert "Traceback" not in self.said
        return self.said

    def wait_until_ready(self) -> "Demo":
        wait_until(lambda: READY in self.said or self.process.poll() is not None, "the demo", PATIENCE)
        assert READY in self.said, self.said
        return self

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port + SERVICES.index(name)}"

    def page(self, address: str) -> str:
        with urlopen(address, timeout=30) as answer:
            return answer.read().decode()

    def call(self, name: str, path: str, body: dict | None = None) -> dict:
        """Ask the API, with what `api.env` says."""
        given = dict(line.split("=", 1) for line in (self.var / name / "api.env").read_text().splitlines())
        asked = Request(given["URL"] + path, data=json.dumps(body).encode() if body else None)
        asked.add_header("Authorization", f"Bearer {given['TOKEN']}")
        asked.add_header("Content-Type", "application/json")
        with urlopen(asked, timeout=30) as answer:
            return json.load(answer)

    def processes(self, *, of: str, kind: str) -> list[int]:
        """The ids of a service's processes of this kind."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words, environ = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            except OSError:
                continue  # gone
            if f"\0run\0{kind}\0".encode() in words and f"_STATE={self.var / of}\0".encode() in environ:
                found.append(int(folder.name))
        return found

    def end(self, number: signal.Signals) -> None:
        """Send it a signal, and wait until nothing that it started is left: each of its processes holds the folder's lock."""
        self.process.send_signal(number)
        self.process.wait(60)
        handle = os.open(self.var / ".lock", os.O_RDWR)
        try:
            wait_until(lambda: free(handle), "the end of every process of the demo")
        finally:
            os.close(handle)
        assert not any(answers(self.port + offset) for offset in range(3))
        self._listener.join()


def free(handle: int) -> bool:
    """Whether nobody holds this file's lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.fixture
def start():
    """Starts demos, and ends what a failed test left running."""
    started = []

    def begin(var: Path, port: int | str | None = None, *words: str) -> Demo:
        started.append(Demo(var, three_ports() if port is None else port, *words))
        return started[-1]

    yield begin
    for demo in started:
        if demo.process.poll() is None:
            demo.end(signal.SIGTERM)


def test_a_demo_survives_its_own_death_and_finds_its_state_on_other_ports(start, tmp_path):
    var = tmp_path / "state of the demo"
    first = start(var).wait_until_ready()
    assert "sample circle of Almere" in first.said
    links = re.findall(r"http://\S+/login/link/\S+", first.said)
    assert len(links) == 5
    people = re.findall(r"^    ([^:\n]+): ([^\n]+)\n      http://\S+/login/link/", first.said, re.MULTILINE)
    assert [who for who, _first in people] == [f"{role.name}, {role.what}" for role in ROLES]
    for link, (who, _first) in zip(links, people, strict=True):
        page = first.page(link)
        assert "<form" in page
        assert who.partition(",")[0] in page, "the line says whose link it is"
    wait_until(lambda: "Vraag vroeg om water" in first.page(first.url("hub") + "/lessons"), "the samples' way to the hub")
    before = {name: (var / name / "api.env").read_text() for name in SERVICES}
    assert {(var / name / "api.env").stat().st_mode & 0o777 for name in SERVICES} == {0o600}
    assert len(first.call("hub", "/api/v1/towns")["items"]) == 2
    first.end(signal.SIGKILL)

    second = start(var).wait_until_ready()
    assert "sample circle" not in second.said
    assert "joins" not in second.said
    for name in SERVICES:
        token = before[name].rpartition("TOKEN=")[2]
        assert (var / name / "api.env").read_text() == f"URL={second.url(name)}\nTOKEN={token}"
    lesson = {"title": "Ook op een andere poort", "body": "Het werkt.", "kind": "tip", "theme": "water"}
    second.call("almere", "/api/v1/lessons", lesson)
    wait_until(lambda: lesson["title"] in second.page(second.url("hub") + "/lessons"), "the new lesson")

    third = start(var)
    assert f"a demo runs on {var} already (process {second.process.pid})" in third.refuses()

    (worker,) = second.processes(of="almere", kind="worker")
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: "almere worker ended (signal 9) and is started again" in second.said, "the supervisor")
    wait_until(lambda: second.processes(of="almere", kind="worker") not in ([], [worker]), "the worker's return")
    second.end(signal.SIGINT)
    assert second.process.returncode == 0
    assert "Traceback" not in second.said
    a_town_loses_its_disk_and_comes_back(start, var)


def a_town_loses_its_disk_and_comes_back(start, var):
    """The second half of the story, on the same folder: a start that shows it is killed, and the next one goes on."""
    key = (var / "dronten" / "town.key").read_bytes()
    killed = start(var, None, "--lose", "dronten")
    wait_until(lambda: "Dronten joins anew" in killed.said, "the loss", PATIENCE)
    killed.end(signal.SIGKILL)
    (aside,) = var.glob("dronten.lost-*")
    assert (aside / "town.key").read_bytes() == key
    assert f"{var / 'dronten'} is put aside as {aside.name}" in killed.said

    demo = start(var).wait_until_ready()
    assert list(var.glob("dronten.lost-*")) == [aside], "one disk died, once"
    assert (var / "dronten" / "town.key").read_bytes() != key
    assert "Came back from the association: 3 initiatives, 2 meetings, 2 lessons" in demo.said
    assert "Let in again by hand: Farid Facilitator. Still to be let in again: Dewi Deelnemer" in demo.said
    links = re.findall(r"http://\S+/login/link/\S+", demo.said)
    assert [demo.url(name) for name in ("hub", "almere", "almere", "dronten")] == [link.partition("/login")[0] for link in links]
    assert "Dewi Deelnemer, member in Dronten: not known there since the disk was lost" in demo.said
    lesson = {"title": "Wij zijn er weer", "body": "Met een andere sleutel.", "kind": "tip", "theme": "school"}
    demo.call("dronten", "/api/v1/lessons", lesson)
    wait_until(lambda: lesson["title"] in demo.page(demo.url("hub") + "/lessons"), "the new lesson, under the new key")
    assert len(demo.call("hub", "/api/v1/lessons?town=dronten")["items"]) == 3
    assert not list((var / "hub").glob("lost-*")), "it is told once"


def test_a_disk_that_cannot_be_lost_is_named_and_nothing_is_made(start, tmp_path):
    var = tmp_path / "var"
    said = start(var, None, "--lose", "urk").refuses()
    assert said == "demo: there is no town urk here that could lose its disk; choose: make demo LOSE=almere or LOSE=dronten\n"
    said = start(var, None, "--lose", "dronten").refuses()
    assert said == f"demo: {var / 'dronten'} holds nothing to lose; run make demo there first, without LOSE\n"
    assert not var.exists()


@pytest.mark.parametrize("port", ["abc", "80 01", "8000.5", ""])
def test_a_port_that_is_none_is_said_in_one_line(start, tmp_path, port):
    said = start(tmp_path / "var", port).refuses()
    assert said == f"demo: {port!r} is no port: write a number, as in make demo BASE_PORT=9000\n"


def test_a_port_in_use_is_named(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = start(tmp_path / "var", port)
        said = refused.refuses()
    assert said.startswith(f"demo: port {port} cannot be used")
    assert said.count("\n") == 1


def test_a_state_folder_that_is_none_is_named(start, tmp_path):
    (tmp_path / "var").write_text("a file")
    refused = start(tmp_path / "var")
    assert refused.refuses() == f"demo: the state folder {tmp_path / 'var'} cannot be used: File exists\n"


def test_a_state_folder_of_a_newer_release_is_refused(start, tmp_path):
    import sqlite3

    (tmp_path / "hub").mkdir()
    with sqlite3.connect(tmp_path / "hub" / "hub.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES ('of-the-future')")
    database.close()
    refused = start(tmp_path)
    assert refused.refuses().splitlines()[-1].startswith("demo: hub db: this database was made by a newer release")

"""Who writes and who looks: the writers, their ledger, and the sampler of the API.

A writer is a program with a token. It sends an `Idempotency-Key` along and asks again until it is answered, so whatever dies, every
write it began is acknowledged in the end, exactly once. The ledger has a line for each, on the disk before the next write begins.

The sampler goes round the sites' lists and holds what it sees against what it saw there before. A lesson that stands twice in one
reading is a duplicate; one that shows an older version, that is gone though nobody took it back, or that is there again after it
was gone, is a step back.
"""

import json
import os
import random
import re
import threading
import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from tests.processes import Hub, Town

PATIENCE = urllib3.Timeout(connect=5.0, read=60.0)
"""Longer than anything is stopped, so that no answer that comes is missed."""
PAUSE = 0.25
"""Seconds between two writes of a town."""
LATER = {404, 409, 429, 502, 503}
"""Answers after which a program asks again: not now, or (404) not yet back from the association."""
GONE = 1_000_000
"""The version of a lesson that was taken back: the last there is."""
TITLE = re.compile(r"Les (\d+) van \S+, versie (\d+)")


@dataclass
class Ledger:
    """What was acknowledged, in order: (town, code, version)."""

    path: Path
    lines: list[tuple[str, str, int]] = field(default_factory=list)
    answers: Counter = field(default_factory=Counter)
    """How often which status came."""
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def note(self, town: str, code: str, version: int) -> None:
        """On the disk before this returns."""
        with self._guard, self.path.open("a") as file:
            file.write(json.dumps([town, code, version]) + "\n")
            file.flush()
            os.fsync(file.fileno())
            self.lines.append((town, code, version))

    def count(self, status: int) -> None:
        with self._guard:
            self.answers[status] += 1

    def read(self) -> list[tuple[str, str, int]]:
        """What the file says."""
        return [(town, code, version) for town, code, version in map(json.loads, self.path.read_text().splitlines())]


class Writer(threading.Thread):
    """Somebody's program: shares lessons, says them better, takes some back."""

    def __init__(self, town: Town, ledger: Ledger, seed: int) -> None:
        super().__init__(daemon=True, name=f"writer {town.name}")
        self.town, self.ledger, self._chance = town, ledger, random.Random(f"{seed} {town.name}")
        self._http, self._token = urllib3.PoolManager(maxsize=1, timeout=PATIENCE, retries=False), town.token()
        self._over, self._turn = threading.Event(), threading.Lock()
        self._standing: dict[str, tuple[int, int]] = {}
        """For each code its number and version."""
        self.taken_back: set[str] = set()
        """What it ever asked to take back, answered or not."""
        self._count = 0

    @contextmanager
    def held(self) -> Any:
        """Nothing is asked, and nothing is unanswered, as long as this lasts."""
        with self._turn:
            yield

    def end(self) -> None:
        self._over.set()

    def run(self) -> None:
        while not self._over.wait(PAUSE):
            with self._turn:
                self._write()

    def _write(self) -> None:
        what = self._chance.choices(["share", "revise", "withdraw"], [5, 4, 1])[0]
        code = self._chance.choice(list(self._standing)) if self._standing else ""
        if what == "share" or not code:
            self._count += 1
            answer = self._ask("POST", "/api/v1/lessons", self._told(self._count, 1))
            if answer is not None:
                self._standing[answer["code"]] = self._count, 1
                self.ledger.note(self.town.name, answer["code"], 1)
        elif what == "revise":
            number, version = self._standing[code]
            if self._ask("PATCH", f"/api/v1/lessons/{code}", self._told(number, version + 1)) is not None:
                self._standing[code] = number, version + 1
                self.ledger.note(self.town.name, code, version + 1)
        else:
            self.taken_back.add(code)
            if self._ask("DELETE", f"/api/v1/lessons/{code}", None) is not None:
                del self._standing[code]
                self.ledger.note(self.town.name, code, GONE)

    def _told(self, number: int, version: int) -> dict[str, str]:
        title = f"Les {number} van {self.town.name}, versie {version}"
        return {"title": title, "body": "Zo ging het.", "kind": "tip", "theme": "water"}

    def _ask(self, method: str, path: str, told: dict[str, str] | None) -> Any:
        """The answer, asked for as often as it takes; None when there is no way to say this here."""
        headers = {"Authorization": f"Bearer {self._token}", "Idempotency-Key": uuid.uuid4().hex}
        while True:
            try:
                answer = self._http.request(method, self.town.url + path, json=told, headers=headers)
            except urllib3.exceptions.HTTPError:
                self.ledger.count(0)
            else:
                self.ledger.count(answer.status)
                if answer.status < 300:
                    return answer.json() if answer.data else {}
                if answer.status not in LATER:
                    print(f"{method} {path} was answered {answer.status}: {answer.data[:500]!r}", flush=True)
                    return None
            threading.Event().wait(PAUSE)


class Sampler(threading.Thread):
    """Looks at one list after another, and never believes a reading that broke off."""

    def __init__(self, hub: Hub, writers: list[Writer], ledger: Ledger) -> None:
        super().__init__(daemon=True, name="sampler")
        self._writers, self._ledger = {writer.town.name: writer for writer in writers}, ledger
        self._lists = {("hub", "lessons"): hub.url}
        for writer in writers:
            self._lists |= {(writer.town.name, "lessons"): writer.town.url, (writer.town.name, "library"): writer.town.url}
        self._seen: dict[tuple[str, str], dict[tuple[str, str], int]] = {where: {} for where in self._lists}
        self._over, self._turn, self._blind = threading.Event(), threading.Lock(), set()
        self.duplicates: list[str] = []
        self.steps_back: list[str] = []
        self.readings = 0
        self._http = urllib3.PoolManager(maxsize=2, timeout=PATIENCE, retries=False)

    def look_away(self, site: str) -> None:
        """This site shows an older copy now, and everybody knows it. What was seen there before stays in mind."""
        with self._turn:
            self._blind.add(site)

    def look_again(self, site: str) -> None:
        with self._turn:
            self._blind.discard(site)

    def end(self) -> None:
        self._over.set()

    def run(self) -> None:
        while not self._over.is_set():
            for where in self._lists:
                if not self._over.wait(0.15):
                    with self._turn:
                        if where[0] not in self._blind:
                            self._look(where)

    def _look(self, where: tuple[str, str]) -> None:
        found = self._read(where)
        if found is None:
            return
        self.readings += 1
        here, seen = f"at {'/'.join(where)}", self._seen[where]
        twice = [key for key, times in Counter(key for key, _ in found).items() if times > 1]
        self.duplicates += [f"{key} {here}" for key in twice]
        now = dict(found)
        for key, version in now.items():
            if version < seen.get(key, 0):
                self.steps_back.append(f"{key} {here}: version {version} after {seen[key]}")
            seen[key] = max(version, seen.get(key, 0))
        for key, version in seen.items():
            if key not in now and version != GONE:
                if key[1] not in self._writers[key[0]].taken_back:
                    self.steps_back.append(f"{key} {here}: gone after version {version}")
                seen[key] = GONE

    def _read(self, where: tuple[str, str]) -> list[tuple[tuple[str, str], int]] | None:
        """All pages of a list, as ((town, code), version); None when one of them cannot be had now."""
        site, kind = where
        found, address = [], f"{self._lists[where]}/api/v1/{kind}?limit=100"
        while address:
            try:
                answer = self._http.request("GET", address)
            except urllib3.exceptions.HTTPError:
                return None
            self._ledger.count(answer.status)
            if answer.status != 200:
                return None
            page = answer.json()
            for item in page["items"]:
                version = TITLE.fullmatch(item["title"])
                if version:
                    found.append(((item.get("town", site), item["code"]), int(version[2])))
            address = f"{self._lists[where]}/api/v1/{kind}?limit=100&after={page['next']}" if page.get("next") else ""
        return found

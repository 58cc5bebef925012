"""The quarter-hour: people write, everything goes wrong, and in the end the books are compared (`make nemesis MINUTES=15 SEED=7`).

Three nodes and a hub as real processes, four fifths of the time over RabbitMQ and PostgreSQL (the hub and one node on it, the
others on SQLite), one fifth over the embedded parts. `load.py` writes and looks, `misdeeds.py` does something bad every twenty
seconds, this file holds what was acknowledged against the logs, the pictures and what the processes said.

    python -m tests.nemesis --minutes 15 --seed 7 [--parts servers|embedded]

The exit code is 0 if every row says n, n, n, 0, 0, 0 and all pictures agree. It needs to be root, for a small disk to fill.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from sqlalchemy import select

from shared.db import Database
from shared.eventlog import log, payload
from shared.inbox import inbox
from tests.kill.verdict import check_arrived, fold
from tests.nemesis.load import GONE, TITLE, Ledger, Sampler, Writer
from tests.nemesis.misdeeds import PATIENCE, Nemesis, say
from tests.processes import Service, World
from tests.services import Postgres, Rabbit, wait_until

TOWNS = ("almere", "breda", "dronten")
SHARE_OF_SERVERS = 0.8
CALLS = {"HEAD_PERIOD": "1", "IDLE_PERIOD": "3", "PULL_PERIOD": "0.5", "LIMITS": "0"}
FORESEEN = {
    "inbox.frozen": "the town that was told to have another history stands still",
    "database.refused": "a full disk or an ended connection: 503, in words",
}
"""Lines at the level of an error that mean: this was handled, and an operator should look."""
ENDED_BY_A_HAND = ("AdminShutdown", "terminating connection", "server closed the connection", "disk", "full", "No space left")


@dataclass
class Row:
    """One row of the verdict."""

    parts: str
    acknowledged: int = 0
    in_nodes: int = 0
    in_nation: int = 0
    duplicates: int = 0
    steps_back: int = 0
    unhandled: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        n = self.acknowledged
        return n > 0 and not self.remarks and [self.in_nodes, self.in_nation] == [n, n] and self._seen == [0, 0, 0]

    @property
    def _seen(self) -> list[int]:
        return [self.duplicates, self.steps_back, self.unhandled]

    def __str__(self) -> str:
        counts = [self.acknowledged, self.in_nodes, self.in_nation, *self._seen]
        return f"| {self.parts:<28} | " + " | ".join(f"{count:>8}" for count in counts) + " |"


HEAD = (
    f"| {'parts':<28} | {'writes':>8} | {'in node':>8} | {'national':>8} | {'dupli-':>8} | {'steps':>8} | {'unhan-':>8} |\n"
    f"| {'':<28} | {'acknowl.':>8} | {'logs':>8} | {'log':>8} | {'cates':>8} | {'back':>8} | {'dled':>8} |\n"
    f"|{'-' * 30}|" + f"{'-' * 9}:|" * 6
)


def run(parts: str, seconds: float, seed: int) -> Row:
    """One world, in which everything goes wrong for so long."""
    servers = (Postgres(), Rabbit()) if parts == "servers" else None
    # The hub on PostgreSQL, then the towns in their order.
    kinds = iter([True, False, True, False])
    made = {"database": lambda: servers[0].fresh_database() if next(kinds) else "", "bus": servers[1].url} if servers else {}
    row = Row("PostgreSQL, SQLite, RabbitMQ" if servers else "SQLite, sqlite_bus")
    try:
        with World(TOWNS, town_settings=CALLS, hub_settings={"LIMITS": "0"}, forked=True, **made) as world:
            world.start()
            _one_world(world, row, seconds, seed, servers)
    finally:
        for server in servers or ():
            server.end()
    return row


def _one_world(world: World, row: Row, seconds: float, seed: int, servers: tuple[Postgres, Rabbit] | None) -> None:
    ledger = Ledger(Path(tempfile.mkstemp(prefix="nemesis-", suffix=".ledger")[1]))
    writers = [Writer(town, ledger, seed) for town in world.towns.values()]
    sampler = Sampler(world.hub, writers, ledger)
    nemesis = Nemesis(world, writers, sampler, seed, servers)
    nemesis.make_ready()
    supervisor = threading.Thread(target=nemesis.supervise, daemon=True, name="supervisor")
    for thread in (*writers, sampler, supervisor):
        thread.start()
    try:
        nemesis.go_on(seconds)
        for writer in writers:
            writer.end()
        for writer in writers:
            writer.join(PATIENCE)
            if writer.is_alive():
                row.remarks.append(f"{writer.town.name} did not answer any more")
        _judge(world, nemesis, sampler, ledger, row)
    finally:
        for thread in (sampler, nemesis):
            thread.end()
        sampler.join(60)
        supervisor.join(60)
        nemesis.leave()
    say(f"misdeeds: {dict(Counter(nemesis.done))}; answers by status (0: none): {dict(sorted(ledger.answers.items()))}")
    say(f"readings of the API: {sampler.readings}; the ledger is {ledger.path}")


def _judge(world: World, nemesis: Nemesis, sampler: Sampler, ledger: Ledger, row: Row) -> None:
    def settled() -> bool:
        nemesis.decide()
        return not world.behind()

    try:
        wait_until(settled, "the end", PATIENCE)
        check_arrived(world)
    except TimeoutError:
        row.remarks.append(f"still behind: {world.behind()}")
    except AssertionError as error:
        row.remarks.append(f"the pictures differ: {str(error)[:3000]}")
    time.sleep(3.0)  # so that the sampler has seen every list once more
    lines = ledger.read()
    last = {(town, code): version for town, code, version in lines}
    row.acknowledged = len(lines)
    for name, town in world.towns.items():
        mine = [(code, version) for slug, code, version in lines if slug == name]
        stands = {code: version_of(told["title"]) for code, told in fold(town.log()).items()}
        row.in_nodes += len(kept(mine, said_in_log(town.database), stands))
        stands = {code: version_of(told["title"]) for code, told in fold(world.national_log(name)).items()}
        row.in_nation += len(kept(mine, said_in_inbox(world.hub.database, name), stands))
        should = {code: version for (slug, code), version in last.items() if slug == name and version != GONE}
        if stands != should:
            wrong = {code: (stands.get(code), should.get(code)) for code in stands | should if stands.get(code) != should.get(code)}
            row.remarks.append(f"{name}: what stands is not what was acknowledged last: {wrong}")
    row.duplicates, row.steps_back = len(sampler.duplicates), len(sampler.steps_back)
    unhandled = [f"{ledger.answers[500]} answers with status 500"] * ledger.answers[500]
    for service in world.services():
        for kind in ("web", "worker"):
            unhandled += errors_in(service, kind)
    row.unhandled = len(unhandled)
    for what in (*nemesis.trouble, *row.remarks, *sampler.duplicates[:20], *sampler.steps_back[:20], *unhandled[:20]):
        say(f"! {what}")
    row.remarks += nemesis.trouble


def version_of(title: str) -> int:
    found = TITLE.fullmatch(title)
    return int(found[2]) if found else 0


Said = set[tuple[str, int]]


def kept(lines: list[tuple[str, int]], said: Said, stands: dict[str, int]) -> list[tuple[str, int]]:
    """The writes that a log holds: as their own event; or, in a later run of numbers, in a state that is theirs or a later one."""
    last = dict(lines)

    def holds(code: str, version: int) -> bool:
        if (code, version) in said:
            return True
        return stands.get(code, 0) >= version if last[code] != GONE else code not in stands

    return [(code, version) for code, version in lines if holds(code, version)]


def said_in_log(database: Database) -> Said:
    """Every lesson that a node's log tells, in all its epochs."""
    query = select(log.c.header, payload.c.body).join(payload, (payload.c.epoch == log.c.epoch) & (payload.c.seq == log.c.seq))
    with database.reading() as session:
        return _said(session.execute(query).all())


def said_in_inbox(database: Database, slug: str) -> Said:
    """The same, as the association holds it."""
    with database.reading() as session:
        return _said(session.execute(select(inbox.c.header, inbox.c.body).where(inbox.c.town == slug)).all())


def _said(rows: list) -> Said:
    said = set()
    for header, body in rows:
        kind, told = orjson.loads(header)["type"], orjson.loads(body or b"{}")
        if ".lesson.withdrawn." in kind:
            said.add((told["lesson"], GONE))
        elif ".lesson." in kind and "title" in told:
            said.add((told["lesson"], version_of(told["title"])))
    return said


def errors_in(service: Service, kind: str) -> list[str]:
    """What this process said that nobody foresaw: lines at the level of an error, and tracebacks."""
    found = []
    for line in service.said_ever(kind).splitlines():
        try:
            says = json.loads(line)
        except ValueError:
            if line.startswith("Traceback") or (
                line.startswith(("Database:", "Bus:")) and not any(w in line for w in ENDED_BY_A_HAND)
            ):
                found.append(f"{service.name} {kind}: {line[:300]}")
            continue
        if isinstance(says, dict) and says.get("level") in {"error", "critical"} and says.get("what") not in FORESEEN:
            found.append(f"{service.name} {kind}: {line[:1500]}")
    return found


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--minutes", type=float, default=15.0)
    asked.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked.add_argument("--parts", choices=["servers", "embedded", "both"], default="both")
    given = asked.parse_args()
    if os.getuid() != 0:
        sys.exit("The nemesis fills a small disk, and only root may make one.")
    say(f"seed {given.seed}, {given.minutes:g} minutes")
    shares = {"servers": SHARE_OF_SERVERS, "embedded": 1 - SHARE_OF_SERVERS} if given.parts == "both" else {given.parts: 1.0}
    rows = []
    for parts, share in shares.items():
        say(f"--- {parts}")
        rows.append(run(parts, given.minutes * 60 * share, given.seed))
    say("\n" + HEAD)
    for row in rows:
        say(str(row))
    say(
        f"\nseed {given.seed}, {given.minutes:g} minutes, {time.strftime('%Y-%m-%d')}: "
        + ("holds" if all(row.holds for row in rows) else "DOES NOT HOLD")
    )
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

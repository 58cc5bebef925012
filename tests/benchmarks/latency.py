"""From commit on a node to visible on the hub, at 20 events a second.

Real processes throughout: hub and node each with a web process and a worker. This process does what the node's web process
does for a form: it shares lessons through the real action, in the real transaction, which rings the real doorbell. In between it
looks every few milliseconds whether the hub's read model shows them, so a measured time is up to `LOOK_EVERY` (and one commit) too
long, never too short.

The disk is sampled meanwhile: an event waits for four syncs on its way (node's commit, broker, hub's store and fold), so when
others keep the disk busy, that is what the times say, and the row shows it.
"""

import os
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from sqlalchemy import select

from services.hub.lessons.projection import NationalLesson
from services.town_node.lessons.actions import share_lesson
from shared.db import Database
from tests.benchmarks.bench import Bench, Row, percentile
from tests.processes import World

USUAL = {"HEAD_PERIOD": "30", "IDLE_PERIOD": "300", "PULL_PERIOD": "15"}
"""The nodes' default periods; `World` makes them short."""
PER_SECOND, SECONDS, WARM_UP = 20, 12, 2
LOOK_EVERY = 0.004
SYNC_EVERY = 10
"""Events between two samples of the disk."""
PATIENCE = 30.0


def run(bench: Bench) -> Iterator[Row]:
    with World(["almere"], town_settings=USUAL) as embedded:
        yield _row("SQLite and sqlite_bus", 250, *_share_and_look(embedded))
    with World(
        ["almere"], database=bench.postgres.fresh_database, bus=bench.rabbit.url, town_settings=USUAL | {"DATABASE": ""}
    ) as apart:
        yield _row("RabbitMQ, PostgreSQL at the hub", 100, *_share_and_look(apart))


def _row(how: str, target: float, times: list[float], syncs: list[float]) -> Row:
    p50, p95, most = (1000 * value for value in (percentile(times, 0.5), percentile(times, 0.95), max(times)))
    disk = " to ".join(f"{1000 * percentile(syncs, share):.1f}" for share in (0.5, 0.95))
    return Row(
        f"commit → visible, {PER_SECOND}/s, {how}",
        f"p50 {p50:.0f}, p95 {p95:.0f}, max {most:.0f} ms (n={len(times)})",
        f"{p95 / target:.2f} of target; a disk sync {disk} ms",
        f"p95 ≤ {target:.0f} ms",
        p95 <= target,
    )


def _share_and_look(world: World) -> tuple[list[float], list[float]]:
    """Share lessons in a steady rhythm: how long each took to show, and how long the disk took meanwhile, in seconds."""
    world.start()
    here, there = world.towns["almere"].database, world.hub.database
    committed: dict[str, float] = {}
    shown: dict[str, float] = {}
    syncs: list[float] = []
    begin = time.monotonic()
    while len(shown) < PER_SECOND * (SECONDS + WARM_UP):
        now = time.monotonic()
        if now >= begin + len(committed) / PER_SECOND and len(committed) < PER_SECOND * (SECONDS + WARM_UP):
            code = _share(here)
            committed[code] = time.monotonic()
            if len(committed) % SYNC_EVERY == 0:
                syncs.append(_sync(world.folder / "sync"))
            continue
        waiting = [code for code in committed if code not in shown]
        if waiting:
            with there.reading() as session:
                seen = session.scalars(select(NationalLesson.lesson).where(NationalLesson.lesson.in_(waiting))).all()
            shown |= dict.fromkeys(seen, time.monotonic())
            if now - committed[waiting[0]] > PATIENCE:
                raise TimeoutError(f"{len(waiting)} lessons did not arrive")
        time.sleep(LOOK_EVERY)
    return [shown[code] - at for code, at in list(committed.items())[PER_SECOND * WARM_UP :]], syncs


def _sync(file: Path) -> float:
    begin = time.monotonic()
    with file.open("wb") as opened:
        opened.write(bytes(8192))
        opened.flush()
        os.fdatasync(opened.fileno())
    return time.monotonic() - begin


def _share(here: Database) -> str:
    with here.transaction() as session:
        return share_lesson(
            session,
            None,
            today=date(2015, 6, 1),
            title="Vraag de gemeente vroeg om water",
            body="De aansluiting duurt lang. Wie bij de eerste schets al naar **water** vraagt, heeft het voor het eerste seizoen.",
            kind="tip",
            theme="water",
            phase="plan",
        ).code

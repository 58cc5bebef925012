"""What a node weighs: its memory at rest, its first page after a start, the page of a long list, a first visit by phone.

A node of real processes beside a hub, with a thousand initiatives. **Memory** is PSS, so pages that processes share count once; but
other Pythons on this machine share the interpreter's and the libraries' pages too, so the row also says what it would be without
them: every file's pages counted in full, once. It is asked twice: fresh, and at rest again after 200 pages, when memory that a fork
shared would have been copied. **Speed** is a ratio to a bare list (`bare.py`) that takes turns on the same table: pages a second as
eight connections see them, and the CPU that the server itself spent.
"""

import http.client
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from services.town_node.initiatives.actions import register_initiative
from shared.db import Database
from tests.benchmarks.bench import Bench, Row, ratios, spread, take_turns
from tests.processes import World
from tests.services import chromium, free_port, page_answers

INITIATIVES, LISTED = 1000, 50
USUAL = {"HEAD_PERIOD": "30", "IDLE_PERIOD": "300", "PULL_PERIOD": "15"}
"""The nodes' default periods; `World` makes them short."""
PAGES = ("/", "/initiatives", "/lessons", "/meetings")
STARTS, ROUNDS, SECONDS, CONNECTIONS = 5, 10, 1.0, 8
MEMORY_MAX, FIRST_PAGE_MAX, LIST_MAX, VISIT_MAX = 120.0, 1.5, 60_000, 150_000
SETTLED = 3.0
"""Seconds until a process that has just worked is at rest."""


def run(bench: Bench) -> Iterator[Row]:
    with World(["almere"], town_settings=USUAL) as world:
        world.start()
        fill(world.towns["almere"].database)
        world.settle(120)
        yield from _memory(world)
        yield from _starts(world)
        yield from _list(world)
        yield from _visits(world)


def fill(database: Database, count: int = INITIATIVES) -> None:
    """Initiatives as circles have them: names, places, some lines about each."""
    kinds, phases = ("community_garden", "school_garden", "urban_farm", "green_strip"), ("idea", "plan", "operational")
    for begin in range(0, count, 100):
        with database.transaction() as session:
            for nth in range(begin, begin + 100):
                register_initiative(
                    session,
                    phase=phases[nth % 3],
                    since=date(2012, 6, 20),
                    today=date(2015, 6, 17),
                    name=f"Moestuin {('De Regenton', 'Het Zaadje', 'De Waterwijk', 'Noorderplassen')[nth % 4]} {nth * 7919 % 9973}",
                    kind=kinds[nth // 3 % 4],
                    about_text="Buurtmoestuin met twintig bakken, een lange tafel en een regenton. " * 3,
                    latitude=52_340_000 + nth * 7919 % 60_000,
                    longitude=5_150_000 + nth * 6007 % 120_000,
                    place_name=("Waterwijk", "Filmwijk", "Haven", "Stedenwijk", "Buiten")[nth % 5],
                    purposes=["social", "education"],
                )


# ---- Memory ----------------------------------------------------------------------------------------------------------------


def _memory(world: World) -> Iterator[Row]:
    town = world.towns["almere"]
    for kind in ("web", "worker"):
        town.stop(kind)
        town.start(kind)
    for kind in ("web", "worker"):
        town.wait_until_ready(kind)
    for when, pages in (("at rest", 0), ("at rest after 200 pages", 200)):
        for nth in range(pages):
            _get(town.port, PAGES[nth % len(PAGES)])
        time.sleep(SETTLED)
        kinds = {kind: town.pids(kind) for kind in ("web", "worker")}
        each = {kind: sum(pss(pid) for pid in pids) for kind, pids in kinds.items()}
        total, alone = sum(each.values()), as_if_alone([pid for pids in kinds.values() for pid in pids])
        said = ", ".join(f"{kind} {size:.0f}" for kind, size in each.items())
        yield Row(
            f"a node {when}", f"{total:.0f} MB PSS ({said})", f"{alone:.0f} MB if no other Python ran", f"≤ {MEMORY_MAX:.0f} MB",
            total <= MEMORY_MAX,
        )  # fmt: skip


def pss(pid: int) -> float:
    """Megabytes of a process, each shared page divided by its sharers."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024


def as_if_alone(pids: list[int]) -> float:
    """Megabytes of these processes together, if nobody else used the files they have in memory."""
    own, files = 0.0, {}
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        own += int(re.search(r"^Pss_Anon:\s+(\d+) kB", rollup, re.MULTILINE)[1])
        for area in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text(), flags=re.MULTILINE)[1:]:
            _range, _rights, offset, device, inode = area.split()[:5]
            sizes = {name: int(size) for name, size in re.findall(r"^(Rss|Anonymous):\s+(\d+) kB", area, re.MULTILINE)}
            if inode != "0":
                key = device, inode, offset
                files[key] = max(files.get(key, 0), sizes["Rss"] - sizes["Anonymous"])
    return (own + sum(files.values())) / 1024


def _get(port: int, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Accept-Encoding": "gzip", "Accept-Language": "nl", **headers})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path} answered {answer.status}")
    return answer, body


# ---- Starts and speed ------------------------------------------------------------------------------------------------------


def _starts(world: World) -> Iterator[Row]:
    town = world.towns["almere"]
    town.stop("web")

    def ours() -> float:
        began = time.perf_counter()
        town.start("web")
        _until_answered(town.url + "/")
        took = time.perf_counter() - began
        town.stop("web")
        return took

    def bare() -> float:
        began = time.perf_counter()
        with _bare(world) as (url, _pid):
            _until_answered(url)
            return time.perf_counter() - began

    given = take_turns(STARTS, {"ours": ours, "bare": bare})
    ratio = ratios(given["ours"], given["bare"])
    yield Row(
        "start → first page", spread(given["ours"], "s", 2), f"{spread(ratio, '× a bare Flask and SQLAlchemy', 1)}",
        f"≤ {FIRST_PAGE_MAX} s", median(given["ours"]) <= FIRST_PAGE_MAX,
    )  # fmt: skip
    town.start("web")
    town.wait_until_ready("web")


def _until_answered(url: str) -> None:
    deadline = time.monotonic() + 30
    while not page_answers(url):
        if time.monotonic() > deadline:
            raise TimeoutError(url)
        time.sleep(0.01)


@contextmanager
def _bare(world: World) -> Iterator[tuple[str, int]]:
    port, town = free_port(), world.towns["almere"]
    words = [sys.executable, "-m", "tests.benchmarks.bare", town.settings.database_url, str(port)]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    try:
        yield f"http://127.0.0.1:{port}/", process.pid
    finally:
        process.kill()
        process.wait(10)


def _list(world: World) -> Iterator[Row]:
    town = world.towns["almere"]
    _answer, packed = _get(town.port, "/initiatives")
    _answer, plain = _get(town.port, "/initiatives", **{"Accept-Encoding": "identity"})
    rows = plain.count(b'data-mark="')
    wire = len(packed) * LISTED / rows
    yield Row(
        f"{LISTED} of {INITIATIVES} initiatives, on the wire", f"{wire / 1000:.1f} kB (plain {len(plain) / 1000:.0f})", "",
        f"≤ {LIST_MAX // 1000} kB", rows >= LISTED and wire <= LIST_MAX,
    )  # fmt: skip
    with _bare(world) as (url, pid):
        _until_answered(url)
        ours, bare = town.pids("web")[0], pid
        cases = {
            "ours": lambda: _served(town.port, "/initiatives", ours),
            "bare": lambda: _served(int(url.rstrip("/").rpartition(":")[2]), "/", bare),
        }
        for case in cases.values():
            case()  # warm
        given = take_turns(ROUNDS, cases)
    rate = ratios([rate for rate, _ in given["ours"]], [rate for rate, _ in given["bare"]])
    cpu = {name: median(cpu for _, cpu in values) for name, values in given.items()}
    ratio = f"{spread(rate, '× a bare ORM list', 2)}; CPU {cpu['ours']:.1f} and {cpu['bare']:.1f} ms"
    speed = spread((rate for rate, _ in given["ours"]), "pages/s")
    yield Row(f"{LISTED} of {INITIATIVES} initiatives, speed", speed, ratio, "≥ 0.5 ×", median(rate) >= 0.5)


def _served(port: int, path: str, pid: int) -> tuple[float, float]:
    """Pages a second over `CONNECTIONS` connections, and the server's CPU in ms for each."""
    done, ending = [0] * CONNECTIONS, time.perf_counter() + SECONDS

    def ask(nth: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while time.perf_counter() < ending:
            connection.request("GET", path, headers={"Accept-Encoding": "gzip", "Accept-Language": "nl"})
            if connection.getresponse().read():
                done[nth] += 1
        connection.close()

    spent, begin = _cpu(pid), time.perf_counter()
    threads = [threading.Thread(target=ask, args=(nth,)) for nth in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = sum(done)
    return count / (time.perf_counter() - begin), 1000 * (_cpu(pid) - spent) / count


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


# ---- A first visit ---------------------------------------------------------------------------------------------------------


def _visits(world: World) -> Iterator[Row]:
    sites = {"a node, its first page": "/", "a node, initiatives and their map": "/initiatives"}
    visits = {what: world.towns["almere"].url + path for what, path in sites.items()}
    visits["the association, its map"] = world.hub.url + "/"
    with chromium() as browser:
        for what, url in visits.items():
            context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, locale="nl-NL")
            sizes = transferred(context.new_page(), url)
            context.close()
            largest = ", ".join(f"{name} {size / 1000:.0f}" for name, size in sorted(sizes.items(), key=lambda it: -it[1])[:4])
            total = sum(sizes.values())
            yield Row(
                f"first visit by phone: {what}", f"{total / 1000:.0f} kB ({largest})", "", f"≤ {VISIT_MAX // 1000} kB",
                total <= VISIT_MAX,
            )  # fmt: skip


def transferred(page: Any, url: str) -> dict[str, int]:
    """What comes over the line when somebody opens a page for the first time, headers included: bytes by file."""
    names, sizes = {}, {}
    line = page.context.new_cdp_session(page)
    line.on("Network.requestWillBeSent", lambda sent: names.setdefault(sent["requestId"], sent["request"]["url"]))
    line.on("Network.loadingFinished", lambda came: sizes.update({came["requestId"]: came["encodedDataLength"]}))
    line.send("Network.enable")
    page.goto(url, wait_until="networkidle")
    found: dict[str, int] = {}
    for request, size in sizes.items():
        name = names[request].partition("?")[0].rpartition("/")[2] or "page"
        found[name] = found.get(name, 0) + int(size)
    return found

"""What was acknowledged, and whether exactly that arrived: the verdict of every kill test.

It trusts the code it judges no more than it must: the logs' bytes are compared, the numbers counted, and the state they lead to is
folded here once more, by hand, from the bodies in the node's own log.
"""

from typing import Any

import orjson
from sqlalchemy import select

from services.hub.lessons.projection import NationalLesson
from services.town_node.lessons.library import LibraryLesson
from services.town_node.lessons.model import Lesson
from shared.envelope import NO_HASH, Entry
from shared.feed import feed, feed_state
from shared.inbox import inbox_cursor
from tests.processes import Town, Visitor, World, held_log

COLUMNS = ("title", "body", "kind", "theme", "phase", "shared_on")
FOR_ALL = {
    *("circle.described", "lesson.shared", "lesson.revised", "lesson.withdrawn", "town.admitted", "town.readmitted"),
    *("epoch.opened", "epoch.settled", "key.rotated", "key.revoked", "redacted"),
}
"""Of the types that these tests make, those that reach the other towns."""


class Ledger:
    """A visitor who writes, and remembers what was acknowledged: the title of each lesson, None once it was taken back."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.visitor: Visitor = town.visitor()
        self.acknowledged: dict[str, str | None] = {}
        self._count = 0

    def share(self) -> str:
        """One more lesson."""
        self._count += 1
        title = f"Les {self._count} van {self.town.name}"
        code = self.visitor.share(title)
        self.acknowledged[code] = title
        return code

    def write(self) -> None:
        """Three lessons: one stays, one is said better, one is taken back."""
        self.share()
        better, gone = self.share(), self.share()
        self.visitor.revise(better, f"Les {self._count - 1} nog beter")
        self.acknowledged[better] = f"Les {self._count - 1} nog beter"
        self.visitor.withdraw(gone)
        self.acknowledged[gone] = None


def check(world: World, *ledgers: Ledger) -> None:
    """Everything that was acknowledged arrived exactly once, and nothing else did (I1, I2, I5, I8, I10)."""
    check_arrived(world)
    for ledger in ledgers:
        _is_kept(ledger)
    for town in world.towns.values():
        # These couriers keep what they confirmed. A repeat would hide a loss (an ack before its commit), or be asked for nothing.
        assert "relay.rewound" not in town.said_ever("worker"), "nothing had to be sent again"


def check_arrived(world: World) -> None:
    """Each log, each picture and the feed are the same everywhere."""
    assert world.behind() == {}
    for town in world.towns.values():
        log = town.log()
        _is_a_chain(log)
        assert _places(world.national_log(town.name)) == _places(log), "the national log is the town's own, to the byte"
        told = fold(log)
        assert _rows(world.hub, NationalLesson, NationalLesson.town == town.name) == told, "the association shows what was told"
        assert _rows(town, Lesson, Lesson.withdrawn_on.is_(None)) == told, (
            "no change without its event, no event without its change"
        )
        for other in world.towns.values():
            if other is not town and other.runs("worker"):
                assert _rows(other, LibraryLesson, LibraryLesson.town == town.name) == told, "the other towns find it"
                assert _places(held_log(other.database, town.name)) == _places(entry for entry in log if _kind(entry) in FOR_ALL)
    _is_a_chain(world.national_log("koepel"))
    _feed_is_whole(world)


def fold(log: list[Entry]) -> dict[str, dict[str, Any]]:
    """The lessons that a log leaves behind; what was erased leaves nothing."""
    lessons: dict[str, dict[str, Any]] = {}
    for entry in log:
        if entry.body is None:
            continue
        body = orjson.loads(entry.body)
        if _kind(entry) in {"lesson.shared", "lesson.revised"}:
            lessons[body["lesson"]] = {name: body.get(name) for name in COLUMNS}
        elif _kind(entry) == "lesson.withdrawn":
            del lessons[body["lesson"]]
        elif _kind(entry) == "redacted":
            lessons.pop(body["redacts"], None)
    return lessons


def _is_kept(ledger: Ledger) -> None:
    log = ledger.town.log()
    told = {code: lesson["title"] for code, lesson in fold(log).items()}
    assert {code: told.get(code) for code in ledger.acknowledged} == ledger.acknowledged
    shared = [entry.says.subject for entry in log if _kind(entry) == "lesson.shared"]
    assert len(shared) == len(set(shared))
    if _kind(log[0]) != "epoch.opened":  # a later run of numbers tells what stands, and no more of how it came about
        assert set(ledger.acknowledged) <= set(shared)


def _is_a_chain(log: list[Entry]) -> None:
    assert [entry.says.seq for entry in log] == list(range(1, len(log) + 1))
    before = NO_HASH
    for entry in log:
        assert entry.says.prevhash == before
        before = entry.hash


def _feed_is_whole(world: World) -> None:
    with world.hub.database.reading() as session:
        numbered = session.execute(select(feed).order_by(feed.c.number)).all()
        last = session.scalar(select(feed_state.c.last))
        present = set(session.execute(select(inbox_cursor.c.town, inbox_cursor.c.epoch)).all())
    assert [row.number for row in numbered] == list(range(1, last + 1))
    wanted = [
        (slug, entry.says.seq) for slug in ("koepel", *world.towns) for entry in world.national_log(slug) if _kind(entry) in FOR_ALL
    ]
    given = sorted((row.town, row.seq) for row in numbered if (row.town, row.epoch) in present)
    assert given == sorted(wanted), "each entry for all has one national number"


def _rows(service: Any, model: Any, *where: Any) -> dict[str, dict[str, Any]]:
    key = getattr(model, "lesson", None) or model.code
    with service.database.reading() as session:
        found = session.execute(select(key, model).where(*where)).all()
    return {
        code: {name: getattr(row, name) or None for name in COLUMNS} | {"shared_on": row.shared_on.isoformat()}
        for code, row in found
    }


def _places(entries: Any) -> list[tuple[int, bytes, bytes, bytes]]:
    return [(entry.says.seq, entry.header, entry.signature, entry.body) for entry in entries]


def _kind(entry: Entry) -> str:
    """`lesson.shared`, without what stands before and after it on the wire."""
    return entry.says.type.removeprefix("nl.tuinkoepel.").rpartition(".v")[0]

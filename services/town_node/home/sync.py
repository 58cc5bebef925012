"""How far this node and the association are in step: what the foot, the sync page and the alarm say (design §4, R36).

`glance` is one look, because every page asks; `state_of` puts it into one word, the first that holds:

| state | what it means |
|---|---|
| alone | the circle has not joined |
| left | the circle has left; nothing goes out any more |
| at_door | the association has the code and the key, and has not let this town in yet |
| key_ended | the association believes the key of this node no longer |
| frozen | the association has stopped this town until it has decided what happened |
| set_back | the log was put back from a backup; nothing goes out until the tail is back |
| away | no answer for a while, or never yet |
| waiting | something is on its way |
| well | the association holds everything |

The rest of this module is for the page: what waits, what changed on both sides, what was refused, here and there.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from services.town_node.circle.membership import Membership
from services.town_node.circle.model import Circle
from services.town_node.config import Settings
from services.town_node.initiatives.model import Initiative
from services.town_node.lessons.model import Lesson
from services.town_node.meetings.model import Meeting
from shared.eventlog import head, log, payload, read_log
from shared.events import Redacted
from shared.heads import KEY_ENDED, WITHOUT_KEY, received_head
from shared.language import N_, Words
from shared.quarantine import ADVICE, quarantine_count
from shared.restore import read_conflicts, setback

THINGS: Mapping[str, Any] = {"circle": Circle, "initiative": Initiative, "meeting": Meeting, "lesson": Lesson}
"""What can be told about, by the second word of its events' types, in the order of a list."""
LOOKED_AT = 1000
"""Entries of which it is said what they are about; what waits beyond is only counted."""
REFUSED = N_("It was refused for a reason that this release does not know. Update this node.")
_ENDS = {"withdrawn", "cancelled"}


@dataclass(frozen=True)
class Glance:
    """Who we are, how far our log goes, how far the association said it has it, and what stands in the way."""

    town: str | None
    association: str | None
    left_at: datetime | None
    epoch: str | None
    last: int
    heard_epoch: str | None
    cursor: int
    spread: int
    answered_at: datetime | None
    trouble: str
    setback_at: datetime | None
    setback_why: str | None

    @property
    def received(self) -> int:
        """How much of the present log the association has; nothing is known of a new epoch before it has answered."""
        return min(self.cursor, self.last) if self.heard_epoch == self.epoch else 0

    @property
    def everywhere(self) -> int:
        """How much of it all other towns have too."""
        return min(self.spread, self.received) if self.heard_epoch == self.epoch else 0

    @property
    def waiting(self) -> int:
        """Events that the association has not received yet."""
        return self.last - self.received

    @property
    def may_join_again(self) -> bool:
        """Whether another code can be of use: the node's key does not count, or the circle has left."""
        return self.trouble in WITHOUT_KEY or self.left_at is not None

    def is_quiet(self, now: datetime, quiet: timedelta) -> bool:
        """Whether the association has not answered for so long, or never yet."""
        return self.answered_at is None or now - self.answered_at > quiet


def _one(column: Any, query: Select[Any] | None = None) -> Any:
    return (select(column) if query is None else query).limit(1).scalar_subquery()


def _of_head(column: Any) -> Any:
    return _one(column, select(column).order_by(head.c.number.desc()))


_GLANCE = select(
    *(_one(column) for column in (Membership.town, Membership.association, Membership.left_at)),
    *(_of_head(column) for column in (head.c.epoch, head.c.seq)),
    *(_one(received_head.c[name]) for name in ("epoch", "cursor", "everywhere", "answered_at", "trouble")),
    *(_one(column) for column in (setback.c.noticed_at, setback.c.why)),
)


def glance(session: Session) -> Glance:
    """One look, in one statement."""
    town, association, left_at, epoch, last, heard, cursor, spread, answered_at, trouble, at, why = session.execute(_GLANCE).one()
    return Glance(
        town, association, left_at, epoch, last or 0, heard, cursor or 0, spread or 0, answered_at, trouble or "", at, why
    )


def quiet_after(settings: Settings) -> timedelta:
    """How long no answer is nothing to speak of."""
    return timedelta(seconds=max(settings.head_period * 3, settings.idle_period * 2))


def state_of(seen: Glance, now: datetime, quiet: timedelta) -> str:
    """In one word; see the table above."""
    if seen.town is None:
        return "alone"
    if seen.left_at is not None:
        return "left"
    if seen.trouble == KEY_ENDED:
        return KEY_ENDED
    if seen.trouble in WITHOUT_KEY:
        return "away" if seen.is_quiet(now, quiet) else seen.trouble
    if seen.trouble:
        return "frozen"
    if seen.setback_at is not None:
        return "set_back"
    if seen.is_quiet(now, quiet):
        return "away"
    return "waiting" if seen.waiting else "well"


# ---- What waits ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting:
    """Since when something waits, and what it is about: (thing, how many events), the rest under an empty word."""

    since: datetime | None
    about: Sequence[tuple[str, int]]


def what_waits(session: Session, seen: Glance) -> Waiting:
    """What the association has not received yet."""
    if not seen.waiting or seen.epoch is None:
        return Waiting(None, [])
    entries = read_log(session, seen.epoch, seen.received, LOOKED_AT)
    counts = Counter("erasure" if entry.says.type == Redacted.wire else kind_of(entry.says.type) for entry in entries)
    counts[""] += seen.waiting - len(entries)
    return Waiting(moment(entries[0].says.time), [(name, counts[name]) for name in (*THINGS, "erasure", "") if counts[name]])


def moment(said: str) -> datetime:
    """The time in a header of our own."""
    return datetime.fromisoformat(said).astimezone(UTC)


def kind_of(wire: str) -> str:
    """What an event of this type is about: lesson in nl.tuinkoepel.lesson.shared.v1; empty for what is about the log itself."""
    words = wire.split(".")
    return words[2] if len(words) > 3 and words[2] in THINGS else ""


# ---- What changed on both sides --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoVersions:
    """A thing that was changed here and, as the association held it, there; the version from here counts.

    `differs` has (field, here, there) as they stand in the events; `gone_…`: it was taken back on that side.
    """

    subject: str
    kind: str
    title: str
    noticed_at: datetime
    differs: Sequence[tuple[str, Any, Any]]
    gone_here: bool
    gone_there: bool


def two_versions(session: Session) -> list[TwoVersions]:
    """What changed on both sides, until somebody has looked at it."""
    found = []
    for row in read_conflicts(session):
        there, (wire, here) = _body(row.other.encode()), _told_last(session, row.subject)
        fields = [name for name in {**here, **there} if name != kind_of(row.type)]
        gone_here, gone_there = (bool(_ENDS & set(word.split("."))) for word in (wire, row.type))
        differs = [] if gone_here or gone_there else [(name, here.get(name), there.get(name)) for name in fields]
        found.append(
            TwoVersions(
                row.subject, kind_of(row.type), _title(here) or _title(there), row.noticed_at,
                [part for part in differs if part[1] != part[2]], gone_here, gone_there,
            )
        )  # fmt: skip
    return found


def _told_last(session: Session, subject: str) -> tuple[str, dict[str, Any]]:
    """Type and body of the last that this log says about a subject."""
    query = (
        select(log.c.header, payload.c.body)
        .join(payload, (payload.c.epoch == log.c.epoch) & (payload.c.seq == log.c.seq))
        .join(head, head.c.epoch == log.c.epoch)
        .where(log.c.subject == subject)
        .order_by(head.c.number.desc(), log.c.seq.desc())
        .limit(1)
    )
    row = session.execute(query).first()
    return (str(_body(bytes(row.header)).get("type", "")), _body(bytes(row.body))) if row else ("", {})


def _body(raw: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def _title(said: Mapping[str, Any]) -> str:
    return str(said.get("title") or said.get("name") or "")


# ---- What was refused ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refused:
    """Something that was not believed: why, how often, and when last."""

    why: Words
    times: int
    last_at: datetime
    town: str = ""


def complaints(session: Session) -> list[Refused]:
    """What the association had to refuse in our name; as it says, so nothing in it is relied on."""
    told = session.scalar(select(received_head.c.complaints)) or []
    found = []
    for one in told:
        if not isinstance(one, dict):
            continue
        verdict, times, last_at = one.get("verdict"), one.get("times"), one.get("last_at")
        if isinstance(times, int) and isinstance(last_at, int) and times > 0 and 0 <= last_at < 2**34:
            found.append(Refused(Words(ADVICE.get(str(verdict), REFUSED)), times, datetime.fromtimestamp(last_at, UTC)))
    return found


def refused_here(session: Session) -> list[Refused]:
    """What this node itself refused in the feed, newest first."""
    rows = session.execute(select(quarantine_count).order_by(quarantine_count.c.last_at.desc()).limit(20))
    return [Refused(Words(ADVICE.get(row.verdict, REFUSED)), row.times, row.last_at, row.town) for row in rows]

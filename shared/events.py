"""Everything that may leave a town: one dataclass per event, and nothing else.

The vocabulary is closed on purpose (design §3 habit 2, R34): the field types below are all there are, and none of them can hold
a person's name, address, e-mail or telephone number but `Byline`, which says on which day its author agreed, and the one
`PublicPhone` that a circle marks as public. Free text (`Line`, `PublicText`) has passed the author's eyes, who was asked about
every name the node recognised in it.

An entity event carries the **whole public state** of its entity, or a tombstone; never a patch. So a projection can put the
latest state in place, twice if need be, and replay and erasure stay simple.

Wire form: JSON, one member per field, dates as `YYYY-MM-DD`, local times as `HH:MM`, places in millionths of a degree (WGS 84,
integers, because floats do not survive every parser), texts in Unicode without control characters. Members that are unknown
here are passed over, so a newer town can talk to an older hub.

Read this file top to bottom; `envelope.py` shows how an event travels.
"""

import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import date, time
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

__all__ = ["VOCABULARY", "Event", "Misfit", "body_schema", "event", "event_class"]

Audience = Literal["hub", "all", "parties"]
"""Who may read an event: the association only, every town, or the towns its body lists."""

INITIATIVE_KINDS = (
    "community_garden", "school_garden", "green_strip", "self_managed_green", "planters", "urban_farm", "food_collective", "other",
)  # fmt: skip
PHASES = ("idea", "plan", "almost_operational", "operational", "stopped")
PURPOSES = ("social", "commercial", "education", "care")
CIRCLE_STATUSES = ("active", "paused", "ended")
WORKING_METHODS = ("circle", "intervision")
LESSON_KINDS = ("do", "dont", "tip", "success_factor")
MEETING_KINDS = ("circle", "start", "intervision", "evaluation", "excursion", "other")
MEETING_STATUSES = ("planned", "held")
PLACE_SHOWN = ("exact", "neighbourhood", "hidden")
"""How exactly an initiative shows its place. The choice itself stays in the town; `Place` is what comes of it."""
THEMES = (
    "volunteers", "business_plan", "finance", "archaeology", "social_media", "neighbourhood", "municipality", "soil", "water",
    "school",
)  # fmt: skip
"""The themes of the report (`domain.md`); a circle may add its own, in the same spelling."""

LINE_MAX, TEXT_MAX = 160, 20_000
"""Longest single line (a title, a name) and longest Markdown text, in characters."""


class Misfit(ValueError):  # noqa: N818  # it names what the value is, as the field's own word
    """A value does not fit its field. `field` is the member's path (`agenda.2.minutes`), `expected` says what would be right."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field, self.expected = field, expected


# ---- The field types. Each turns a JSON value into a Python one (`read`) and back (`write`). --------------------------------


@dataclass(frozen=True)
class FieldType:
    """A field type: how a JSON value is read, how it is written, and what it must look like: in words, and as a JSON Schema."""

    expected: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = lambda value: value
    schema: Mapping[str, Any] = field(default_factory=dict, compare=False)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u0085\u2028\u2029\ud800-\udfff]")
_NO_LINE, _NO_TEXT = r"\u0000-\u001f\u007f\u0085\u2028\u2029", r"\u0000-\u0008\u000b-\u001f\u007f\u0085\u2028\u2029"
"""The same for a JSON Schema, which holds no surrogates anyway."""


def _text(expected: str, most: int, *, least: int = 0, lines: bool = False, pattern: str = "", like: str = "") -> FieldType:
    shape = re.compile(pattern) if pattern else None
    schema: dict[str, Any] = {"type": "string", "minLength": least, "maxLength": most}
    schema["pattern"] = f"^{pattern}$" if pattern else f"^[^{_NO_TEXT if lines else _NO_LINE}]*$"
    if like:
        schema["examples"] = [like]

    def read(value: Any) -> str:
        if type(value) is not str or not least <= len(value) <= most or _CONTROL.search(value):
            raise ValueError
        if (not lines and ("\n" in value or "\t" in value)) or (shape and not shape.fullmatch(value)):
            raise ValueError
        return value

    return FieldType(expected, read, schema=schema)


def _whole(expected: str, least: int, most: int) -> FieldType:
    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError
        return value

    return FieldType(expected, read, schema={"type": "integer", "minimum": least, "maximum": most})


def _one_of(values: tuple[str, ...]) -> FieldType:
    allowed = frozenset(values)

    def read(value: Any) -> str:
        if type(value) is not str or value not in allowed:
            raise ValueError
        return value

    return FieldType("one of " + ", ".join(values), read, schema={"type": "string", "enum": list(values)})


_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CLOCK = re.compile(r"[0-9]{2}:[0-9]{2}")


def _read_day(value: Any) -> date:
    if type(value) is not str or not _DAY.fullmatch(value):  # fromisoformat would take weeks too
        raise ValueError
    return date.fromisoformat(value)


def _read_clock(value: Any) -> time:
    if type(value) is not str or not _CLOCK.fullmatch(value):  # fromisoformat would take 19+01 too, with a time zone
        raise ValueError
    return time.fromisoformat(value)


def _read_flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


Code = Annotated[
    str, _text("a code of 4 to 40 letters, digits, - or _", 40, least=4, pattern=r"[A-Za-z0-9_-]+", like="5f0c2a9e7b14")
]
Slug = Annotated[str, _text("a town's short name: a-z, 0-9 and -", 30, least=2, pattern=r"[a-z0-9][a-z0-9-]*", like="almere")]
Line = Annotated[str, _text(f"one line of at most {LINE_MAX} characters", LINE_MAX)]
Name = Annotated[str, _text(f"one line of 1 to {LINE_MAX} characters", LINE_MAX, least=1, pattern=r"\S(.*\S)?")]
PublicText = Annotated[str, _text(f"a text of at most {TEXT_MAX} characters", TEXT_MAX, lines=True)]
Theme = Annotated[str, _text("a theme: a-z, 0-9 and _", 40, least=2, pattern=r"[a-z0-9]+(_[a-z0-9]+)*", like="social_media")]
PublicPhone = Annotated[str, _text("a telephone number", 20, least=6, pattern=r"\+?[0-9][0-9 ()-]+", like="036 555 01 02")]
KeyText = Annotated[str, _text("base64 of a key or a signature, or a key's short name", 88, least=8, pattern=r"[A-Za-z0-9+/_=-]+")]
HashText = Annotated[str, _text("a SHA-256 as 64 hex digits", 64, least=64, pattern=r"[0-9a-f]+")]
Day = Annotated[
    date,
    FieldType("a day as YYYY-MM-DD", _read_day, date.isoformat, {"type": "string", "format": "date", "examples": ["2015-06-20"]}),
]
Clock = Annotated[
    time,
    FieldType(
        "a local time as HH:MM",
        _read_clock,
        lambda value: value.strftime("%H:%M"),
        {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$", "examples": ["19:30"]},
    ),
]
Count = Annotated[int, _whole("a whole number from 0 to 100000", 0, 100_000)]
Sequence = Annotated[int, _whole("a place in a log, from 0", 0, 2**53 - 1)]
Minutes = Annotated[int, _whole("minutes, from 0 to 1440", 0, 1440)]
Flag = Annotated[bool, FieldType("true or false", _read_flag, schema={"type": "boolean"})]
Latitude = Annotated[int, _whole("millionths of a degree north", -90_000_000, 90_000_000)]
Longitude = Annotated[int, _whole("millionths of a degree east", -180_000_000, 180_000_000)]
InitiativeKind = Annotated[str, _one_of(INITIATIVE_KINDS)]
Phase = Annotated[str, _one_of(PHASES)]
Purpose = Annotated[str, _one_of(PURPOSES)]
CircleStatus = Annotated[str, _one_of(CIRCLE_STATUSES)]
WorkingMethod = Annotated[str, _one_of(WORKING_METHODS)]
LessonKind = Annotated[str, _one_of(LESSON_KINDS)]
MeetingKind = Annotated[str, _one_of(MEETING_KINDS)]
MeetingStatus = Annotated[str, _one_of(MEETING_STATUSES)]
PlaceShown = Annotated[str, _one_of(PLACE_SHOWN)]


@dataclass(frozen=True)
class Place:
    """A point on the map, as exact as its owner wishes to show it. WGS 84, in millionths of a degree.

    A place that is not `exact` is the middle of a square of some 500 metres in which it lies (`coordinates.neighbourhood`).
    """

    latitude: Latitude
    longitude: Longitude
    exact: Flag = True


@dataclass(frozen=True)
class Byline:
    """The name an author wants to be known by, and the day on which the author agreed that it leaves the town (R34)."""

    name: Name
    agreed: Day


@dataclass(frozen=True)
class PhaseStep:
    """An initiative is in this phase since that day (§2.1.2)."""

    phase: Phase
    since: Day


@dataclass(frozen=True)
class AgendaItem:
    """One item of an evening, and how long it may take (R9)."""

    title: Name
    minutes: Minutes


# ---- The machinery: a dataclass becomes a wire form. -----------------------------------------------------------------------


class Event:
    """What happened, as outsiders may know it. Made by a model method, given to `eventlog.append`."""

    wire: ClassVar[str]
    """The wire name with its major version: a promise, unlike the class name."""
    audience: ClassVar[Audience]
    about: ClassVar[str]
    """The field that holds the entity's code; it becomes the header's `subject`."""
    lift: ClassVar[Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}
    """Upcasters: from version n to n+1, pure."""

    @property
    def subject(self) -> str:
        return str(getattr(self, self.about))


VOCABULARY: dict[str, type[Event]] = {}
"""Wire name without version → the class that is current."""

_NAME = re.compile(r"nl\.tuinkoepel\.([a-z_.]+)\.v([1-9][0-9]?)")


@typing.dataclass_transform(kw_only_default=True, frozen_default=True)
def event(name: str, *, about: str, audience: Audience, version: int = 1) -> Callable[[type], type]:
    """Enter a class into the vocabulary as `nl.tuinkoepel.<name>.v<version>`."""

    def enter(cls: type) -> type:
        made: Any = dataclass(frozen=True, kw_only=True)(cls)
        made.wire, made.about, made.audience = f"nl.tuinkoepel.{name}.v{version}", about, audience
        _shape(made)  # an unknown field type must fail at import, not in somebody's transaction
        VOCABULARY[name] = made
        return cls

    return enter


def event_class(wire: str) -> tuple[type[Event], int] | None:
    """The class for a wire name, and the version named; None if this release does not know it, or only an older version of it."""
    match = _NAME.fullmatch(wire)
    if not match or match[1] not in VOCABULARY:
        return None
    cls, version = VOCABULARY[match[1]], int(match[2])
    return (cls, version) if version <= _version(cls) else None


def to_body(happened: Any) -> dict[str, Any]:
    """The JSON form of an event (or of a part of one). Refuses with `Misfit` what `from_body` would refuse."""
    body = _written(type(happened), happened)
    from_body(type(happened), body)
    return body


def _written(cls: type, happened: Any) -> dict[str, Any]:
    """The members of `cls`, and no others that `happened` may have; not checked yet."""
    body: dict[str, Any] = {}
    for name, kind, _ in _shape(cls):
        try:
            value = getattr(happened, name)
            body[name] = None if value is None else kind.write(value)
        except (AttributeError, TypeError, ValueError) as error:
            raise Misfit(name, kind.expected) from error
    return body


def from_body(cls: type, body: Any, version: int | None = None) -> Any:
    """An instance of `cls` from its JSON form; older versions are lifted first. Raises `Misfit` naming the first wrong field."""
    if type(body) is not dict:
        raise Misfit("body", "an object")
    for old in range(version or _version(cls), _version(cls)):
        body = cls.lift[old](body)  # type: ignore[attr-defined]  # only events are lifted
    values = {}
    for name, kind, missing in _shape(cls):
        value = body.get(name, MISSING)
        if value is MISSING:
            value = missing
            if value is MISSING:
                raise Misfit(name, kind.expected)
            values[name] = value
            continue
        try:
            values[name] = kind.read(value)
        except Misfit as inner:
            raise Misfit(f"{name}.{inner.field}", inner.expected) from None
        except (TypeError, ValueError):
            raise Misfit(name, kind.expected) from None
    return cls(**values)


def _version(cls: type) -> int:
    return int(cls.wire.rpartition(".v")[2]) if issubclass(cls, Event) else 1


_SHAPES: dict[type, list[tuple[str, FieldType, Any]]] = {}


def _shape(cls: type) -> list[tuple[str, FieldType, Any]]:
    """The fields of a dataclass as (name, kind, what to use when it is absent)."""
    if cls not in _SHAPES:
        hints = typing.get_type_hints(cls, include_extras=True)
        _SHAPES[cls] = [(f.name, _kind(hints[f.name], f"{cls.__name__}.{f.name}"), f.default) for f in fields(cls)]
    return _SHAPES[cls]


def _kind(hint: Any, where: str) -> FieldType:
    if get_origin(hint) is Annotated and isinstance(hint.__metadata__[0], FieldType):
        return hint.__metadata__[0]
    if get_origin(hint) in {UnionType, typing.Union}:
        inner = _kind(next(arm for arm in get_args(hint) if arm is not NoneType), where)
        return FieldType(
            f"{inner.expected}, or nothing",
            lambda value: None if value is None else inner.read(value),
            inner.write,
            {"anyOf": [inner.schema, {"type": "null"}]},
        )
    if get_origin(hint) is tuple:
        return _list_of(_kind(get_args(hint)[0], where))
    if hint in {Place, Byline, PhaseStep, AgendaItem}:
        return FieldType(
            f"an object ({hint.__name__})",
            lambda value: from_body(hint, value),
            lambda value: _written(hint, value),
            body_schema(hint),
        )
    msg = f"{where}: {hint} is no field type of the vocabulary (R34)"
    raise TypeError(msg)


def _list_of(inner: FieldType, most: int = 100) -> FieldType:
    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > most:
            raise ValueError
        items = []
        for index, item in enumerate(value):
            try:
                items.append(inner.read(item))
            except Misfit as deeper:
                raise Misfit(f"{index}.{deeper.field}", deeper.expected) from None
            except (TypeError, ValueError):
                raise Misfit(str(index), inner.expected) from None
        return tuple(items)

    return FieldType(
        f"a list of at most {most}: {inner.expected}",
        read,
        lambda value: [inner.write(item) for item in value],
        {"type": "array", "maxItems": most, "items": inner.schema},
    )


def body_schema(cls: type) -> dict[str, Any]:
    """The JSON Schema of an event's body (or of a part of one): every member it has here; others may stand beside them."""
    shape = _shape(cls)
    return {
        "type": "object",
        "description": (cls.__doc__ or "").strip(),
        "properties": {name: kind.schema for name, kind, _ in shape},
        "required": [name for name, _, missing in shape if missing is MISSING],
    }


# ---- The circle ------------------------------------------------------------------------------------------------------------


@event("circle.described", about="circle", audience="all")
class CircleDescribed(Event):
    """The circle as it presents itself to others; sent whenever that changes (R26, R27, R29)."""

    circle: Code
    name: Name
    place_name: Name
    place: Place | None = None
    about_text: PublicText = ""
    status: CircleStatus = "active"
    method: WorkingMethod = "circle"
    founded: Day | None = None
    themes: tuple[Theme, ...] = ()
    public_phone: PublicPhone | None = None


@event("circle.counted", about="circle", audience="hub")
class CircleCounted(Event):
    """How many people take part, as a bare number; only the association reads it, for the pulse (R29)."""

    circle: Code
    day: Day
    members: Count


# ---- Initiatives -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class InitiativeState(Event):
    """An initiative as outsiders may see it (R1). `history` starts with the first known phase and ends with the present one."""

    initiative: Code
    name: Name
    kind: InitiativeKind
    history: tuple[PhaseStep, ...]
    about_text: PublicText = ""
    place: Place | None = None
    place_name: Line = ""
    purposes: tuple[Purpose, ...] = ()
    visitors: Flag = False
    visiting: Line = ""


@event("initiative.registered", about="initiative", audience="all")
class InitiativeRegistered(InitiativeState):
    """An initiative joined the circle's register (R1)."""


@event("initiative.changed", about="initiative", audience="all")
class InitiativeChanged(InitiativeState):
    """What is told about an initiative changed, but not its phase."""


@event("initiative.phase_reached", about="initiative", audience="all")
class InitiativePhaseReached(InitiativeState):
    """An initiative came into another phase: the last step of its history (§2.1.2)."""


@event("initiative.withdrawn", about="initiative", audience="all")
class InitiativeWithdrawn(Event):
    """The initiative left the register, or no longer wants to be seen; what was told about it is taken back."""

    initiative: Code


# ---- Meetings --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MeetingState(Event):
    """A meeting as outsiders may see it (R9, R14). Times are local (Europe/Amsterdam); `attended` counts heads, never names."""

    meeting: Code
    kind: MeetingKind
    title: Name
    day: Day
    starts: Clock
    status: MeetingStatus
    ends: Clock | None = None
    place_name: Line = ""
    theme: Theme | None = None
    agenda: tuple[AgendaItem, ...] = ()
    attended: Count | None = None
    report: PublicText = ""


@event("meeting.planned", about="meeting", audience="all")
class MeetingPlanned(MeetingState):
    """The circle will meet."""


@event("meeting.changed", about="meeting", audience="all")
class MeetingChanged(MeetingState):
    """Something about a meeting changed: its date, its agenda, or its report was published."""


@event("meeting.held", about="meeting", audience="all")
class MeetingHeld(MeetingState):
    """The circle met; so many came (R14)."""


@event("meeting.cancelled", about="meeting", audience="all")
class MeetingCancelled(Event):
    """The meeting does not take place."""

    meeting: Code


# ---- Lessons ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LessonState(Event):
    """A lesson as others can use it (R17). No `phase` means that it helps in every phase."""

    lesson: Code
    title: Name
    body: PublicText
    kind: LessonKind
    theme: Theme
    shared_on: Day
    phase: Phase | None = None
    meeting: Code | None = None
    initiative: Code | None = None
    byline: Byline | None = None


@event("lesson.shared", about="lesson", audience="all")
class LessonShared(LessonState):
    """A circle learned something that others can use."""


@event("lesson.revised", about="lesson", audience="all")
class LessonRevised(LessonState):
    """The circle says it better, or knows more."""


@event("lesson.withdrawn", about="lesson", audience="all")
class LessonWithdrawn(Event):
    """The circle takes the lesson back."""

    lesson: Code


# ---- The log itself (design §4): exempt from erasure, and without anything personal ---------------------------------------


@event("epoch.opened", about="epoch", audience="all")
class EpochOpened(Event):
    """A town began a new run of numbers, because its log was put back from a backup or lost; the first entry of that run.

    `previous` and its last place, as the association held it, say what the new run follows. The whole public state comes next.
    """

    epoch: Code
    previous: Code
    last: Sequence
    last_hash: HashText


@event("epoch.settled", about="epoch", audience="all")
class EpochSettled(Event):
    """The town has told its whole public state again: from here on the new run counts, and what the old one said does not."""

    epoch: Code


@event("key.rotated", about="key_id", audience="all")
class KeyRotated(Event):
    """The town signs with another key from the next entry on. The old key signed this header, `proof` is made with the new one."""

    key_id: KeyText
    public_key: KeyText
    proof: KeyText


@event("redacted", about="redacts", audience="all")
class Redacted(Event):
    """Forget what was ever said about this subject: bodies and salts go, here and everywhere; the chain stays whole (R34)."""

    redacts: Code


EXEMPT_FROM_ERASURE = frozenset(cls.wire for cls in (EpochOpened, EpochSettled, KeyRotated, Redacted))
"""Types that erasure passes by: without them a log cannot be followed, and they carry nothing personal."""


# ---- The association (its own log, slug `koepel`) --------------------------------------------------------------------------


@event("town.admitted", about="town", audience="all")
class TownAdmitted(Event):
    """A town proved that it holds this key, and its circle is now part of the association (R32). The other towns pin the key."""

    town: Slug
    name: Name
    key_id: KeyText
    public_key: KeyText


@event("town.readmitted", about="town", audience="all")
class TownReadmitted(TownAdmitted):
    """A town that lost its key joined anew. What the old key signed counts up to this place of the town's log, and no further."""

    epoch: Code
    last: Sequence


@event("key.revoked", about="town", audience="all")
class KeyRevoked(Event):
    """A town's key is in wrong hands: what it signed counts up to this place of the town's log, and no further."""

    town: Slug
    key_id: KeyText
    epoch: Code
    last: Sequence

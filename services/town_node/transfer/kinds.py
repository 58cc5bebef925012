"""What a row means for the circle: which thing it is about, what would be different, whether that may be, and doing it.

One class per kind, each over what the circle has now. `Kind.find` recognises the thing a row is about: by its `code` when we
exported the file, else by what people know it by (a member by e-mail address, an initiative by name, a meeting by day and title, a
lesson by title). `combine` puts together what a file tells in several columns. `attempt` asks the model's own rules on a copy, so
that a preview refuses what the import would refuse and changes nothing; `carry_out` goes through the slices' actions, which tell
the world.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import date
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from services.town_node.circle import actions as circle
from services.town_node.circle.model import EmailKnown, LastFacilitator, Member
from services.town_node.initiatives import actions as initiatives
from services.town_node.initiatives.model import InFuture, Initiative
from services.town_node.lessons import actions as lessons
from services.town_node.lessons.model import Lesson
from services.town_node.meetings import actions as meetings
from services.town_node.meetings.model import Attendance, Meeting, NotHeldYet
from services.town_node.transfer import cells
from services.town_node.transfer.cells import Reader, Wrong, folded
from services.town_node.transfer.columns import COLUMNS, write_agenda, write_history, write_place_shown
from services.town_node.transfer.spreadsheets import Cell
from shared.coordinates import read_place, write_place
from shared.events import PHASES
from shared.language import N_, Words

Told = dict[str, Any]


class WrongField(Wrong):
    """What several cells say together does not fit; the trouble shows at this field."""

    def __init__(self, field: str, text: str, **values: object) -> None:
        super().__init__(text, **values)
        self.field = field


class Kind:
    """What the four kinds share. `known` holds the things of the circle by code."""

    name: str
    model: Any

    def __init__(self, session: Session, today: date) -> None:
        self.today = today
        self.known: dict[str, Any] = {thing.code: thing for thing in session.scalars(self.those_here())}
        self.readers: dict[str, Reader] = {}
        """In place of the column's own, where a cell names something else of the circle."""
        self.writers: dict[str, Callable[[Any], Cell]] = {}
        self._by_key: dict[Hashable, list[Any]] = {}
        for thing in self.known.values():
            self._by_key.setdefault(self.key(self.current(thing)), []).append(thing)

    def those_here(self) -> Any:
        """The query for what the circle has, in the order of an export."""
        raise NotImplementedError

    def key(self, told: Mapping[str, Any]) -> Hashable:
        """What people know such a thing by."""
        raise NotImplementedError

    def current(self, thing: Any) -> Told:
        """What is known of it, by field."""
        raise NotImplementedError

    def lacks(self, told: Mapping[str, Any]) -> list[str]:
        """The fields that a new thing needs and the row does not fill."""
        return [known.field for known in COLUMNS[self.name] if known.needed and not told.get(known.field)]

    def combine(self, told: Told, thing: Any, notes: list[Words]) -> Told:
        """What is to be different, out of what the row says. Raises `WrongField`."""
        return told

    def attempt(self, thing: Any, told: Told) -> None:
        """Raise what the actions would raise."""

    def carry_out(self, session: Session, thing: Any, told: Told) -> None:
        """Do it; `thing` is None for a new one."""
        raise NotImplementedError

    def find(self, code: str, told: Mapping[str, Any]) -> Any:
        """The thing that a row is about, or None. Raises `Wrong` when it could be two."""
        if code in self.known:
            return self.known[code]
        found = self._by_key.get(self.key(told), [])
        if len(found) > 1:
            raise Wrong(N_("There are two of this name here. Say which one in a column “Code”, as an export has it."))
        return found[0] if found else None

    def write(self, field: str, value: Any) -> Cell:
        """A value as an export writes it."""
        if field in self.writers:
            return self.writers[field](value)
        return value


def _copy(thing: Any) -> Any:
    """Of the same class, with the same values, known to no session."""
    return type(thing)(**{name: getattr(thing, name) for name in inspect(type(thing)).column_attrs.keys()})  # noqa: SIM118  # no dict


def _picked(told: Told, *names: str) -> Told:
    return {name: told[name] for name in names if name in told}


class Initiatives(Kind):
    """The register."""

    name, model = "initiatives", Initiative

    def __init__(self, session: Session, today: date) -> None:
        super().__init__(session, today)
        self.writers = {
            "kind": lambda code: cells.written(code, "initiative_kind"),
            "phase": lambda code: cells.written(code, "phase"),
            "history": write_history,
            "purposes": lambda codes: ", ".join(str(cells.written(code, "purpose")) for code in codes or ()),
            "visitors": cells.write_flag,
            "place_shown": write_place_shown,
            "latitude": lambda value: None if value is None else value / 1e6,
            "longitude": lambda value: None if value is None else value / 1e6,
        }

    def those_here(self) -> Any:
        return select(Initiative).where(Initiative.withdrawn_on.is_(None)).order_by(Initiative.name, Initiative.code)

    def key(self, told: Mapping[str, Any]) -> Hashable:
        return folded(told.get("name") or "")

    def current(self, thing: Initiative) -> Told:
        names = (
            "name",
            "kind",
            "phase",
            "about_text",
            "place_name",
            "latitude",
            "longitude",
            "place_shown",
            "visitors",
            "visiting",
        )
        steps = [(step.phase, step.since) for step in thing.steps]
        return {name: getattr(thing, name) for name in names} | {
            "history": steps, "since": steps[-1][1] if steps else None, "purposes": list(thing.purposes or ()),
        }  # fmt: skip

    def lacks(self, told: Mapping[str, Any]) -> list[str]:
        dated = told.get("history") or any(told.get(f"since_{phase}") for phase in PHASES)
        return [field for field in super().lacks(told) if field != "phase" or not dated]

    def combine(self, told: Told, thing: Initiative | None, notes: list[Words]) -> Told:
        self._place(told, thing, notes)
        steps = missing_steps([(step.phase, step.since) for step in thing.steps] if thing else [], told, self.today, notes)
        for name in ("phase", "since", "history", *(f"since_{phase}" for phase in PHASES)):
            told.pop(name, None)
        if "purposes" in told:
            told["purposes"] = list(told["purposes"])
        return told | ({"steps": steps} if steps else {})

    def _place(self, told: Told, thing: Initiative | None, notes: list[Words]) -> None:
        if told.get("place_name") and read_place(told["place_name"]):
            text = N_("These are coordinates. Write them in the field for coordinates, and here a street or a neighbourhood.")
            raise WrongField("place_name", text)
        said = told.pop("point", "")
        if told.keys() & {"latitude", "longitude"}:
            now = {name: cells.plain(self.write(name, getattr(thing, name))) if thing else "" for name in ("latitude", "longitude")}
            north, east = (str(told.pop(name, now[name])).strip() for name in ("latitude", "longitude"))
            if bool(north) != bool(east):
                raise WrongField(
                    "longitude" if north else "latitude", N_("Fill in both the latitude and the longitude, or neither.")
                )
            if not north and not said:
                told |= {"latitude": None, "longitude": None}
            said = f"{north} {east}" if north else said
        if not said:
            return
        read = read_place(said)
        if read is None:
            text = N_("“%(said)s” is no place in the Netherlands. Write degrees, such as 52,3702 and 5,2220.")
            raise WrongField("latitude", text, said=cells.short(said))
        place = {"latitude": read.place.latitude, "longitude": read.place.longitude}
        if thing and place == _picked(self.current(thing), "latitude", "longitude"):
            return
        told |= place
        if read.how != "degrees":
            text = {
                "swapped": N_("Latitude and longitude were exchanged in the file. We understood: %(place)s."),
                "rd": N_("These are coordinates of the national grid (RD). We understood: %(place)s."),
            }[read.how]
            notes.append(Words(text, {"place": write_place(**place)}))

    def attempt(self, thing: Initiative | None, told: Told) -> None:
        steps = list(told.get("steps", ()))
        copy = _copy(thing) if thing else Initiative(code="new")
        if thing is None:
            copy.register(*steps.pop(0), self.today)
        for phase, since in steps:
            copy.reach_phase(phase, since, self.today)

    def carry_out(self, session: Session, thing: Initiative | None, told: Told) -> None:
        told, steps = dict(told), list(told.get("steps", ()))
        told.pop("steps", None)
        if thing is None:
            first, since = steps.pop(0)
            thing = initiatives.register_initiative(session, phase=first, since=since, today=self.today, **told)
        elif told:
            initiatives.change_initiative(session, thing.code, **told)
        for phase, since in steps:
            initiatives.reach_phase(session, thing.code, phase=phase, since=since, today=self.today)


Steps = list[tuple[str, date]]


def missing_steps(known: Steps, told: Told, today: date, notes: list[Words]) -> Steps:
    """The steps of a history that the register does not have yet, from a history, days per phase, or a phase and its day.

    A history can only be added to: what the register says otherwise is refused, and a file that is older than the register adds
    nothing. Raises `WrongField`.
    """
    dated = sorted(((phase, told[f"since_{phase}"]) for phase in PHASES if told.get(f"since_{phase}")), key=lambda step: step[1])
    wanted, where = (told["history"], "history") if told.get("history") else (dated, f"since_{dated[0][0]}" if dated else "")
    if wanted and known and wanted[: len(known)] != known[: len(wanted)]:
        text = N_("The register has another history: %(history)s. It can only be added to.")
        raise WrongField(where, text, history=write_history(known))
    phase, since = told.get("phase"), told.get("since")
    if phase is None and since is None:
        return list(wanted[len(known) :])
    steps = list(known) if len(known) > len(wanted) else list(wanted)
    phase = phase or (steps[-1][0] if steps else None)
    if steps and phase == steps[-1][0]:
        if since and since != steps[-1][1]:
            text = N_("The register says: in this phase since %(day)s. Make the same of it, or leave it empty.")
            raise WrongField("since", text, day="{0.day}-{0.month}-{0.year}".format(steps[-1][1]))
    elif (phase, since) not in steps:
        if since is None:
            since = today
            notes.append(Words(N_("No day is told for this phase, so it counts from today.")))
        steps.append((phase, since))
    return steps[len(known) :]


class Members(Kind):
    """The people; what is told of them stays here."""

    name, model = "members", Member

    def __init__(self, session: Session, today: date) -> None:
        super().__init__(session, today)
        self.writers = {
            "role": lambda code: code if code == "facilitator" else ("deelnemer" if cells.spoken() == "nl" else "member")
        }
        self._whose = {member.email: member.code for member in self.known.values()}
        self._facilitators = {code for code, member in self.known.items() if member.role == "facilitator"}

    def those_here(self) -> Any:
        return select(Member).where(Member.left_on.is_(None)).order_by(Member.name, Member.code)

    def key(self, told: Mapping[str, Any]) -> Hashable:
        return told.get("email") or ""

    def current(self, thing: Member) -> Told:
        return {name: getattr(thing, name) for name in ("name", "email", "phone", "language", "role", "joined_on")}

    def attempt(self, thing: Member | None, told: Told) -> None:
        if told.get("joined_on") and told["joined_on"] > self.today:
            raise InFuture(fields={"joined_on": InFuture().words})
        code = thing.code if thing else "new"
        if "email" in told and self._whose.setdefault(told["email"], code) != code:
            raise EmailKnown(fields={"email": EmailKnown().words})
        if told.get("role") == "facilitator":
            self._facilitators.add(code)
        elif "role" in told and code in self._facilitators:
            if len(self._facilitators) == 1:
                raise LastFacilitator(fields={"role": LastFacilitator().words})
            self._facilitators.discard(code)

    def carry_out(self, session: Session, thing: Member | None, told: Told) -> None:
        if thing is None:
            thing = circle.add_member(session, today=self.today, **_picked(told, "name", "email", "phone", "language", "role"))
        else:
            if told.keys() & {"name", "email", "phone", "language"}:
                details = _picked(self.current(thing), "name", "email", "phone", "language")
                circle.change_details(session, thing.code, **details | _picked(told, *details))
            if "role" in told:
                circle.change_role(session, thing.code, told["role"])
        if "joined_on" in told:
            thing.joined_on = told["joined_on"]


class Lessons(Kind):
    """What was learned."""

    name, model = "lessons", Lesson

    def __init__(self, session: Session, today: date) -> None:
        super().__init__(session, today)
        gardens = Initiatives(session, today)
        evenings = Meetings(session, today)
        self._gardens = _by_name((thing.code, [thing.name]) for thing in gardens.known.values())
        self._evenings = _by_name(
            (thing.code, [evening_name(thing), thing.title, thing.day.isoformat()]) for thing in evenings.known.values()
        )
        self.readers = {"initiative": self._initiative, "meeting": self._meeting}
        self.writers = {
            "kind": lambda code: cells.written(code, "lesson_kind"),
            "theme": lambda code: cells.written(code, "theme"),
            "phase": lambda code: cells.written(code, "phase"),
            "initiative": lambda code: _name_of(code, gardens.known, lambda it: it.name, self._gardens),
            "meeting": lambda code: _name_of(code, evenings.known, evening_name, self._evenings),
        }

    def those_here(self) -> Any:
        return select(Lesson).where(Lesson.withdrawn_on.is_(None)).order_by(Lesson.shared_on, Lesson.code)

    def key(self, told: Mapping[str, Any]) -> Hashable:
        return folded(told.get("title") or "")

    def current(self, thing: Lesson) -> Told:
        names = ("title", "body", "kind", "theme", "phase", "initiative", "meeting", "shared_on")
        return {name: getattr(thing, name) for name in names} | {"byline": thing.byline_name}

    def _initiative(self, cell: Cell) -> str:
        found = self._gardens.get(folded(cells.plain(cell)), [])
        if len(found) != 1:
            raise Wrong(N_("The register has no initiative “%(said)s”, or two."), said=cells.short(cell))
        return found[0]

    def _meeting(self, cell: Cell) -> str:
        said = cells.plain(cell)
        found = self._evenings.get(folded(said), [])
        if not found:
            for words in (said, said.partition(" ")[0], " ".join(said.split()[:3])):
                try:
                    day = cells.read_day(words)
                except Wrong:
                    continue
                title = said.removeprefix(words).strip(" :,-")
                found = self._evenings.get(folded(f"{day.isoformat()} {title}"), [])
                break
        if len(found) != 1:
            raise Wrong(N_("There is no meeting “%(said)s”, or there are two. Write its day and title."), said=cells.short(cell))
        return found[0]

    def combine(self, told: Told, thing: Lesson | None, notes: list[Words]) -> Told:
        if told.pop("byline", None):
            notes.append(
                Words(N_("The name under the lesson is left out: only the author can agree to it, on the lesson's own page."))
            )
        return told

    def attempt(self, thing: Lesson | None, told: Told) -> None:
        if told.get("shared_on") and told["shared_on"] > self.today:
            raise InFuture(fields={"shared_on": InFuture().words})

    def carry_out(self, session: Session, thing: Lesson | None, told: Told) -> None:
        if thing is None:
            told = dict(told)
            lessons.share_lesson(session, None, today=told.pop("shared_on", self.today), **told)
        else:
            lessons.revise_lesson(session, thing.code, today=self.today, byline=thing.byline_name, **told)


def _by_name(things: Iterable[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """Name → the codes it may mean; the code itself is a name too."""
    found: dict[str, list[str]] = {}
    for code, names in things:
        for name in {folded(code), *map(folded, names)}:
            found.setdefault(name, []).append(code)
    return found


def _name_of(code: str | None, known: Mapping[str, Any], name: Callable[[Any], str], by_name: Mapping[str, list[str]]) -> Cell:
    """The name if it means one thing only, else the code."""
    thing = known.get(code or "")
    return name(thing) if thing and by_name.get(folded(name(thing))) == [code] else code


def evening_name(meeting: Meeting) -> str:
    """How a meeting is named in another file: `2012-06-20 Startbijeenkomst`."""
    return f"{meeting.day.isoformat()} {meeting.title}"


class Meetings(Kind):
    """The evenings; who came and the notes stay here."""

    name, model = "meetings", Meeting

    def __init__(self, session: Session, today: date) -> None:
        self._came: dict[str, list[str]] = {}
        for meeting, member in session.execute(select(Attendance.meeting, Attendance.member)):
            self._came.setdefault(meeting, []).append(member)
        people = session.scalars(select(Member).order_by(Member.name, Member.code)).all()
        self._names = {member.code: member.name for member in people}
        self._people = _by_name((member.code, [member.name, member.email or ""]) for member in people if member.left_on is None)
        super().__init__(session, today)
        self.readers = {"members": self._members}
        self.writers = {
            "kind": lambda code: cells.written(code, "meeting_kind"),
            "starts": lambda value: value[0] if isinstance(value, tuple) else value,
            "theme": lambda code: cells.written(code, "theme"),
            "agenda": write_agenda,
            "status": lambda code: {"planned": "gepland", "held": "gehouden"}.get(code) if cells.spoken() == "nl" else code,
            "members": lambda codes: "; ".join(self._person(code) for code in codes or ()),
        }

    def _person(self, code: str) -> str:
        name = self._names.get(code, code)
        return name if self._people.get(folded(name)) == [code] else code

    def those_here(self) -> Any:
        return select(Meeting).where(Meeting.status != "cancelled").order_by(Meeting.day, Meeting.starts, Meeting.code)

    def key(self, told: Mapping[str, Any]) -> Hashable:
        return told.get("day"), folded(told.get("title") or "")

    def current(self, thing: Meeting) -> Told:
        names = ("title", "day", "starts", "ends", "kind", "theme", "place_name", "status", "attended", "notes")
        came = sorted(self._came.get(thing.code, ()), key=lambda code: (self._names.get(code, ""), code))
        return {name: getattr(thing, name) for name in names} | {
            "agenda": list(thing.agenda or ()), "members": came, "report": thing.report if thing.report_published else "",
        }  # fmt: skip

    def _members(self, cell: Cell) -> list[str]:
        codes = []
        for said in cells.plain(cell).replace("\n", ";").replace(",", ";").split(";"):
            found = self._people.get(folded(said), [])
            if len(found) > 1 or (not found and folded(said)):
                raise Wrong(
                    N_("“%(said)s” is nobody in this circle, or two people. Write the e-mail address."), said=cells.short(said)
                )
            codes += found
        return sorted(set(codes), key=lambda code: (self._names.get(code, ""), code))

    def combine(self, told: Told, thing: Meeting | None, notes: list[Words]) -> Told:
        now = self.current(thing) if thing else {}
        if "starts" in told:
            told["starts"], until = told["starts"]
            if until and "ends" not in told:
                told["ends"] = until
        if "agenda" in told:
            told["agenda"] = list(told["agenda"])
        told = {name: value for name, value in told.items() if name == "status" or not thing or value != now[name]}
        held = now.get("status") == "held"
        status = told.pop("status", None)
        if status == "planned" and held:
            raise WrongField("status", N_("This meeting was held already."))
        if held or status == "held" or told.get("attended") is not None or told.get("members"):
            changed = _picked(told, "attended", "members", "notes")
            for name in changed:
                del told[name]
            came = changed.get("members", now.get("members", []))
            attended = changed.get("attended", now.get("attended"))
            if attended is None and not came:
                raise WrongField("attended", N_("Fill in how many people came."))
            if changed or not held:
                told["held"] = {
                    "attended": len(came) if attended is None else attended,
                    "members": came,
                    "notes": changed.get("notes", now.get("notes", "")),
                }
        elif told.get("notes") or told.get("report"):
            raise WrongField("notes" if told.get("notes") else "report", NotHeldYet.text)
        else:
            told.pop("notes", None)
        return told

    def attempt(self, thing: Meeting | None, told: Told) -> None:
        copy = _copy(thing) if thing else Meeting(code="new")
        for name, value in _plan_of(told).items():
            setattr(copy, name, value)
        if thing:
            copy.change()
        else:
            copy.plan()
        if "held" in told:
            copy.hold(told["held"]["attended"], self.today, ticked=len(told["held"]["members"]))

    def carry_out(self, session: Session, thing: Meeting | None, told: Told) -> None:
        if thing is None:
            thing = meetings.plan_meeting(session, **{"place_name": "", "agenda": []} | _plan_of(told))
        elif _plan_of(told):
            meetings.change_meeting(session, thing.code, **_plan_of(told))
        if "held" in told:
            meetings.hold_meeting(session, thing.code, today=self.today, **told["held"])
        if "report" in told:
            meetings.publish_report(session, thing.code, told["report"])


def _plan_of(told: Told) -> Told:
    return {name: value for name, value in told.items() if name not in {"held", "report"}}


KIND_CLASSES: dict[str, type[Kind]] = {kind.name: kind for kind in (Initiatives, Members, Lessons, Meetings)}

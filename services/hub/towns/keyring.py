"""What was decided about the towns' keys, beside the database and in none of its backups (design §4, I12).

A hub that is put back from a backup has forgotten what came after it: that a key was revoked, that a town joined anew, left, or
changed its key. A stolen key would be believed again, and a town would be a stranger. So whose key is whose, where each ended, up
to where a log counts, and in which order a town's epochs came, also stands in a file. Whoever commits such a decision writes it
there right after (`Keyring.note`), and so does the worker, at its start and in every round: a death between commit and file is
mended by the next start, as long as the database is the same.

`recall` brings it back before anybody is served and anything is taken in. It is a union, in which an end never gets later or lost:

- what a key that ended by the association's word had told beyond what is held now is not waited for: no honest node sends it again,
  so that key counts here up to what is held, and no further;
- a key that was followed by another on its own word counts up to its place: the town's node sends again what is missing;
- a code that lies in the old database was perhaps used since, or replaced: it works no longer, for no town (`setback.py`);
- a file that comes back when the hub has run without it brings keys, ends and cuts, and changes nothing that was decided meanwhile.

What the file knows and the database does not proves that the hub was put back, so the file then *owes*: the association's log has
to say it again in a new epoch (`setback.py`).

A node needs no such file. All it takes in comes by the feed, where the association's word stands before whatever was told after it,
and a node that was put back reads on from where its database is. That its own key ended it hears at the door.
"""

import fcntl
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from services.hub.towns.joining import Town, held_place
from shared.db import Database, insert_missing
from shared.eventlog import read_head
from shared.heads import known_head, thaw
from shared.keys import DamagedKey, from_text, to_text
from shared.observability import facts, failpoint
from shared.pins import NEVER, cut_off, end_key, epoch_order, note_epoch, pin, place_of, read_pins, revoke_key, shorten
from shared.projections import Projection, apply

log = logging.getLogger(__name__)

Known = dict[str, dict[str, Any]]
"""Per town: `town` (its row), `keys`, `epochs` and `cuts`."""
EMPTY: dict[str, Any] = {"v": 1, "owes": None, "towns": {}}
"""`owes`: the epoch of the association's log in which it has not said again what was brought back; "" if it had none yet."""


class Keyring:
    """The file. Its path names it in what is said about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._noted: Any = None
        """By what the database and the file could be known when they last said the same."""

    def read(self) -> dict[str, Any]:
        """What it says; nothing when there is none. Raises `DamagedKey`: who goes on without it believes keys that have ended."""
        try:
            said = orjson.loads(self.path.read_bytes())
        except FileNotFoundError:
            return dict(EMPTY)
        except orjson.JSONDecodeError:
            said = None
        if not isinstance(said, dict) or said.keys() != EMPTY.keys() or said["v"] != EMPTY["v"]:
            raise DamagedKey(f"{self.path} says no longer which keys have ended; put back the copy you kept of it")
        return said

    def write(self, said: dict[str, Any]) -> None:
        """Replace what it says; on the disk before this returns."""
        fresh = self.path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(orjson.dumps(said, option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process reads or writes it meanwhile."""
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def note(self, database: Database) -> None:
        """Write what the database knows, if it is something else than before."""
        with database.reading() as session:
            mark = _mark(session)
        if self._noted == (mark, self._stamp()):
            return
        with self.alone():
            said = self.read()
            with database.reading() as session:
                known, owes = _both(said["towns"], _known(session)), said["owes"] if _owes(said, session) else None
            fresh = said | {"owes": owes, "towns": known}
            if fresh != said:
                self.write(fresh)
            self._noted = (mark, self._stamp())
        failpoint("keys.noted")

    def _stamp(self) -> Any:
        """What changes when any process writes the file."""
        try:
            said = self.path.stat()
        except FileNotFoundError:
            return None
        return said.st_ino, said.st_mtime_ns, said.st_size

    def owes(self, session: Session) -> bool:
        """Whether the association has to say again what was brought back. A new epoch pays, also if this file cannot be written."""
        return _owes(self.read(), session)


def _owes(said: dict[str, Any], session: Session) -> bool:
    head = read_head(session)
    return said["owes"] is not None and (head is None or head.epoch == said["owes"] or not (said["owes"] or head.seq))


def _mark(session: Session) -> Any:
    """Something short that changes with what stands in the file: keys, ends, epochs and cuts are only ever added, or ends moved."""
    numbers = (
        select(func.count(), func.count(pin.c.ends_seq), func.sum(pin.c.ends_seq), func.max(pin.c.pinned_at)).select_from(pin),
        select(func.count(), func.max(epoch_order.c.opened_at), func.sum(epoch_order.c.number)).select_from(epoch_order),
        select(func.count(), func.sum(cut_off.c.last)).select_from(cut_off),
        select(func.count(Town.joined_at), func.count(Town.left_at), func.max(Town.left_at)),
    )
    head = read_head(session)
    return (head.epoch, head.seq) if head else None, [tuple(session.execute(query).one()) for query in numbers]


def _known(session: Session) -> Known:
    """What the database knows, as it stands in the file."""
    known: Known = {}
    joined = select(Town.slug, Town.name, Town.made_at, Town.joined_at, Town.key_id, Town.left_at)
    for slug, name, *moments, key_id, left_at in session.execute(joined.where(Town.joined_at.is_not(None)).order_by(Town.slug)):
        made_at, joined_at = map(_text, moments)
        row = {"name": name, "made_at": made_at, "joined_at": joined_at, "key_id": key_id, "left_at": _text(left_at)}
        known[slug] = {"town": row, "keys": {}, "epochs": {}, "cuts": {}}
    for row in session.execute(select(pin).where(pin.c.town.in_(known)).order_by(pin.c.pinned_at, pin.c.key_id)):
        ends = [row.ends_epoch, row.ends_seq] if row.ends_epoch else None
        said = {"public": to_text(bytes(row.public_key)) if row.public_key else "", "pinned_at": _text(row.pinned_at), "ends": ends}
        known[row.town]["keys"][row.key_id] = said
    for row in session.execute(select(epoch_order).where(epoch_order.c.town.in_(known)).order_by(epoch_order.c.number)):
        said = {"number": row.number, "opened_at": _text(row.opened_at), "first": row.settled == 0}
        known[row.town]["epochs"][row.epoch] = said
    for row in session.execute(select(cut_off).where(cut_off.c.town.in_(known)).order_by(cut_off.c.epoch)):
        known[row.town]["cuts"][row.epoch] = row.last
    return known


def _both(before: Known, now: Known) -> Known:
    """Nothing of either is lost; where both speak, the database does, but for an end that it does not know."""
    together = before | now
    for slug in before.keys() & now.keys():
        keys = {}
        for key_id, said in now[slug]["keys"].items():
            earlier = before[slug]["keys"].get(key_id, said)
            keys[key_id] = said | {"ends": said["ends"] or earlier["ends"], "public": said["public"] or earlier["public"]}
        together[slug] = now[slug] | {
            "keys": before[slug]["keys"] | keys,
            "epochs": before[slug]["epochs"] | now[slug]["epochs"],
            "cuts": before[slug]["cuts"] | now[slug]["cuts"],
        }
    return together


def recall(database: Database, keyring: Keyring, projections: Sequence[Projection], now: datetime) -> list[str]:
    """Bring back what a backup does not know; the towns it is about. Call it before the database serves anybody."""
    with keyring.alone():
        said = keyring.read()
        with database.reading() as session:
            held, head = _known(session), read_head(session)
        forgotten = [slug for slug, known in said["towns"].items() if _lacks(held.get(slug), known)]
        if not forgotten:
            return []
        keyring.write(said | {"owes": head.epoch if head else ""})  # first: what is brought back is forgotten no more
        with database.transaction() as session:
            for slug in forgotten:
                _bring_back(session, slug, said["towns"][slug], now)
            while apply(session, projections):  # nobody sees what counts no longer
                pass
        failpoint("keys.recalled")
    log.warning("keys.recalled", extra=facts(towns=forgotten))
    return forgotten


def _lacks(held: dict[str, Any] | None, known: dict[str, Any]) -> bool:
    """Whether the database knows less of a town than the file."""
    if held is None:
        return True
    ended = {key_id for key_id, said in held["keys"].items() if said["ends"]}
    return (
        not known["keys"].keys() <= held["keys"].keys()
        or not {key_id for key_id, said in known["keys"].items() if said["ends"]} <= ended
        or not known["epochs"].keys() <= held["epochs"].keys()
        or any(held["cuts"].get(epoch, last + 1) > last for epoch, last in known["cuts"].items())
        or bool(known["town"]["left_at"] and not held["town"]["left_at"] and held["keys"].keys() <= known["keys"].keys())
    )


def _bring_back(session: Session, slug: str, known: dict[str, Any], now: datetime) -> None:
    held, before = held_place(session, slug), read_pins(session, [slug])
    is_late = bool(set(session.scalars(select(pin.c.key_id).where(pin.c.town == slug))) - known["keys"].keys())
    _make_room(session, slug, known, before.numbers)
    for epoch, said in sorted(known["epochs"].items(), key=lambda item: (item[1]["number"], item[1]["opened_at"])):
        if before.number_of(slug, epoch) is None:
            note_epoch(session, slug, epoch, said["number"], _moment(said["opened_at"]), 0 if said["first"] else None)
    for epoch, last in known["cuts"].items():
        shorten(session, slug, epoch, last)
    for key_id, said in known["keys"].items():
        public = from_text(said["public"], 32) if said["public"] else b""  # it ended before it was heard of
        row = {"town": slug, "key_id": key_id, "public_key": public, "pinned_at": _moment(said["pinned_at"])}
        insert_missing(session, pin, [row])
        if said["ends"]:
            end_key(session, slug, key_id, *said["ends"])
    if not is_late:
        _wait_for_nothing(session, slug, held, now, has_left=known["town"]["left_at"] is not None)
        _bring_back_row(session, slug, known, now, let_in=before.public_of(slug, known["town"]["key_id"]) is None)


def _make_room(session: Session, slug: str, known: dict[str, Any], numbers: dict[tuple[str, str], int]) -> None:
    """Epochs that only the database knows came after all of the file's: the hub ran without the file, which came back late."""
    unknown = [epoch for _, epoch in numbers if epoch not in known["epochs"]]
    if unknown and not known["epochs"].keys() <= {epoch for _, epoch in numbers}:
        by = max(said["number"] for said in known["epochs"].values())
        mine = (epoch_order.c.town == slug) & epoch_order.c.epoch.in_(unknown)
        session.execute(update(epoch_order).where(mine).values(number=epoch_order.c.number + by))


def _wait_for_nothing(session: Session, slug: str, held: tuple[str, int], now: datetime, *, has_left: bool) -> None:
    """Keys that ended by the association's word end where the copy's log does, if that is earlier: no thief may fill the gap.

    Of a town that has left nobody tells again what is missing here, so it goes on counting at the towns that hold it.

    So do the keys before them. A key of today, and those that it followed since, are not touched. The epochs after that place, up
    to the one where the association ended them, count for nothing: another backup may hold them.
    """
    here = place_of(session, slug, *held)
    cuts = session.execute(select(cut_off.c.epoch, cut_off.c.last).where(cut_off.c.town == slug)).all()
    decided = max((place_of(session, slug, *cut) for cut in cuts), default=here)
    ended = session.execute(select(pin).where(pin.c.town == slug, pin.c.ends_epoch.is_not(None)).order_by(pin.c.key_id)).all()
    beyond = [row.key_id for row in ended if here < place_of(session, slug, row.ends_epoch, row.ends_seq) <= decided]
    if not beyond:
        return
    order = sorted((number, epoch) for (_, epoch), number in read_pins(session, [slug]).numbers.items())
    later = [epoch for number, epoch in order if here < (number, 0) <= decided]
    place = (later[0], 0) if held[0] == NEVER and later else held
    if has_left:
        for key_id in beyond:
            end_key(session, slug, key_id, *place)
        return
    for key_id in beyond:
        revoke_key(session, slug, key_id, *place, now)
    for epoch in later:
        shorten(session, slug, epoch, 0)


def _bring_back_row(session: Session, slug: str, known: dict[str, Any], now: datetime, *, let_in: bool) -> None:
    says, town = known["town"], session.get(Town, slug)
    if town is None:
        blank = {"code_hash": secrets.token_hex(32), "code_until": now, "made_at": _moment(says["made_at"]), "anew": False}
        town = Town(slug=slug, name=says["name"], vouched=False, **blank)
        session.add(town)
    left_at = _moment(says["left_at"])
    if let_in:
        town.joined_at, town.key_id, town.left_at = _moment(says["joined_at"]), says["key_id"], left_at
        thaw(session, slug, now)
    else:
        town.left_at = town.left_at or left_at
    if town.left_at is not None:
        session.execute(delete(known_head).where(known_head.c.town == slug))
    # As when its last key came in: with that one a node that asks again has its answer, and every code is used up.
    town.code_until = min(now, town.code_until)
    town.asked_key = known["keys"][town.key_id]["public"] if town.key_id in known["keys"] else None


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None

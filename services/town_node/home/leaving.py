"""Leaving the association: the circle takes everything along, and says what the library keeps (R35, design §4).

`pack_everything` makes one zip of what this node knows: the four kinds as spreadsheets that can be imported again, what was told in
the rounds, the circle's own signed log, and a page that says what is what. Anybody who may lead the circle can make it at any
time, without leaving.

`say_goodbye` tells the association that the circle leaves: first, if the circle wishes so, that everything it ever told about its
lessons, initiatives and meetings is to be erased everywhere; then `circle.described` with status ended, the last that goes out. The
circle keeps its own tables and works on alone. With another code it can come back (`circle/membership.py`).
"""

import io
import zipfile
from collections.abc import Iterator
from datetime import date, datetime

import orjson
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.town_node.circle.actions import the_circle
from services.town_node.circle.membership import Membership, NotMember, membership
from services.town_node.home.sync import THINGS, kind_of
from services.town_node.initiatives.model import Initiative
from services.town_node.meetings.model import ANSWERS, Meeting, RoundEntry
from services.town_node.transfer.actions import export
from services.town_node.transfer.columns import KINDS
from services.town_node.transfer.spreadsheets import Cell, write_csv, write_xlsx
from shared.envelope import stored_entry, to_json
from shared.erasure import erasures_of, redact
from shared.eventlog import append, head, log, read_head, read_log
from shared.language import N_, _
from shared.refusals import Refusal

ABOUT = N_(
    "This is everything that the circle's node knows, packed on %(day)s.\n\n"
    "initiatives, members, lessons, meetings (.xlsx and .csv): the lists of the circle. They can be imported again into any node, "
    "on the page “Import and export”. They hold names, e-mail addresses and telephone numbers: keep them to yourselves.\n\n"
    "rounds.csv: what the initiatives told in the rounds of the meetings.\n\n"
    "log.jsonl: everything the circle ever told the association, one signed event in a line, in JSON. Programs can check "
    "that nothing was changed: see the description of the protocol in the source.\n\n"
    "Not in here: the key with which the town signs. It stays with who runs the node."
)


class LeftAlready(Refusal):
    """A goodbye is said once."""

    text = N_("This circle has left the association already.")


def pack_everything(session: Session, today: date) -> bytes:
    """One zip, in the reader's language."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("README.txt", _(ABOUT, day=today.isoformat()).replace("\n", "\r\n"))
        for kind in KINDS:
            rows = export(session, kind, today)
            packed.writestr(f"{kind}.csv", write_csv(rows))
            packed.writestr(f"{kind}.xlsx", write_xlsx(rows, kind))
        packed.writestr("rounds.csv", write_csv(_rounds(session)))
        with packed.open("log.jsonl", "w") as lines:
            for line in _log_lines(session):
                lines.write(line + b"\n")
    return out.getvalue()


def _rounds(session: Session) -> list[list[Cell]]:
    rows: list[list[Cell]] = [["day", "meeting", "initiative", *ANSWERS]]
    query = (
        select(Meeting.day, Meeting.title, Initiative.name, RoundEntry)
        .join(Meeting, Meeting.code == RoundEntry.meeting)
        .outerjoin(Initiative, Initiative.code == RoundEntry.initiative)
        .order_by(Meeting.day, Meeting.code, Initiative.name)
    )
    for day, title, name, entry in session.execute(query):
        rows.append([day, title, name, *(getattr(entry, answer) for answer in ANSWERS)])
    return rows


def _log_lines(session: Session) -> Iterator[bytes]:
    for epoch in session.scalars(select(head.c.epoch).order_by(head.c.number)).all():
        after = 0
        while entries := read_log(session, epoch, after, 500):
            yield from (orjson.dumps(to_json(entry)) for entry in entries)
            after = entries[-1].says.seq


def say_goodbye(session: Session, now: datetime, *, erase: bool) -> Membership:
    """Tell the association that the circle leaves, and whether what it told is to be erased. Raises `NotMember`, `LeftAlready`."""
    joined = membership(session)
    if joined is None:
        raise NotMember
    if joined.left_at is not None:
        raise LeftAlready
    for subject in _told_about(session, joined.town) if erase else ():
        redact(session, joined.town, subject)
    append(session, the_circle(session).describe(status="ended"))
    last = read_head(session)
    joined.left_at, joined.left_seq = now, last.seq if last else 0
    return joined


def _told_about(session: Session, town: str) -> list[str]:
    """The subjects of everything that was told and not erased yet, but for the circle itself."""
    gone = set(erasures_of(session, [town]))
    things = {
        entry.says.subject
        for row in session.execute(select(log.c.header, log.c.hash, log.c.signature))
        if kind_of((entry := stored_entry(*row, None, None)).says.type) in set(THINGS) - {"circle"}
    }
    return sorted(things - gone)

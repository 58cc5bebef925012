"""R34: personal data never leaves the town. A circle does everything it can do, and what leaves is searched for its people."""

import ast
import re
from datetime import date, time
from pathlib import Path

import pytest
from sqlalchemy import select

from services.town_node.circle import actions as circle
from services.town_node.circle.model import Member
from services.town_node.initiatives import actions as initiatives
from services.town_node.lessons import actions as lessons
from services.town_node.meetings import actions as meetings
from shared import feed, heads
from shared.envelope import pack
from shared.eventlog import payload, read_head, read_log
from shared.relay import relay_step

TODAY = date(2015, 6, 1)
NODE = Path(circle.__file__).parents[1]
PEOPLE = [
    ("Xaverine Quispeltuur", "xaverine@quispeltuur.example", "06-9182 7364"),
    ("Hildebrand van der Knolraap", "hildebrand.knolraap@prive.example", "+31 36 7654321"),
    ("Ÿsbrand Ćwikła", "cwikla@thuis.example", "0321 – 918 273"),
]


def those_who_tell() -> set[str]:
    """The actions that put something into the log."""
    return {
        f"{path.parent.name}.{function.name}"
        for path in NODE.glob("*/actions.py")
        for function in ast.parse(path.read_text()).body
        if isinstance(function, ast.FunctionDef)
        and any(isinstance(node, ast.Call) and ast.unparse(node.func) == "append" for node in ast.walk(function))
    }


class Story:
    """Does what a circle does, each in its own transaction, and remembers what was done."""

    def __init__(self, database):
        self.database, self.done = database, set()

    def do(self, room, action, *told, **more):
        with self.database.transaction() as session:
            made = getattr(room, action)(session, *told, **more)
        self.done.add(f"{room.__name__.split('.')[-2]}.{action}")
        return getattr(made, "code", None)


@pytest.fixture
def story(node):
    return Story(node.extensions["site"].database)


def everything(story: Story) -> None:
    """What a node can do, with people in every place where the town itself may name them."""
    do = story.do
    do(circle, "the_circle")
    people = [do(circle, "add_member", name=name, email=mail, phone=phone, today=TODAY) for name, mail, phone in PEOPLE]
    do(circle, "change_role", people[0], "facilitator")
    name, mail, phone = PEOPLE[1]
    do(circle, "change_details", people[1], name=name, email=f"nieuw.{mail}", phone=phone, language="nl")
    do(circle, "describe_circle", about_text="Wij tuinieren samen.", themes=["water"], founded=TODAY)
    named = " en ".join(f"{name} ({mail}, {phone})" for name, mail, phone in PEOPLE)

    garden = do(
        initiatives, "register_initiative", name="De Regenton", kind="community_garden", phase="idea", since=TODAY, today=TODAY
    )
    do(initiatives, "change_initiative", garden, about_text="Twintig bakken.")
    do(initiatives, "reach_phase", garden, phase="plan", since=TODAY, today=TODAY)

    plan = {
        "kind": "circle",
        "day": TODAY,
        "starts": time(19, 30),
        "ends": time(22),
        "agenda": [{"title": "Bijpraten", "minutes": 45}],
    }
    evening = do(meetings, "plan_meeting", title="Water", **plan)
    do(meetings, "change_meeting", evening, place_name="De Regenton")
    do(meetings, "hold_meeting", evening, attended=9, members=people, notes=f"Er waren {named}.", today=TODAY)
    do(meetings, "tell_in_round", evening, garden, happened=f"{named} hebben gezaaid.", learned="Vraag vroeg om water.")
    do(meetings, "publish_report", evening, "Het ging over water.")
    do(meetings, "cancel_meeting", do(meetings, "plan_meeting", title="Toch niet", **plan))

    told = {"title": "Vraag vroeg om water", "body": "Voordat u zaait.", "kind": "tip", "theme": "water"}
    lesson = do(lessons, "share_lesson", people[0], today=TODAY, **told)
    do(lessons, "revise_lesson", lesson, today=TODAY, body="Ruim voordat u zaait.")
    do(lessons, "withdraw_lesson", lesson, TODAY)
    do(initiatives, "withdraw_initiative", garden, TODAY)
    do(circle, "remove_member", people[2], TODAY)


def what_leaves(database) -> bytes:
    """Every byte of the log, of the messages for the bus, and of the calls to the hub."""
    sent: list[bytes] = []
    while relay_step(database, sent.append):
        pass
    with database.reading() as session:
        epoch = read_head(session).epoch
        entries = read_log(session, epoch, 0, 10_000)
        assert len(entries) == read_head(session).seq > 15
        bodies = list(session.scalars(select(payload.c.body)))
        call, _, _ = heads.ask(session, database.info["author"], "a" * 16, feed.pull_cursor(session))
    return b"\n".join([*(entry.header for entry in entries), *bodies, *sent, pack(entries)[0], call])


def test_the_story_leaves_no_action_out(story):
    everything(story)
    assert those_who_tell() <= story.done, "let the circle do this too, in everything()"


def test_no_byte_of_what_leaves_tells_of_the_circles_people(story):
    everything(story)
    left = what_leaves(story.database).decode()
    with story.database.reading() as session:
        codes = list(session.scalars(select(Member.code)))
    words = {word for name, _, _ in PEOPLE for word in name.split() if len(word) > 3}
    mails = {part for _, mail, _ in PEOPLE for part in (mail, *mail.split("@"))}
    escaped = {word.encode("ascii", "backslashreplace").decode() for word in words}
    for personal in (*words, *escaped, *mails, *codes):
        assert personal.casefold() not in left.casefold(), personal
    texts = re.sub(r'"(salt|signature|prevhash|payloadhash|hash)":"[^"]*"', "", left)  # random bytes may hold any run of digits
    for _, _, phone in PEOPLE:
        digits = re.sub(r"\D", "", phone)[-7:]
        assert digits not in re.sub(r"[ ()–-]", "", texts), phone


def test_the_search_would_find_them(story):
    """The same search, when somebody's name is in a text on purpose: a test that cannot fail proves nothing."""
    everything(story)
    story.do(circle, "describe_circle", about_text=f"Bel {PEOPLE[0][0]}.")
    assert "quispeltuur" in what_leaves(story.database).decode().casefold()


def test_an_author_is_named_only_by_the_byline_that_was_agreed_to(story):
    name, mail, _ = PEOPLE[0]
    author = story.do(circle, "add_member", name=name, email=mail, today=TODAY)
    told = {"title": "Vraag vroeg om water", "body": "Voordat u zaait.", "kind": "tip", "theme": "water"}
    story.do(lessons, "share_lesson", author, today=TODAY, byline="X. uit Almere", **told)
    with story.database.reading() as session:
        (*_, last) = session.scalars(select(payload.c.body).order_by(payload.c.seq))
    assert b'"byline":{"name":"X. uit Almere","agreed":"2015-06-01"}' in last
    assert author.encode() not in last
    assert b"Quispeltuur" not in last

"""What volunteers see of the association: the sync page in each state, the foot, the alarm, what was erased, and leaving."""

import io
import json
import re
import zipfile
from datetime import timedelta

import pytest
from sqlalchemy import delete, select, update

from services.town_node.circle.membership import Membership, erasures, present_key, spelled
from services.town_node.circle.model import Member
from services.town_node.config import Settings
from services.town_node.home.alarm import outage, watch
from services.town_node.home.erasures import erase_again
from services.town_node.home.leaving import LeftAlready, say_goodbye
from services.town_node.lessons.actions import ErasedElsewhere, revise_lesson, share_lesson
from services.town_node.meetings.model import RoundEntry
from shared.db import upsert
from shared.erasure import EVERYWHERE, note_erasures, redact
from shared.eventlog import head, log, payload, read_head, read_log
from shared.events import CircleDescribed, LessonShared, Redacted
from shared.heads import AT_DOOR, KEY_ENDED, note_door, received_head
from shared.inbox import speaks_of_erased
from shared.mail import mail
from shared.pins import pin_key
from shared.quarantine import ADVICE, quarantine_message
from shared.restore import comeback, conflict, note_setback, setback
from tests.town_node.conftest import NOW, TODAY

QUIET = timedelta(minutes=10)
SECRET = "Xylofoonkwekerij"
STORY = {"title": f"De {SECRET}", "body": f"{SECRET} en nog eens {SECRET}.", "kind": "tip", "theme": "water"}


@pytest.fixture
def database(node):
    return node.extensions["site"].database


@pytest.fixture
def answered(database):
    """The association answers: it holds so much of the log, and says this."""

    def say(cursor=None, at=NOW, **more):
        with database.transaction() as session:
            last = read_head(session)
            row = {
                "id": 1, "epoch": last.epoch, "cursor": last.seq if cursor is None else cursor, "everywhere": 0, "trouble": "",
                "complaints": [], "answered_at": at, "challenge": "c",
            }  # fmt: skip
            upsert(session, received_head, [row | more])

    return say


@pytest.fixture
def share(database, people):
    def tell(**told):
        with database.transaction() as session:
            return share_lesson(session, people["member"], today=TODAY, **STORY | told).code

    return tell


def foot(page):
    return page.partition('<footer class="site-foot">')[2]


# ---- The sync page ---------------------------------------------------------------------------------------------------------


def test_all_is_well_when_the_association_has_everything(stranger, answered):
    answered()
    page = stranger.get("/sync")
    assert "All is well" in page
    assert "has received everything until" in foot(page)
    assert 'href="/sync"' in foot(stranger.get("/lessons")), "every page leads there"


def test_what_waits_is_said_in_words_with_how_much_and_since_when(member, answered, share):
    answered()
    share()
    share(title="Nog een")
    page = member.get("/sync")
    for words in ("Something is on its way", "lessons (2)", "Waiting since", "20 June 2012, 20:00", "3 of 5"):
        assert words in page
    assert "2 changes on their way to the association." in foot(page)


def test_an_erasure_on_its_way_is_called_what_it_is(facilitator, answered, share):
    code = share()
    answered()
    facilitator.send(f"/erasures/lesson/{code}")
    page = facilitator.get("/sync")
    assert "erasing something (1)" in page
    assert "1 change on its way to the association." in foot(page)


def test_a_hub_that_is_away_is_named_with_the_moment(member, answered, share):
    answered(at=NOW - timedelta(hours=3))
    share()
    page = member.get("/sync")
    assert "has not answered since 20 June 2012, 17:00" in page
    assert "not running" in page, "nobody holds the worker's lock"
    assert "not running" in foot(page)


def test_an_association_that_never_answered_is_called_so(member):
    assert "has not answered yet" in member.get("/sync")


def test_a_town_that_is_not_let_in_yet_says_what_to_read_out_and_whom_to_call(keyed, facilitator, member, database, answered):
    with database.transaction() as session:
        note_door(session, NOW, AT_DOOR)
        short = spelled(present_key(session, keyed)[0])
    page = member.get("/sync")
    for words in ("Koepel has the code", "Call them, and read out", short):
        assert words in page
    assert "has to let this circle in" in foot(page)
    assert "/membership/join" in facilitator.get("/sync"), "whoever was sent away may come with another code"
    facilitator.get("/membership/join")
    answered(trouble=AT_DOOR, at=NOW - timedelta(hours=3))
    assert "has not answered since" in member.get("/sync"), "what was heard hours ago says little"
    answered()
    assert "All is well" in member.get("/sync")
    facilitator.get("/membership/join", 302)


def test_a_town_whose_key_was_revoked_says_so_and_may_come_with_another_code(facilitator, member, answered):
    answered(trouble=KEY_ENDED, at=NOW - timedelta(days=3))
    page = member.get("/sync")
    assert "does not accept the key of this site any more" in page
    assert "does not accept the key of this site any more" in foot(page)
    assert "internet" not in page, "nobody should look for a fault in the line"
    assert "/membership/join" in facilitator.get("/sync")
    facilitator.get("/membership/join")
    page = facilitator.get("/membership")
    assert "does not count this key" in page
    assert "Sign with a new key" not in page


def test_a_circle_that_works_alone_is_told_so_and_may_join(database, facilitator, member):
    with database.transaction() as session:
        session.execute(delete(Membership))
    assert "works alone" in facilitator.get("/sync")
    assert "/membership/join" in facilitator.get("/sync")
    assert "/membership/join" not in member.get("/sync")
    assert "not part of the association yet" in foot(member.get("/sync"))


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("forked", "two different stories"),
        ("two_copies", "runs twice"),
        ("second_epoch", "within a day"),
        ("novel", "does not fit"),
    ],
)
def test_a_frozen_town_says_what_happened_and_whom_to_call(member, answered, trouble, words):
    answered(trouble=trouble)
    page = member.get("/sync")
    assert words in page
    assert "call the association (Koepel)" in page
    assert "has stopped this town" in foot(page)


@pytest.mark.parametrize(
    ("why", "words"), [("sidecar", "A note beside the database"), ("hub", "had signed"), ("lost", "joined anew")]
)
def test_a_log_that_was_put_back_says_what_comes_back_and_what_does_not(database, member, answered, why, words):
    answered()
    with database.transaction() as session:
        note_setback(session, why, NOW)
    page = member.get("/sync")
    for said in (words, "comes back by itself", "cannot come back: people, notes"):
        assert said in page
    assert "was put back from" in foot(page)


def test_a_new_epoch_is_not_called_received_before_the_association_says_so(member, answered):
    answered(cursor=99, epoch="an-older-one")
    assert "Something is on its way" in member.get("/sync")


def test_what_came_back_is_counted(database, member, answered):
    answered()
    with database.transaction() as session:
        session.execute(comeback.insert(), {"why": "hub", "came_at": NOW, "entries": 12, "conflicts": 1, "new_epoch": "e2"})
    page = member.get("/sync")
    for words in ("12 changes came back", "1 thing had been changed on both sides", "told again"):
        assert words in page


@pytest.mark.parametrize(("days", "told"), [(0, True), (6, True), (8, False)])
def test_the_facilitator_reads_for_a_week_that_the_site_came_back(database, facilitator, member, days, told):
    words = "This site came back with what the association had."
    assert words not in facilitator.get("/")
    with database.transaction() as session:
        at = NOW - timedelta(days=days)
        session.execute(comeback.insert(), {"why": "lost", "came_at": at, "entries": 9, "conflicts": 0, "new_epoch": "e2"})
    assert (words in facilitator.get("/")) is told
    assert words not in member.get("/")


def test_two_versions_stand_side_by_side_until_somebody_has_seen_them(database, stranger, member, facilitator, share):
    code = share()
    with database.transaction() as session:
        (entry,) = [one for one in read_log(session, read_head(session).epoch, 0, 100) if one.says.subject == code]
        other = json.dumps(json.loads(entry.body) | {"title": "Zoals het daar stond", "theme": "soil"})
        session.execute(conflict.insert(), {"subject": code, "type": LessonShared.wire, "other": other, "noticed_at": NOW})
    page = member.get("/sync")
    for words in ("Zoals het daar stond", STORY["title"], "Soil", "Water"):
        assert words in page
    assert STORY["body"] not in page, "only what differs"
    assert "Zoals het daar stond" not in stranger.get("/sync")
    assert "I have seen it" not in page
    page = facilitator.get("/sync")
    assert f"/lessons/{code}/edit" in page
    facilitator.send(f"/sync/{code}/settle", page="/sync")
    assert "Zoals het daar stond" not in member.get("/sync")


def test_a_thing_that_was_taken_back_there_is_called_so(database, facilitator, share):
    code = share()
    row = {"subject": code, "type": "nl.tuinkoepel.lesson.withdrawn.v1", "other": json.dumps({"lesson": code}), "noticed_at": NOW}
    with database.transaction() as session:
        session.execute(conflict.insert(), row)
    assert "had been taken back" in facilitator.get("/sync")


def test_what_was_refused_on_either_side_is_said_with_its_meaning(database, member, stranger, answered):
    told = [
        {"verdict": "bad_signature", "times": 3, "last_at": int(NOW.timestamp())},
        {"verdict": "new_one", "times": 1, "last_at": 5},
    ]
    answered(complaints=[*told, "rubbish", {"verdict": 1, "times": "x", "last_at": 10**30}])
    with database.transaction() as session:
        quarantine_message(session, "dronten", "unknown_key", "feed entry 1", b"bytes", NOW, speaks_of_erased)
    page = member.get("/sync")
    for words in (
        ADVICE["bad_signature"],
        "3 times",
        "reason that this release does not know",
        ADVICE["unknown_key"].replace("'", "&#39;"),
        "dronten",
    ):
        assert words in page
    assert "dronten" not in stranger.get("/sync")


# ---- The alarm -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(database):
    """The worker looks every hour for so many hours; the subjects of the mails it queued, in their order."""

    class Clock:
        now = NOW

        def pass_(self, hours):
            for _ in range(hours):
                self.now += timedelta(hours=1)
                with database.transaction() as session:
                    session.execute(update(Member).values(language="en"))
                    watch(session, self.now, QUIET, "https://almere.example")
            with database.reading() as session:
                return [(row.recipient, row.subject) for row in session.execute(select(mail).order_by(mail.c.id))]

    return Clock()


AWAY, BACK = (
    ("roos@example.org", "Nothing reaches the association"),
    ("roos@example.org", "The association receives everything again"),
)


def test_a_hub_that_is_away_for_a_day_rings_once_and_once_when_it_is_back(database, answered, people, clock):
    answered(at=NOW)
    assert clock.pass_(23) == []
    assert clock.pass_(1) == [AWAY]
    assert clock.pass_(100) == [AWAY], "once per outage, and to the facilitators only"
    with database.reading() as session:
        text = session.scalar(select(mail.c.text))
    assert "20 June 2012, 20:00" in text
    assert "https://almere.example/sync" in text
    answered(at=clock.now + timedelta(hours=1))
    assert clock.pass_(1) == [AWAY, BACK]
    answered(at=clock.now + timedelta(hours=100))
    assert clock.pass_(90) == [AWAY, BACK]
    assert clock.pass_(40) == [AWAY, BACK, AWAY], "the next outage"


def test_what_waits_for_a_day_rings_although_the_association_answers(answered, people, share, clock):
    def hourly(hours, cursor):
        for _ in range(hours):
            answered(cursor, at=clock.now + timedelta(hours=1))
            mails = clock.pass_(1)
        return mails

    share()
    assert hourly(24, 3) == []
    assert hourly(2, 3) == [AWAY]
    assert hourly(3, 4) == [AWAY, BACK]


def test_a_slow_queue_that_moves_is_no_outage(answered, people, share, clock):
    for number in range(20):
        share(title=f"Les {number}")
    for cursor in range(4, 15):
        answered(cursor, at=clock.now + timedelta(hours=12))
        assert clock.pass_(12) == []


def test_a_town_that_stands_still_rings_too(database, answered, people, clock):
    with database.transaction() as session:
        note_setback(session, "hub", NOW)
    answered(at=NOW + timedelta(days=9))
    assert clock.pass_(26) == [AWAY]
    with database.transaction() as session:
        session.execute(delete(setback))
    assert clock.pass_(1) == [AWAY, BACK]


def test_who_is_alone_or_has_left_is_not_alarmed(database, people, clock):
    with database.transaction() as session:
        session.execute(update(Membership).values(left_at=NOW))
    assert clock.pass_(50) == []
    with database.transaction() as session:
        session.execute(delete(Membership))
    assert clock.pass_(50) == []
    with database.reading() as session:
        assert session.execute(select(outage)).first() is None


# ---- Erasing for good ------------------------------------------------------------------------------------------------------


def files_of(database, tmp_path):
    return b"".join(path.read_bytes() for path in sorted(tmp_path.glob("node.db*")))


def test_what_was_erased_is_in_no_table_file_or_wal(node, database, member, people, share, tmp_path, told):
    code = share()
    with database.transaction() as session:
        for number in range(30):
            share_lesson(session, people["member"], today=TODAY, **STORY | {"title": f"Andere {number}", "body": "Iets anders."})
        revise_lesson(session, code, today=TODAY, **STORY | {"title": f"Anders: {SECRET}"})
        session.execute(conflict.insert(), {"subject": code, "type": LessonShared.wire, "other": SECRET, "noticed_at": NOW})
    assert SECRET.encode() in files_of(database, tmp_path)
    assert SECRET.lower()[:12].encode() in files_of(database, tmp_path), "its stem, in the index"
    page = member.get(f"/lessons/{code}")
    assert f"/erasures/lesson/{code}" in page
    assert "cannot be undone" in member.get(f"/erasures/lesson/{code}")
    member.send(f"/erasures/lesson/{code}")
    kept = erasures(Settings(state=tmp_path))
    assert note_erasures(database, kept) == 1
    left = files_of(database, tmp_path)
    assert SECRET.encode() not in left
    assert SECRET.lower()[:12].encode() not in left
    assert kept.read() == {("almere", code)}
    assert told()[-1] == Redacted(redacts=code)
    with database.reading() as session:
        entries = read_log(session, read_head(session).epoch, 0, 1000)
    assert [entry.says.seq for entry in entries] == list(range(1, len(entries) + 1)), "the chain is whole"
    member.get(f"/lessons/{code}", 404)
    member.get(f"/lessons/{code}/edit", 404)
    member.get(f"/erasures/lesson/{code}", 404)


def test_a_backup_that_is_put_back_forgets_again(database, member, share, tmp_path):
    code = share()
    kept = erasures(Settings(state=tmp_path))
    kept.add([("almere", code)])
    erase_again(database, kept, NOW)
    member.get(f"/lessons/{code}", 404)
    assert SECRET.encode() not in files_of(database, tmp_path)


def test_the_list_says_who_has_confirmed(database, member, answered, share):
    code = share()
    answered()
    member.send(f"/erasures/lesson/{code}")
    assert "has not confirmed it yet" in member.get("/erasures")
    with database.transaction() as session:
        session.execute(update(Membership).values(left_at=NOW))
    assert "so ask them to erase it there" in member.get("/erasures"), "who has left is not heard any more"
    with database.transaction() as session:
        session.execute(update(Membership).values(left_at=None))
    answered()
    page = member.get("/erasures")
    assert "Not all other towns have yet" in page
    assert "Lesson" in page
    with database.reading() as session:
        last = read_head(session).seq
    answered(everywhere=last)
    assert "all other towns have confirmed it" in member.get("/erasures")


@pytest.mark.parametrize("whose", ["almere", EVERYWHERE])
def test_a_lesson_that_was_erased_elsewhere_says_so_and_is_told_again_as_a_new_one(database, member, share, told, whose):
    code = share()
    with database.transaction() as session:  # at a goodbye, or by the association while the circle was away
        redact(session, whose, code)
    page = member.get(f"/lessons/{code}")
    assert "Only this circle still has this lesson." in page
    assert f"/lessons/{code}/edit" not in page
    assert "no change of it reaches them" in member.get(f"/lessons/{code}/edit", 409)
    with database.transaction() as session, pytest.raises(ErasedElsewhere):
        revise_lesson(session, code, today=TODAY, **STORY)
    again = f"/lessons/new?lesson={code}"
    assert again in page
    assert STORY["body"] in member.get(again)
    fresh = member.send(again, **STORY, phase="", initiative="", meeting="").rpartition("/")[2]
    assert fresh != code
    assert (told()[-1].lesson, told()[-1].title) == (fresh, STORY["title"])
    assert "Only this circle" not in member.get(f"/lessons/{fresh}")


def test_only_the_author_or_the_facilitator_erases(facilitator, member, stranger, database):
    with database.transaction() as session:
        code = share_lesson(session, "somebody", today=TODAY, **STORY).code
    assert "/erasures/lesson" not in member.get(f"/lessons/{code}")
    member.get(f"/erasures/lesson/{code}", 403)
    stranger.get(f"/erasures/lesson/{code}", 302)
    facilitator.send(f"/erasures/lesson/{code}")
    for path in ("/erasures/lesson/nothing", "/erasures/lesson/%00", "/erasures/member/x"):
        facilitator.get(path, 404)


def test_what_was_taken_back_can_still_be_erased_and_an_initiative_goes_with_what_it_told(database, facilitator, member, share):
    from tests.town_node.test_pages import EVENING, GARDEN

    code = share()
    member.send(f"/lessons/{code}/withdraw", page=f"/lessons/{code}")
    page = facilitator.get("/erasures")
    assert f"/erasures/lesson/{code}" in page
    garden = facilitator.send("/initiatives/new", **GARDEN).rpartition("/")[2]
    evening = facilitator.send("/meetings/new", **EVENING)
    facilitator.send(f"{evening}/round/{garden}", happened=SECRET)
    for path in (f"/erasures/lesson/{code}", f"/erasures/initiative/{garden}"):
        assert path in (page + facilitator.get(f"/initiatives/{garden}") if "initiative" in path else page)
        facilitator.send(path)
    assert f"/erasures/meeting/{evening.rpartition('/')[2]}" in facilitator.get(evening)
    with database.reading() as session:
        assert session.scalars(select(RoundEntry.happened)).all() == []
    facilitator.send(f"/erasures/meeting/{evening.rpartition('/')[2]}")
    facilitator.get(evening, 404)
    assert "Taken back, but still kept" not in facilitator.get("/erasures")


def test_a_circle_alone_erases_too(database, member, people, share, tmp_path):
    with database.transaction() as session:
        for table in (Membership.__table__, log, payload, head):
            session.execute(delete(table))
    database.info.pop("author")
    with database.transaction() as session:
        code = share_lesson(session, people["member"], today=TODAY, **STORY).code
    member.send(f"/erasures/lesson/{code}")
    kept = erasures(Settings(state=tmp_path))
    assert note_erasures(database, kept) == 1
    assert SECRET.encode() not in files_of(database, tmp_path)
    assert "It had never left this town" in member.get("/erasures")
    assert kept.read() == {("-", code)}


# ---- Key and leaving -------------------------------------------------------------------------------------------------------


@pytest.fixture
def keyed(node, database, tmp_path):
    """The node's own key is pinned, as after a real joining."""
    settings = Settings(state=tmp_path)
    with database.transaction() as session:
        pin_key(session, "almere", database.info["author"].key.public, NOW)
    return settings


def test_a_new_key_is_made_from_the_page(database, keyed, facilitator, member, told):
    with database.reading() as session:
        before, _ = present_key(session, keyed)
    page = facilitator.get("/membership")
    assert " ".join(re.findall("....", before)) in page
    member.get("/membership", 403)
    facilitator.send("/membership/key", page="/membership")
    with database.reading() as session:
        after, since = present_key(session, keyed)
    assert since is not None
    assert after != before
    assert " ".join(re.findall("....", after)) in facilitator.get("/membership")
    facilitator.send("/lessons/new", **STORY, phase="", initiative="", meeting="")
    assert told()[-1].title == STORY["title"], "the web process writes with the new key"


def test_the_recovery_sheet_says_where_everything_is(keyed, facilitator, tmp_path):
    page = facilitator.get("/membership/sheet")
    for words in (str(tmp_path / "town.key"), str(tmp_path / "erasures"), "http://hub", "almere", "join anew"):
        assert words in page


def test_everything_can_be_taken_along(facilitator, member, share):
    share()
    answer = facilitator.client.get("/membership/everything.zip")
    with zipfile.ZipFile(io.BytesIO(answer.data)) as packed:
        names = set(packed.namelist())
        assert names == {"README.txt", "rounds.csv", "log.jsonl"} | {
            f"{kind}.{form}" for kind in ("initiatives", "members", "lessons", "meetings") for form in ("csv", "xlsx")
        }
        lines = packed.read("log.jsonl").splitlines()
        assert "Bas van der Biet" in packed.read("members.csv").decode()
    assert len(lines) == 4
    assert SECRET in lines[-1].decode()
    assert answer.headers["Cache-Control"] == "no-store"
    member.get("/membership/everything.zip", 403)


@pytest.mark.parametrize("library", ["keep", "erase"])
def test_a_circle_that_leaves_says_what_the_library_keeps(database, facilitator, member, share, answered, told, library):
    code = share()
    assert "Fill this in" in facilitator.send("/membership/leave", 422)
    facilitator.send("/membership/leave", library=library)
    said = told()
    assert isinstance(said[-1], CircleDescribed)
    assert said[-1].status == "ended"
    assert ([one for one in said if isinstance(one, Redacted)] == [Redacted(redacts=code)]) == (library == "erase")
    assert STORY["title"] in member.get(f"/lessons/{code}"), "the circle keeps what is its own"
    assert "has not heard it yet" in facilitator.get("/membership/leave")
    answered(0, trouble=KEY_ENDED)
    for page in ("/membership/leave", "/sync"):
        assert "has written it down as well" in facilitator.get(page), "nothing more goes out, so it will not hear it"
    answered()
    assert "has heard it" in facilitator.get("/membership/leave")
    assert "has left the association" in foot(member.get("/"))
    assert 'href="/membership/join"' in facilitator.get("/membership/leave")
    assert "takes part again under a new key" in facilitator.get("/membership/join")
    with database.transaction() as session, pytest.raises(LeftAlready):
        say_goodbye(session, NOW, erase=False)

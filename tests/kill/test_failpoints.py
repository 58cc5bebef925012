"""kill -9 at every hop of an event's way: before and after each commit, each call, each message.

A case is a process and a named place in its code. The process dies there by SIGKILL, with a backlog in its hands; others go on
writing; it is started again, and everything that was acknowledged must have arrived exactly once. Every case meets each database
and each bus, and each database meets each bus (pairwise: half of the full product).
"""

import re
import secrets
import signal
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
import urllib3
from sqlalchemy import func, select, update

from services.hub.memory import keyring
from services.hub.towns.joining import Town as KnownToHub
from services.hub.towns.joining import readmit_town
from services.hub.towns.parting import leave
from services.town_node.circle import membership
from services.town_node.circle.actions import add_member
from services.town_node.home.leaving import say_goodbye
from shared.erasure import ErasureList, redact
from shared.eventlog import NotAuthor, append, read_head
from shared.events import LessonShared, LessonWithdrawn, Redacted
from shared.inbox import inbox, inbox_cursor
from shared.keys import KeyPair, to_text
from shared.mail import mail
from shared.pins import read_pins
from shared.projections import projection_table
from shared.relay import position
from tests.kill.conftest import PARTS
from tests.kill.verdict import check
from tests.processes import MEMBER, PATIENCE, utc_now, whole_log
from tests.services import wait_until

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """Where a process dies: `service kind` and the failpoint."""

    process: str
    failpoint: str
    story: str = "backlog"

    def __str__(self) -> str:
        told = "" if self.story == "backlog" else f"-{self.story}"
        return f"{self.process}-{self.failpoint}{told}".replace(" ", "-")


CASES = [
    Case("almere worker", "relay.packed"),
    Case("almere worker", "relay.published"),
    Case("almere worker", "relay.moved"),
    Case("hub worker", "hub.taken"),
    Case("hub worker", "hub.accepted"),
    Case("hub worker", "hub.stored"),
    Case("hub worker", "hub.acked"),
    Case("hub worker", "hub.applied"),
    Case("hub worker", "hub.folded"),
    Case("hub worker", "hub.forwarded"),
    Case("hub worker", "hub.offered"),
    Case("hub web", "hub.answered"),
    Case("dronten worker", "node.heard"),
    Case("dronten worker", "node.pulled"),
    Case("dronten worker", "node.accepted"),
    Case("dronten worker", "node.applied"),
    Case("hub worker", "relay.packed", "association"),
    Case("hub worker", "relay.published", "association"),
    Case("hub worker", "relay.moved", "association"),
    Case("hub worker", "rebuild.emptied", "rebuild"),
    Case("hub worker", "rebuild.folded", "rebuild"),
    Case("dronten worker", "rebuild.emptied", "rebuild"),
    Case("dronten worker", "rebuild.folded", "rebuild"),
    Case("almere web", "log.appended", "form"),
    Case("almere web", "log.committed", "form"),
    Case("hub web", "log.appended", "admission"),
    Case("hub web", "log.committed", "admission"),
    Case("hub web", "keys.noted", "admission"),
    Case("hub worker", "keys.recalled", "recall"),
    Case("town join", "join.keyed", "joining"),
    Case("town join", "join.answered", "joining"),
    Case("town join", "join.joined", "joining"),
    Case("almere worker", "mail.sent", "mail"),
    Case("almere worker", "node.fetched", "put back without its sidecar"),
    Case("almere worker", "node.came_back", "put back"),
    Case("almere worker", "node.came_back", "put back and written to"),
    Case("almere worker", "erasure.noted", "erasure"),
    Case("almere worker", "erasure.replayed", "erasure"),
    Case("almere rotate-key", "rotation.keyed", "rotation"),
    Case("almere rotate-key", "rotation.told", "rotation"),
    Case("hub worker", "join.brokered", "broker"),  # in tests/federation/test_broker.py: it needs RabbitMQ's management
    Case("town join", "join.keyed", "return"),
    Case("town join", "join.answered", "return"),
    Case("town join", "join.joined", "return"),
]


def cases(*stories):
    """Each case of these stories over its half of the parts: the first two pairs for one case, the other two for the next."""
    half = [(parts, case) for number, case in enumerate(CASES) for parts in PARTS[number % 2 * 2 :][:2] if case.story in stories]
    named = [pytest.param(parts, case, id=f"{'-'.join(parts)}-{case}") for parts, case in half]
    return pytest.mark.parametrize(("world", "case"), named, indirect=["world"], scope="module")


def named(world, process):
    """The service and the kind of process that a case names."""
    name, _, kind = process.partition(" ")
    return (world.hub if name == "hub" else world.towns[name]), kind


def test_every_failpoint_of_the_code_has_a_case():
    sources = [path.read_text() for room in ("shared", "services") for path in (ROOT / room).rglob("*.py")]
    assert {name for text in sources for name in re.findall(r'\bfailpoint\("([a-z._]+)"\)', text)} == {
        case.failpoint for case in CASES
    }


def die(world, case, prepare=lambda: None):
    """Let the process die at the failpoint, on what `prepare` leaves for it to do."""
    service, kind = named(world, case.process)
    service.kill(kind)
    prepare()
    service.start(kind, failpoint=case.failpoint)
    service.wait_for_death(kind)


def recover(world, case, ledger):
    """More is written while it is dead and after it came back, with no hand laid on its files; then everything has arrived."""
    service, kind = named(world, case.process)
    ledger.write()
    if not service.runs(kind):
        service.start(kind)
    ledger.write()
    world.settle()
    check(world, ledger)


@cases("backlog")
def test_a_worker_dies_with_work_in_its_hands(world, case, ledger):
    def prepare():
        ledger.write()
        if case.process == "hub worker":
            wait_until(world.towns["almere"].is_sent, "the backlog on the bus")
        if case.process == "dronten worker":
            wait_until(lambda: set(world.behind()) <= {"dronten feed", "dronten library of almere"}, "the backlog in the feed")

    die(world, case, prepare)
    if case.failpoint in MEANS:
        wait_until(lambda: MEANS[case.failpoint](world), f"what {case.failpoint} means", PATIENCE)
    recover(world, case, ledger)


def sent(world):
    with world.towns["almere"].database.reading() as session:
        last = read_head(session)
        return position(session, last.epoch), last.seq


def held(world):
    with world.hub.database.reading() as session:
        return session.scalar(select(inbox_cursor.c.seq).where(inbox_cursor.c.town == "almere")) or 0


MEANS = {
    "relay.packed": lambda world: sent(world)[0] == held(world) < sent(world)[1],
    "relay.published": lambda world: sent(world)[0] < held(world) == sent(world)[1],
    "relay.moved": lambda world: sent(world)[0] == held(world) == sent(world)[1],
    "hub.taken": lambda world: held(world) < sent(world)[0],
    "hub.accepted": lambda world: held(world) < sent(world)[0],
    "hub.stored": lambda world: held(world) == sent(world)[0],
    "hub.acked": lambda world: held(world) == sent(world)[0],
}
"""What is true while the process lies dead: a failpoint is where its name says."""


@cases("association")
def test_the_hub_dies_while_the_association_speaks(world, case, ledger):
    die(world, case, lambda: admit(world, KeyPair.of(secrets.token_bytes(32)), world.hub.code_for(fresh_slug())))
    recover(world, case, ledger)
    assert len(world.national_log("koepel")) == len(told_by_association(world))


@cases("rebuild")
def test_a_worker_dies_while_it_rebuilds_what_it_shows(world, case, ledger):
    service, _ = named(world, case.process)
    with service.database.transaction() as session:
        session.execute(update(projection_table).values(folded_with="as an older release did"))
    die(world, case, ledger.write)
    recover(world, case, ledger)
    with service.database.reading() as session:
        assert "as an older release did" not in session.scalars(select(projection_table.c.folded_with)).all()


@pytest.mark.parametrize("world", PARTS[:2], indirect=True, ids="-".join, scope="module")
def test_the_rebuild_command_dies_and_nothing_shows_it(world, ledger):
    for failpoint in ("rebuild.emptied", "rebuild.folded"):
        done = world.hub.command("rebuild", failpoint=failpoint)
        assert done.returncode == -signal.SIGKILL, done.stderr
        ledger.write()
        world.settle()
        check(world, ledger)
    assert world.hub.command("rebuild").returncode == 0
    world.settle()
    check(world, ledger)


@cases("form")
def test_the_web_process_dies_between_a_form_and_its_answer(world, case, ledger):
    almere, kind = named(world, case.process)
    before = len(almere.log())
    almere.kill(kind)
    almere.start(kind, failpoint=case.failpoint)
    almere.wait_until_ready(kind)
    with pytest.raises(urllib3.exceptions.HTTPError):
        ledger.visitor.share("Zonder antwoord")
    almere.wait_for_death(kind)
    assert len(almere.log()) == before + (case.failpoint == "log.committed"), "all of it or nothing"
    almere.start(kind)
    almere.wait_until_ready(kind)
    ledger.write()
    world.settle()
    check(world, ledger)


@cases("admission")
def test_the_hub_dies_while_it_lets_a_town_in(world, case, ledger):
    hub, kind = named(world, case.process)
    slug, key, before = fresh_slug(), KeyPair.of(secrets.token_bytes(32)), len(told_by_association(world))
    code = hub.code_for(slug)
    hub.kill(kind)
    # The towns' workers call too, but only a joining writes the association's log here.
    hub.start(kind, failpoint=case.failpoint)
    hub.wait_until_ready(kind)
    with pytest.raises(membership.HubAway):
        admit(world, key, code)
    hub.wait_for_death(kind)
    assert len(told_by_association(world)) == before + (case.failpoint != "log.appended")
    hub.start(kind)
    hub.wait_until_ready(kind)
    assert admit(world, key, code)["town"] == slug, "the same code and key are answered again"
    assert len(told_by_association(world)) == before + 1
    ledger.write()
    world.settle()
    check(world, ledger)
    with hub.database.reading() as session:
        assert session.get(KnownToHub, slug).key_id == key.key_id
    kept = keyring(hub.settings)
    wait_until(
        lambda: key.key_id in kept.read()["towns"].get(slug, {"keys": ()})["keys"], "the key in the file beside the database"
    )


@cases("recall")
def test_the_hub_dies_while_it_remembers_what_its_backup_does_not_know(world, case, ledger):
    """A town that joined after the backup: the database is as it was before."""
    hub, slug, key = world.hub, fresh_slug(), KeyPair.of(secrets.token_bytes(32))
    kept = keyring(hub.settings)

    def prepare():
        said = kept.read()
        town = {"name": slug.capitalize(), "made_at": MOMENT, "joined_at": MOMENT, "key_id": key.key_id, "left_at": None}
        keys = {key.key_id: {"public": to_text(key.public), "pinned_at": MOMENT, "ends": None}}
        kept.write(said | {"towns": said["towns"] | {slug: {"town": town, "keys": keys, "epochs": {}, "cuts": {}}}})

    die(world, case, prepare)
    assert kept.read()["owes"]
    assert key_of(world, slug) == [key.public]
    recover(world, case, ledger)
    wait_until(lambda: not kept.read()["owes"], "the association's words")
    assert slug in {entry.says.subject for entry in told_by_association(world)}
    world.settle()
    check(world, ledger)


MOMENT = "2015-06-01T12:00:00+00:00"


def key_of(world, slug):
    with world.hub.database.reading() as session:
        return read_pins(session, [slug]).keys_of(slug)


@cases("joining")
def test_a_node_dies_while_it_joins(world, case, ledger):
    town = world.new_town(fresh_slug())
    words = ("join", "--hub", world.hub.url, world.hub.code_for(town.name))
    done = town.command(*words, failpoint=case.failpoint)
    assert (done.returncode, "failpoint.reached" in done.stderr) == (-signal.SIGKILL, True), done.stderr
    done = town.command(*words)
    if case.failpoint == "join.joined":
        assert "JoinedAlready" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
    membership.become_author(town.settings, town.database)
    with town.database.transaction() as session:
        add_member(session, name="Nieuwe Facilitator", email="nieuw@example.org", role="facilitator", today=utc_now().date())
    town.start("worker")
    town.wait_until_ready("worker")
    ledger.write()
    world.settle()
    check(world, ledger)
    town.kill("worker")


@cases("return")
def test_a_node_dies_while_its_circle_comes_back_to_the_association(world, case, ledger):
    """It had said goodbye, and the association has ended its key. It goes on under another one, in a new run of numbers."""
    town = world.new_town(fresh_slug())
    town.join(world.hub)
    town.start("worker")
    town.wait_until_ready("worker")
    with town.database.transaction() as session:
        say_goodbye(session, utc_now(), erase=False)
    world.settle()
    with world.hub.database.transaction() as session:
        leave(session, town.name, "nothing", utc_now())
        code = readmit_town(session, town.name, utc_now())
    said = town.log()
    with town.database.transaction() as session:
        add_member(session, name="Na Hetafscheid", email="na@example.org", today=utc_now().date())
    words = ("join", "--hub", world.hub.url, code)
    done = town.command(*words, failpoint=case.failpoint)
    assert (done.returncode, "failpoint.reached" in done.stderr) == (-signal.SIGKILL, True), done.stderr
    done = town.command(*words)
    if case.failpoint == "join.joined":
        assert "JoinedAlready" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
    membership.keep_author(town.settings, town.database)
    assert author_of(town).key.key_id == writer_of(town) != said[-1].says.key_id
    assert not (town.folder / "town.next.key").exists()
    ledger.write()
    world.settle()
    check(world, ledger)
    assert world.national_log(town.name) == town.log()
    assert town.log()[0].says.epoch != said[0].says.epoch
    with world.hub.database.reading() as session:
        assert session.get(KnownToHub, town.name).left_at is None
    town.kill("worker")


@cases("mail")
def test_the_worker_dies_between_a_mail_and_its_record(world, case, ledger):
    almere, _ = named(world, case.process)
    kept = almere.folder / "mail"

    def ask_for_a_link():
        stranger = type(ledger.visitor)(almere.url)
        stranger.send("/login", expect=200, email=MEMBER)

    before = len(list(kept.glob("*.eml")))
    die(world, case, ask_for_a_link)
    with almere.database.transaction() as session:
        assert session.scalar(select(mail.c.id).where(mail.c.sent_at.is_(None))) is not None, "nobody knows that it left"
        session.execute(update(mail).values(next_try_at=utc_now()))  # the pause before the next try is over
    recover(world, case, ledger)

    def all_are_recorded():
        with almere.database.reading() as session:
            return session.scalar(select(mail.c.id).where(mail.c.sent_at.is_(None))) is None

    wait_until(all_are_recorded, "the mail's record")
    assert len(list(kept.glob("*.eml"))) == before + 1


@cases("put back", "put back without its sidecar", "put back and written to")
def test_a_worker_dies_while_it_takes_back_what_an_older_copy_lacks(world, case, ledger):
    """Nothing was written since: the same log to the byte. Something was: a new run of numbers, with everything in it."""
    almere, kind = named(world, case.process)
    for each in ("web", "worker"):
        almere.kill(each)
    copy = almere.copy_database()
    for each in ("web", "worker"):
        almere.start(each)
    almere.wait_until_ready("web")
    ledger.write()
    world.settle()
    whole = almere.log()
    for each in ("web", "worker"):
        almere.kill(each)
    almere.put_back(copy)
    behind = almere.log()
    assert behind == whole[: len(behind)] != whole
    if "without" in case.story:
        (almere.folder / "confirmed.json").unlink()
    almere.start("web")
    almere.wait_until_ready("web")
    if "written" in case.story:
        ledger.share()
    known = almere.log()
    almere.start(kind, failpoint=case.failpoint)
    almere.wait_for_death(kind)
    if case.failpoint == "node.fetched":
        assert almere.log() == known, "fetched is not taken back"
    almere.start(kind)
    world.settle()
    if "written" in case.story:
        assert almere.log()[0].says.epoch != whole[0].says.epoch
    else:
        assert almere.log()[: len(whole)] == whole
    recover(world, case, ledger)


@cases("erasure")
def test_a_worker_dies_while_something_is_erased(world, case, ledger):
    """Asked for just now; or found in the list, after a backup was put back that knows nothing of it."""
    almere, code = world.towns["almere"], secrets.token_hex(8)
    told = {"title": "Weg", "body": "Dit moet weg.", "kind": "tip", "theme": "water", "shared_on": date(2015, 6, 1)}
    with almere.database.transaction() as session:
        append(session, LessonShared(lesson=code, **told))
    world.settle()
    assert bodies_of(world, code) == {"almere": 1, "hub": 1, "dronten": 1}
    kept = ErasureList(almere.settings.state / "erasures")

    def prepare():
        if case.failpoint == "erasure.replayed":
            kept.add([("almere", code)])
            return
        with almere.database.transaction() as session:
            redact(session, "almere", code)

    die(world, case, prepare)
    assert ("almere", code) in kept.read()
    assert bodies_of(world, code)["almere"] == 0
    recover(world, case, ledger)
    wait_until(lambda: bodies_of(world, code) == {"almere": 0, "hub": 0, "dronten": 0}, "the end of every copy")
    assert [says.type for says in (entry.says for entry in almere.log()) if says.subject == code] == [
        LessonShared.wire, Redacted.wire,
    ]  # fmt: skip


def bodies_of(world, subject):
    """How many bodies about this subject each of them holds, but for the asking itself."""
    about = inbox.c.subject == subject, inbox.c.type != Redacted.wire, inbox.c.body.is_not(None)
    kept = select(func.count()).select_from(inbox).where(*about)
    mine = [entry for entry in world.towns["almere"].log() if (entry.says.subject, entry.says.type) == (subject, LessonShared.wire)]
    held = {"almere": sum(entry.body is not None for entry in mine)}
    for name, database in (("hub", world.hub.database), ("dronten", world.towns["dronten"].database)):
        with database.reading() as session:
            held[name] = session.scalar(kept)
    return held


@cases("rotation")
def test_the_command_dies_while_the_town_takes_another_key(world, case, ledger):
    almere, words = named(world, case.process)
    almere.kill("worker")  # it would see to it; the web process must manage alone
    old = author_of(almere).key.key_id
    done = almere.command(words, failpoint=case.failpoint)
    assert (done.returncode, "failpoint.reached" in done.stderr) == (-signal.SIGKILL, True), done.stderr
    told = case.failpoint == "rotation.told"
    assert (writer_of(almere) != old) == told
    if told:
        with pytest.raises(NotAuthor), almere.database.transaction() as session:
            append(session, LessonWithdrawn(lesson="none"))
    membership.keep_author(almere.settings, almere.database)
    assert author_of(almere).key.key_id == writer_of(almere)
    ledger.write()
    almere.start("worker")
    recover_all(world, ledger)
    assert almere.log()[-1].says.key_id == writer_of(almere)

    done = almere.command(words)
    assert done.returncode == 0, done.stderr
    recover_all(world, ledger)
    assert old != writer_of(almere) == almere.log()[-1].says.key_id
    membership.keep_author(almere.settings, almere.database)
    assert author_of(almere).key.key_id == writer_of(almere)


def author_of(town):
    """With which key this process would write the town's log."""
    return town.database.info["author"]


def writer_of(town):
    """Whose key the log names as its writer's."""
    with town.database.reading() as session:
        return read_head(session).key_id


def recover_all(world, ledger):
    """More is written, and everything has arrived."""
    ledger.write()
    world.settle()
    check(world, ledger)


def fresh_slug():
    """A short name for one more town."""
    return f"stad-{secrets.token_hex(4)}"


def admit(world, key, code):
    """A town joins, as far as the hub can see."""
    return membership._call_hub(world.hub.url, code, key)


def told_by_association(world):
    """The association's own log, as the hub holds it."""
    return whole_log(world.hub.database)

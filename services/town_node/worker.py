"""A node's worker: carries the log to the bus, and keeps in step with the association.

Four jobs, each in its thread; any of them may fail for days, and neither the others nor the node itself wait for it. **Sending**
relays what was committed, woken by the web process's doorbell; it begins after the first head exchange of this start. **Calling**
exchanges heads and pulls the feed: every five minutes while the association holds everything, every half minute until it does, and
soon after the log was drained. **Mailing** sends what is queued; **tending** writes erasures into their list, forgets what is kept
for a day only, and sounds the alarm when nothing arrives: both also before the node joined. When the database fails the worker
ends, and is started again.
"""

import dataclasses
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlencode

import urllib3

from services.town_node.circle.membership import Membership, become_author, doorbell, erasures, membership, name_key, open_node
from services.town_node.config import Settings, utc_now
from services.town_node.home.alarm import watch
from services.town_node.home.erasures import erase_again
from services.town_node.home.slices import SLICES
from services.town_node.home.sync import quiet_after
from services.town_node.lessons.library import PROJECTIONS
from services.town_node.transfer.model import forget_old_uploads
from shared import feed, heads
from shared.bus import TROUBLE as BUS_TROUBLE
from shared.bus import Publisher
from shared.db import Database
from shared.envelope import Malformed
from shared.erasure import ErasureList, ask_again, note_erasures
from shared.eventlog import Author, change_key, read_hash, read_head
from shared.keys import KeyPair, from_text, to_text
from shared.mail import Send, post_office, send_waiting
from shared.observability import facts, failpoint, start_logging
from shared.projections import apply, rebuild_changed, retry_stalls
from shared.relay import Pause, position, relay_step
from shared.restore import (
    TAIL,
    NoTail,
    Sidecar,
    check_tail,
    come_back,
    contradicts,
    fetch_tail,
    note_setback,
    set_back,
)
from shared.serving import holding, spare_memory, work_until_stopped

log = logging.getLogger(__name__)

SIGNATURE = "Tuinkoepel-Signature"
SWEEP_EVERY = 3600.0
"""Seconds between two looks for what is kept for a day only."""
LOOK_EVERY = 1.0
"""Seconds between looks at the log and the mail when nobody rings."""
AFTER_DRAIN = 0.5
"""Seconds between the last confirm and the head exchange that asks what arrived."""
PAGES_MAX = 200
"""Pages of the feed in one go."""
HEADS_APART = 5.0
"""Seconds between head exchanges while the log drains again and again."""
ALARM_EVERY = 60.0
"""Seconds between two looks whether anything has arrived lately."""
ALARM_FROM = 600.0
"""Seconds after the start before the first: a machine that was off for a week calls first, and complains afterwards."""
TIMEOUT = urllib3.Timeout(connect=5.0, read=20.0)
ANSWER_MAX = 64 * 2**20
"""Bytes of the longest answer that is read: a full page of the feed, with room."""


class Calling:
    """The node's calls to the hub. `instance` is random per start of the worker."""

    def __init__(self, database: Database, author: Author, joined: Membership, hub_url: str = "") -> None:
        self._database, self.author, self._hub_url = database, author, hub_url or joined.hub_url
        self._instance = secrets.token_hex(8)
        self._http = urllib3.PoolManager(num_pools=1, maxsize=1, timeout=TIMEOUT, retries=False)
        self._hub_key, self._key = from_text(joined.hub_key, 32), author.key
        self.begun_with = _ways(joined)

    def exchange_heads(self) -> heads.Answer:
        """One head exchange. Raises when it fails."""
        with self._database.reading() as session:
            keys = heads.calling_keys(session, self.author)
        for key in keys:
            try:
                heard = self._exchange(key)
            except heads.NotAuthentic:
                if key is keys[-1]:
                    raise
            else:
                self._key = key
                if heard.status != heads.KEY_ENDED:  # of two keys one may have ended, and rightly
                    break
        return heard

    def _exchange(self, key: KeyPair) -> heads.Answer:
        """With this key; a stale challenge is answered with a fresh one and tried again at once."""
        for _ in range(2):
            with self._database.reading() as session:
                body, signature, nonce = heads.ask(session, self.author, self._instance, feed.pull_cursor(session), key)
            answer, said = self._call("POST", "/federation/v1/heads", signature, body)
            signed = answer.headers.get(SIGNATURE, "")
            heard = heads.hear(self._database, self.author, said, signed, nonce, self._hub_key, utc_now())
            failpoint("node.heard")
            if heard.status != "stale":
                break
        return heard

    def pull(self) -> int:
        """One page of the feed, folded; how many items it had. Raises when it fails."""
        with self._database.reading() as session:
            feed_id, number, chain = feed.pull_cursor(session)
        page = self._read("feed", feed.PULLS, id=feed_id, after=number, chain=chain)
        failpoint("node.pulled")
        with self._database.transaction() as session:
            items = feed.accept_page(session, page, self.author.town, utc_now())
            failpoint("node.accepted")
        with self._database.transaction() as session:
            while apply(session, PROJECTIONS):
                pass
            failpoint("node.applied")
        return items

    def come_back(self) -> None:
        """Take back what the association holds and this log does not, and go on (`shared/restore.py`). Raises when it fails."""
        with self._database.reading() as session:
            why = set_back(session)
            tail, common = fetch_tail(session, self.author, lambda epoch, after: self._read("tail", TAIL, epoch=epoch, after=after))
            anew = why is not None and why.why == "lost"
            if not anew:  # a town that lost its key has only the association's word for what the old one signed
                check_tail(session, self.author, tail)
        failpoint("node.fetched")
        # The association may know the previous key only; then the new epoch begins with it, and names the present one at once.
        speaker = dataclasses.replace(self.author, key=self._key)
        with self._database.transaction() as session:
            session.info["author"] = speaker
            change_key(session, speaker.key.key_id)
            come_back(session, speaker, tail, common, SLICES, utc_now(), anew=anew)
            if speaker.key.key_id != self.author.key.key_id:
                name_key(session, speaker, self.author.key)
            failpoint("node.came_back")

    def _read(self, what: str, context: bytes, **asked: str | int) -> bytes:
        """A signed look at the hub; the address itself is what is signed."""
        path = f"/federation/v1/{what}?" + urlencode({"town": self.author.town, **asked})
        answer, page = self._call("GET", path, self._key.sign(context, path.encode()))
        if answer.status != 200:  # HTTP's own number
            raise urllib3.exceptions.HTTPError(f"{what} answered {answer.status}")
        return page

    def is_set_back(self) -> bool:
        """Whether the log is behind what this town told before."""
        with self._database.reading() as session:
            return set_back(session) is not None

    def may_send(self, answer: heads.Answer) -> bool:
        """Whether the log is whole and may go out; with it, once more, what a log that was put back has lost the asking of."""
        if answer.status != "ok" or self.is_set_back() or self.has_left(answer):
            return False
        with self._database.transaction() as session:
            ask_again(session, self.author.town)
        return True

    def has_left(self, answer: heads.Answer) -> bool:
        """Whether the circle has left the association, and the association has heard it."""
        with self._database.reading() as session:
            joined = membership(session)
        return joined is not None and joined.left_seq is not None and answer.cursor >= joined.left_seq

    def everything_held(self, answer: heads.Answer) -> bool:
        """Whether the association holds the whole log, as far as it goes now."""
        with self._database.reading() as session:
            last = read_head(session)
        return last is None or answer.cursor >= last.seq

    def _call(self, method: str, path: str, signature: bytes, body: bytes | None = None) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        headers = {SIGNATURE: to_text(signature)} | ({"Content-Type": "application/json"} if body is not None else {})
        answer = self._http.request(method, self._hub_url + path, body=body, headers=headers, preload_content=False)
        try:
            said = answer.read(ANSWER_MAX + 1)
        except BaseException:
            answer.close()
            raise
        if len(said) > ANSWER_MAX:
            answer.close()
            raise urllib3.exceptions.HTTPError("an answer without end")
        answer.release_conn()
        return answer, said


@dataclass
class Between:
    """What sending and calling tell each other."""

    may_send: threading.Event = field(default_factory=threading.Event)
    """The first heads of this start were exchanged."""
    drained: threading.Event = field(default_factory=threading.Event)
    """Everything in the log was confirmed: time to ask what arrived."""


def run(settings: Settings, stop: Callable[[], bool] = lambda: False) -> None:
    """Work until stopped. Raises when the database fails."""
    start_logging("town_node.worker", settings.log_level)
    spare_memory()
    database, send, between = open_node(settings), post_office(settings.mail_url), Between()
    with holding(settings.state / "worker.lock", stop) as alone:
        if not alone:
            return
        kept, sidecar = erasures(settings), Sidecar(settings.state / "confirmed.json")
        erase_again(database, kept, utc_now())
        with database.transaction() as session:
            if contradicts(session, sidecar):
                note_setback(session, "sidecar", utc_now())
            rebuild_changed(session, PROJECTIONS)
            retry_stalls(session, [projection.name for projection in PROJECTIONS])
        work_until_stopped(
            stop,
            lambda ending: _send(settings, database, sidecar, between, ending),
            lambda ending: _call(settings, database, between, ending),
            lambda ending: _mail(settings, database, send, ending),
            lambda ending: _tend(settings, database, kept, ending),
        )
        database.close()


def _send(settings: Settings, database: Database, sidecar: Sidecar, between: Between, ending: threading.Event) -> None:
    while not between.may_send.wait(LOOK_EVERY):
        if ending.is_set():
            return
    bell, pause = doorbell(settings), Pause(random.random)
    publisher, begun_with = _publisher(settings, database)
    while not ending.is_set():
        try:
            if ways(database) != begun_with:
                publisher.close()
                publisher, begun_with = _publisher(settings, database)
            sent = 0
            while not ending.is_set() and may_publish(database, between) and (count := relay_step(database, publisher.publish)):
                sent += count
                pause.reset()
                note_confirmed(database, sidecar)
            if sent:
                between.drained.set()
        except BUS_TROUBLE as error:
            seconds = pause.after_failure()
            log.warning("bus.broken", extra=facts(error=repr(error), again_in=round(seconds, 1)))
            ending.wait(seconds)
            publisher, begun_with = _publisher(settings, database)  # a town that joined again was told another password
        else:
            publisher.beat()
            bell.wait(LOOK_EVERY)
    publisher.close()


def _publisher(settings: Settings, database: Database) -> tuple[Publisher, tuple[str, ...]]:
    """A way in, and what it was begun with."""
    with database.reading() as session:
        joined = membership(session)
    return Publisher(settings.bus or joined.bus_url, joined.town), _ways(joined)


def ways(database: Database) -> tuple[str, ...]:
    """How to reach the association, by what it told this node last: joining anew changes it while a worker runs."""
    with database.reading() as session:
        return _ways(membership(session))


def _ways(joined: Membership) -> tuple[str, ...]:
    return joined.hub_url, joined.hub_key, joined.bus_url


def may_publish(database: Database, between: Between) -> bool:
    """Whether the heads were exchanged and the log is not behind what this town told before (I14)."""
    with database.reading() as session:
        return between.may_send.is_set() and set_back(session) is None


def note_confirmed(database: Database, sidecar: Sidecar) -> None:
    """Write down the last place that the bus has confirmed, where no backup of the database can take it back."""
    with database.reading() as session:
        last = read_head(session)
        done = position(session, last.epoch) if last else 0
        hashed = read_hash(session, last.epoch, done) if last else None
    if last is not None and hashed is not None:
        sidecar.note(epoch=last.epoch, seq=done, hash=hashed.hex())


def _call(settings: Settings, database: Database, between: Between, ending: threading.Event) -> None:
    while (author := become_author(settings, database)) is None:  # patiently: somebody has to paste a code first
        if ending.wait(LOOK_EVERY):
            return
    while not ending.is_set():
        with database.reading() as session:
            calling = Calling(database, become_author(settings, database) or author, membership(session), settings.hub)
        between.may_send.clear()
        _call_there(settings, database, calling, between, ending)


def _call_there(settings: Settings, database: Database, calling: Calling, between: Between, ending: threading.Event) -> None:
    """Until the node joins anew: then what it began with may be an address where nobody answers any more."""
    author = calling.author
    pause = Pause(random.random, least=1.0)
    called = heads_due = pull_due = 0.0
    while not ending.is_set() and ways(database) == calling.begun_with:
        moment = time.monotonic()
        if between.drained.is_set():
            between.drained.clear()
            heads_due = min(heads_due, max(moment + AFTER_DRAIN, called + min(HEADS_APART, settings.head_period)))
        try:
            if moment >= heads_due:
                called = moment
                calling.author = become_author(settings, database) or author
                answer = calling.exchange_heads()
                if calling.is_set_back() and answer.status == "ok" and answer.quiet:
                    calling.come_back()
                    answer = calling.exchange_heads()
                if calling.may_send(answer):
                    between.may_send.set()
                else:
                    between.may_send.clear()  # frozen, put back, or it said goodbye: the circle works on, and nothing leaves
                if answer.want_from is not None:
                    doorbell(settings).ring()
                at_rest = answer.status == "ok" and not calling.is_set_back() and calling.everything_held(answer)
                heads_due = moment + (settings.idle_period if at_rest else settings.head_period)
                if answer.status in heads.WITHOUT_KEY:
                    pull_due = heads_due  # nothing is to be had before
            if moment >= pull_due:
                for _ in range(PAGES_MAX):  # then the heads again: a feed without end must not keep this node from them
                    if ending.is_set() or not calling.pull():
                        break
                pull_due = moment + settings.pull_period
                pause.reset()
        except (urllib3.exceptions.HTTPError, heads.NotAuthentic, Malformed, NoTail) as error:
            seconds = min(pause.after_failure(), settings.head_period)
            log.warning("hub.away", extra=facts(error=repr(error), again_in=round(seconds, 1)))
            heads_due = pull_due = time.monotonic() + seconds
        between.drained.wait(min(LOOK_EVERY, max(0.02, min(heads_due, pull_due) - time.monotonic())))


def _mail(settings: Settings, database: Database, send: Send, ending: threading.Event) -> None:
    while not ending.wait(LOOK_EVERY):
        send_waiting(database, send, settings.mail_from, utc_now(), limit=5)


def _tend(settings: Settings, database: Database, kept: ErasureList, ending: threading.Event) -> None:
    sweep_due, alarm_due = 0.0, time.monotonic() + ALARM_FROM
    while True:
        note_erasures(database, kept)
        moment = time.monotonic()
        if moment >= sweep_due:
            sweep_due = moment + SWEEP_EVERY
            with database.transaction() as session:
                forget_old_uploads(session, utc_now())
        if moment >= alarm_due:
            alarm_due = moment + ALARM_EVERY
            with database.transaction() as session:
                watch(session, utc_now(), quiet_after(settings), settings.url)
        if ending.wait(LOOK_EVERY):
            return

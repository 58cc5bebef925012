"""A node's worker: carries the log to the bus, and keeps in step with the association.

Two threads. **Sending** relays what was committed, woken by the web process's doorbell; it begins after the first head exchange
of this start. **Calling** exchanges heads, pulls the feed and sends mail. Either may fail for days; the node itself works on.
"""

import fcntl
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from urllib.parse import urlencode

import urllib3

from services.town_node.circle.membership import Membership, become_author, doorbell, membership, open_node
from services.town_node.config import Settings, utc_now
from services.town_node.lessons.library import PROJECTIONS
from shared import feed, heads
from shared.bus import TROUBLE as BUS_TROUBLE
from shared.bus import Publisher
from shared.db import Database
from shared.envelope import Malformed
from shared.eventlog import Author
from shared.inbox import apply, rebuild_changed
from shared.keys import from_text, to_text
from shared.mail import post_office, send_waiting
from shared.observability import facts, failpoint, start_logging
from shared.relay import Pause, relay_step

log = logging.getLogger(__name__)

SIGNATURE = "Tuinkoepel-Signature"
LOOK_EVERY = 1.0
"""Seconds between looks at the log and the mail when nobody rings."""
TIMEOUT = urllib3.Timeout(connect=5.0, read=20.0)


class Calling:
    """The node's calls to the hub. `instance` is random per start of the worker."""

    def __init__(self, database: Database, author: Author, joined: Membership) -> None:
        self._database, self._author, self._joined = database, author, joined
        self._instance = secrets.token_hex(8)
        self._http = urllib3.PoolManager(num_pools=1, maxsize=1, timeout=TIMEOUT, retries=False)
        self._hub_key = from_text(joined.hub_key, 32)

    def exchange_heads(self) -> heads.Answer:
        """One head exchange; a stale challenge is answered with a fresh one and tried again at once. Raises when it fails."""
        for _ in range(2):
            with self._database.reading() as session:
                body, signature, nonce = heads.ask(session, self._author, self._instance, feed.pull_cursor(session))
            answer = self._http.request(
                "POST",
                f"{self._joined.hub_url}/federation/v1/heads",
                body=body,
                headers={SIGNATURE: to_text(signature), "Content-Type": "application/json"},
            )
            heard = heads.hear(self._database, answer.data, answer.headers.get(SIGNATURE, ""), nonce, self._hub_key, utc_now())
            failpoint("node.heard")
            if heard.status == "ok":
                break
        return heard

    def pull(self) -> int:
        """One page of the feed, folded; how many items it had. Raises when it fails."""
        with self._database.reading() as session:
            feed_id, number = feed.pull_cursor(session)
        path = "/federation/v1/feed?" + urlencode({"town": self._author.town, "id": feed_id, "after": number})
        signature = to_text(self._author.key.sign(feed.PULLS, path.encode()))
        answer = self._http.request("GET", self._joined.hub_url + path, headers={SIGNATURE: signature})
        if answer.status != 200:  # HTTP's own number
            raise urllib3.exceptions.HTTPError(f"feed answered {answer.status}")
        failpoint("node.pulled")
        with self._database.transaction() as session:
            items = feed.accept_page(session, answer.data, self._author.town, utc_now())
            failpoint("node.accepted")
        with self._database.transaction() as session:
            while apply(session, PROJECTIONS):
                pass
            failpoint("node.applied")
        return items


def run(settings: Settings, stop: Callable[[], bool] = lambda: False) -> None:
    """Work until stopped. Waits patiently for the node to join."""
    start_logging("town_node.worker", settings.log_level)
    database = open_node(settings)
    lock = (settings.state / "worker.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)  # a second worker waits here until the first is gone
    with database.transaction() as session:
        rebuild_changed(session, PROJECTIONS)
    send = post_office(settings.mail_url)
    author = None
    while author is None and not stop():
        author = become_author(settings, database)
        if author is None:
            send_waiting(database, send, settings.mail_from, utc_now())
            time.sleep(LOOK_EVERY)
    if author is None:
        return
    with database.reading() as session:
        joined = membership(session)
    if joined is None:
        return
    calling = Calling(database, author, joined)
    may_send, drained = threading.Event(), threading.Event()
    sender = threading.Thread(target=_send, args=(settings, database, joined, may_send, drained, stop), daemon=True)
    sender.start()
    heads_due = pull_due = 0.0
    pause = Pause(random.random, least=1.0)
    while not stop():
        if not sender.is_alive():
            return  # its reason is in the log; the supervisor starts this worker again
        moment = time.monotonic()
        if drained.is_set():
            drained.clear()
            heads_due = min(heads_due, moment + 0.2)
        if moment >= heads_due or moment >= pull_due:
            try:
                answer = calling.exchange_heads()
                may_send.set()
                while calling.pull():
                    pass
                pause.reset()
                behind = answer.want_from is not None
                heads_due = moment + (min(2.0, settings.head_period) if behind else settings.head_period)
                pull_due = moment + settings.pull_period
            except (urllib3.exceptions.HTTPError, heads.NotAuthentic, Malformed) as error:
                seconds = min(pause.after_failure(), settings.head_period)
                log.warning("hub.away", extra=facts(error=repr(error), again_in=round(seconds, 1)))
                heads_due = pull_due = time.monotonic() + seconds
        send_waiting(database, send, settings.mail_from, utc_now())
        drained.wait(min(LOOK_EVERY, max(0.05, min(heads_due, pull_due) - time.monotonic())))
    database.close()


def _send(
    settings: Settings,
    database: Database,
    joined: Membership,
    may_send: threading.Event,
    drained: threading.Event,
    stop: Callable[[], bool],
) -> None:
    bell, pause = doorbell(settings), Pause(random.random)
    publisher = Publisher(settings.bus or joined.bus_url, joined.town)
    while not may_send.wait(LOOK_EVERY):
        if stop():
            return
    while not stop():
        try:
            sent = 0
            while count := relay_step(database, publisher.publish):
                sent += count
                pause.reset()
            if sent:
                drained.set()
            publisher.beat()
            bell.wait(LOOK_EVERY)
        except BUS_TROUBLE as error:
            seconds = pause.after_failure()
            log.warning("bus.broken", extra=facts(error=repr(error), again_in=round(seconds, 1)))
            time.sleep(min(seconds, 60.0))
        except Exception:
            log.exception("relay.failed")
            raise

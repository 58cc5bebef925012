"""The numbers behind `/metrics`, in Prometheus' text.

What both processes must agree on (positions, cursors, what waits) is read from the database at every look, so the web process
answers for the worker too; only the requests are this process's own. Nothing in it names a person.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.eventlog import log, read_head
from shared.events import Redacted
from shared.feed import feed, feed_head, pull_cursor
from shared.heads import ingest_pulse, known_head, received_head
from shared.inbox import erased, inbox, inbox_cursor
from shared.mail import TRIES_MAX, mail
from shared.observability import REQUESTS
from shared.projections import stalls
from shared.quarantine import quarantine, quarantine_count
from shared.relay import position
from shared.web import reading


def numbers(*, worker_runs: bool | None) -> bytes:
    """What `/metrics` answers. `worker_runs` is None where nobody can tell."""
    registry = CollectorRegistry()
    registry.register(_Looks(worker_runs=worker_runs))
    return generate_latest(registry)


class _Looks:
    """Reads the database when it is asked for numbers."""

    def __init__(self, *, worker_runs: bool | None) -> None:
        self._worker_runs = worker_runs

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("tuinkoepel_database_up", "Whether the database answers")
        try:
            with reading() as session:
                found = [*_own_log(session), *_others(session), *_trouble(session)]
            up.add_metric([], 1)
        except SQLAlchemyError:
            found = []
            up.add_metric([], 0)
        yield up
        answers = CounterMetricFamily("tuinkoepel_requests", "Answers given, by status class", labels=["status"])
        for status, count in REQUESTS.items():
            answers.add_metric([status], count)
        yield answers
        if self._worker_runs is not None:
            yield _gauge("worker_up", "Whether the worker runs", int(self._worker_runs))
        yield from found

    def describe(self) -> Iterator[Metric]:
        return iter(())


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"tuinkoepel_{name}", help_text, value=value)


def _own_log(session: Session) -> Iterator[Metric]:
    """How far what this site told the world has come."""
    last = read_head(session)
    if last is None:
        return
    confirmed = position(session, last.epoch)
    yield _gauge("log_events", "Events in this site's own log (its present epoch)", last.seq)
    yield _gauge("log_confirmed_events", "Events that the bus confirmed", confirmed)
    yield _gauge("log_waiting_events", "Events that the bus has not confirmed yet", last.seq - confirmed)
    heard = session.execute(select(received_head)).first()
    if heard is not None:
        yield _gauge("association_received_events", "Events that the association has received", heard.cursor)
        yield _gauge(
            "association_missing_events", "Events that the association has not received yet", max(0, last.seq - heard.cursor)
        )
        answered = "When the association answered last"
        yield _gauge("association_answered_timestamp_seconds", answered, heard.answered_at.timestamp())


def _others(session: Session) -> Iterator[Metric]:
    """What came from others."""
    yield _gauge("feed_last_number", "The last national number that was given", feed_head(session)[1])
    yield _gauge("feed_read_number", "The last national number that this node read", pull_cursor(session)[1])
    stored = GaugeMetricFamily("tuinkoepel_town_stored_events", "Events held of a town's log", labels=["town"])
    lag = GaugeMetricFamily("tuinkoepel_town_lag_events", "Events a town said it has, and that are not held", labels=["town"])
    called = GaugeMetricFamily("tuinkoepel_town_called_timestamp_seconds", "When a town's node called last", labels=["town"])
    held = {row.town: row.seq for row in session.execute(select(inbox_cursor.c.town, inbox_cursor.c.seq))}
    for town, seq in held.items():
        stored.add_metric([town], seq)
    for row in session.execute(select(known_head.c.town, known_head.c.seq, known_head.c.called_at)):
        lag.add_metric([row.town], max(0, row.seq - held.get(row.town, 0)))
        if row.called_at is not None:
            called.add_metric([row.town], row.called_at.timestamp())
    yield from (stored, lag, called)
    seen_at = session.scalar(select(func.min(ingest_pulse.c.seen_at)))
    if seen_at is not None:
        yield _gauge("ingest_seen_timestamp_seconds", "When ingest showed itself last, on every queue", seen_at.timestamp())


def _trouble(session: Session) -> Iterator[Metric]:
    """What stands still, what was refused, and what is still to be erased elsewhere."""
    stalled = GaugeMetricFamily(
        "tuinkoepel_projection_stalled", "A view that stands still for a town", labels=["projection", "town"]
    )
    rows = stalls(session)
    for row in rows:
        stalled.add_metric([row.projection, row.town], 1)
    yield _gauge("projection_stalls", "Views that stand still, for all towns together", len(rows))
    yield stalled
    unsent = select(func.count()).select_from(mail).where(mail.c.sent_at.is_(None))
    yield _gauge("mails_waiting", "Mails that still have to leave", session.scalar(unsent.where(mail.c.tries < TRIES_MAX)) or 0)
    yield _gauge("mails_given_up", "Mails that could not be sent", session.scalar(unsent.where(mail.c.tries >= TRIES_MAX)) or 0)
    frozen = GaugeMetricFamily("tuinkoepel_town_frozen", "A town that stands still until somebody decides", labels=["town", "why"])
    waiting = session.execute(
        select(inbox_cursor.c.town, inbox_cursor.c.trouble).where(inbox_cursor.c.frozen_at.is_not(None))
    ).all()
    for row in waiting:
        frozen.add_metric([row.town, row.trouble], 1)
    yield _gauge("frozen_towns", "Towns that stand still until somebody decides", len(waiting))
    yield frozen
    refused = GaugeMetricFamily(
        "tuinkoepel_refused_messages", "Messages refused since somebody looked at them, by reason", labels=["reason"]
    )
    by_reason = select(quarantine_count.c.verdict, func.sum(quarantine_count.c.times)).group_by(quarantine_count.c.verdict)
    for verdict, times in session.execute(by_reason):
        refused.add_metric([verdict], int(times))
    yield refused
    kept = session.execute(select(func.count(), func.coalesce(func.sum(quarantine.c.size), 0)).select_from(quarantine)).one()
    yield _gauge("quarantine_messages", "Refused messages that are kept", kept[0])
    yield _gauge("quarantine_bytes", "Bytes of refused messages that are kept", int(kept[1]))
    yield _gauge("erasures_under_way", "Erasures that some site is not known to have heard of yet", _erasures_under_way(session))


def _erasures_under_way(session: Session) -> int:
    """Of its own ones, as far as it knows how far the others are; on the hub also those of the towns."""
    slowest = session.scalar(select(func.min(known_head.c.feed_cursor)))
    place = (inbox.c.town == feed.c.town) & (inbox.c.epoch == feed.c.epoch) & (inbox.c.seq == feed.c.seq)
    unread = select(func.count()).select_from(feed.join(inbox, place)).where(inbox.c.type == Redacted.wire)
    count = 0 if slowest is None else session.scalar(unread.where(feed.c.number > slowest)) or 0
    last, heard = read_head(session), session.execute(select(received_head)).first()
    if last is not None and heard is not None:
        everywhere = heard.everywhere if heard.epoch == last.epoch else 0
        beyond = log.c.epoch == last.epoch, log.c.seq > everywhere, log.c.subject.in_(select(erased.c.subject))
        count += session.scalar(select(func.count(log.c.subject.distinct())).where(*beyond)) or 0
    return count

"""The node's worker, in this process: what it begins with, it keeps only as long as that is so."""

import threading

from services.town_node.circle.membership import membership
from services.town_node.config import Settings
from services.town_node.worker import Between, _send
from shared.bus import Deliveries
from shared.eventlog import append
from shared.events import LessonWithdrawn
from shared.restore import Sidecar


def test_a_worker_that_runs_sends_where_the_town_joined_anew(node, tmp_path):
    database, ending, between = node.extensions["site"].database, threading.Event(), Between()
    between.may_send.set()
    buses = [f"sqlite:///{tmp_path / name}" for name in ("first.db", "second.db")]
    queues = [Deliveries(bus) for bus in buses]

    def tell_over(bus: str, code: str) -> None:
        with database.transaction() as session:
            membership(session).bus_url = bus
            append(session, LessonWithdrawn(lesson=code))

    tell_over(buses[0], "lesson-1")
    words = Settings(state=tmp_path), database, Sidecar(tmp_path / "confirmed.json"), between, ending
    worker = threading.Thread(target=_send, args=words)
    worker.start()
    try:
        (first,) = queues[0].take(20)
        queues[0].ack([first])
        tell_over(buses[1], "lesson-2")
        (second,) = queues[1].take(20)
        queues[1].ack([second])
    finally:
        ending.set()
        worker.join()
        for queue in queues:
            queue.close()

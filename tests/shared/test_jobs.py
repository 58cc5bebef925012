"""A worker's jobs, its lock, and the doorbell that wakes it."""

import threading
from pathlib import Path

import pytest

from shared.doorbell import Doorbell
from shared.serving import holding, work_until_stopped
from tests.services import wait_until


def waits(ending):
    ending.wait()


def test_a_worker_ends_when_it_is_told_to():
    asked = threading.Event()
    worker = threading.Thread(target=work_until_stopped, args=(asked.is_set, waits, waits))
    worker.start()
    asked.set()
    worker.join(10)
    assert not worker.is_alive()


def test_a_job_that_fails_ends_the_others_and_its_error_is_raised():
    ended = []

    def fails(ending):
        raise ZeroDivisionError

    def works(ending):
        ending.wait()
        ended.append("works")

    with pytest.raises(ZeroDivisionError):
        work_until_stopped(lambda: False, works, fails)
    assert ended == ["works"]


def test_a_job_in_the_middle_of_a_call_is_left_behind(monkeypatch):
    monkeypatch.setattr("shared.serving.FAREWELL", 0.05)
    answer = threading.Event()
    work_until_stopped(lambda: True, lambda _ending: answer.wait())
    answer.set()


def test_a_second_worker_waits_for_the_first_and_can_be_stopped_meanwhile(tmp_path):
    path, asked = tmp_path / "worker.lock", threading.Event()
    seen = []

    def second(stop):
        with holding(path, stop) as alone:
            seen.append(alone)

    with holding(path, lambda: False) as alone:
        assert alone
        waiting = threading.Thread(target=second, args=(asked.is_set,))
        waiting.start()
        asked.set()
        waiting.join(10)
        assert seen == [False]
        heir = threading.Thread(target=second, args=(lambda: False,))
        heir.start()
    heir.join(10)
    assert seen == [False, True]


def test_a_bell_wakes_at_once_who_listens_and_nobody_else(tmp_path):
    bell, hand = Doorbell(tmp_path / "bell"), Doorbell(tmp_path / "bell")
    hand.ring()  # nobody listens yet
    assert not bell.wait(0)
    hand.ring()
    hand.ring()
    assert bell.wait(60)
    assert not bell.wait(0), "twice rung is rung"
    bell.close()
    hand.ring()


def test_a_plain_file_in_the_place_of_a_bell_does_not_ring_without_end(tmp_path):
    (tmp_path / "bell").write_text("from a copied folder")
    bell = Doorbell(tmp_path / "bell")
    assert not bell.wait(0)
    Doorbell(tmp_path / "bell").ring()
    assert bell.wait(60)
    bell.close()


def test_a_bell_that_cannot_be_hung_leaves_the_worker_its_own_rhythm(tmp_path, caplog):
    (tmp_path / "no folder").write_text("")
    assert not Doorbell(tmp_path / "no folder" / "bell").wait(0)
    assert "doorbell.failed" in caplog.text


def test_a_worker_that_comes_back_often_keeps_no_files_open(tmp_path):
    from shared.bus import Deliveries

    def visit() -> int:
        deliveries = Deliveries(f"sqlite:///{tmp_path / 'bus.db'}")
        deliveries.take(0.01)
        deliveries.close()
        return len(list(Path("/proc/self/fd").iterdir()))

    wait_until(lambda: visit() == visit(), "no more open files than before")

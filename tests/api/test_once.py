"""`Idempotency-Key`: a change that is asked for twice is made once, whatever happens in between."""

import threading
from datetime import timedelta

import pytest

from services.town_node.initiatives import actions
from shared.eventlog import read_head
from shared.once import Once, StillRunning, answered

GARDEN = {"name": "De Regenton", "kind": "community_garden", "phase": "idea"}
KEY = {"Idempotency-Key": "5b1e0d6c-1"}


def head(node):
    with node.database.reading() as session:
        return read_head(session).seq


def kept(node):
    with node.database.reading() as session:
        return session.execute(answered.select()).all()


def test_the_same_change_twice_is_made_once_and_answered_alike(node):
    first = node.call("POST", "/initiatives", "member", KEY, **GARDEN)
    before = head(node)
    again = node.call("POST", "/initiatives", "member", KEY, **GARDEN)
    assert (again.status_code, again.data, again.headers["Location"]) == (201, first.data, first.headers["Location"])
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    assert head(node) == before
    assert len(node.call("GET", "/initiatives").get_json()["items"]) == 1


def test_every_kind_of_change_can_be_asked_again(node):
    path = "/initiatives/" + node.call("POST", "/initiatives", "member", **GARDEN).get_json()["code"]
    patch = {"Idempotency-Key": "a"}
    delete = {"Idempotency-Key": "b"}
    first = node.call("PATCH", path, "member", patch, about_text="Herbs.")
    assert node.call("PATCH", path, "member", patch, about_text="Herbs.").data == first.data
    for _ in range(2):
        assert node.call("DELETE", path, "facilitator", delete).status_code == 204
    assert node.call("DELETE", path, "facilitator").status_code == 404


def test_a_key_is_for_one_request(node):
    node.call("POST", "/initiatives", "member", KEY, **GARDEN)
    for answer in (
        node.call("POST", "/initiatives", "member", KEY, **GARDEN | {"name": "Another"}),
        node.call("POST", "/lessons", "member", KEY, title="T", body="B", kind="do", theme="soil"),
    ):
        assert answer.status_code == 422
        assert list(answer.get_json()["errors"]) == ["Idempotency-Key"]


def test_a_key_belongs_to_its_token(node):
    first = node.call("POST", "/initiatives", "member", KEY, **GARDEN).get_json()
    assert node.call("POST", "/initiatives", "facilitator", KEY, **GARDEN).get_json()["code"] != first["code"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é"])
def test_what_is_no_key_is_refused(node, key):
    answer = node.call("POST", "/initiatives", "member", {"Idempotency-Key": key}, **GARDEN)
    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["Idempotency-Key"])


def test_a_change_that_was_refused_can_be_mended_under_the_same_key(node):
    assert node.call("POST", "/initiatives", "member", KEY, **GARDEN | {"since": "2099-01-01"}).status_code == 409
    assert kept(node) == []
    assert node.call("POST", "/initiatives", "member", KEY, **GARDEN).status_code == 201


def test_a_crash_before_the_commit_leaves_neither_change_nor_answer(node, monkeypatch):
    register = actions.register_initiative

    def die(session, **told):
        register(session, **told)
        raise SystemExit

    before = head(node)
    monkeypatch.setattr(actions, "register_initiative", die)
    with pytest.raises(SystemExit):
        node.call("POST", "/initiatives", "member", KEY, **GARDEN)
    assert (head(node), kept(node)) == (before, [])
    monkeypatch.undo()
    assert node.call("POST", "/initiatives", "member", KEY, **GARDEN).status_code == 201
    assert (head(node), len(kept(node))) == (before + 1, 1)


def test_while_the_first_is_at_work_the_second_is_told_to_wait(node, monkeypatch):
    register, at_work, go_on = actions.register_initiative, threading.Event(), threading.Event()

    def slowly(session, **told):
        at_work.set()
        assert go_on.wait(20)
        return register(session, **told)

    monkeypatch.setattr(actions, "register_initiative", slowly)
    answers = []
    first = threading.Thread(target=lambda: answers.append(node.call("POST", "/initiatives", "member", KEY, **GARDEN)))
    first.start()
    assert at_work.wait(20)
    waiting = node.call("POST", "/initiatives", "member", KEY, **GARDEN)
    go_on.set()
    first.join()
    assert (waiting.status_code, list(waiting.get_json()["errors"])) == (409, ["Idempotency-Key"])
    assert node.call("POST", "/initiatives", "member", KEY, **GARDEN).data == answers[0].data


def test_an_answer_is_kept_for_thirty_days(node):
    first = node.call("POST", "/initiatives", "member", KEY, **GARDEN)
    site, now = node.app.extensions["site"], node.app.extensions["site"].clock()
    site.clock = lambda: now + timedelta(days=29, hours=23)
    assert node.call("POST", "/initiatives", "member", KEY, **GARDEN).data == first.data
    site.clock = lambda: now + timedelta(days=30, hours=1)
    assert node.call("POST", "/initiatives", "member", KEY, **GARDEN).data != first.data
    assert len(kept(node)) == 1


def test_a_kept_answer_cannot_be_read_without_the_token(hub):
    answer = hub.call("POST", "/towns", "association", KEY, town="dronten", name="Dronten")
    assert hub.call("POST", "/towns", "association", KEY, town="dronten", name="Dronten").data == answer.data
    (row,) = kept(hub)
    assert answer.get_json()["joining_code"].encode() not in row.answer
    assert hub.tokens["association"] not in str(row)


def test_between_processes_postgresql_keeps_the_second_one_waiting(postgres):
    from datetime import UTC, datetime

    from shared.db import Base, Database

    database = Database(postgres.fresh_database())
    Base.metadata.create_all(database.engine, tables=[answered])
    now = datetime(2015, 6, 20, tzinfo=UTC)
    with database.transaction() as first:
        assert Once("tk_1", "a", b"x").before(first, now) is None
        with pytest.raises(StillRunning), database.transaction() as second:
            Once("tk_1", "a", b"x").before(second, now)
        with database.transaction() as other:
            assert Once("tk_1", "b", b"x").before(other, now) is None
    database.close()

"""What an operator's machines ask: is it alive, is it ready, how far is it."""

import fcntl

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from shared.mail import queue_mail
from shared.operations import newest_revision, worker_runs


def ask(site, path):
    return site.app.test_client().get(path)


def numbers(site):
    answer = ask(site, "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name.removeprefix("tuinkoepel_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_site_that_serves_people_is_ready(site):
    assert ask(site, "/healthz").get_json() == {"status": "ok"}
    answer = ask(site, "/readyz")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok", "worker": "off"})


def test_a_worker_is_seen_by_its_lock(node, tmp_path):
    with (tmp_path / "node" / "worker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert worker_runs(tmp_path / "node")
        assert ask(node, "/readyz").get_json()["worker"] == "ok"
        assert numbers(node)["worker_up",] == 1
    assert not worker_runs(tmp_path / "node")


def test_missing_tables_are_named(site):
    with site.database.transaction() as session:
        session.execute(text("DROP TABLE mail"))
    answer = ask(site, "/readyz")
    assert answer.status_code == 503
    assert "tables are missing (mail)" in answer.get_json()["reason"]
    assert ask(site, "/healthz").status_code == 200


def test_tables_of_another_release_are_not_ready(site):
    folder = site.app.extensions["site"].folder / "migrations" / "versions"
    with site.database.transaction() as session:
        session.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        session.execute(text("INSERT INTO alembic_version VALUES (:held)"), {"held": newest_revision(folder)})
    assert ask(site, "/readyz").status_code == 200
    with site.database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'old'"))
    answer = ask(site, "/readyz")
    assert answer.status_code == 503
    assert "the tables are those of old" in answer.get_json()["reason"]


def test_a_database_that_is_away_is_not_ready_and_still_counted(node, tmp_path, monkeypatch):
    from shared.db import Database

    away = Database(f"sqlite:///{tmp_path}/no/such/folder.db")
    monkeypatch.setattr(node.app.extensions["site"], "database", away)
    answer = ask(node, "/readyz")
    assert answer.status_code == 503
    assert "the database does not answer" in answer.get_json()["reason"]
    assert numbers(node)["database_up",] == 0


def test_a_node_counts_what_it_told_and_what_waits(node):
    node.call("POST", "/initiatives", "member", name="T", kind="other", phase="idea")
    with node.database.transaction() as session:
        queue_mail(session, to="roos@example.org", subject="Hello", text="Hello", now=node.app.extensions["site"].clock())
    found = numbers(node)
    assert found["log_events",] == found["log_waiting_events",] == 4
    assert (found["mails_waiting",], found["database_up",], found["worker_up",]) == (1, 1, 0)
    assert found["requests_total", "2xx"] >= 1
    assert "example.org" not in ask(node, "/metrics").text


def test_the_hub_counts_per_town(hub):
    found = numbers(hub)
    assert found["town_stored_events", "almere"] == 7
    assert found["projection_stalls",] == 0
    assert found["feed_last_number",] >= 6


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_nothing_else_than_looking_is_done_there(site, path):
    assert site.app.test_client().post(path).status_code in {400, 405}

"""For who runs a site: `/healthz`, `/readyz` and `/metrics`.

**healthz**: this process answers. **readyz**: it can serve people: the database is there and its tables are those of this release;
otherwise 503 with the reason in one line. A worker that is off does not make a site unready, because a node works in full without
it and nothing is lost; the answer names it, and `tuinkoepel_worker_up` lets an alarm go off.

**metrics** is Prometheus text, made in `metrics.py`.
"""

import fcntl
import re
from pathlib import Path
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import inspect, text
from sqlalchemy.exc import SQLAlchemyError

from shared.web import reading, site

KERNEL = ("answered", "api_token", "head", "inbox", "log", "login_session", "mail", "payload", "projection", "relay")
"""Tables that every site has."""


def pages(state: Path | None) -> Blueprint:
    """The blueprint. `state` is the folder in which this site's worker holds its lock, if it is known."""
    blueprint = Blueprint("operations", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Any:
        return {"status": "ok"}

    @blueprint.get("/readyz")
    def readyz() -> Any:
        reason = why_not_ready(site().folder / "migrations" / "versions")
        if reason:
            return {"status": "not ready", "reason": reason}, 503
        return {"status": "ok"} | ({} if state is None else {"worker": "ok" if worker_runs(state) else "off"})

    @blueprint.get("/metrics")
    def metrics() -> Any:
        from shared.metrics import numbers  # noqa: PLC0415  # two megabytes, and few sites are asked

        runs = None if state is None else worker_runs(state)
        return Response(numbers(worker_runs=runs), content_type="text/plain; version=0.0.4; charset=utf-8")

    @blueprint.get("/favicon.ico")
    def favicon() -> Any:
        return Response(status=204)

    return blueprint


def worker_runs(state: Path) -> bool:
    """Whether a worker holds the lock in this folder."""
    try:
        with (state / "worker.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def why_not_ready(versions: Path) -> str:
    """In one line why people cannot be served; nothing when they can."""
    try:
        with reading() as session:
            missing = set(KERNEL) - set(inspect(session.connection()).get_table_names())
            if missing:
                return f"tables are missing ({', '.join(sorted(missing))}): run 'db upgrade'"
            if inspect(session.connection()).has_table("alembic_version"):
                held = session.scalar(text("SELECT version_num FROM alembic_version"))
                if held != (wanted := newest_revision(versions)):
                    return f"the tables are those of {held}, this release needs {wanted}: run 'db upgrade'"
            site().ready(session)
    except (SQLAlchemyError, OSError) as error:
        return f"the database does not answer: {type(error).__name__}: {getattr(error, 'orig', None) or error}"[:300]
    return ""


def newest_revision(versions: Path) -> str | None:
    """The migration that no other one follows."""
    named: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for file in versions.glob("*.py"):
        for word, value in re.findall(r"""^(revision|down_revision)\b[^=\n]*= *["']([^"']+)["']""", file.read_text(), re.MULTILINE):
            named[word].add(value)
    return next(iter(named["revision"] - named["down_revision"]), None)

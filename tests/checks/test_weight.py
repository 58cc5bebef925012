"""What must stay light, as far as it can be said in bytes and in names; `make bench` measures the rest."""

import subprocess
import sys

import pytest

from tests.benchmarks.weight import LIST_MAX, LISTED, VISIT_MAX, fill, transferred
from tests.processes import Visitor, World

NEITHER = {"alembic", "openpyxl", "snowballstemmer", "prometheus_client", "psycopg", "sqlalchemy.dialects.postgresql"}
WEB_NEEDS_NOT = NEITHER | {"kombu", "amqp"}
WORKER_NEEDS_NOT = NEITHER | {"flask", "jinja2", "werkzeug", "wtforms", "marshmallow"}
PROCESSES = [
    ("services.town_node.app", WEB_NEEDS_NOT),
    ("services.hub.app", WEB_NEEDS_NOT),
    ("services.town_node.worker", WORKER_NEEDS_NOT),
    ("services.hub.worker", WORKER_NEEDS_NOT),
]


@pytest.mark.parametrize(("process", "needs_not"), PROCESSES)
def test_a_process_at_rest_carries_nothing_it_does_not_need(process, needs_not):
    cli = f"{process.rpartition('.')[0]}.cli"
    script = f"import sys, {cli}, {process}; print(*sys.modules, sep='\\n')"
    read = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert needs_not.isdisjoint(read.stdout.split())


@pytest.fixture(scope="module")
def almere():
    """Almere's node with a thousand initiatives, as it is served."""
    with World(["almere"]) as world:
        world.start(["web"])
        fill(world.towns["almere"].database)
        yield world.towns["almere"]


@pytest.mark.parametrize("role", ["guest", "facilitator"])
def test_a_page_of_a_long_list_is_small_on_the_wire(almere, role):
    visitor = almere.visitor() if role == "facilitator" else Visitor(almere.url)
    answer = visitor.call("GET", "/initiatives")
    assert (answer.status, answer.headers["Content-Encoding"]) == (200, "gzip")
    assert answer.data.count(b'class="row linked"') == LISTED
    assert int(answer.headers["Content-Length"]) <= LIST_MAX


@pytest.mark.parametrize("path", ["/", "/initiatives", "/lessons"])
def test_a_first_visit_on_a_slow_phone_is_short(almere, new_page, path):
    page = new_page(width=390, height=844, is_mobile=True, has_touch=True)
    sizes = transferred(page, almere.url + path)
    assert "style.css" in sizes
    assert sum(sizes.values()) <= VISIT_MAX, sizes

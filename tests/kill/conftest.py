"""Worlds of real processes, over the combinations of parts. A world serves many tests: each kills a process and starts it again."""

import pytest

from tests.kill.verdict import Ledger
from tests.processes import World

PARTS = [("sqlite", "sqlite_bus"), ("postgresql", "rabbitmq"), ("sqlite", "rabbitmq"), ("postgresql", "sqlite_bus")]
"""Databases and buses."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """One world after the other: tests that share one stand together, so that each is made once."""
    here = [
        number for number, item in enumerate(items) if "world" in getattr(item, "fixturenames", ()) and hasattr(item, "callspec")
    ]
    ours = sorted((items[number] for number in here), key=lambda item: (item.path, PARTS.index(item.callspec.params["world"])))
    for number, item in zip(here, ours, strict=True):
        items[number] = item


@pytest.fixture(scope="module")
def world(request):
    """`request.param` names a database and a bus: ("postgresql", "sqlite_bus")."""
    database, bus = request.param
    fresh = request.getfixturevalue("postgres").fresh_database if database == "postgresql" else None
    forked = request.module.__name__.rpartition(".")[2] == "test_failpoints"  # a hundred starts; elsewhere the console scripts
    with World(database=fresh, bus=request.getfixturevalue("rabbit").url if bus == "rabbitmq" else "", forked=forked) as made:
        made.start()
        yield made


@pytest.fixture(autouse=True)
def whole(request):
    """Every test begins with everything running, whatever the one before it left lying."""
    if "world" in request.fixturenames:
        world = request.getfixturevalue("world")
        for service in (world.hub, world.towns["almere"], world.towns["dronten"]):
            for kind in ("web", "worker"):
                if not service.runs(kind):
                    service.kill(kind)
                    service.start(kind)
                    service.wait_until_ready(kind)


@pytest.fixture(scope="module")
def ledger(world):
    """Somebody who writes in Almere, in all tests of this world."""
    return Ledger(world.towns["almere"])

"""One association for all stories, told twice: on embedded parts, and on PostgreSQL with RabbitMQ.

Its processes start once for each; every story brings its own gardens, evenings and words, and finds everything running.
"""

import pytest

from services.hub.config import HERE as HUB
from services.town_node.config import HERE as NODE
from shared import language
from tests.processes import World
from tests.stories.people import Person, log_in

PARTS = ("embedded", "servers")
_running: list[World] = []


@pytest.fixture(scope="session", params=PARTS)
def federation(request):
    """Hub, Almere and Dronten as real processes on these parts."""
    for folder in (HUB, NODE):
        language.use_catalogues(folder / "translations")
    parts = {}
    if request.param == "servers":
        parts = {"database": request.getfixturevalue("postgres").fresh_database, "bus": request.getfixturevalue("rabbit").url}
    with World(town_settings={"DEMO": "yes"}, hub_settings={"DEMO": "yes"}, forked=True, **parts) as made:
        _running.append(made)
        made.start()
        yield made
    _running.remove(made)


@pytest.hookimpl(trylast=True)  # a story may look at the processes at its own end
def pytest_runtest_teardown(item, nextitem):
    """After the last story nothing idles beside the tests that follow."""
    if nextitem is None or nextitem.path.parent != item.path.parent:
        for world in _running:
            world.end()


@pytest.fixture(autouse=True)
def land(federation):
    """The association and its towns, everything running, whatever the story before left lying."""
    for service in (federation.hub, federation.towns["almere"], federation.towns["dronten"]):
        for kind in ("web", "worker"):
            if not service.runs(kind):
                service.kill(kind)
                service.start(kind)
                service.wait_until_ready(kind)
    return federation


@pytest.fixture
def almere(land):
    return land.towns["almere"]


@pytest.fixture
def dronten(land):
    return land.towns["dronten"]


@pytest.fixture
def hub(land):
    return land.hub


@pytest.fixture
def fenna(almere) -> Person:
    """The facilitator of Almere, logged in."""
    return log_in(almere)


@pytest.fixture
def passer_by(hub) -> Person:
    """Somebody who looks at the association's pages."""
    return Person(hub.url)

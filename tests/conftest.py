"""Fixtures that many tests share. Real parts; only the clock and the outside world are ever made up."""

from pathlib import Path

import pytest

from tests.services import Postgres, Rabbit, chromium


@pytest.fixture(scope="session")
def postgres():
    server = Postgres()
    yield server
    server.end()


@pytest.fixture(scope="session")
def rabbit():
    server = Rabbit()
    yield server
    server.end()


@pytest.fixture(scope="session")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def new_page(browser):
    """Opens pages, each for a visitor of its own: `new_page(width=390, locale="nl-NL", color_scheme="dark")`."""
    contexts = []

    def open_page(width=1280, height=800, locale="nl-NL", color_scheme="light", **options):
        viewport = {"width": width, "height": height}
        contexts.append(browser.new_context(viewport=viewport, locale=locale, color_scheme=color_scheme, **options))
        return contexts[-1].new_page()

    yield open_page
    for context in contexts:
        context.close()


ROOT = Path(__file__).parents[1]

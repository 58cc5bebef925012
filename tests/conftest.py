"""Fixtures that many tests share. Real parts; only the clock and the outside world are ever made up."""

import os
from pathlib import Path

import pytest

from tests.services import Postgres, Rabbit


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
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=[
                *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
                *("--disable-sync", "--no-first-run", "--no-proxy-server"),
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
            ],
        )
        yield chromium
        chromium.close()


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

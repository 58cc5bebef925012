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
                *("--disable-sync", "--no-first-run"),
            ],
        )
        yield chromium
        chromium.close()


ROOT = Path(__file__).parents[1]

"""The sites and their readers, for every test that opens a browser."""

import pytest

from tests.browser.sites import serve_sites


@pytest.fixture(scope="session")
def sites(tmp_path_factory):
    with serve_sites(tmp_path_factory.mktemp("sites")) as served:
        yield served

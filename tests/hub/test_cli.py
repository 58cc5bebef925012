"""`hub`, run as an operator runs it: what it does, and the one line it says when it cannot."""

import re
import shutil
import socket

import pytest
from click.testing import CliRunner

from services.hub.cli import cli
from tests.console import Console, commands

UPGRADE_FIRST = "run `hub db upgrade` first"


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A state folder with tables, to be copied."""
    console = Console("hub", tmp_path_factory.mktemp("tables"))
    console.does("db", "upgrade")
    return console.state


@pytest.fixture
def blank(tmp_path):
    """A hub without anything."""
    return Console("hub", tmp_path)


@pytest.fixture
def hub(blank, tables):
    """A hub with tables."""
    shutil.copytree(tables, blank.state)
    return blank


@pytest.mark.parametrize("words", commands(cli), ids=" ".join)
def test_every_command_says_what_it_does_without_any_setting(words, monkeypatch):
    monkeypatch.delenv("TUINKOEPEL_HUB_STATE", raising=False)
    said = CliRunner().invoke(cli, [*words, "--help"])
    assert said.exit_code == 0, said.output
    assert commands(cli)[words].help


@pytest.mark.parametrize(
    ("words", "settings", "line"),
    [
        (("run", "worker"), {"BUS": "redis://x"}, "TUINKOEPEL_HUB_BUS='redis://x' cannot be used"),
        (("run", "worker"), {"MAIL": "post:office"}, "TUINKOEPEL_HUB_MAIL='post:office' cannot be used"),
        (("run", "worker"), {}, UPGRADE_FIRST),
        (("run", "web"), {}, UPGRADE_FIRST),
        (("login-link", "vera@koepel.example"), {}, UPGRADE_FIRST),
        (("town", "add", "almere", "Almere"), {}, UPGRADE_FIRST),
        (("rebuild",), {}, UPGRADE_FIRST),
        (("db", "upgrade"), {"STATE": "/dev/null/tuin"}, "/dev/null/tuin: Not a directory"),
    ],
)
def test_a_command_that_cannot_be_done_says_why(blank, words, settings, line):
    assert line in blank.refuses(*words, **settings)


def test_a_port_in_use_is_named(hub):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} on 127.0.0.1 cannot be used" in hub.refuses("run", "web", "--port", str(port))


def test_a_damaged_key_is_named(hub):
    (hub.state / "koepel.key").write_text("")
    assert "koepel.key holds no key" in hub.refuses("run", "worker")


def test_a_full_disk_is_said_in_one_line(blank):
    assert blank.refuses("db", "upgrade", file_size=60_000).startswith("Database: ")


def test_a_lost_joining_code_is_replaced_until_the_town_has_joined(hub):
    first = hub.does("town", "add", "almere", "Almere")
    assert re.fullmatch(r"([A-Z0-9]{5}-){3}[A-Z0-9]{5}", first)
    assert "TownExists" in hub.refuses("town", "add", "almere", "Almere")
    second = hub.does("town", "code", "almere")
    assert second != first
    assert "NotFound" in hub.refuses("town", "code", "dronten")


def test_a_login_link_is_printed_once_the_person_is_known_also_when_mail_is_down(hub):
    assert "nobody here" in hub.refuses("login-link", "vera@koepel.example")
    hub.does("person", "add", "Vera Voorbeeld", "Vera@koepel.example")
    link = hub.does("login-link", "vera@koepel.example", MAIL="smtp://127.0.0.1:1", URL="https://koepel.example")
    assert link.startswith("https://koepel.example/login/link/")
    assert hub.does("token", "vera@koepel.example").startswith("tk_")


def test_a_test_mail_arrives_or_says_plainly_what_went_wrong(hub):
    arrived = hub.does("test-mail", "Vera@koepel.example", MAIL=f"folder:{hub.state / 'post'}")
    assert arrived == "Sent to vera@koepel.example."
    assert len(list((hub.state / "post").glob("*.eml"))) == 1
    assert "the mail could not be sent: ConnectionRefusedError" in hub.refuses(
        "test-mail", "a@b.example", MAIL="smtp://127.0.0.1:1"
    )

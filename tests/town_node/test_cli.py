"""`town-node`, run as an operator runs it: what it does, and the one line it says when it cannot."""

import shutil
import socket
import sqlite3

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from click.testing import CliRunner

from services.town_node.cli import cli
from tests.console import Console, commands
from tests.services import free_port

UPGRADE_FIRST = "run `town-node db upgrade` first"


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A state folder with tables, to be copied."""
    console = Console("town-node", tmp_path_factory.mktemp("tables"))
    console.does("db", "upgrade")
    return console.state


@pytest.fixture
def blank(tmp_path):
    """A node without anything."""
    return Console("town-node", tmp_path)


@pytest.fixture
def node(blank, tables):
    """A node with tables, which has not joined."""
    shutil.copytree(tables, blank.state)
    return blank


@pytest.mark.parametrize("words", commands(cli), ids=" ".join)
def test_every_command_says_what_it_does_without_any_setting(words, monkeypatch):
    monkeypatch.delenv("TUINKOEPEL_NODE_STATE", raising=False)
    said = CliRunner().invoke(cli, [*words, "--help"])
    assert said.exit_code == 0, said.output
    assert commands(cli)[words].help


def test_help_keeps_the_lines_of_its_examples(blank):
    assert "town-node run worker                          the worker\n" in blank.run("--help").stdout


def test_the_state_folder_has_to_be_named(blank):
    assert "TUINKOEPEL_NODE_STATE is not set" in blank.refuses("db", "upgrade", STATE="")


@pytest.mark.parametrize(
    ("words", "settings", "line"),
    [
        (("run", "worker"), {"BUS": "rabbit"}, "TUINKOEPEL_NODE_BUS='rabbit' cannot be used"),
        (("run", "worker"), {"MAIL": "post:office"}, "TUINKOEPEL_NODE_MAIL='post:office' cannot be used"),
        (("run", "web"), {"LOG_LEVEL": "loud"}, "TUINKOEPEL_NODE_LOG_LEVEL='loud' cannot be used"),
        (("run", "web"), {"STAET": "/x"}, "TUINKOEPEL_NODE_STAET is no setting"),
        (("run", "worker"), {}, UPGRADE_FIRST),
        (("run", "web"), {}, UPGRADE_FIRST),
        (("login-link", "fenna@almere.example"), {}, UPGRADE_FIRST),
        (("run", "web"), {"DATABASE": "postgresql://tuin@127.0.0.1:1/tuin"}, "Database:"),
        (("db", "upgrade"), {"STATE": "/dev/null/tuin"}, "/dev/null/tuin: Not a directory"),
    ],
)
def test_a_process_that_cannot_start_says_why(blank, words, settings, line):
    assert line in blank.refuses(*words, **settings)


def test_a_port_in_use_is_named(node):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} on 127.0.0.1 cannot be used" in node.refuses("run", "web", "--port", str(port))


@pytest.mark.parametrize("kind", ["web", "worker"])
def test_tables_of_another_release_are_not_worked_with(node, kind):
    with sqlite3.connect(node.state / "node.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'of-the-future'")
    database.close()
    assert UPGRADE_FIRST in node.refuses("run", kind)
    assert "newer release" in node.refuses("db", "upgrade")


@pytest.mark.parametrize("name", ["town.key", "web.secret"])
def test_a_damaged_key_file_is_named_and_never_replaced(node, name):
    (node.state / name).write_bytes(b"\xff\x00 not a key")
    assert f"{name} holds no key" in node.refuses("run", "web")
    assert (node.state / name).read_bytes() == b"\xff\x00 not a key"


def test_a_damaged_database_is_called_so(node):
    (node.state / "node.db").write_bytes(b"garden" * 10_000)
    assert "Database: file is not a database" in node.refuses("run", "worker")


def test_a_full_disk_is_said_in_one_line(blank):
    assert blank.refuses("db", "upgrade", file_size=60_000).startswith("Database: ")


def test_a_circle_can_begin_before_it_has_joined(node):
    node.run("person", "add", "Fenna Facilitator", "fenna@almere.example", "--role", "facilitator")
    assert node.run("login-link", "fenna@almere.example").stdout.startswith("http")


def test_a_hub_that_does_not_answer_is_named(node):
    address = f"http://127.0.0.1:{free_port()}"
    assert address in node.refuses("join", "--hub", address, "AAAAA-BBBBB-CCCCC-DDDDD")


def test_an_address_that_is_none_is_refused(node):
    said = node.run("person", "add", "Fenna", "fenna at almere")
    assert said.returncode == 2
    assert "no e-mail address" in said.stderr


def test_a_stranger_gets_no_login_link(node):
    assert "nobody here has the address" in node.refuses("login-link", "wie@almere.example")


def test_a_test_mail_says_plainly_what_went_wrong(node):
    assert "the mail could not be sent" in node.refuses("test-mail", "a@b.example", MAIL=f"smtp://127.0.0.1:{free_port()}")


def test_a_test_mail_says_which_password_is_wrong_and_does_not_say_the_password(node):
    class Stranger:
        """Knows nobody."""

        async def auth_PLAIN(self, _server, _told):  # noqa: N802  # aiosmtpd's name
            return AuthResult(success=False, handled=False)

    server = Controller(Stranger(), hostname="127.0.0.1", port=free_port(), auth_require_tls=False)
    server.start()
    try:
        said = node.refuses("test-mail", "a@b.example", MAIL=f"smtp://kring:geheim@127.0.0.1:{server.port}")
    finally:
        server.stop()
    assert "the mail could not be sent: the mail server does not take this name and password: 535" in said
    assert "geheim" not in said
    unreadable = node.refuses("test-mail", "a@b.example", MAIL="smtp://kring:ge/he#im@mail.example")
    assert "in a password write / ? # % @ as %2F %3F %23 %25 %40" in unreadable
    assert "im@" not in unreadable


def test_a_test_mail_arrives(node):
    got = []

    class Keep:
        async def handle_DATA(self, _server, _session, envelope):  # noqa: N802  # aiosmtpd's name
            got.append(envelope)
            return "250 OK"

    server = Controller(Keep(), hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        assert node.does("test-mail", "A@B.example", MAIL=f"smtp://127.0.0.1:{server.port}") == "Sent to a@b.example."
    finally:
        server.stop()
    assert got[0].rcpt_tos == ["a@b.example"]


def test_what_a_node_keeps_is_for_its_owner(node):
    assert node.state.stat().st_mode & 0o077 == 0
    assert (node.state / "node.db").stat().st_mode & 0o007 == 0


def test_the_setup_code_is_the_same_until_it_was_used(node):
    code = node.does("setup-code")
    assert len(code) == 23
    assert node.does("setup-code") == code
    node.does("person", "add", "Fenna Facilitator", "fenna@almere.example", "--role", "facilitator")
    assert "BegunAlready" in node.refuses("setup-code")

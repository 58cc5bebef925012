"""The systemd units, and the hub's that are made of them by the command in their first lines: what they call is there."""

import re
import subprocess
from configparser import ConfigParser

import pytest

from tests.conftest import ROOT
from tests.console import BIN, Console

UNIT = ROOT / "deploy" / "tuinkoepel-node@.service"


@pytest.fixture(params=["town-node", "hub"])
def unit(request):
    """The program, and its unit."""
    text = UNIT.read_text()
    if request.param == "hub":
        script = re.search(r"^# For a hub: sed '([^']+)'", text, re.MULTILINE)[1]
        text = subprocess.run(["sed", script, UNIT], capture_output=True, text=True, check=True).stdout
    return request.param, text


def test_a_unit_runs_what_there_is_with_settings_that_there_are(unit, tmp_path):
    program, text = unit
    service = ConfigParser(strict=False, interpolation=None)
    service.optionxform = str
    service.read_string(text)
    part = service["Service"]
    name, folder = part["Environment"].split("=")
    assert folder == f"/var/lib/{part['StateDirectory']}"
    console = Console(program, tmp_path)
    before = part["ExecStartPre"].split()
    assert before[0] == part["ExecStart"].split()[0] == f"/opt/tuinkoepel/.venv/bin/{program}"
    assert name in console.does("settings")
    console.does(*before[1:])
    for kind in ("web", "worker"):
        console.does(*part["ExecStart"].replace("%i", kind).split()[1:], "--help")
    other = "NODE" if program == "hub" else "HUB"
    assert f"TUINKOEPEL_{other}_" not in text


# ---- The backup, the bus that hub and node share, and the command line beside the units ----------------------------------------

DEPLOY = ROOT / "deploy"
BACKUP = "tuinkoepel-node-backup"


def for_hub(text):
    """What the command in the first lines makes of it."""
    script = re.search(r"^# For a hub: sed '([^']+)'", UNIT.read_text(), re.MULTILINE)[1]
    return subprocess.run(["sed", script], input=text, capture_output=True, text=True, check=True).stdout


def parts(text):
    read = ConfigParser(strict=False, interpolation=None)
    read.optionxform = str
    read.read_string(text)
    return read


@pytest.mark.parametrize("program", ["town-node", "hub"])
def test_the_backup_runs_what_there_is_as_the_site_and_with_its_settings(program, tmp_path):
    texts = (DEPLOY / f"{BACKUP}.service").read_text(), UNIT.read_text()
    backup, site = (parts(text if program == "town-node" else for_hub(text))["Service"] for text in texts)
    for same in ("User", "Group", "EnvironmentFile", "Environment", "UMask", "StateDirectoryMode"):
        assert backup[same] == site[same]
    called, *words = backup["ExecStart"].split()
    assert called == site["ExecStart"].split()[0]
    assert words[1].removeprefix("/var/lib/") in backup["StateDirectory"].split()
    console = Console(program, tmp_path)
    console.does("db", "upgrade")
    words[1] = str(tmp_path / "safe")
    assert console.does(*words).startswith(words[1])


def test_systemd_understands_every_unit(tmp_path):
    """`systemd-analyze verify` with the program at a place where there is one, and the bus that hub and node share dropped in."""
    files = [UNIT, DEPLOY / f"{BACKUP}.service", DEPLOY / f"{BACKUP}.timer"]
    for file in files:
        for name, text in ((file.name, file.read_text()), (file.name.replace("node", "hub"), for_hub(file.read_text()))):
            (tmp_path / name).write_text(re.sub(r"/opt/tuinkoepel/.venv/bin/\S+", "/bin/true", text))
    for site in ("node", "hub"):
        (tmp_path / f"tuinkoepel-{site}@.service.d").mkdir()
        (tmp_path / f"tuinkoepel-{site}@.service.d" / "bus.conf").write_text((DEPLOY / "shared-bus.conf").read_text())
    units = [path.name.replace("@", "@web") for path in tmp_path.glob("tuinkoepel-*.*") if path.is_file()]
    assert len(units) == 6
    said = subprocess.run(
        ["systemd-analyze", "verify", *units],
        check=False,
        cwd=tmp_path,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
    )
    about_ours = [line for line in said.stderr.splitlines() if "tuinkoepel" in line]
    assert (said.returncode, about_ours) == (0, [])


def test_hub_and_node_find_their_shared_bus_where_both_may_write():
    text = (DEPLOY / "shared-bus.conf").read_text()
    folder = "/var/lib/" + parts(text)["Service"]["StateDirectory"]
    assert re.search(r"TUINKOEPEL_HUB_BUS=sqlite:///(\S+)/bus.db", text)[1] == folder
    assert parts(UNIT.read_text())["Service"]["User"] == parts(for_hub(UNIT.read_text()))["Service"]["User"]


def test_the_command_line_beside_the_units_has_their_settings_and_no_shell_reads_them(tmp_path):
    script, node = (DEPLOY / "as-service.sh").read_text(), parts(UNIT.read_text())["Service"]
    assert f"--reuid={node['User']} --regid={node['Group']}" in script
    for real, here in (
        ("/etc/tuinkoepel", tmp_path),
        ("/var/lib/tuinkoepel", tmp_path / "lib"),
        ("/opt/tuinkoepel/.venv/bin", BIN),
        ("--reuid=tuinkoepel --regid=tuinkoepel", "--reuid=root --regid=root"),
    ):
        assert real in script
        script = script.replace(real, str(here))
    (tmp_path / "lib-node").mkdir()
    (tmp_path / "node.env").write_text(
        f"# Almere\nTUINKOEPEL_NODE_MAIL_FROM=Kring $(touch {tmp_path}/evil) <kring@almere.example>\n"
        'TUINKOEPEL_NODE_URL="https://almere.example"\n'
    )

    def call(*words):
        done = subprocess.run(["bash", "-c", script, "as-service.sh", *words], capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else done.stderr

    call("node", "db", "upgrade")
    call("node", "person", "add", "Fenna van Dam", "fenna@almere.example", "--role", "facilitator")
    assert call("node", "login-link", "fenna@almere.example").startswith("https://almere.example/login/link/")
    assert (tmp_path / "lib-node" / "node.db").exists()
    assert not (tmp_path / "evil").exists()
    assert "cannot be read: call this with sudo" in call("hub", "settings")
    assert call().startswith("Which site?")

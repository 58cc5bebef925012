"""The systemd unit, and the hub's that is made of it by the command in its first lines: what it calls is there."""

import re
import subprocess
from configparser import ConfigParser

import pytest

from tests.conftest import ROOT
from tests.console import Console

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

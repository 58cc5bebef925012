"""The README's lines for scripts, run exactly as they stand there, against a node and a hub that really listen."""

import json
import re
import subprocess
import sys
import threading

import pytest
from werkzeug.serving import make_server

from tests.conftest import ROOT

LINES = dict(re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "README.md").read_text().partition("## For scripts")[2], re.DOTALL))


@pytest.fixture
def folder(node, hub, tmp_path):
    """A folder that looks as the demo leaves it."""
    servers = []
    for name, site, role in (("almere", node, "facilitator"), ("hub", hub, "association")):
        server = make_server("127.0.0.1", 0, site.app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        (tmp_path / "var" / name).mkdir(parents=True)
        (tmp_path / "var" / name / "api.env").write_text(f"URL=http://127.0.0.1:{server.port}\nTOKEN={site.tokens[role]}\n")
    yield tmp_path
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_curl_lines_of_the_readme_work(folder, node):
    lines = LINES["sh"]
    assert len(lines.splitlines()) == 5
    ran = subprocess.run(["sh", "-e", "-c", lines], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    made, shared, found, national = ran.stdout.splitlines()  # an answer a line, and the prompt on the next
    assert ran.stdout.endswith("\n")
    assert json.loads(made)["name"] == "Kruidentuin"
    assert json.loads(shared)["code"] == json.loads(found)["items"][0]["code"]
    assert '"town":"almere"' in national
    assert [item["title"] for item in node.call("GET", "/lessons").get_json()["items"]] == ["Vraag water vroeg aan"]


def test_the_python_lines_of_the_readme_work(folder, node):
    lines = LINES["python"]
    assert len(lines.splitlines()) == 5
    command = [sys.executable, "-c", lines]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    (lesson,) = node.call("GET", "/lessons").get_json()["items"]
    assert ran.stdout == f"{lesson['code']} ['Begin klein']\n"

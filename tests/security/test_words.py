"""What people write is text and stays text, wherever it is shown and whichever town it came from."""

import csv
import io
import re
from datetime import date, time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.town_node.lessons.library import LibraryLesson
from shared import events
from shared.web import markdown
from tests.api import conftest as sites
from tests.security.conftest import Door, person_code

PROBES = [
    "<script>owned()</script>",
    "<ScRiPt src=//evil.example/x.js></ScRiPt>",
    "<img src=x onerror=owned()>",
    '"><svg onload=owned()>',
    "'><svg/onload=owned()>",
    "</title><script>owned()</script>",
    "</textarea><script>owned()</script>",
    "<a href='javascript:owned()'>x</a>",
    "[x](javascript:owned())",
    "[x](JaVaScRiPt:owned())",
    "[x](java\tscript:owned())",
    "[x](&#106;avascript:owned())",
    "[x](vbscript:owned())",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](file:///etc/passwd)",
    "<javascript:owned()>",
    "![x](https://evil.example/pixel.png)",
    "[x]: javascript:owned()\n\n[x]",
    "[x](https://a.example 'x\" onmouseover=\"owned()')",
    "`<script>owned()</script>`",
    "<!--><script>owned()</script>-->",
    "<math><mtext></mtext><style><img src=x onerror=owned()></style></math>",
    "<iframe srcdoc='<script>owned()</script>'></iframe>",
    "<form action=https://evil.example><input name=csrf_token></form>",
    "<base href=https://evil.example>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "{{ 7*7 }}{% raw %}",
    "\u202egnp.exe",
]
LINES = [probe for probe in PROBES if "\n" not in probe and "\t" not in probe]
MALICIOUS = "".join(LINES[:3])[:150]
TEXT = "\n\n".join(PROBES)


class Looker(HTMLParser):
    """Finds what a browser would run, load or follow."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.links: list[dict[str, str]] = []
        self._script = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        has = {name: value or "" for name, value in attrs}
        if tag in {"iframe", "object", "embed", "base", "math", "style", "img"}:
            self.found.append(f"<{tag}>")
        if tag == "meta" and "http-equiv" in has:
            self.found.append("<meta http-equiv>")
        if tag == "script":
            self._script = True
            if not re.match(r"/(shared|static)/", has.get("src", "")):
                self.found.append(f"<script {has}>")
        for name, value in has.items():
            if name.startswith("on") or name in {"style", "srcdoc"}:
                self.found.append(f"{tag} {name}")
            if name in {"href", "src", "action", "formaction", "xlink:href"}:
                scheme = re.sub(r"[\x00-\x20]", "", value).lower().partition(":")[0]
                icon = tag == "link" and value.startswith("data:image/svg+xml")
                if scheme in {"javascript", "vbscript", "data", "file"} and not icon:
                    self.found.append(f"{tag} {name}={value}")
                if name == "action" and not re.fullmatch(r"(/(?!/).*)?", value):
                    self.found.append(f"form to {value}")
        if tag == "a":
            self.links.append(has)

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        if self._script and data.strip():
            self.found.append(f"script: {data[:40]}")

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = False


# ---- Markdown --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", PROBES)
def test_markdown_makes_nothing_that_runs(probe):
    html = str(markdown(probe))
    assert Looker(html).found == []
    assert not re.search(r"<(?!/?(p|br|em|strong|a|ul|ol|li|blockquote|code|pre|h[2-6]|hr)\b)", html)


MARKS = [
    "[",
    "](",
    ")",
    "<",
    ">",
    "&",
    "#",
    "`",
    "*",
    "_",
    "~",
    "!",
    "'",
    '"',
    "\\",
    "\n",
    "\n\n",
    "\t",
    "    ",
    "- ",
    "1. ",
    "> ",
    "|",
    ":",
    "//",
]
PIECES = st.one_of(
    st.sampled_from([*PROBES, *MARKS, "javascript:", "onclick=", "&#x6a;", "http://a", "\x00", "\ufeff"]), st.text(max_size=12)
)


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_whatever_is_strung_together_makes_nothing_that_runs(text):
    html = str(markdown.__wrapped__(text))
    assert Looker(html).found == []
    assert not re.search(r"<(?!/?(p|br|em|strong|a|ul|ol|li|blockquote|code|pre|h[2-6]|hr)\b)", html)
    for link in Looker(html).links:
        assert set(link) <= {"href", "rel", "title"}
        assert re.match(r"(https?|mailto):|[^:]*$|[^:]*[/?#]", link.get("href", ""), re.IGNORECASE)


def test_a_link_to_elsewhere_gives_nothing_along():
    (link,) = Looker(str(markdown("[x](https://a.example)"))).links
    assert set(link["rel"].split()) >= {"nofollow", "noopener"}
    assert set(link) == {"href", "rel"}


@pytest.mark.parametrize(
    "mark", ["[", "*", "_", ">", "`", "![", "[a](", "- ", "1. ", "<", "&", "**a", "~", "|", "\\", "#", "\t", "[[]", "*_"]
)
def test_twenty_thousand_marks_are_shown_and_no_more_than_that(mark):
    """Measured: none took longer than 130 ms. The parser nests twenty deep and no deeper."""
    html = str(markdown((mark * 20_000)[: events.TEXT_MAX]))
    assert len(html) < 8 * events.TEXT_MAX
    depth = deepest = 0
    for close in re.findall(r"<(/?)(?:ul|ol|li|blockquote|em|strong|p)>", html):
        depth += -1 if close else 1
        deepest = max(deepest, depth)
    assert deepest <= 60


# ---- On the pages ----------------------------------------------------------------------------------------------------------

HOSTILE = (
    events.CircleDescribed(circle="circle", name=LINES[0], place_name=LINES[2], about_text=TEXT, themes=("script_owned",),
                           place=events.Place(latitude=52_370_000, longitude=5_215_000)),
    events.InitiativeRegistered(
        initiative="tuin-0001", name=LINES[3], kind="community_garden", about_text=TEXT, place_name=LINES[4], visiting=LINES[7],
        history=(events.PhaseStep(phase="idea", since=date(2014, 4, 1)),),
        place=events.Place(latitude=52_371_000, longitude=5_215_000), visitors=True,
    ),
    events.MeetingHeld(
        meeting="avond-01", kind="circle", title=LINES[5], day=date(2015, 2, 1), starts=time(19, 30), status="held", attended=15,
        place_name=LINES[2], agenda=(events.AgendaItem(title=LINES[6], minutes=45),), report=TEXT,
    ),
    events.LessonShared(
        lesson="les-0001", title=LINES[3], body=TEXT, kind="do", theme="water", shared_on=date(2015, 3, 1),
        byline=events.Byline(name=LINES[2], agreed=date(2015, 3, 1)),
    ),
)  # fmt: skip


@pytest.fixture
def hostile_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(sites, "TOLD", HOSTILE)
    made = sites.make_hub(tmp_path)
    yield Door(made.app)
    made.database.close()


HUB_PAGES = [
    "/", "/?phase=idea", "/towns", "/towns/almere", "/initiatives", "/initiatives/almere/tuin-0001", "/meetings",
    "/meetings/almere/avond-01", "/lessons", "/lessons?q=owned", "/lessons?theme=water", "/lessons/almere/les-0001", "/association",
]  # fmt: skip


@pytest.mark.parametrize("path", HUB_PAGES)
def test_what_a_town_says_runs_nowhere_on_the_hub(hostile_hub, path):
    answer = hostile_hub.guest(person_code(hostile_hub, "vera@example.org")).get(path)
    assert answer.status_code == 200
    looked = Looker(answer.text)
    assert looked.found == []
    for link in looked.links:
        assert not link["href"].startswith(("//", "/\\"))
        if link["href"].startswith("http"):
            assert "noopener" in link["rel"]


def test_what_the_map_fetches_is_json_and_nothing_else(hostile_hub):
    for path in ("/map.json", "/numbers.json", "/api/v1/lessons", "/api/v1/initiatives"):
        answer = hostile_hub.guest().get(path)
        assert answer.mimetype == "application/json", path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert hostile_hub.guest().get("/map.json").status_code == 200


@pytest.fixture
def hostile_node(node, people):
    """What another town wrote, and what a member with bad intentions wrote."""
    guest = node.guest()
    token = sites.login.make_api_token
    with node.database.transaction() as session:
        key = token(session, people["facilitator"], MALICIOUS, node.now)
        session.add(
            LibraryLesson(town="dronten", lesson="les-0009", title=LINES[2], body=TEXT, kind="do", theme="x_script", stems="",
                          shared_on=date(2015, 1, 1))
        )  # fmt: skip

    def call(method, path, **body):
        answer = guest.open(f"/api/v1{path}", method=method, json=body, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code < 300, answer.text
        return answer.get_json()

    call("PATCH", "/circle", name=LINES[0], place_name=LINES[2], about_text=TEXT.replace("\t", " "))
    made = call("POST", "/initiatives", name=LINES[3], kind="other", phase="idea", about_text=TEXT.replace("\t", " "))
    evening = call("POST", "/meetings", title=LINES[5], kind="circle", day="2015-06-20", starts="19:30", place_name=LINES[2],
                   agenda=[{"title": LINES[6], "minutes": 10}])  # fmt: skip
    lesson = call("POST", "/lessons", title=LINES[4], body=TEXT.replace("\t", " "), kind="do", theme="water")
    node.paths = [
        "/", "/circle", "/circle/edit", "/circle/people", "/initiatives", f"/initiatives/{made['code']}", "/tokens", "/trail",
        f"/initiatives/{made['code']}/edit", "/meetings", f"/meetings/{evening['code']}", f"/meetings/{evening['code']}/edit",
        f"/meetings/{evening['code']}/hold", "/lessons", f"/lessons/{lesson['code']}", f"/lessons/{lesson['code']}/edit",
        "/association", "/association/dronten/les-0009", "/transfer", "/lessons?q=%3Cscript%3Eowned()",
        "/login?next=%22%3E%3Cscript%3E", "/association?theme=%22%3E%3Cscript%3E",
    ]  # fmt: skip
    return node


def test_what_others_wrote_runs_nowhere_on_a_node(hostile_node, people):
    for guest in (hostile_node.guest(people["facilitator"]), hostile_node.guest()):
        for path in hostile_node.paths:
            answer = guest.get(path)
            assert Looker(answer.text).found == [], path


def test_what_others_wrote_is_no_formula_in_a_spreadsheet(node, people):
    from services.town_node.lessons.actions import share_lesson

    with node.database.transaction() as session:
        for title in ('=HYPERLINK("https://evil.example")', "+1+1", "-1", "@SUM(A1)"):  # fmt: skip
            share_lesson(session, people["member"], title=title, body="x", kind="tip", theme="water", today=node.now.date())
    text = node.guest(people["facilitator"]).get("/transfer/export/lessons.csv").get_data().decode("utf-8-sig")
    cells = [cell for row in csv.reader(io.StringIO(text), delimiter=";") for cell in row]
    assert any("HYPERLINK" in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_a_name_writes_no_second_header_into_a_mail(node, people):
    from services.town_node.circle.model import Member
    from shared.mail import compose, mail
    from tests.security.test_login import ask

    with node.database.transaction() as session:
        session.get(Member, people["member"]).name = "Bas\r\nBcc: all@example.org"
    ask(node, node.guest(), "member@example.org")
    (row,) = node.rows(mail)
    letter = compose(sender="K <k@example.org>", to=row.recipient, subject=row.subject, text=row.text, now=node.now, place="m1")
    assert letter["Bcc"] is None
    assert letter["To"] == "member@example.org"

"""What the documents promise about the code, held against the code (style.md, Checks; design.md §2).

Most of it is read from the sources, so that a promise also holds for the file that is written tomorrow.
"""

import ast
import dataclasses
import hashlib
import re
import typing
from collections import Counter
from pathlib import Path

import orjson
import pytest

from services.hub import config as hub_config
from services.town_node import config as node_config
from shared import events
from shared.events import VOCABULARY, Event, event
from shared.settings import settings_table

ROOT = Path(__file__).parents[1]
MODULES = [
    path
    for room in ("shared", "services")
    for path in sorted((ROOT / room).rglob("*.py"))
    if not {"migrations", "assets"} & set(path.relative_to(ROOT).parts)
]
TEMPLATES = [path for room in ("shared", "services") for path in sorted((ROOT / room).rglob("templates/**/*")) if path.is_file()]
OURS = [
    *MODULES,
    *TEMPLATES,
    *sorted((ROOT / "deploy").glob("*.*")),
    *(ROOT / name for name in ("README.md", "Makefile", "pyproject.toml")),
]
README = (ROOT / "README.md").read_text()
WIRE = ROOT / "tests" / "wire"


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def calls(path: Path) -> list[str]:
    """What this module calls, as it is written there."""
    return [ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]


def callers(pattern: str) -> set[str]:
    """The modules in which something is called that is written so."""
    return {name(path) for path in MODULES if any(re.fullmatch(pattern, call) for call in calls(path))}


# ---- Words -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(tree(path))


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=name)
def test_an_init_file_is_a_docstring_only(path):
    assert [type(node) for node in tree(path).body] == [ast.Expr]


def test_no_file_has_a_name_that_says_nothing():
    forbidden = {"utils", "helpers", "common", "base", "manager", "service", "handler"}
    assert not [name(path) for path in ROOT.glob("*/**/*.py") if path.stem in forbidden and ".venv" not in path.parts]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_module_is_longer_than_one_can_keep_in_mind(path):
    assert len(path.read_text().splitlines()) <= 600


def test_nothing_is_left_to_be_done():
    marks = re.compile(r"\bTODO\b|\bFIXME\b|\bXXX\b")
    tests = sorted((ROOT / "tests").rglob("*.py"))
    assert not [name(path) for path in [*OURS, *tests] if marks.search(path.read_text())]


@pytest.mark.parametrize("word", sorted(VOCABULARY))
def test_every_event_says_what_it_means_and_who_may_read_it(word):
    cls = VOCABULARY[word]
    assert cls.__doc__
    assert cls.audience in {"hub", "all", "parties"}
    assert cls.about in {field.name for field in dataclasses.fields(cls)}


# ---- Who may do what -------------------------------------------------------------------------------------------------------


def test_sessions_begin_only_in_db():
    assert callers(r"(\w+\.)?(Session|sessionmaker|scoped_session)") == {"shared/db.py"}


def test_nobody_commits_but_db():
    assert callers(r".*\b(session|connection)\.(commit|rollback)") == set()


def test_the_environment_is_read_only_by_settings():
    readers = {
        name(path)
        for path in MODULES
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} and ast.unparse(node.value) == "os")
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and {"environ", "getenv"} & {one.name for one in node.names})
    }
    assert readers == {"shared/settings.py"}


def test_the_clock_is_read_only_at_the_edge():
    """Time is handed in. Measuring how long something takes (`time.monotonic`) is no clock."""
    edge = {"shared/serving.py", "shared/web.py"}
    assert (
        callers(r"(datetime\.)?(datetime|date)\.(now|utcnow|today)|time\.(time|time_ns|localtime|gmtime)|func\.(now|current_\w+)")
        <= edge
    )
    defaults = {
        name(path) for path in MODULES if re.search(r"server_default=.*now\(|default=datetime|default=date\b", path.read_text())
    }
    assert not defaults, "a column's default that reads the clock"


def test_the_services_own_clock_is_asked_only_by_processes():
    """`config.utc_now` is for what starts something; actions, models, projections and decisions are told the time."""
    inside = {
        "model",
        "actions",
        "projection",
        "library",
        "naming",
        "matching",
        "continuity",
        "invitations",
        "offline",
        "pulse",
        "digest",
        "planning",
    }
    assert not {module for module in callers(r"(\w+\.)?utc_now") if Path(module).stem in inside}


def test_a_failpoint_has_one_place():
    places = Counter(re.findall(r'failpoint\("([^"]+)"\)', "\n".join(path.read_text() for path in MODULES)))
    assert {point for point, count in places.items() if count > 1} == set()
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", point) for point in places)


# ---- The outside world -----------------------------------------------------------------------------------------------------


def test_pages_load_nothing_from_third_parties():
    """Only a link that a person follows may lead away; scripts, styles, images and forms are our own (R34, R36)."""
    loads = re.compile(
        r"""(?:\b(?:src|action|srcset|poster|data|hx-\w+)\s*=\s*["']|url\(\s*["']?|@import\s+["'])\s*(?:https?:)?//"""
    )
    static = [path for room in ("shared", "services") for path in (ROOT / room).rglob("static/*.*")]
    assert not [name(path) for path in [*TEMPLATES, *static] if loads.search(path.read_text(errors="ignore"))]
    elements = [
        (name(path), found)
        for path in TEMPLATES
        for found in re.findall(r"<(\w+)[^>]*\bhref=[\"']https?://", path.read_text())
        if found != "a"
    ]
    assert elements == []


def test_no_registry_is_named():
    """Where packages come from is a matter of the machine, not of the project."""
    locks = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt", *(ROOT / "shared" / "assets").glob("package*.json")]
    named = re.compile(r"pythonhosted|pypi\.|npmjs|index-url\b(?<!no-emit-index-url)|\"resolved\"", re.IGNORECASE)
    found = {(name(path), one) for path in [*OURS, *locks] for one in named.findall(path.read_text()) if path.name != "Makefile"}
    assert found == set()


# ---- What was promised to others -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", sorted(VOCABULARY))
def test_every_version_of_an_event_that_was_ever_sent_has_its_golden_file(word):
    newest = int(VOCABULARY[word].wire.rpartition(".v")[2])
    assert not [version for version in range(1, newest + 1) if not (WIRE / f"{word}.v{version}.json").exists()]


def test_golden_files_are_never_edited():
    """What once went over the wire stays as it was. A new file gets its line in `tests/wire/sha256sums`; an old line stays."""
    kept = dict(reversed(line.split()) for line in (WIRE / "sha256sums").read_text().splitlines())
    now = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(WIRE.glob("*.json"))}
    missing = "\n".join(f"{digest}  {file}" for file, digest in now.items() if file not in kept)
    assert not missing, f"add to tests/wire/sha256sums:\n{missing}"
    assert {file for file in kept if now.get(file) != kept[file]} == set(), (
        "edited or gone; make a new version of the event instead"
    )


# ---- Documents -------------------------------------------------------------------------------------------------------------


def test_every_file_the_readme_names_is_there():
    shown = re.findall(r"`([^`\s]+)`", README)
    paths = [
        word for word in shown if re.fullmatch(r"[\w.-]+(/[\w.*-]+)*/?", word) and ("/" in word or word.endswith((".py", ".toml")))
    ]
    assert len(paths) > 15, "the README tells where things are"
    assert not [path for path in paths if not list(ROOT.glob(path.rstrip("/")))]


@pytest.mark.parametrize("config", [hub_config, node_config], ids=lambda config: config.PREFIX)
def test_the_readme_has_every_setting_as_it_is(config):
    table = settings_table(config.Settings, config.PREFIX)
    assert table in README, f"put this into README.md (`hub settings` and `town-node settings` print it):\n{table}"
    named = set(re.findall(rf"\b{config.PREFIX}_[A-Z_]+\b", README))
    assert named == {f"{config.PREFIX}_{field.name.upper()}" for field in dataclasses.fields(config.Settings)}


def test_the_readme_names_every_command_of_make():
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "check", "help"} <= set(targets)
    assert not [target for target in re.findall(r"`make ([a-z-]+)", README) if target not in targets]


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


# ---- Personal data never leaves the town (R34) -----------------------------------------------------------------------------

PERSONAL = ("fenna@almere.example", "+31 6 12345678", "0612345678", "Fenna de Vries")
FREE_TEXT = {
    "circle.described": {"name", "place_name", "about_text"},
    "initiative.registered": {"name", "about_text", "place_name", "visiting"},
    "initiative.changed": {"name", "about_text", "place_name", "visiting"},
    "initiative.phase_reached": {"name", "about_text", "place_name", "visiting"},
    "meeting.planned": {"title", "place_name", "agenda.title", "report"},
    "meeting.changed": {"title", "place_name", "agenda.title", "report"},
    "meeting.held": {"title", "place_name", "agenda.title", "report"},
    "lesson.shared": {"title", "body"},
    "lesson.revised": {"title", "body"},
    "town.admitted": {"name"},
    "town.readmitted": {"name"},
}
"""Where people write in their own words. The screens ask about every person the node recognises there before it leaves; who adds
a field here makes sure that its screen asks too (`services/town_node/circle/naming.py`)."""
PERSONAL_ON_PURPOSE = {
    "circle.described": {"public_phone"},
    "lesson.shared": {"byline.name"},
    "lesson.revised": {"byline.name"},
}
"""The one number a circle marks as public, and the name an author agreed to on a day."""


def fields_that_take(cls: type, said: str, path: str = "") -> set[str]:
    """The fields of an event, or of a part of one, whose type would let these words through."""
    found = set()
    for field, hint in typing.get_type_hints(cls, include_extras=True).items():
        if typing.get_origin(hint) is typing.ClassVar:
            continue
        for kind in _kinds(hint):
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                found |= fields_that_take(kind, said, f"{path}{field}.")
            elif _takes(kind, said):
                found.add(f"{path}{field}")
    return found


def _kinds(hint: typing.Any) -> list[typing.Any]:
    """What stands in a hint beside `None`, `…` and lists: field types and parts."""
    if typing.get_origin(hint) is typing.Annotated:
        return [hint.__metadata__[0]]
    arms = typing.get_args(hint)
    return [kind for arm in arms for kind in _kinds(arm)] if arms else [hint]


def _takes(kind: typing.Any, said: str) -> bool:
    try:
        kind.read(said)
    except (AttributeError, ValueError, TypeError):
        return False
    return True


@pytest.mark.parametrize("word", sorted(VOCABULARY))
def test_personal_data_has_no_field_to_travel_in(word):
    open_to = {field for said in PERSONAL for field in fields_that_take(VOCABULARY[word], said)} - made_codes(VOCABULARY[word])
    assert open_to == FREE_TEXT.get(word, set()) | PERSONAL_ON_PURPOSE.get(word, set())


def made_codes(cls: type) -> set[str]:
    """A code or a slug may look like a telephone number; it is made by the node at random, or by the association."""
    hints = typing.get_type_hints(cls, include_extras=True)
    made = (events.Code, events.Slug, events.KeyText, events.Theme)
    return {field for field, hint in hints.items() if any(one in {hint, *typing.get_args(hint)} for one in made)}


def test_only_the_byline_carries_a_persons_name_and_it_needs_the_day_of_consent():
    with pytest.raises(events.Misfit, match="agreed"):
        events.from_body(events.Byline, {"name": "Een Verzonnen Naam"})
    body = orjson.loads((WIRE / "lesson.shared.v1.json").read_bytes())
    assert set(body["byline"]) == {"name", "agreed"}


def test_a_free_string_is_no_field_type_of_an_event():
    with pytest.raises(TypeError, match="no field type"):

        @event("person.named", about="person", audience="all")
        class PersonNamed(Event):
            person: events.Code
            name: str

    assert "person.named" not in VOCABULARY

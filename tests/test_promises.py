"""What the documents promise about the code, held against the code (style.md, Checks)."""

import ast
import dataclasses
from pathlib import Path

import pytest

from shared import events
from shared.events import VOCABULARY, Event, event

ROOT = Path(__file__).parents[1]
MODULES = [
    path
    for room in ("shared", "services")
    for path in (ROOT / room).rglob("*.py")
    if not {"migrations", "assets"} & set(path.parts)
]


def calls(path: Path) -> list[str]:
    return [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_sessions_begin_only_in_db():
    assert [path.name for path in MODULES if "Session" in calls(path)] == ["db.py"]


def test_nobody_commits_but_db():
    assert not [path.name for path in MODULES if any(call.endswith("session.commit") for call in calls(path))]


def test_the_environment_is_read_only_by_settings():
    readers = [path.name for path in MODULES if "os.environ" in path.read_text()]
    assert readers == ["settings.py"]


def test_no_file_is_called_utils():
    forbidden = {"utils", "helpers", "common", "base", "manager", "service", "handler"}
    assert not [path for path in MODULES if path.stem in forbidden]


def test_a_free_string_is_no_field_type_of_an_event():
    with pytest.raises(TypeError, match="no field type"):

        @event("person.named", about="person", audience="all")
        class PersonNamed(Event):
            person: events.Code
            name: str


def test_only_the_byline_can_name_a_person_and_it_carries_consent():
    """R34: beside names of things, `Byline` is the only type that can hold a person's name, and it needs the day of agreement."""
    named = {cls.__name__ for cls in VOCABULARY.values() if "byline" in {field.name for field in dataclasses.fields(cls)}}
    assert named == {"LessonShared", "LessonRevised"}
    with pytest.raises(events.Misfit, match="agreed"):
        events.from_body(events.Byline, {"name": "Een Verzonnen Naam"})


@pytest.mark.parametrize("name", sorted(VOCABULARY))
def test_every_event_says_what_it_means_and_who_may_read_it(name):
    cls = VOCABULARY[name]
    assert cls.__doc__
    assert cls.audience in {"hub", "all", "parties"}
    assert cls.about in {field.name for field in dataclasses.fields(cls)}

"""The documents say what the code does: OpenAPI 3.1 of both interfaces, their readable page, and AsyncAPI 3.0 of the events."""

import json
import re

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from shared.envelope import unpack
from shared.events import VOCABULARY, body_schema, event_class
from tests.conftest import ROOT

METHODS = {"get", "post", "patch", "delete"}


def operations(document):
    for path, item in document["paths"].items():
        for method in METHODS & set(item):
            yield method, path, item[method]


def test_the_openapi_document_is_valid(site):
    document = site.document()
    assert document["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_operation_says_what_it_does_who_may_and_what_can_go_wrong(site):
    for method, path, said in operations(site.document()):
        assert said["summary"], path
        statuses = set(said["responses"])
        assert {"401", "503"} <= statuses
        assert "default" not in statuses
        if method == "get":
            assert said["security"] == [{}, {"token": []}]
        else:
            assert said["security"] == [{"token": []}]
            assert {"403", "409", "422"} <= statuses
            assert {"$ref": "#/components/parameters/IdempotencyKey"} in said["parameters"]
        if method in {"post", "patch"}:
            assert {"400", "413", "415"} <= statuses
        if "{" in path:
            assert "404" in statuses


def test_every_operation_that_needs_a_token_refuses_a_call_without_one(site):
    refused = 0
    for method, path, said in operations(site.document()):
        if said["security"] == [{"token": []}]:
            for headers in ({}, {"Authorization": "Bearer tk_dead"}):
                answer = site.call(method.upper(), re.sub(r"\{\w+\}", "x1x1", path).removeprefix("/api/v1"), headers=headers)
                assert answer.status_code == 401, path
            refused += 1
    assert refused


def test_what_may_be_left_out_is_not_required(node):
    schemas = node.document()["components"]["schemas"]
    assert set(schemas["InitiativeIn"]["required"]) == {"name", "kind", "phase"}
    assert set(schemas["LessonIn"]["required"]) == {"title", "body", "theme"}
    assert set(schemas["MeetingIn"]["required"]) == {"title", "day", "starts"}
    assert "required" not in schemas["InitiativeChange"]
    assert "default" not in json.dumps(schemas["InitiativeChange"])
    assert schemas["InitiativeIn"]["additionalProperties"] is False


def test_the_readable_page_shows_every_operation_without_anything_from_elsewhere(site):
    answer = site.app.test_client().get("/api/docs", headers={"Accept-Language": "en"})
    assert answer.status_code == 200
    for method, path, said in operations(site.document()):
        assert f"{method.upper()} {path}" in answer.text
        assert said["summary"] in answer.text.replace("&#39;", "'")
    assert not re.search(r"""(src|href)=["'](https?:)?//""", answer.text)
    assert "<script>" not in answer.text
    assert "style=" not in answer.text
    assert "curl -X" in answer.text


@pytest.fixture
def asyncapi(hub):
    answer = hub.app.test_client().get("/asyncapi.json")
    assert answer.mimetype == "application/json"
    return answer.get_json()


def test_the_asyncapi_document_is_valid_by_the_official_schema(asyncapi):
    schema = json.loads((ROOT / "tests" / "vendor" / "asyncapi-3.0.0.json").read_text())
    assert asyncapi["asyncapi"] == "3.0.0"
    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(asyncapi)] == []
    wrong = asyncapi | {"channels": {"bus": {"messages": []}}}
    assert not jsonschema.Draft7Validator(schema).is_valid(wrong)


def test_every_event_is_a_message(asyncapi):
    messages = asyncapi["components"]["messages"]
    assert set(messages) == set(VOCABULARY) | {"run", "page"}
    for name, cls in VOCABULARY.items():
        assert messages[name]["name"] == cls.wire
        assert messages[name]["summary"]


def resolved(document, thing):
    if isinstance(thing, list):
        return [resolved(document, one) for one in thing]
    if isinstance(thing, dict):
        if "$ref" in thing:
            target = document
            for step in thing["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            return resolved(document, target)
        return {name: resolved(document, one) for name, one in thing.items()}
    return thing


def test_golden_messages_fit_their_schemas(asyncapi):
    raw = (ROOT / "tests" / "wire" / "message.json").read_bytes()
    run = resolved(asyncapi, asyncapi["components"]["messages"]["run"]["payload"])
    jsonschema.Draft7Validator(run).validate(json.loads(raw))
    for entry in unpack(raw).entries:
        message = next(one for one in asyncapi["components"]["messages"].values() if one["name"] == entry.says.type)
        jsonschema.Draft7Validator(resolved(asyncapi, message["headers"])).validate(json.loads(entry.header))
        jsonschema.Draft7Validator(resolved(asyncapi, message["payload"])).validate(json.loads(entry.body))


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "wire").glob("*.v1.json")), ids=lambda path: path.name)
def test_golden_events_fit_the_schema_of_their_body(path):
    known = event_class(f"nl.tuinkoepel.{path.name.removesuffix('.json')}")
    jsonschema.Draft7Validator(body_schema(known[0])).validate(json.loads(path.read_text()))


def test_a_body_that_its_event_refuses_does_not_fit_either():
    schema = jsonschema.Draft7Validator(body_schema(VOCABULARY["lesson.shared"]))
    fits = {"lesson": "les-0001", "title": "T", "body": "B", "kind": "do", "theme": "soil", "shared_on": "2015-06-20"}
    assert schema.is_valid(fits)
    for name, value in (
        ("title", ""),
        ("title", " a"),
        ("body", "a\0b"),
        ("kind", "maybe"),
        ("theme", "Soil!"),
        ("lesson", "é"),
        ("body", "x" * 20_001),
    ):
        assert not schema.is_valid(fits | {name: value}), name

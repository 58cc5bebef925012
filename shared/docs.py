"""`/api/docs`: the OpenAPI document as a page that a person can read, in the site's own layout.

Made on the server from the same document that programs get: no script, nothing from elsewhere. The texts are English, as documents
for programmers are. Every operation stands with its fields, its answers and a call that can be pasted into a shell.
"""

import json
from typing import Any

from apispec import APISpec
from flask import Blueprint, current_app, request, url_for

from shared.web import render

_METHODS = ("get", "post", "patch", "delete")


def pages(spec: APISpec) -> Blueprint:
    """The blueprint with the page."""
    blueprint = Blueprint("docs", __name__)

    @blueprint.get("/api/docs")
    def read() -> Any:
        document = spec.to_dict()
        events_url = url_for("asyncapi") if "asyncapi" in current_app.view_functions else None
        shown = groups(document, request.host_url.rstrip("/"))
        return render("docs.html", info=document["info"], groups=shown, events_url=events_url)

    return blueprint


def groups(document: dict[str, Any], address: str) -> list[dict[str, Any]]:
    """The operations by tag, as the template shows them."""
    made = {tag["name"]: tag | {"operations": []} for tag in document.get("tags", [])}
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if method in operations:
                said = operations[method]
                shown = _operation(document, path, method, said, operations.get("parameters", []), address)
                made[said["tags"][0]]["operations"].append(shown)
    return list(made.values())


def _operation(
    document: dict[str, Any], path: str, method: str, said: dict[str, Any], common: list[Any], address: str
) -> dict[str, Any]:
    parameters = [_found(document, parameter) for parameter in [*common, *said.get("parameters", [])]]
    body = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    body = _found(document, body) if body else None
    answers = []
    for status, answer in sorted(said["responses"].items()):
        content = _found(document, answer).get("content", {})
        answers.append(
            {
                "status": status,
                "text": _found(document, answer)["description"],
                "fields": _fields(document, next(iter(content.values()))["schema"]) if "application/json" in content else [],
            }
        )
    return {
        "id": said["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": said.get("summary", ""),
        "description": said.get("description", ""),
        "role": said.get("x-role", ""),
        "parameters": [
            {
                "name": parameter["name"],
                "where": parameter["in"],
                "type": _type(document, parameter["schema"]),
                "required": parameter.get("required", False),
                "text": parameter.get("description", ""),
            }
            for parameter in parameters
        ],
        "fields": _fields(document, body) if body else [],
        "answers": answers,
        "curl": _curl(document, path, method, said, body, address),
    }


def _found(document: dict[str, Any], thing: dict[str, Any]) -> dict[str, Any]:
    """What a reference points to."""
    while "$ref" in thing:
        target: Any = document
        for step in thing["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        thing = target
    return thing


def _fields(document: dict[str, Any], schema: dict[str, Any], path: str = "") -> list[dict[str, Any]]:
    """The members of an object, those of its parts behind a point."""
    schema = _found(document, schema)
    rows = []
    for name, member in schema.get("properties", {}).items():
        rows.append(
            {
                "name": path + name,
                "type": _type(document, member),
                "required": name in schema.get("required", []),
                "text": member.get("description", ""),
            }
        )
        inner = _found(document, member.get("items", member))
        for arm in inner.get("anyOf", []):
            inner = _found(document, arm) if "$ref" in arm else inner
        if inner.get("properties"):
            rows += _fields(document, inner, f"{path}{name}.")
    return rows


def _type(document: dict[str, Any], schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    schema = _found(document, schema)
    if "anyOf" in schema:
        return " or ".join(_type(document, arm) for arm in schema["anyOf"])
    kinds = schema.get("type", "object")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    words = []
    for kind in kinds:
        if "enum" in schema and kind == "string":
            words.append(" | ".join(value for value in schema["enum"] if value is not None))
        elif kind == "array":
            words.append(f"list of {_type(document, schema.get('items', {}))}")
        elif kind in {"integer", "number"} and "minimum" in schema:
            words.append(f"{kind}, {schema['minimum']} to {schema['maximum']}")
        elif kind == "string" and schema.get("examples"):
            words.append(f"string like {schema['examples'][0]}")
        elif kind == "string" and schema.get("maxLength"):
            words.append(f"string, at most {schema['maxLength']} characters")
        else:
            words.append(kind)
    return " or ".join(words)


def _curl(document: dict[str, Any], path: str, method: str, said: dict[str, Any], body: Any, address: str) -> str:
    parts = ["$" + part.strip("{}").upper() if part.startswith("{") else part for part in path.split("/")]
    lines = [f"curl {'' if method == 'get' else f'-X {method.upper()} '}{address}{'/'.join(parts)}"]
    if said.get("x-role"):
        lines.append('-H "Authorization: Bearer $TOKEN"')
    if body:
        texts = [name for name, member in body["properties"].items() if member.get("type") == "string"]
        required = body.get("required") or texts[:1]
        example = {name: _example(document, body["properties"][name], name) for name in required}
        lines += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(example, ensure_ascii=False)}'"]
    return " \\\n  ".join(lines)


_WORDS = {"name": "Kruidentuin", "title": "Ask early for water", "body": "It takes **half a year**.", "town": "zeewolde"}


def _example(document: dict[str, Any], schema: dict[str, Any], name: str = "") -> Any:
    """A value that fits."""
    schema = _found(document, schema)
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    plain: dict[Any, Any] = {"integer": schema.get("minimum", 1), "number": 52.37, "boolean": True, "array": []}
    return plain.get(kind, _WORDS.get(name, "…"))

"""How the JSON API reads and writes values: marshmallow schemas over the field types of the vocabulary.

`Wire(events.Name)` accepts exactly what an event may carry, so what the API took in can always travel, and its JSON Schema is the
vocabulary's own. Whatever is wrong with a value, the answer says what would be right, in the reader's language.

A schema that is read is a `Takes`: unknown members are refused, because a typing error must not pass for an empty field.
`Takes.change()` is the same for PATCH, where everything may be left out. A schema that is written is a `Gives`: every member is
always there. `Sought` is the query of a list.
"""

from collections.abc import Mapping
from typing import Any, Self

import marshmallow
from marshmallow import RAISE, fields

from shared.events import FieldType
from shared.language import N_, Words

LIMIT, LIMIT_MAX = 50, 200
CURSOR_MAX = 2000


def expected(schema: Mapping[str, Any]) -> Words:
    """What would be right, in words."""
    kind = schema.get("type")
    if "enum" in schema:
        return Words(N_("Expected: one of %(values)s."), {"values": ", ".join(schema["enum"])})
    if schema.get("examples"):
        return Words(N_("Expected: something written like %(example)s."), {"example": schema["examples"][0]})
    if kind == "boolean":
        return Words(N_("Expected: true or false."))
    if kind == "array":
        return Words(N_("Expected: a list of at most %(most)s."), {"most": schema.get("maxItems", 100)})
    if kind in {"integer", "number"}:
        text = N_("Expected: a whole number from %(least)s to %(most)s.")
        if kind == "number":
            text = N_("Expected: a number from %(least)s to %(most)s.")
        return Words(text, {"least": schema["minimum"], "most": schema["maximum"]})
    if kind == "string":
        text = N_("Expected: text of %(least)s to %(most)s characters, without control characters.")
        return Words(text, {"least": schema["minLength"], "most": schema["maxLength"]})
    return Words(N_("Expected: a JSON object."))


def _said(schema: Mapping[str, Any]) -> dict[str, Any]:
    right = expected(schema)
    return {
        "required": Words(N_("This is missing. %(expected)s"), {"expected": right}),
        "null": right,
        "invalid": right,
    }


class Wire(fields.Field[Any]):
    """A value of one of the vocabulary's field types. Blanks around a text are dropped, Windows line ends become the wire's."""

    def __init__(self, hint: Any, description: str = "", **more: Any) -> None:
        self.kind: FieldType = hint if isinstance(hint, FieldType) else hint.__metadata__[0]
        self.documented = dict(self.kind.schema)
        if self.documented.get("pattern") == r"^\S(.*\S)?$":
            self.documented["pattern"] = r"\S"  # the blanks around it are dropped
        super().__init__(error_messages=_said(self.kind.schema), metadata={"description": description}, **more)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str):
            value = value.replace("\r\n", "\n").replace("\r", "\n").strip()
        try:
            return self.kind.read(value)
        except (TypeError, ValueError, OverflowError):
            raise self.make_error("invalid") from None

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return None if value is None else self.kind.write(value)


class Asked(Wire):
    """The same in a query, where everything is text."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if self.documented["type"] == "integer" and value.isascii() and value.isdigit():
            value = int(value[:12])
        return super()._deserialize(value, attr, data, **kwargs)


class Several(fields.List[Any]):
    """A list, of at most a hundred."""

    def __init__(self, inner: fields.Field[Any], description: str = "", **more: Any) -> None:
        said = _said({"type": "array"})
        super().__init__(inner, error_messages=said, metadata={"description": description, "maxItems": 100}, **more)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, list) and len(value) > 100:
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


def _read_degrees(most: int) -> FieldType:
    def read(value: Any) -> int:
        if type(value) not in {int, float} or not -most <= value <= most:
            raise ValueError
        millionths: int = round(value * 1_000_000)
        return millionths

    schema = {"type": "number", "minimum": -most, "maximum": most}
    return FieldType("degrees", read, lambda value: value / 1_000_000, schema)


LATITUDE, LONGITUDE = _read_degrees(90), _read_degrees(180)
"""Degrees north and east (WGS 84); the wire knows millionths, because floats do not survive every parser."""


def document(_converter: Any, field: Any, **_more: Any) -> dict[str, Any]:
    """For apispec: the JSON Schema of a `Wire` field."""
    if not isinstance(field, Wire):
        return {}
    schema = dict(field.documented)
    if field.metadata.get("description"):
        schema["description"] = field.metadata["description"]
    if field.allow_none:
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return schema


class Takes(marshmallow.Schema):
    """What a program sends."""

    class Meta:
        unknown = RAISE

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        known = {"names": ", ".join(sorted(self.load_fields))}
        said: dict[str, Any] = {
            "unknown": Words(N_("This is not known here. Known are: %(names)s."), known),
            "type": expected({}),
        }
        self.error_messages = said

    @classmethod
    def change(cls) -> Self:
        """The same schema where everything may be left out, and what is left out stays as it is."""
        changing: Any = type(cls.__name__.removesuffix("In") + "Change", (cls,), {})
        made: Self = changing(partial=tuple(changing._declared_fields))  # noqa: SLF001  # by name: parts of a list stay whole
        return made

    def on_bind_field(self, field_name: str, field_obj: Any) -> None:
        if self.partial:
            field_obj.load_default = marshmallow.missing


class Gives(marshmallow.Schema):
    """What a program gets."""

    def on_bind_field(self, field_name: str, field_obj: Any) -> None:
        field_obj.required = True


def _counted(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= LIMIT_MAX:
        raise ValueError
    return value


def _cursor(value: Any) -> str:
    if not isinstance(value, str) or len(value) > CURSOR_MAX:
        raise ValueError
    return value


_LIMIT = FieldType("limit", _counted, schema={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX})
_CURSOR = FieldType("cursor", _cursor, schema={"type": "string", "minLength": 0, "maxLength": CURSOR_MAX})


class Sought(Takes):
    """Which part of a list."""

    limit = Asked(_LIMIT, "How many items at most.", load_default=LIMIT)
    after = Asked(_CURSOR, "The cursor that the page before called `next`.", load_default="")
    cursor = Asked(_CURSOR, "Another name for `after`.", load_default="")


def flat(messages: Any, path: str = "") -> dict[str, Any]:
    """Marshmallow's nested messages as `path → texts`: `agenda.2.minutes`."""
    if not isinstance(messages, Mapping):
        return {path: messages}
    found: dict[str, Any] = {}
    for key, inner in messages.items():
        here = path if key == "_schema" and path else "body" if key == "_schema" else f"{path}.{key}" if path else str(key)
        found |= flat(inner, here)
    return found

"""Floor 4, doors: JSON Schema (2020-12) of what goes in and out, from the models. Pydantic only."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

Kind = type[BaseModel]

PLACE: Final = "#/components/schemas/"
# Fields that an answer leaves out when there is nothing in them (`receiver.admin.routes.answers`).
LEFT_OUT: Final = frozenset({"secret", "attempt_log"})

# Two kinds of State are told apart by where they live; their names here say whose they are.
_NAMES: Final[Mapping[str, str]] = {
    "receiver__deliveries__State": "DeliveryState",
    "receiver__endpoints__State": "EndpointState",
}
_OF_ANOTHER: Final = re.compile(r"(\w+?)_(\w+)_")  # Listed_Task_: pydantic's for Listed[Task]


class _Untitled(GenerateJsonSchema):
    """A field's title would only be its name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schemas_of(
    bodies: Collection[Kind], answers: Collection[Kind], told: Collection[Kind]
) -> tuple[Mapping[Kind, dict[str, Any]], dict[str, Any]]:
    """A reference for each model, and every schema by its name.

    An answer has all its fields, default or not, but for those that are left out. Who is `told`
    something gets what is set alone, so a field with a default may be absent there.
    """
    taken: list[tuple[Kind, Any]] = [(kind, "validation") for kind in bodies]
    given: list[tuple[Kind, Any]] = [(kind, "serialization") for kind in (*answers, *told)]
    found, made = models_json_schema(
        [*taken, *given], ref_template=f"{PLACE}{{model}}", schema_generator=_Untitled
    )
    refs: dict[Any, dict[str, Any]] = {kind: _renamed(ref) for (kind, _), ref in found.items()}
    schemas = {_name(name): _renamed(schema) for name, schema in made["$defs"].items()}
    for name in reached([refs[kind] for kind in answers], schemas):
        _require_all(schemas[name])
    for schema in schemas.values():
        schema.pop("title", None)
    return refs, dict(sorted(schemas.items()))


def _name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    generic = _OF_ANOTHER.fullmatch(name)
    return name if generic is None else f"{generic[1]}{generic[2]}"


def _renamed(part: Any) -> Any:
    if isinstance(part, list):
        return [_renamed(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        key: PLACE + _name(value.removeprefix(PLACE))
        if key == "$ref" and isinstance(value, str)
        else _renamed(value)
        for key, value in part.items()
    }


def refs_in(part: Any) -> Iterator[str]:
    """The names of the schemas that a part of a description refers to."""
    if isinstance(part, list):
        for one in part:
            yield from refs_in(one)
    elif isinstance(part, dict):
        ref = part.get("$ref")
        if isinstance(ref, str) and ref.startswith(PLACE):
            yield ref.removeprefix(PLACE)
        for value in part.values():
            yield from refs_in(value)


def reached(begin: Any, schemas: Mapping[str, Any]) -> set[str]:
    """The names of the schemas that a part of a description leads to, by however many others."""
    found: set[str] = set()
    waiting = [*refs_in(begin)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += refs_in(schemas[name])
    return found


def _require_all(schema: dict[str, Any]) -> None:
    names = [name for name in schema.get("properties", ()) if name not in LEFT_OUT]
    if names:
        schema["required"] = names

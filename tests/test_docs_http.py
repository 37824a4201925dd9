"""docs/http-api.md and docs/events.md against the API's description, which is made from the code.

So every route, parameter, status, field and word that a request or an answer can have stands there,
and no route that there is not.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Final, cast

import pytest
from jsonschema_rs import Draft202012Validator

from receiver.admin.api import Api
from receiver.admin.openapi.document import described
from receiver.admin.openapi.schemas import PLACE, reached
from receiver.admin.routes.parameters import HEADERS, QUERY
from receiver.admin.routes.rows import Row
from tests.test_docs import page, said

TABLE: Final = Api(cast(Any, None), cast(Any, None)).table()
DOCUMENT: Final = described(TABLE)
SCHEMAS: Final = DOCUMENT["components"]["schemas"]
WORDS: Final = "".join(map(page, ("http-api.md", "events.md", "states.md")))
# What a cell need not say: it follows from the method, and stands in the description.
PLAIN: Final = {200, 204}


def cells() -> dict[tuple[str, str], str]:
    """What the tables of the page say of each route; `?` begins an example's query."""
    rows = re.findall(r"^\| `([A-Z]+) (/[^`?]*)[^`]*` \|(.*)\|$", page("http-api.md"), re.MULTILINE)
    assert len(rows) == len({(method, path) for method, path, _ in rows})
    return {(method, path): cell for method, path, cell in rows}


CELLS: Final = cells()


def test_the_page_has_every_route_and_no_other() -> None:
    named = set(re.findall(r"`((?:GET|PUT|POST|PATCH|DELETE) /[^`?]*)`", page("http-api.md")))
    assert named == {
        f"{method.upper()} {path}"
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
    }
    assert set(CELLS) == {(row.method, row.path) for row in TABLE}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.method} {row.path}")
def test_a_route_is_told_with_its_parameters_and_statuses(row: Row) -> None:
    cell = CELLS[row.method, row.path]
    named = {word for word in re.findall(r"`(\w+)[=`]", cell) if word in QUERY}
    assert named == {*row.query.split()}
    assert [
        status for status in row.answers if status not in PLAIN and str(status) not in cell
    ] == []


def test_every_parameter_is_explained() -> None:
    assert [name for name in QUERY if not said(page("http-api.md"), name)] == []
    text = page("http-api.md").lower()
    assert [name for name in HEADERS if f"`{name}" not in text] == []


# What an event holds is the other page's, but for what tasks and results have too.
OF_EVENTS: Final = reached(DOCUMENT["webhooks"], SCHEMAS) - reached(
    [SCHEMAS["Task"], SCHEMAS["Result"]], SCHEMAS
)


@pytest.mark.parametrize("name", sorted(reached(DOCUMENT["paths"], SCHEMAS) - OF_EVENTS))
def test_every_field_of_the_api_is_documented(name: str) -> None:
    text = page("http-api.md")
    assert [field for field in SCHEMAS[name].get("properties", ()) if not said(text, field)] == []


@pytest.mark.parametrize("name", sorted(reached(DOCUMENT["webhooks"], SCHEMAS)))
def test_every_field_of_an_event_is_documented(name: str) -> None:
    text = page("events.md") + page("http-api.md")
    assert [field for field in SCHEMAS[name].get("properties", ()) if not said(text, field)] == []


def examples() -> list[Any]:
    """Every JSON of the two pages, by its place."""
    return [
        pytest.param(json.loads(found[1]), id=f"{name}:{text[: found.start()].count(chr(10)) + 1}")
        for name in ("http-api.md", "events.md")
        for text in [page(name)]
        for found in re.finditer(r"```json\n(.*?)```", text, re.DOTALL)
    ]


@cache
def validator(name: str) -> Draft202012Validator:
    """Says whether something is what a schema describes."""
    schema = {"$ref": f"{PLACE}{name}", "components": {"schemas": SCHEMAS}}
    return Draft202012Validator(schema)


def kinds_of(example: Any) -> list[str]:
    """The schemas that it is valid for, and has no field beyond."""
    return [
        name
        for name, schema in SCHEMAS.items()
        if ({*example} <= {*schema.get("properties", ())} or name == "Problem")
        and validator(name).is_valid(example)
    ]


@pytest.mark.parametrize("example", examples())
def test_an_example_is_one_of_what_is_described(example: dict[str, Any]) -> None:
    assert len(kinds_of(example)) == 1
    cut = {name: value for name, value in example.items() if name != next(iter(example))}
    assert kinds_of(cut) == []


@pytest.mark.parametrize("name", [name for name, found in SCHEMAS.items() if "enum" in found])
def test_every_word_that_a_field_can_have_is_explained(name: str) -> None:
    assert [word for word in SCHEMAS[name]["enum"] if not said(WORDS, word)] == []

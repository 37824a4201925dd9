"""What the API says of itself, against OpenAPI's own schema and against the code."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final, cast

import httpx
import pytest
import schemathesis
from jsonschema_rs import ValidationError
from markupsafe import escape

from receiver import refusals
from receiver.access import LEDGER, Scope
from receiver.admin.api import Api
from receiver.admin.openapi.document import described, operation_id
from receiver.admin.openapi.meanings import FIELDS
from receiver.admin.openapi.page import bounds_of, kind_of, prose, rendered
from receiver.admin.openapi.public import CODES
from receiver.admin.openapi.schemas import refs_in
from receiver.admin.routes.rows import Row
from receiver.endpoints import State
from receiver.errors import ReelhookError, Refusal, StoreUnavailable
from receiver.events import TYPES
from receiver.payloads import PAYLOADS
from receiver.tasks import Status
from tests.doubles import Assembled, assembled

ROOT: Final = Path(__file__).parents[2]
TABLE: Final = Api(cast(Any, None), cast(Any, None)).table()
DOCUMENT: Final = described(TABLE)
SCHEMAS: Final = DOCUMENT["components"]["schemas"]
OPERATIONS: Final = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
PUBLIC: Final = {("POST", "/webhooks/{platform}"), ("GET", "/healthz"), ("GET", "/readyz")}


def rows(where: Any = lambda row: True) -> list[Any]:
    return [pytest.param(row, id=f"{row.method} {row.path}") for row in TABLE if where(row)]


def test_it_is_openapi() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    broken = deepcopy(DOCUMENT)
    broken["paths"]["/v1/tasks"]["get"]["responses"]["200"].pop("description")
    with pytest.raises(ValidationError):
        schemathesis.openapi.from_dict(broken).validate()


def test_any_table_can_be_described() -> None:
    some = [row for row in TABLE if row.path.startswith("/v1/jobs")]
    for rows in ([], some):
        document = described(rows)
        schemathesis.openapi.from_dict(document).validate()
        assert set(document["paths"]) == {path for _, path in PUBLIC} | {row.path for row in rows}


def test_it_has_every_route_and_no_other() -> None:
    assert set(OPERATIONS) == {(row.method, row.path) for row in TABLE} | PUBLIC
    assert len(TABLE) == len({(row.method, row.path) for row in TABLE})


def test_every_reference_leads_somewhere() -> None:
    named = set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT)))
    assert len(named) > 50
    for reference in named:
        found: Any = DOCUMENT
        for part in reference.split("/"):
            found = found[part]


def test_every_schema_is_used_and_has_a_name_for_people() -> None:
    used = {*refs_in(DOCUMENT["paths"]), *refs_in(DOCUMENT["webhooks"]), *refs_in(DOCUMENT)}
    assert used == set(SCHEMAS)
    assert [name for name in SCHEMAS if not re.fullmatch(r"([A-Z][a-z]+)+", name)] == []
    assert SCHEMAS["EndpointState"]["enum"] == [*State]
    assert SCHEMAS["Status"]["enum"] == [*Status]


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    names += [item["post"]["operationId"] for item in DOCUMENT["webhooks"].values()]
    assert len(names) == len(set(names))
    assert operation_id("GET", "/v1/tasks/{id}/results") == "get_tasks_id_results"


@pytest.mark.parametrize("row", rows())
def test_an_operation_says_what_its_row_does(row: Row) -> None:
    operation = OPERATIONS[row.method, row.path]
    parameters = {(found["in"], found["name"]) for found in operation["parameters"]}
    assert parameters == {
        *(("query", name) for name in row.parameters),
        *(("header", name) for name in row.headers.split()),
        *(("path", name) for name in re.findall(r"{(\w+)}", row.path)),
    }
    scopes = {scope for found in operation["security"] for scope in found.get("token", ())}
    assert scopes == {*row.scopes}
    assert ({"session": []} in operation["security"]) == (row.method == "GET")
    assert {status for status in operation["responses"] if status < "400"} == {
        str(status) for status in row.answers
    }
    assert ("requestBody" in operation) == (row.body is not None)
    assert operation["summary"] == row.summary
    assert row.answers
    assert Scope.ADMIN in row.scopes


@pytest.mark.parametrize("row", rows(lambda row: row.is_list))
def test_a_list_is_paged(row: Row) -> None:
    assert row.answers.keys() == {200}
    assert {"limit", "cursor"} <= {*row.parameters}
    assert "422" in OPERATIONS[row.method, row.path]["responses"]


def test_an_answer_has_all_its_fields_but_the_ones_that_are_left_out() -> None:
    endpoint, delivery = SCHEMAS["Endpoint"], SCHEMAS["Delivery"]
    assert {*endpoint["properties"]} - {*endpoint["required"]} == {"secret"}
    assert {*delivery["properties"]} - {*delivery["required"]} == {"attempt_log"}
    assert SCHEMAS["TaskSpec"]["required"] == ["platform"]
    assert "late" not in SCHEMAS["ResultTold"]["required"]


def test_fields_may_be_added_to_what_is_answered() -> None:
    bodies = {row.body.__name__ for row in TABLE if row.body is not None}
    closed = {name for name, found in SCHEMAS.items() if found.get("additionalProperties") is False}
    assert closed == bodies


EXPLAINED: Final = [
    *sorted({row.body.__name__ for row in TABLE if row.body is not None}),
    *("Task", "Result", "Callback", "Endpoint", "Delivery", "Attempt", "Job", "Replayed"),
]
OBVIOUS: Final = {"id", "name", "description", "kind", "error", "platform", "scope", "status"}


@pytest.mark.parametrize("name", EXPLAINED)
def test_fields_are_explained(name: str) -> None:
    fields = SCHEMAS[name]["properties"]
    said = str(SCHEMAS[name].get("description"))
    obvious = {field for field in fields if field in OBVIOUS or field.endswith("_id")}
    told = {field for field, found in fields.items() if "description" in found or field in said}
    assert {*fields} - told - obvious - {"state", "endpoint", "task", "event_type"} == set()


def test_only_fields_that_there_are_are_explained() -> None:
    names = {field for found in SCHEMAS.values() for field in found.get("properties", ())}
    names |= {f"{one}.{field}" for one in SCHEMAS for field in SCHEMAS[one].get("properties", ())}
    assert {*FIELDS} - names == set()
    explained = SCHEMAS["MediaView"]["properties"]["url"]["description"]
    assert explained == FIELDS["MediaView.url"] != FIELDS["url"]


# Problems


def _family(kind: type[ReelhookError]) -> set[type[Any]]:
    return {kind}.union(*(_family(child) for child in kind.__subclasses__()))


def codes_of(name: str) -> list[str]:
    schema = DOCUMENT["components"]["responses"][name]["content"]["application/problem+json"]
    told = schema["schema"]["allOf"][1]["properties"]
    assert name == f"Problem{told['status']['const']}"
    found: list[str] = told["code"]["enum"]
    return found


def test_problems_have_the_codes_that_errors_have() -> None:
    for kind in _family(Refusal) - {Refusal}:
        assert kind.code in codes_of(f"Problem{kind.status}")
    for kind in _family(StoreUnavailable):
        assert kind.code in codes_of("Problem503")
    early = [one for one in vars(refusals).values() if isinstance(one, refusals.Refusal)]
    assert len(early) > 9
    for one in early:
        assert one.code in codes_of(f"Problem{one.status}")


def test_the_door_has_the_codes_that_it_answers() -> None:
    text = (ROOT / "receiver" / "ingest.py").read_text()
    found = {
        (int(status), code) for status, code in re.findall(r'_refusal\(\s*(\d+), "(\w+)"', text)
    }
    said = {(status, code) for status, codes in CODES.items() for code in codes}
    assert found - {(405, "method_not_allowed")} == said - {(500, "internal")}


# What is sent


def test_every_event_type_is_a_webhook() -> None:
    assert [*DOCUMENT["webhooks"]] == [*PAYLOADS] == [*TYPES]
    for name, item in DOCUMENT["webhooks"].items():
        headers = [found["name"] for found in item["post"]["parameters"]]
        assert headers == ["webhook-id", "webhook-timestamp", "webhook-signature", "traceparent"]
        (schema,) = refs_in(item["post"]["requestBody"])
        assert SCHEMAS[schema]["properties"]["type"]["const"] == name


def test_the_payload_of_an_event_is_one_of_these() -> None:
    payloads = [kind.__name__ for kind in PAYLOADS.values()]
    assert [*refs_in(SCHEMAS["ToldAgain"]["properties"]["payload"])] == payloads
    single = SCHEMAS["Event"]["properties"]["payload"]
    assert [*refs_in(single)] == payloads
    assert single["anyOf"][-1] == {"type": "null"}  # in lists


# The routes, and the page


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


@pytest.fixture
def api(receiver: Assembled) -> httpx.AsyncClient:
    return receiver.client


@pytest.mark.anyio
async def test_the_description_is_served(api: httpx.AsyncClient) -> None:
    response = await api.get("/openapi.json")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == DOCUMENT
    assert response.json()["openapi"].startswith("3.1.")


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
async def test_it_needs_a_token(receiver: Assembled, path: str) -> None:
    assert (await receiver.stranger.get(path)).status_code == 401
    tokens = [{"token": [scope]} for scope in Scope if scope in LEDGER]
    assert OPERATIONS["GET", path]["security"] == [*tokens, {"session": []}]


@pytest.mark.anyio
async def test_a_parameter_that_a_route_does_not_have_is_refused(api: httpx.AsyncClient) -> None:
    for row in TABLE:
        path = re.sub("{.*?}", "1", row.path)
        response = await api.request(row.method, path, params={"projekt": "film"})
        assert (response.status_code, response.json()["parameter"]) == (422, "projekt"), row
        assert "422" in OPERATIONS[row.method, row.path]["responses"]


@pytest.mark.anyio
async def test_a_browser_that_is_not_logged_in_is_led_to_the_login(receiver: Assembled) -> None:
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    response = await receiver.stranger.get("/docs", headers=browser)
    assert (response.status_code, response.headers["location"]) == (303, "/login?next=%2Fdocs")
    wrong = {"authorization": "Bearer wrong"}
    assert (await receiver.stranger.get("/docs", headers=browser | wrong)).status_code == 401
    assert (await receiver.stranger.get("/openapi.json", headers=browser)).status_code == 401
    assert (await receiver.client.get("/docs", headers=browser)).status_code == 200


class Page(HTMLParser):
    """Which elements a page has, where its links lead, and whether what is opened is closed."""

    # HTML lets these end where the next one begins.
    ENDED = frozenset({"meta", "link", "br", "th", "td"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        if tag not in self.ENDED:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(str(value))
            if name == "href":
                self.links.add(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.anyio
async def test_the_page_is_one_that_nothing_can_run_in(api: httpx.AsyncClient) -> None:
    response = await api.get("/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    style = re.findall(r"<style>(.*?)</style>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    policy = response.headers["content-security-policy"].split("; ")
    assert len(style) == 1
    assert {"default-src 'none'", f"style-src 'sha256-{digest}'"} <= {*policy}
    assert {"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= {*policy}
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    found = Page(response.text)
    assert not found.open
    assert not found.elements & {"script", "img", "iframe", "form"}
    assert [name for name in found.attributes if name.startswith("on") or name == "style"] == []


@pytest.mark.anyio
async def test_the_page_tells_of_everything(api: httpx.AsyncClient) -> None:
    text = (await api.get("/docs")).text
    found = Page(text)
    assert len(found.ids) == len({*found.ids})
    within = {link[1:] for link in found.links if link.startswith("#")}
    assert within - {*found.ids} == set()
    assert {*SCHEMAS} <= {*found.ids}
    assert {operation["operationId"] for operation in OPERATIONS.values()} <= {*found.ids}
    for name in (*TYPES, *(code for kind in _family(Refusal) - {Refusal} for code in [kind.code])):
        assert f"<code>{name}</code>" in text
    fields = {name for schema in SCHEMAS.values() for name in schema.get("properties", ())}
    assert [name for name in sorted(fields) if f"<code>{name}</code>" not in text] == []


def test_nothing_in_a_description_is_markup() -> None:
    evil = "<script>alert(1)</script>"
    document = deepcopy(DOCUMENT)
    document["info"]["description"] = f"{evil} `{evil}`"
    document["components"]["schemas"][evil] = {
        "type": "object",
        "description": evil,
        "properties": {evil: {"enum": [evil], "default": evil, "description": f"`{evil}`"}},
    }
    document["paths"]["/v1/tasks"]["get"]["summary"] = evil
    text = rendered(document)
    assert "<script" not in text
    assert str(escape(evil)) in text


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "format": "date-time"}, "time"),
        ({"type": "string", "format": "uuid"}, "text"),
        ({"type": "boolean"}, "true or false"),
        ({}, "anything"),
        ({"enum": ["a", "b"]}, "<code>a</code> or <code>b</code>"),
        ({"const": "a"}, "<code>a</code>"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer or null"),
        ({"type": "array", "items": {"type": "number"}}, "list of number"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "text by name, each text"),
        ({"type": "object", "additionalProperties": True}, "object"),
        ({"$ref": "#/components/schemas/Task"}, '<a href="#Task">Task</a>'),
    ],
)
def test_what_a_value_is_stands_in_words(schema: dict[str, Any], shown: str) -> None:
    assert str(kind_of(schema)) == shown


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "string"}, ""),
        ({"minimum": 0, "maximum": 9, "default": 0}, "at least 0; at most 9; default `0`"),
        ({"anyOf": [{"maxLength": 9}, {"type": "null"}], "default": None}, "at most 9 characters"),
        ({"default": ["*"], "minItems": 1}, "at least 1; default `*`"),
        ({"default": False}, "default `false`"),
    ],
)
def test_the_bounds_of_a_value_stand_in_words(schema: dict[str, Any], shown: str) -> None:
    assert bounds_of(schema) == shown


def test_code_and_paragraphs_are_marked() -> None:
    assert str(prose("`a<b` is\n\nso & so")) == "<code>a&lt;b</code> is<br>so &amp; so"

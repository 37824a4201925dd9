"""Floor 4, doors: the API's description, OpenAPI 3.1, from its table and its models. Pydantic only.

Nothing of it is written twice: paths, parameters and scopes are the rows', fields the models',
codes those of the errors. https://spec.openapis.org/oas/v3.1.1
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from receiver import __version__
from receiver.access import Scope
from receiver.admin.openapi import problems
from receiver.admin.openapi.meanings import explained
from receiver.admin.openapi.public import ANSWERS, public
from receiver.admin.openapi.schemas import Kind, schemas_of
from receiver.admin.routes.parameters import HEADERS, QUERY
from receiver.admin.routes.rows import Body, Row
from receiver.payloads import PAYLOADS
from receiver.tracing import HEADER as TRACEPARENT

OPENAPI: Final = "3.1.1"
JSON: Final = "application/json"
REQUEST_ID: Final = "X-Request-ID"
REPEATED: Final = "Idempotent-Replayed"

Refs = Mapping[Kind, Mapping[str, Any]]
Described = dict[str, Any]


def described(rows: Sequence[Row]) -> Described:
    """The description of these routes, of the public ones, and of what goes downstream."""
    answers = _models(body for row in rows for status in row.answers for body in row.bodies(status))
    bodies = _models(row.body for row in rows)
    refs, found = schemas_of(bodies, answers, [*ANSWERS, *PAYLOADS.values()])
    told = [refs[kind] for kind in PAYLOADS.values()]
    schemas = explained({"Problem": problems.PROBLEM, **_with_payloads(found, told)})
    paths = public(refs)
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, refs)
    return {
        "openapi": OPENAPI,
        "info": _INFO,
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": dict(sorted(paths.items())),
        "webhooks": {name: {"post": _webhook(name, refs[kind])} for name, kind in PAYLOADS.items()},
        "components": {
            "schemas": schemas,
            "responses": {
                f"Problem{status}": problems.response(status, codes)
                for status, codes in problems.codes().items()
            },
            "headers": _SENT_HEADERS,
            "securitySchemes": _SCHEMES,
        },
    }


_INFO: Final[Mapping[str, Any]] = {
    "title": "Reelhook",
    "version": __version__,
    "summary": "Signed webhook URLs out, durable results in, every downstream callback delivered.",
    "description": "Bodies are JSON in UTF-8, times RFC 3339 in UTC, money in dollars. Lists give"
    " the newest first; `next_cursor` is the `cursor` of the next page. Refusals are problems"
    " (RFC 9457) with a stable `code`. Fields may be added.",
    "license": {"name": "MIT", "identifier": "MIT"},
}
_SCHEMES: Final[Mapping[str, Any]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "The admin token, or an API token with one of the scopes that stand at the"
        " operation.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "reelhook_INSTANCE",
        "description": "A browser that is logged in to the dashboard may look at what it shows. The"
        " name ends with the first 8 digits of the receiver's instance, and begins with `__Host-`"
        " over https.",
    },
    "sig": {
        "type": "apiKey",
        "in": "query",
        "name": "sig",
        "description": "The token of a signed webhookURL, bound to one task and its tags.",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "query",
        "name": "apiKey",
        "description": "A static key, for URLs that are pasted into a console. Off by default.",
    },
}
_SENT_HEADERS: Final[Mapping[str, Any]] = {
    REQUEST_ID: {
        "description": "What the log calls this request.",
        "schema": {"type": "string"},
    },
    REPEATED: {
        "description": "`true`: this is what the first request with that key was answered.",
        "schema": {"const": "true"},
    },
    "ETag": {
        "description": "The version of what is shown.",
        "schema": {"type": "string"},
    },
}


def _with_payloads(schemas: Described, told: Sequence[Any]) -> Described:
    """The schemas, with what the payload of an event is: what endpoints are sent of it."""
    payloads = {"Event": [*told, {"type": "null"}], "ToldAgain": told}
    for name, kinds in payloads.items():
        if name in schemas:
            schemas[name]["properties"]["payload"] = {"anyOf": [*kinds]}
    return schemas


def _models(found: Iterable[Body]) -> list[Kind]:
    return [*dict.fromkeys(kind for kind in found if isinstance(kind, type))]


def operation_id(method: str, path: str) -> str:
    """`GET /v1/tasks/{id}/results` is get_tasks_id_results."""
    words = re.findall(r"\w+", path.removeprefix("/v1"))
    return "_".join([method.lower(), *words])


def _operation(row: Row, refs: Refs) -> Described:
    answered = {str(status): _answer(row, status, refs) for status in sorted(row.answers)}
    refused = {
        str(status): {"$ref": f"#/components/responses/Problem{status}"}
        for status in problems.refused(row)
    }
    return {
        "operationId": operation_id(row.method, row.path),
        "tags": [_tag(row.path)],
        "summary": row.summary,
        "security": _security(row),
        "parameters": [*_path(row.path), *_query(row), *_headers(row)],
        **({} if row.body is None else {"requestBody": _body(row.body, refs)}),
        "responses": {**answered, **refused},
    }


def _security(row: Row) -> list[Described]:
    tokens: list[Described] = [{"token": [scope.value]} for scope in Scope if scope in row.scopes]
    return [*tokens, {"session": []}] if row.method == "GET" else tokens


def _tag(path: str) -> str:
    _, is_api, rest = path.partition("/v1/")
    return rest.split("/")[0].replace("-", " ") if is_api else "description"


def _path(path: str) -> list[Described]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _TASK_ID if kind == "tasks" else "As lists and events name it.",
            "schema": {"type": "string", "format": "uuid"} if kind == "tasks" else _TEXT,
        }
        for kind, name in re.findall(r"([\w-]+)/{(\w+)}", path)
    ]


_TASK_ID: Final = "The UUID that the task was submitted with."
_TEXT: Final = {"type": "string", "minLength": 1}


def _query(row: Row) -> list[Described]:
    return [
        {
            "name": name,
            "in": "query",
            "description": QUERY[name].meaning,
            "schema": dict(QUERY[name].schema),
        }
        for name in row.parameters
    ]


def _headers(row: Row) -> list[Described]:
    return [
        {"name": name, "in": "header", "description": meaning, "schema": dict(schema)}
        for name in row.headers.split()
        for meaning, schema in [HEADERS[name]]
    ]


def _body(kind: Kind, refs: Refs) -> Described:
    required = any(field.is_required() for field in kind.model_fields.values())
    return {"required": required, "content": {JSON: {"schema": refs[kind]}}}


_MEANING: Final[Mapping[int, str]] = {
    200: "As asked.",
    201: "Made.",
    202: "Begun; it goes on by itself.",
    204: "Gone.",
    303: "To the login, for browsers that are not logged in.",
    304: "Still the version that you know.",
}


def _answer(row: Row, status: int, refs: Refs) -> Described:
    asked = {*row.headers.split()}
    tagged = bool({"if-none-match", "if-match"} & asked) and status != 204
    repeated = "idempotency-key" in asked
    names = [REQUEST_ID, *(["ETag"] if tagged else []), *([REPEATED] if repeated else [])]
    found: Described = {
        "description": _MEANING[status],
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
    }
    content = dict(_media(kind, refs) for kind in row.bodies(status) if kind is not None)
    return {**found, "content": content} if content else found


def _media(kind: Kind | str, refs: Refs) -> tuple[str, Described]:
    return (kind, {"schema": {}}) if isinstance(kind, str) else (JSON, {"schema": refs[kind]})


_OF_A_WEBHOOK: Final = (
    ("webhook-id", "The event's id, the same over all attempts: keep those that you have seen."),
    ("webhook-timestamp", "When this attempt was made, in seconds since 1970."),
    ("webhook-signature", "`v1,…` (HMAC-SHA256), one for each live secret; on request `v1a,…`"),
    (
        TRACEPARENT,
        "If the task was registered with a trace: a span of it, this attempt.",
    ),
)


def _webhook(name: str, schema: Mapping[str, Any]) -> Described:
    return {
        "operationId": f"on_{name.replace('.', '_')}",
        "tags": ["webhooks"],
        "summary": f"`{name}`, sent to the endpoints that want it",
        "description": "Signed by Standard Webhooks 1.0. Verify it before you read the body.",
        "security": [],
        "parameters": [
            {
                "name": header,
                "in": "header",
                "required": header != TRACEPARENT,
                "description": meaning,
                "schema": {"type": "string"},
            }
            for header, meaning in _OF_A_WEBHOOK
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": schema}}},
        "responses": {
            "2XX": {"description": "Taken. Answer first, work afterwards."},
            "410": {"description": "Disables the endpoint; its queue is held."},
            "default": {"description": "Sent again by the endpoint's schedule. So is a redirect."},
        },
    }

"""Floor 4, doors: the routes that need no token, as OpenAPI has them. Pydantic only.

They stand in no table: the door is bare ASGI, and the probes belong to the assembly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel

from receiver.admin.openapi.problems import UNHEARD, response
from receiver.platforms import PLATFORMS


class Taken(BaseModel):
    """What became of a callback, on disk by now; `results` of it are new."""

    status: Literal["recorded", "duplicate", "conflict", "quarantined", "progress"]
    results: int = 0


class Alive(BaseModel):
    """The process runs."""

    status: Literal["ok"]
    instance: str


class Ready(BaseModel):
    """The store takes what comes, and the worker turns."""

    status: Literal["ready"]
    instance: str


class NotReady(BaseModel):
    """What is amiss."""

    status: Literal["not ready"]
    reason: str


ANSWERS: Final = (Taken, Alive, Ready, NotReady)

CODES: Final[Mapping[int, Sequence[str]]] = {
    401: ("token_refused",),
    403: ("foreign_task",),
    404: ("unknown_platform",),
    410: ("token_gone",),
    413: ("too_large",),
    415: ("encoded", "not_json"),
    429: ("too_many",),
    500: ("internal",),
    503: ("store_unavailable",),
}

Refs = Mapping[type[BaseModel], Mapping[str, Any]]


def public(refs: Refs) -> dict[str, Any]:
    """The path items of the door and the probes."""
    return {
        "/webhooks/{platform}": {"post": _door(refs)},
        "/healthz": {"get": _probe("healthz", "Whether the process runs", refs[Alive])},
        "/readyz": {
            "get": _probe("readyz", "Whether callbacks are taken", refs[Ready], refs[NotReady])
        },
    }


def _door(refs: Refs) -> dict[str, Any]:
    codes = {status: sorted({*CODES.get(status, ()), *UNHEARD.get(status, ())}) for status in _ALL}
    platform = {"type": "string", "enum": sorted(PLATFORMS)}
    return {
        "operationId": "post_webhooks_platform",
        "tags": ["public"],
        "summary": "Take a platform's callback",
        "description": "The signed webhookURL. A 2xx means: on disk, with all that follows. Its"
        " other parameters are the task's tags.",
        "security": [{"sig": []}, {"apiKey": []}],
        "parameters": [{"name": "platform", "in": "path", "required": True, "schema": platform}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {}}}},
        "responses": {
            "200": _json("What became of it.", refs[Taken]),
            **{str(status): response(status, known) for status, known in codes.items()},
        },
    }


_ALL: Final = sorted({*CODES, *UNHEARD})


def _probe(
    name: str, summary: str, well: Mapping[str, Any], ill: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    early = {
        str(status): {"$ref": f"#/components/responses/Problem{status}"}
        for status in UNHEARD
        if status != 503
    }
    too_busy = response(503, UNHEARD[503])
    if ill is not None:
        too_busy["content"]["application/json"] = {"schema": ill}
        too_busy["description"] = "It is not, and why."
    return {
        "operationId": f"get_{name}",
        "tags": ["public"],
        "summary": summary,
        "security": [],
        "responses": {"200": _json("It is so.", well), **early, "503": too_busy},
    }


def _json(meaning: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": meaning, "content": {"application/json": {"schema": schema}}}

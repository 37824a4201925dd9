"""Floor 4, doors: which refusals there are, by status. No third party.

The codes are gathered from where they are defined; what a row may refuse follows from what it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from receiver import refusals
from receiver.admin.routes.rows import Row
from receiver.errors import Refusal, StoreUnavailable
from receiver.problems import MEDIA_TYPE

# Before it is a request of a route at all (`receiver.connection`).
UNHEARD: Final[Mapping[int, Sequence[str]]] = {
    status: sorted(
        {
            one.code
            for one in vars(refusals).values()
            if isinstance(one, refusals.Refusal) and one.status == status
        }
    )
    for status in (400, 408, 414, 431, 503)
}
# Starlette's own refusals, and what is left of a defect.
_FRAME: Final[Mapping[int, str]] = {
    404: "not_found",
    413: "content_too_large",
    500: "internal",
}
_NAMING: Final = frozenset({"task", "endpoint"})  # parameters that are things' ids
_MEANING: Final[Mapping[int, str]] = {
    400: "This is no request that can be read.",
    401: "No token, or a wrong one.",
    403: "The token may not do this.",
    404: "There is nothing by that id.",
    405: "There is no such method here; `Allow` names those that there are.",
    408: "The request came too slowly.",
    409: "It contradicts what is stored.",
    410: "The URL has expired or was revoked.",
    412: "It was changed meanwhile: `If-Match` names another version.",
    413: "The body is too large.",
    414: "The target is too long.",
    415: "The body is encoded, or no JSON.",
    422: "It is understood and not valid; the problem says what to change.",
    429: "Too many; `Retry-After` says when to come again.",
    431: "The head is too large.",
    500: "Our fault; the log has it.",
    503: "Nothing was written; `Retry-After` says when to try again.",
}
_HEADERS: Final[Mapping[int, Sequence[str]]] = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}

PROBLEM: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "A refusal (RFC 9457). `code` is stable; further members depend on it.",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string", "description": "For people: what to do."},
        "parameter": {"type": "string", "description": "The value that is not valid."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"parameter": {"type": "string"}, "message": {"type": "string"}},
                "required": ["parameter", "message"],
            },
        },
    },
    "required": ["type", "title", "status", "code", "detail"],
}


def codes() -> dict[int, list[str]]:
    """The codes of the API's refusals by status, those before a request is one included."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for kind in _family(Refusal):
        if kind is not Refusal:
            found[kind.status].add(kind.code)
    for unavailable in _family(StoreUnavailable):
        found[503].add(unavailable.code)
    for status, code in _FRAME.items():
        found[status].add(code)
    for status, early in UNHEARD.items():
        found[status].update(early)
    return {status: sorted(found[status]) for status in sorted(found)}


def _family(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def refused(row: Row) -> list[int]:
    """Which statuses a row may refuse with."""
    changes, takes = row.method != "GET", row.body is not None
    may = {
        404: "{" in row.path or (changes and takes) or bool(_NAMING & {*row.parameters}),
        409: changes,
        412: "if-match" in row.headers.split(),
        413: takes,
    }
    always = {401, 403, 422, 500, *UNHEARD}
    return sorted(always | {status for status, is_so in may.items() if is_so})


def response(status: int, known: Sequence[str]) -> dict[str, Any]:
    """A refusal with one of these codes, as OpenAPI has it."""
    code = {"properties": {"status": {"const": status}, "code": {"enum": [*known]}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/Problem"}, code]}
    headers = {name: {"schema": {"type": "string"}} for name in _HEADERS.get(status, ())}
    return {
        "description": _MEANING[status],
        **({"headers": headers} if headers else {}),
        "content": {MEDIA_TYPE: {"schema": schema}},
    }

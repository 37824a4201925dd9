"""Floor 4, doors: what the API answers: objects, pages, problems. Starlette and pydantic only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from receiver import ids
from receiver.admin.ops import Page
from receiver.errors import Refusal, StoreUnavailable
from receiver.problems import MEDIA_TYPE, REQUEST_ID, problem

RETRY_AFTER: Final = "2"  # seconds
# Bytes that strangers sent: nothing may run them, guess what they are, or keep them on the way.
INERT: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def shown(
    found: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    hidden = {name for name in ("secret", "attempt_log") if getattr(found, name, "") is None}
    return Response(_json(found, hidden), status, headers, media_type="application/json")


def _json(found: BaseModel, hidden: set[str]) -> str:
    try:
        return found.model_dump_json(exclude=hidden)
    except PydanticSerializationError:
        # A platform that cuts a text in UTF-16 leaves half a character; the stdlib escapes it.
        return json.dumps(found.model_dump(exclude=hidden), default=to_jsonable_python)


def listed(page: Page[Any], more: str = "") -> Response:
    items = ",".join(_json(item, {"secret", "attempt_log"}) for item in page.data)
    cursor = cursor_text(page.next_cursor)
    shown = "null" if cursor is None else f'"{cursor}"'
    body = f'{{"data":[{items}],{more}"next_cursor":{shown}}}'
    return Response(body, media_type="application/json")


def cursor_text(place: tuple[int, ...] | None) -> str | None:
    return None if place is None else "-".join(map(ids.encode, place))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101 - Starlette's type is wider than its promise
    headers = _closing(request, error.status)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.status == 503:
        headers["retry-after"] = RETRY_AFTER
    return _problem(request, error.status, error.code, str(error), headers, **error.evidence)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)  # noqa: S101
    errors = [
        {"parameter": ".".join(map(str, found["loc"])), "message": found["msg"]}
        for found in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    first = errors[0]
    detail = f"{first['parameter'] or 'The body'}: {first['message']}."
    return _problem(request, 422, "invalid", detail, errors=errors)


async def _unavailable(request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreUnavailable)  # noqa: S101
    return _problem(request, 503, error.code, str(error), {"retry-after": RETRY_AFTER})


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = error.detail.lower().replace(" ", "_")
    headers = {**(error.headers or {}), **_closing(request, error.status_code)}
    return _problem(request, error.status_code, code, f"{error.detail}.", headers)


def _closing(request: Request, status: int) -> dict[str, str]:
    # Refused before its body was read: what follows on this connection is not a request.
    unread = "content-length" in request.headers or "transfer-encoding" in request.headers
    return {"connection": "close"} if unread and status in _BEFORE_THE_BODY else {}


_BEFORE_THE_BODY: Final = frozenset({401, 403, 404, 405, 413})


async def _unexpected(request: Request, _error: Exception) -> Response:
    return _problem(request, 500, "internal", "That was our fault; it is in the log.")


def _problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    named = {"request_id": request.scope[REQUEST_ID]} if REQUEST_ID in request.scope else {}
    body = problem(status, code, detail, **members, **named)
    return Response(body, status, headers, media_type=MEDIA_TYPE)


EXCEPTION_HANDLERS: Final[Mapping[Any, Any]] = {
    Refusal: _refused,
    ValidationError: _invalid,
    StoreUnavailable: _unavailable,
    HTTPException: _http,
    Exception: _unexpected,
}

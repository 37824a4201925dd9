"""Floor 4, doors: the HTTP API under /v1, each route one use case. Starlette and pydantic only."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from pydantic import BaseModel, FiniteFloat, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver import ids
from receiver.admin.auth import PRINCIPAL, Auth
from receiver.admin.ops import Ops, Page, Principal, Query
from receiver.callbacks import Outcome, Reprocess
from receiver.clock import from_datetime, within_reason
from receiver.deliveries import State as DeliveryState
from receiver.endpoints import EndpointPatch, EndpointSpec
from receiver.endpoints import State as EndpointState
from receiver.errors import Invalid, Refusal, StoreUnavailable, Unreadable
from receiver.keeping import PruneAsked
from receiver.platforms.reading import loads
from receiver.problems import MEDIA_TYPE, problem
from receiver.shown import without_tokens
from receiver.tasks import Status, TaskClaim, TaskPatch, TaskRelease, TaskSpec
from receiver.tokens import Source

M = TypeVar("M", bound=BaseModel)

MAX_BODY: Final = 16 << 20  # bytes: a task's request may carry images
MAX_LIMIT: Final = 200

Handler = Callable[[Principal, Request], Awaitable[Response]]

_MOVES: Final[Mapping[str, EndpointState]] = {
    "pause": EndpointState.PAUSED,
    "disable": EndpointState.DISABLED,
    "resume": EndpointState.ENABLED,
    "enable": EndpointState.ENABLED,
}


class Api:
    """The routes under /v1."""

    def __init__(self, ops: Ops, auth: Auth) -> None:
        self._ops = ops
        self._auth = auth

    def routes(self) -> list[Route]:
        """Every route, as a table."""
        table: Sequence[tuple[str, str, Handler]] = (
            ("GET", "/v1/tasks", self._tasks),
            ("POST", "/v1/tasks/claim", self._claim_tasks),
            ("POST", "/v1/tasks/release", self._release_tasks),
            ("PUT", "/v1/tasks/{id}", self._put_task),
            ("PATCH", "/v1/tasks/{id}", self._patch_task),
            ("GET", "/v1/tasks/{id}", self._task),
            ("DELETE", "/v1/tasks/{id}", self._delete_task),
            ("GET", "/v1/tasks/{id}/results", self._results),
            ("POST", "/v1/tasks/{id}/revoke", self._revoke_task),
            ("POST", "/v1/tasks/{id}/reconcile", self._reconcile_task),
            ("GET", "/v1/callbacks", self._callbacks),
            ("GET", "/v1/callbacks/{id}", self._callback),
            ("DELETE", "/v1/callbacks/{id}", self._delete_callback),
            ("GET", "/v1/callbacks/{id}/body", self._callback_body),
            ("POST", "/v1/callbacks/{id}/reprocess", self._reprocess),
            ("GET", "/v1/endpoints", self._endpoints),
            ("POST", "/v1/endpoints", self._add_endpoint),
            ("GET", "/v1/endpoints/{id}", self._endpoint),
            ("PATCH", "/v1/endpoints/{id}", self._patch_endpoint),
            ("DELETE", "/v1/endpoints/{id}", self._delete_endpoint),
            ("POST", "/v1/endpoints/{id}/{move}", self._move_endpoint),
            ("GET", "/v1/events", self._events),
            ("GET", "/v1/events/{id}", self._event),
            ("GET", "/v1/deliveries", self._deliveries),
            ("GET", "/v1/deliveries/{id}", self._delivery),
            ("POST", "/v1/deliveries/{id}/{move}", self._move_delivery),
            ("POST", "/v1/prune", self._prune),
        )
        # One route a path, so that a 405 names every method that the path has.
        paths: dict[str, dict[str, Handler]] = {}
        for method, path, handler in table:
            paths.setdefault(path, {})[method] = handler
        return [
            Route(path, self._guarded(handlers), methods=[*handlers], max_body_size=MAX_BODY)
            for path, handlers in paths.items()
        ]

    def _guarded(self, handlers: Mapping[str, Handler]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            who = self._auth.principal(request)
            request.scope[PRINCIPAL] = who.name
            method = "GET" if request.method == "HEAD" else request.method
            return await handlers[method](who, request)

        return endpoint

    async def _put_task(self, who: Principal, request: Request) -> Response:
        spec = await _body(request, TaskSpec)
        source = _one_of(Source, request.query_params.get("src", "callback"), "src")
        task = await self._ops.register_task(who, request.path_params["id"], spec, source)
        return _shown(task, 201 if task.may_submit else 200)

    async def _patch_task(self, who: Principal, request: Request) -> Response:
        patch = await _body(request, TaskPatch)
        return _shown(await self._ops.change_task(who, request.path_params["id"], patch))

    async def _task(self, who: Principal, request: Request) -> Response:
        known = _revision(request)
        task_id, wait = request.path_params["id"], _seconds(request)
        if wait:
            task = await self._ops.wait_task(who, task_id, known, wait)
        else:
            task = await self._ops.task(who, task_id)
        etag = {"etag": f'"{task.revision}"'}
        if task.revision == known:
            return Response(status_code=304, headers=etag)
        return _shown(task, headers=etag)

    async def _delete_task(self, who: Principal, request: Request) -> Response:
        await self._ops.delete_task(who, request.path_params["id"])
        return Response(status_code=204)

    async def _revoke_task(self, who: Principal, request: Request) -> Response:
        return _shown(await self._ops.revoke_task(who, request.path_params["id"]))

    async def _claim_tasks(self, who: Principal, request: Request) -> Response:
        claimed = await self._ops.claim_tasks(who, await _body(request, TaskClaim))
        return _listed(Page(claimed, None))

    async def _release_tasks(self, who: Principal, request: Request) -> Response:
        released = await self._ops.release_tasks(who, await _body(request, TaskRelease))
        return JSONResponse({"released": released})

    async def _reconcile_task(self, who: Principal, request: Request) -> Response:
        return _shown(await self._ops.reconcile_task(who, request.path_params["id"]))

    async def _tasks(self, who: Principal, request: Request) -> Response:
        names = "status platform model overdue registered tag project since until q"
        return _listed(await self._ops.tasks(who, _query(request, names)))

    async def _results(self, who: Principal, request: Request) -> Response:
        results = await self._ops.results(who, request.path_params["id"])
        return _listed(Page(results, None))

    async def _callbacks(self, who: Principal, request: Request) -> Response:
        names = "outcome task orphan project since until"
        return _listed(await self._ops.callbacks(who, _query(request, names)))

    async def _callback(self, who: Principal, request: Request) -> Response:
        return _shown(await self._ops.callback(who, request.path_params["id"]))

    async def _callback_body(self, who: Principal, request: Request) -> Response:
        callback_id = request.path_params["id"]
        body = await self._ops.callback_body(who, callback_id)
        name = {"content-disposition": f'attachment; filename="{callback_id}"'}
        return Response(body, 200, {**_INERT, **name}, media_type="application/octet-stream")

    async def _delete_callback(self, who: Principal, request: Request) -> Response:
        await self._ops.delete_callback(who, request.path_params["id"])
        return Response(status_code=204)

    async def _reprocess(self, who: Principal, request: Request) -> Response:
        asked = await _body(request, Reprocess)
        return _shown(await self._ops.reprocess(who, request.path_params["id"], asked))

    async def _endpoints(self, who: Principal, request: Request) -> Response:
        return _listed(await self._ops.endpoints(who, _query(request, "project")))

    async def _add_endpoint(self, who: Principal, request: Request) -> Response:
        spec = await _body(request, EndpointSpec)
        endpoint = await self._ops.add_endpoint(who, spec, request.query_params.get("project"))
        return _shown(endpoint, 201)

    async def _endpoint(self, who: Principal, request: Request) -> Response:
        return _shown(await self._ops.endpoint(who, request.path_params["id"]))

    async def _patch_endpoint(self, who: Principal, request: Request) -> Response:
        patch = await _body(request, EndpointPatch)
        return _shown(await self._ops.change_endpoint(who, request.path_params["id"], patch))

    async def _delete_endpoint(self, who: Principal, request: Request) -> Response:
        await self._ops.delete_endpoint(who, request.path_params["id"])
        return Response(status_code=204)

    async def _move_endpoint(self, who: Principal, request: Request) -> Response:
        state = _MOVES.get(request.path_params["move"])
        if state is None:
            raise HTTPException(404)
        return _shown(await self._ops.move_endpoint(who, request.path_params["id"], state))

    async def _events(self, who: Principal, request: Request) -> Response:
        names = "event_type task project since until"
        return _listed(await self._ops.events(who, _query(request, names)))

    async def _event(self, who: Principal, request: Request) -> Response:
        return _shown(await self._ops.event(who, request.path_params["id"]))

    async def _deliveries(self, who: Principal, request: Request) -> Response:
        names = "state endpoint task event_type project since until"
        return _listed(await self._ops.deliveries(who, _query(request, names)))

    async def _delivery(self, who: Principal, request: Request) -> Response:
        return _shown(await self._ops.delivery(who, request.path_params["id"]))

    async def _move_delivery(self, who: Principal, request: Request) -> Response:
        move = {"retry": self._ops.retry, "cancel": self._ops.cancel}.get(
            request.path_params["move"]
        )
        if move is None:
            raise HTTPException(404)
        return _shown(await move(who, request.path_params["id"]))

    async def _prune(self, who: Principal, request: Request) -> Response:
        asked = await _body(request, PruneAsked)
        place = _cursor(asked.cursor) or ()
        pruned, place_next = await self._ops.prune(who, place, dry_run=asked.dry_run)
        return _shown(pruned.model_copy(update={"next_cursor": _cursor_text(place_next)}))


# Bytes that strangers sent: nothing may run them, guess what they are, or keep them on the way.
_INERT: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def _shown(
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


def _listed(page: Page[Any]) -> Response:
    items = ",".join(_json(item, {"secret", "attempt_log"}) for item in page.data)
    cursor = _cursor_text(page.next_cursor)
    shown = "null" if cursor is None else f'"{cursor}"'
    return Response(f'{{"data":[{items}],"next_cursor":{shown}}}', media_type="application/json")


def _cursor_text(place: tuple[int, ...] | None) -> str | None:
    return None if place is None else "-".join(map(ids.encode, place))


async def _body(request: Request, kind: type[M]) -> M:
    text = (await request.body() or b"{}").decode("latin-1")  # byte for byte
    try:
        # Who notes a whole request with its task notes the webhookURL too, which is not kept.
        found = loads(without_tokens(text).encode("latin-1"))
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()
        return kind.model_validate(found)
    except Unreadable as error:
        raise Invalid(f"The body is not JSON that can be read: {error}.") from None
    except UnicodeEncodeError:  # no database but SQLite, and no strict client, takes such a text
        raise Invalid("A text in the body has half of a character (a lone surrogate).") from None


def _query(request: Request, names: str) -> Query:
    given = dict(request.query_params)
    if unknown := set(given) - {*names.split(), "limit", "cursor"}:
        raise Invalid(
            f"There is no parameter {min(unknown)!r} here; known: cursor, limit,"
            f" {', '.join(names.split())}.",
            parameter=min(unknown),
        )
    values: dict[str, Any] = {name: text for name, text in given.items() if text != ""}
    cursor, tag = values.pop("cursor", None), values.pop("tag", None)
    parsed = {name: _READ[name](text, name) for name, text in values.items()}
    return Query(**parsed, before=_cursor(cursor), tag=_tag(tag))


def _moment(text: str, name: str) -> int:
    try:
        return within_reason(from_datetime(datetime.fromisoformat(text)))
    except (ValueError, OverflowError):
        raise Invalid(f"{name} must be a time such as 2026-11-20T19:40:04Z.") from None


def _limit(text: str, name: str) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= 6
    if not digits or not 1 <= int(text) <= MAX_LIMIT:
        raise Invalid(f"{name} must be a number from 1 to {MAX_LIMIT}.", parameter=name)
    return int(text)


def _flag(text: str, name: str) -> bool:
    if text not in ("true", "false"):
        raise Invalid(f"{name} must be true or false.", parameter=name)
    return text == "true"


def _text(text: str, name: str) -> str:
    if len(text) > 500 or "\x00" in text:
        raise Invalid(f"{name} is too long or has a NUL.", parameter=name)
    return text


def _word(kind: type[StrEnum]) -> Callable[[str, str], str]:
    def read(text: str, name: str) -> str:
        if text not in [*kind]:
            raise Invalid(f"{name} must be one of {', '.join(kind)}.", parameter=name)
        return text

    return read


_READ: Final[Mapping[str, Callable[[str, str], Any]]] = {
    **{field.name: _text for field in fields(Query)},
    "status": _word(Status),
    "state": _word(DeliveryState),
    "outcome": _word(Outcome),
    "limit": _limit,
    "since": _moment,
    "until": _moment,
    "overdue": _flag,
    "registered": _flag,
    "orphan": _flag,
}


def _cursor(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(ids.decode(part) for part in text.split("-"))
    except ValueError:
        raise Invalid("cursor is not one that a list gave.", parameter="cursor") from None


def _tag(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    name, equals, value = _text(text, "tag").partition("=")
    if not equals or '"' in name:
        raise Invalid("tag must be name=value.", parameter="tag")
    return name, value


_FINITE: Final = TypeAdapter(FiniteFloat)


def _revision(request: Request) -> int | None:
    text = request.headers.get("if-none-match", "").removeprefix("W/").strip('"')
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _seconds(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    try:
        return max(_FINITE.validate_python(text), 0.0)
    except ValidationError:
        raise Invalid("wait must be seconds, such as 25.", parameter="wait") from None


def _one_of(kind: type[Source], text: str, name: str) -> Source:
    allowed = (Source.CALLBACK, Source.POLL, Source.SUBMIT)
    if text not in allowed:
        raise Invalid(f"{name} must be one of {', '.join(allowed)}.", parameter=name)
    return kind(text)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101 - Starlette's type is wider than its promise
    headers = _closing(request, error.status)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return _problem(error.status, error.code, str(error), headers, **error.evidence)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)  # noqa: S101
    errors = [
        {"parameter": ".".join(map(str, found["loc"])), "message": found["msg"]}
        for found in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    first = errors[0]
    detail = f"{first['parameter'] or 'The body'}: {first['message']}."
    return _problem(422, "invalid", detail, errors=errors)


async def _unavailable(_request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreUnavailable)  # noqa: S101
    return _problem(503, error.code, str(error), {"retry-after": "2"})


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = error.detail.lower().replace(" ", "_")
    headers = {**(error.headers or {}), **_closing(request, error.status_code)}
    return _problem(error.status_code, code, f"{error.detail}.", headers)


def _closing(request: Request, status: int) -> dict[str, str]:
    # Refused before its body was read: what follows on this connection is not a request.
    unread = "content-length" in request.headers or "transfer-encoding" in request.headers
    return {"connection": "close"} if unread and status in _BEFORE_THE_BODY else {}


_BEFORE_THE_BODY: Final = frozenset({401, 404, 405, 413})


async def _unexpected(_request: Request, _error: Exception) -> Response:
    return _problem(500, "internal", "That was our fault; it is in the log.")


def _problem(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    body = problem(status, code, detail, **members)
    return Response(body, status, headers, media_type=MEDIA_TYPE)


EXCEPTION_HANDLERS: Final[Mapping[Any, Any]] = {
    Refusal: _refused,
    ValidationError: _invalid,
    StoreUnavailable: _unavailable,
    HTTPException: _http,
    Exception: _unexpected,
}

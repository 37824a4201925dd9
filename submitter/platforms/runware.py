"""Floor 2, edges: asking Runware: submit tasks, fetch one or its archive. httpx only.

An answer is judged by its error codes, not by its HTTP status: the platform sends 400 where its
page says 402 (reference: platforms.md §1.4). Only a 5xx says nothing for sure, whatever its codes.
What may have been accepted is never sent again here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import httpx
import stamina

from receiver.client import redact
from receiver.platforms.items import Category
from receiver.platforms.runware import categorise
from submitter.errors import AmbiguousSubmit, PlatformUnavailable
from submitter.platforms.snapshots import NAME, Snapshot, read, retry_after, snapshot_of, unseen
from submitter.tasks import GenerationTask

BASE_URL: Final = "https://api.runware.ai/v1"
TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
ATTEMPTS: Final = 3
LONGEST_WAIT: Final = 30.0  # seconds that a Retry-After may ask for before we give up instead

# The platform has this taskUUID already: an earlier try of ours arrived.
_ALREADY: Final = "conflictTaskUUID"
_TOO_MANY: Final = 429
_UNAVAILABLE: Final = 503

# Not one byte of a request has reached the platform.
_NOT_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A definite no, with the platform's own body about this task."""

    code: str
    message: str
    http_status: int
    parameter: str | None
    body: Json


@dataclass(frozen=True, slots=True)
class SubmitAnswer:
    """What became of each task, by its id."""

    accepted: frozenset[str]
    rejected: Mapping[str, Rejection]


@dataclass(slots=True)
class _TryLater(Exception):
    """A failure after which sending again can't bill twice."""

    reason: str
    status: int | None = None
    after: float | None = None
    args: tuple[Any, ...] = field(default=(), init=False)


class Runware:
    """One account. `transport` is for tests; the key appears in no repr and no error."""

    name = NAME

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: httpx.Timeout = TIMEOUT,
    ) -> None:
        self.base_url = base_url
        self._api_key = api_key
        self._http = httpx.AsyncClient(
            headers={"authorization": f"Bearer {api_key}"}, timeout=timeout, transport=transport
        )

    def __repr__(self) -> str:
        return f"Runware(base_url={self.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    @property
    def is_local(self) -> bool:
        """Whether this is a simulator on this machine, which neither bills nor needs https."""
        return httpx.URL(self.base_url).host in ("127.0.0.1", "localhost", "::1")

    async def submit(self, tasks: Sequence[Json]) -> SubmitAnswer:
        """Send tasks as one array.

        Raises PlatformUnavailable when none can have been accepted, AmbiguousSubmit when some may.
        """
        first = str(tasks[0]["taskUUID"])
        try:
            response = await self._post_safely(tasks)
        except _TryLater as failure:
            raise PlatformUnavailable(
                platform=NAME,
                task_id=first,
                reason=failure.reason,
                http_status=failure.status,
                retry_after_s=failure.after,
            ) from None
        except httpx.RequestError as error:
            reason = f"{type(error).__name__} after the request was sent"
            raise AmbiguousSubmit(platform=NAME, task_id=first, reason=reason) from None
        asked = [str(task["taskUUID"]).lower() for task in tasks]
        return _judge(self._body(response, first), response.status_code, asked)

    async def fetch(self, task_id: str) -> Snapshot:
        """What the platform says of a task (`getResponse`).

        Raises KeyRefused, and PlatformUnavailable for whatever else says nothing of the task.
        """
        response = await self._ask("getResponse", task_id)
        return snapshot_of(response, self._without_key(response), task_id)

    async def fetch_archived(self, task_id: str) -> Snapshot:
        """The same from its archive (`getTaskDetails`): the response within, as it was."""
        response = await self._ask("getTaskDetails", task_id)
        content = self._without_key(response)
        body = read(content)
        for found in _objects(body.get("data") if isinstance(body, dict) else None):
            if _owner(found) == task_id and not _is_failed(found):
                archived = json.dumps(found.get("response")).encode()
                return snapshot_of(response, archived, task_id, owner=task_id)
        return snapshot_of(response, content, task_id)

    async def _ask(self, kind: str, task_id: str) -> httpx.Response:
        question = [{"taskType": kind, "taskUUID": task_id}]
        try:
            return await self._http.post(self.base_url, json=question)
        except httpx.RequestError as error:
            raise unseen(task_id, type(error).__name__) from None

    def _without_key(self, response: httpx.Response) -> bytes:
        # A platform may quote our key back at us; what is passed on must not.
        key = self._api_key.encode()
        return response.content.replace(key, "…".encode()) if key else response.content

    async def _post_safely(self, tasks: Sequence[Json]) -> httpx.Response:
        async for attempt in stamina.retry_context(
            on=_wait_before, attempts=ATTEMPTS, timeout=None, wait_initial=1.0, wait_max=10.0
        ):
            with attempt:
                return await self._post(tasks)
        raise AssertionError("stamina ends with a result or an exception")

    async def _post(self, tasks: Sequence[Json]) -> httpx.Response:
        try:
            response = await self._http.post(self.base_url, json=list(tasks))
        except _NOT_SENT as error:
            raise _TryLater(f"no connection ({type(error).__name__})") from None
        if self._refused_for_now(response, str(tasks[0]["taskUUID"])):
            raise _TryLater("it is busy", response.status_code, retry_after(response))
        return response

    def _refused_for_now(self, response: httpx.Response, first: str) -> bool:
        # A gateway's own 503 may follow an acceptance; only the platform's word counts, and a 429.
        if response.status_code == _TOO_MANY:
            return True
        body = self._body(response, first)
        codes = {str(error.get("code", "")) for error in _errors(body)}
        limited = {categorise(code) for code in codes} == {Category.RATE_LIMIT}
        refused = bool(codes) and (limited or response.status_code == _UNAVAILABLE)
        return refused and not _objects(body.get("data"))

    def _body(self, response: httpx.Response, first: str) -> Json:
        try:
            # A platform may quote our key and our URL back at us; what is passed on must not.
            text = response.text.replace(self._api_key, "…") if self._api_key else response.text
            body = json.loads(redact(text))
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            reason = f"HTTP {response.status_code} without a readable body"
            raise AmbiguousSubmit(platform=NAME, task_id=first, reason=reason)
        return body


def _wait_before(error: Exception) -> bool | float:
    if not isinstance(error, _TryLater):
        return False
    if error.after is None:
        return True
    return error.after if error.after <= LONGEST_WAIT else False


def _judge(body: Json, status: int, asked: Sequence[str]) -> SubmitAnswer:
    errors = list(_errors(body))
    said = {_owner(found) for found in _objects(body.get("data")) if not _is_failed(found)}
    said |= {_owner(error) for error in errors if error.get("code") == _ALREADY}
    unnamed = [task_id for task_id in asked if task_id not in said]
    rejected = {
        task_id: _rejection(error, status)
        for error in errors
        for task_id in ([_owner(error)] if _owner(error) else unnamed)
        if error.get("code") != _ALREADY and status < 500
    }
    accepted = {task_id for task_id in asked if task_id in said and task_id not in rejected}
    if unsaid := [task for task in asked if task not in accepted and task not in rejected]:
        reason = f"HTTP {status} does not say"
        raise AmbiguousSubmit(platform=NAME, task_id=unsaid[0], reason=reason)
    return SubmitAnswer(frozenset(accepted), rejected)


def _errors(body: Json) -> Iterator[Json]:
    yield from _objects(body.get("errors"))
    yield from _objects(body.get("error"))
    for found in _objects(body.get("data")):
        if _is_failed(found):  # platforms.md §1.5, shape C: the error inside its item
            embedded = found.get("error")
            yield {**found, **(embedded if isinstance(embedded, dict) else {})}


def _is_failed(found: Json) -> bool:
    return found.get("status") == "error" or isinstance(found.get("error"), dict)


def _objects(value: Any) -> list[Json]:
    listed = value if isinstance(value, list) else [value]
    return [found for found in listed if isinstance(found, dict)]


def _owner(error: Json) -> str:
    named = error.get("taskUUID")
    return named.lower() if isinstance(named, str) else ""


def _rejection(error: Json, status: int) -> Rejection:
    parameter = error.get("parameter")
    return Rejection(
        code=str(error.get("code", "unknownError")),
        message=str(error.get("message", "")),
        http_status=status,
        parameter=parameter if isinstance(parameter, str) else None,
        body={"errors": [error]},
    )


def request_of(task: GenerationTask) -> Json:
    """A task as Runware wants it, but for its webhookURL (seed: video inference API, request)."""
    return {
        "taskType": "videoInference",
        "includeCost": True,
        **task.parameters,
        "taskUUID": task.id,
        "model": task.model,
        "deliveryMethod": "async",
        "numberResults": task.number_results,
    }

"""Floor 2, edges: asking Runware: submit tasks, fetch one or its archive. httpx only.

An answer is judged by its error codes, not by its HTTP status: the platform sends 400 where its
page says 402 (reference: platforms.md §1.4). Only a 5xx says nothing for sure, whatever its codes.
What may have been accepted is never sent again here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx

from receiver.platforms import Unreadable
from receiver.platforms.items import Category, Item, Kind
from receiver.platforms.runware import categorise, parse
from submitter.errors import AmbiguousSubmit
from submitter.platforms.answers import (
    FORBIDDEN,
    NOT_SENT,
    SERVER,
    TIMEOUT,
    TOO_MANY,
    UNAUTHORIZED,
    UNAVAILABLE,
    TryLater,
    attempts,
    bytes_of,
    is_local,
    lost,
    not_sent,
    object_of,
    retry_after,
)
from submitter.platforms.protocol import Accepted, Outcome, Outgoing, Rejection, TaskRef
from submitter.platforms.snapshots import Snapshot, Standing, read, refused, unseen
from submitter.tasks import GenerationTask

NAME: Final = "runware"
SETTING: Final = "RUNWARE_API_KEY"
BASE_SETTING: Final = "RUNWARE_BASE_URL"
BASE_URL: Final = "https://api.runware.ai/v1"
# The platform names no bound for an array. All tasks in one share the fate of its answer: a time-
# out leaves each of them open, to be asked after one by one, so it is no more than a screenful.
AT_ONCE: Final = 20
MOST_RESULTS: Final = 4  # seed: video inference API, numberResults

# The platform has this taskUUID already: an earlier try of ours arrived.
_ALREADY: Final = "conflictTaskUUID"
_NEVER_HAD_IT: Final = frozenset({"taskNotFound"})
# It had the task, and there will never be more of it than there is now.
_OVER: Final = re.compile(r"(expired|cancell?ed)$", re.IGNORECASE)
_OWN: Final = frozenset({"taskUUID", "model", "deliveryMethod", "numberResults"})

Json = dict[str, Any]


class Runware:
    """One account. `transport` is for tests; the key appears in no repr and no error."""

    name = NAME
    calls_back = True
    asks_by_task = True
    archives = True
    at_once = AT_ONCE

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
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @property
    def is_local(self) -> bool:
        """Whether this is a simulator on this machine, which neither bills nor needs https."""
        return is_local(self.base_url)

    def request_of(self, task: GenerationTask) -> Json:
        """As `request_of` below."""
        return request_of(task)

    def parameters_of(self, request: Mapping[str, Any]) -> Json:
        """A request without what `request_of` puts into it."""
        return {name: value for name, value in request.items() if name not in _OWN}

    async def submit(self, tasks: Sequence[Outgoing]) -> Mapping[str, Outcome]:
        """Send tasks as one array; what became of each. Those it has no room for are sent again."""
        waiting = {sent.task.id: _on_the_wire(sent) for sent in tasks}
        found: dict[str, Outcome] = {}
        try:
            async for attempt in attempts():
                with attempt:
                    await self._send(waiting, found)
        except TryLater as failure:
            found |= {task_id: failure.of(NAME, task_id) for task_id in waiting}
        except httpx.RequestError as error:
            found |= {task_id: lost(NAME, task_id, error) for task_id in waiting}
        return found

    async def _send(self, waiting: dict[str, Json], found: dict[str, Outcome]) -> None:
        """Send what waits and take out what was answered. Raises TryLater while some may go."""
        try:
            response = await self._http.post(self.base_url, json=[*waiting.values()])
        except NOT_SENT as error:
            raise not_sent(error) from None
        body = object_of(response, self._api_key)
        busy = TryLater("it is busy", response.status_code, retry_after(response))
        if _refused_for_now(response.status_code, body):
            raise busy
        outcomes = _judge(body, response.status_code, [*waiting])
        for task_id, outcome in outcomes.items():
            if outcome is not None:
                found[task_id] = outcome
                del waiting[task_id]
        if waiting:
            raise busy

    async def fetch(self, of: TaskRef) -> Snapshot:
        """What the platform says of a task (`getResponse`).

        Raises KeyRefused, and PlatformUnavailable for whatever else says nothing of the task.
        """
        response = await self._ask("getResponse", of.id)
        return snapshot_of(response, bytes_of(response, self._api_key), of.id)

    async def fetch_archived(self, of: TaskRef) -> Snapshot:
        """The same from its archive (`getTaskDetails`): the response within, as it was."""
        response = await self._ask("getTaskDetails", of.id)
        content = bytes_of(response, self._api_key)
        body = read(content)
        for found in _objects(body.get("data") if isinstance(body, dict) else None):
            if _owner(found) == of.id and not _is_failed(found):
                archived = json.dumps(found.get("response")).encode()
                return snapshot_of(response, archived, of.id, owner=of.id)
        return snapshot_of(response, content, of.id)

    async def _ask(self, kind: str, task_id: str) -> httpx.Response:
        question = [{"taskType": kind, "taskUUID": task_id}]
        try:
            return await self._http.post(self.base_url, json=question)
        except httpx.RequestError as error:
            raise unseen(NAME, task_id, type(error).__name__) from None


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


def _on_the_wire(sent: Outgoing) -> Json:
    return {**request_of(sent.task), "webhookURL": sent.webhook_url}


def _refused_for_now(status: int, body: Json | None) -> bool:
    # A gateway's own 503 may follow an acceptance; only the platform's word counts, and a 429.
    if status == TOO_MANY:
        return True
    if body is None:
        return False
    codes = {str(error.get("code", "")) for error in _errors(body)}
    limited = {categorise(code) for code in codes} == {Category.RATE_LIMIT}
    is_refused = bool(codes) and (limited or status == UNAVAILABLE)
    return is_refused and not _objects(body.get("data"))


def _judge(body: Json | None, status: int, asked: Sequence[str]) -> dict[str, Outcome | None]:
    """What an answer says of each task; None where the platform has no room for it now."""
    if body is None:
        return {task: _open(task, f"HTTP {status} without a readable body") for task in asked}
    errors = list(_errors(body))
    said = {_owner(found) for found in _objects(body.get("data")) if not _is_failed(found)}
    said |= {_owner(error) for error in errors if error.get("code") == _ALREADY}
    unnamed = [task_id for task_id in asked if task_id not in said]
    faults = {
        task_id: error
        for error in errors
        for task_id in ([_owner(error)] if _owner(error) else unnamed)
        if error.get("code") != _ALREADY and status < SERVER
    }
    return {task: _outcome(task, faults.get(task), task in said, status) for task in asked}


def _outcome(task_id: str, fault: Json | None, was_said: bool, status: int) -> Outcome | None:
    if fault is None:
        return Accepted() if was_said else _open(task_id, f"HTTP {status} does not say")
    if categorise(str(fault.get("code", ""))) is Category.RATE_LIMIT:
        return None
    return _rejection(fault, status)


def _open(task_id: str, reason: str) -> AmbiguousSubmit:
    return AmbiguousSubmit(platform=NAME, task_id=task_id, reason=reason)


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


def snapshot_of(
    response: httpx.Response, content: bytes, task_id: str, *, owner: str | None = None
) -> Snapshot:
    """What an answer says of the task. Items that name no task are of `owner`.

    Raises KeyRefused and PlatformUnavailable when it speaks of the question, or of nothing.
    Sources: platforms.md §1.4 (codes) and §1.5 (shapes).
    """
    body = read(content)
    items = _items(body, owner)
    _refuse(response, items, task_id)
    gone = [item for item in items if _category(item) is Category.NOT_FOUND]
    told = [item for item in items if item not in gone]
    if not gone and not any(item.task_id == task_id for item in told):
        status = response.status_code
        raise unseen(NAME, task_id, f"HTTP {status} does not speak of it", status)
    codes = {item.error.code for item in gone if item.error}
    return Snapshot(
        standing=_standing(gone, told, codes),
        known=bool(told) or codes != _NEVER_HAD_IT,
        results=sum(item.kind in (Kind.SUCCEEDED, Kind.FAILED) for item in told),
        body=body,
        content=content,
    )


def _items(body: Any, owner: str | None) -> Sequence[Item]:
    try:
        return parse(body, owner)
    except Unreadable:
        return ()


def _category(item: Item) -> Category | None:
    return None if item.error is None else item.error.category


def _refuse(response: httpx.Response, items: Sequence[Item], task_id: str) -> None:
    status, said = response.status_code, {_category(item) for item in items}
    # An error of the question names no task (platforms.md §1.3), unless its status tells.
    of_the_question = status == FORBIDDEN or not any(item.task_id for item in items)
    if status == UNAUTHORIZED or (said == {Category.AUTH} and of_the_question):
        raise refused(NAME, SETTING, task_id, status)
    if said == {Category.RATE_LIMIT} and of_the_question:
        status = TOO_MANY
    if status in (FORBIDDEN, TOO_MANY) or status >= SERVER or not items:
        reason = f"HTTP {response.status_code}"
        raise unseen(NAME, task_id, reason, status, retry_after(response))


def _standing(gone: Sequence[Item], told: Sequence[Item], codes: set[str]) -> Standing:
    if told:
        return Standing.LACKING if gone else Standing.WHOLE
    return Standing.OVER if all(map(_OVER.search, codes)) else Standing.ABSENT

"""Floor 2, edges: asking NanoGPT: submit tasks, fetch one, list its models. httpx only.

It calls nobody back and knows no id of ours: a task has a name there (`runId`) from the answer to
its submit on. Whether a submit whose answer was lost has arrived, only its list of recent runs may
show: each request carries our id as `conversationUUID`, by which that list can be asked. That a run
is not listed is no word that there is none, so nothing is sent a second time on the strength of it.
Sources: platforms.md §3, seed 4, and the platform's pages on recovering and on errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx

from receiver.platforms import Unreadable
from receiver.platforms.items import Category, Item, Kind, PlatformError
from receiver.platforms.nanogpt import error_of, is_end_of_run, parse
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
from submitter.platforms.snapshots import Snapshot, Standing, read, refused, unlisted, unseen
from submitter.tasks import GenerationTask

NAME: Final = "nanogpt"
SETTING: Final = "NANOGPT_API_KEY"
BASE_SETTING: Final = "NANOGPT_BASE_URL"
BASE_URL: Final = "https://nano-gpt.com/api"
# Each task is a request of its own. The platform takes 25 requests a second over all, so a third
# of them leaves room for the polls of the same key.
AT_ONCE: Final = 8
MOST_RESULTS: Final = 1  # a run ends once, whatever it made
MOST_LISTED: Final = 50  # runs, the most that the list of recent ones shows

_THREAD: Final = "conversationUUID"
_EXTENDED: Final = ("runId", "taskId")  # what names the run that is extended (Midjourney)
_PAYMENT, _NOT_FOUND, _TIMED_OUT = 402, 404, 408

Json = dict[str, Any]


class NanoGPT:
    """One account. `transport` is for tests; the key appears in no repr and no error."""

    name = NAME
    calls_back = False
    asks_by_task = False
    archives = False
    at_once = AT_ONCE

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: httpx.Timeout = TIMEOUT,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._api_key = api_key
        headers = {"x-api-key": api_key} if api_key else {}
        self._http = httpx.AsyncClient(headers=headers, timeout=timeout, transport=transport)

    def __repr__(self) -> str:
        return f"NanoGPT(base_url={self.base_url!r})"

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
        return {name: value for name, value in request.items() if name != "model"}

    async def submit(self, tasks: Sequence[Outgoing]) -> Mapping[str, Outcome]:
        """Send each task in a request of its own, all at once; what became of each."""
        outcomes = await asyncio.gather(*(self._submit(sent.task) for sent in tasks))
        return {sent.task.id: found for sent, found in zip(tasks, outcomes, strict=True)}

    async def _submit(self, task: GenerationTask) -> Outcome:
        try:
            async for attempt in attempts():
                with attempt:
                    return await self._send(task)
        except TryLater as failure:
            return failure.of(NAME, task.id)
        except httpx.RequestError as error:
            return lost(NAME, task.id, error)
        raise AssertionError("attempts end with an outcome or an exception")

    async def _send(self, task: GenerationTask) -> Outcome:
        route = "generate-video/extend" if _extends(task.parameters) else "generate-video"
        try:
            response = await self._http.post(f"{self.base_url}/{route}", json=request_of(task))
        except NOT_SENT as error:
            raise not_sent(error) from None
        return _judge(response, object_of(response, self._api_key), task.id)

    async def fetch(self, of: TaskRef) -> Snapshot:
        """What the platform says of a run. One whose name is not known is looked for by our id.

        Raises KeyRefused, and PlatformUnavailable for whatever else says nothing of the task.
        """
        run = of.platform_id
        if run is None:
            run, content = await self._found(of.id)
            if run is None:
                return Snapshot(Standing.ABSENT, False, 0, read(content), content)
        response = await self._ask_after("video/status", of.id, {"requestId": run})
        return _snapshot(response, bytes_of(response, self._api_key), of.id, run)

    async def fetch_archived(self, of: TaskRef) -> Snapshot:
        """The same as `fetch`: it keeps no archive."""
        return await self.fetch(of)

    async def models(self) -> list[Json]:
        """The video models that it has now, as it describes them. Raises PlatformUnavailable."""
        try:
            response = await self._ask("v1/video-models", "", {"detailed": "true"})
        except httpx.RequestError as error:
            raise unlisted(NAME, type(error).__name__) from None
        listed = read(response.content)
        found = listed.get("data") if isinstance(listed, dict) else None
        if not response.is_success or not isinstance(found, list):
            raise unlisted(NAME, f"HTTP {response.status_code}", response.status_code)
        return [model for model in found if isinstance(model, dict) and "id" in model]

    async def _found(self, task_id: str) -> tuple[str | None, bytes]:
        """The run that carries our id, and the list in which it stands, or does not."""
        query = {_THREAD: task_id, "limit": str(MOST_LISTED)}
        response = await self._ask_after("generate-video/recover", task_id, query)
        body = read(response.content)
        listed = body.get("data") if isinstance(body, dict) else None
        if not response.is_success or not isinstance(listed, list):
            raise unseen(NAME, task_id, *_why(response))
        runs = sorted({run for one in listed if (run := _run_of(one, task_id))})
        if len(runs) > 1:
            several = f"{len(runs)} runs carry its id: {', '.join(runs)}"
            raise unseen(NAME, task_id, several, response.status_code)
        return (runs[0] if runs else None), bytes_of(response, self._api_key)

    async def _ask_after(
        self, route: str, task_id: str, query: Mapping[str, str]
    ) -> httpx.Response:
        try:
            return await self._ask(route, task_id, query)
        except httpx.RequestError as error:
            raise unseen(NAME, task_id, type(error).__name__) from None

    async def _ask(self, route: str, task_id: str, query: Mapping[str, str]) -> httpx.Response:
        response = await self._http.get(f"{self.base_url}/{route}", params=query)
        if response.status_code == UNAUTHORIZED:
            raise refused(NAME, SETTING, task_id, UNAUTHORIZED)
        return response


async def models(api_key: str, base_url: str = BASE_URL) -> list[Json]:
    """As `NanoGPT.models`; a key is not needed for it."""
    async with NanoGPT(api_key, base_url) as account:
        return await account.models()


def request_of(task: GenerationTask) -> Json:
    """A task as NanoGPT wants it (seed 4), with our id by which its run can be looked for.

    A Midjourney run is extended by its name alone: neither a model nor a thread is asked for.
    """
    if _extends(task.parameters):
        return dict(task.parameters)
    return {_THREAD: task.id, **task.parameters, "model": task.model}


def _extends(parameters: Mapping[str, Any]) -> bool:
    return any(name in parameters for name in _EXTENDED)


def _judge(response: httpx.Response, body: Json | None, task_id: str) -> Outcome:
    """What became of a submit. Raises TryLater when it was surely not taken, and may be later."""
    status, asked = response.status_code, response.headers.get("x-request-id")
    if response.is_success and (run := _run_in(body)):
        return Accepted(run)
    error = error_of(body, status)
    limited = error is not None and error.category is Category.RATE_LIMIT
    # A gateway's own 503 may follow an acceptance; the platform's word is another thing.
    full = status == UNAVAILABLE and error_of(body) is not None
    if status == TOO_MANY or limited or full:
        raise TryLater(_with("it is busy", asked), status, retry_after(response))
    surely_not = 400 <= status < SERVER and status != _TIMED_OUT
    if not surely_not:
        reason = _with(f"HTTP {status} does not say", asked)
        return AmbiguousSubmit(platform=NAME, task_id=task_id, reason=reason)
    return _rejection(response, body, error, asked)


def _rejection(
    response: httpx.Response, body: Json | None, error: PlatformError | None, asked: str | None
) -> Rejection:
    status = response.status_code
    said = body if body is not None and error_of(body) is not None else None
    # Of a page that is no JSON the status is all that tells.
    told = said or {"error": {"message": f"HTTP {status}", "status": status}}
    found = error or error_of(told)
    message = found.message if found and found.message else f"HTTP {status}"
    if status == _PAYMENT and _is_challenge(response, body):
        message = f"{message} It asks to be paid per request (x402): check {SETTING}, the balance."
    named = (body or {}).get("error")
    param = named.get("param") if isinstance(named, dict) else None
    return Rejection(
        code=found.code if found else f"http_{status}",
        message=message,
        http_status=status,
        parameter=param if isinstance(param, str) else None,
        body=told,
        request_id=asked,
    )


def _is_challenge(response: httpx.Response, body: Json | None) -> bool:
    said = response.headers.get("x-x402", "").lower() == "true"
    return said or isinstance((body or {}).get("payment"), dict)


def _run_in(body: Json | None) -> str | None:
    for name in ("runId", "id", "taskId"):
        run = (body or {}).get(name)
        if isinstance(run, str) and run:
            return run
    return None


def _run_of(listed: Any, task_id: str) -> str | None:
    if not isinstance(listed, dict) or str(listed.get(_THREAD, "")).lower() != task_id:
        return None
    return _run_in(listed)


def _with(reason: str, asked: str | None) -> str:
    return f"{reason}, request {asked}" if asked else reason


def _why(response: httpx.Response) -> tuple[str, int, float | None]:
    """An answer that says nothing of a task, as evidence."""
    status = response.status_code
    reason = _with(f"HTTP {status}", response.headers.get("x-request-id"))
    return reason, status, retry_after(response)


def _snapshot(response: httpx.Response, content: bytes, task_id: str, run: str) -> Snapshot:
    """What a status says. Raises PlatformUnavailable when it speaks of the question only."""
    body, status = read(content), response.status_code
    if status == _NOT_FOUND:
        return Snapshot(Standing.ABSENT, False, 0, body, content, run)
    item = _item(body, task_id)
    if not response.is_success or item is None or not _speaks(item, body):
        # 403 is about the run, which another account has, not about our key.
        of_the_key = item is not None and item.error and item.error.category is Category.AUTH
        if of_the_key and status != FORBIDDEN:
            raise refused(NAME, SETTING, task_id, status)
        raise unseen(NAME, task_id, *_why(response))
    results = int(item.kind in (Kind.SUCCEEDED, Kind.FAILED))
    return Snapshot(Standing.WHOLE, True, results, body, content, run)


def _item(body: Any, task_id: str) -> Item | None:
    try:
        return parse(body, task_id)[0]
    except Unreadable:
        return None


def _speaks(item: Item, body: Any) -> bool:
    """Whether it is the run that an answer speaks of: how it ended, or that it goes on."""
    if item.kind is Kind.FAILED:
        return is_end_of_run(item)
    if item.kind is Kind.UNKNOWN:  # a status that is complete, and shows nothing: for people to see
        within = body.get("data") if isinstance(body.get("data"), dict) else body
        return isinstance(within.get("status"), str)
    return True

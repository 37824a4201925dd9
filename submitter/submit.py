"""Floor 3, flows: submit tasks once, whatever breaks on the way, alone or many in one array.

The order is: validate, choose the id, register in the ledger, take the signed URL, send, note the
outcome. The right to send is given by the ledger to one caller at a time, so neither a crash nor a
time-out nor a second caller makes a second bill: what may have been accepted is asked after before
it is sent again, and where the platform can't be asked, it is not sent again at all.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, assert_never

from receiver.client import (
    Client,
    RegisteredTask,
    Source,
    SubmitState,
    Task,
    TaskPatch,
)
from submitter import door
from submitter.drafts import Draft, Prepared, batches, invalid, prepared
from submitter.environment import read
from submitter.errors import (
    AmbiguousSubmit,
    IdempotencyConflict,
    LedgerUnavailable,
    MissingKey,
    OriginalNeeded,
    PlatformRejected,
    PlatformUnavailable,
    SubmitterError,
)
from submitter.handle import SubmittedTask
from submitter.kept import kept, missing
from submitter.ledger import (
    ABOUT_TO_SEND,
    LOOK_FOR_IT,
    MAY_HAVE_ARRIVED,
    NOTHING_ARRIVED,
    TAKE_OVER,
    Ledger,
)
from submitter.platforms.catalogue import DEFAULT, account
from submitter.platforms.protocol import (
    Accepted,
    Outcome,
    Outgoing,
    Platform,
    Rejection,
    TaskRef,
)
from submitter.platforms.snapshots import Standing
from submitter.requests.wire import Request
from submitter.tasks import GenerationTask
from submitter.webhook import Minter

T = TypeVar("T")

# What became of one of many: its handle, or why it was not submitted.
Submitted = SubmittedTask | SubmitterError

_SETTLED = (SubmitState.SUBMITTED, SubmitState.REJECTED)


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class _Going:
    """A task within the ledger, on its way to the platform if we have the right to send it."""

    asked: Prepared
    project: str
    handle: SubmittedTask
    lacks: tuple[str, ...] = ()  # of what a resumed task asked for, and the ledger has no more
    may_send: bool = False
    sent: bool = False

    @property
    def task(self) -> GenerationTask:
        return self.asked.task


class Submitter:
    """Submits tasks to one platform with signed webhookURLs. Use as an async context manager.

    `require_ledger=False` sends without a receiver's ledger; that needs `public_url` and
    `signing_keys` to mint URLs here, and then nothing can be found again or waited for. A platform
    that never calls back always needs the ledger.
    """

    def __init__(
        self,
        platform: Platform,
        ledger: Client | None = None,
        *,
        require_ledger: bool = True,
        public_url: str = "",
        signing_keys: Sequence[str] = (),
        project: str = "default",
        clock: Callable[[], int] = _wall_clock,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._platform = platform
        self._project = project
        self._random = random_bytes
        self._checked: set[str] = set()
        if not require_ledger and not (public_url and signing_keys):
            lacking = "REELHOOK_SIGNING_KEYS" if public_url else "REELHOOK_PUBLIC_URL"
            raise MissingKey(platform="reelhook", setting=lacking)
        minter = Minter(
            public_url=public_url,
            keys=signing_keys,
            project=project,
            clock=clock,
            random_bytes=random_bytes,
        )
        required = require_ledger or not platform.calls_back
        self._ledger = Ledger(ledger, minter, project, required=required)

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, *, platform: str = DEFAULT, **options: Any
    ) -> Self:
        """For a platform by name, from its variables, REELHOOK_* and the local receiver's file.

        Raises MissingKey.
        """
        given = os.environ if environ is None else environ
        found = read(given)
        return cls(
            account(given, platform),
            Client(found.ledger_url, found.ledger_token),
            project=found.project,
            public_url=found.public_url,
            signing_keys=found.signing_keys,
            **options,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._platform.aclose()
        if self._ledger.client is not None:
            await self._ledger.client.close()

    async def submit(
        self,
        model: str | Request,
        parameters: Mapping[str, Any] | None = None,
        *,
        number_results: int = 1,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        task_id: str | None = None,
        strict: bool = False,
        deadline_at: datetime | None = None,
        give_up_at: datetime | None = None,
        traceparent: str | None = None,
    ) -> SubmittedTask:
        """Submit one task; its handle has the id at once.

        `model` is a model's name, or a typed request (`submitter.requests`). A `pathlib.Path` among
        the parameters is read and sent as a data URI. Former names are sent as today's.

        At `deadline_at` (twice what such tasks take) what is missing is overdue and polled, at
        `give_up_at` (after a day) it is recorded as failed. Deliveries of what comes are spans of
        the trace that `traceparent` (W3C Trace Context) names.

        Raises InvalidTask, UnusableMedia, LedgerUnavailable, PublicUrlRefused or
        IdempotencyConflict before anything is sent; PlatformRejected and PlatformUnavailable when
        the platform did not take it; AmbiguousSubmit when it may have: `resume` finds out and never
        sends twice.
        """
        draft = Draft(
            model=model,
            parameters=parameters or {},
            number_results=number_results,
            tags=tags,
            metadata=metadata,
            idempotency_key=idempotency_key,
            task_id=task_id,
            strict=strict,
            deadline_at=deadline_at,
            give_up_at=give_up_at,
            traceparent=traceparent,
        )
        return _taken(*await self.submit_many([draft]))

    async def submit_many(self, drafts: Sequence[Draft]) -> list[Submitted]:
        """Submit tasks, as many at once as the platform takes; what became of each, in order.

        An error about one of them stops no other: it stands in its place, as `submit` would have
        raised it.
        """
        asked = [await asyncio.to_thread(self._prepare, draft) for draft in drafts]
        ready = [one for one in asked if isinstance(one, Prepared)]
        told: list[Submitted] = []
        # A batch is registered just before it is sent: its leases would not outlast all the others.
        for batch in batches(ready, self._platform.at_once):
            told += await self._submit_batch([(one, self._kept(one)) for one in batch])
        answers = iter(told)
        return [next(answers) if isinstance(one, Prepared) else one for one in asked]

    async def check(self, drafts: Sequence[Draft] = ()) -> None:
        """Find what would surely stop these, before anything is registered or sent.

        Raises InvalidTask, UnusableMedia, LedgerUnavailable or PublicUrlRefused.
        """
        for draft in drafts:
            asked = await asyncio.to_thread(self._prepare, draft)
            if isinstance(asked, SubmitterError):
                raise asked
        base = await self._ledger.public_url()
        if base is not None and self._needs_public:
            await self._ledger.check_public(f"{base.rstrip('/')}/")

    async def resume(self, task_id: str, *, run: str | None = None) -> SubmittedTask:
        """Finish a submit that crashed or timed out, from what the ledger kept of it.

        `run` is the platform's own name for the task, for who has found it there. Raises as
        `submit` does, and OriginalNeeded.
        """
        stored = await self._ledger.stored(task_id)
        if stored.platform != self._platform.name:
            text = f"Task {stored.id} belongs to {stored.platform}, not to {self._platform.name}."
            raise invalid("other_platform", "platform", text)
        if run is not None:
            return await self._adopt(stored, run)
        request = stored.request or {}
        return _taken(
            *await self._submit_batch(
                [(self._again(stored, request), request)], project=stored.project
            )
        )

    def _prepare(self, draft: Draft) -> Prepared | SubmitterError:
        try:
            return prepared(draft, self._platform.name, self._project, self._random)
        except SubmitterError as error:
            return error

    def _kept(self, asked: Prepared) -> Mapping[str, Any]:
        return kept(self._platform.request_of(asked.task))

    def _again(self, stored: Task, request: Mapping[str, Any]) -> Prepared:
        task = GenerationTask(
            id=stored.id,
            platform=stored.platform,
            model=stored.model or "",
            parameters=self._platform.parameters_of(request),
            number_results=stored.expected or 1,
            tags=stored.tags,
            metadata=stored.metadata,
        )
        return Prepared(task, key=stored.client_ref)

    async def _adopt(self, stored: Task, run: str) -> SubmittedTask:
        snapshot = await self._platform.fetch(TaskRef(stored.id, run))
        if not snapshot.known:
            text = f"{self._platform.name} does not know {run!r}. Copy the name as it shows it."
            raise invalid("unknown_run", "run", text)
        await self._ledger.insist(stored.id, self._platform.name, run)
        return SubmittedTask(stored.id, _client=self._ledger.client)

    async def _submit_batch(
        self, batch: Sequence[tuple[Prepared, Mapping[str, Any]]], project: str = ""
    ) -> list[Submitted]:
        going: list[_Going] = []
        try:
            admitted = await _side_by_side(
                self._admit(asked, request, project, going) for asked, request in batch
            )
            mine = [one for one in admitted if isinstance(one, _Going) and one.may_send]
            failed = await self._send(mine)
        except asyncio.CancelledError:
            await self._let_go([one for one in going if one.may_send])
            raise
        return [
            one if isinstance(one, SubmitterError) else failed.get(one.task.id, one.handle)
            for one in admitted
        ]

    async def _admit(
        self, asked: Prepared, request: Mapping[str, Any], project: str, going: list[_Going]
    ) -> _Going | SubmitterError:
        """Register a task and find out whether we are the one to send it."""
        task = asked.task
        try:
            registered = await self._ledger.register(asked, request, project)
            if registered and registered.request not in (None, request):
                raise IdempotencyConflict(key=asked.key or task.id, task_id=task.id)
            handle = SubmittedTask(task.id, asked.warnings, _client=self._ledger.client)
            handle.webhook_url = self._ledger.url(task, registered)
            one = _Going(asked, project or self._project, handle)
            one.lacks = tuple(missing(request)) if project else ()
            going.append(one)
            one.may_send = registered is None or await self._may_send(one, registered)
        except SubmitterError as error:
            return error
        return one

    async def _may_send(self, one: _Going, registered: RegisteredTask) -> bool:
        state, asks = registered.submit_state, self._platform.asks_by_task
        if state in _SETTLED:
            return False
        if asks and registered.may_submit:
            return True
        if not await self._ledger.take(one.task.id, _right(state, asks)):
            one.handle.in_flight = True
            return False
        if not asks and state is SubmitState.REGISTERED:
            return True  # nothing was sent, or the ledger would know that it may have been
        if await self._found_on_platform(one, registered):
            return False
        if not asks:
            await self._ledger.note(one.task.id, MAY_HAVE_ARRIVED)
            raise _not_found(self._platform.name, one.task.id)
        return True

    async def _found_on_platform(self, one: _Going, registered: RegisteredTask) -> bool:
        task_id = one.task.id
        try:
            snapshot = await self._platform.fetch(TaskRef(task_id, registered.platform_id))
        except PlatformUnavailable:
            await self._ledger.note(task_id, MAY_HAVE_ARRIVED)  # gives the lease back
            raise
        if not snapshot.known:
            return False
        await self._accepted(task_id, snapshot.platform_id)
        if snapshot.has_results and snapshot.standing is Standing.WHOLE:
            await self._ledger.report(one.task, registered.project, Source.POLL, snapshot.content)
        return True

    async def _accepted(self, task_id: str, run: str | None) -> None:
        if run is not None:
            await self._ledger.insist(task_id, self._platform.name, run)
        else:
            await self._ledger.note(task_id, TaskPatch(submit_state=SubmitState.SUBMITTED))

    async def _send(self, going: Sequence[_Going]) -> dict[str, SubmitterError]:
        """Send what we have the right to; why some could not be."""
        failed: dict[str, SubmitterError] = {
            one.task.id: OriginalNeeded(task_id=one.task.id, parameters=one.lacks)
            for one in going
            if one.lacks
        }
        whole = [one for one in going if not one.lacks]
        try:
            await self._check_public(whole)
        except SubmitterError as error:
            failed |= {one.task.id: error for one in whole}
        ready = [one for one in whole if one.task.id not in failed]
        await self._let_go([one for one in going if one.task.id in failed])
        for one in ready:
            one.sent = True
        outcomes = await self._deliver(ready)
        settled = await _side_by_side(self._settle(one, outcomes) for one in ready)
        told = zip(ready, settled, strict=True)
        return failed | {one.task.id: error for one, error in told if error is not None}

    async def _deliver(self, ready: Sequence[_Going]) -> Mapping[str, Outcome]:
        if not ready:
            return {}
        return await self._platform.submit(
            [Outgoing(one.task, one.handle.webhook_url) for one in ready]
        )

    async def _settle(self, one: _Going, outcomes: Mapping[str, Outcome]) -> SubmitterError | None:
        """Note what became of a task; the error that says so, if it was not accepted."""
        outcome = outcomes[one.task.id]
        match outcome:
            case Accepted():
                try:
                    await self._accepted(one.task.id, outcome.platform_id)
                except LedgerUnavailable as error:
                    return error
                return None
            case Rejection():
                return await self._rejected(one, outcome)
            case AmbiguousSubmit():
                await self._ledger.note(one.task.id, MAY_HAVE_ARRIVED)
                return outcome
            case PlatformUnavailable():
                one.sent = False
                await self._let_go([one])
                return outcome
        assert_never(outcome)

    async def _rejected(self, one: _Going, rejection: Rejection) -> PlatformRejected:
        error = _rejected(one.task, rejection)
        try:
            await self._ledger.report(one.task, one.project, Source.SUBMIT, rejection.body)
        except LedgerUnavailable as told:
            error.add_note(f"The ledger was not told: {told.reason}.")
        return error

    async def _let_go(self, going: Sequence[_Going]) -> None:
        """Give the right to send back: at once for who tries again."""
        for one in going:
            surely_not = not one.sent and not self._platform.asks_by_task
            patch = NOTHING_ARRIVED if surely_not else MAY_HAVE_ARRIVED
            await self._ledger.note(one.task.id, patch)

    @property
    def _needs_public(self) -> bool:
        return self._platform.calls_back and not self._platform.is_local

    async def _check_public(self, going: Sequence[_Going]) -> None:
        """A platform that bills must be able to call back. Raises PublicUrlRefused."""
        if not self._needs_public:
            return
        for base, one in {door.base_of(one.handle.webhook_url): one for one in going}.items():
            if base not in self._checked:
                await self._ledger.check_public(base, one.task.id)
                self._checked.add(base)


async def _side_by_side(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Do them at once. Unlike with gather, none goes on when we are told to stop."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
    return [task.result() for task in tasks]


def _taken(outcome: Submitted) -> SubmittedTask:
    if isinstance(outcome, SubmitterError):
        raise outcome
    return outcome


def _right(state: SubmitState, asks_by_task: bool) -> TaskPatch:
    if asks_by_task:
        return TAKE_OVER
    return ABOUT_TO_SEND if state is SubmitState.REGISTERED else LOOK_FOR_IT


def _not_found(platform: str, task_id: str) -> AmbiguousSubmit:
    said = (
        f"{platform} may be running task {task_id}: it gives a task no name before its answer, and"
        " shows no run of this one now. Nothing was sent again. Resume it later, since it may still"
        f" show up; if you find it there yourself: reelhook submit --resume {task_id} --run RUN."
        " If it is not there, submit it anew, under another idempotency key."
    )
    return AmbiguousSubmit(said, platform=platform, task_id=task_id, reason="its answer never came")


def _rejected(task: GenerationTask, rejection: Rejection) -> PlatformRejected:
    asked = f", request {rejection.request_id}" if rejection.request_id else ""
    said = f"{task.platform} rejected task {task.id}: {rejection.message} ({rejection.code}{asked})"
    error = PlatformRejected(
        said,
        platform=task.platform,
        task_id=task.id,
        http_status=rejection.http_status,
        parameter=rejection.parameter,
    )
    error.code = rejection.code
    return error


__all__ = ["Draft", "Submitted", "SubmittedTask", "Submitter"]

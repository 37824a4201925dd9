"""Floor 3, flows: submit a task once, whatever breaks on the way.

The order is: validate, choose the taskUUID, register in the ledger, take the signed URL, send, note
the outcome. The right to send is a lease that the ledger grants to one caller at a time, so neither
a crash nor a time-out nor a second caller makes a second bill: what may have been accepted is asked
after (`getResponse`) before it is sent again.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from pydantic import ValidationError

from receiver.client import (
    ApiRefused,
    Client,
    RegisteredTask,
    Source,
    SubmitState,
    TaskPatch,
    TaskSpec,
    Unreachable,
)
from submitter import door
from submitter.environment import read
from submitter.errors import (
    Finding,
    IdempotencyConflict,
    InvalidTask,
    LedgerUnavailable,
    MissingKey,
    PlatformRejected,
    PlatformUnavailable,
    PublicUrlRefused,
    SubmitterError,
)
from submitter.handle import SubmittedTask
from submitter.platforms.runware import Rejection, Runware, request_of
from submitter.platforms.snapshots import Standing
from submitter.rules import check_task
from submitter.tasks import GenerationTask, new_task_id, task_id_for_key
from submitter.webhook import Minter

OK, CONFLICT, INVALID = 200, 409, 422


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class Submitter:
    """Submits tasks to Runware with signed webhookURLs. Use as an async context manager.

    `require_ledger=False` sends without a receiver's ledger; that needs `public_url` and
    `signing_keys` to mint URLs here, and then nothing can be found again or waited for.
    """

    def __init__(
        self,
        platform: Runware,
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
        self._ledger = ledger
        self._require_ledger = require_ledger
        self._project = project
        self._random = random_bytes
        self._checked: set[str] = set()
        if not require_ledger and not (public_url and signing_keys):
            missing = "REELHOOK_SIGNING_KEYS" if public_url else "REELHOOK_PUBLIC_URL"
            raise MissingKey(platform="reelhook", setting=missing)
        self._minter = Minter(
            public_url=public_url,
            keys=signing_keys,
            project=project,
            clock=clock,
            random_bytes=random_bytes,
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **options: Any) -> Self:
        """From RUNWARE_*, REELHOOK_* and the local receiver's file. Raises MissingKey."""
        found = read(os.environ if environ is None else environ)
        if not found.api_key:
            raise MissingKey(platform="runware", setting="RUNWARE_API_KEY")
        platform = Runware(found.api_key, found.base_url)
        ledger = Client(found.ledger_url, found.ledger_token)
        return cls(
            platform,
            ledger,
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
        await self._platform.__aexit__(None, None, None)
        if self._ledger is not None:
            await self._ledger.close()

    async def submit(
        self,
        model: str,
        parameters: Mapping[str, Any],
        *,
        number_results: int = 1,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        task_id: str | None = None,
        strict: bool = False,
        deadline_at: datetime | None = None,
        give_up_at: datetime | None = None,
    ) -> SubmittedTask:
        """Submit one task; its handle has the id at once.

        At `deadline_at` (after 15 minutes) what is missing is overdue and polled, at `give_up_at`
        (after a day) it is recorded as failed.

        Raises InvalidTask, LedgerUnavailable, PublicUrlRefused or IdempotencyConflict before
        anything is sent; PlatformRejected and PlatformUnavailable when the platform did not take
        it; AmbiguousSubmit when it may have: `resume` finds out and never sends twice.
        """
        _check_arguments(parameters, idempotency_key)
        task = GenerationTask.of(
            {"numberResults": number_results, **parameters},
            id=self._choose_id(idempotency_key, task_id),
            platform=self._platform.name,
            model=model,
            tags=tags,
            metadata=metadata,
        )
        warnings = _check(task, strict)
        times = {"deadline_at": deadline_at, "give_up_at": give_up_at}
        registered = await self._register(task, idempotency_key, self._project, **times)
        if registered and registered.request not in (None, _as_kept(request_of(task))):
            raise IdempotencyConflict(key=idempotency_key or task.id, task_id=task.id)
        handle = SubmittedTask(task.id, warnings, _client=self._ledger)
        return await self._send_once(task, registered, handle)

    async def resume(self, task_id: str) -> SubmittedTask:
        """Finish a submit that crashed or timed out, from what the ledger kept of it."""
        if self._ledger is None:
            raise LedgerUnavailable(task_id=task_id, reason="there is none to resume from")
        try:
            stored = await self._ledger.task(task_id)
        except (Unreachable, ApiRefused) as error:
            raise _unregistered(task_id, error) from None
        if stored is None or stored.request is None:
            reason = "it keeps no request of this task"
            raise LedgerUnavailable(task_id=task_id, reason=reason, status=CONFLICT)
        task = GenerationTask(
            id=stored.id,
            platform=stored.platform,
            model=stored.model or "",
            parameters=_parameters(stored.request),
            number_results=stored.expected or 1,
            tags=stored.tags,
            metadata=stored.metadata,
        )
        registered = await self._register(task, stored.client_ref, stored.project)
        handle = SubmittedTask(task.id, _client=self._ledger)
        return await self._send_once(task, registered, handle)

    def _choose_id(self, key: str | None, task_id: str | None) -> str:
        if task_id is not None:
            return task_id.lower()
        if key is not None:
            return task_id_for_key(self._project, key)
        return new_task_id(self._random(16))

    async def _register(
        self, task: GenerationTask, key: str | None, project: str, **times: datetime | None
    ) -> RegisteredTask | None:
        if self._ledger is None:
            if self._require_ledger:
                raise LedgerUnavailable(task_id=task.id, reason="no receiver is configured")
            return None
        try:
            spec = _spec(task, key, project, **times)
            return await self._ledger.register_task(task.id, spec)
        except Unreachable as error:
            if self._require_ledger:
                raise _unregistered(task.id, error) from None
            return None
        except ApiRefused as error:
            if error.status == CONFLICT:
                raise IdempotencyConflict(key=key or task.id, task_id=task.id) from None
            if error.status == INVALID:
                raise _invalid("ledger_refused", "", str(error)) from None
            raise _unregistered(task.id, error) from None

    async def _send_once(
        self,
        task: GenerationTask,
        registered: RegisteredTask | None,
        handle: SubmittedTask,
    ) -> SubmittedTask:
        handle.webhook_url = self._url(task, registered)
        if registered is None or registered.may_submit:
            await self._send(task, handle, self._project)
            return handle
        if registered.submit_state in (SubmitState.SUBMITTED, SubmitState.REJECTED):
            return handle
        if not await self._take_over(task):
            handle.in_flight = True
        elif not await self._found_on_platform(task, registered.project):
            await self._send(task, handle, registered.project)
        return handle

    def _url(self, task: GenerationTask, registered: RegisteredTask | None) -> str:
        # The receiver's own URL is right even after its tunnel has moved.
        return registered.webhook_url if registered else self._minter.url_for(task)

    async def _take_over(self, task: GenerationTask) -> bool:
        assert self._ledger is not None  # noqa: S101 - only a registered task comes here
        try:
            await self._ledger.change_task(task.id, TaskPatch(submit_state=SubmitState.REGISTERED))
        except ApiRefused as error:
            if error.status == 409:
                return False  # somebody else holds the lease, or it was settled meanwhile
            raise _unregistered(task.id, error) from None
        except Unreachable as error:
            raise _unregistered(task.id, error) from None
        return True

    async def _found_on_platform(self, task: GenerationTask, project: str) -> bool:
        try:
            snapshot = await self._platform.fetch(task.id)
        except PlatformUnavailable:
            await self._note(task.id, SubmitState.UNKNOWN)  # gives the lease back
            raise
        if not snapshot.known:
            return False
        await self._note(task.id, SubmitState.SUBMITTED)
        if snapshot.has_results and snapshot.standing is Standing.WHOLE:
            await self._report(task, project, Source.POLL, snapshot.content)
        return True

    async def _send(self, task: GenerationTask, handle: SubmittedTask, project: str) -> None:
        request = {**request_of(task), "webhookURL": handle.webhook_url}
        try:
            await self._check_public(handle.webhook_url, task.id)
            answer = await self._platform.submit([request])
        except (SubmitterError, asyncio.CancelledError):
            await self._note(task.id, SubmitState.UNKNOWN)  # gives the lease back
            raise
        if (rejection := answer.rejected.get(task.id)) is None:
            await self._note(task.id, SubmitState.SUBMITTED)
            return
        rejected = _rejected(task, rejection)
        try:
            await self._report(task, project, Source.SUBMIT, rejection.body)
        except LedgerUnavailable as error:
            rejected.add_note(f"The ledger was not told: {error.reason}.")
        raise rejected

    async def _note(self, task_id: str, state: SubmitState) -> None:
        """Best effort: a callback, or the next look at the platform, tells the ledger as well."""
        if self._ledger is None:
            return
        try:
            await self._ledger.change_task(task_id, TaskPatch(submit_state=state))
        except (Unreachable, ApiRefused):
            return  # the task stays findable as `registered`, and `resume` asks the platform

    async def _report(
        self, task: GenerationTask, project: str, source: Source, body: Mapping[str, Any] | bytes
    ) -> None:
        """Post what we learned to the task's own URL: one door for whatever is known of it."""
        try:
            status = await door.post(await self._url_for(task, project, source), body)
        except (Unreachable, ApiRefused) as error:
            raise _unregistered(task.id, error) from None
        except OSError as error:
            reason = f"its door does not answer ({error})"
            raise LedgerUnavailable(task_id=task.id, reason=reason) from None
        if status != OK:
            reason = f"its door answered {status}"
            raise LedgerUnavailable(task_id=task.id, reason=reason, status=status)

    async def _url_for(self, task: GenerationTask, project: str, source: Source) -> str:
        if self._ledger is None:
            return self._minter.url_for(task, source)
        spec = _spec(task, None, project)
        return (await self._ledger.register_task(task.id, spec, source=source)).webhook_url

    async def _check_public(self, webhook_url: str, task_id: str) -> None:
        """A platform that bills must be able to call back. Raises PublicUrlRefused."""
        base = door.base_of(webhook_url)
        if self._platform.is_local or base in self._checked:
            return
        if not base.startswith("https://"):
            raise PublicUrlRefused(
                url=base, reason="it is not https. Set REELHOOK_PUBLIC_URL, or use `reelhook dev`."
            )
        if self._ledger is not None:
            await self._check_instance(base, task_id)
        self._checked.add(base)

    async def _check_instance(self, base: str, task_id: str) -> None:
        assert self._ledger is not None  # noqa: S101 - asked only with one
        try:
            outside = await door.instance_at(base)
            inside = await self._ledger.health()
        except OSError as error:
            reason = f"it does not answer as a receiver ({error})."
            raise PublicUrlRefused(url=base, reason=reason) from None
        except Unreachable as error:
            raise _unregistered(task_id, error) from None
        if outside != inside.get("instance"):
            raise PublicUrlRefused(url=base, reason="another receiver answers there.")


def _spec(
    task: GenerationTask, key: str | None, project: str, **times: datetime | None
) -> TaskSpec:
    try:
        return TaskSpec(
            platform=task.platform,
            model=task.model,
            expected=task.number_results,
            project=project,
            tags=task.tags,
            metadata=task.metadata,
            request=request_of(task),
            client_ref=key,
            **times,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _invalid("not_registrable", ".".join(map(str, first["loc"])), first["msg"]) from None


def _check_arguments(parameters: Mapping[str, Any], key: str | None) -> None:
    if key == "":
        raise _invalid("empty", "idempotency_key", "An idempotency key is not empty.")
    try:
        json.dumps(parameters, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid("not_json", "", f"The parameters are not JSON: {error}.") from None


def _invalid(code: str, parameter: str, message: str) -> InvalidTask:
    return InvalidTask(findings=(Finding("error", code, parameter, message),))


def _check(task: GenerationTask, strict: bool) -> tuple[Finding, ...]:
    findings = tuple(check_task(task, strict=strict))
    if any(finding.severity == "error" for finding in findings):
        raise InvalidTask(findings=findings)
    return findings


_OWN: Final = frozenset({"taskUUID", "model", "deliveryMethod", "numberResults"})


def _parameters(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name not in _OWN}


def _as_kept(request: Mapping[str, Any]) -> Any:
    """A request as it comes back from the ledger: a tuple is a list there."""
    return json.loads(json.dumps(request))


def _unregistered(task_id: str, error: Unreachable | ApiRefused) -> Exception:
    status = error.status if isinstance(error, ApiRefused) else None
    return LedgerUnavailable(task_id=task_id, reason=str(error), status=status)


def _rejected(task: GenerationTask, rejection: Rejection) -> PlatformRejected:
    said = f"{task.platform} rejected task {task.id}: {rejection.message} ({rejection.code})"
    error = PlatformRejected(
        said,
        platform=task.platform,
        task_id=task.id,
        http_status=rejection.http_status,
        parameter=rejection.parameter,
    )
    error.code = rejection.code
    return error


__all__ = ["SubmittedTask", "Submitter"]

"""Floor 3, flows: the ledger as the submitter uses it: registering, and who may send a task.

Two platforms, two rules. One that can be asked after our id may be sent a task again once it has
said that it does not know it, so a lease of two minutes is enough. Where nothing can be asked,
whoever sends says so in the ledger before (`about_to_send`); only one caller gets through, and only
that one can put the task back when it knows that nothing arrived.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import stamina
from pydantic import ValidationError

from receiver.client import (
    ApiRefused,
    Client,
    RegisteredTask,
    Source,
    SubmitState,
    Task,
    TaskPatch,
    TaskSpec,
    Unreachable,
)
from submitter import door
from submitter.drafts import Prepared, invalid
from submitter.errors import IdempotencyConflict, LedgerUnavailable, PublicUrlRefused
from submitter.handle import PATIENCE
from submitter.tasks import GenerationTask
from submitter.webhook import Minter

OK, CONFLICT, INVALID = 200, 409, 422

ABOUT_TO_SEND: Final = TaskPatch(
    submit_state=SubmitState.UNKNOWN, was=SubmitState.REGISTERED, lease=True
)
LOOK_FOR_IT: Final = TaskPatch(
    submit_state=SubmitState.UNKNOWN, was=SubmitState.UNKNOWN, lease=True
)
NOTHING_ARRIVED: Final = TaskPatch(
    submit_state=SubmitState.REGISTERED, was=SubmitState.UNKNOWN, lease=False
)
TAKE_OVER: Final = TaskPatch(submit_state=SubmitState.REGISTERED)
MAY_HAVE_ARRIVED: Final = TaskPatch(submit_state=SubmitState.UNKNOWN)  # and lets go of it


class Ledger:
    """The receiver's ledger, or none: then `minter` makes the URLs. `required`: none is a fault."""

    def __init__(
        self, client: Client | None, minter: Minter, project: str, *, required: bool
    ) -> None:
        self.client = client
        self._minter = minter
        self._project = project
        self._required = required

    async def register(
        self, asked: Prepared, request: Mapping[str, Any], project: str = ""
    ) -> RegisteredTask | None:
        """Put a task into the ledger. None where there is none, and none is required.

        Raises LedgerUnavailable, IdempotencyConflict, InvalidTask.
        """
        task = asked.task
        if self.client is None:
            if self._required:
                raise LedgerUnavailable(task_id=task.id, reason="no receiver is configured")
            return None
        spec = _spec(asked, request, project or self._project)
        try:
            return await self.client.register_task(task.id, spec)
        except Unreachable as error:
            if self._required:
                raise unregistered(task.id, error) from None
            return None
        except ApiRefused as error:
            if error.status == CONFLICT:
                raise IdempotencyConflict(key=asked.key or task.id, task_id=task.id) from None
            if error.status == INVALID:
                raise invalid("ledger_refused", "", str(error)) from None
            raise unregistered(task.id, error) from None

    async def public_url(self) -> str | None:
        """Where it has callbacks come in, as far as we may know. Raises LedgerUnavailable."""
        if self.client is None:
            return None
        try:
            await self.client.tasks(limit=1)  # which whoever submits may do
            return await self.client.public_url()
        except (Unreachable, ApiRefused) as error:
            status = error.status if isinstance(error, ApiRefused) else None
            raise LedgerUnavailable(
                f"Nothing was sent: {error}", task_id="", reason=str(error), status=status
            ) from None

    async def check_public(self, base: str, task_id: str = "") -> None:
        """Whether callbacks reach this receiver at a base URL. Raises PublicUrlRefused."""
        if not base.startswith("https://"):
            reason = "it is not https. Set REELHOOK_PUBLIC_URL, or use `reelhook dev`."
            raise PublicUrlRefused(url=base, reason=reason)
        if self.client is None:
            return
        try:
            outside = await door.instance_at(base)
            inside = await self.client.health()
        except OSError as error:
            reason = f"it does not answer as a receiver ({error})."
            raise PublicUrlRefused(url=base, reason=reason) from None
        except Unreachable as error:
            raise unregistered(task_id, error) from None
        if outside != inside.get("instance"):
            raise PublicUrlRefused(url=base, reason="another receiver answers there.")

    async def stored(self, task_id: str) -> Task:
        """What the ledger keeps of a task. Raises LedgerUnavailable."""
        if self.client is None:
            raise LedgerUnavailable(task_id=task_id, reason="there is none to resume from")
        try:
            found = await self.client.task(task_id)
        except (Unreachable, ApiRefused) as error:
            raise unregistered(task_id, error) from None
        if found is None or found.request is None:
            reason = "it keeps no request of this task"
            raise LedgerUnavailable(task_id=task_id, reason=reason, status=CONFLICT)
        return found

    async def take(self, task_id: str, patch: TaskPatch) -> bool:
        """Ask for a right; False when somebody else has it, or it was settled meanwhile."""
        assert self.client is not None  # noqa: S101 - only a registered task comes here
        try:
            await self.client.change_task(task_id, patch)
        except ApiRefused as error:
            if error.status == CONFLICT:
                return False
            raise unregistered(task_id, error) from None
        except Unreachable as error:
            raise unregistered(task_id, error) from None
        return True

    async def note(self, task_id: str, patch: TaskPatch) -> None:
        """Best effort: a callback, or the next look at the platform, tells the ledger as well."""
        if self.client is None:
            return
        try:
            await self.client.change_task(task_id, patch)
        except (Unreachable, ApiRefused):
            return  # the task stays findable as it was, and `resume` asks the platform

    async def insist(self, task_id: str, platform: str, run: str) -> None:
        """Note under which name the platform has a task: without it nobody can ask after it.

        Raises LedgerUnavailable, with that name, when the receiver stays away for a minute.
        """
        patch = TaskPatch(submit_state=SubmitState.SUBMITTED, platform_id=run)
        assert self.client is not None  # noqa: S101 - such a platform has a ledger
        try:
            async for attempt in stamina.retry_context(
                on=Unreachable, attempts=None, timeout=PATIENCE, wait_initial=0.2, wait_max=3.0
            ):
                with attempt:
                    await self.client.change_task(task_id, patch)
        except (Unreachable, ApiRefused) as error:
            said = (
                f"{platform} runs task {task_id} as {run}, and the receiver was not told ({error})."
                f" Tell it, or its result is not fetched: reelhook submit --resume {task_id}"
                f" --run {run}"
            )
            status = error.status if isinstance(error, ApiRefused) else None
            raise LedgerUnavailable(
                said, task_id=task_id, reason=str(error), status=status
            ) from None

    async def report(
        self,
        task: GenerationTask,
        project: str,
        source: Source,
        body: Mapping[str, Any] | bytes,
    ) -> None:
        """Post what we learned to the task's own URL: one door for whatever is known of it."""
        try:
            status = await door.post(await self._url_for(task, project, source), body)
        except (Unreachable, ApiRefused) as error:
            raise unregistered(task.id, error) from None
        except OSError as error:
            reason = f"its door does not answer ({error})"
            raise LedgerUnavailable(task_id=task.id, reason=reason) from None
        if status != OK:
            reason = f"its door answered {status}"
            raise LedgerUnavailable(task_id=task.id, reason=reason, status=status)

    def url(self, task: GenerationTask, registered: RegisteredTask | None) -> str:
        """The webhookURL of a task."""
        # The receiver's own URL is right even after its tunnel has moved.
        return registered.webhook_url if registered else self._minter.url_for(task)

    async def _url_for(self, task: GenerationTask, project: str, source: Source) -> str:
        if self.client is None:
            return self._minter.url_for(task, source)
        # What is absent is filled in, so nothing of the request is said here.
        spec = _spec(Prepared(task), None, project)
        return (await self.client.register_task(task.id, spec, source=source)).webhook_url


def _spec(asked: Prepared, request: Mapping[str, Any] | None, project: str) -> TaskSpec:
    task = asked.task
    try:
        return TaskSpec(
            platform=task.platform,
            model=task.model,
            expected=task.number_results,
            project=project,
            tags=task.tags,
            metadata=task.metadata,
            request=None if request is None else dict(request),
            client_ref=asked.key,
            deadline_at=asked.deadline_at,
            give_up_at=asked.give_up_at,
            traceparent=asked.traceparent,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise invalid("not_registrable", ".".join(map(str, first["loc"])), first["msg"]) from None


def unregistered(task_id: str, error: Unreachable | ApiRefused) -> LedgerUnavailable:
    """What the client says, as the submitter's error about a task."""
    status = error.status if isinstance(error, ApiRefused) else None
    return LedgerUnavailable(task_id=task_id, reason=str(error), status=status)

"""Floor 2, edges: the typed client of the HTTP API, for commands and submitter. pydantic only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from receiver.access import ApiToken, ApiTokenAsked, AuditEntry, NewApiToken
from receiver.backups import BackupAsked, BackupMade
from receiver.callbacks import Callback, Reprocess, Reprocessed
from receiver.calling import TIMEOUT, ApiRefused, Listing, Unreachable, read
from receiver.costs import Cost, CostSum
from receiver.deliveries import DeadLetters, Delivery, QueueCanceled
from receiver.endpoints import (
    Endpoint,
    EndpointPatch,
    EndpointSpec,
    Preview,
    PreviewAsked,
    RotateAsked,
)
from receiver.events import Event
from receiver.following import Asked, Follower
from receiver.heard import Heard, Message
from receiver.keeping import PruneAsked, Pruned
from receiver.repair import Counted, Job, RecoverAsked, ReplayAsked, Replayed, RetryAsked
from receiver.results import Result
from receiver.sessions import LoginLink
from receiver.shown import redact
from receiver.tasks import (
    ClaimedTask,
    RegisteredTask,
    SubmitState,
    Task,
    TaskClaim,
    TaskPatch,
    TaskRelease,
    TaskSpec,
)
from receiver.tokens import Source

# What the submitter needs beside the client: it may import this module, and no other noun of ours.
__all__ = [
    "ApiRefused",
    "ApiToken",
    "ApiTokenAsked",
    "Asked",
    "AuditEntry",
    "BackupMade",
    "Callback",
    "ClaimedTask",
    "Client",
    "Cost",
    "CostSum",
    "Costs",
    "Counted",
    "DeadLetters",
    "Delivery",
    "Endpoint",
    "EndpointPatch",
    "EndpointSpec",
    "Event",
    "Heard",
    "Job",
    "Listing",
    "Message",
    "NewApiToken",
    "Preview",
    "PreviewAsked",
    "Pruned",
    "RecoverAsked",
    "RegisteredTask",
    "Replayed",
    "Result",
    "RetryAsked",
    "RotateAsked",
    "Source",
    "SubmitState",
    "Task",
    "TaskPatch",
    "TaskSpec",
    "Unreachable",
    "redact",
]


class Costs(Listing[Cost]):
    """One page of what tasks cost. `total`, on the first page, is over all that was asked for."""

    total: CostSum | None


class Client(Follower):
    """Talks to one receiver. `transport` is for tests; a proxy in the environment is ignored."""

    async def health(self) -> Mapping[str, Any]:
        """`GET /healthz`: status and instance."""
        found: dict[str, Any] = (await self._ask("GET", "/healthz")).json()
        return found

    async def public_url(self) -> str | None:
        """Where its callbacks come in, by `GET /v1/health`; None to who may not see that."""
        try:
            found = await self._ask("GET", "/v1/health")
        except ApiRefused as error:
            if error.status == 403:
                return None
            raise
        return str(found.json()["public_url"])

    async def register_task(
        self, task_id: str, spec: TaskSpec, *, source: Source = Source.CALLBACK
    ) -> RegisteredTask:
        """Put a task into the ledger; the answer has its fresh `webhook_url`."""
        response = await self._ask(
            "PUT",
            f"/v1/tasks/{task_id}",
            content=spec.model_dump_json(exclude_none=True),
            params={"src": source.value},
        )
        return read(RegisteredTask, response)

    async def change_task(self, task_id: str, patch: TaskPatch) -> Task:
        """Note how a submit went, or ask for the right to submit (`submit_state=registered`)."""
        response = await self._ask(
            "PATCH", f"/v1/tasks/{task_id}", content=patch.model_dump_json(exclude_none=True)
        )
        return read(Task, response)

    async def task(
        self, task_id: str, *, wait: float = 0, revision: int | None = None
    ) -> Task | None:
        """A task. With `wait` seconds and the `revision` known: its next change, or None."""
        headers = {} if revision is None else {"if-none-match": f'"{revision}"'}
        response = await self._ask(
            "GET",
            f"/v1/tasks/{task_id}",
            params={"wait": wait} if wait else {},
            headers=headers,
            timeout=TIMEOUT + wait,
        )
        return None if response.status_code == 304 else read(Task, response)

    async def results(self, task_id: str) -> list[Result]:
        """A task's results in the order of arrival."""
        response = await self._ask("GET", f"/v1/tasks/{task_id}/results")
        return read(Listing[Result], response).data

    async def claim_tasks(
        self,
        *,
        limit: int = 20,
        lease_s: int = 60,
        due_by: datetime | None = None,
        platforms: Sequence[str] | None = None,
    ) -> list[ClaimedTask]:
        """Lease tasks that are due for reconcile, of all platforms unless some are named."""
        named = None if platforms is None else list(platforms)
        asked = TaskClaim(limit=limit, lease_s=lease_s, due_by=due_by, platforms=named)
        response = await self._ask("POST", "/v1/tasks/claim", content=asked.model_dump_json())
        return read(Listing[ClaimedTask], response).data

    async def release_tasks(
        self, tasks: Sequence[str], *, lease_until: datetime, polled: bool = False
    ) -> None:
        """Hand back tasks of one claim; not `polled`: due at once, as if never claimed."""
        release = TaskRelease(tasks=list(tasks), lease_until=lease_until, polled=polled)
        await self._ask("POST", "/v1/tasks/release", content=release.model_dump_json())

    async def reconcile_task(self, task_id: str) -> Task:
        """Make a task due for reconcile now."""
        return read(Task, await self._ask("POST", f"/v1/tasks/{task_id}/reconcile"))

    async def revoke_task(self, task_id: str) -> Task:
        """Refuse every token of the task issued so far."""
        return read(Task, await self._ask("POST", f"/v1/tasks/{task_id}/revoke"))

    async def delete_task(self, task_id: str) -> None:
        """Remove a task with its results."""
        await self._ask("DELETE", f"/v1/tasks/{task_id}")

    async def tasks(self, **filters: Any) -> Listing[Task]:
        """One page of tasks."""
        return await self._list(Task, "/v1/tasks", filters)

    async def costs(self, by: str = "model", **filters: Any) -> Costs:
        """What tasks cost by `task`, `model`, `day`, `tag:NAME`, `project` or `platform`."""
        params = {"by": by, **{name: value for name, value in filters.items() if value is not None}}
        return read(Costs, await self._ask("GET", "/v1/costs", params=params))

    async def add_endpoint(self, spec: EndpointSpec) -> Endpoint:
        """Register a downstream callback; `secret` is in this answer alone."""
        return await self._endpoint("POST", "/v1/endpoints", spec)

    async def endpoint(self, endpoint_id: str) -> Endpoint:
        """One endpoint."""
        return await self._endpoint("GET", f"/v1/endpoints/{endpoint_id}")

    async def endpoints(self, **filters: Any) -> Listing[Endpoint]:
        """One page of endpoints."""
        return await self._list(Endpoint, "/v1/endpoints", filters)

    async def change_endpoint(self, endpoint_id: str, patch: EndpointPatch) -> Endpoint:
        """Change what is named in the patch."""
        return await self._endpoint("PATCH", f"/v1/endpoints/{endpoint_id}", patch)

    async def move_endpoint(self, endpoint_id: str, verb: str) -> Endpoint:
        """`pause`, `resume`, `enable` or `disable`."""
        return await self._endpoint("POST", f"/v1/endpoints/{endpoint_id}/{verb}")

    async def rotate_secret(self, endpoint_id: str, asked: RotateAsked) -> Endpoint:
        """Sign with a new `secret`, which is in this answer alone."""
        return await self._endpoint("POST", f"/v1/endpoints/{endpoint_id}/rotate-secret", asked)

    async def preview(self, asked: PreviewAsked, *, project: str | None = None) -> Preview:
        """Which of the latest events an endpoint would have got."""
        response = await self._ask(
            "POST",
            "/v1/endpoints/preview",
            content=asked.model_dump_json(),
            params={} if project is None else {"project": project},
        )
        return read(Preview, response)

    async def cancel_queue(self, endpoint_id: str) -> QueueCanceled:
        """Cancel what waits for an endpoint; `more`: call it again."""
        response = await self._ask("POST", f"/v1/endpoints/{endpoint_id}/cancel")
        return read(QueueCanceled, response)

    async def delete_endpoint(self, endpoint_id: str) -> None:
        """Forget an endpoint; its queue is canceled."""
        await self._ask("DELETE", f"/v1/endpoints/{endpoint_id}")

    async def callbacks(self, **filters: Any) -> Listing[Callback]:
        """One page of callbacks."""
        return await self._list(Callback, "/v1/callbacks", filters)

    async def callback(self, callback_id: str) -> Callback:
        """One callback with its body."""
        response = await self._ask("GET", f"/v1/callbacks/{callback_id}")
        return read(Callback, response)

    async def callback_body(self, callback_id: str) -> bytes:
        """The exact bytes of a callback."""
        return (await self._ask("GET", f"/v1/callbacks/{callback_id}/body")).content

    async def delete_callback(self, callback_id: str) -> None:
        """Drop a callback that brought nothing."""
        await self._ask("DELETE", f"/v1/callbacks/{callback_id}")

    async def reprocess(self, callback_id: str, *, dry_run: bool = False) -> Reprocessed:
        """Take a callback's bytes once more, or see what would come of it."""
        response = await self._ask(
            "POST",
            f"/v1/callbacks/{callback_id}/reprocess",
            content=Reprocess(dry_run=dry_run).model_dump_json(),
        )
        return read(Reprocessed, response)

    async def events(self, **filters: Any) -> Listing[Event]:
        """One page of events."""
        return await self._list(Event, "/v1/events", filters)

    async def event(self, event_id: str) -> Event:
        """One event with its payload."""
        response = await self._ask("GET", f"/v1/events/{event_id}")
        return read(Event, response)

    async def replay(self, event_id: str, *, endpoint: str | None = None) -> Replayed:
        """Send an event again to all that want it today, or to one of them."""
        response = await self._ask(
            "POST",
            f"/v1/events/{event_id}/replay",
            content=ReplayAsked(endpoint=endpoint).model_dump_json(),
        )
        return read(Replayed, response)

    async def test_endpoint(self, endpoint_id: str, *, wait: float = 0) -> Delivery:
        """Send an endpoint a test of its own; with its attempt, if that was made in time."""
        response = await self._ask(
            "POST",
            f"/v1/endpoints/{endpoint_id}/test",
            params={"wait": wait} if wait else {},
            timeout=TIMEOUT + wait,
        )
        return read(Delivery, response)

    async def retry_deliveries(self, asked: RetryAsked, *, key: str | None = None) -> Job | Counted:
        """Send all deliveries of a list again, as a job; with `dry_run`, only count them."""
        return await self._repair("/v1/deliveries/retry", asked, asked.dry_run, key)

    async def recover(
        self, endpoint_id: str, asked: RecoverAsked, *, key: str | None = None
    ) -> Job | Counted:
        """Send an endpoint what it did not get, as a job; with `dry_run`, only count it."""
        return await self._repair(f"/v1/endpoints/{endpoint_id}/recover", asked, asked.dry_run, key)

    async def _repair(
        self, path: str, asked: BaseModel, dry_run: bool, key: str | None
    ) -> Job | Counted:
        headers = {} if key is None else {"idempotency-key": key}
        content = asked.model_dump_json(exclude_none=True)
        response = await self._ask("POST", path, content=content, headers=headers)
        return read(Counted, response) if dry_run else read(Job, response)

    async def jobs(self, **filters: Any) -> Listing[Job]:
        """One page of jobs."""
        return await self._list(Job, "/v1/jobs", filters)

    async def job(self, job_id: str) -> Job:
        """One job, and how far it is."""
        return read(Job, await self._ask("GET", f"/v1/jobs/{job_id}"))

    async def cancel_job(self, job_id: str) -> Job:
        """Let a job go no further."""
        return read(Job, await self._ask("POST", f"/v1/jobs/{job_id}/cancel"))

    async def deliveries(self, **filters: Any) -> Listing[Delivery]:
        """One page of deliveries."""
        return await self._list(Delivery, "/v1/deliveries", filters)

    async def dead_letters(self, **filters: Any) -> Listing[DeadLetters]:
        """One page of dead deliveries by endpoint and cause, the largest group first."""
        return await self._list(DeadLetters, "/v1/deliveries/dead", filters)

    async def delivery(self, delivery_id: str) -> Delivery:
        """One delivery with its attempts."""
        response = await self._ask("GET", f"/v1/deliveries/{delivery_id}")
        return read(Delivery, response)

    async def move_delivery(self, delivery_id: str, verb: str) -> Delivery:
        """`retry` or `cancel`."""
        response = await self._ask("POST", f"/v1/deliveries/{delivery_id}/{verb}")
        return read(Delivery, response)

    async def prune(self, *, dry_run: bool = True, cursor: str | None = None) -> Pruned:
        """Count or drop a few seconds' worth of what is too old; `next_cursor` continues."""
        asked = PruneAsked(dry_run=dry_run, cursor=cursor)
        response = await self._ask("POST", "/v1/prune", content=asked.model_dump_json())
        return read(Pruned, response)

    async def backup(self, *, keep: int | None = None) -> BackupMade:
        """Let the receiver copy everything; answers when the copy is checked and on disk."""
        asked = BackupAsked(keep=keep)
        content = asked.model_dump_json(exclude_none=True)
        response = await self._ask("POST", "/v1/backup", content=content, timeout=None)
        return read(BackupMade, response)

    async def add_api_token(self, asked: ApiTokenAsked) -> NewApiToken:
        """Make an API token; `token` is in this answer alone."""
        content = asked.model_dump_json(exclude_none=True)
        return read(NewApiToken, await self._ask("POST", "/v1/api-tokens", content=content))

    async def api_tokens(self, **filters: Any) -> Listing[ApiToken]:
        """One page of API tokens, without their texts."""
        return await self._list(ApiToken, "/v1/api-tokens", filters)

    async def delete_api_token(self, token_id: str) -> None:
        """Revoke an API token."""
        await self._ask("DELETE", f"/v1/api-tokens/{token_id}")

    async def audit(self, **filters: Any) -> Listing[AuditEntry]:
        """One page of what was done by hand, the latest first."""
        return await self._list(AuditEntry, "/v1/audit", filters)

    async def login_link(self) -> LoginLink:
        """A link that logs a browser in to the dashboard, once."""
        return read(LoginLink, await self._ask("POST", "/v1/login-links"))

    async def each_task(self, **filters: Any) -> AsyncIterator[Task]:
        """Every task of a list, page by page."""
        cursor: str | None = ""
        while cursor is not None:
            page = await self.tasks(**filters, cursor=cursor or None)
            for task in page.data:
                yield task
            cursor = page.next_cursor

    async def _endpoint(self, method: str, path: str, body: BaseModel | None = None) -> Endpoint:
        content = None if body is None else body.model_dump_json(exclude_unset=True)
        response = await self._ask(method, path, content=content)
        return read(Endpoint, response)

"""Floor 3, flows: the use cases behind every face: API, commands, dashboard. The store's protocol.

Nothing here knows HTTP; refusals are typed errors that the doors translate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from receiver import ids
from receiver.access import Action
from receiver.admin.ops.asking import ADMIN, NOTHING, ChecksUrls, Principal, moment
from receiver.admin.ops.broadcast import Broadcaster
from receiver.admin.ops.feed import FeedOps
from receiver.admin.ops.figures import Running
from receiver.admin.ops.metrics import MetricOps
from receiver.admin.ops.once import Answered, Seals
from receiver.admin.ops.repair import Begun, RepairOps
from receiver.admin.ops.standing import StandingOps
from receiver.admin.ops.watch import ANYTHING, MAX_WAIT, Watch
from receiver.callbacks import Callback, Receipt, Reprocess, Reprocessed
from receiver.clock import SECOND, Clock, from_datetime, to_datetime
from receiver.errors import Conflict, Invalid, NotFound
from receiver.keeping import Pruned
from receiver.platforms import PLATFORMS
from receiver.reprocessing import arrivals_of
from receiver.results import Result
from receiver.retention import Retention
from receiver.store.protocol import (
    CostPage,
    Page,
    Query,
    Registration,
    Reprocessing,
    Revisions,
    Store,
    TaskChange,
    TasksAsked,
    TasksReleased,
)
from receiver.tasks import (
    ClaimedTask,
    RegisteredTask,
    Task,
    TaskClaim,
    TaskPatch,
    TaskRelease,
    TaskSpec,
)
from receiver.tokens import (
    Claims,
    Source,
    TokenBox,
    check_tags,
    default_expiry,
    digest_tags,
    webhook_url,
)

# The doors above take their vocabulary from here, and never reach into the store.
__all__ = [
    "ADMIN",
    "ANYTHING",
    "NOTHING",
    "Answered",
    "Begun",
    "Ops",
    "Page",
    "Principal",
    "Query",
    "Revisions",
    "Running",
    "Watch",
]


@dataclass(frozen=True, slots=True)
class _Minted:
    """What a token says of its task; `expected` 0 is not known."""

    task: str
    platform: str
    project: str
    tags: Mapping[str, str]
    expected: int = 0
    give_up_at: int | None = None

    @classmethod
    def asked(cls, asked: Registration) -> Self:
        spec = asked.spec
        expected, give_up_at = spec.expected, asked.give_up_at
        return cls(asked.id, spec.platform, asked.project, spec.tags, expected, give_up_at)

    @classmethod
    def of(cls, task: Task) -> Self:
        give_up_at = None if task.give_up_at is None else from_datetime(task.give_up_at)
        return cls(task.id, task.platform, task.project, task.tags, task.expected or 0, give_up_at)


class Ops(RepairOps, StandingOps, MetricOps, FeedOps):
    """The use cases. `random_bytes(n)` gives entropy, `guard` vets endpoints' URLs, `seals` keeps
    answers that are repeated."""

    def __init__(
        self,
        store: Store,
        tokens: TokenBox,
        retention: Retention,
        *,
        public_url: str,
        guard: ChecksUrls,
        clock: Clock,
        wall: Clock,
        random_bytes: Callable[[int], bytes],
        seals: Seals,
        running: Running | None = None,
    ) -> None:
        super().__init__(store, guard=guard, clock=clock, random_bytes=random_bytes)
        self._seals = seals
        self._begin_metrics(running or Running())
        self._begin_standing()
        self.public_url = public_url
        self._tokens = tokens
        self._retention = retention
        self._wall = wall
        self.watch = Watch()
        store.on_change(self.watch.hear)
        store.watch_tasks(self.watch.seen)
        self.feed = Broadcaster(store)

    def stop_waiting(self) -> None:
        """Answer whoever waits and end whoever watches: the receiver is about to stop."""
        self.watch.wake_all()
        self.feed.finish()

    async def register_task(
        self, who: Principal, task_id: str, spec: TaskSpec, source: Source
    ) -> RegisteredTask:
        """Create or complete a task and mint its URL. A differing `expected` is a Conflict."""
        _check_task(spec)
        task_id, now = _canonical(task_id), self._clock()
        asked = Registration(
            id=task_id,
            spec=spec,
            project=who.choose(spec.project),
            now=now,
            deadline_at=moment(spec.deadline_at, "deadline_at"),
            give_up_at=moment(spec.give_up_at, "give_up_at"),
        )
        # What has no URL is not stored.
        self._mint(_Minted.asked(asked), source)
        may_submit = await self._register(who, asked)
        task = await self.store.task(task_id)
        url = self._mint_known(task, source)
        return RegisteredTask(**task.model_dump(), webhook_url=url, may_submit=may_submit)

    async def _register(self, who: Principal, asked: Registration) -> bool:
        try:
            return await self.store.register(asked)
        except Conflict:
            if (await self.store.task(asked.id)).project == asked.project or who.project is None:
                raise
        # Whose it is, a project is not told.
        raise Conflict("That task id is taken. Use another.")

    def _latest(self) -> int:
        # A token must be newer than the revocation before it, whichever clock is ahead.
        return max(self._clock(), self._wall())

    def _mint(self, of: _Minted, source: Source) -> str:
        now = self._latest()
        claims = Claims(
            jti=self._random(16),
            task=of.task,
            platform=of.platform,
            project=of.project,
            expected=of.expected,
            source=source,
            issued_at=now,
            expires_at=default_expiry(now, of.give_up_at),
            tags=digest_tags(of.tags.items()),
        )
        return webhook_url(self.public_url, of.platform, self._tokens.mint(claims), of.tags)

    def _mint_known(self, task: Task, source: Source) -> str:
        of = _Minted.of(task)
        try:
            return self._mint(of, source)
        except Invalid:  # tags of a static key's URL, whatever they are; the ledger has them
            return self._mint(replace(of, tags={}), source)

    async def claim_tasks(self, who: Principal, claim: TaskClaim) -> Sequence[ClaimedTask]:
        """Lease tasks that are due for reconcile, each with the URL for what a poll finds."""
        now = self._clock()
        due_by, lease_until = moment(claim.due_by, "due_by"), now + claim.lease_s * SECOND
        asked = TasksAsked(
            now=now,
            due_by=now if due_by is None else due_by,
            lease_until=lease_until,
            limit=claim.limit,
            platforms=_known_platforms(claim.platforms),
            project=who.project,
        )
        return [
            ClaimedTask(
                **task.model_dump(),
                webhook_url=self._mint_known(task, Source.POLL),
                lease_until=to_datetime(lease_until),
            )
            for task in await self.store.claim_tasks(asked)
        ]

    async def release_tasks(self, who: Principal, release: TaskRelease) -> int:
        """Hand back tasks of one claim; how many were still leased by it."""
        released = TasksReleased(
            ids=[_canonical(task) for task in release.tasks],
            now=self._clock(),
            lease_until=moment(release.lease_until, "lease_until") or 0,
            polled=release.polled,
            project=who.project,
        )
        return await self.store.release_tasks(released)

    async def reconcile_task(self, who: Principal, task_id: str) -> Task:
        """Make a task due for reconcile now. A rejected one is a Conflict."""
        store = await self._by_task(who, Action.TASK_RECONCILE, task_id)
        await store.reconcile_task(TaskChange(task_id, self._clock()))
        return await self.store.task(task_id)

    async def _by_task(self, who: Principal, action: Action, task_id: str) -> Store:
        task = await self.task(who, task_id)
        return self._by(who, action, task.id, task.project)

    async def change_task(self, who: Principal, task_id: str, patch: TaskPatch) -> Task:
        """Note how a submit went, or take the right to submit."""
        who.see((await self.store.task(task_id)).project)
        change = TaskChange(
            task_id,
            self._clock(),
            patch.submit_state,
            patch.platform_id,
            was=patch.was,
            lease=patch.lease,
        )
        await self.store.change_task(change)
        return await self.store.task(task_id)

    async def revoke_task(self, who: Principal, task_id: str) -> Task:
        """Refuse every token issued so far."""
        store = await self._by_task(who, Action.TASK_REVOKE, task_id)
        await store.revoke_task(TaskChange(task_id, self._latest()))
        return await self.store.task(task_id)

    async def delete_task(self, who: Principal, task_id: str) -> None:
        """Remove a task with its results and callbacks."""
        store = await self._by_task(who, Action.TASK_DELETE, task_id)
        await store.delete_task(TaskChange(task_id, self._clock()))

    async def task(self, who: Principal, task_id: str) -> Task:
        """One task."""
        task = await self.store.task(task_id)
        who.see(task.project)
        return task

    async def wait_task(
        self, who: Principal, task_id: str, known: int | None, seconds: float
    ) -> Task:
        """A task once its revision is not `known` any more, or as it is after `seconds`."""
        with self.watch.listening(_spelled(task_id)) as changed:
            task = await self.task(who, task_id)
            if known != task.revision and (known is not None or task.complete):
                return task
            self.watch.saw(changed, task.id, task.revision)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, MAX_WAIT)):
                    await changed.wait()
        return await self.task(who, task_id)

    async def tasks(self, who: Principal, query: Query) -> Page[Task]:
        """A page of tasks."""
        return await self.store.tasks(who.within(query))

    async def results(self, who: Principal, task_id: str) -> Sequence[Result]:
        """A task's results."""
        if who.project is not None:
            await self.task(who, task_id)
        return await self.store.results(task_id)

    async def costs(self, who: Principal, query: Query) -> CostPage:
        """What tasks cost, as platforms reported it."""
        return await self.store.costs(who.within(query))

    async def callbacks(
        self, who: Principal, query: Query, *, whole: bool = False
    ) -> Page[Callback]:
        """A page of callbacks; their bodies only when `whole`."""
        return await self.store.callbacks(who.within(query), whole=whole)

    async def callback(self, who: Principal, callback_id: str) -> Callback:
        """One callback with its body."""
        if who.project is not None:
            who.see((await self.store.kept_callback(callback_id)).project)
        return await self.store.callback(callback_id)

    async def callback_body(self, who: Principal, callback_id: str) -> bytes:
        """The exact bytes of a callback, credentials in them included."""
        kept = await self.store.kept_callback(callback_id)
        who.see(kept.project)
        if kept.body is None:
            raise NotFound(f"The bytes of {callback_id} are not kept any more.")
        return kept.body

    async def delete_callback(self, who: Principal, callback_id: str) -> None:
        """Drop a callback that brought nothing."""
        kept = await self.store.kept_callback(callback_id)
        who.see(kept.project)
        store = self._by(who, Action.CALLBACK_DELETE, callback_id, kept.project, task=kept.task_id)
        await store.delete_callback(callback_id)

    async def reprocess(self, who: Principal, callback_id: str, asked: Reprocess) -> Reprocessed:
        """Take a callback's bytes once more. Raises Conflict when they may not, or are gone."""
        kept, now = await self.store.kept_callback(callback_id), self._clock()
        who.see(kept.project)
        if kept.body is None:
            raise Conflict(f"The bytes of {callback_id} are not kept any more: poll the task.")
        arrivals = arrivals_of(kept, kept.body, now)
        by = self._by(who, Action.CALLBACK_REPROCESS, callback_id, kept.project, of=_receipt)
        store = self.store if asked.dry_run else by
        receipt = await store.reprocess(Reprocessing(kept.id, arrivals, now, dry_run=asked.dry_run))
        shown = (await self.store.callback(callback_id)).model_dump(exclude={"body", "body_exact"})
        return Reprocessed(**shown, status=receipt.outcome, results=receipt.results)

    async def prune(
        self, who: Principal, place: tuple[int, ...], *, dry_run: bool
    ) -> tuple[Pruned, tuple[int, ...] | None]:
        """Drop or count a little of what is too old, in all projects; and where it goes on."""
        who.of_all("What is kept for how long")
        if not dry_run:  # it is many transactions, so the row comes first
            await self.store.note(self._deed(who, Action.PRUNE))
        return await self._retention.by_hand(place, dry_run=dry_run)


def _receipt(receipt: Receipt) -> Mapping[str, Any]:
    return {"outcome": receipt.outcome, "results": receipt.results}


def _canonical(task_id: str) -> str:
    try:
        return ids.canonical_task(task_id)
    except ValueError:
        raise Invalid(f"A task's id is a UUID, not {task_id[:60]!r}.", parameter="id") from None


def _spelled(task_id: str) -> str:
    """As the store tells of it; what is no UUID stays as it is."""
    with suppress(ValueError):
        return ids.canonical_task(task_id)
    return task_id


def _check_task(spec: TaskSpec) -> None:
    _known_platforms([spec.platform])
    check_tags(spec.tags)


def _known_platforms(named: Sequence[str] | None) -> Sequence[str]:
    for name in named or ():
        if name not in PLATFORMS:
            known = ", ".join(sorted(PLATFORMS))
            raise Invalid(f"There is no platform {name[:60]!r}; known: {known}.")
    return sorted(PLATFORMS) if named is None else named

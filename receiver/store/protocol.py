"""Floor 2, edges: what a store can do. Each verb is one whole transaction.

Two implementations are meant to stand behind it (SQLite now, PostgreSQL later), so it names no
engine. Every verb may raise StoreUnavailable; those that name a thing raise NotFound.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from receiver.access import ApiToken, AuditEntry, Deed, Note, OnceKey
from receiver.backups import BackupMade
from receiver.callbacks import Arrival, Callback, Kept, Receipt
from receiver.condition import StoreCondition
from receiver.costs import Cost, CostSum, Grouping
from receiver.deliveries import DeadLetters, Delivery, Outcome, State
from receiver.delivery.health import LONGEST_PAUSE
from receiver.endpoints import Endpoint, EndpointPatch, EndpointSpec
from receiver.endpoints import State as EndpointState
from receiver.events import Event
from receiver.feed import Place, Told
from receiver.figures import EndpointReport, Overview
from receiver.keeping import Bounds
from receiver.repair import Counted, Job, Repair, Replayed
from receiver.results import Result
from receiver.store.access import Answer as Answer
from receiver.store.access import EndedSession as EndedSession
from receiver.store.access import Holder as Holder
from receiver.store.access import Known as Known
from receiver.store.access import NewApiToken as NewApiToken
from receiver.store.access import NewLogin as NewLogin
from receiver.store.access import Once as Once
from receiver.store.ledger import Registration as Registration
from receiver.store.ledger import Reprocessing as Reprocessing
from receiver.store.ledger import TaskChange as TaskChange
from receiver.store.ledger import TasksAsked as TasksAsked
from receiver.store.ledger import TasksReleased as TasksReleased
from receiver.tasks import Task

T = TypeVar("T")

# Those that an endpoint may have for a change of it; None: any. Else PreconditionFailed.
Revisions = Collection[int] | None


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """An endpoint to add, with its first secret, and an Ed25519 key for when it asks for v1a."""

    spec: EndpointSpec
    project: str
    secret: str = field(repr=False)
    now: int
    private_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """A change of an endpoint. `private_key` is taken when it asks for v1a and has none yet."""

    id: str
    patch: EndpointPatch
    private_key: str = field(default="", repr=False)
    revisions: Revisions = None


@dataclass(frozen=True, slots=True)
class Rotation:
    """A new secret and Ed25519 key; those before sign for `overlap` more. In milliseconds."""

    id: str
    secret: str = field(repr=False)
    private_key: str = field(repr=False)
    now: int
    overlap: int
    revisions: Revisions = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list, newest first, and where the next one begins."""

    data: Sequence[T]
    next_cursor: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Query:
    """Filters of a list; None does not filter. `before` is a cursor, times in milliseconds."""

    limit: int = 50
    before: tuple[int, ...] | None = None
    project: str | None = None
    status: str | None = None
    platform: str | None = None
    model: str | None = None
    overdue: bool | None = None
    registered: bool | None = None
    task: str | None = None
    event: str | None = None
    endpoint: str | None = None
    state: State | None = None
    last_error: str | None = None
    last_status: int | None = None
    outcome: str | None = None
    orphan: bool | None = None
    event_type: str | None = None
    tag: tuple[str, str] | None = None
    since: int | None = None
    until: int | None = None
    q: str | None = None
    by: Grouping | None = None
    actor: str | None = None
    action: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class CostPage(Page[Cost]):
    """A page of groups. `total`, on the first page alone, is over all that the query asks for."""

    total: CostSum | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that was leased: what to send, where, and as which attempt."""

    event_id: int
    endpoint_id: int
    attempt: int  # since the first, never reused
    round_attempt: int  # since the schedule last began, 1-based
    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    schedule: tuple[int, ...] | None
    payload: bytes = field(repr=False)
    lane: int | None = None  # whose order it keeps, at an ordered endpoint
    private_keys: tuple[str, ...] = field(default=(), repr=False)
    task: str | None = None
    traceparent: str | None = None  # of the task


@dataclass(frozen=True, slots=True)
class Settled:
    """How an attempt ended and what follows. Times in milliseconds."""

    claimed: Claimed
    outcome: Outcome
    state: State
    next_attempt_at: int | None
    started_at: int
    now: int
    disable: str | None = None
    longest_pause: int = LONGEST_PAUSE  # of the breaker, where deliveries have this schedule


@dataclass(frozen=True, slots=True)
class OverviewAsked:
    """How all fares at `now`, in milliseconds; `project` None: in all projects."""

    now: int
    project: str | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """An event to be sent again, to all that want it or to one. `now` in milliseconds."""

    event_id: str
    now: int
    endpoint_id: str | None = None


@dataclass(frozen=True, slots=True)
class QueueCancel:
    """What waits for an endpoint since before `now`, in milliseconds; at most `limit` of it."""

    endpoint: str
    now: int
    limit: int


@dataclass(frozen=True, slots=True)
class Alert:
    """An operational event that whoever runs the receiver has not heard of."""

    id: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to do. `key`: that of the request, which asked for it once. `now` in milliseconds."""

    repair: Repair
    now: int
    total: int | None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class JobStep:
    """A job after a step, and how many deliveries that sent again."""

    job: Job
    taken: int


@dataclass(frozen=True, slots=True)
class Prune:
    """A step through what is too old. `place` is where the last step stopped, () the beginning."""

    now: int
    bounds: Bounds
    place: tuple[int, ...] = ()
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class PruneStep:
    """What one step dropped, by the names of `keeping.Pruned`; `place` None: that was the end."""

    counts: Mapping[str, int]
    place: tuple[int, ...] | None


class Store(Protocol):
    """Everything that is kept."""

    instance: str  # 32 hexadecimal digits, made once with the database

    def admit(self) -> None:
        """Whether a callback's body is worth reading. No I/O.

        Raises StoreUnavailable, or what is more precise: StoreSaturated, StoreFull, StoreBroken.
        """
        ...

    async def record(self, arrival: Arrival) -> Receipt:
        """Keep one callback with its results, counts, events and deliveries; durable on return."""
        ...

    async def register(self, asked: Registration) -> bool:
        """Create or complete a task; True when this call holds the right to submit it."""
        ...

    async def change_task(self, change: TaskChange) -> None: ...
    async def revoke_task(self, change: TaskChange) -> None: ...
    async def delete_task(self, change: TaskChange) -> None: ...
    async def task(self, task_id: str) -> Task: ...
    async def tasks(self, query: Query) -> Page[Task]: ...
    async def results(self, task_id: str) -> Sequence[Result]: ...
    async def costs(self, query: Query) -> CostPage:
        """What tasks cost by `query.by` (None: the model); its times are those of the results."""
        ...

    async def claim_tasks(self, asked: TasksAsked) -> Sequence[Task]:
        """Lease tasks that are due for reconcile, each to one caller, and put them off."""
        ...

    async def release_tasks(self, released: TasksReleased) -> int:
        """End the leases of one claim early; how many still had it."""
        ...

    async def reconcile_task(self, change: TaskChange) -> None:
        """Make a task due for reconcile now. Raises Conflict for a rejected one."""
        ...

    async def note_overdue(self, now: int) -> int: ...
    async def give_up(self, now: int) -> int: ...

    async def callback(self, callback_id: str) -> Callback: ...
    async def kept_callback(self, callback_id: str) -> Kept: ...
    async def delete_callback(self, callback_id: str) -> None:
        """Drop a callback that brought nothing. Raises Conflict for one that did."""
        ...

    async def reprocess(self, asked: Reprocessing) -> Receipt:
        """Record what kept bytes say now, in their own row. Raises Conflict when they may not."""
        ...

    async def callbacks(self, query: Query, *, whole: bool = False) -> Page[Callback]:
        """A page of callbacks; their bodies only when `whole`."""
        ...

    async def add_endpoint(self, new: NewEndpoint) -> Endpoint: ...
    async def endpoint(self, endpoint_id: str) -> Endpoint: ...
    async def endpoints(self, query: Query) -> Page[Endpoint]: ...
    async def change_endpoint(self, change: EndpointChange) -> Endpoint: ...
    async def rotate_secret(self, rotation: Rotation) -> Endpoint:
        """Sign with a new secret, and for a while with those before. Raises Conflict."""
        ...

    async def set_endpoint_state(
        self,
        endpoint_id: str,
        state: EndpointState,
        reason: str | None,
        revisions: Revisions = None,
    ) -> Endpoint: ...
    async def delete_endpoint(
        self, endpoint_id: str, now: int, revisions: Revisions = None
    ) -> None: ...

    async def event(self, event_id: str) -> Event: ...
    async def events(self, query: Query, *, whole: bool = False) -> Page[Event]:
        """A page of events; their payloads only when `whole`."""
        ...

    async def told(self, after: Place) -> Sequence[Told]:
        """What the feed has behind a place, the oldest first: a page, empty only at its end."""
        ...

    async def newest_place(self) -> Place:
        """Where the feed ends."""
        ...

    async def delivery(self, delivery_id: str) -> Delivery: ...
    async def deliveries(self, query: Query) -> Page[Delivery]: ...
    async def dead_letters(self, query: Query) -> Page[DeadLetters]:
        """Dead deliveries by endpoint and cause, the largest group first."""
        ...

    async def retry(self, delivery_id: str, now: int) -> None: ...
    async def cancel(self, delivery_id: str, now: int) -> None: ...
    async def cancel_queue(self, asked: QueueCancel) -> int:
        """Cancel some of what waits for an endpoint, not what is under way; how many."""
        ...

    async def replay(self, asked: Replay) -> Replayed:
        """Send an event again to those that want it today. Raises Conflict."""
        ...

    async def test_endpoint(self, endpoint_id: str, now: int) -> str:
        """Queue an `endpoint.test` for one endpoint; the delivery's id. Raises Conflict if held."""
        ...

    async def alerts(self, limit: int) -> Sequence[Alert]:
        """Operational events that were not told yet, the oldest first."""
        ...

    async def drop_alerts(self, events: Sequence[str]) -> None:
        """These were told, or given up."""
        ...

    async def count_repair(self, repair: Repair) -> Counted:
        """How many deliveries a job would send again; of missing ones, within a few seconds."""
        ...

    async def add_job(self, new: NewJob) -> tuple[Job, bool]:
        """Queue a job, unless the same one is there; whether it is new. Raises Conflict."""
        ...

    async def job(self, job_id: str) -> Job: ...
    async def jobs(self, query: Query) -> Page[Job]: ...
    async def next_job(self, now: int) -> str | None:
        """The open job whose turn it is; None: none can go on now."""
        ...

    async def advance_job(self, job_id: str, now: int) -> JobStep:
        """Send a few more again, in one transaction with how far the job is."""
        ...

    async def cancel_job(self, job_id: str, now: int) -> Job:
        """Go no further. Raises Conflict for a job that is over."""
        ...

    async def fail_job(self, job_id: str, now: int, why: str) -> Job:
        """End a job that met a defect. Raises Conflict for one that is over."""
        ...

    async def claim(
        self, *, now: int, lease_until: int, limit: int, shared: bool = False
    ) -> Sequence[Claimed]:
        """Lease due deliveries, fairly over endpoints and within each one's concurrency: what has
        been due the longest, each endpoint's in the order of its events.

        `shared`: beyond ten at once no endpoint gets more of `limit` than it leaves to the others,
        what it has already included. So who hangs never has all of a worker's places.
        """
        ...

    async def settle(self, settled: Settled) -> None:
        """Keep an attempt, move its delivery, and let its endpoint fare better or worse.

        Stale news of a lapsed lease is kept as a row.
        """
        ...

    async def release_lapsed(self, now: int) -> int:
        """Return deliveries whose lease ran out to pending; the count."""
        ...

    async def next_due(self) -> int | None:
        """When the next delivery is due, in milliseconds; None when nothing waits."""
        ...

    async def prune(self, asked: Prune) -> PruneStep:
        """Drop a little of what is too old and not at work, or count it; a bounded step."""
        ...

    async def add_login(self, new: NewLogin) -> None: ...
    async def take_login(self, digest: bytes, now: int) -> Holder | None:
        """Burn a login link; whom it logs in, None if it was no good, or its token is gone."""
        ...

    async def end_session(self, ended: EndedSession) -> None: ...
    async def is_ended(self, session_id: str) -> bool: ...

    async def overview(self, asked: OverviewAsked) -> Overview:
        """How all fares, in figures that look at a bounded part of it; not its `answers`."""
        ...

    async def endpoint_reports(
        self, endpoints: Sequence[str], now: int
    ) -> Sequence[EndpointReport]:
        """How some endpoints fared lately, in the order asked; who is gone is left out."""
        ...

    async def condition(self) -> StoreCondition:
        """How the store itself fares."""
        ...

    async def backup(self, folder: Path, keep: int | None) -> BackupMade:
        """Copy everything into a directory while callbacks go on; the newest `keep` stay.

        Raises Conflict while another one is made, BackupElsewhere where the database's own tools do
        it.
        """
        ...

    async def ready(self) -> None:
        """Write and commit something. Raises StoreUnavailable when that or `admit` fails."""
        ...

    def audited(self, note: Note) -> Store:
        """This store, whose next verb leaves the row that `note` makes of what became of it.

        In the verb's own transaction: neither is there without the other.
        """
        ...

    async def note(self, deed: Deed) -> None:
        """Leave a row about what is more than one transaction."""
        ...

    async def audit(self, query: Query) -> Page[AuditEntry]:
        """Manual actions, the latest first."""
        ...

    async def add_api_token(self, new: NewApiToken) -> ApiToken: ...
    async def api_tokens(self, query: Query) -> Page[ApiToken]: ...
    async def api_token(self, token_id: str) -> ApiToken: ...
    async def known_token(self, digest: bytes) -> Known | None:
        """The token that has this digest."""
        ...

    async def delete_api_token(self, token_id: str) -> None: ...
    async def note_token_uses(self, uses: Mapping[str, int]) -> None:
        """When these tokens (by id) were last used, in milliseconds; those that are gone, too."""
        ...

    async def begin_once(self, once: Once) -> Answer | None:
        """The answer to repeat; None: this is the first request, or nothing came of the first.

        Raises KeyReused, KeyInUse, AnswerLost.
        """
        ...

    async def keep_answer(self, key: OnceKey, answer: Answer) -> None: ...
    async def drop_once(self, key: OnceKey) -> None:
        """The request changed nothing, so it may come again. One that did is kept."""
        ...

    async def forget_answers(self, before: int) -> int:
        """Forget some of the requests that began before then; how many."""
        ...

    def on_change(self, listener: Callable[[set[str], bool], None]) -> None:
        """Call `listener(changed task ids, deliveries became due)` after each commit."""
        ...

    def watch_tasks(self, seen: Callable[[], Set[tuple[str, int]]]) -> None:
        """Tell listeners also of what other processes change without an event, of the tasks that
        somebody waits for: `seen` gives each with its revision."""
        ...

    def on_commit(self, listener: Callable[[int, float, bool], None]) -> None:
        """Call `listener(jobs, seconds, committed)` on the event loop after each transaction of
        this process, one that failed too."""
        ...

    async def close(self) -> None: ...

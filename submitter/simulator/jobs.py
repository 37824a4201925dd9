"""The tasks the simulator has accepted, and how far each result and callback has come. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Literal
from urllib.parse import urlsplit

import anyio

from submitter.simulator import contract
from submitter.simulator.config import Knobs
from submitter.simulator.contract import Json
from submitter.simulator.plans import Dice, Outcome

# What NanoGPT's endpoints are counted by: submits, and each way to ask for a status.
NANO_CALLS = ("submit", "extend", "status", "legacy", "recover", "models")
CallbackState = Literal["waiting", "delivered", "lost"]
STATES: tuple[CallbackState, ...] = ("waiting", "delivered", "lost")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST of a callback: a `status`, or the name of what went wrong instead."""

    number: int
    at: datetime
    status: int | None
    error: str | None

    @property
    def accepted(self) -> bool:
        """A 2xx came in time: the only answer that ends the retries."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(slots=True)
class Callback:
    """One body that is owed to the webhookURL, or a duplicate of one."""

    body: bytes
    state: CallbackState = "waiting"
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    """One outcome as time goes by; `tried` is set once its callback was tried, or never will be.

    `progress` are the callbacks that report work, `upload` the PUT to the task's uploadEndpoint.
    """

    outcome: Outcome
    callbacks: list[Callback]
    progress: list[Callback] = field(default_factory=list)
    upload: Attempt | None = None
    ready_at: datetime | None = None
    tried: anyio.Event = field(default_factory=anyio.Event)

    @property
    def status(self) -> str:
        """`processing`, `success` or `error`, as a poll shows it."""
        return str(self.outcome.item["status"]) if self.ready_at else "processing"


@dataclass(slots=True)
class Job:
    """An accepted task under the knobs of its acceptance."""

    task: Json = field(repr=False)  # with its webhookURL
    knobs: Knobs
    dice: Dice
    accepted_at: datetime
    results: list[Result]

    def has_dropped(self, result: Result) -> bool:
        """True when the callback of `result` is one that will never be sent."""
        return "webhookURL" in self.task and not result.outcome.bodies

    def uploads(self, result: Result) -> bool:
        """True when the media of `result` are to be PUT to the uploadEndpoint."""
        asked = "uploadEndpoint" in self.task and self.knobs.upload != "never"
        return asked and result.outcome.media_id is not None

    def upload_state(self, result: Result) -> str | None:
        """`waiting`, `accepted` or `failed`; None when there is nothing to upload."""
        if not self.uploads(result):
            return None
        if result.upload is None:
            return "waiting"
        return "accepted" if result.upload.accepted else "failed"

    def snapshot(self) -> tuple[list[Json], list[Json]]:
        """`data` and `errors` of the whole task at this moment, each in stable order."""
        processing = {**contract.acknowledge(self.task), "status": "processing"}
        items = [each.outcome.item if each.ready_at else processing for each in self.results]
        return [i for i in items if "code" not in i], [i for i in items if "code" in i]

    def is_archived(self, now: datetime) -> bool:
        """True when only the archive still has the response: so long after the last result."""
        after, ready = self.knobs.archive_after_s, [each.ready_at for each in self.results]
        times = [moment for moment in ready if moment is not None]
        if after is None or len(times) < len(ready):
            return False
        return now >= max(times) + timedelta(0, after)

    def ttl(self) -> float | None:
        """Seconds that media live: the task's `ttl`, or the knob that replaces it."""
        asked = self.task.get("ttl")
        return asked if self.knobs.media_ttl_s is None else self.knobs.media_ttl_s


@dataclass(slots=True)
class Run:
    """An accepted job of NanoGPT: one result, no callback. `owner` is the key that sent it."""

    run_id: str
    owner: str = field(repr=False)
    request: Json
    knobs: Knobs
    dice: Dice
    accepted_at: datetime
    result: Result
    cost: float
    polls: int = 0

    @property
    def results(self) -> list[Result]:
        """The one there is."""
        return [self.result]

    def has_dropped(self, result: Result) -> bool:
        """False: no callback is owed."""
        return False

    def ttl(self) -> float | None:
        """Seconds that media live: the knob alone, since NanoGPT has no such parameter."""
        return self.knobs.media_ttl_s


class Ledger:
    """All tasks since the start, by taskUUID; those refused for lack of credits are `ghosts`.

    NanoGPT's are `runs`, by runId.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.runs: dict[str, Run] = {}
        self.ghosts: dict[str, Json] = {}
        self.counts: Counter[str] = Counter()
        self._media: dict[str, tuple[Job | Run, Result]] = {}

    def add(self, job: Job) -> None:
        """Keep a task that was just accepted."""
        self.jobs[job.task["taskUUID"].lower()] = job
        self.ghosts.pop(job.task["taskUUID"].lower(), None)
        self._own_media(job)

    def add_run(self, run: Run) -> None:
        """Keep a job of NanoGPT that was just accepted."""
        self.runs[run.run_id] = run
        self._own_media(run)

    def _own_media(self, work: Job | Run) -> None:
        for result in work.results:
            if result.outcome.media_id:
                self._media[result.outcome.media_id] = (work, result)

    def forget(self) -> None:
        """Drop every task, so that their ids can be submitted again; running callbacks go on."""
        for kept in (self.jobs, self.runs, self.ghosts, self._media):
            kept.clear()

    def gone(self, media_id: str, now: datetime) -> int | None:
        """How media of ours answer when their time is up; those of an earlier run never expire."""
        work, result = self._media.get(media_id, (None, None))
        ttl = work.ttl() if work else None
        if work is None or ttl is None or result is None or result.ready_at is None:
            return None
        return work.knobs.media_gone if now >= result.ready_at + timedelta(0, ttl) else None

    def _all(self) -> Iterator[Job | Run]:
        yield from self.jobs.values()
        yield from self.runs.values()

    def progress(self) -> Json:
        """Sums over all tasks: results by status, callbacks by state, attempts."""
        results = [result for work in self._all() for result in work.results]
        callbacks = [callback for result in results for callback in result.callbacks]
        statuses = Counter(result.status for result in results)
        states = Counter(callback.state for callback in callbacks)
        reports = Counter(report.state for result in results for report in result.progress)
        uploads = Counter(job.upload_state(r) for job in self.jobs.values() for r in job.results)
        return {
            **{name: self.counts[name] for name in ("requests", "refused")},
            "polls": {name: self.counts[name] for name in contract.POLLS},
            "nanogpt": {name: self.counts[f"nanogpt {name}"] for name in NANO_CALLS},
            "tasks": len(self.jobs) + len(self.runs),
            "results": {name: statuses[name] for name in ("processing", "success", "error")},
            "callbacks": {name: states[name] for name in STATES},
            "progress": {name: reports[name] for name in STATES},
            "uploads": {name: uploads[name] for name in ("waiting", "accepted", "failed")},
            "dropped": sum(work.has_dropped(r) for work in self._all() for r in work.results),
            "attempts": sum(len(callback.attempts) for callback in callbacks),
        }

    def listing(self) -> Iterator[Json]:
        """Every task with its results and callback attempts, oldest first."""
        everything = sorted(self._all(), key=attrgetter("accepted_at"))
        return (_describe(w) if isinstance(w, Job) else _describe_run(w) for w in everything)


def without_query(url: str | None) -> str | None:
    """Scheme, host, port and path: what may be shown of a URL whose query is a credential."""
    if url is None:
        return None
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _describe(job: Job) -> Json:
    return {
        "platform": "runware",
        **contract.acknowledge(job.task),
        "model": job.task["model"],
        "webhook": without_query(job.task.get("webhookURL")),
        "upload": without_query(job.task.get("uploadEndpoint")),
        "accepted_at": job.accepted_at.isoformat(),
        "results": [_describe_result(job, result) for result in job.results],
    }


def _describe_run(run: Run) -> Json:
    return {
        "platform": "nanogpt",
        "runId": run.run_id,
        "model": run.request["model"],
        "accepted_at": run.accepted_at.isoformat(),
        "polls": run.polls,
        "results": [_describe_result(run, run.result)],
    }


def _describe_result(job: Job | Run, result: Result) -> Json:
    item = result.outcome.item
    return {
        "status": result.status,
        "media": result.outcome.media_id,
        "code": item.get("code"),
        "ready_at": result.ready_at.isoformat() if result.ready_at else None,
        "dropped": job.has_dropped(result),
        "callbacks": [_describe_callback(callback) for callback in result.callbacks],
        "progress": [_describe_callback(callback) for callback in result.progress],
        "upload": _describe_attempt(result.upload) if result.upload else None,
    }


def _describe_callback(callback: Callback) -> Json:
    return {"state": callback.state, "attempts": [*map(_describe_attempt, callback.attempts)]}


def _describe_attempt(one: Attempt) -> Json:
    at = one.at.isoformat()
    return {"number": one.number, "at": at, "status": one.status, "error": one.error}

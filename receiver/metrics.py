"""Floor 2, edges: what a process counts, and what the store says, for Prometheus. Its client only.

What is counted costs a callback an addition and a look into a short table: plain numbers, which
become families of metrics when somebody asks. There is no registry of the process; each service
has its own `Metrics`, and importing this counts nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from math import inf
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from receiver.callbacks import Outcome as CallbackOutcome
from receiver.condition import StoreCondition
from receiver.deliveries import Failure, Outcome
from receiver.deliveries import State as DeliveryState
from receiver.endpoints import Breaker, State
from receiver.figures import EndpointReport, Overview

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


@dataclass(frozen=True, slots=True)
class Defined:
    """A metric: what it is called, of what kind it is, what it says, and its labels."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()


# Every metric of ours. Those of one process are added up over processes; those of the store are the
# same on each that asks the same one, so `max()` is their whole.
OF_THE_PROCESS: Final = (
    Defined(
        "reelhook_ingest_answers",
        COUNTER,
        "Requests at the door for callbacks, by what became of them.",
        ("outcome",),
    ),
    Defined(
        "reelhook_ingest_duration_seconds",
        HISTOGRAM,
        "From a callback's head to its answer, the commit included.",
    ),
    Defined(
        "reelhook_connections_refused",
        COUNTER,
        "What was refused before it was a request, by the problem's code.",
        ("code",),
    ),
    Defined(
        "reelhook_commits",
        COUNTER,
        "Transactions of this process's writer, committed or failed.",
        ("result",),
    ),
    Defined("reelhook_commit_jobs", HISTOGRAM, "Writes that shared a transaction."),
    Defined(
        "reelhook_commit_duration_seconds",
        HISTOGRAM,
        "From a transaction's begin until it is on disk.",
    ),
    Defined(
        "reelhook_attempts",
        COUNTER,
        "Attempts to deliver, by class: 2xx, 3xx, 4xx, 5xx, network (no answer that is one),"
        " refused (nothing was sent).",
        ("class", "failure"),
    ),
    Defined("reelhook_attempt_duration_seconds", HISTOGRAM, "From an attempt's start to its end."),
    Defined(
        "reelhook_deliveries_settled",
        COUNTER,
        "Deliveries that succeeded, or were given up.",
        ("state",),
    ),
    Defined(
        "reelhook_worker_alive",
        GAUGE,
        "1 while the loop that delivers turns.",
    ),
)
OF_THE_STORE: Final = (
    Defined(
        "reelhook_info",
        GAUGE,
        "Always 1; the labels say what runs.",
        ("version", "engine", "engine_version", "schema_version"),
    ),
    Defined("reelhook_store_readable", GAUGE, "0: the store could not say what follows."),
    Defined("reelhook_store_refusing", GAUGE, "1 while callbacks are answered 503."),
    Defined("reelhook_database_size_bytes", GAUGE, "The database, without its log."),
    Defined("reelhook_wal_size_bytes", GAUGE, "SQLite's write-ahead log; none with PostgreSQL."),
    Defined(
        "reelhook_disk_free_bytes",
        GAUGE,
        "Room that is left beside SQLite's database; none with PostgreSQL.",
    ),
    Defined("reelhook_tasks_open", GAUGE, "Tasks that are not complete."),
    Defined("reelhook_tasks_overdue", GAUGE, "Of these, past their deadline."),
    Defined(
        "reelhook_last_callback_age_seconds",
        GAUGE,
        "Since the last authentic callback, one that came again too; +Inf: there never was one.",
    ),
    Defined("reelhook_queue_deliveries", GAUGE, "Deliveries that wait."),
    Defined("reelhook_queue_held_deliveries", GAUGE, "Of these, for endpoints that get nothing."),
    Defined(
        "reelhook_oldest_due_delivery_age_seconds",
        GAUGE,
        "For how long the delivery that waits longest could have been sent; 0: none waits.",
    ),
    Defined("reelhook_dead_deliveries", GAUGE, "Deliveries given up that can be sent again."),
    Defined("reelhook_quarantined_callbacks", GAUGE, "Callbacks that could not be read."),
    Defined("reelhook_conflicting_callbacks", GAUGE, "Callbacks that contradict an earlier one."),
    Defined("reelhook_endpoints", GAUGE, "Endpoints by state.", ("state",)),
    Defined("reelhook_endpoints_failing", GAUGE, "Enabled ones whose breaker is not closed."),
    Defined("reelhook_endpoints_unlisted", GAUGE, "Endpoints that have no metrics of their own."),
    Defined(
        "reelhook_endpoint_healthy",
        GAUGE,
        "1: enabled, and its breaker closed.",
        ("endpoint",),
    ),
    Defined(
        "reelhook_endpoint_consecutive_failures",
        GAUGE,
        "Attempts that failed since the last success.",
        ("endpoint",),
    ),
    Defined(
        "reelhook_endpoint_queue_deliveries",
        GAUGE,
        "Deliveries that wait for it.",
        ("endpoint",),
    ),
    Defined(
        "reelhook_endpoint_dead_deliveries",
        GAUGE,
        "Deliveries to it that were given up.",
        ("endpoint",),
    ),
    Defined(
        "reelhook_endpoint_oldest_due_delivery_age_seconds",
        GAUGE,
        "As for all of them, of this endpoint; 0 while it is not enabled.",
        ("endpoint",),
    ),
    Defined(
        "reelhook_endpoint_success_ratio",
        GAUGE,
        "The share of its attempts of 24 hours that succeeded; none without attempts.",
        ("endpoint",),
    ),
    Defined(
        "reelhook_endpoint_p95_seconds",
        GAUGE,
        "95 of 100 of these attempts took no longer, to a fifth; none without attempts.",
        ("endpoint",),
    ),
)

_LOW: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
_SECONDS: Final = (*_LOW, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_JOBS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SETTLED: Final = (DeliveryState.SUCCEEDED, DeliveryState.DEAD)
_REFUSED: Final = frozenset({Failure.BLOCKED_ADDRESS, Failure.SIGNING})
_ANSWERED: Final = frozenset({None, Failure.STATUS, Failure.REDIRECT})
# Each is there from the start, so that its first increase is one.
_CLASSES: Final = (
    *(("2xx", ""), ("3xx", Failure.REDIRECT), ("4xx", Failure.STATUS), ("5xx", Failure.STATUS)),
    *(
        ("network", failure)
        for failure in Failure
        if failure not in _ANSWERED | _REFUSED | {Failure.LEASE_LAPSED}
    ),
    *(("refused", failure) for failure in sorted(_REFUSED)),
)


class _Histogram:
    """How many values stay within each of some bounds, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def note(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> _Histogram:
        copied = _Histogram(self.bounds)
        copied.counts, copied.total = [*self.counts], self.total
        return copied

    def buckets(self) -> list[tuple[str, float]]:
        names = [*(f"{float(bound):g}" for bound in self.bounds), "+Inf"]
        return [*zip(names, accumulate(self.counts), strict=True)]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is not counted but asked. Of a store that can't be read nothing is known.

    `reports` are of some endpoints, so that a thousand of them make no thousand series.
    """

    version: str
    worker_alive: bool | None
    overview: Overview | None = None
    condition: StoreCondition | None = None
    reports: Sequence[EndpointReport] = ()


Labels = tuple[str, ...]
Samples = Mapping[str, Mapping[Labels, "float | _Histogram"]]


@dataclass(slots=True)
class Metrics:
    """What one process counts, from its start. Only the event loop's thread may count."""

    answers: Counter[str] = field(default_factory=Counter)  # at the door, by outcome
    _refused: Counter[str] = field(default_factory=Counter)
    _commits: Counter[str] = field(default_factory=Counter)
    _attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _settled: Counter[str] = field(default_factory=Counter)
    _ingest: _Histogram = field(default_factory=lambda: _Histogram(_SECONDS))
    _jobs: _Histogram = field(default_factory=lambda: _Histogram(_JOBS))
    _commit: _Histogram = field(default_factory=lambda: _Histogram(_SECONDS))
    _attempt: _Histogram = field(default_factory=lambda: _Histogram(_SECONDS))

    def answered(self, outcome: str, seconds: float) -> None:
        """A request at the door for callbacks ended."""
        self.answers[outcome] += 1
        self._ingest.note(seconds)

    def refused(self, counts: Mapping[str, int]) -> None:
        """So many connections were refused, by code."""
        self._refused.update(counts)

    def committed(self, jobs: int, seconds: float, is_kept: bool) -> None:
        """A transaction ended."""
        self._commits["committed" if is_kept else "failed"] += 1
        self._jobs.note(jobs)
        self._commit.note(seconds)

    def attempted(self, outcome: Outcome, state: DeliveryState) -> None:
        """An attempt ended and was kept; `state` is that of its delivery then."""
        self._attempts[class_of(outcome)] += 1
        if state in _SETTLED:
            self._settled[state] += 1
        self._attempt.note(outcome.duration_ms / 1_000)

    def samples(self, seen: Seen) -> Samples:
        """Everything as it is now, by the names that are defined above."""
        return {
            "reelhook_ingest_answers": _by({**dict.fromkeys(CallbackOutcome, 0), **self.answers}),
            "reelhook_ingest_duration_seconds": {(): self._ingest.copy()},
            "reelhook_connections_refused": _by(self._refused),
            "reelhook_commits": _by({"committed": 0, "failed": 0, **self._commits}),
            "reelhook_commit_jobs": {(): self._jobs.copy()},
            "reelhook_commit_duration_seconds": {(): self._commit.copy()},
            "reelhook_attempts": _by_class(self._attempts),
            "reelhook_attempt_duration_seconds": {(): self._attempt.copy()},
            "reelhook_deliveries_settled": _by({**dict.fromkeys(_SETTLED, 0), **self._settled}),
            "reelhook_worker_alive": _known(seen.worker_alive),
            "reelhook_store_readable": {(): seen.condition is not None},
            **({} if seen.overview is None else _of_overview(seen.overview, len(seen.reports))),
            **({} if seen.condition is None else _of_store(seen.condition, seen.version)),
            **({} if seen.overview is None else _of_endpoints(seen.reports, seen.overview.at)),
        }


def class_of(outcome: Outcome) -> tuple[str, str]:
    """The class of an attempt, and its failure: of a 2xx none."""
    failure = outcome.failure
    if failure in _REFUSED:
        return "refused", failure
    if failure not in _ANSWERED or outcome.status is None:
        return "network", failure or ""
    return f"{outcome.status // 100}xx", failure or ""


def rendered(samples: Samples) -> bytes:
    """The samples, and what the system says of the process, in Prometheus's text format 0.0.4."""
    return generate_latest(_Exposed(samples))


class _Exposed(Collector):
    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        for defined in (*OF_THE_PROCESS, *OF_THE_STORE):
            yield _family(defined, self._samples.get(defined.name, {}))
        yield from ProcessCollector(registry=None).collect()


def _family(defined: Defined, found: Mapping[Labels, float | _Histogram]) -> Metric:
    if defined.kind == HISTOGRAM:
        histogram = HistogramMetricFamily(defined.name, defined.meaning, labels=defined.labels)
        for labels, value in found.items():
            if isinstance(value, _Histogram):
                histogram.add_metric(labels, value.buckets(), value.total)
        return histogram
    kind = CounterMetricFamily if defined.kind == COUNTER else GaugeMetricFamily
    family = kind(defined.name, defined.meaning, labels=defined.labels)
    for labels, value in found.items():
        if not isinstance(value, _Histogram):
            family.add_metric(labels, value)
    return family


def _by(counts: Mapping[str, int]) -> Mapping[Labels, float]:
    return {(str(label),): count for label, count in counts.items()}


def _by_class(counts: Mapping[tuple[str, str], int]) -> Mapping[Labels, float]:
    return {labels: counts.get(labels, 0) for labels in (*_CLASSES, *counts)}


def _of_store(store: StoreCondition, version: str) -> Samples:
    about = (version, store.engine, store.version, str(store.schema_version))
    return {
        "reelhook_info": {about: 1},
        "reelhook_store_refusing": {(): store.refusal is not None},
        "reelhook_database_size_bytes": {(): store.size},
        "reelhook_wal_size_bytes": _known(store.log_size),
        "reelhook_disk_free_bytes": _known(store.free),
    }


def _known(size: int | None) -> Mapping[Labels, float]:
    # A database server keeps some to itself.
    return {} if size is None else {(): size}


def _of_overview(found: Overview, listed: int) -> Samples:
    queue, attention, ends = found.queue, found.attention, found.endpoints
    states = {state.value: getattr(ends, state.value) for state in State}
    last = found.last_callback_at
    return {
        "reelhook_tasks_open": {(): found.tasks.open.count},
        "reelhook_tasks_overdue": {(): found.tasks.overdue.count},
        "reelhook_last_callback_age_seconds": {(): inf if last is None else _age(last, found.at)},
        "reelhook_queue_deliveries": {(): queue.waiting.count},
        "reelhook_queue_held_deliveries": {(): queue.held},
        "reelhook_oldest_due_delivery_age_seconds": {(): _age(queue.oldest_due_at, found.at)},
        "reelhook_dead_deliveries": {(): attention.dead.count},
        "reelhook_quarantined_callbacks": {(): attention.quarantined.count},
        "reelhook_conflicting_callbacks": {(): attention.conflict.count},
        "reelhook_endpoints": _by(states),
        "reelhook_endpoints_failing": {(): ends.failing},
        "reelhook_endpoints_unlisted": {(): max(sum(states.values()) - listed, 0)},
    }


def _of_endpoints(reports: Sequence[EndpointReport], now: datetime) -> Samples:
    found: dict[str, dict[Labels, float | _Histogram]] = {}
    for report in reports:
        for name, value in _of_endpoint(report, now).items():
            if value is not None:
                found.setdefault(f"reelhook_endpoint_{name}", {})[(report.id,)] = value
    return found


def _of_endpoint(report: EndpointReport, now: datetime) -> Mapping[str, float | None]:
    is_closed = report.health.breaker is Breaker.CLOSED
    return {
        "healthy": report.state is State.ENABLED and is_closed,
        "consecutive_failures": report.health.consecutive_failures,
        "queue_deliveries": report.waiting.count,
        "dead_deliveries": report.dead.count,
        "oldest_due_delivery_age_seconds": _age(report.oldest_due_at, now),
        "success_ratio": report.success_rate,
        "p95_seconds": None if report.p95_ms is None else report.p95_ms / 1_000,
    }


def _age(since: datetime | None, now: datetime) -> float:
    return 0 if since is None else max((now - since).total_seconds(), 0)

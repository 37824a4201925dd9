"""Floor 2, edges: what a store is asked to do with tasks, and with the callbacks of them.

A part of `receiver.store.protocol`, where flows find it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from receiver.callbacks import Arrival
from receiver.tasks import SubmitState, TaskSpec


@dataclass(frozen=True, slots=True)
class Registration:
    """A PUT of a task. Times in milliseconds; None: not named, so the defaults hold."""

    id: str
    spec: TaskSpec
    project: str
    now: int
    deadline_at: int | None
    give_up_at: int | None


@dataclass(frozen=True, slots=True)
class TaskChange:
    """A change of one task by hand or by its submitter."""

    id: str
    now: int
    submit_state: SubmitState | None = None
    platform_id: str | None = None
    was: SubmitState | None = None
    lease: bool | None = None


@dataclass(frozen=True, slots=True)
class TasksAsked:
    """A claim of tasks that were due at `due_by`. `project` None: of all. In milliseconds."""

    now: int
    due_by: int
    lease_until: int
    limit: int
    platforms: Sequence[str]
    project: str | None = None


@dataclass(frozen=True, slots=True)
class TasksReleased:
    """Tasks of one claim that are handed back; `polled`: their backoff goes on. In milliseconds."""

    ids: Sequence[str]
    now: int
    lease_until: int
    polled: bool
    project: str | None = None


@dataclass(frozen=True, slots=True)
class Reprocessing:
    """A kept callback's bytes as they are read now; `now` in milliseconds."""

    callback: int
    arrivals: Sequence[Arrival]
    now: int
    dry_run: bool = False

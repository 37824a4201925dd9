"""Floor 2, edges: what the flows know of a platform, whichever it is. No I/O.

Each platform is one file beside this one and a line in the catalogue; the suite
tests/submitter/platform_suite.py holds all of them to what is said here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from submitter.errors import AmbiguousSubmit, PlatformUnavailable
from submitter.platforms.snapshots import Snapshot
from submitter.tasks import GenerationTask

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A task to ask after: our id of it, and the platform's own where it has another."""

    id: str
    platform_id: str | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A task on its way out, with the URL that its results come to."""

    task: GenerationTask
    webhook_url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The platform has it; `platform_id` is its own name for the task, if it gives one."""

    platform_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A definite no, with the platform's own body about this task.

    `request_id` is the platform's name for the request, for whoever asks its support.
    """

    code: str
    message: str
    http_status: int
    parameter: str | None
    body: Json
    request_id: str | None = None


# A failure is a value here: in one array some tasks are accepted and others are not.
# PlatformUnavailable: certainly not accepted. AmbiguousSubmit: nobody can tell.
Outcome = Accepted | Rejection | PlatformUnavailable | AmbiguousSubmit


@runtime_checkable
class Platform(Protocol):
    """One account at a platform. Neither its repr nor any error shows the key."""

    @property
    def name(self) -> str:
        """The platform's name, as tasks and URLs have it."""
        ...

    @property
    def calls_back(self) -> bool:
        """Whether it posts results to the webhookURL; otherwise they come by polls alone."""
        ...

    @property
    def asks_by_task(self) -> bool:
        """Whether it can say that it does not know a task of ours, so that it may be sent again."""
        ...

    @property
    def archives(self) -> bool:
        """Whether what `fetch` does not find any more may still be in an archive."""
        ...

    @property
    def at_once(self) -> int:
        """How many tasks one call of `submit` takes at most."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether this is a simulator on this machine, which neither bills nor needs https."""
        ...

    def request_of(self, task: GenerationTask) -> Json:
        """A task as the platform wants it, but for its webhookURL; the ledger keeps this."""
        ...

    def parameters_of(self, request: Mapping[str, Any]) -> Json:
        """The parameters of a task whose request this is: what `request_of` did, undone."""
        ...

    async def submit(self, tasks: Sequence[Outgoing]) -> Mapping[str, Outcome]:
        """Send tasks; what became of each, by its id. What may have arrived is not sent again."""
        ...

    async def fetch(self, of: TaskRef) -> Snapshot:
        """What the platform says of a task now.

        Raises KeyRefused, and PlatformUnavailable for whatever else says nothing of the task.
        """
        ...

    async def fetch_archived(self, of: TaskRef) -> Snapshot:
        """The same from its archive, if it `archives`. Raises as `fetch` does."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...

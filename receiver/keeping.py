"""Floor 0, nouns: how long things are kept, and what a prune took away. Stdlib and pydantic.

docs/retention.md says the same in prose. What is older than its bound goes, except what is still
at work: stores decide that row by row, `receiver.retention` decides when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict

from receiver.clock import DAY, HOUR

TOKENS: Final = HOUR  # and a day, or past the give-up, is the longest that a task's token lives


@dataclass(frozen=True, slots=True)
class Bounds:
    """Milliseconds: what is older goes. 0: nothing of that kind does."""

    bodies: int = 0
    attempts: int = 0
    events: int = 0
    tasks: int = 0


@dataclass(frozen=True, slots=True)
class Keep:
    """Days that things are kept, 0 for ever: the bodies of callbacks and the attempts; the events
    with their deliveries; the tasks with their results and callbacks (design §8)."""

    raw: int = 30
    events: int = 90
    tasks: int = 365

    def bounds(self, now: int) -> Bounds:
        """What is too old now. An attempt never outlives its delivery, nor a token its task."""
        raw, events = _before(now, self.raw), _before(now, self.events)
        tasks = _before(now - TOKENS, self.tasks)
        return Bounds(bodies=raw, attempts=max(raw, events), events=events, tasks=tasks)


def _before(now: int, days: int) -> int:
    return max(now - days * DAY, 0) if days else 0


class PruneAsked(BaseModel):
    """`POST /v1/prune`: count what is too old, or drop it. `cursor` continues."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = True
    cursor: str | None = None


class Pruned(BaseModel):
    """What went, or would go; `freed_bytes` were given back to the file system."""

    dry_run: bool
    bodies: int = 0
    attempts: int = 0
    deliveries: int = 0
    events: int = 0
    results: int = 0
    callbacks: int = 0
    tasks: int = 0
    audit: int = 0
    freed_bytes: int = 0
    next_cursor: str | None = None

"""Floor 0, nouns: sending again what was told before. Stdlib and pydantic."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ReplayAsked(BaseModel):
    """`POST /v1/events/{id}/replay`: to all that want the event today, or to one of them."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str | None = None


class Replayed(BaseModel):
    """What a replay came to. `waiting` were on their way already, and are left alone."""

    event_id: str
    created: int
    retried: int
    waiting: int
    deliveries: list[str]

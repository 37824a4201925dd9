"""The simulator's settings: what it can be told to do. Pure data; touches pydantic alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class Knobs(BaseModel):
    """How future tasks are treated, and polls; the command's help says what each knob does.

    Names that end in `_s` are seconds, `failures`, `duplicates` and `drop` are probabilities a
    result. A value out of range, or a name that is no knob, is a `pydantic.ValidationError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    envelope: Literal["wrapped", "flat", "mixed"] = "wrapped"
    error_envelope: Literal["errors", "error", "flat", "item"] = "errors"
    include_nsfw: bool = False
    big_seeds: bool = False
    extra_fields: bool = False

    delay_s: Seconds = 0.5
    spread_s: Seconds = 0.25
    order: Literal["shuffled", "in_order"] = "shuffled"
    late_s: Seconds = 0.0
    callback_before_ack: bool = False

    failures: Probability = 0.0
    failure_code: Annotated[str, Field(min_length=1, max_length=64)] = "timeoutProvider"
    duplicates: Probability = 0.0
    duplicate_count: Annotated[int, Field(ge=1, le=16)] = 1
    duplicate_kind: Literal["exact", "reordered", "conflict"] = "exact"
    drop: Probability = 0.0

    # An assumption: Runware publishes that it retries, not how often. Eight tries span 24 s.
    max_attempts: Annotated[int, Field(ge=1, le=64)] = 8
    ack_timeout_s: Annotated[float, Field(gt=0, le=600)] = 5.0

    submit_status: Literal[400, 401, 402, 403, 429, 500, 503, 504] | None = None
    submit_code: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    submit_refusals: Annotated[int, Field(ge=1)] | None = None
    submit_hang_s: Seconds = 0.0

    # The first so many polls, those for the archive included; None is all of them.
    poll_faults: Annotated[int, Field(ge=1)] | None = None
    poll_status: Literal[400, 401, 403, 429, 500, 502, 503, 504] | None = None
    poll_retry_after: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    poll_hang_s: Seconds = 0.0
    archive_after_s: Seconds | None = None

    media_ttl_s: Seconds | None = None

    def changed(self, patch: dict[str, Any]) -> Knobs:
        """These knobs with those of `patch` turned; raises `pydantic.ValidationError`."""
        return Knobs.model_validate({**self.model_dump(), **patch})


class SimulatorConfig(BaseModel):
    """What the simulator starts with.

    Without `api_key` any key passes that isn't empty. Without `public_url` the media URLs carry
    the host that the task was submitted to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    knobs: Knobs = Knobs()
    api_key: Annotated[str, Field(min_length=1)] | None = Field(default=None, repr=False)
    public_url: str | None = None

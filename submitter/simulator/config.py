"""The simulator's settings: what it can be told to do. Pure data; touches pydantic alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Word = Annotated[str, Field(min_length=1, max_length=64)]
DELAYS = r"^\d{1,5}(\.\d{1,3})?(,\d{1,5}(\.\d{1,3})?){0,3}$"
Status = Literal[400, 401, 402, 403, 404, 408, 409, 413, 429, 500, 502, 503, 504]


class Knobs(BaseModel):
    """How future tasks are treated, and polls; `options.OPTIONS` says what each knob does.

    Names that end in `_s` are seconds; probabilities are those of one result. A value out of
    range, or a name that is no knob, is a `pydantic.ValidationError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    envelope: Literal["wrapped", "flat", "mixed"] = "wrapped"
    error_envelope: Literal["errors", "error", "flat", "item", "mixed"] = "errors"
    include_nsfw: bool = False
    big_seeds: bool = False
    extra_fields: bool = False

    delay_s: Seconds = 0.5
    spread_s: Seconds = 0.25
    delays: Annotated[str, Field(pattern=DELAYS)] | None = None
    order: Literal["shuffled", "in_order"] = "shuffled"
    late_s: Seconds = 0.0
    callback_before_ack: bool = False
    progress_callbacks: Annotated[int, Field(ge=0, le=8)] = 0

    failures: Probability = 0.0
    fail_index: Annotated[int, Field(ge=0, le=3)] | None = None
    failure_code: Word = "timeoutProvider"
    duplicates: Probability = 0.0
    duplicate_count: Annotated[int, Field(ge=1, le=16)] = 1
    duplicate_kind: Literal["exact", "reordered", "conflict"] = "exact"
    duplicate_after_s: Seconds = 0.0
    drop: Probability = 0.0
    max_attempts: Annotated[int, Field(ge=1, le=64)] = 8
    ack_timeout_s: Annotated[float, Field(gt=0, le=600)] = 5.0
    media_ttl_s: Seconds | None = None
    media_gone: Literal[404, 410] = 410
    upload: Literal["before", "after", "never"] = "before"

    submit_status: Status | None = None
    submit_code: Word | None = None
    submit_refusals: Annotated[int, Field(ge=1)] | None = None
    submit_retry_after: Word | None = None
    submit_hang_s: Seconds = 0.0
    task_refusals: Probability = 0.0

    pixverse_rules: Literal["lenient", "literal", "off"] = "lenient"
    pixverse_fast: Literal["reject", "revert"] = "reject"
    pixverse_1080p_8s: Literal["accept", "reject"] = "accept"

    # The first so many polls, those for the archive included; None is all of them.
    poll_faults: Annotated[int, Field(ge=1)] | None = None
    poll_status: Status | None = None
    poll_retry_after: Word | None = None
    poll_hang_s: Seconds = 0.0
    archive_after_s: Seconds | None = None

    nanogpt_shape: Literal["guide", "unified", "mixed"] = "guide"
    nanogpt_words: Literal["coarse", "granular", "unknown"] = "coarse"
    nanogpt_errors: Literal["openai", "simple", "refund", "mixed"] = "openai"
    nanogpt_402: Literal["balance", "x402"] = "balance"
    nanogpt_failure: Literal["nsfw", "friendly", "plain"] = "nsfw"
    nanogpt_cancels: Probability = 0.0
    nanogpt_canceled: Literal["by_shape", "one_l", "two_l"] = "by_shape"
    nanogpt_settles: Annotated[float, Field(ge=0, le=100)] = 1.0
    nanogpt_balance: Annotated[float, Field(ge=0, le=1_000_000)] = 1000.0

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

"""Floor 0, nouns: an endpoint (a registered downstream callback) and which events it wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from receiver.errors import Invalid

FIELDS: Final = frozenset({"platform", "model", "status"})
PREFIXES: Final = ("tags.", "metadata.")
# The sender writes these itself; letting a user set them would break signing or framing.
FORBIDDEN_HEADERS: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "user-agent"}
)


class State(StrEnum):
    """Whether deliveries go out; a paused or disabled endpoint's queue is held."""

    ENABLED = "enabled"
    PAUSED = "paused"
    DISABLED = "disabled"


Filter = str | list[str]


class EndpointSpec(BaseModel):
    """What a user sets. `rate_limit` per second, `schedule` in seconds, `url` https."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(repr=False)
    event_types: list[str] = Field(default=["*"], min_length=1, max_length=50)
    filters: dict[str, Filter] = Field(default_factory=dict)
    description: str = Field(default="", max_length=500)
    headers: dict[str, str] = Field(default_factory=dict, max_length=20, repr=False)
    rate_limit: float | None = Field(default=None, gt=0, le=10_000)
    concurrency: int = Field(default=10, ge=1, le=1_000)
    schedule: (
        Annotated[
            list[Annotated[int, Field(ge=0, le=7 * 86_400)]], Field(min_length=1, max_length=50)
        ]
        | None
    ) = None


class EndpointPatch(BaseModel):
    """A change: what is not named stays as it is."""

    model_config = ConfigDict(extra="forbid")

    url: str | None = Field(default=None, repr=False)
    event_types: list[str] | None = None
    filters: dict[str, Filter] | None = None
    description: str | None = None
    headers: dict[str, str] | None = Field(default=None, repr=False)
    rate_limit: float | None = None
    concurrency: int | None = None
    schedule: list[int] | None = None


class Endpoint(EndpointSpec):
    """An endpoint as the API shows it; `secret` in the answers of create and rotate alone."""

    id: str
    project: str
    state: State
    reason: str | None
    created_at: datetime
    secret: str | None = Field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Subscription:
    """The part of an endpoint that fan-out needs."""

    endpoint: int
    project: str
    event_types: tuple[str, ...]
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    active: bool = True

    def wants(self, event_type: str, facts: Mapping[str, Any]) -> bool:
        """Whether an event of this type with these facts goes to the endpoint."""
        if not _wants_type(self.event_types, event_type):
            return False
        return all(_holds(name, wanted, facts) for name, wanted in self.filters.items())


@lru_cache(maxsize=1_024)
def _wants_type(patterns: tuple[str, ...], event_type: str) -> bool:
    return any(matches(pattern, event_type) for pattern in patterns)


def matches(pattern: str, text: str) -> bool:
    """Exact, or with `*` at one or both ends as a wildcard."""
    if "*" not in pattern:
        return pattern == text
    core = pattern.strip("*")
    starts, ends = pattern.startswith("*"), pattern.endswith("*")
    if starts and ends:
        return core in text
    return text.endswith(core) if starts else text.startswith(core)


def _holds(name: str, wanted: Sequence[str], facts: Mapping[str, Any]) -> bool:
    group, _, key = name.partition(".")
    value = facts.get(group)
    if key:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None:
        return False
    text = _text(value)
    return any(matches(pattern, text) for pattern in wanted)


def _text(value: object) -> str:
    # As JSON writes it, so that `metadata.paid=true` means the boolean.
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def check(spec: EndpointSpec) -> None:
    """Raises Invalid for patterns, filters or headers that could never work."""
    for pattern in spec.event_types:
        _check_pattern("event_types", pattern)
    for name, wanted in spec.filters.items():
        if name not in FIELDS and not name.startswith(PREFIXES):
            raise Invalid(
                f"There is no filter {name!r}; use platform, model, status, tags.NAME or"
                " metadata.NAME.",
                parameter=f"filters.{name}",
            )
        if not wanted:
            raise Invalid(f"The filter {name!r} has no value.", parameter=f"filters.{name}")
        for pattern in as_patterns(wanted):
            _check_pattern(f"filters.{name}", pattern)
    for header, value in spec.headers.items():
        _check_header(header, value)


def as_patterns(wanted: Filter) -> tuple[str, ...]:
    """A filter's value as patterns."""
    return (wanted,) if isinstance(wanted, str) else tuple(wanted)


def _check_pattern(parameter: str, pattern: str) -> None:
    if not pattern or "*" in pattern.strip("*") or "**" in pattern:
        raise Invalid(
            f"{pattern!r} is no pattern: write a value, with `*` at an end as a wildcard.",
            parameter=parameter,
        )


def _check_header(name: str, value: str) -> None:
    lowered = name.lower()
    if lowered in FORBIDDEN_HEADERS or lowered.startswith("webhook-"):
        raise Invalid(f"The header {name!r} is set by Reelhook.", parameter=f"headers.{name}")
    token = all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in name)
    if not name or not token or len(value) > 4_096:
        raise Invalid(f"{name!r} can't be a header (RFC 9110 §5.6.2).", parameter="headers")
    if not value.isascii() or not all(c == "\t" or c.isprintable() for c in value):
        raise Invalid(
            f"The value of header {name!r} must be printable ASCII on one line.",
            parameter=f"headers.{name}",
        )

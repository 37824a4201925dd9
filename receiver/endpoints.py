"""Floor 0, nouns: an endpoint (a registered downstream callback) and which events it wants."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from receiver import tracing
from receiver.errors import Invalid
from receiver.events import ENDPOINT_TEST, OPERATIONAL, TYPES, Event
from receiver.platforms import PARSERS
from receiver.platforms.reading import dumps
from receiver.tasks import Status

FIELDS: Final = frozenset({"platform", "model", "status"})
PREFIXES: Final = ("tags.", "metadata.")
# What a filter or event type can match at all, where that is known.
KNOWN: Final[Mapping[str, Sequence[str]]] = {
    "event_types": TYPES,
    "filters.platform": sorted(PARSERS),
    "filters.status": [*Status],
}
# The sender writes these itself; letting a user set them would break signing or framing.
OURS: Final = tracing.HEADERS | {"host", "user-agent", "accept-encoding", "expect", "date"}
SIGNED_HEADERS: Final = "webhook-"
# Of one connection (RFC 9110 §7.6.1), or about a body, which is always our JSON.
HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
OF_THE_BODY: Final = ("content-",)
OF_A_PROXY: Final = ("proxy-",)

CONCURRENCY: Final = 10  # attempts at once that an endpoint gets unless it asks otherwise
DAY_S: Final = 86_400


class State(StrEnum):
    """Whether deliveries go out; a paused or disabled endpoint's queue is held."""

    ENABLED = "enabled"
    PAUSED = "paused"
    DISABLED = "disabled"


class Breaker(StrEnum):
    """Whether an endpoint is sent to at all; how it moves, `receiver.delivery.health` says."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


Filter = str | list[str]


class Signature(StrEnum):
    """A scheme of Standard Webhooks: HMAC-SHA256, which every library has, and Ed25519."""

    V1 = "v1"
    V1A = "v1a"


def _with_v1(signatures: list[Signature]) -> list[Signature]:
    if Signature.V1 not in signatures:
        raise ValueError("v1 is always sent: libraries verify nothing else")
    return sorted(set(signatures))


Signatures = Annotated[list[Signature], AfterValidator(_with_v1)]


class EndpointSpec(BaseModel):
    """What a user sets. `rate_limit` per second, `schedule` in seconds, `url` https."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(repr=False)
    event_types: list[str] = Field(default=["*"], min_length=1, max_length=50)
    filters: dict[str, Filter] = Field(default_factory=dict)
    description: str = Field(default="", max_length=500)
    headers: dict[str, str] = Field(default_factory=dict, max_length=20, repr=False)
    rate_limit: float | None = Field(default=None, gt=0, le=10_000)
    concurrency: int = Field(default=CONCURRENCY, ge=1, le=1_000)
    schedule: (
        Annotated[
            list[Annotated[int, Field(ge=0, le=7 * 86_400)]], Field(min_length=1, max_length=50)
        ]
        | None
    ) = None
    signatures: Signatures = Field(default=[Signature.V1])
    ordered: bool = False  # a task's events one after the other


class EndpointAsked(EndpointSpec):
    """An endpoint to register; `secret`: one of the user's own, `whsec_` and 24 to 64 bytes."""

    secret: str | None = Field(default=None, max_length=200, repr=False)


class EndpointPatch(BaseModel):
    """A change: what is not named stays as it is, null means the default."""

    model_config = ConfigDict(extra="forbid")

    url: str | None = Field(default=None, repr=False)
    event_types: list[str] | None = None
    filters: dict[str, Filter] | None = None
    description: str | None = None
    headers: dict[str, str] | None = Field(default=None, repr=False)
    rate_limit: float | None = None
    concurrency: int | None = None
    schedule: list[int] | None = None
    signatures: list[Signature] | None = None
    ordered: bool | None = None

    def of(self, current: EndpointSpec) -> EndpointSpec:
        """What the endpoint is after this change. Raises pydantic's ValidationError."""
        kept = current.model_dump(include=set(EndpointSpec.model_fields))
        named = {name for name in self.model_fields_set if getattr(self, name) is not None}
        cleared = self.model_fields_set - named - {"url"}  # there is no default for that
        changed = self.model_dump(include=self.model_fields_set - cleared)
        return EndpointSpec.model_validate(
            {name: value for name, value in (kept | changed).items() if name not in cleared}
        )


class RotateAsked(BaseModel):
    """A new secret, ours or the user's. The one before signs along for `overlap_s` seconds."""

    model_config = ConfigDict(extra="forbid")

    secret: str | None = Field(default=None, max_length=200, repr=False)
    overlap_s: int = Field(default=DAY_S, ge=0, le=7 * DAY_S)


class PreviewAsked(BaseModel):
    """Which of the `last` events an endpoint would have got."""

    model_config = ConfigDict(extra="forbid")

    event_types: list[str] = Field(default=["*"], min_length=1, max_length=50)
    filters: dict[str, Filter] = Field(default_factory=dict)
    last: int = Field(default=100, ge=1, le=1_000)


class Preview(BaseModel):
    """What a subscription would have matched: so many of so many, the newest first."""

    examined: int
    matched: int
    data: list[Event]


class EndpointHealth(BaseModel):
    """How an endpoint fares. `concurrency`: attempts at once, while it gets less than was set."""

    breaker: Breaker
    consecutive_failures: int
    failing_since: datetime | None
    concurrency: int | None
    held_until: datetime | None  # nothing is sent before
    last_success_at: datetime | None
    last_failure_at: datetime | None


class Endpoint(EndpointSpec):
    """An endpoint as the API shows it; `secret` in the answers of create and rotate alone."""

    model_config = ConfigDict(extra="ignore")  # a later receiver may show more

    id: str
    project: str
    state: State
    reason: str | None
    created_at: datetime
    public_key: str | None  # Ed25519; made when v1a is first asked for
    overlap_until: datetime | None  # earlier secrets sign along until then
    health: EndpointHealth
    revision: int = 0  # one more with each change of it, not of its health; its ETag
    secret: str | None = Field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Subscription:
    """The part of an endpoint that fan-out needs."""

    endpoint: int
    project: str
    event_types: tuple[str, ...]
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    active: bool = True
    ordered: bool = False

    def wants(self, event_type: str, facts: Mapping[str, Any]) -> bool:
        """Whether an event of this type with these facts goes to the endpoint."""
        if not _wants_type(self.event_types, event_type):
            return False
        return all(_holds(name, wanted, facts) for name, wanted in self.filters.items())


def subscription_of(asked: PreviewAsked, project: str) -> Subscription:
    """The subscription of an endpoint that is not there yet."""
    filters = {name: as_patterns(wanted) for name, wanted in asked.filters.items()}
    return Subscription(0, project, tuple(asked.event_types), filters)


def facts_in(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """What filters may look at, out of an event's payload; nothing where it is about no task."""
    facts: Mapping[str, Any] = payload["data"].get("task", {})
    return facts


@lru_cache(maxsize=1_024)
def _wants_type(patterns: tuple[str, ...], event_type: str) -> bool:
    return any(reaches(pattern, event_type) for pattern in patterns)


def reaches(pattern: str, event_type: str) -> bool:
    """Whether a pattern of `event_types` lets a type through.

    What the receiver tells of itself is for those who named it: `*` means results and tasks.
    """
    if event_type in OPERATIONAL and (pattern.startswith("*") or event_type == ENDPOINT_TEST):
        return False
    return matches(pattern, event_type)


def matches(pattern: str, text: str) -> bool:
    """Exact, or with `*` at one or both ends as a wildcard."""
    if "*" not in pattern:
        return pattern == text
    core = pattern.strip("*")
    starts, ends = pattern.startswith("*"), pattern.endswith("*")
    if starts and ends:
        return core in text
    return text.endswith(core) if starts else text.startswith(core)


def types_like(text: str) -> list[str]:
    """The types that one of a list's patterns, divided by commas, matches; operational ones too."""
    patterns = text.split(",")
    return [found for found in TYPES if any(matches(pattern, found) for pattern in patterns)]


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
    return value if isinstance(value, str) else dumps(value)


def check(spec: EndpointSpec | PreviewAsked) -> None:
    """Raises Invalid for patterns, filters or headers that could never work."""
    for pattern in spec.event_types:
        _check_pattern("event_types", pattern)
    for name, wanted in spec.filters.items():
        _check_filter(name, as_patterns(wanted))
    if isinstance(spec, EndpointSpec):
        check_headers(spec.headers)


def _check_filter(name: str, patterns: Sequence[str]) -> None:
    prefix, dot, key = name.partition(".")
    if name not in FIELDS and not (key and prefix + dot in PREFIXES):
        raise Invalid(
            f"There is no filter {name!r}; use platform, model, status, tags.NAME or"
            " metadata.NAME.",
            parameter=f"filters.{name}",
        )
    if not patterns:
        raise Invalid(f"The filter {name!r} has no value.", parameter=f"filters.{name}")
    for pattern in patterns:
        _check_pattern(f"filters.{name}", pattern)


def as_patterns(wanted: Filter) -> tuple[str, ...]:
    """A filter's value as patterns."""
    return (wanted,) if isinstance(wanted, str) else tuple(wanted)


def _check_pattern(parameter: str, pattern: str) -> None:
    if not pattern or "*" in pattern.strip("*") or "**" in pattern:
        raise Invalid(
            f"{pattern!r} is no pattern: write a value, with `*` at an end as a wildcard.",
            parameter=parameter,
        )
    known, fits = KNOWN.get(parameter), reaches if parameter == "event_types" else matches
    if known is not None and not any(fits(pattern, text) for text in known):
        raise Invalid(
            f"{pattern!r} matches nothing there is: {', '.join(known)}.", parameter=parameter
        )


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises Invalid for headers that are ours to write, or that can't be written (RFC 9110)."""
    seen: set[str] = set()
    for name, value in headers.items():
        _check_name(name)
        if name.lower() in seen:
            raise Invalid(f"The header {name!r} is there twice.", parameter=f"headers.{name}")
        seen.add(name.lower())
        if not _VALUE.fullmatch(value):
            raise Invalid(
                f"The value of header {name!r} must be printable ASCII on one line.",
                parameter=f"headers.{name}",
            )


# RFC 9110 §5.6.2 and §5.5, without the bytes that no two programs agree on.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]{0,4096}")


def _check_name(name: str) -> None:
    lowered = name.lower()
    reserved = lowered in OURS | HOP_BY_HOP
    if reserved or lowered.startswith((SIGNED_HEADERS, *OF_THE_BODY, *OF_A_PROXY)):
        raise Invalid(f"The header {name!r} is set by Reelhook.", parameter=f"headers.{name}")
    if not _NAME.fullmatch(name):
        raise Invalid(f"{name[:60]!r} can't be a header (RFC 9110 §5.6.2).", parameter="headers")

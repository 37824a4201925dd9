"""Floor 0, nouns: a delivery (event × endpoint), its attempts, and its only state table.

Everything that changes a delivery's state is named in `MOVES`; the stores apply it, the page
docs/states.md draws it, and a test holds the two together. Stdlib and pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import BaseModel


class State(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    SENDING = "sending"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELED = "canceled"


class Move(StrEnum):
    """What may happen to a delivery."""

    CLAIM = "claim"  # a worker leases it and sends
    SUCCEED = "succeed"  # a 2xx was committed
    RESCHEDULE = "reschedule"  # the attempt failed, the schedule has a next one
    LAPSE = "lapse"  # the lease ran out: its worker died or stalled
    ARRIVE_LATE = "arrive late"  # the 2xx of an attempt whose lease had lapsed: not sent again
    EXHAUST = "exhaust"  # the attempt failed and was the last
    CANCEL = "cancel"  # by hand, or its endpoint was deleted
    RETRY = "retry"  # by hand


MOVES: Final[Mapping[tuple[State, Move], State]] = {
    (State.PENDING, Move.CLAIM): State.SENDING,
    (State.SENDING, Move.SUCCEED): State.SUCCEEDED,
    (State.SENDING, Move.RESCHEDULE): State.PENDING,
    (State.SENDING, Move.LAPSE): State.PENDING,
    (State.SENDING, Move.EXHAUST): State.DEAD,
    (State.PENDING, Move.ARRIVE_LATE): State.SUCCEEDED,
    (State.PENDING, Move.CANCEL): State.CANCELED,
    (State.SUCCEEDED, Move.RETRY): State.PENDING,
    (State.DEAD, Move.RETRY): State.PENDING,
    (State.CANCELED, Move.RETRY): State.PENDING,
}


class Failure(StrEnum):
    """Why an attempt did not succeed."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    REDIRECT = "redirect"
    PROTOCOL = "protocol"
    STATUS = "status"
    BLOCKED_ADDRESS = "blocked_address"
    SIGNING = "signing"  # a secret that is stored can't sign, so nothing was sent
    LEASE_LAPSED = "lease_lapsed"  # nobody came back to say how it ended


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt saw. A remote failure is a value, not an exception."""

    status: int | None  # HTTP status, when one was received
    failure: Failure | None  # None: a 2xx in time
    detail: str  # one sentence for an operator; no secret, no query string
    duration_ms: int
    retry_after: str | None = None  # the header as received
    response_body: bytes = b""  # at most the sender's cap
    truncated: bool = False
    request_headers: Mapping[str, str] | None = None  # as sent, secrets redacted


class QueueCanceled(BaseModel):
    """How many waiting deliveries of an endpoint were canceled; `more`: ask again for the rest."""

    canceled: int
    more: bool


class Attempt(BaseModel):
    """One HTTP try, as the API shows it. `duration_ms` in milliseconds."""

    id: str
    number: int
    at: datetime
    duration_ms: int
    status: int | None
    error: str | None
    detail: str | None = None
    request_headers: dict[str, str]
    response_body: str
    response_truncated: bool = False


class Delivery(BaseModel):
    """One event for one endpoint, as the API shows it; `attempts` counts the tries."""

    id: str
    event_id: str
    event_type: str
    task_id: str | None
    endpoint_id: str
    endpoint_deleted: bool = False  # then it can't be sent again
    state: State
    attempts: int
    next_attempt_at: datetime | None
    first_succeeded_at: datetime | None
    created_at: datetime
    settled_at: datetime | None
    last_error: str | None = None
    last_status: int | None = None
    attempt_log: list[Attempt] | None = None


class DeadLetters(BaseModel):
    """The dead deliveries of one endpoint that died of one cause. `example`: the newest of them."""

    endpoint_id: str
    endpoint_deleted: bool  # then none of them can be retried
    project: str
    error: str | None
    status: int | None
    count: int
    oldest: datetime
    newest: datetime
    example: str

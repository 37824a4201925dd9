"""What deliveries owe, written down a second time: plainly, without the receiver's code.

From docs/states.md and docs/events.md. What happens is kept as lists and looked at anew; the
receiver's words appear as text only. Times are milliseconds.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
LEASE = 35 * SECOND
USUAL = (0, 5, 20)

THROTTLING = (429, 502, 504)
ABOUT_ALL = (429, 503)
ABOUT_ONE = (400, 409, 413, 422)
MANY = 10
SHORT = 5 * SECOND
FIRST_PAUSE = 5 * SECOND
LONGEST_PAUSE = 5 * MINUTE
TOO_LONG = 5 * DAY


@dataclass(frozen=True)
class Answer:
    """What the consumer did: a status, or a failure without one. `wait_ms`: its Retry-After."""

    status: int | None
    failure: str | None = None
    wait_ms: int = 0

    @property
    def good(self) -> bool:
        return self.status is not None and 200 <= self.status < 300 and not self.failure

    @property
    def error(self) -> str | None:
        return None if self.good else self.failure or "status"


@dataclass
class Event:
    """One message."""

    id: str
    type: str
    task: str | None
    body: bytes
    late: bool = False  # about what came after its task was complete
    about: str | None = None  # the endpoint that was disabled

    @property
    def operational(self) -> bool:
        return self.type.startswith(("endpoint.", "delivery."))


@dataclass
class Endpoint:
    """Who is told, and how that went lately."""

    name: str
    id: str
    types: tuple[str, ...]
    concurrency: int
    schedule: tuple[int, ...] | None
    secrets: list[tuple[str, int | None]]
    ordered: bool = False
    version: int = 0  # of its URL
    state: str = "enabled"
    reason: str | None = None
    deleted: bool = False

    failures: int = 0
    strikes: int = 0
    failing_since: int | None = None
    breaker: str = "closed"
    pause: int = 0
    held_until: int = 0  # nothing is sent before
    refused_at: int | None = None  # when the attempt began that was answered with a Retry-After
    width: int | None = None
    cut_at: int = 0

    @property
    def url(self) -> str:
        return f"https://example.com/{self.name}/{self.version}"

    @property
    def delays(self) -> tuple[int, ...]:
        return self.schedule or USUAL

    @property
    def at_once(self) -> int:
        if self.breaker != "closed":
            return 1
        return min(self.width or self.concurrency, self.concurrency)

    def wants(self, event: Event) -> bool:
        if self.deleted or event.type == "endpoint.test" or event.about == self.name:
            return False
        named = [one for one in self.types if not (event.operational and one.startswith("*"))]
        return any(fnmatchcase(event.type, one) for one in named)

    def live_secrets(self, now: int) -> list[str]:
        return [secret for secret, until in self.secrets if until is None or now < until]

    def rotate(self, secret: str, overlap: int, now: int) -> None:
        kept = [(old, until or now + overlap) for old, until in self.secrets] if overlap else []
        self.secrets = [(secret, None), *((old, until) for old, until in kept if now < until)]

    # How it fares

    def begins(self, lease_until: int) -> None:
        """Something was claimed for it."""
        if self.breaker != "closed":
            self.breaker, self.held_until = "half_open", lease_until

    def hears(self, answer: Answer, began: int, now: int, delays: Sequence[int]) -> bool:
        """An attempt at it ended. Whether that disabled it."""
        news = began >= self.cut_at
        if answer.good:
            self.failures = self.strikes = 0
            self.failing_since = None
            if self.refused_at is not None and began >= self.refused_at:
                self.held_until, self.refused_at = 0, None
            if self.breaker != "closed":
                self._is_there()
            elif self.width is not None and news:
                self._grow()
        else:
            self.failures += 1
            self.failing_since = now if self.failing_since is None else self.failing_since
            if answer.error == "status" and answer.status in ABOUT_ONE:
                self.strikes = 0
                if self.breaker != "closed":
                    self._is_there()
            else:
                self._strike(answer, news, now, delays)
        if answer.status in ABOUT_ALL and answer.wait_ms:
            self.held_until = max(self.held_until, now + min(answer.wait_ms, HOUR))
            self.refused_at = began
        reason = "gone" if answer.status == 410 else "failing"
        if self.state == "disabled" or (reason == "failing" and not self._fails_for(TOO_LONG, now)):
            return False
        self.state, self.reason = "disabled", reason
        return True

    def _is_there(self) -> None:
        self.breaker, self.pause, self.held_until = "closed", 0, 0
        self.width, self.refused_at = 1, None

    def _grow(self) -> None:
        assert self.width is not None
        self.width += 1
        if self.width >= self.concurrency:
            self.width, self.cut_at = None, 0

    def _strike(self, answer: Answer, news: bool, now: int, delays: Sequence[int]) -> None:
        self.strikes += 1
        if news and (answer.status in THROTTLING or answer.failure == "timeout"):
            width = min(self.width or self.concurrency, self.concurrency)
            self.width, self.cut_at = max(width // 2, 1), now
        longest = min(max(max(delays) * SECOND, SECOND), LONGEST_PAUSE)
        if self.breaker == "half_open":
            self.held_until = 0  # until the probe was settled
            self._pause(min(2 * self.pause, longest), now)
        elif self.breaker == "closed" and self.strikes >= MANY and self._fails_for(SHORT, now):
            self._pause(min(FIRST_PAUSE, longest), now)

    def _fails_for(self, ms: int, now: int) -> bool:
        return self.failing_since is not None and now - self.failing_since >= ms

    def _pause(self, pause: int, now: int) -> None:
        self.breaker, self.pause = "open", pause
        self.held_until = max(self.held_until, now + pause)

    def enable(self) -> None:
        """By hand."""
        self.state, self.reason = "enabled", None
        self.forget()

    def forget(self) -> None:
        """What was; the queue begins one by one if there was anything."""
        self.width = 1 if self.failures else None
        self.breaker = "closed"
        self.failures = self.strikes = self.pause = self.held_until = self.cut_at = 0
        self.failing_since = self.refused_at = None


@dataclass
class Delivery:
    """An event for an endpoint. `log`: number -> (when, status, error)."""

    event: Event
    endpoint: Endpoint
    next_at: int | None
    once: bool = False  # a test, until somebody retries it by hand
    lane: str | None = None  # the task whose order it keeps
    state: str = "pending"
    attempts: int = 0
    round: int = 0  # attempts before its schedule last began
    lease_until: int = 0
    last_error: str | None = None
    log: dict[int, tuple[int, int | None, str | None]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        return self.event.id, self.endpoint.name

    @property
    def has_come(self) -> bool:
        """Whether a 2xx was told since the schedule last began."""
        return any(n > self.round and error is None for n, (*_, error) in self.log.items())

    def succeed(self) -> None:
        self.state, self.next_at, self.last_error = "succeeded", None, None

    def fails_for_good(self, number: int, began: int, delays: Sequence[int]) -> bool:
        """Whether attempt `number`, of a round that began after `began`, is the last."""
        return self.once or number - began >= len(delays)


@dataclass
class Call:
    """A request that is under way."""

    delivery: Delivery
    number: int
    round: int
    began: int
    delays: tuple[int, ...]
    url: str


class Model:
    """The queue as it should be."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []
        self.events: list[Event] = []
        self.deliveries: list[Delivery] = []
        self.disabled: list[Endpoint] = []  # since somebody last looked
        self.exhausted: list[Delivery] = []

    @property
    def alive(self) -> list[Endpoint]:
        return [one for one in self.endpoints if not one.deleted]

    def of(self, event: str, endpoint: str) -> Delivery:
        return next(one for one in self.deliveries if one.key == (event, endpoint))

    # What comes in

    def tell(self, event: Event, now: int) -> None:
        """An event was recorded; a held queue takes it as any other."""
        self.events.append(event)
        for endpoint in self.endpoints:
            if endpoint.wants(event):
                lane = event.task if endpoint.ordered and not event.late else None
                before = lane and self._open(endpoint, lane)
                next_at = None if before else now
                self.deliveries.append(Delivery(event, endpoint, next_at, lane=lane))

    def _open(self, endpoint: Endpoint, lane: str | None) -> list[Delivery]:
        return [
            one
            for one in self.deliveries
            if one.endpoint is endpoint and one.lane == lane and one.state in ("pending", "sending")
        ]

    def let_next_go(self, now: int) -> None:
        """The first that is open of each task at each ordered endpoint may be tried."""
        for one in self.deliveries:
            waits = one.lane and one.state == "pending" and one.next_at is None
            if waits and self._open(one.endpoint, one.lane)[0] is one:
                one.next_at = now

    def test(self, event: Event, endpoint: Endpoint, now: int) -> None:
        self.events.append(event)
        self.deliveries.append(Delivery(event, endpoint, now, once=True))

    # What goes out

    def due(self, endpoint: Endpoint, now: int) -> list[Delivery]:
        """What may be sent to an endpoint, the longest due first."""
        if endpoint.state != "enabled" or endpoint.deleted:
            return []
        waiting = [
            one
            for one in self.deliveries
            if one.endpoint is endpoint and one.state == "pending" and one.next_at is not None
        ]
        due = [one for one in waiting if one.next_at is not None and one.next_at <= now]
        return sorted(due, key=lambda one: one.next_at or 0)

    def room(self, endpoint: Endpoint, now: int) -> int:
        """How many more requests it may get now."""
        if now < endpoint.held_until:
            return 0
        sending = [
            one for one in self.deliveries if one.endpoint is endpoint and one.state == "sending"
        ]
        return max(endpoint.at_once - len(sending), 0)

    def may_begin(self, endpoint: Endpoint, now: int) -> int:
        return min(self.room(endpoint, now), len(self.due(endpoint, now)))

    def begin(self, delivery: Delivery, now: int) -> Call:
        """An attempt was claimed and goes out."""
        assert delivery.state == "pending", "sent again without need"
        delivery.state, delivery.next_at = "sending", None
        delivery.attempts += 1
        delivery.lease_until = now + LEASE
        delivery.endpoint.begins(delivery.lease_until)
        one = delivery.endpoint
        return Call(delivery, delivery.attempts, delivery.round, now, one.delays, one.url)

    def end(self, call: Call, answer: Answer, now: int, next_at: int | None) -> None:
        """An attempt ended. `next_at`: when the store says that the next one is due."""
        one = call.delivery
        one.log[call.number] = (call.began, answer.status, answer.error)
        if one.state == "sending" and one.attempts == call.number:
            if one.has_come:
                one.succeed()
            else:
                self._fail(call, answer, now, next_at)
        elif one.state == "pending" and one.has_come:
            one.succeed()
        is_of_it = not one.endpoint.deleted and call.url == one.endpoint.url
        if is_of_it and one.endpoint.hears(answer, call.began, now, call.delays):
            self.disabled.append(one.endpoint)
        self.let_next_go(now)

    def _fail(self, call: Call, answer: Answer, now: int, next_at: int | None) -> None:
        one = call.delivery
        one.last_error = answer.error
        if one.fails_for_good(call.number, call.round, call.delays):
            one.state = "dead"
            if not one.event.operational and not one.endpoint.deleted:
                self.exhausted.append(one)
        elif one.endpoint.deleted:
            one.state = "canceled"
        else:
            delay = call.delays[call.number - call.round] * SECOND
            asked = min(answer.wait_ms, DAY)
            least, most = max(round(delay * 0.8), asked), max(round(delay * 1.2), asked)
            assert next_at is not None
            assert least <= next_at - now <= most, (least, next_at - now, most)
            one.state, one.next_at = "pending", next_at

    def lapse(self, now: int, everybody: bool = False) -> None:
        """Leases that ran out; after a crash every lease has."""
        for one in self.deliveries:
            if one.state == "sending" and (everybody or one.lease_until <= now):
                one.log[one.attempts] = (now, None, "lease_lapsed")
                one.state, one.next_at, one.last_error = "pending", now, "lease_lapsed"
                if one.has_come:
                    one.succeed()
                elif one.endpoint.deleted:
                    one.state, one.next_at = "canceled", None
        self.let_next_go(now)

    # By hand

    def retry(self, one: Delivery, now: int) -> bool:
        """Whether that is possible."""
        if one.endpoint.deleted or one.state not in ("succeeded", "dead", "canceled"):
            return False
        one.state, one.next_at, one.round, one.once = "pending", now, one.attempts, False
        one.lane = None
        return True

    def cancel(self, one: Delivery, now: int) -> bool:
        """Whether that is possible."""
        if one.state != "pending":
            return False
        one.state, one.next_at = "canceled", None
        self.let_next_go(now)
        return True

    def cancel_all(self, endpoint: Endpoint) -> int:
        """All that waits for an endpoint; how many."""
        waiting = [
            one for one in self.deliveries if one.endpoint is endpoint and one.state == "pending"
        ]
        for one in waiting:
            one.state, one.next_at = "canceled", None
        return len(waiting)

    def replay(self, event: Event, only: Endpoint | None, now: int) -> tuple[int, int, int] | None:
        """How many were made, begun again, left alone; None if that is not possible."""
        wanted = [one for one in self.endpoints if one.wants(event)]
        if event.type == "endpoint.test" or (only is not None and only not in wanted):
            return None
        wanted = wanted if only is None else [only]
        there = [one for one in self.deliveries if one.event is event and one.endpoint in wanted]
        new = [one for one in wanted if one not in [found.endpoint for found in there]]
        again = [one for one in there if self.retry(one, now)]
        self.deliveries += [Delivery(event, endpoint, now) for endpoint in new]
        return len(new), len(again), len(there) - len(again)

    def delete(self, endpoint: Endpoint) -> None:
        endpoint.deleted = True
        self.cancel_all(endpoint)


def signature(secret: str, event: str, timestamp: str, body: bytes) -> str:
    """By Standard Webhooks 1.0."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = hmac.new(key, f"{event}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(made).decode()

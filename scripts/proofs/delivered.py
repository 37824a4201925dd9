"""Whether every delivery went as it must, by the consumer's own ledger and by the receiver's file.

The file is read by stdlib sqlite3 and none of our SQL, signatures are made anew by stdlib hmac.
"""

from __future__ import annotations

import base64
import hmac
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final

from receiver import ids
from scripts.proofs.hostile import ASKING, ASKS_FOR, TAKEN, Visit, is_poisoned

LEAST: Final = 0.8  # of a delay: the jitter takes at most a fifth
CLOCK: Final = 0.01  # seconds that roundings of two clocks may differ by

# The kinds of problems.
LOST: Final = "lost"  # an event that the endpoint would have taken
CLAIMED: Final = "claimed"  # called a success that was none
EARLY: Final = "early"
AGAIN: Final = "again"  # sent once more after a committed 2xx, or twice in one attempt
DEATH: Final = "death"  # dead before it was exhausted, or alive after
FORGED: Final = "forged"  # another id, body or signature


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of the consumer, as it was registered. `schedule` in seconds, rising."""

    name: str
    number: int
    secret: str
    schedule: Sequence[int]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One row of the receiver's log. Times in milliseconds."""

    number: int
    at: int
    duration: int
    status: int | None
    error: str | None

    @property
    def succeeded(self) -> bool:
        """A 2xx, and nothing against it."""
        return self.error is None and self.status is not None and 200 <= self.status < 300


@dataclass(slots=True)
class Delivery:
    """One event for one endpoint: what the receiver keeps, and what came of it."""

    endpoint: Endpoint
    event: str
    poisoned: bool
    state: str
    count: int
    attempts: list[Attempt] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)

    @property
    def tries(self) -> list[Visit]:
        """The last copy of each attempt that reached the consumer."""
        return list({visit.timestamp: visit for visit in self.visits}.values())

    @property
    def late(self) -> int:
        """Attempts that the consumer took, and the receiver did not hear of it in time."""
        taken = sum(visit.fate in TAKEN for visit in self.tries)
        return taken - sum(attempt.succeeded for attempt in self.attempts)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with it, each with its kind."""
        yield from self._end()
        yield from self._log()
        yield from self._pace()
        yield from self._copies()

    def _end(self) -> Iterator[tuple[str, str]]:
        exhausted = self.count == len(self.endpoint.schedule)
        if self.state not in ("succeeded", "dead"):
            yield LOST, f"is {self.state} after everything was to be settled"
        if self.state == "dead" and not exhausted:
            yield DEATH, f"is dead after {self.count} of {len(self.endpoint.schedule)} attempts"
        if self.count > len(self.endpoint.schedule):
            yield DEATH, f"was tried {self.count} times"
        if self.state == "dead" and not self.poisoned:
            yield LOST, "is dead, and would have been taken"
        if self.state == "succeeded" and not any(v.fate in TAKEN for v in self.visits):
            yield CLAIMED, "is called a success, and was never taken"

    def _log(self) -> Iterator[tuple[str, str]]:
        if [attempt.number for attempt in self.attempts] != list(range(1, self.count + 1)):
            yield DEATH, f"has {self.count} attempts and a log of {len(self.attempts)}"
        ends = [attempt.succeeded for attempt in self.attempts]
        if ends and ends[-1] != (self.state == "succeeded"):
            yield CLAIMED, f"is {self.state}, and its last attempt says otherwise"
        if any(attempt.error == "lease_lapsed" for attempt in self.attempts):
            yield AGAIN, "had an attempt that nobody settled, and no process ended"
        if any(ends[:-1]):
            yield AGAIN, "was tried again after a 2xx that was kept"
        if len(self.tries) > self.count:
            yield AGAIN, f"came {len(self.tries)} times in {self.count} attempts"

    def _pace(self) -> Iterator[tuple[str, str]]:
        # Attempts that never reached the consumer make its delays longer, never shorter.
        delays = self.endpoint.schedule[1:]
        for delay, (before, after) in zip(delays, pairwise(self.attempts), strict=False):
            passed = (after.at - before.at - before.duration) / 1_000
            if passed < LEAST * delay - CLOCK:
                yield EARLY, f"attempt {after.number} was {passed:.2f} s after the last"
        for delay, (one, next_one) in zip(delays, pairwise(self.tries), strict=False):
            passed = next_one.arrived - one.acted
            least = max(LEAST * delay, ASKS_FOR if one.fate in ASKING else 0.0)
            if passed < least - CLOCK:
                yield EARLY, f"came {passed:.2f} s after {one.fate!r}, not {least:.1f} s"

    def _copies(self) -> Iterator[tuple[str, str]]:
        """An attempt is repeated at once where a kept connection died under it, and only there."""
        by_attempt: dict[str, list[Visit]] = defaultdict(list)
        for visit in self.visits:
            by_attempt[visit.timestamp].append(visit)
        for copies in by_attempt.values():
            for copy in copies[:-1]:
                if copy.fate != "reset" or not copy.kept:
                    yield AGAIN, f"came twice in one attempt after {copy.fate!r}"
            if len(copies) > 2:
                yield AGAIN, f"came {len(copies)} times in one attempt"


@dataclass(slots=True)
class Comparison:
    """All deliveries, and what is wrong."""

    events: int = 0
    deliveries: int = 0
    states: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)  # by their class of failure
    fates: Counter[str] = field(default_factory=Counter)
    copies: int = 0
    late: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def wrong(self, kind: str, text: str) -> None:
        """Note a problem."""
        self.kinds[kind] += 1
        if len(self.problems) < 1_000:
            self.problems.append(f"{kind}: {text}")


def compare(
    database: Path, endpoints: Sequence[Endpoint], ledger: Iterable[Visit], seed: int
) -> Comparison:
    """Everything that was to be delivered against everything that came."""
    found = Comparison()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as file:
        payloads = _payloads(file)
        deliveries = _deliveries(file, endpoints, seed)
    found.events, found.deliveries = len(payloads), len(deliveries)
    _hand_out(found, ledger, deliveries, payloads, {each.name: each for each in endpoints})
    for event in payloads:
        for endpoint in endpoints:
            if (event, endpoint.name) not in deliveries:
                found.wrong(LOST, f"{event} has no delivery to {endpoint.name}")
    for delivery in deliveries.values():
        found.states[delivery.state] += 1
        found.attempts.update(attempt.error or "succeeded" for attempt in delivery.attempts)
        found.late += max(delivery.late, 0)
        found.copies += len(delivery.visits) - len(delivery.tries)
        for kind, text in delivery.problems():
            found.wrong(kind, f"{delivery.event} to {delivery.endpoint.name} {text}")
    return found


Key = tuple[str, str]  # event and endpoint


def _payloads(file: sqlite3.Connection) -> Mapping[str, bytes]:
    rows = file.execute("SELECT id, payload FROM events WHERE type LIKE 'result.%'")
    return {ids.EVENT + ids.encode(number): payload for number, payload in rows}


def _deliveries(
    file: sqlite3.Connection, endpoints: Sequence[Endpoint], seed: int
) -> dict[Key, Delivery]:
    by_number = {each.number: each for each in endpoints}
    found: dict[Key, Delivery] = {}
    for number, to, state, count in file.execute(
        "SELECT event_id, endpoint_id, state, attempts FROM deliveries"
    ):
        event, endpoint = ids.EVENT + ids.encode(number), by_number[to]
        poisoned = is_poisoned(seed, endpoint.name, event)
        found[event, endpoint.name] = Delivery(endpoint, event, poisoned, state, count)
    for number, to, *row in file.execute(
        "SELECT event_id, endpoint_id, number, at, duration_ms, status, error FROM attempts"
        " ORDER BY event_id, endpoint_id, number"
    ):
        key = (ids.EVENT + ids.encode(number), by_number[to].name)
        found[key].attempts.append(Attempt(*row))
    return found


def _hand_out(
    found: Comparison,
    ledger: Iterable[Visit],
    deliveries: Mapping[Key, Delivery],
    payloads: Mapping[str, bytes],
    endpoints: Mapping[str, Endpoint],
) -> None:
    """Each visit to its delivery, if it is one: its id, its body and its signature."""
    digests = {event: sha256(payload).hexdigest() for event, payload in payloads.items()}
    for visit in ledger:
        found.fates[visit.fate] += 1
        delivery = deliveries.get((visit.event, visit.endpoint))
        if delivery is None:
            found.wrong(FORGED, f"{visit.event!r} came to {visit.endpoint!r}, and is no delivery")
            continue
        delivery.visits.append(visit)
        if visit.digest != digests[visit.event]:
            found.wrong(FORGED, f"{visit.event} came with another body")
        wanted = signature(endpoints[visit.endpoint].secret, visit, payloads[visit.event])
        if wanted not in visit.signature.split(" "):
            found.wrong(FORGED, f"{visit.event} came with a wrong signature")


def signature(secret: str, visit: Visit, payload: bytes) -> str:
    """As Standard Webhooks has it, for one secret."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{visit.event}.{visit.timestamp}.".encode() + payload
    return "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()

"""Whether everything came to the consumers, in order, and a second time only after a crash.

A consumer on loopback notes each request; the judge compares its list with what is kept, as stdlib
sqlite3 reads it.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from receiver import ids

FAILS: Final = 0.01  # of the requests: answered 500
LINGERS: Final = 0.2  # of them: answered late, so that a kill finds some under way
LATE: Final = 1.0  # seconds
# A killed worker's request may be read later than its kill.
SLACK: Final = 3.0  # seconds

_ANSWERS: Final = {
    200: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    500: b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
}

# The kinds of problems.
LOST: Final = "lost"  # an event that an endpoint did not get, or that is still under way
AGAIN: Final = "again"  # sent a second time without need
ORDER: Final = "order"
FORGED: Final = "forged"  # what nobody asked for, or another body
STATUS: Final = "status"  # a task that is open, or counts what it has not


@dataclass(frozen=True, slots=True)
class Visit:
    """One request. `at` is a second of this machine's monotonic clock."""

    endpoint: str
    event: str
    digest: bytes
    status: int
    at: float


class Consumer:
    """Its endpoints are paths. It takes nearly everything."""

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self.url = ""
        self._server: asyncio.Server
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0)  # in which they end

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                await self._take(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()  # a worker was killed, or has closed its connection
        finally:
            self._open.discard(writer)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        endpoint, status = first.split(" ")[1].strip("/"), 500 if random.random() < FAILS else 200
        digest, event = sha256(body).digest(), headers.get("webhook-id", "")
        self.visits.append(Visit(endpoint, event, digest, status, time.monotonic()))
        if random.random() < LINGERS:
            await asyncio.sleep(LATE)
        writer.write(_ANSWERS[status])

    @property
    def taken(self) -> set[str]:
        """The events of which some endpoint took one."""
        return {visit.event for visit in self.visits if visit.status == 200}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of the consumer, as it was registered."""

    name: str
    number: int
    event_types: Sequence[str]
    ordered: bool = False

    def wants(self, kind: str) -> bool:
        """Whether it is told of such events."""
        return any(fnmatchcase(kind, pattern) for pattern in self.event_types)


@dataclass(frozen=True, slots=True)
class Event:
    """One row of events."""

    number: int
    kind: str
    task: int
    digest: bytes
    index: float  # of its result; a completion comes after all of them

    @property
    def id(self) -> str:
        """Its `webhook-id`."""
        return ids.EVENT + ids.encode(self.number)


@dataclass(slots=True)
class Delivery:
    """One event for one endpoint: what is kept of it, and what came."""

    state: str = ""
    attempts: int = 0
    log: list[tuple[int, str | None]] = field(default_factory=list)  # number, error
    visits: list[Visit] = field(default_factory=list)

    @property
    def taken(self) -> list[Visit]:
        """The requests that were answered 200."""
        return [visit for visit in self.visits if visit.status == 200]

    def problems(self, crashes: Sequence[float]) -> Iterator[tuple[str, str]]:
        """What is wrong with it, each with its kind."""
        if self.state != "succeeded":
            yield LOST, f"is {self.state or 'nowhere'}"
        if not self.taken:
            yield LOST, "never came"
        if [number for number, _ in self.log] != list(range(1, self.attempts + 1)):
            yield AGAIN, f"has {self.attempts} attempts and a log of {len(self.log)}"
        yield from self._repeats(crashes)

    def _repeats(self, crashes: Sequence[float]) -> Iterator[tuple[str, str]]:
        kept = sum(error is None for _, error in self.log)
        lapsed = sum(error == "lease_lapsed" for _, error in self.log)
        if kept > 1:
            yield AGAIN, "was sent again after a 2xx that was kept"
        if len(self.visits) > self.attempts:
            yield AGAIN, f"came {len(self.visits)} times in {self.attempts} attempts"
        if len(self.taken) - 1 > lapsed:
            yield AGAIN, f"was taken {len(self.taken)} times, and {lapsed} were not settled"
        for one, two in pairwise(self.taken):
            place = bisect_left(crashes, one.at - SLACK)
            if place == len(crashes) or crashes[place] > two.at:
                yield AGAIN, f"came again after {two.at - one.at:.2f} s without a crash"


@dataclass(slots=True)
class Comparison:
    """All deliveries, and what is wrong."""

    events: int = 0
    deliveries: int = 0
    requests: int = 0
    failed: int = 0  # answered 500
    lapsed: int = 0  # attempts whose process was killed
    repeats: int = 0  # taken before, and sent again
    states: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def wrong(self, kind: str, text: str) -> None:
        """Note a problem."""
        self.kinds[kind] += 1
        if len(self.problems) < 1_000:
            self.problems.append(f"{kind}: {text}")


def compare(
    kept: Path, endpoints: Sequence[Endpoint], visits: Iterable[Visit], crashes: Iterable[float]
) -> Comparison:
    """Everything that was to be delivered against everything that came."""
    found = Comparison()
    with closing(sqlite3.connect(f"file:{kept}?mode=ro", uri=True)) as file:
        events = {event.id: event for event in _events(file)}
        deliveries = _deliveries(file, {each.number: each.name for each in endpoints})
        _judge_tasks(found, file)
    _hand_out(found, visits, deliveries, events)
    times = sorted(crashes)
    for endpoint in endpoints:
        lanes: dict[int, list[tuple[Event, Delivery]]] = defaultdict(list)
        for event in events.values():
            delivery = deliveries.get((event.id, endpoint.name))
            if endpoint.wants(event.kind):
                lanes[event.task].append((event, delivery or Delivery()))
                _judge(found, endpoint, event, lanes[event.task][-1][1], times)
            elif delivery is not None:
                found.wrong(FORGED, f"{event.kind} for {endpoint.name}, which does not want it")
        if endpoint.ordered:
            _judge_order(found, endpoint, lanes.values())
    found.events = len(events)
    return found


Key = tuple[str, str]  # event and endpoint


def _events(file: sqlite3.Connection) -> Iterator[Event]:
    rows = file.execute(
        "SELECT id, type, task_n, payload FROM events WHERE task_n IS NOT NULL ORDER BY task_n, id"
    )
    for number, kind, task, payload in rows:
        told = json.loads(payload)["data"].get("result")
        index = float("inf") if told is None else told["index"]
        yield Event(number, kind, task, sha256(payload).digest(), index)


def _deliveries(file: sqlite3.Connection, names: Mapping[int, str]) -> dict[Key, Delivery]:
    found: dict[Key, Delivery] = {}
    for event, endpoint, state, attempts in file.execute(
        "SELECT event_id, endpoint_id, state, attempts FROM deliveries"
    ):
        found[ids.EVENT + ids.encode(event), names[endpoint]] = Delivery(state, attempts)
    for event, endpoint, number, error in file.execute(
        "SELECT event_id, endpoint_id, number, error FROM attempts"
        " ORDER BY event_id, endpoint_id, number"
    ):
        key = (ids.EVENT + ids.encode(event), names[endpoint])
        found.setdefault(key, Delivery()).log.append((number, error))
    return found


def _judge_tasks(found: Comparison, file: sqlite3.Connection) -> None:
    for task, status, expected, succeeded, failed, completed in file.execute(
        "SELECT hex(id), status, expected, succeeded, failed, completed_at FROM tasks"
    ):
        found.tasks[status] += 1
        whole = "partially_failed" if succeeded and failed else "failed"
        wanted = whole if failed else "succeeded"
        if (status, succeeded + failed) != (wanted, expected) or completed is None:
            text = f"{task} is {status}, with {succeeded} and {failed} of {expected}"
            found.wrong(STATUS, text)


def _hand_out(
    found: Comparison,
    visits: Iterable[Visit],
    deliveries: Mapping[Key, Delivery],
    events: Mapping[str, Event],
) -> None:
    for visit in visits:
        found.requests += 1
        found.failed += visit.status != 200
        delivery = deliveries.get((visit.event, visit.endpoint))
        if delivery is None:
            found.wrong(FORGED, f"{visit.event!r} came to {visit.endpoint!r}, and is no delivery")
            continue
        delivery.visits.append(visit)
        event = events.get(visit.event)
        if event is None or visit.digest != event.digest:
            found.wrong(FORGED, f"{visit.event} came with another body")


def _judge(
    found: Comparison,
    endpoint: Endpoint,
    event: Event,
    delivery: Delivery,
    crashes: Sequence[float],
) -> None:
    found.deliveries += 1
    found.states[delivery.state] += 1
    found.lapsed += sum(error == "lease_lapsed" for _, error in delivery.log)
    found.repeats += max(len(delivery.taken) - 1, 0)
    for kind, text in delivery.problems(crashes):
        found.wrong(kind, f"{event.kind} {event.id} to {endpoint.name} {text}")


def _judge_order(
    found: Comparison, endpoint: Endpoint, lanes: Iterable[Sequence[tuple[Event, Delivery]]]
) -> None:
    """A task's results come in the order of their arrival, and its completion after them."""
    for lane in lanes:
        for (one, earlier), (two, later) in pairwise(lane):
            if one.index >= two.index:
                found.wrong(ORDER, f"{two.kind} {two.id} is after {one.kind} {one.id}")
            came = max((visit.at for visit in earlier.visits), default=0.0)
            if later.visits and later.visits[0].at < came:
                found.wrong(ORDER, f"{two.id} came to {endpoint.name} before {one.id} was settled")

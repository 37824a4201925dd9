"""A store and a worker beside their model, and what may happen to a delivery in all of them.

A scripted sender holds every request until the machine says how it went; the clock stands still
until told. After each step every delivery, attempt and endpoint that is kept is the model's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from receiver import ids
from receiver.deliveries import Failure, Outcome
from receiver.delivery.signing import new_secret
from receiver.delivery.worker import Worker
from receiver.endpoints import EndpointPatch, EndpointSpec
from receiver.endpoints import State as EndpointState
from receiver.errors import Conflict
from receiver.store.protocol import (
    EndpointChange,
    NewEndpoint,
    Query,
    QueueCancel,
    Replay,
    Rotation,
)
from receiver.store.sqlite import SqliteStore
from receiver.store.writer import Transaction
from tests.doubles import Dice, FakeClock
from tests.make import success, uuid
from tests.receiver.delivery_model import (
    DAY,
    HOUR,
    LEASE,
    MINUTE,
    SECOND,
    USUAL,
    Answer,
    Call,
    Delivery,
    Endpoint,
    Event,
    Model,
    signature,
)
from tests.receiver.delivery_rows import expected_of, name_in, stored
from tests.receiver.store.suite import arrival_of
from tests.receiver.test_door_machine import differences

T = TypeVar("T")

TASKS = [uuid(number) for number in range(201, 207)]
EXPECTED = 2  # results of a task; what comes after is late
MOST_RESULTS = 4
IN_FLIGHT = 5
MOST_ENDPOINTS = 3
TYPES = st.sampled_from(
    [("*",), ("*",), ("result.*",), ("task.*", "delivery.*"), ("endpoint.*", "*.completed")]
)
SCHEDULES = st.sampled_from([None, None, (0,), (0, 3_600, 7_200), (0, *[1] * 14)])
CONCURRENCY = st.sampled_from([1, 2, 4])
JITTER = st.sampled_from([0.0, 0.25, 0.5, 0.999])
WAITS = st.sampled_from([0, 3 * SECOND, 2 * MINUTE, 5 * HOUR, 3 * DAY])
GOOD = Answer(200)
BAD = st.sampled_from(
    [Answer(status) for status in (301, 400, 404, 409, 413, 422, 500, 502, 504)]
    + [Answer(None, why) for why in ("dns", "connect", "tls", "timeout", "protocol")]
    + [Answer(200, "timeout")]  # the head in time, the rest not
)
ANSWERS = st.one_of(
    st.sampled_from([GOOD, GOOD, Answer(204), Answer(500), Answer(410), Answer(None, "timeout")]),
    st.builds(Answer, st.sampled_from([429, 429, 503, 500]), st.none(), WAITS),
    BAD,
)
LATE_ANSWERS = st.sampled_from([GOOD, GOOD, GOOD, Answer(500), Answer(410)])


@dataclass
class Request:
    """One that the sender holds."""

    url: str
    body: bytes
    headers: dict[str, str]
    outcome: asyncio.Future[Outcome]


class Holding:
    """A sender that answers when it is told to."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def send(self, url: str, body: bytes, headers: dict[str, str]) -> Outcome:
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.requests.append(Request(url, body, headers, outcome))
        return await outcome


class Life(RuleBasedStateMachine):
    """A store and a worker in this process, their model, and what may happen to both."""

    template: Path
    seen: set[str]  # what was ever reached

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.clock, self.dice = FakeClock(), Dice()
        self.jitter = 0.5
        self.sender = Holding()
        self.calls: list[tuple[Call, Request]] = []
        self.results = dict.fromkeys(TASKS, 0)
        self.runner = asyncio.Runner()
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self.folder = Path(tempfile.mkdtemp(dir=self.root))
        shutil.copy(self.template, self.path)
        self.store: SqliteStore
        self.worker: Worker

    @property
    def path(self) -> Path:
        return self.folder / "reelhook.db"

    @property
    def now(self) -> int:
        return self.clock.now

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    async def _open(self) -> None:
        self.store = await SqliteStore.open(self.path, clock=self.clock, entropy=self.dice.bits)
        self.worker = Worker(
            self.store,
            self.sender,
            clock=self.clock,
            wall=self.clock,
            jitter=lambda: self.jitter,
            journal=lambda _: None,
            schedule=USUAL,
            in_flight=IN_FLIGHT,
        )

    @initialize(
        concurrency=CONCURRENCY,
        schedule=SCHEDULES,
        results=st.integers(0, 4),
        ordered=st.booleans(),
    )
    def begin(self, concurrency: int, schedule: Any, results: int, ordered: bool) -> None:
        self.run(self._open())
        self._register(("*",), concurrency, schedule, ordered)
        for place in range(results):
            self._record(TASKS[place * (1 + ordered) // 2])

    # Endpoints

    @precondition(lambda self: len(self.model.alive) < MOST_ENDPOINTS)
    @rule(types=TYPES, concurrency=CONCURRENCY, schedule=SCHEDULES, ordered=st.booleans())
    def register(
        self, types: tuple[str, ...], concurrency: int, schedule: Any, ordered: bool
    ) -> None:
        self._register(types, concurrency, schedule, ordered)

    def _register(
        self, types: tuple[str, ...], concurrency: int, schedule: Any, ordered: bool
    ) -> None:
        name, secret = f"e{len(self.model.endpoints)}", self._secret()
        made = Endpoint(name, "", types, concurrency, schedule, [(secret, None)], ordered)
        spec = EndpointSpec(
            url=made.url,
            event_types=list(types),
            concurrency=concurrency,
            schedule=schedule and list(schedule),
            ordered=ordered,
        )
        new = NewEndpoint(spec, "default", secret, self.now)
        made.id = self.run(self.store.add_endpoint(new)).id
        self.model.endpoints.append(made)

    def _secret(self) -> str:
        return new_secret(self.dice.bytes(32))

    def _draw(self, data: st.DataObject, of: Sequence[T]) -> T:
        return data.draw(st.sampled_from(of))

    @precondition(lambda self: self.model.alive)
    @rule(data=st.data())
    def move_url(self, data: st.DataObject) -> None:
        one = self._draw(data, self.model.alive)
        one.version += 1
        one.forget()
        self._change(one, EndpointPatch(url=one.url))

    @precondition(lambda self: self.model.alive)
    @rule(data=st.data(), concurrency=CONCURRENCY, schedule=SCHEDULES)
    def set_anew(self, data: st.DataObject, concurrency: int, schedule: Any) -> None:
        one = self._draw(data, self.model.alive)
        one.concurrency, one.schedule = concurrency, schedule
        wanted = schedule and list(schedule)
        self._change(one, EndpointPatch(concurrency=concurrency, schedule=wanted))

    def _change(self, one: Endpoint, patch: EndpointPatch) -> None:
        self.run(self.store.change_endpoint(EndpointChange(one.id, patch)))

    @precondition(lambda self: self.model.alive)
    @rule(data=st.data(), state=st.sampled_from(["paused", "disabled"]))
    def hold(self, data: st.DataObject, state: str) -> None:
        one = self._draw(data, self.model.alive)
        one.state, one.reason = state, "by hand"
        self.run(self.store.set_endpoint_state(one.id, EndpointState(state), "by hand"))

    @precondition(lambda self: any(one.state != "enabled" for one in self.model.alive))
    @rule(data=st.data())
    def enable(self, data: st.DataObject) -> None:
        one = self._draw(data, [one for one in self.model.alive if one.state != "enabled"])
        one.enable()
        self.run(self.store.set_endpoint_state(one.id, EndpointState.ENABLED, None))

    @precondition(lambda self: any(len(one.secrets) < 8 for one in self.model.alive))
    @rule(data=st.data(), overlap=st.sampled_from([0, 40 * SECOND, DAY]))
    def rotate(self, data: st.DataObject, overlap: int) -> None:
        one = self._draw(data, [one for one in self.model.alive if len(one.secrets) < 8])
        secret = self._secret()
        one.rotate(secret, overlap, self.now)
        self.run(self.store.rotate_secret(Rotation(one.id, secret, "", self.now, overlap)))

    @precondition(lambda self: len(self.model.alive) > 1)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        one = self._draw(data, self.model.alive)
        self.model.delete(one)
        self.run(self.store.delete_endpoint(one.id, self.now))

    # Events

    @precondition(lambda self: self._unfinished())
    @rule(data=st.data())
    def result(self, data: st.DataObject) -> None:
        self._record(self._draw(data, self._unfinished()))

    def _record(self, task: str) -> None:
        self.results[task] += 1
        body = success(self.results[task], task)
        came = arrival_of(task, body, expected=EXPECTED, received_at=self.now)
        self.run(self.store.record(came))
        types = {1: ["result.succeeded"], 2: ["result.succeeded", "task.completed"]}
        late = ["result.succeeded", "task.revised"]
        new = self._new_events(task)
        assert [event.type for event in new] == types.get(self.results[task], late)
        for event in new:
            event.late = self.results[task] > EXPECTED
            self.model.tell(event, self.now)

    def _unfinished(self) -> list[str]:
        return [task for task, count in self.results.items() if count < MOST_RESULTS]

    @precondition(lambda self: self.model.alive)
    @rule(data=st.data())
    def test(self, data: st.DataObject) -> None:
        one = self._draw(data, self.model.alive)
        try:
            self.run(self.store.test_endpoint(one.id, self.now))
        except Conflict:
            assert one.state != "enabled"
            return
        (event,) = self._new_events(None)
        self.model.test(event, one, self.now)

    def _new_events(self, task: str | None) -> list[Event]:
        rows = self._sql("SELECT id, type, payload FROM events ORDER BY seq")
        return [
            Event(ids.EVENT + ids.encode(number), kind, task, payload)
            for number, kind, payload in rows[len(self.model.events) :]
        ]

    # Attempts

    @rule()
    def look(self) -> None:
        self.tick()

    def tick(self, given_up: int = 0) -> None:
        """Claim and begin. `given_up`: of what is under way, how many calls are not in the list."""
        self.model.lapse(self.now)
        due = {one.name: self.model.due(one, self.now) for one in self.model.endpoints}
        may = {one.name: self.model.may_begin(one, self.now) for one in self.model.endpoints}
        began = self.run(self._tick())
        room = IN_FLIGHT - len(self.calls) - given_up
        assert len(began) == min(room, sum(may.values())), may
        for request in began:
            self._check(request)
        for one in self.model.endpoints:
            mine = [found for found in began if found.url == one.url]
            assert len(mine) <= may[one.name]
            taken = [self._delivery(found) for found in mine]
            left = [found for found in due[one.name] if found not in taken]
            if taken and left:
                assert max(_due(found) for found in taken) <= min(_due(found) for found in left)
        for request in began:
            self.calls.append((self.model.begin(self._delivery(request), self.now), request))

    async def _tick(self) -> list[Request]:
        before = len(self.sender.requests)
        await self.store.release_lapsed(self.now)
        count = await self.worker.tick()
        await asyncio.sleep(0)  # each attempt runs as far as the sender
        assert len(self.sender.requests) == before + count
        return self.sender.requests[before:]

    def _delivery(self, request: Request) -> Delivery:
        return self.model.of(request.headers["webhook-id"], name_in(request.url))

    def _check(self, request: Request) -> None:
        """What a consumer sees of an attempt."""
        one, headers = self._delivery(request), request.headers
        assert one.endpoint.state == "enabled"
        assert not one.endpoint.deleted
        assert one.state == "pending"
        assert request.url == one.endpoint.url
        assert request.body == one.event.body
        assert headers["webhook-timestamp"] == str(self.now // SECOND)
        assert headers["webhook-signature"].split(" ") == [
            signature(secret, one.event.id, headers["webhook-timestamp"], request.body)
            for secret in one.endpoint.live_secrets(self.now)
        ]

    @precondition(lambda self: self.model.deliveries)
    @rule(data=st.data(), answer=ANSWERS, jitter=JITTER, as_date=st.booleans())
    def answer(self, data: st.DataObject, answer: Answer, jitter: float, as_date: bool) -> None:
        if self._is_busy():
            place = data.draw(st.integers(0, len(self.calls) - 1))
            self._end([self.calls.pop(place)], [answer], jitter, as_date)

    @precondition(lambda self: self.model.deliveries)
    @rule(answers=st.lists(ANSWERS, min_size=IN_FLIGHT, max_size=IN_FLIGHT), jitter=JITTER)
    def answer_each(self, answers: list[Answer], jitter: float) -> None:
        """In one turn of the loop, so in one transaction."""
        if self._is_busy():
            self._end_all(answers, jitter)

    def _end_all(self, answers: list[Answer], jitter: float) -> None:
        calls, self.calls = self.calls, []
        self._end(calls, answers, jitter, False)

    @precondition(lambda self: self.model.deliveries)
    @rule(data=st.data(), answer=LATE_ANSWERS, since=st.sampled_from(["lapse", "tick", "failure"]))
    def answer_late(self, data: st.DataObject, answer: Answer, since: str) -> None:
        """After its lease, and after the next attempt began or even failed."""
        if not self._is_busy():
            return
        late = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        self.clock.advance(LEASE)
        self.model.lapse(self.now)
        self.run(self.store.release_lapsed(self.now))
        if since != "lapse":
            self.tick(given_up=1)
        if since == "failure" and self.calls:
            self._end_all([Answer(500)] * IN_FLIGHT, 0.5)
        self.seen.add(f"late {answer.status} for {late[0].delivery.state}")
        self._end([late], [answer], 0.5, False)

    def _is_busy(self) -> bool:
        """Whether something is under way; it is, if that is possible."""
        if not self.calls:
            self.until_due()
            self.tick()
            self._compare()
        return bool(self.calls)

    @rule(rounds=st.integers(2, 12), answer=st.one_of(st.just(GOOD), BAD, BAD), jitter=JITTER)
    def work(self, rounds: int, answer: Answer, jitter: float) -> None:
        """The same for a while, whenever something is due."""
        for _ in range(rounds):
            self.until_due()
            self.tick()
            if not self.calls:
                return
            self._compare()
            self._end_all([answer] * IN_FLIGHT, jitter)
            self._compare()

    @precondition(lambda self: self.model.deliveries)
    @rule(answer=BAD)
    def outage(self, answer: Answer) -> None:
        """For more than five days."""
        for _ in range(3):
            if self._is_busy():
                self._end_all([answer] * IN_FLIGHT, 0.5)
            self.clock.advance(3 * DAY)

    def _end(
        self,
        calls: list[tuple[Call, Request]],
        answers: list[Answer],
        jitter: float,
        as_date: bool,
    ) -> None:
        self.jitter = jitter
        made = [self._retry_after(answer, as_date) for answer in answers[: len(calls)]]
        outcomes = [
            Outcome(
                answer.status,
                Failure(answer.error) if answer.error else None,
                "A sentence.",
                12,
                retry_after=text,
            )
            for answer, text in made
        ]
        self.run(self._resolve([request for _, request in calls], outcomes))
        for (call, _), (answer, _) in zip(calls, made, strict=True):
            query = "SELECT next_attempt_at FROM deliveries WHERE event_id = ? AND endpoint_id = ?"
            ((next_at,),) = self._sql(query, *self._key(call.delivery))
            self.model.end(call, answer, self.now, next_at)
        self._hear_of_operations()

    def _hear_of_operations(self) -> None:
        """What the receiver tells of itself: who was disabled, then what died."""
        disabled, exhausted = self.model.disabled, self.model.exhausted
        self.model.disabled, self.model.exhausted = [], []
        new = self._new_events(None)
        types = ["endpoint.disabled"] * len(disabled) + ["delivery.exhausted"] * len(exhausted)
        assert [event.type for event in new] == types
        for event, endpoint in zip(new, disabled, strict=False):
            event.about = endpoint.name
        for event, delivery in zip(new[len(disabled) :], exhausted, strict=True):
            assert delivery.event.id.encode() in event.body
        for event in new:
            self.model.tell(event, self.now)

    def _retry_after(self, answer: Answer, as_date: bool) -> tuple[Answer, str | None]:
        if not answer.wait_ms:
            return answer, None
        if not as_date:
            return answer, str(answer.wait_ms // SECOND)
        until = (self.now + answer.wait_ms) // SECOND
        wait = max(until * SECOND - self.now, 0)
        return Answer(answer.status, answer.failure, wait), formatdate(until, usegmt=True)

    async def _resolve(self, requests: Sequence[Request], outcomes: Sequence[Outcome]) -> None:
        running = self.worker._running
        left = len(running) - len(requests)
        for request, outcome in zip(requests, outcomes, strict=True):
            request.outcome.set_result(outcome)
        while len(running) > left:
            await asyncio.wait(set(running), return_when=asyncio.FIRST_COMPLETED)

    # Time

    @rule(ms=st.sampled_from([1, SECOND, 6 * SECOND, LEASE, 6 * MINUTE, 2 * HOUR, DAY, 3 * DAY]))
    def time_passes(self, ms: int) -> None:
        self.clock.advance(ms)

    @rule()
    def until_due(self) -> None:
        """Until something may go out that may not yet."""
        moments = [
            max(_due(one), one.endpoint.held_until)
            for one in self.model.deliveries
            if one.state == "pending" and one.next_at and one.endpoint.state == "enabled"
        ]
        self.clock.now = max(self.now, min(moments, default=self.now))

    @rule(far=st.booleans(), busy=st.booleans())
    def crash(self, far: bool, busy: bool) -> None:
        """A SIGKILL leaves the database and its WAL as they are; what was under way is not told."""
        if busy:
            self._is_busy()
        left = Path(tempfile.mkdtemp(dir=self.root))
        self.run(self._copy(left))
        self.run(self._close())
        shutil.rmtree(self.folder)
        self.folder = left
        self.clock.advance(2 * HOUR if far else 1)
        self.run(self._open())
        self.model.lapse(self.now, everybody=True)
        self.calls = []

    async def _copy(self, to: Path) -> None:
        def handler(_tx: Transaction, folders: Any) -> list[None]:
            # Within a transaction of its own, so that no checkpoint moves the pages meanwhile.
            for name in ("reelhook.db", "reelhook.db-wal"):
                shutil.copy(self.folder / name, folders[0] / name)
            return [None]

        await self.store._writer.call(handler, to)

    async def _close(self) -> None:
        running = list(self.worker._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.store.close()

    # By hand

    def _key(self, one: Delivery) -> tuple[int, int]:
        return ids.parse(ids.EVENT, one.event.id), ids.parse(ids.ENDPOINT, one.endpoint.id)

    def _by_hand(self, can: bool, verb: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The verb's answer, if it can be; else it has to say so."""
        if can:
            return self.run(verb())
        with pytest.raises(Conflict):
            self.run(verb())
        return None

    @precondition(lambda self: self.model.deliveries)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        one = self._draw(data, self.model.deliveries)
        name = ids.delivery_id(*self._key(one))
        can = self.model.retry(one, self.now)
        self._by_hand(can, lambda: self.store.retry(name, self.now))

    @precondition(lambda self: self.model.deliveries)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        one = self._draw(data, self.model.deliveries)
        name = ids.delivery_id(*self._key(one))
        can = self.model.cancel(one, self.now)
        self._by_hand(can, lambda: self.store.cancel(name, self.now))

    @precondition(lambda self: self.model.alive)
    @rule(data=st.data())
    def cancel_all(self, data: st.DataObject) -> None:
        one = self._draw(data, self.model.alive)
        asked = QueueCancel(one.id, self.now, 1_000)
        assert self.run(self.store.cancel_queue(asked)) == self.model.cancel_all(one)

    @precondition(lambda self: self.model.events)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        event = self._draw(data, self.model.events)
        only = self._draw(data, [None, *self.model.alive])
        counts = self.model.replay(event, only, self.now)
        asked = Replay(event.id, self.now, None if only is None else only.id)
        found = self._by_hand(counts is not None, lambda: self.store.replay(asked))
        if counts is not None:
            assert (found.created, found.retried, found.waiting) == counts

    def teardown(self) -> None:
        try:
            self.run(self._close())
        finally:
            self.runner.close()
            shutil.rmtree(self.root)

    # What must hold

    def _sql(self, query: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as database:
            return database.execute(query, values).fetchall()

    def _stored(self) -> dict[str, Any]:
        page = self.run(self.store.endpoints(Query(limit=200)))
        return stored(self._sql, page.data, self.now)

    @invariant()
    def what_is_stored_is_what_the_model_has(self) -> None:
        if hasattr(self, "store"):
            self._compare()

    def _compare(self) -> None:
        wanted, found = expected_of(self.model, self.now), self._stored()
        assert wanted == found, differences(wanted, found)
        self.seen |= {f"delivery {one.state}" for one in self.model.deliveries}
        for one in self.model.endpoints:
            self.seen |= {f"breaker {one.breaker}", f"{one.state} {one.reason}"}
            self.seen |= {"throttled"} if one.width is not None else set()


def _due(one: Delivery) -> int:
    assert one.next_at is not None
    return one.next_at

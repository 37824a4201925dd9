"""Random histories of tasks, callbacks and deliveries, and what a prune may take of them.

The rules are written here a second time, in Python over all rows, so that the SQL has something to
be wrong against: what must stay, stays, and nothing else does.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.callbacks import Arrival
from receiver.clock import DAY, HOUR, MINUTE
from receiver.deliveries import State
from receiver.endpoints import State as EndpointState
from receiver.errors import Refusal
from receiver.keeping import Keep
from receiver.reprocessing import arrivals_of
from receiver.store.protocol import Query, Reprocessing, TaskChange
from receiver.store.sqlite import SqliteStore
from tests.doubles import Dice, FakeClock
from tests.make import endpoint, failure, registration, settled, success, uuid
from tests.receiver.store.prune_suite import drop
from tests.receiver.store.suite import arrival_of, claim

Tables = Mapping[str, Mapping[Any, sqlite3.Row]]

KEYS = {
    "tasks": "n",
    "results": "id",
    "callbacks": "id",
    "events": "id",
    "deliveries": "event_id, endpoint_id",
    "attempts": "event_id, endpoint_id, number",
}
TASKS, ENDPOINTS = st.integers(0, 3), st.integers(0, 1)
STEPS = st.one_of(
    st.tuples(st.just("register"), TASKS),
    st.tuples(st.just("result"), TASKS, st.integers(0, 3)),
    st.tuples(st.just("failure"), TASKS),
    st.tuples(st.just("unreadable"), TASKS),
    st.tuples(st.just("expired"), TASKS),
    st.tuples(st.just("orphan"), st.integers(0, 9)),
    st.tuples(st.just("busy day")),
    st.tuples(st.just("send"), st.sampled_from([State.SUCCEEDED, State.DEAD, State.PENDING])),
    st.tuples(st.just("move"), ENDPOINTS, st.sampled_from([*EndpointState])),
    st.tuples(st.just("retry"), st.integers(0, 9)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("revoke"), TASKS),
    st.tuples(st.just("reconcile"), TASKS),
    st.tuples(st.just("reprocess"), st.integers(0, 9)),
    st.tuples(st.just("give up")),
    st.tuples(st.just("pass"), st.sampled_from([MINUTE, HOUR, DAY, 9 * DAY, 50 * DAY, 200 * DAY])),
    st.tuples(st.just("prune")),
)
DAYS = st.sampled_from([0, 1, 10, 30, 90, 365])


class History:
    """One store and what happens to it, a step at a time."""

    def __init__(self, store: SqliteStore, clock: FakeClock, keep: Keep) -> None:
        self.store = store
        self.clock = clock
        self.keep = keep
        self.endpoints: list[str] = []
        self.arrivals: list[Arrival] = []

    async def begin(self) -> None:
        for _ in range(2):
            added = await self.store.add_endpoint(endpoint(event_types=["result.*"]))
            self.endpoints.append(added.id)

    async def take(self, step: tuple[Any, ...]) -> None:
        verb, *given = step
        await getattr(self, f"_{verb.replace(' ', '_')}")(*given)

    async def _register(self, task: int) -> None:
        asked = registration(uuid(task), self.clock(), expected=1 + task % 2, tags={"a": "b"})
        await self.store.register(asked)

    async def _record(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        await self.store.record(arrival)

    async def _result(self, task: int, number: int) -> None:
        await self._record(self._arrival(task, success(number)))

    async def _busy_day(self) -> None:
        for task in range(4):
            await self._result(task, task)
        await self._send(State.SUCCEEDED)

    async def _failure(self, task: int) -> None:
        await self._record(self._arrival(task, failure()))

    def _arrival(self, task: int, item: dict[str, Any]) -> Arrival:
        times = {"received_at": self.clock(), "issued_at": self.clock()}
        return arrival_of(uuid(task), item, expected=1 + task % 2, **times)

    async def _unreadable(self, task: int) -> None:
        await self._record(replace(self._arrival(task, success()), items=(), unreadable="x"))

    async def _expired(self, task: int) -> None:
        await self.store.record(replace(self._arrival(task, success(9)), expired=True))

    async def _orphan(self, number: int) -> None:
        found = self._arrival(0, success(number))
        await self.store.record(replace(found, task_id=None, unreadable="names_no_task"))

    async def _send(self, state: State) -> None:
        now = self.clock()
        for claimed in await claim(self.store, now):
            again = now + HOUR if state is State.PENDING else None
            await self.store.settle(settled(claimed, state, now=now, next_attempt_at=again))

    async def _move(self, number: int, state: EndpointState) -> None:
        await self.store.set_endpoint_state(self.endpoints[number], state, None)

    async def _retry(self, number: int) -> None:
        await self._by_hand(self.store.retry, number)

    async def _cancel(self, number: int) -> None:
        await self._by_hand(self.store.cancel, number)

    async def _by_hand(self, verb: Any, number: int) -> None:
        found = (await self.store.deliveries(Query(limit=200))).data
        if found:
            with suppress(Refusal):  # it is not in a state that allows it
                await verb(found[number % len(found)].id, self.clock())

    async def _revoke(self, task: int) -> None:
        await self._change(self.store.revoke_task, task)

    async def _reconcile(self, task: int) -> None:
        await self._change(self.store.reconcile_task, task)

    async def _change(self, verb: Any, task: int) -> None:
        with suppress(Refusal):  # there is no such task yet
            await verb(TaskChange(uuid(task), self.clock()))

    async def _reprocess(self, number: int) -> None:
        found = (await self.store.callbacks(Query(limit=200))).data
        if not found:
            return
        kept, now = await self.store.kept_callback(found[number % len(found)].id), self.clock()
        if kept.body is not None:
            arrivals = arrivals_of(kept, kept.body, now)
            with suppress(Refusal):  # the task was revoked, or has more than it owes
                await self.store.reprocess(Reprocessing(kept.id, arrivals, now))

    async def _give_up(self) -> None:
        await self.store.give_up(self.clock())

    async def _pass(self, ms: int) -> None:
        self.clock.advance(ms)

    async def _prune(self) -> None:
        now, before = self.clock(), dump(self.store.path)
        counted = await drop(self.store, now, self.keep, dry_run=True)
        assert dump(self.store.path) == before
        dropped = await drop(self.store, now, self.keep)
        after = dump(self.store.path)
        assert counted == dropped == check(before, after, self.keep, now)
        assert await drop(self.store, now, self.keep) == {}

    async def hear_all_again(self) -> None:
        """Every callback once more: what is known stays known, and nothing is told again."""
        kept = {task.id for task in (await self.store.tasks(Query(limit=200))).data}
        before = dump(self.store.path)
        for arrival in self.arrivals:
            if arrival.task_id in kept:
                await self.store.record(arrival)
        after = dump(self.store.path)
        for table in ("results", "events", "deliveries"):
            assert after[table].keys() == before[table].keys()


def dump(path: Path) -> Tables:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return {
            table: {
                tuple(row)[:width]: row
                for row in connection.execute(f"SELECT {key}, * FROM {table} ORDER BY {key}")
            }
            for table, key in KEYS.items()
            for width in [key.count(",") + 1]
        }


def bound(now: int, days: int) -> int:
    return now - days * DAY if days else 0


def staying(before: Tables, keep: Keep, now: int) -> dict[str, set[Any]]:
    """The keys of the rows that a prune leaves, by table."""
    raw, events, tasks = bound(now, keep.raw), bound(now, keep.events), bound(now, keep.tasks)
    found: dict[str, set[Any]] = {}
    held = {key for key, row in before["deliveries"].items() if row["settled_at"] is None}
    young = {key for key, row in before["deliveries"].items() if (row["settled_at"] or 0) >= events}
    newest = max((row["seq"] for row in before["events"].values()), default=0)
    found["events"] = {
        key
        for key, row in before["events"].items()
        if row["created_at"] >= events
        or row["seq"] == newest
        or any(delivery[0] == key[0] for delivery in held | young)
    }
    told = {(before["events"][key]["task_n"],) for key in found["events"]}
    found["deliveries"] = {key for key in before["deliveries"] if key[:1] in found["events"]}
    found["attempts"] = {
        key
        for key, row in before["attempts"].items()
        if key[:1] in found["events"] and (key[:2] in held or row["at"] >= max(raw, events))
    }
    heard = [*before["callbacks"].values(), *before["results"].values()]
    found["tasks"] = {
        key
        for key, row in before["tasks"].items()
        if key in told
        or row["completed_at"] is None
        or not tasks
        or any(last_of(one) >= tasks - HOUR for one in [row, *heard] if task_of(one) == key[0])
        or row["give_up_at"] + 2 * HOUR >= now
    }
    found["results"] = {
        key for key, row in before["results"].items() if (row["task_n"],) in found["tasks"]
    }
    found["callbacks"] = {
        key
        for key, row in before["callbacks"].items()
        if (row["task_n"],) in found["tasks"]
        or (row["task_n"] is None and (not tasks or last_of(row) >= tasks - HOUR))
    }
    return found


def task_of(row: sqlite3.Row) -> int:
    return int(row["n" if "n" in row.keys() else "task_n"] or 0)  # noqa: SIM118 - a Row is no dict


def last_of(row: sqlite3.Row) -> int:
    """When something last happened to a row."""
    names = {"completed_at", "revoked_at", "reconcile_at", "reconcile_lease"}
    names |= {"last_received_at", "received_at"}
    return max(row[name] or 0 for name in names & {*row.keys()})


def check(before: Tables, after: Tables, keep: Keep, now: int) -> dict[str, int]:
    """Hold the rows that are left against the rules; what went, by the names that prunes use."""
    left = staying(before, keep, now)
    assert {table: {*rows} for table, rows in after.items()} == left
    bodies = {
        key
        for key, row in before["callbacks"].items()
        if row["received_at"] < bound(now, keep.raw)
        and row["outcome"] not in ("quarantined", "expired")
        and row["body_dropped_at"] is None
    }
    for key, row in after["callbacks"].items():
        old = before["callbacks"][key]
        gone = key in bodies or old["body_dropped_at"] is not None
        assert (row["body"] == b"") == (row["body_dropped_at"] is not None) == gone
        assert (row["sha256"], row["size"]) == (old["sha256"], old["size"])
    for key, row in after["tasks"].items():
        assert tuple(row) == tuple(before["tasks"][key])
    counts = {table: len(before[table]) - len(rows) for table, rows in left.items()}
    return {name: n for name, n in {**counts, "bodies": len(bodies)}.items() if n}


def run(steps: Sequence[tuple[Any, ...]], keep: Keep) -> None:
    async def live(folder: str) -> None:
        clock = FakeClock()
        path = Path(folder) / "db"
        async with await SqliteStore.open(path, clock=clock, entropy=Dice().bits) as store:
            history = History(store, clock, keep)
            await history.begin()
            for step in steps:
                await history.take(step)
            await history.take(("prune",))
            await history.hear_all_again()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(folder))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=5, max_size=30), st.builds(Keep, DAYS, DAYS, DAYS))
def test_a_prune_takes_what_is_old_and_done_and_nothing_else(
    steps: Sequence[tuple[Any, ...]], keep: Keep
) -> None:
    run(steps, keep)

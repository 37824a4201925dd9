"""The ledger in PostgreSQL while several processes write it: each count exact, each event once."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import asyncpg
import pytest

from receiver.callbacks import Outcome
from receiver.errors import Conflict, StoreUnavailable
from receiver.store.connection import Held
from receiver.store.postgres import PostgresStore
from receiver.store.postgres.engine import PostgresEngine
from receiver.store.protocol import Query, TaskChange
from receiver.tasks import DEADLINE, GIVE_UP, Status
from tests.doubles import START, FakeClock
from tests.make import OTHER, TASK, arrival, endpoint, failure, registration, success, uuid
from tests.receiver.store.processes import (
    ask,
    briefly,
    deadlocks,
    gated,
    holding,
    intruder,
    processes,
    waiting,
)
from tests.receiver.store.suite import arrival_of, outcomes, types

pytestmark = pytest.mark.anyio


async def test_two_processes_are_told_of_the_same_tasks_at_once(
    url: str, both: list[PostgresStore]
) -> None:
    """Whatever meets: one result new in each, one a duplicate, one a conflict; and the end."""
    a, b = both
    before = await deadlocks(url)
    tasks = [uuid(1_000 + n) for n in range(12)]
    await a.add_endpoint(endpoint())
    jobs = []
    for store, order in ((a, tasks), (b, tasks[::-1])):
        for task in order:
            bodies = [success(1), success(2), success(3), success(1, seed=7)]
            jobs += [store.record(arrival_of(task, body, expected=3)) for body in bodies]
    receipts = await asyncio.gather(*jobs)
    found = [receipt.outcome for receipt in receipts]
    assert found.count(Outcome.RECORDED) == 3 * len(tasks)
    assert found.count(Outcome.CONFLICT) + found.count(Outcome.DUPLICATE) == 5 * len(tasks)
    for task in tasks:
        state = await a.task(task)
        assert (state.status, state.received, state.succeeded) == (Status.SUCCEEDED, 3, 3)
        assert [result.index for result in await b.results(task)] == [0, 1, 2]
    told = await types(a)
    assert told.count("task.completed") == len(tasks)
    assert told.count("result.succeeded") == 3 * len(tasks)
    ((count,),) = await ask(url, "SELECT count(*) FROM deliveries")
    assert count == 4 * len(tasks)
    assert await deadlocks(url) == before


async def test_what_both_only_count_is_counted(url: str, both: list[PostgresStore]) -> None:
    """No row that is new tells the two apart: each has to see what the other one wrote."""
    await both[0].record(arrival(success(1), expected=2))
    for _ in range(10):
        jobs = [store.record(arrival(success(1), expected=2)) for store in both]
        receipts = await asyncio.gather(*jobs)
        assert [receipt.outcome for receipt in receipts] == [Outcome.DUPLICATE] * 2
    ((count, repeats),) = await ask(
        url, "SELECT t.duplicates, c.repeats FROM tasks t JOIN callbacks c ON c.task_n = t.n"
    )
    assert (count, repeats) == (20, 20)


async def test_tasks_that_nobody_knew_are_made_once_in_whatever_order(
    url: str, both: list[PostgresStore]
) -> None:
    """Both insert the same rows: the second waits, fails, and is done anew as a whole."""
    a, b = both
    before = await deadlocks(url)
    tasks = [uuid(2_000 + n) for n in range(6)]
    theirs = (
        "INSERT INTO tasks (n, id, platform, project, status, created_at, submit_state)"
        f" VALUES (1, '\\x{tasks[3].replace('-', '')}', '', '', '', 0, '')"
    )
    async with intruder(url, theirs) as raw:  # both wait for a task in the middle of theirs
        first = asyncio.gather(*[a.record(arrival_of(task, success(1))) for task in tasks])
        await waiting(url)
        second = asyncio.gather(*[b.record(arrival_of(task, failure())) for task in tasks[::-1]])
        await waiting(url, 2)
        await raw.execute("ROLLBACK")
        await asyncio.gather(first, second)
    assert {(await a.task(task)).received for task in tasks} == {2}
    assert (await types(a)).count("task.completed") == 6
    assert await deadlocks(url) == before


async def test_what_was_in_the_way_is_tried_again_and_nothing_is_there_twice(
    url: str, both: list[PostgresStore]
) -> None:
    """The other one's task came first: every row of the second try has an id of its own."""
    a, b = both
    async with intruder(url, holding(Held.EVENTS)):
        early = asyncio.create_task(a.record(arrival(success(1), expected=2)))
        await waiting(url)  # its task is there, and not committed
        late = asyncio.create_task(b.record(arrival(success(1), success(2), expected=2)))
        await waiting(url, 2)
    assert [(await early).outcome, (await late).outcome] == [Outcome.RECORDED] * 2
    assert await outcomes(a) == ["recorded", "recorded"]
    assert await types(a) == ["result.succeeded", "result.succeeded", "task.completed"]
    assert (await b.task(TASK)).received == 2
    rows = await ask(url, "SELECT id FROM results UNION ALL SELECT id FROM callbacks")
    assert len(rows) == len(set(rows)) == 4


async def test_a_deadlock_ends_for_one_of_the_two_and_is_tried_again(
    url: str, both: list[PostgresStore]
) -> None:
    a, _ = both
    tasks = [TASK, uuid(1), OTHER]
    for task in tasks:
        await a.register(registration(task, expected=1))
    # Somebody locks against the order that all of ours keep to.
    theirs = "SELECT 1 FROM tasks WHERE id = '\\x{}' FOR UPDATE"
    first, second, last = (theirs.format(task.replace("-", "")) for task in tasks)
    async with (
        intruder(url, second) as between,
        intruder(url, "SET LOCAL deadlock_timeout = '1min'", last) as raw,
    ):
        mine = [arrival_of(task, success(1)) for task in tasks]
        recording = [asyncio.create_task(a.record(one)) for one in mine]
        await waiting(url)
        crossing = asyncio.create_task(raw.execute(first))
        await waiting(url, 2)
        # Who waits looks once for a deadlock, so ours must not wait for the last before there is
        # one; and then it is ours that the server ends.
        await between.execute("COMMIT")
        await crossing
        await raw.execute("COMMIT")
        assert [(await one).outcome for one in recording] == [Outcome.RECORDED] * 3
    assert await deadlocks(url) > 0
    assert (await types(a)).count("task.completed") == 3


@pytest.mark.parametrize("code", ["40001", "0A000", "57014", "55P03"])
async def test_what_may_work_a_moment_later_is_tried_again(
    url: str, both: list[PostgresStore], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    a, _ = both
    commit, tries = PostgresEngine.commit, 0

    def fails_at_first(engine: PostgresEngine) -> None:
        nonlocal tries
        if engine is a._engine:
            tries += 1
            if tries < 4:
                raise asyncpg.PostgresError.new({"C": code, "M": "in the way"})
        commit(engine)

    monkeypatch.setattr(PostgresEngine, "commit", fails_at_first)
    assert (await a.record(arrival(success(1)))).outcome is Outcome.RECORDED
    assert tries == 4
    assert await outcomes(a) == ["recorded"]
    assert await types(a) == ["result.succeeded", "task.completed"]
    assert a.healthy


async def test_what_always_fails_fails_alone(both: list[PostgresStore]) -> None:
    """A text that no text of PostgreSQL can be, in the middle of a batch."""
    a, _ = both
    poison = arrival_of(uuid(3), success(1), remote="203.0.113.7\0")
    good = [arrival_of(uuid(n), success(1)) for n in (1, 2, 4, 5)]
    jobs = [a.record(one) for one in (*good[:2], poison, *good[2:])]
    found = await asyncio.gather(*jobs, return_exceptions=True)
    assert [isinstance(one, BaseException) for one in found] == [False, False, True, False, False]
    assert a.healthy
    assert await outcomes(a) == ["recorded"] * 4


async def test_a_number_that_fits_no_column_is_nobody_elses_trouble(
    both: list[PostgresStore],
) -> None:
    a, _ = both
    poison = arrival(success(1), expected=1 << 64)
    with pytest.raises(Exception, match="value out of"):
        await a.record(poison)
    assert a.healthy
    a.admit()


async def test_ids_of_a_tasks_events_rise_though_one_clock_is_ahead(url: str) -> None:
    clocks = FakeClock(START + 60_000), FakeClock(START), FakeClock(START)
    async with processes(url, 3, *clocks) as stores:
        for number in range(12):
            told = arrival(success(number), expected=12, received_at=stores[number % 3]._clock())
            await stores[number % 3].record(told)
        rows = await ask(url, "SELECT id FROM events ORDER BY seq")
        assert len(rows) == 13
        assert all(early[0] < late[0] for early, late in pairwise(rows))


async def test_two_whose_clocks_are_behind_do_not_give_the_same_ids(url: str) -> None:
    """Both go on above the same id, and must not be in each other's way with every write."""
    ahead, *behind = FakeClock(START + 60_000), FakeClock(), FakeClock()
    async with processes(url, 3, ahead, *behind) as (first, *others):
        await first.record(arrival_of(uuid(9_000), success(1)))
        for store in others:
            await store.record(arrival_of(uuid(9_001), success(others.index(store)), expected=9))
        made: list[set[int]] = [{store._next_id() for _ in range(500)} for store in others]
        assert not made[0] & made[1]


async def test_deadlines_that_two_look_for_at_once_are_told_once(
    both: list[PostgresStore],
) -> None:
    a, b = both
    for number in range(30):
        await a.register(registration(uuid(number), expected=1))
    now = START + DEADLINE
    counts = await asyncio.gather(*[store.note_overdue(now) for store in (a, b, a, b)])
    assert sum(counts) == 30
    now = START + GIVE_UP
    counts = await asyncio.gather(*[store.give_up(now) for store in (b, a, b, a)])
    assert sum(counts) == 30
    told = await types(a)
    assert {name: told.count(name) for name in set(told)} == {
        "task.overdue": 30,
        "result.failed": 30,
        "task.completed": 30,
    }


async def test_one_of_two_creates_a_task_and_only_that_one_may_submit_it(
    both: list[PostgresStore],
) -> None:
    a, b = both
    for number in range(8):
        asked = registration(uuid(number), expected=2)
        found = await asyncio.gather(*[one.register(asked) for one in (a, b)])
        assert sorted(found) == [False, True]
    differing = [registration(uuid(99), expected=n) for n in (2, 3)]
    jobs = [store.register(one) for store, one in zip(both, differing, strict=True)]
    outcome = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(one) for one in outcome if one is not True] == [Conflict]


async def test_one_of_two_says_how_many_results_a_task_owes(both: list[PostgresStore]) -> None:
    """A callback made it that did not know: whoever is second is told 409, not overruled."""
    a, b = both
    await a.record(arrival(success(1), expected=None, jti=None))
    with gated(a) as gate:
        early = asyncio.create_task(a.register(registration(TASK, expected=2)))
        await gate.reached()
        late = asyncio.create_task(b.register(registration(TASK, expected=3)))
        await briefly(late)
        gate.open()
        assert not await early
        with pytest.raises(Conflict):
            await late
    assert (await b.task(TASK)).expected == 2


async def test_a_callback_meets_the_deletion_of_its_task(
    url: str, both: list[PostgresStore]
) -> None:
    """Whichever is first, nothing is left of the task that was, and the callback is kept."""
    a, b = both
    await a.record(arrival(success(1), expected=2))
    with gated(a) as gate:
        deleting = asyncio.create_task(a.delete_task(TaskChange(TASK, START)))
        await gate.reached()
        recording = asyncio.create_task(b.record(arrival(success(2), expected=2)))
        await waiting(url)
        gate.open()
        await deleting
    assert (await recording).outcome is Outcome.RECORDED
    assert (await a.task(TASK)).received == 1
    assert len(await a.results(TASK)) == 1
    assert len((await a.callbacks(Query())).data) == 1


async def test_orphans_of_two_processes_keep_to_their_bound(both: list[PostgresStore]) -> None:
    """A body that names no task is kept once, whoever gets it."""
    a, b = both
    orphan = {"task_id": None, "jti": None, "body": b"{}", "unreadable": "bad_json"}
    with gated(a) as gate:
        early = asyncio.create_task(a.record(arrival(**orphan)))  # type: ignore[arg-type]
        await gate.reached()
        late = asyncio.create_task(b.record(arrival(**orphan)))  # type: ignore[arg-type]
        await briefly(late)
        gate.open()
        await asyncio.gather(early, late)
    (kept,) = (await a.callbacks(Query())).data
    assert kept.outcome is Outcome.QUARANTINED


async def test_a_commit_that_was_a_rollback_is_none(
    both: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL answers COMMIT of a transaction that failed with ROLLBACK, and no error."""
    a, _ = both
    commit = PostgresEngine.commit

    def after_a_failure(engine: PostgresEngine) -> None:
        with pytest.raises(asyncpg.PostgresError):
            engine.connection.execute("SELECT 1 / 0")
        commit(engine)

    monkeypatch.setattr(a._engine, "commit", lambda: after_a_failure(a._engine))
    with pytest.raises(StoreUnavailable):
        await a.record(arrival(success(1)))
    monkeypatch.undo()
    assert await outcomes(a) == []
    assert (await a.record(arrival(success(1)))).outcome is Outcome.RECORDED

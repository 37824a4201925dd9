"""Lists of the SQLite store: what is rare is found without a look at all the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from receiver.callbacks import Outcome
from receiver.deliveries import State
from receiver.store.protocol import Query, Store
from receiver.store.sqlite import SqliteStore
from receiver.store.sqlite.readers import CONNECTIONS
from receiver.store.verbs import lists, repairs, sent
from tests.doubles import FakeClock
from tests.doubles import sent as saw
from tests.make import arrival, registration, settled, success, uuid
from tests.receiver.store.lists_suite import ListsSuite, check_callbacks, check_deliveries, fill
from tests.receiver.store.suite import Opener, arrival_of, claim, overdue, queued, states

pytestmark = pytest.mark.anyio


class TestSqliteLists(ListsSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock)

        return open_it


INDEXES = {
    State.DEAD: "deliveries_dead",
    State.CANCELED: "deliveries_canceled",
    State.SENDING: "deliveries_sending",
    State.PENDING: "deliveries_due",
}


async def plan(
    store: SqliteStore,
    query: Query,
    ends: Sequence[int] | None = None,
    *,
    queue_is_long: bool = False,
) -> list[str]:
    """How SQLite finds a page of deliveries."""
    sql, values = sent.page_of(query, ends, queue_is_long=queue_is_long)
    return [row["detail"] for row in await store._reads.rows(f"EXPLAIN QUERY PLAN {sql}", values)]


@pytest.mark.parametrize("state", INDEXES)
async def test_a_state_that_few_have_is_found_in_its_index(tmp_path: Path, state: State) -> None:
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        first = (await plan(store, Query(state=state)))[1]
        assert INDEXES[state] in first.split()
        with_type = await plan(store, Query(state=state, event_type="result.*"))
        assert INDEXES[state] in with_type[0]


async def test_a_long_queue_is_not_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        found = await plan(store, Query(state=State.PENDING), queue_is_long=True)
        assert found[1] == "SCAN d"  # in the order of the list, until a page is full
        await queued(store, 3)
        shown = [one.id for one in (await store.deliveries(Query(state=State.PENDING))).data]
        monkeypatch.setattr(sent, "FEW", 2)
        long = [one.id for one in (await store.deliveries(Query(state=State.PENDING))).data]
        assert long == shown == sorted(shown, reverse=True)


async def test_what_leads_to_a_few_by_itself_is_not_led_elsewhere(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        added = await queued(store, 1)
        (one,) = (await store.deliveries(Query(endpoint=added.id))).data
        by_task = await plan(store, Query(state=State.DEAD, task=uuid(1)))
        assert by_task[0] == "SEARCH e USING INDEX events_by_task (task_n=?)"
        by_event = await plan(store, Query(state=State.DEAD, event=one.event_id))
        assert by_event[1] == "SEARCH d USING PRIMARY KEY (event_id=?)"


async def test_lists_by_state_have_their_filters_and_cursors(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        added = await queued(store, 6)
        for number, claimed in enumerate(await claim(store, limit=4)):
            state = State.SUCCEEDED if number % 2 else State.DEAD
            await store.settle(settled(claimed, state, outcome=saw(200 if number % 2 else 500)))
        pending = (await store.deliveries(Query(state=State.PENDING))).data
        await store.cancel(pending[0].id, 1)
        assert sorted(await states(store)) == sorted(
            ["dead", "dead", "succeeded", "succeeded", "pending", "canceled"]
        )
        for state, count in ((State.DEAD, 2), (State.CANCELED, 1), (State.SUCCEEDED, 2)):
            assert await states(store, state=state) == [state.value] * count
            assert len(await states(store, state=state, endpoint=added.id)) == count
            assert await states(store, state=state, event_type="task.*") == []
        page = await store.deliveries(Query(state=State.DEAD, limit=1))
        assert page.next_cursor is not None
        rest = await store.deliveries(Query(state=State.DEAD, limit=1, before=page.next_cursor))
        assert rest.next_cursor is None
        assert rest.data[0].id < page.data[0].id


async def test_overdue_tasks_are_found_in_their_index(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        await overdue(store, uuid(1))
        await store.register(registration(uuid(2)))
        for asked, found in ((True, uuid(1)), (False, uuid(2))):
            assert [one.id for one in (await store.tasks(Query(overdue=asked))).data] == [found]
        rows = await store._reads.rows(
            "EXPLAIN QUERY PLAN SELECT * FROM tasks WHERE overdue = 1 ORDER BY n DESC LIMIT 9"
        )
        assert "tasks_ever_overdue" in rows[0]["detail"]


async def test_odd_callbacks_are_found_in_their_index(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        await store.record(arrival(success(1)))
        await store.record(arrival(success(1, seed=1)))
        await store.record(arrival_of(uuid(2), success(2)))
        for outcome, count in ((Outcome.CONFLICT, 1), (Outcome.RECORDED, 2), (Outcome.EXPIRED, 0)):
            found = (await store.callbacks(Query(outcome=outcome))).data
            assert [one.outcome for one in found] == [outcome] * count


async def test_alerts_are_looked_for_among_alerts(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        rows = await store._reads.rows(f"EXPLAIN QUERY PLAN {repairs.ALERTS}", (1,))
        assert [row["detail"].partition(" USING")[0] for row in rows] == ["SCAN a", "SEARCH e"]


async def test_whichever_way_a_list_is_found_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        ends = await fill(store)
        for module, name in ((sent, "ARMS"), (sent, "FEW"), (lists, "FEW")):
            monkeypatch.setattr(module, name, 1)
        await check_deliveries(store, ends)
        await check_callbacks(store)


def walks(plan: Sequence[str]) -> bool:
    """Whether SQLite looks at all of a table that grows."""
    tables = {"tasks", "t", "callbacks", "c", "events", "e", "deliveries"}
    return any(step.startswith("SCAN") and step.split()[1] in tables for step in plan)


@pytest.mark.parametrize(
    "query",
    [
        Query(project="film"),
        Query(event_type="result.failed"),
        Query(project="film", event_type="task.*"),
    ],
)
async def test_the_few_of_a_project_or_type_are_found_without_the_rest(
    tmp_path: Path, query: Query
) -> None:
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:

        async def steps(statement: sent.Statement) -> list[str]:
            sql, values = statement
            rows = await store._reads.rows(f"EXPLAIN QUERY PLAN {sql}", values)
            return [row["detail"] for row in rows]

        for one in (query, replace(query, before=(9, 9))):
            ends = [1, 2] if one.project else None
            first = await plan(store, one, ends, queue_is_long=True)
            assert not walks(first)
            assert "SCAN d" not in first[:1]
            assert "deliveries_by_endpoint" in " ".join(first) or "events_rare_by_id" in first[0]
        assert not walks(await steps(lists.events_of(query)))
        if query.project:
            assert "tasks_by_project" in (await steps(lists.tasks_of(query)))[0]
            found = await steps(lists.callbacks_of(query, whole=False, is_small=True))
            assert "tasks_by_project" in found[0]
            assert "callbacks_by_task" in found[1]


async def test_who_reads_much_gets_before_nobody_who_waits(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        done: list[int] = []

        async def read_much(who: int) -> None:
            for _ in range(20):
                async with store._readers._connection():
                    await asyncio.sleep(0)  # a read that takes one turn, whichever thread is slow
                    done.append(who)

        await asyncio.gather(*map(read_much, range(CONNECTIONS + 1)))
        for who in range(CONNECTIONS + 1):  # each has had its part when half of it is done
            assert 9 <= done[: len(done) // 2].count(who) <= 11

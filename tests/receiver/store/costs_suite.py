"""What every store must sum up of tasks' costs. A store's own test supplies `open_store`."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from receiver.clock import DAY, from_datetime, to_datetime
from receiver.costs import Cost, CostSum, Grouping
from receiver.errors import Invalid
from receiver.platforms.items import Kind
from receiver.results import Result
from receiver.store.protocol import CostPage, Query, Store, TaskChange
from receiver.tasks import Task
from receiver.tokens import Source
from tests.doubles import START, FakeClock
from tests.make import OTHER, TASK, arrival, failure, registration, success, uuid
from tests.receiver.store.suite import Opener, arrival_of

NOON = START - START % DAY + DAY // 2
GROUPINGS = ("task", "model", "day", "tag:team", "project", "platform")


def by(text: str, **query: Any) -> Query:
    """A query of costs."""
    return Query(by=Grouping.read(text), **query)


def cost(value: str | None, cost: float | None, *counts: int) -> Cost:
    """A group: its value, its cost; results, failed, without_cost, tasks."""
    names = ("results", "failed", "without_cost", "tasks")
    return Cost(value=value, cost=cost, **dict(zip(names, counts, strict=True)))


def total(cost: float | None, *counts: int) -> CostSum:
    names = ("results", "failed", "without_cost", "tasks")
    return CostSum(cost=cost, **dict(zip(names, counts, strict=True)))


async def pages(store: Store, query: Query) -> list[CostPage]:
    """Every page of a list."""
    found = [await store.costs(query)]
    while (cursor := found[-1].next_cursor) is not None:
        settings = {name: getattr(query, name) for name in ("by", "limit", "project", "since")}
        found.append(await store.costs(Query(**settings, before=cursor)))
    return found


def summed(results: list[tuple[Task, Result]]) -> CostSum:
    """The same sum, result by result."""
    micros = [round(result.cost * 1e6) for _, result in results if result.cost is not None]
    failed = [result for _, result in results if result.kind is Kind.FAILED]
    counts = len(results), len(failed), len(results) - len(micros), len({t.id for t, _ in results})
    return total(sum(micros) / 1e6 if micros else None, *counts)


VALUES: dict[str, Callable[[Task, Result], str | None]] = {
    "task": lambda task, _: task.id,
    "model": lambda task, _: task.model,
    "day": lambda _, result: result.received_at.date().isoformat(),
    "tag:team": lambda task, _: task.tags.get("team"),
    "project": lambda task, _: task.project,
    "platform": lambda task, _: task.platform,
}


@pytest.mark.anyio
class CostsSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    @pytest.mark.parametrize("grouping", GROUPINGS)
    async def test_without_results_nothing_was_paid(self, store: Store, grouping: str) -> None:
        await store.register(registration())
        found = await store.costs(by(grouping))
        assert (found.data, found.next_cursor, found.total) == ([], None, total(None, 0, 0, 0, 0))

    async def test_a_result_without_a_cost_is_counted_beside_the_sum(self, store: Store) -> None:
        await store.register(registration(expected=3, model="pixverse:1@6"))
        await store.record(arrival(success(1), success(2, cost=None), failure()))
        for grouping, value in (("task", TASK), ("model", "pixverse:1@6")):
            found = await store.costs(by(grouping))
            assert found.data == [cost(value, 0.4715, 3, 1, 2, 1)]
            assert found.total == total(0.4715, 3, 1, 2, 1)

    async def test_where_no_cost_was_reported_the_sum_is_none_and_free_is_not(
        self, store: Store
    ) -> None:
        await store.record(arrival(success(cost=None), tags={"team": "a"}))
        await store.record(arrival_of(OTHER, success(2, cost=0), tags={"team": "b"}))
        found = await store.costs(by("tag:team"))
        assert found.data == [cost("b", 0.0, 1, 0, 0, 1), cost("a", None, 1, 0, 1, 1)]
        assert found.total == total(0.0, 2, 0, 1, 2)

    async def test_what_came_twice_or_in_conflict_is_paid_once(self, store: Store) -> None:
        for again in (success(), success(), success(cost=9)):
            await store.record(arrival(again, expected=2))
        assert (await store.costs(by("task"))).data == [cost(TASK, 0.4715, 1, 0, 0, 1)]

    async def test_a_placeholder_that_a_late_result_replaced_counts_no_more(
        self, store: Store
    ) -> None:
        await store.register(registration(expected=2, give_up_at=START + 10))
        await store.give_up(START + 10)
        assert (await store.costs(by("task"))).data == [cost(TASK, None, 2, 2, 2, 1)]
        await store.record(arrival(success(), received_at=START + 20))
        assert (await store.costs(by("task"))).data == [cost(TASK, 0.4715, 2, 1, 1, 1)]

    @pytest.mark.parametrize("grouping", GROUPINGS)
    async def test_no_amount_is_too_large_to_be_summed_up(
        self, store: Store, grouping: str
    ) -> None:
        for number in range(20):
            found = success(number, cost=9e11)
            await store.record(arrival_of(uuid(number // 10), found, expected=20))
        await store.register(registration(OTHER))
        sums = await store.costs(by(grouping))
        assert sums.total == total(2e6, 20, 0, 0, 2)
        assert sum(one.cost or 0 for one in sums.data) == 2e6

    async def test_a_failed_result_that_was_paid_for_counts(self, store: Store) -> None:
        await store.record(arrival(failure(cost=0.1)))
        assert (await store.costs(by("model"))).data == [cost(None, 0.1, 1, 1, 0, 1)]

    async def test_a_day_is_utcs_and_a_task_may_have_several(self, store: Store) -> None:
        midnight = NOON + DAY // 2
        for number, came in enumerate((midnight - 1, midnight, midnight + 1)):
            await store.record(arrival(success(number), expected=3, received_at=came))
        found = await store.costs(by("day"))
        assert found.data == [
            cost(str(to_datetime(midnight).date()), 0.943, 2, 0, 0, 1),
            cost(str(to_datetime(NOON).date()), 0.4715, 1, 0, 0, 1),
        ]
        assert found.total == total(1.4145, 3, 0, 0, 1)
        within = await store.costs(by("day", since=midnight, until=midnight + 1))
        assert within.data == [cost(str(to_datetime(midnight).date()), 0.4715, 1, 0, 0, 1)]
        assert within.total == total(0.4715, 1, 0, 0, 1)

    @pytest.mark.parametrize("name", ["team", "a.b", "ü", "a\\b", "a b[0]", "$", "'; --"])
    async def test_a_tag_may_have_any_name_but_one_with_quotation_marks(
        self, store: Store, name: str
    ) -> None:
        await store.record(arrival(success(), tags={name: "x"}))
        assert (await store.costs(by(f"tag:{name}"))).data == [cost("x", 0.4715, 1, 0, 0, 1)]
        assert (await store.costs(by("task", tag=(name, "x")))).total == total(0.4715, 1, 0, 0, 1)
        assert (await store.costs(by("task", tag=(name, "y")))).total == total(None, 0, 0, 0, 0)

    async def test_the_filters_are_those_of_tasks(self, store: Store) -> None:
        await store.register(registration(TASK, model="m", project="film", tags={"team": "a"}))
        await store.record(arrival(success(), project="film"))
        await store.record(arrival_of(OTHER, success(2), expected=2))
        for one, other in (
            ({"model": "m"}, {"model": "n"}),
            ({"project": "film"}, {"project": "music"}),
            ({"tag": ("team", "a")}, {"tag": ("team", "b")}),
            ({"status": "succeeded"}, {"status": "failed"}),
            ({"platform": "runware", "model": "m"}, {"platform": "other"}),
        ):
            assert [found.value for found in (await store.costs(by("task", **one))).data] == [TASK]
            for grouping in GROUPINGS:
                assert (await store.costs(by(grouping, **other))).data == []

    async def test_a_query_that_names_no_grouping_is_by_model(self, store: Store) -> None:
        await store.register(registration(model="m"))
        await store.record(arrival(success()))
        assert [found.value for found in (await store.costs(Query())).data] == ["m"]

    async def test_what_costs_most_comes_first(self, store: Store) -> None:
        for number, paid in enumerate((1, 5, 3)):
            await store.register(registration(uuid(number), model=f"m{number}"))
            await store.record(arrival_of(uuid(number), success(number, cost=paid)))
        assert [found.value for found in (await store.costs(by("model"))).data] == [
            "m1",
            "m2",
            "m0",
        ]

    async def test_what_is_deleted_costs_nothing_any_more(self, store: Store) -> None:
        await store.record(arrival(success()))
        await store.delete_task(TaskChange(TASK, START))
        assert (await store.costs(by("model"))).total == total(None, 0, 0, 0, 0)

    @pytest.mark.parametrize("grouping", GROUPINGS)
    async def test_a_cursor_of_another_list_is_refused(self, store: Store, grouping: str) -> None:
        with pytest.raises(Invalid) as caught:
            await store.costs(by(grouping, before=(1, 2, 3)))
        assert caught.value.evidence["parameter"] == "cursor"

    @pytest.mark.parametrize("seed", range(3))
    async def test_every_sum_is_that_of_the_results_one_by_one(
        self, store: Store, clock: FakeClock, seed: int
    ) -> None:
        await _live(store, clock, random.Random(seed))
        tasks = (await store.tasks(Query(limit=200))).data
        every = [(task, result) for task in tasks for result in await store.results(task.id)]
        assert any(result.superseded for _, result in every)
        counted = [(task, result) for task, result in every if not result.superseded]
        assert sum(round((task.cost or 0) * 1e6) for task in tasks) == round(
            (summed(counted).cost or 0) * 1e6
        )
        for grouping in GROUPINGS:
            for query in ({}, {"since": clock.now - DAY}, {"project": "film"}):
                kept = [(task, result) for task, result in counted if _fits(task, result, query)]
                found = await pages(store, by(grouping, limit=2, **query))
                assert found[0].total == summed(kept)
                assert [page.total for page in found[1:]] == [None] * (len(found) - 1)
                groups = defaultdict(list)
                for task, result in kept:
                    groups[VALUES[grouping](task, result)].append((task, result))
                got = {one.value: one for page in found for one in page.data}
                assert sum(len(page.data) for page in found) == len(got) == len(groups)
                for value, one in got.items():
                    assert one == Cost(value=value, **summed(groups[value]).model_dump())


def _fits(task: Task, result: Result, query: dict[str, Any]) -> bool:
    late_enough = from_datetime(result.received_at) >= query.get("since", 0)
    return bool(late_enough and task.project == query.get("project", task.project))


async def _live(store: Store, clock: FakeClock, dice: random.Random) -> None:
    await store.register(registration(expected=2, give_up_at=clock.now, project="film"))
    await store.give_up(clock.now)
    await store.record(arrival(success(), received_at=clock.now, project="film"))
    for number in range(30):
        clock.now += dice.randrange(DAY // 3)
        expected, task = dice.randint(1, 4), uuid(number)
        project = dice.choice(["film", "default"])
        tags = {} if dice.random() < 0.3 else {"team": dice.choice("ab")}
        if dice.random() < 0.7:
            model = dice.choice([None, "m", "n"])
            asked = {"model": model, "tags": tags, "project": project, "expected": expected}
            await store.register(registration(task, clock.now, give_up_at=clock.now + 9, **asked))
        for result in range(dice.randint(0, expected)):
            paid = dice.choice([None, 0, 0.1, 0.4715, 3])
            item = success(100 * number + result, cost=paid)
            found = failure(f"e{result}", cost=paid) if dice.random() < 0.2 else item
            source = dice.choice([Source.CALLBACK, Source.POLL])
            given = {"expected": expected, "tags": tags, "project": project, "source": source}
            for _ in range(dice.randint(1, 2)):
                await store.record(arrival_of(task, found, received_at=clock.now, **given))
            clock.now += dice.randrange(DAY)
            if dice.random() < 0.5:
                await store.give_up(clock.now)

"""What every store lists by its filters: exactly that, in order, whatever else there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from itertools import product
from typing import Any

import pytest

from receiver.deliveries import State
from receiver.endpoints import types_like
from receiver.store.protocol import Query, Store
from tests.doubles import START, FakeClock
from tests.make import arrival, endpoint, failure, registration, settled, success, uuid
from tests.receiver.store.suite import Opener, arrival_of, claim

FILM, ADS, NONE = "film", "ads", "nobody"  # "default" has tasks, and no endpoint
PROJECTS = (None, "default", FILM, ADS, NONE)
TYPES = (None, "result.succeeded", "result.failed", "endpoint.test", "task.*", "endpoint.*")
STATES = (None, State.SUCCEEDED, State.DEAD, State.CANCELED, State.PENDING)


async def fill(store: Store) -> Sequence[str]:
    """Tasks, callbacks, events and deliveries of several projects, in turns; the endpoints."""
    ends = [
        (await store.add_endpoint(endpoint(project, event_types=["*"]))).id
        for project in (FILM, FILM, ADS)
    ]
    for number in range(12):
        project = (FILM, "default", ADS, FILM)[number % 4]
        item = failure() if number % 3 == 0 else success(number)
        await store.register(registration(uuid(number), project=project))
        await store.record(
            arrival_of(uuid(number), item, project=project, received_at=START + number)
        )
    await store.record(arrival(task_id=None, jti=None, body=b"?"))
    for end in ends:
        await store.test_endpoint(end, START + 20)
    for number, claimed in enumerate(await claim(store, START + 30, limit=12)):
        state = (State.SUCCEEDED, State.DEAD, State.SUCCEEDED)[number % 3]
        await store.settle(settled(claimed, state, now=START + 30))
    pending = (await store.deliveries(Query(limit=200, state=State.PENDING))).data
    for one in pending[::3]:
        await store.cancel(one.id, START + 40)
    return ends


async def everything(ask: Callable[[Query], Any], **filters: Any) -> Sequence[Any]:
    """All pages of a list."""
    found, before = list[Any](), None
    while True:
        page = await ask(Query(limit=3, before=before, **filters))
        found += page.data
        if page.next_cursor is None:
            return found
        before = page.next_cursor


async def check_deliveries(store: Store, ends: Sequence[str]) -> None:
    """Every combination of filters finds what the list of all has of it."""
    owner = dict(zip(ends, (FILM, FILM, ADS), strict=True))
    every = await everything(store.deliveries)
    assert {one.state for one in every} == {state for state in STATES if state}
    assert [one.id for one in every] == sorted((one.id for one in every), reverse=True)
    asked = product(PROJECTS, TYPES, STATES, (None, ends[0], ends[2]))
    for project, event_type, state, end in asked:
        found = await everything(
            store.deliveries, project=project, event_type=event_type, state=state, endpoint=end
        )
        assert [one.id for one in found] == [
            one.id
            for one in every
            if project in (None, owner[one.endpoint_id])
            and (event_type is None or one.event_type in types_like(event_type))
            and state in (None, one.state)
            and end in (None, one.endpoint_id)
        ], (project, event_type, state, end)


async def check_callbacks(store: Store) -> None:
    """A project's callbacks, of all outcomes and of one."""
    owner = {task.id: task.project for task in await everything(store.tasks)}
    every = await everything(store.callbacks)
    for project, outcome in product(PROJECTS, (None, "recorded", "quarantined")):
        found = await everything(store.callbacks, project=project, outcome=outcome)
        assert [one.id for one in found] == [
            one.id
            for one in every
            if project in (None, owner[one.task_id] if one.task_id else "default")
            and outcome in (None, one.outcome)
        ], (project, outcome)


@pytest.mark.anyio
class ListsSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    async def test_deliveries_are_listed_by_any_filters_together(self, store: Store) -> None:
        await check_deliveries(store, await fill(store))

    async def test_tasks_callbacks_and_events_of_a_project_are_listed(self, store: Store) -> None:
        await fill(store)
        await check_callbacks(store)
        events, tasks = await everything(store.events), await everything(store.tasks)
        for project, event_type in product(PROJECTS, TYPES):
            found = await everything(store.events, project=project, event_type=event_type)
            assert [one.seq for one in found] == [
                one.seq
                for one in events
                if project in (None, one.project)
                and (event_type is None or one.type in types_like(event_type))
            ], (project, event_type)
        for project, status in product(PROJECTS, (None, "succeeded", "failed", "pending")):
            kept = await everything(store.tasks, project=project, status=status)
            assert [one.id for one in kept] == [
                one.id
                for one in tasks
                if project in (None, one.project) and status in (None, one.status)
            ], (project, status)

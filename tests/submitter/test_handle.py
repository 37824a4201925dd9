"""A submitted task: its results as they come, and what waiting for them means."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from receiver.client import Client, Result, TaskSpec
from receiver.platforms.items import Kind
from submitter.errors import LedgerUnavailable, WaitTimedOut
from submitter.handle import SubmittedTask
from tests.doubles import ADMIN_TOKEN, LIMIT_S, Running, running
from tests.make import failure, success
from tests.submitter.stage import RECEIVER

pytestmark = [pytest.mark.anyio, pytest.mark.process]


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("receiver"), **RECEIVER) as found:
        yield found


async def registered(client: Client, expected: int) -> SubmittedTask:
    """A task that owes results, as its submitter holds it."""
    task_id = str(uuid4())
    spec = TaskSpec(platform="runware", expected=expected)
    url = (await client.register_task(task_id, spec)).webhook_url
    return SubmittedTask(task_id, webhook_url=url, _client=client)


async def call_back(task: SubmittedTask, item: dict[str, Any]) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(task.webhook_url, json={"data": [item]})
    assert answer.json()["status"] == "recorded", answer.text


async def test_each_result_is_given_when_it_has_come(receiver: Running) -> None:
    async with (
        asyncio.timeout(LIMIT_S),
        Client(receiver.ready["url"], ADMIN_TOKEN) as client,
    ):
        task = await registered(client, 3)
        stream = task.results()
        told: list[Result] = []
        # The next callback is sent only after the one before has been given out.
        for number in (5, 3, 4):
            waiting = asyncio.ensure_future(anext(stream))
            await call_back(task, success(number, task.id))
            told.append(await waiting)
        assert [result async for result in stream] == []
        assert [result.index for result in told] == [0, 1, 2]
        assert [result.id for result in told] == [
            result.id for result in await client.results(task.id)
        ]
        media = [result.media[0].id for result in told]
        assert media == [success(number, task.id)["videoUUID"] for number in (5, 3, 4)]


async def test_results_that_came_together_are_given_once_each(receiver: Running) -> None:
    async with (
        asyncio.timeout(LIMIT_S),
        Client(receiver.ready["url"], ADMIN_TOKEN) as client,
    ):
        task = await registered(client, 3)
        stream = task.results()
        await call_back(task, success(1, task.id))
        await call_back(task, failure(task=task.id))
        first = await anext(stream)
        await call_back(task, success(2, task.id))
        rest = [result async for result in stream]
        assert [first.kind, *(result.kind for result in rest)] == [
            Kind.SUCCEEDED,
            Kind.FAILED,
            Kind.SUCCEEDED,
        ]
        # And whoever comes later gets all of them again.
        assert [result async for result in task.results()] == [first, *rest]


async def test_waiting_ends_with_the_complete_task(receiver: Running) -> None:
    async with (
        asyncio.timeout(LIMIT_S),
        Client(receiver.ready["url"], ADMIN_TOKEN) as client,
    ):
        task = await registered(client, 2)
        waiting = asyncio.ensure_future(task.wait())
        await call_back(task, success(1, task.id))
        assert not waiting.done()
        await call_back(task, failure(task=task.id))
        done = await waiting
        assert (done.status, done.succeeded, done.failed) == ("partially_failed", 1, 1)
        assert (await task.wait(0)).status == "partially_failed"


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_waiting_in_vain_ends_with_its_time(receiver: Running, timeout: float) -> None:
    async with Client(receiver.ready["url"], ADMIN_TOKEN) as client:
        task = await registered(client, 1)
        with pytest.raises(WaitTimedOut) as caught:
            await task.wait(timeout)
        assert (caught.value.task_id, caught.value.waited_s) == (task.id, timeout)
        # It was told of no end, and can be waited for again.
        await call_back(task, success(1, task.id))
        assert (await task.wait(LIMIT_S)).succeeded == 1


async def test_the_url_and_the_token_are_not_shown(receiver: Running) -> None:
    async with Client(receiver.ready["url"], ADMIN_TOKEN) as client:
        task = await registered(client, 1)
        shown = f"{task!r} {task}"
    assert task.id in shown
    assert "sig" not in shown
    assert httpx.URL(task.webhook_url).params["sig"] not in shown
    assert ADMIN_TOKEN not in shown


async def test_without_a_ledger_there_is_nothing_to_wait_for() -> None:
    task = SubmittedTask(str(uuid4()))
    with pytest.raises(LedgerUnavailable):
        await task.wait(LIMIT_S)
    with pytest.raises(LedgerUnavailable):
        await anext(task.results())

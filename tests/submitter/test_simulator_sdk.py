"""Runware's official Python SDK against the simulator, with a webhookURL of a real receiver.

What the SDK can't work with is no simulation of the platform. Nothing here leaves the machine: the
session that the SDK is given notes whom it asks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import aiohttp
import anyio
import httpx
import pytest
from runware import RunOptions, Runware, RunwareError
from runware.types.sdk import RuntimeDependencies

from receiver.client import Task, TaskSpec
from receiver.tasks import RegisteredTask
from submitter.simulator.config import Knobs, SimulatorConfig
from submitter.simulator.serve import running as simulating
from tests.doubles import LIMIT_S, Running, running
from tests.submitter.stage import API_KEY, FAILING, MODEL, PARTIAL, RECEIVER, Stage, stage

pytestmark = [pytest.mark.anyio, pytest.mark.process]

Json = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all: every test has its own tasks."""
    with running(tmp_path_factory.mktemp("receiver"), **RECEIVER) as found:
        yield found


@asynccontextmanager
async def the_sdk(simulator: str, **options: Any) -> AsyncIterator[Runware]:
    """The official client over REST; it may ask nobody but the simulator."""
    asked: set[str] = set()

    async def note(
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        request: aiohttp.TraceRequestStartParams,
    ) -> None:
        asked.add(f"{request.url.scheme}://{request.url.authority}")

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(note)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        settings = {"http_base_url": f"{simulator}/v1", "max_retries": 0, **options}
        own = RuntimeDependencies(session=session)
        api_key = settings.pop("api_key", API_KEY)
        client = Runware(api_key=api_key, transport="rest", dependencies=own, **settings)
        async with client:
            yield client
    assert asked == {simulator}


def a_request(task: RegisteredTask | None = None, **changes: Any) -> Json:
    request = {
        "taskType": "videoInference",
        "taskUUID": task.id if task else str(uuid4()),
        "model": MODEL,
        "positivePrompt": "a paper boat",
        "width": 1280,
        "height": 720,
        "duration": 5,
        "includeCost": True,
        **changes,
    }
    return request | ({"webhookURL": task.webhook_url} if task else {})


async def register(scene: Stage, expected: int) -> RegisteredTask:
    return await scene.client.register_task(
        str(uuid4()), TaskSpec(platform="runware", expected=expected)
    )


async def completed(scene: Stage, task_id: str) -> Task:
    """The task in the ledger once all its results are in."""
    with anyio.fail_after(LIMIT_S):
        revision: int | None = None
        while True:
            task = await scene.client.task(task_id, wait=20 if revision else 0, revision=revision)
            assert task is not None
            if task.complete:
                return task
            revision = task.revision


async def test_a_video_is_polled_by_the_sdk_and_called_back_to_the_receiver(
    receiver: Running,
) -> None:
    seen: list[Json] = []
    async with stage(receiver) as scene, the_sdk(scene.simulator) as sdk:
        task = await register(scene, 2)
        request = a_request(task, numberResults=2)
        results = await sdk.run(request, RunOptions(on_result=seen.append))
        held = await completed(scene, task.id)
        recorded = await scene.client.results(task.id)
        (details,) = await sdk.get_task_details({"taskUUID": task.id})
        again = await sdk.get_response({"taskUUID": task.id})
    assert (held.succeeded, held.failed) == (2, 0)
    assert {each["taskUUID"] for each in results} == {task.id}
    made = {each["videoUUID"]: (each["videoURL"], each["seed"], each["cost"]) for each in results}
    kept = {each.media[0].id: (each.media[0].url, each.seed, each.cost) for each in recorded}
    assert len(made) == 2
    assert kept == made
    assert {each.source for each in recorded} == {"callback"}
    assert {each["videoUUID"] for each in seen} == set(made)
    assert {dict(each)["videoUUID"] for each in again} == set(made)
    archived: Json = dict(details)
    assert archived["request"][0]["webhookURL"] == task.webhook_url


async def test_the_sdk_polls_until_the_result_is_there() -> None:
    gate, found = anyio.Event(), []

    async def wait(seconds: float) -> None:
        await (gate.wait() if seconds == 99 else anyio.sleep(seconds))

    config = SimulatorConfig(knobs=Knobs(delays="99"))
    async with (
        simulating(config, sleep=wait) as url,
        the_sdk(url) as sdk,
        httpx.AsyncClient(trust_env=False) as http,
        anyio.create_task_group() as group,
    ):

        async def run() -> None:
            found.extend(await sdk.run(a_request(numberResults=2)))

        group.start_soon(run)
        with anyio.fail_after(LIMIT_S):
            polls = 0
            while polls < 2:
                polls = (await http.get(f"{url}/_control")).json()["counters"]["polls"][
                    "getResponse"
                ]
                await anyio.sleep(0.02)
        assert found == []
        gate.set()
    assert [each["status"] for each in found] == ["success"] * 2
    assert len({each["videoURL"] for each in found}) == 2


async def test_the_sdk_gets_the_result_of_a_callback_that_never_came(receiver: Running) -> None:
    async with stage(receiver, drop=1) as scene, the_sdk(scene.simulator) as sdk:
        task = await register(scene, 1)
        (result,) = await sdk.run(a_request(task))
        held = await scene.client.task(task.id)
    assert result["status"] == "success"
    assert held is not None
    assert held.received == 0


@pytest.mark.parametrize(
    ("model", "results", "code", "sorted_as"),
    [
        (FAILING, 1, "providerTimeout", "timeout"),
        (PARTIAL, 2, "contentPolicyViolation", "safety"),
        # The SDK looks for a capital T, so the reference's own example is nothing to it.
        (FAILING, 1, "timeoutProvider", "unknown"),
    ],
)
async def test_the_sdk_raises_what_the_receiver_records(
    receiver: Running, model: str, results: int, code: str, sorted_as: str
) -> None:
    async with stage(receiver, failure_code=code) as scene, the_sdk(scene.simulator) as sdk:
        task = await register(scene, results)
        with pytest.raises(RunwareError) as caught:
            await sdk.run(a_request(task, model=model, numberResults=results))
        held = await completed(scene, task.id)
        recorded = await scene.client.results(task.id)
    assert (caught.value.code, caught.value.task_uuid) == (sorted_as, task.id)
    assert (held.succeeded, held.failed) == (results - 1, 1)
    assert [each.error.code for each in recorded if each.error is not None] == [code]


@pytest.mark.parametrize(
    ("knobs", "changes", "code"),
    [
        ({}, {"duration": 6}, "validation"),
        ({}, {"width": 1281}, "validation"),
        ({}, {"providerSettings": {"pixverse": {"effect": "kiss kiss"}}}, "validation"),
        ({"submit_status": 401}, {}, "auth"),
        ({"submit_status": 402}, {}, "quota"),
        ({"submit_status": 400}, {}, "quota"),
        ({"submit_status": 429}, {}, "rateLimit"),
        ({"submit_status": 503}, {}, "serverError"),
    ],
)
async def test_the_sdk_sorts_refusals_as_those_of_the_platform(
    receiver: Running, knobs: Json, changes: Json, code: str
) -> None:
    async with stage(receiver, **knobs) as scene, the_sdk(scene.simulator) as sdk:
        with pytest.raises(RunwareError) as caught:
            await sdk.run(a_request(None, **changes))
    assert caught.value.code == code


async def test_a_task_that_exists_is_a_conflict_to_the_sdk(receiver: Running) -> None:
    async with stage(receiver) as scene, the_sdk(scene.simulator) as sdk:
        request = a_request()
        await sdk.run(request)
        with pytest.raises(RunwareError) as caught:
            await sdk.run(request)
    assert (caught.value.code, caught.value.parameter) == ("validation", "taskUUID")


async def test_the_sdk_tries_a_full_queue_again(receiver: Running) -> None:
    async with (
        stage(receiver, submit_status=429, submit_refusals=1) as scene,
        the_sdk(scene.simulator, max_retries=1, retry_delay=0) as sdk,
    ):
        (result,) = await sdk.run(a_request())
    assert result["status"] == "success"

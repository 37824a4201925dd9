"""Many tasks at once: a real receiver, and a platform that answers each task as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import stamina

from receiver.client import Client, SubmitState, Task
from scripts.proofs.ports import held_port
from submitter import drafts
from submitter.drafts import Draft, Prepared, batches
from submitter.errors import (
    AmbiguousSubmit,
    IdempotencyConflict,
    InvalidTask,
    LedgerUnavailable,
    OriginalNeeded,
    PlatformRejected,
    PlatformUnavailable,
    PublicUrlRefused,
    SubmitterError,
)
from submitter.handle import SubmittedTask
from submitter.platforms.runware import AT_ONCE, Runware
from submitter.submit import Submitted, Submitter
from submitter.tasks import GenerationTask
from tests.doubles import ADMIN_TOKEN, LIMIT_S, Running, running
from tests.submitter.stage import API_KEY, MODEL, PARAMETERS, RECEIVER, a_key, stage

pytestmark = [pytest.mark.anyio, pytest.mark.process]

Json = dict[str, Any]


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all: every test has its own tasks."""
    with running(tmp_path_factory.mktemp("receiver"), **RECEIVER) as found:
        yield found


@dataclass
class Scripted:
    """A platform: `says` answers each task of an array by its prompt; `arrays` is what came."""

    says: dict[str, Json | None] = field(default_factory=dict)
    arrays: list[list[Json]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        tasks = json.loads(request.content)
        if tasks[0]["taskType"] == "getResponse":
            missing = {"code": "taskNotFound", "taskUUID": tasks[0]["taskUUID"]}
            return httpx.Response(400, json={"errors": [missing]})
        self.arrays.append(tasks)
        faults = [
            {"message": "A sentence.", **said, "taskUUID": task["taskUUID"]}
            for task in tasks
            if (said := self.says.get(task["positivePrompt"]))
        ]
        taken = [
            {"taskType": task["taskType"], "taskUUID": task["taskUUID"]}
            for task in tasks
            if task["positivePrompt"] not in self.says
        ]
        return httpx.Response(400 if faults else 200, json={"data": taken, "errors": faults})


@asynccontextmanager
async def submitting(
    receiver: Running, platform: Callable[[httpx.Request], httpx.Response], **options: Any
) -> AsyncIterator[Submitter]:
    url = options.pop("base_url", "http://localhost/v1")
    runware = Runware(API_KEY, url, transport=httpx.MockTransport(platform))
    ledger = Client(receiver.ready["url"], ADMIN_TOKEN)
    async with Submitter(runware, ledger, **options) as submitter:
        yield submitter


def draft(prompt: str = "a boat", **more: Any) -> Draft:
    return Draft(model=MODEL, parameters={**PARAMETERS, "positivePrompt": prompt}, **more)


async def kept(receiver: Running, task_id: str) -> Task:
    async with Client(receiver.ready["url"], ADMIN_TOKEN) as ledger:
        found = await ledger.task(task_id)
    assert found is not None
    return found


def handles(told: list[Submitted]) -> list[SubmittedTask]:
    assert all(isinstance(one, SubmittedTask) for one in told), told
    return [one for one in told if isinstance(one, SubmittedTask)]


async def test_several_tasks_go_in_one_array_each_with_its_own_url(receiver: Running) -> None:
    async with stage(receiver) as scene, scene.submitter() as submitter:
        told = handles(
            await submitter.submit_many(
                [
                    draft("one", tags={"n": "1"}),
                    draft("two", number_results=2, metadata={"n": 2}),
                    draft("three", idempotency_key=(key := a_key())),
                ]
            )
        )
        arrays = [seen for seen in scene.seen if seen.server == "platform"]
        assert len(arrays) == 1
        assert [task["taskUUID"] for task in arrays[0].body] == [task.id for task in told]
        assert len({task["webhookURL"] for task in arrays[0].body}) == 3
        done = await asyncio.gather(*(task.wait(LIMIT_S) for task in told))
        assert [task.succeeded for task in done] == [1, 2, 1]
        assert [task.tags for task in done] == [{"n": "1"}, {}, {}]
        assert (done[1].metadata, done[2].client_ref) == ({"n": 2}, key)


async def test_what_one_task_comes_to_is_nothing_to_the_others(receiver: Running) -> None:
    platform = Scripted(
        {
            "no": {"code": "invalidWidth"},
            "poor": {"code": "insufficientCredits"},
            "silence": None,
            "full": {"code": "rateLimitExceeded"},
        }
    )
    taken = a_key()
    async with submitting(receiver, platform) as submitter:
        with stamina.set_testing(True, attempts=2):
            await submitter.submit_many([draft("earlier", idempotency_key=taken)])
            wrong = Draft(model=MODEL, parameters={**PARAMETERS, "duration": 7})
            other = draft("another", idempotency_key=taken)
            prompts = ["yes", "no", "poor", "silence", "full", "yes, too"]
            told = await submitter.submit_many([wrong, other, *map(draft, prompts)])
    kinds = [type(one) for one in told]
    assert kinds == [
        InvalidTask,
        IdempotencyConflict,
        SubmittedTask,
        PlatformRejected,
        PlatformRejected,
        AmbiguousSubmit,
        PlatformUnavailable,
        SubmittedTask,
    ]
    assert [one.code for one in told[3:5] if isinstance(one, SubmitterError)] == [
        "invalidWidth",
        "insufficientCredits",
    ]
    sent = {task["positivePrompt"]: task["taskUUID"] for array in platform.arrays for task in array}
    states = {prompt: (await kept(receiver, sent[prompt])) for prompt in prompts}
    assert {prompt: task.submit_state for prompt, task in states.items()} == {
        "yes": SubmitState.SUBMITTED,
        "no": SubmitState.REJECTED,
        "poor": SubmitState.REJECTED,
        "silence": SubmitState.UNKNOWN,
        "full": SubmitState.UNKNOWN,
        "yes, too": SubmitState.SUBMITTED,
    }
    assert states["no"].status == "failed"
    # What there was no room for is sent again, and it alone.
    assert [[task["positivePrompt"] for task in array] for array in platform.arrays[1:]] == [
        prompts,
        ["full"],
    ]


async def test_what_stays_open_can_be_submitted_again_at_once(receiver: Running) -> None:
    platform = Scripted({"silence": None})
    async with submitting(receiver, platform) as submitter:
        wanted = [draft("silence", idempotency_key=a_key()) for _ in range(2)]
        assert [type(one) for one in await submitter.submit_many(wanted)] == [AmbiguousSubmit] * 2
        platform.says.clear()
        again = handles(await submitter.submit_many(wanted))
    # The platform was asked after both, and knew neither.
    assert not any(task.in_flight for task in again)
    assert len(platform.arrays) == 2
    assert platform.arrays[0] != platform.arrays[1]  # the URLs are fresh
    ids = [[task["taskUUID"] for task in array] for array in platform.arrays]
    assert ids[0] == ids[1] == [task.id for task in again]


async def test_a_key_that_comes_twice_is_sent_once(receiver: Running) -> None:
    platform = Scripted()
    async with submitting(receiver, platform) as submitter:
        key = a_key()
        told = handles(await submitter.submit_many([draft(idempotency_key=key)] * 3))
        assert len({task.id for task in told}) == 1
        assert [task.in_flight for task in told].count(False) == 1
        callers = (submitter.submit_many([draft(idempotency_key=key), draft()]) for _ in range(4))
        await asyncio.gather(*callers)
    ids = [task["taskUUID"] for array in platform.arrays for task in array]
    assert ids.count(told[0].id) == 1
    assert len(ids) == len(set(ids)) == 5


async def test_many_go_in_several_arrays(receiver: Running) -> None:
    platform = Scripted()
    async with submitting(receiver, platform) as submitter:
        told = handles(await submitter.submit_many([draft()] * (2 * AT_ONCE + 1)))
    assert [len(array) for array in platform.arrays] == [AT_ONCE, AT_ONCE, 1]
    assert len({task.id for task in told}) == 2 * AT_ONCE + 1


async def test_without_a_receiver_none_is_sent(receiver: Running) -> None:
    platform = Scripted()
    ledger = Client(f"http://127.0.0.1:{held_port()}", ADMIN_TOKEN)
    runware = Runware(API_KEY, "http://localhost/v1", transport=httpx.MockTransport(platform))
    async with Submitter(runware, ledger) as submitter:
        told = await submitter.submit_many([draft(), draft()])
    assert [type(one) for one in told] == [LedgerUnavailable] * 2
    assert platform.arrays == []


async def test_a_url_that_nobody_can_reach_stops_them_all_and_lets_go_of_them(
    receiver: Running,
) -> None:
    platform = Scripted()
    wanted = [draft(idempotency_key=a_key()) for _ in range(2)]
    async with submitting(receiver, platform, base_url="https://platform.example") as submitter:
        told = await submitter.submit_many(wanted)
    assert [type(one) for one in told] == [PublicUrlRefused] * 2
    assert platform.arrays == []
    async with submitting(receiver, platform) as submitter:
        again = handles(await submitter.submit_many(wanted))
    assert [task.in_flight for task in again] == [False, False]
    assert len(platform.arrays) == 1


async def test_who_is_told_to_stop_lets_go_of_all_of_them(receiver: Running) -> None:
    sending = asyncio.Event()
    ids: list[str] = []

    async def hang(request: httpx.Request) -> httpx.Response:
        ids.extend(task["taskUUID"] for task in json.loads(request.content))
        sending.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    runware = Runware(API_KEY, "http://localhost/v1", transport=httpx.MockTransport(hang))
    async with Submitter(runware, Client(receiver.ready["url"], ADMIN_TOKEN)) as submitter:
        submit = asyncio.create_task(submitter.submit_many([draft(), draft()]))
        await sending.wait()
        submit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submit
    assert [(await kept(receiver, task)).submit_state for task in ids] == [SubmitState.UNKNOWN] * 2
    async with submitting(receiver, Scripted()) as submitter:
        assert not (await submitter.resume(ids[0])).in_flight


def of_size(characters: int) -> Prepared:
    parameters = {"positivePrompt": "x" * characters}
    return Prepared(GenerationTask(id="t", platform="p", model="m", parameters=parameters))


def test_a_batch_ends_where_it_would_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "LARGEST_BATCH", 1_000)
    sizes = [400, 400, 400, 2_000, 300, 10]
    found = [len(batch) for batch in batches([*map(of_size, sizes)], 20)]
    assert found == [2, 1, 1, 2]
    assert [len(batch) for batch in batches([of_size(1)] * 5, 2)] == [2, 2, 1]
    assert [*batches([], 2)] == []


IMAGE = "data:image/png;base64," + "iVBO" * 50_000


async def test_the_ledger_keeps_no_megabytes_and_the_platform_gets_all(receiver: Running) -> None:
    platform = Scripted({"silence": None})
    frames = {"inputs": {"frameImages": [{"image": IMAGE, "frame": "first"}]}}
    wanted = Draft(
        model="pixverse:1@2",
        parameters={"positivePrompt": "silence", "duration": 5, **frames},
        idempotency_key=a_key(),
    )
    async with submitting(receiver, platform) as submitter:
        (told,) = await submitter.submit_many([wanted])
        assert isinstance(told, AmbiguousSubmit)
        found = await kept(receiver, told.task_id)
        assert found.request is not None
        assert found.request["inputs"]["frameImages"][0]["image"].startswith("sha256:")
        assert len(json.dumps(found.request)) < 1_000
        platform.says.clear()
        for _ in range(2):  # the first one lets go of it
            with pytest.raises(OriginalNeeded, match=r"inputs\.frameImages\.0\.image") as caught:
                await submitter.resume(told.task_id)
            assert "same idempotency key" in str(caught.value)
        assert len(platform.arrays) == 1
        (again,) = handles(await submitter.submit_many([wanted]))
        assert (again.id, again.in_flight) == (told.task_id, False)
        other = {**frames, "positivePrompt": "silence", "duration": 8}
        with pytest.raises(IdempotencyConflict):
            await submitter.submit(wanted.model, other, idempotency_key=wanted.idempotency_key)
    sent = [array[0]["inputs"]["frameImages"][0]["image"] for array in platform.arrays]
    assert sent == [IMAGE, IMAGE]

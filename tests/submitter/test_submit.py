"""Submitting once, whatever breaks: a real receiver process, the simulator, both wires heard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest
import stamina

from receiver.client import (
    Client,
    EndpointSpec,
    Source,
    SubmitState,
    Task,
    TaskPatch,
    TaskSpec,
)
from scripts.proofs.ports import held_port
from submitter.errors import (
    AmbiguousSubmit,
    IdempotencyConflict,
    InvalidTask,
    LedgerUnavailable,
    PlatformRejected,
    PlatformUnavailable,
    PublicUrlRefused,
    SubmitterError,
)
from submitter.handle import SubmittedTask
from submitter.platforms.runware import Runware, request_of
from submitter.submit import Submitter
from submitter.tasks import GenerationTask, task_id_for_key
from tests.doubles import ADMIN_TOKEN, LIMIT_S, SIGNING_KEY, Running, running
from tests.flows.sink import Sink
from tests.submitter.stage import (
    API_KEY,
    MODEL,
    PARAMETERS,
    RECEIVER,
    Stage,
    a_key,
    stage,
)

pytestmark = [pytest.mark.anyio, pytest.mark.process]

BILLS = "https://api.runware.example/v1"


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all: every test has its own tasks."""
    with running(tmp_path_factory.mktemp("receiver"), **RECEIVER) as found:
        yield found


@asynccontextmanager
async def listening(scene: Stage, case: str) -> AsyncIterator[Sink]:
    """A registered consumer of the tasks with the tag `case`."""
    async with Sink.open() as sink:
        spec = EndpointSpec(url=sink.url, filters={"tags.case": case})
        endpoint = await scene.client.add_endpoint(spec)
        assert endpoint.secret is not None
        sink.secret = endpoint.secret
        try:
            yield sink
        finally:
            await scene.client.delete_endpoint(endpoint.id)


async def time_out(scene: Stage, leaves: asyncio.Event | None = None, **options: Any) -> str:
    """Submit to a platform that takes the task and does not say so; the task's id."""
    impatient = httpx.Timeout(LIMIT_S, read=0.3)
    async with scene.submitter(timeout=impatient, leaves=leaves) as submitter:
        with pytest.raises(AmbiguousSubmit) as caught:
            await submitter.submit(MODEL, PARAMETERS, **options)
    return caught.value.task_id


def of_what(scene: Stage) -> list[str]:
    return [seen.line for seen in scene.seen]


async def state_of(scene: Stage, task_id: str) -> SubmitState:
    task = await scene.client.task(task_id)
    assert task is not None
    return task.submit_state


async def test_the_ledger_knows_a_task_before_the_platform_does(receiver: Running) -> None:
    async with stage(receiver, delay_s=1) as scene, scene.submitter() as submitter:
        task = await submitter.submit(
            MODEL,
            PARAMETERS,
            number_results=2,
            tags={"projectId": "proj_789"},
            metadata={"order": 17},
            idempotency_key=(key := a_key()),
        )
        assert of_what(scene) == [
            "ledger PUT /v1/tasks/",
            "platform POST /v1",
            "ledger PATCH /v1/tasks/",
        ]
        registered, sent, noted = (seen.body for seen in scene.seen)
        assert [sent[0]["taskUUID"]] == [task.id] == await scene.accepted()
        assert sent[0]["webhookURL"] == task.webhook_url
        assert httpx.URL(task.webhook_url).params["projectId"] == "proj_789"
        assert "webhookURL" not in registered["request"]
        assert {**registered["request"], "webhookURL": task.webhook_url} == sent[0]
        assert sent[0]["numberResults"] == registered["expected"] == 2
        assert noted == {"submit_state": "submitted"}
        kept = await scene.client.task(task.id)
        assert kept is not None
        assert (kept.submit_state, kept.client_ref) == (SubmitState.SUBMITTED, key)
        assert (kept.metadata, kept.tags) == ({"order": 17}, {"projectId": "proj_789"})


async def test_a_task_may_have_times_and_a_trace_of_its_own(receiver: Running) -> None:
    deadline, end = datetime(2100, 1, 1, tzinfo=UTC), datetime(2100, 1, 2, tzinfo=UTC)
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with stage(receiver) as scene, scene.submitter() as submitter:
        task = await submitter.submit(
            MODEL, PARAMETERS, deadline_at=deadline, give_up_at=end, traceparent=trace
        )
        found = await task.wait(LIMIT_S)
        assert (found.deadline_at, found.give_up_at) == (deadline, end)
        assert found.traceparent == trace
        with pytest.raises(InvalidTask, match="traceparent"):
            await submitter.submit(MODEL, PARAMETERS, traceparent="nonsense")


async def test_a_task_that_the_rules_refuse_is_told_to_nobody(receiver: Running) -> None:
    async with stage(receiver) as scene, scene.submitter() as submitter:
        with pytest.raises(InvalidTask) as caught:
            await submitter.submit(MODEL, {**PARAMETERS, "duration": 7})
    assert scene.seen == []
    assert [found.parameter for found in caught.value.findings] == ["duration"]


async def test_warnings_travel_with_the_handle(receiver: Running) -> None:
    async with stage(receiver) as scene, scene.submitter() as submitter:
        task = await submitter.submit("simulator:any@1", PARAMETERS)
        assert [found.code for found in task.warnings] == ["no_rules"]
        await task.wait(LIMIT_S)


async def test_the_number_of_results_may_stand_among_the_parameters(receiver: Running) -> None:
    async with stage(receiver) as scene, scene.submitter() as submitter:
        task = await submitter.submit(MODEL, {**PARAMETERS, "numberResults": 3})
        done = await task.wait(LIMIT_S)
        assert (done.expected, done.succeeded) == (3, 3)
        with pytest.raises(InvalidTask):
            await submitter.submit(MODEL, {**PARAMETERS, "numberResults": "3"})
    assert len(scene.sent) == 1


async def test_without_a_ledger_nothing_is_sent(receiver: Running) -> None:
    async with stage(receiver) as scene:
        nowhere = Client(f"http://127.0.0.1:{held_port()}", ADMIN_TOKEN)
        for ledger in (nowhere, None):
            platform = Runware(API_KEY, f"{scene.simulator}/v1")
            async with Submitter(platform, ledger) as submitter:
                with pytest.raises(LedgerUnavailable) as caught:
                    await submitter.submit(MODEL, PARAMETERS)
                assert caught.value.status is None
                with pytest.raises(LedgerUnavailable):
                    await submitter.resume(str(uuid4()))
        assert await scene.accepted() == []
        counters = (await scene.http.get(f"{scene.simulator}/_control")).json()["counters"]
        assert counters["requests"] == 0


async def test_with_a_wrong_token_nothing_is_sent(receiver: Running) -> None:
    async with stage(receiver) as scene:
        ledger = Client(scene.url, "not-the-token")
        async with Submitter(Runware(API_KEY, f"{scene.simulator}/v1"), ledger) as submitter:
            with pytest.raises(LedgerUnavailable) as caught:
                await submitter.submit(MODEL, PARAMETERS)
        assert caught.value.status == 401
        assert await scene.accepted() == []


@pytest.mark.parametrize("is_configured", [True, False])
async def test_a_url_minted_here_opens_the_door_of_a_receiver_with_the_same_key(
    receiver: Running, is_configured: bool
) -> None:
    async with stage(receiver) as scene:
        nowhere = Client(f"http://127.0.0.1:{held_port()}", ADMIN_TOKEN) if is_configured else None
        async with Submitter(
            Runware(API_KEY, f"{scene.simulator}/v1"),
            nowhere,
            require_ledger=False,
            public_url=scene.url,
            signing_keys=[SIGNING_KEY],
            project="elsewhere",
        ) as submitter:
            task = await submitter.submit(MODEL, PARAMETERS, number_results=2, tags={"a": "b & c"})
        # The callback makes the task known; until then the ledger has never heard of it.
        done = await settled(scene, task.id)
        assert (done.project, done.expected, done.tags) == ("elsewhere", 2, {"a": "b & c"})
        if not is_configured:
            with pytest.raises(LedgerUnavailable):
                await task.wait(0)


async def settled(scene: Stage, task_id: str) -> Task:
    """The complete task, also when nobody knows it yet."""
    async with asyncio.timeout(LIMIT_S):
        while task_id not in [task.id for task in (await scene.client.tasks(limit=200)).data]:
            pass
    return await SubmittedTask(task_id, _client=scene.client).wait(LIMIT_S)


async def test_a_rejection_without_a_ledger_is_told_at_the_door(receiver: Running) -> None:
    async with stage(receiver, submit_status=402) as scene:
        async with Submitter(
            Runware(API_KEY, f"{scene.simulator}/v1"),
            require_ledger=False,
            public_url=scene.url,
            signing_keys=[SIGNING_KEY],
        ) as submitter:
            with pytest.raises(PlatformRejected) as caught:
                await submitter.submit(MODEL, PARAMETERS, task_id=(wanted := str(uuid4())).upper())
        assert caught.value.task_id == wanted
        assert await state_of(scene, wanted) is SubmitState.REJECTED


async def test_what_timed_out_is_looked_for_and_not_sent_again(receiver: Running) -> None:
    async with (
        stage(receiver, submit_hang_s=60, delay_s=0, spread_s=0, drop=1) as scene,
        scene.submitter() as submitter,
    ):
        task_id = await time_out(scene, number_results=2)
        assert await state_of(scene, task_id) is SubmitState.UNKNOWN
        task = await submitter.resume(task_id)
        assert not task.in_flight
        results = [result async for result in task.results()]
        assert [result.source for result in results] == [Source.POLL, Source.POLL]
        assert await state_of(scene, task_id) is SubmitState.SUBMITTED
        assert [sent["taskUUID"] for sent in scene.sent] == [task_id] == await scene.accepted()


async def test_what_timed_out_and_still_works_is_told_by_its_callbacks(receiver: Running) -> None:
    done = anyio.Event()

    async def wait(seconds: float) -> None:
        await (done.wait() if seconds == 99 else anyio.sleep(seconds))

    async with (
        stage(receiver, submit_hang_s=60, delays="99", sleep=wait) as scene,
        scene.submitter() as submitter,
    ):
        await time_out(scene, idempotency_key=(key := a_key()))
        # The same key finds it as well as `resume` does.
        task = await submitter.submit(MODEL, PARAMETERS, idempotency_key=key)
        assert await state_of(scene, task.id) is SubmitState.SUBMITTED
        done.set()
        results = [result async for result in task.results()]
        assert [result.source for result in results] == [Source.CALLBACK]
        assert len(scene.sent) == 1


async def test_what_was_registered_and_never_sent_is_sent_once(receiver: Running) -> None:
    async with stage(receiver) as scene, scene.submitter() as submitter:
        crashed = GenerationTask(
            id=str(uuid4()),
            platform="runware",
            model="simulator:image@1",
            parameters={**PARAMETERS, "taskType": "imageInference", "includeCost": False},
            number_results=2,
            tags={"who": "me"},
        )
        spec = TaskSpec(
            platform="runware",
            model=crashed.model,
            expected=2,
            tags=crashed.tags,
            request=request_of(crashed),
        )
        assert (await scene.client.register_task(crashed.id, spec)).may_submit
        # While the lease of the crashed one lasts, nobody else sends.
        assert (await submitter.resume(crashed.id)).in_flight
        assert scene.sent == []
        released = TaskPatch(submit_state=SubmitState.UNKNOWN)
        await scene.client.change_task(crashed.id, released)
        task = await submitter.resume(crashed.id)
        assert not task.in_flight
        done = await task.wait(LIMIT_S)
        assert (done.succeeded, done.tags) == (2, {"who": "me"})
        again = await submitter.resume(crashed.id)
        assert not again.in_flight
        sent = {**request_of(crashed), "webhookURL": task.webhook_url}
        assert scene.sent == [sent]


async def test_what_the_ledger_does_not_know_cannot_be_resumed(receiver: Running) -> None:
    async with stage(receiver) as scene, scene.submitter() as submitter:
        with pytest.raises(LedgerUnavailable) as caught:
            await submitter.resume(str(uuid4()))
        assert caught.value.status == 404
        bare = str(uuid4())
        await scene.client.register_task(bare, TaskSpec(platform="runware"))
        with pytest.raises(LedgerUnavailable, match="no request"):
            await submitter.resume(bare)
    assert scene.sent == []


async def test_what_was_certainly_not_taken_is_sent_by_resume(receiver: Running) -> None:
    async with (
        stage(receiver, submit_status=503) as scene,
        scene.submitter() as submitter,
    ):
        with stamina.set_testing(True, attempts=2), pytest.raises(PlatformUnavailable) as caught:
            await submitter.submit(MODEL, PARAMETERS)
        assert len(scene.sent) == 2
        assert await scene.accepted() == []
        await scene.turn(submit_status=None)
        task = await submitter.resume(caught.value.task_id)
        assert (await task.wait(LIMIT_S)).succeeded == 1
        assert len(scene.sent) == 3
        assert await scene.accepted() == [task.id]


async def test_a_poll_that_fails_decides_nothing(receiver: Running) -> None:
    async with stage(receiver, submit_hang_s=60, delay_s=0, spread_s=0, drop=1) as scene:
        task_id = await time_out(scene)
        wrong_key = httpx.MockTransport(
            lambda _request: httpx.Response(401, json={"errors": [{"code": "invalidApiKey"}]})
        )
        platform = Runware("wrong", f"{scene.simulator}/v1", transport=wrong_key)
        async with Submitter(platform, Client(scene.url, ADMIN_TOKEN)) as submitter:
            for _ in range(2):  # the first one has given its lease back
                with pytest.raises(PlatformUnavailable):
                    await submitter.resume(task_id)
        assert await scene.client.results(task_id) == []
        async with scene.submitter() as submitter:
            assert (await (await submitter.resume(task_id)).wait(LIMIT_S)).succeeded == 1
        assert len(scene.sent) == 1


async def test_the_same_key_is_the_same_task(receiver: Running) -> None:
    async with stage(receiver) as scene, scene.submitter(project="films") as submitter:
        # JSON knows no tuple: what the ledger gives back is equal, not the same.
        key, parameters = a_key(), {**PARAMETERS, "frames": (1, 2), "note": None}
        first = await submitter.submit("simulator:any@1", parameters, idempotency_key=key)
        second = await submitter.submit("simulator:any@1", parameters, idempotency_key=key)
        assert first.id == second.id == task_id_for_key("films", key)
        assert not second.in_flight
        assert (await second.wait(LIMIT_S)).succeeded == 1
        assert len(scene.sent) == 1


async def test_eight_callers_with_one_key_send_one_task(receiver: Running) -> None:
    async with stage(receiver, submit_hang_s=0.5) as scene, scene.submitter() as submitter:
        key = a_key()
        tasks = await asyncio.gather(
            *(submitter.submit(MODEL, PARAMETERS, idempotency_key=key) for _ in range(8))
        )
        assert {task.id for task in tasks} == {task_id_for_key("default", key)}
        done = await asyncio.gather(*(task.wait(LIMIT_S) for task in tasks))
        assert {task.succeeded for task in done} == {1}
        assert len(scene.sent) == 1
        assert await scene.accepted() == [tasks[0].id]
        assert any(task.in_flight for task in tasks)
        assert not all(task.in_flight for task in tasks)


@pytest.mark.parametrize(
    ("model", "changed", "results"),
    [
        (MODEL, {"positivePrompt": "another boat"}, 1),
        ("pixverse:1@2", {}, 1),
        (MODEL, {}, 2),
    ],
    ids=["parameters", "model", "results"],
)
async def test_another_request_under_the_same_key_is_refused(
    receiver: Running, model: str, changed: dict[str, Any], results: int
) -> None:
    async with stage(receiver) as scene, scene.submitter() as submitter:
        key = a_key()
        first = await submitter.submit(MODEL, PARAMETERS, idempotency_key=key)
        with pytest.raises(IdempotencyConflict) as caught:
            await submitter.submit(
                model, {**PARAMETERS, **changed}, number_results=results, idempotency_key=key
            )
        assert (caught.value.key, caught.value.task_id) == (key, first.id)
        await first.wait(LIMIT_S)
    assert len(scene.sent) == 1


async def test_the_same_key_in_another_project_is_another_task(receiver: Running) -> None:
    async with stage(receiver) as scene:
        key, tasks = a_key(), []
        for project in ("one", "two"):
            async with scene.submitter(project=project) as submitter:
                task = await submitter.submit(MODEL, PARAMETERS, idempotency_key=key)
                assert (await task.wait(LIMIT_S)).project == project
                tasks.append(task.id)
        assert await scene.accepted() == tasks
        assert len(set(tasks)) == 2


async def test_a_rejection_is_kept_and_told_downstream(receiver: Running) -> None:
    async with (
        stage(receiver, submit_status=400, submit_code="insufficientCredits") as scene,
        scene.submitter() as submitter,
        listening(scene, case := uuid4().hex) as sink,
    ):
        with pytest.raises(PlatformRejected) as caught:
            await submitter.submit(MODEL, PARAMETERS, number_results=4, tags={"case": case})
        error = caught.value
        assert (error.code, error.http_status) == ("insufficientCredits", 400)
        assert "insufficientCredits" in str(error)
        assert error.task_id is not None
        task = await scene.client.task(error.task_id)
        assert task is not None
        assert (task.status, task.submit_state) == ("failed", SubmitState.REJECTED)
        (result,) = await scene.client.results(error.task_id)
        assert result.source is Source.SUBMIT
        assert result.error is not None
        assert (result.error.code, result.error.category) == ("insufficientCredits", "quota")
        async with asyncio.timeout(LIMIT_S):
            await sink.until(2)
        types = sorted(event["type"] for event in sink.events.values())
        assert types == ["result.failed", "task.completed"]
        # It was answered for good: neither `resume` nor the platform's ghost of it sends it.
        await scene.turn(submit_status=None)
        again = await submitter.resume(error.task_id)
        assert (await again.wait(LIMIT_S)).submit_state is SubmitState.REJECTED
        assert len(scene.sent) == 1
        assert sink.refused == []


async def test_a_rejection_is_kept_in_whatever_project_it_belongs_to(receiver: Running) -> None:
    async with (
        stage(receiver, submit_status=400, submit_code="insufficientCredits") as scene,
        scene.submitter(project="films") as submitter,
    ):
        with pytest.raises(PlatformRejected) as caught:
            await submitter.submit(MODEL, PARAMETERS)
        assert caught.value.task_id is not None
        task = await scene.client.task(caught.value.task_id)
        assert task is not None
        assert (task.project, task.status, task.submit_state) == ("films", "failed", "rejected")


async def test_a_rejection_is_told_even_when_the_ledger_has_gone(tmp_path: Path) -> None:
    with running(tmp_path, **RECEIVER) as receiver:

        def reject(_request: httpx.Request) -> httpx.Response:
            receiver.process.kill()
            receiver.process.wait(LIMIT_S)
            return httpx.Response(402, json={"errors": [{"code": "insufficientCredits"}]})

        platform = Runware(API_KEY, "http://localhost/v1", transport=httpx.MockTransport(reject))
        async with Submitter(platform, Client(receiver.ready["url"], ADMIN_TOKEN)) as submitter:
            with pytest.raises(PlatformRejected, match="insufficientCredits") as caught:
                await submitter.submit(MODEL, PARAMETERS)
        assert ["ledger" in note for note in caught.value.__notes__] == [True]


async def test_a_callback_may_come_before_the_acknowledgement(receiver: Running) -> None:
    async with (
        stage(receiver, callback_before_ack=True) as scene,
        scene.submitter() as submitter,
    ):
        task = await submitter.submit(MODEL, PARAMETERS, number_results=2)
        # Both are in at once: the platform has waited for them before it answered.
        assert (await task.wait(0)).succeeded == 2
        assert await state_of(scene, task.id) is SubmitState.SUBMITTED


async def test_a_time_out_after_the_callbacks_hides_nothing(receiver: Running) -> None:
    hangs = asyncio.Event()

    async def wait(seconds: float) -> None:
        if seconds == 60:  # the callbacks are there
            hangs.set()
        await anyio.sleep(seconds)

    async with (
        stage(receiver, callback_before_ack=True, submit_hang_s=60, sleep=wait) as scene,
        scene.submitter() as submitter,
    ):
        task_id = await time_out(scene, leaves=hangs)
        assert await state_of(scene, task_id) is SubmitState.SUBMITTED
        task = await submitter.resume(task_id)
        assert (await task.wait(LIMIT_S)).succeeded == 1
        assert len(scene.sent) == 1


@asynccontextmanager
async def billing(
    ledger: Client | None, **options: Any
) -> AsyncIterator[tuple[Submitter, list[str]]]:
    """A submitter for a platform that is not on this machine; what is sent to it."""
    sent: list[str] = []

    def accept(request: httpx.Request) -> httpx.Response:
        (task,) = json.loads(request.content)
        named = {"taskUUID": task["taskUUID"]}
        if task["taskType"] == "getResponse":
            return httpx.Response(400, json={"errors": [{"code": "taskNotFound", **named}]})
        sent.append(str(request.url))
        return httpx.Response(200, json={"data": [named]})

    platform = Runware(API_KEY, BILLS, transport=httpx.MockTransport(accept))
    async with Submitter(platform, ledger, **options) as submitter:
        yield submitter, sent


async def test_nothing_that_costs_money_is_sent_without_https_for_its_callbacks(
    receiver: Running,
) -> None:
    async with billing(Client(receiver.ready["url"], ADMIN_TOKEN)) as (submitter, sent):
        key = a_key()
        for _ in range(2):  # and the second is not told that the first is still at it
            with pytest.raises(PublicUrlRefused, match="https") as caught:
                await submitter.submit(MODEL, PARAMETERS, idempotency_key=key)
            assert caught.value.url == f"{receiver.ready['url']}/"
    assert sent == []


async def test_nothing_that_costs_money_is_sent_when_nobody_answers_there(tmp_path: Path) -> None:
    public = f"https://127.0.0.1:{held_port()}"
    with running(tmp_path, **RECEIVER, REELHOOK_PUBLIC_URL=public) as receiver:
        async with billing(Client(receiver.ready["admin_url"], ADMIN_TOKEN)) as (submitter, sent):
            with pytest.raises(PublicUrlRefused, match="does not answer") as caught:
                await submitter.submit(MODEL, PARAMETERS)
        assert caught.value.url == f"{public}/"
    assert sent == []


async def test_without_a_ledger_https_is_all_that_can_be_checked() -> None:
    minting: dict[str, Any] = {"require_ledger": False, "signing_keys": [SIGNING_KEY]}
    async with billing(None, **minting, public_url="http://hooks.example") as (submitter, sent):
        with pytest.raises(PublicUrlRefused):
            await submitter.submit(MODEL, PARAMETERS)
        assert sent == []
    async with billing(None, **minting, public_url="https://hooks.example") as (submitter, sent):
        await submitter.submit(MODEL, PARAMETERS)
        assert sent == [BILLS]


async def test_no_error_shows_a_key_or_a_token(receiver: Running) -> None:
    told: list[str] = []
    async with stage(receiver, submit_status=403) as scene, scene.submitter() as submitter:
        for attempt in (
            submitter.submit(MODEL, PARAMETERS),
            submitter.submit(MODEL, {**PARAMETERS, "duration": 7}),
            submitter.resume(str(uuid4())),
        ):
            with pytest.raises(SubmitterError) as caught:
                await attempt
            told += [str(caught.value), repr(caught.value)]
        told.append(repr(submitter))
        tokens = [httpx.URL(task["webhookURL"]).params["sig"] for task in scene.sent]
    assert len(tokens) == 1
    for secret in (API_KEY, ADMIN_TOKEN, SIGNING_KEY, *tokens):
        assert secret not in "\n".join(told)

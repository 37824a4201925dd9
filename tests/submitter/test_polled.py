"""Submitting to a platform that can't be asked after our id: once, whatever breaks.

A real receiver and the simulator's NanoGPT; the requests of the submitter are heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import stamina

from receiver.client import Client, Source, SubmitState, Task, TaskPatch, TaskSpec
from submitter import ledger
from submitter.drafts import Draft
from submitter.errors import (
    AmbiguousSubmit,
    InvalidTask,
    LedgerUnavailable,
    PlatformRejected,
    PlatformUnavailable,
    SubmitterError,
)
from submitter.ledger import ABOUT_TO_SEND, MAY_HAVE_ARRIVED
from submitter.platforms.answers import TIMEOUT
from submitter.platforms.nanogpt import NanoGPT, request_of
from submitter.platforms.runware import Runware
from submitter.reconciler import Options, drain
from submitter.requests import GenerateVideo, VideoInference
from submitter.simulator.config import Knobs, SimulatorConfig
from submitter.simulator.serve import running as simulating
from submitter.submit import Submitter
from submitter.tasks import GenerationTask
from tests.doubles import ADMIN_TOKEN, LIMIT_S, SIGNING_KEY, Running, running
from tests.submitter.stage import API_KEY, RECEIVER, Recording, Seen, a_key

pytestmark = [pytest.mark.anyio, pytest.mark.process]

MODEL = "sora-2"
PARAMETERS = {"prompt": "a paper boat", "seconds": "4"}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all: every test has its own tasks."""
    with running(tmp_path_factory.mktemp("receiver"), **RECEIVER) as found:
        yield found


@dataclass
class Scene:
    """A receiver's client, a simulator, and all requests of the submitters made here."""

    url: str
    client: Client
    simulator: str
    http: httpx.AsyncClient
    seen: list[Seen] = field(default_factory=list)

    @asynccontextmanager
    async def submitter(
        self, transport: httpx.AsyncBaseTransport | None = None, read_s: float = 30, **options: Any
    ) -> AsyncIterator[Submitter]:
        platform = NanoGPT(
            API_KEY,
            f"{self.simulator}/api",
            transport=transport or Recording("platform", self.seen),
            timeout=httpx.Timeout(TIMEOUT.connect, read=read_s),
        )
        client = Client(self.url, ADMIN_TOKEN, transport=Recording("ledger", self.seen))
        async with Submitter(platform, client, **options) as submitter:
            yield submitter

    @property
    def lines(self) -> list[str]:
        return [seen.line for seen in self.seen]

    @property
    def sent(self) -> list[Any]:
        """The body of every submit."""
        return [
            seen.body for seen in self.seen if (seen.server, seen.method) == ("platform", "POST")
        ]

    async def turn(self, **knobs: Any) -> None:
        answer = await self.http.post(f"{self.simulator}/_control", json=knobs)
        assert answer.status_code == 200, answer.text

    async def runs(self) -> list[str]:
        """Every run that the platform has taken, by the id that it carries."""
        url = f"{self.simulator}/api/generate-video/recover"
        headers = {"x-api-key": API_KEY}
        found = (await self.http.get(url, params={"limit": "50"}, headers=headers)).json()["data"]
        return [run["conversationUUID"] for run in found]

    async def kept(self, task_id: str) -> Task:
        found = await self.client.task(task_id)
        assert found is not None
        return found

    async def reconcile(self, task_id: str) -> None:
        await self.client.reconcile_task(task_id)
        environ = {
            "REELHOOK_URL": self.url,
            "REELHOOK_ADMIN_TOKEN": ADMIN_TOKEN,
            "NANOGPT_API_KEY": API_KEY,
            "NANOGPT_BASE_URL": f"{self.simulator}/api",
        }
        heard: list[Any] = []
        await drain(environ, Options(limit=8), tell=heard.append, note=heard.append)
        assert [polled.found for polled in heard if polled.task == task_id] == ["posted"]

    async def time_out(self, **options: Any) -> str:
        """Submit to a platform that takes the task and does not say so; the task's id."""
        await self.turn(submit_hang_s=60)
        async with self.submitter(read_s=0.5) as submitter:
            with pytest.raises(AmbiguousSubmit) as caught:
                await submitter.submit(MODEL, PARAMETERS, **options)
        await self.turn(submit_hang_s=0)
        return caught.value.task_id


@asynccontextmanager
async def a_scene(receiver: Running, **knobs: Any) -> AsyncIterator[Scene]:
    settings = Knobs(**{"delay_s": 0, "spread_s": 0, **knobs})
    url = receiver.ready["url"]
    async with (
        simulating(SimulatorConfig(knobs=settings)) as simulator,
        Client(url, ADMIN_TOKEN) as client,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        yield Scene(url, client, simulator, http)


class Deaf(httpx.AsyncBaseTransport):
    """Nothing arrives, and nobody can tell: the answers never come."""

    def __init__(self, network: httpx.AsyncBaseTransport) -> None:
        self._network = network

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            raise httpx.ReadTimeout("no")
        return await self._network.handle_async_request(request)

    async def aclose(self) -> None:
        await self._network.aclose()


@pytest.mark.parametrize("shape", ["guide", "unified"])
async def test_a_task_is_submitted_polled_and_done(receiver: Running, shape: str) -> None:
    async with (
        a_scene(receiver, nanogpt_shape=shape) as scene,
        scene.submitter() as submitter,
    ):
        task = await submitter.submit(MODEL, PARAMETERS, tags={"a": "b"}, metadata={"n": 1})
        # That it is about to be sent is in the ledger before, and its name there after.
        assert scene.lines == [
            "ledger PUT /v1/tasks/",
            "ledger PATCH /v1/tasks/",
            "platform POST /api/generate-video",
            "ledger PATCH /v1/tasks/",
        ]
        assert scene.seen[1].body == {"submit_state": "unknown", "was": "registered", "lease": True}
        kept = await scene.kept(task.id)
        assert (kept.submit_state, kept.expected) == (SubmitState.SUBMITTED, 1)
        assert kept.platform_id
        assert scene.seen[3].body == {"submit_state": "submitted", "platform_id": kept.platform_id}
        assert (
            kept.request
            == scene.sent[0]
            == {
                **PARAMETERS,
                "model": MODEL,
                "conversationUUID": task.id,
            }
        )
        await scene.reconcile(task.id)
        done = await task.wait(LIMIT_S)
        assert (done.succeeded, done.tags, done.metadata) == (1, {"a": "b"}, {"n": 1})
        (result,) = await scene.client.results(task.id)
        assert (result.source, result.media[0].kind) == (Source.POLL, "video")


async def test_a_rejection_is_kept_with_what_it_says(receiver: Running) -> None:
    async with a_scene(receiver, submit_status=402) as scene, scene.submitter() as submitter:
        with pytest.raises(PlatformRejected) as caught:
            await submitter.submit(MODEL, PARAMETERS)
        assert (caught.value.http_status, caught.value.platform) == (402, "nanogpt")
        assert caught.value.task_id is not None
        task = await scene.kept(caught.value.task_id)
        assert (task.status, task.submit_state) == ("failed", SubmitState.REJECTED)
        (result,) = await scene.client.results(task.id)
        assert result.error is not None
        assert (result.source, result.error.category) == (Source.SUBMIT, "quota")
        await scene.turn(submit_status=None)
        await submitter.resume(task.id)
        assert len(scene.sent) == 1


async def test_what_timed_out_is_found_by_our_id_and_taken_on(receiver: Running) -> None:
    async with a_scene(receiver) as scene, scene.submitter() as submitter:
        task_id = await scene.time_out()
        assert (await scene.kept(task_id)).submit_state is SubmitState.UNKNOWN
        assert (await scene.kept(task_id)).platform_id is None
        task = await submitter.resume(task_id)
        assert not task.in_flight
        assert (await task.wait(LIMIT_S)).succeeded == 1  # it was complete by then
        kept = await scene.kept(task_id)
        assert kept.submit_state is SubmitState.SUBMITTED
        assert kept.platform_id
        assert await scene.runs() == [task_id]
        assert len(scene.sent) == 1


async def test_the_same_key_takes_it_on_as_well(receiver: Running) -> None:
    async with a_scene(receiver, delay_s=60) as scene, scene.submitter() as submitter:
        task_id = await scene.time_out(idempotency_key=(key := a_key()))
        task = await submitter.submit(MODEL, PARAMETERS, idempotency_key=key)
        assert (task.id, task.in_flight) == (task_id, False)
        assert (await scene.kept(task_id)).platform_id
        assert await scene.runs() == [task_id]


async def test_what_can_not_be_found_is_never_sent_again(receiver: Running) -> None:
    async with a_scene(receiver) as scene:
        key = a_key()
        deaf = Deaf(Recording("platform", scene.seen))
        async with scene.submitter(deaf) as submitter:
            with pytest.raises(AmbiguousSubmit) as caught:
                await submitter.submit(MODEL, PARAMETERS, idempotency_key=key)
        task_id = caught.value.task_id
        async with scene.submitter() as submitter:
            for _ in range(2):  # and it is nobody's in between
                for again in (
                    submitter.resume(task_id),
                    submitter.submit(MODEL, PARAMETERS, idempotency_key=key),
                ):
                    with pytest.raises(AmbiguousSubmit, match="--run RUN"):
                        await again
        assert scene.sent == []
        assert (await scene.kept(task_id)).submit_state is SubmitState.UNKNOWN


@pytest.mark.parametrize("status", [429, 503])
async def test_what_was_surely_not_taken_is_sent_again_at_once(
    receiver: Running, status: int
) -> None:
    async with a_scene(receiver, submit_status=status) as scene, scene.submitter() as submitter:
        key = a_key()
        with stamina.set_testing(True, attempts=2), pytest.raises(PlatformUnavailable) as caught:
            await submitter.submit(MODEL, PARAMETERS, idempotency_key=key)
        assert len(scene.sent) == 2
        assert (await scene.kept(caught.value.task_id)).submit_state is SubmitState.REGISTERED
        await scene.turn(submit_status=None)
        task = await submitter.submit(MODEL, PARAMETERS, idempotency_key=key)
        assert (task.id, task.in_flight) == (caught.value.task_id, False)
        assert await scene.runs() == [task.id]


async def registered(scene: Scene) -> GenerationTask:
    """A task whose submitter ended after it had registered it."""
    task = GenerationTask(
        id=str(uuid4()), platform="nanogpt", model=MODEL, parameters=dict(PARAMETERS)
    )
    spec = TaskSpec(platform="nanogpt", model=MODEL, request=request_of(task))
    assert (await scene.client.register_task(task.id, spec)).may_submit
    return task


async def test_who_ended_before_it_sent_is_replaced(receiver: Running) -> None:
    async with a_scene(receiver, delay_s=60) as scene, scene.submitter() as submitter:
        task = await registered(scene)
        found = await asyncio.gather(*(submitter.resume(task.id) for _ in range(4)))
        assert [one.in_flight for one in found].count(False) == 1
        assert await scene.runs() == [task.id]
        assert scene.sent == [request_of(task)]


async def test_who_ended_while_it_sent_is_not(receiver: Running) -> None:
    async with a_scene(receiver) as scene, scene.submitter() as submitter:
        task = await registered(scene)
        await scene.client.change_task(task.id, ABOUT_TO_SEND)
        assert (await submitter.resume(task.id)).in_flight  # for all we know, it still is at it
        await scene.client.change_task(task.id, MAY_HAVE_ARRIVED)  # two minutes later
        with pytest.raises(AmbiguousSubmit):
            await submitter.resume(task.id)
        assert scene.sent == []


async def test_who_is_told_to_stop_while_it_sends_leaves_it_open(receiver: Running) -> None:
    sending = asyncio.Event()

    async def hang(_request: httpx.Request) -> httpx.Response:
        sending.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with a_scene(receiver) as scene, scene.submitter(httpx.MockTransport(hang)) as submitter:
        key = a_key()
        submit = asyncio.create_task(submitter.submit(MODEL, PARAMETERS, idempotency_key=key))
        await sending.wait()
        submit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submit
        async with scene.submitter() as other:
            with pytest.raises(AmbiguousSubmit):
                await other.submit(MODEL, PARAMETERS, idempotency_key=key)


async def test_eight_callers_with_one_key_send_one_task(receiver: Running) -> None:
    async with a_scene(receiver, submit_hang_s=0.5, delay_s=60) as scene:
        async with scene.submitter() as submitter:
            key = a_key()
            tasks = await asyncio.gather(
                *(submitter.submit(MODEL, PARAMETERS, idempotency_key=key) for _ in range(8))
            )
        assert len({task.id for task in tasks}) == 1
        assert [task.in_flight for task in tasks].count(False) == 1
        assert await scene.runs() == [tasks[0].id]


async def test_several_go_at_once_and_each_is_answered_for_itself(receiver: Running) -> None:
    async with a_scene(receiver, delay_s=60) as scene, scene.submitter() as submitter:
        wrong = Draft(model="wan-wavespeed-25-extend", parameters={"prompt": "no video"})
        drafts = [Draft(model=MODEL, parameters=PARAMETERS) for _ in range(9)]
        told = await submitter.submit_many([*drafts[:4], wrong, *drafts[4:]])
        assert isinstance(told.pop(4), PlatformRejected)
        ids = [one.id for one in told if not isinstance(one, SubmitterError)]
        assert len(ids) == 9
        assert sorted(await scene.runs()) == sorted(ids)


async def test_a_run_that_somebody_found_is_taken_on_by_its_name(receiver: Running) -> None:
    async with a_scene(receiver) as scene, scene.submitter() as submitter:
        other = await submitter.submit(MODEL, {**PARAMETERS, "conversationUUID": "my own thread"})
        run = (await scene.kept(other.id)).platform_id
        task = await registered(scene)
        with pytest.raises(InvalidTask, match="vid_nobody"):
            await submitter.resume(task.id, run="vid_nobody")
        await submitter.resume(task.id, run=run)
        kept = await scene.kept(task.id)
        assert (kept.platform_id, kept.submit_state) == (run, SubmitState.SUBMITTED)
        assert len(scene.sent) == 1


async def test_a_poll_finds_a_run_whose_name_was_lost(receiver: Running) -> None:
    async with a_scene(receiver) as scene:
        task_id = await scene.time_out()
        await scene.reconcile(task_id)
        task = await scene.kept(task_id)
        assert (task.succeeded, task.submit_state) == (1, SubmitState.SUBMITTED)
        assert task.platform_id


async def test_a_run_that_the_ledger_was_not_told_of_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PATIENCE", 0.3)
    with running(tmp_path, **RECEIVER) as receiver:

        def accept(_request: httpx.Request) -> httpx.Response:
            receiver.process.kill()
            receiver.process.wait(LIMIT_S)
            return httpx.Response(202, json={"runId": "vid_17"})

        async with (
            a_scene(receiver) as scene,
            scene.submitter(httpx.MockTransport(accept)) as submitter,
        ):
            with pytest.raises(LedgerUnavailable, match="--run vid_17") as caught:
                await submitter.submit(MODEL, PARAMETERS)
    assert caught.value.task_id in str(caught.value)


async def test_what_the_ledger_can_not_be_told_before_is_not_sent(receiver: Running) -> None:
    class Forgetful(httpx.AsyncBaseTransport):
        """The receiver goes away between registering a task and what comes then."""

        network = httpx.AsyncHTTPTransport()

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "PATCH":
                return httpx.Response(503)
            return await self.network.handle_async_request(request)

        async def aclose(self) -> None:
            await self.network.aclose()

    async with a_scene(receiver) as scene:
        platform = NanoGPT(API_KEY, f"{scene.simulator}/api")
        client = Client(scene.url, ADMIN_TOKEN, transport=Forgetful())
        async with Submitter(platform, client) as submitter:
            with pytest.raises(LedgerUnavailable):
                await submitter.submit(MODEL, PARAMETERS)
        assert await scene.runs() == []


async def test_without_a_ledger_nothing_is_sent_whatever_is_asked() -> None:
    def never(_request: httpx.Request) -> httpx.Response:
        raise AssertionError("it was sent")

    platform = NanoGPT(API_KEY, transport=httpx.MockTransport(never))
    minting: dict[str, Any] = {"public_url": "https://a.example", "signing_keys": [SIGNING_KEY]}
    async with Submitter(platform, None, require_ledger=False, **minting) as submitter:
        with pytest.raises(LedgerUnavailable):
            await submitter.submit(MODEL, PARAMETERS)


async def test_nobody_has_to_reach_us_for_it(receiver: Running) -> None:
    def accept(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(202, json={"runId": f"vid_{uuid4().hex}"})

    # The receiver's URL is http, and this platform bills; it never calls back.
    platform = NanoGPT(API_KEY, transport=httpx.MockTransport(accept))
    assert not platform.is_local
    async with Submitter(platform, Client(receiver.ready["url"], ADMIN_TOKEN)) as submitter:
        task = await submitter.submit(MODEL, PARAMETERS)
        assert not task.in_flight


async def test_a_typed_request_with_a_local_file_is_sent_as_the_wire_has_it(
    receiver: Running, tmp_path: Path
) -> None:
    image = tmp_path / "boat.png"
    image.write_bytes(PNG)
    async with a_scene(receiver, delay_s=60) as scene, scene.submitter() as submitter:
        request = GenerateVideo(model=MODEL, prompt="a boat", imageDataUrl=image)
        await submitter.submit(request)
        await submitter.submit(MODEL, {"prompt": "a boat", "image_data_url": image})
        first, second = scene.sent
        assert first["imageDataUrl"].startswith("data:image/png;base64,")
        assert "image_data_url" not in second  # a former name
        assert second["imageDataUrl"] == first["imageDataUrl"]
        assert (first["model"], first["prompt"]) == (MODEL, "a boat")


async def test_what_is_of_another_platform_is_refused(receiver: Running) -> None:
    async with a_scene(receiver) as scene, scene.submitter() as submitter:
        with pytest.raises(InvalidTask, match="for runware"):
            await submitter.submit(VideoInference(model="pixverse:1@6", positivePrompt="a boat"))
        with pytest.raises(InvalidTask) as caught:
            await submitter.submit(MODEL, PARAMETERS, number_results=2)
        assert [found.parameter for found in caught.value.findings][:1] == ["numberResults"]
        with pytest.raises(SubmitterError, match=r"nowhere\.png"):
            await submitter.submit(MODEL, {**PARAMETERS, "imageDataUrl": Path("nowhere.png")})
        assert scene.seen == []
        task = await registered(scene)
        async with Submitter(Runware(API_KEY), Client(scene.url, ADMIN_TOKEN)) as other:
            with pytest.raises(InvalidTask, match="belongs to nanogpt"):
                await other.resume(task.id)


async def test_an_answer_that_comes_too_late_changes_nothing(receiver: Running) -> None:
    """The callers that lost the race may not put the task back."""
    async with a_scene(receiver, delay_s=60) as scene, scene.submitter() as submitter:
        task = await submitter.submit(MODEL, PARAMETERS)
        await scene.client.change_task(task.id, TaskPatch(submit_state=SubmitState.UNKNOWN))
        assert (await scene.kept(task.id)).submit_state is SubmitState.SUBMITTED

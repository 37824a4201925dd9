"""The simulator over HTTP: its API in process, its callbacks to a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import anyio
import anyio.lowlevel
import httpx
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scripts.proofs.ports import held_port
from submitter.simulator.app import build, published_pairs
from submitter.simulator.config import Knobs, SimulatorConfig
from submitter.simulator.serve import running

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
KEY = {"authorization": "Bearer any"}
GIVE_UP_S = 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def at_once(seconds: float) -> None:
    """A sleep that takes no time."""
    await anyio.lowlevel.checkpoint()


@dataclass
class Time:
    """A clock set by hand."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Platform:
    """A simulator in process, and what a client does with it."""

    client: httpx.AsyncClient
    log: list[str] = field(default_factory=list)

    async def post(self, *tasks: Any, **headers: str) -> httpx.Response:
        return await self.client.post("/v1", json=list(tasks), headers=KEY | headers)

    async def poll(self, task: Json, kind: str = "getResponse") -> Json:
        answer = await self.post({"taskType": kind, "taskUUID": task["taskUUID"]})
        body: Json = answer.json()
        return body

    async def turn(self, **knobs: Any) -> httpx.Response:
        return await self.client.post("/_control", json=knobs)

    async def counters(self) -> Json:
        counters: Json = (await self.client.get("/_control")).json()["counters"]
        return counters

    async def listing(self) -> list[Json]:
        listed: list[Json] = (await self.client.get("/_control/tasks")).json()["data"]
        return listed

    async def settled(self) -> Json:
        """The counters once nothing is under way."""
        with anyio.fail_after(GIVE_UP_S):
            while True:
                counters = await self.counters()
                if not counters["results"]["processing"] and not counters["callbacks"]["waiting"]:
                    return counters
                await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def a_platform(
    *,
    api_key: str | None = None,
    clock: Time | None = None,
    sleep: Callable[[float], Awaitable[None]] = at_once,
    **knobs: Any,
) -> AsyncIterator[Platform]:
    log: list[str] = []
    # A platform gives up a slow receiver and calls again; here it is the machine that is slow.
    patient = Knobs(**{"ack_timeout_s": GIVE_UP_S, **knobs})
    config = SimulatorConfig(knobs=patient, api_key=api_key)
    app = build(config, clock=clock or Time(), sleep=sleep, log=log.append)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://sim") as client:
            yield Platform(client, log)


def a_task(**changes: Any) -> Json:
    return {
        "taskType": "videoInference",
        "taskUUID": str(uuid4()),
        "model": "pixverse:1@2",
        "positivePrompt": "a paper boat",
        **changes,
    }


def a_hook(server: HTTPServer, *statuses: int) -> str:
    """A webhookURL that answers with `statuses` in turn, and then with 204."""
    left = list(statuses)

    def answer(request: Request) -> Response:
        return Response(status=left.pop(0) if left else 204, headers={"location": "/moved"})

    server.expect_request("/hook").respond_with_handler(answer)
    return server.url_for("/hook?sig=secret")


def received(server: HTTPServer) -> list[Json]:
    return [json.loads(request.data) for request, _ in server.log]


async def test_an_acknowledgement_is_one_a_task() -> None:
    async with a_platform() as platform:
        task = a_task(numberResults=3)
        answer = await platform.post(task)
    assert answer.status_code == 200
    ack = {"taskType": "videoInference", "taskUUID": task["taskUUID"]}
    assert answer.json() == {"data": [ack]}


async def test_a_mixed_batch_takes_the_valid_tasks() -> None:
    async with a_platform() as platform:
        good, bad = a_task(), a_task(duration=6)
        answer = await platform.post(good, bad, good)
        assert answer.status_code == 200
        assert [each["taskUUID"] for each in answer.json()["data"]] == [good["taskUUID"]]
        codes = [each["code"] for each in answer.json()["errors"]]
        assert codes == ["unsupportedDuration", "conflictTaskUUID"]
        again = await platform.post(good)
    assert again.status_code == 400
    assert again.json()["data"] == []
    assert again.json()["errors"][0]["code"] == "conflictTaskUUID"


@pytest.mark.parametrize("odd", [7, None, {}, {"taskType": "other"}, []])
async def test_what_is_no_task_is_refused(odd: Any) -> None:
    async with a_platform() as platform:
        answer = await platform.post(odd)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] in ("missingTaskType", "invalidTaskType")


async def test_keys() -> None:
    async with a_platform(api_key="right") as platform:
        wrong = await platform.post({"taskType": "ping", "ping": True})
        first = {"taskType": "authentication", "apiKey": "right"}
        right = await platform.client.post("/", json=[first, {"taskType": "ping", "ping": True}])
    assert wrong.status_code == 401
    assert wrong.json()["errors"][0]["taskType"] == "authentication"
    assert right.json() == {"data": [{"taskType": "ping", "pong": True}]}


async def test_an_object_is_not_an_array() -> None:
    async with a_platform() as platform:
        answer = await platform.client.post("/v1", json=a_task(), headers=KEY)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "invalidRequest")


async def test_each_result_calls_back_and_polls_show_all(httpserver: HTTPServer) -> None:
    async with a_platform() as platform:
        task = a_task(numberResults=4, includeCost=True, webhookURL=a_hook(httpserver))
        await platform.post(task)
        counters = await platform.settled()
        state = await platform.poll(task)
    assert counters["callbacks"] == {"waiting": 0, "delivered": 4, "lost": 0}
    assert [each["status"] for each in state["data"]] == ["success"] * 4
    called = {body["data"][0]["videoUUID"] for body in received(httpserver)}
    assert called == {each["videoUUID"] for each in state["data"]}
    assert len(called) == 4
    assert all(request.query_string == b"sig=secret" for request, _ in httpserver.log)


async def test_a_poll_sees_processing_until_the_time_has_come() -> None:
    gate = anyio.Event()

    async def wait(seconds: float) -> None:
        await gate.wait()

    async with a_platform(sleep=wait) as platform:
        task = a_task(numberResults=2)
        await platform.post(task)
        before = await platform.poll(task)
        gate.set()
        await platform.settled()
        after = await platform.poll(task)
    assert [each["status"] for each in before["data"]] == ["processing"] * 2
    assert [each["status"] for each in after["data"]] == ["success"] * 2


async def test_successes_and_errors_are_polled_together(httpserver: HTTPServer) -> None:
    async with a_platform() as platform:
        url = a_hook(httpserver)
        task = a_task(model="simulator:partial@1", numberResults=2, webhookURL=url)
        await platform.post(task)
        await platform.settled()
        state = await platform.poll(task)
        details = await platform.poll(task, "getTaskDetails")
    assert (len(state["data"]), len(state["errors"])) == (1, 1)
    assert state["errors"][0]["code"] == "timeoutProvider"
    assert details["data"][0]["request"] == [task]
    assert details["data"][0]["response"] == state
    assert {next(iter(body)) for body in received(httpserver)} == {"data", "errors"}


@pytest.mark.parametrize("kind", ["getResponse", "getTaskDetails"])
async def test_an_unknown_task_is_not_found(kind: str) -> None:
    async with a_platform() as platform:
        state = await platform.poll(a_task(), kind)
    assert state["errors"][0]["code"] == "taskNotFound"


async def test_retries_until_a_2xx(httpserver: HTTPServer) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        await at_once(seconds)

    async with a_platform(sleep=wait, delay_s=0, spread_s=0) as platform:
        await platform.post(a_task(webhookURL=a_hook(httpserver, 500, 404, 302)))
        counters = await platform.settled()
        (job,) = await platform.listing()
    assert counters["attempts"] == 4
    attempts = job["results"][0]["callbacks"][0]["attempts"]
    assert [each["status"] for each in attempts] == [500, 404, 302, 204]
    retries = [seconds for seconds in waits if seconds]
    assert len(retries) == 3
    assert retries == sorted(retries)
    assert {request.path for request, _ in httpserver.log} == {"/hook"}


async def test_a_callback_is_lost_after_the_last_attempt(httpserver: HTTPServer) -> None:
    async with a_platform(max_attempts=3, duplicates=1) as platform:
        task = a_task(webhookURL=a_hook(httpserver, 500, 500, 500))
        await platform.post(task)
        counters = await platform.settled()
        state = await platform.poll(task)
    assert counters["callbacks"] == {"waiting": 0, "delivered": 0, "lost": 1}
    assert len(httpserver.log) == 3
    assert state["data"][0]["status"] == "success"


async def test_a_receiver_that_is_not_there_is_an_attempt() -> None:
    async with a_platform(max_attempts=2) as platform:
        await platform.post(a_task(webhookURL=f"http://127.0.0.1:{held_port()}/hook?sig=secret"))
        await platform.settled()
        (job,) = await platform.listing()
    errors = [each["error"] for each in job["results"][0]["callbacks"][0]["attempts"]]
    assert errors == ["ConnectError", "ConnectError"]


async def test_a_receiver_that_hangs_times_out() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with a_platform(max_attempts=1, ack_timeout_s=0.05) as platform:
            await platform.post(a_task(webhookURL=f"http://127.0.0.1:{port}/"))
            await platform.settled()
            (job,) = await platform.listing()
    assert job["results"][0]["callbacks"][0]["attempts"][0]["error"] == "TimeoutError"


async def test_duplicates_follow_the_2xx(httpserver: HTTPServer) -> None:
    async with a_platform(duplicates=1, duplicate_count=2) as platform:
        await platform.post(a_task(webhookURL=a_hook(httpserver)))
        await platform.settled()
    first, *copies = (request.data for request, _ in httpserver.log)
    assert copies == [first, first]


async def test_a_dropped_callback_is_known_to_polls_alone(httpserver: HTTPServer) -> None:
    async with a_platform(drop=1) as platform:
        task = a_task(numberResults=2, webhookURL=a_hook(httpserver))
        await platform.post(task)
        counters = await platform.settled()
        state = await platform.poll(task)
    assert counters["dropped"] == 2
    assert len(state["data"]) == 2
    assert httpserver.log == []


async def test_a_callback_can_come_before_the_acknowledgement(httpserver: HTTPServer) -> None:
    async with a_platform(callback_before_ack=True, sleep=anyio.sleep) as platform:
        await platform.post(a_task(numberResults=2, webhookURL=a_hook(httpserver)))
        assert len(httpserver.log) == 2


async def test_a_late_callback_lags_behind_the_poll(httpserver: HTTPServer) -> None:
    gate = anyio.Event()

    async def wait(seconds: float) -> None:
        await (gate.wait() if seconds == 99 else at_once(seconds))

    async with a_platform(late_s=99, sleep=wait) as platform:
        task = a_task(webhookURL=a_hook(httpserver))
        await platform.post(task)
        with anyio.fail_after(GIVE_UP_S):
            while (await platform.poll(task))["data"][0]["status"] != "success":
                await anyio.lowlevel.checkpoint()
        assert httpserver.log == []
        gate.set()
        await platform.settled()
    assert len(httpserver.log) == 1


async def test_a_hanging_submit_was_accepted() -> None:
    hangs = anyio.Event()

    async def wait(seconds: float) -> None:
        if seconds == 99:
            hangs.set()
            await anyio.sleep_forever()

    async with a_platform(submit_hang_s=99, sleep=wait) as platform:
        task = a_task()
        async with anyio.create_task_group() as group:
            group.start_soon(platform.post, task)
            with anyio.fail_after(GIVE_UP_S):
                await hangs.wait()
            group.cancel_scope.cancel()
        await platform.settled()
        state = await platform.poll(task)
    assert state["data"][0]["status"] == "success"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "insufficientCredits"),
        (402, "insufficientCredits"),
        (429, "rateLimitExceeded"),
        (503, "serviceUnavailable"),
    ],
)
async def test_refused_submits(status: int, code: str) -> None:
    async with a_platform(submit_status=status, submit_refusals=1) as platform:
        task = a_task()
        refused, polled = await platform.post(task), await platform.poll(task)
        accepted = await platform.post(task)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (status, code)
    if code == "insufficientCredits":
        assert polled["data"][0]["status"] == "processing"
    else:
        assert polled["errors"][0]["code"] == "taskNotFound"
    assert accepted.status_code == 200


async def test_knobs_turn_for_future_tasks() -> None:
    async with a_platform() as platform:
        turned = await platform.turn(envelope="flat", failures=1)
        task = a_task()
        await platform.post(task)
        await platform.settled()
        state = await platform.poll(task)
        assert turned.json()["knobs"]["envelope"] == "flat"
        assert state["errors"][0]["code"] == "timeoutProvider"
        refused = await platform.turn(drop=7, envelope="mixed")
        assert refused.status_code == 400
        shown = (await platform.client.get("/_control")).json()["knobs"]
    assert (shown["envelope"], shown["drop"]) == ("flat", 0)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"7"])
async def test_knobs_come_as_an_object(body: bytes) -> None:
    async with a_platform() as platform:
        answer = await platform.client.post("/_control", content=body)
    assert answer.status_code == 400


async def test_naming_the_seed_begins_the_run_anew() -> None:
    async def ids(platform: Platform) -> list[str]:
        tasks = [a_task(), a_task(numberResults=2)]
        await platform.post(*tasks)
        await platform.settled()
        return [each["videoUUID"] for task in tasks for each in (await platform.poll(task))["data"]]

    async with a_platform(seed=5) as platform:
        first, second = await ids(platform), await ids(platform)
        await platform.turn(seed=5)
        again = await ids(platform)
    assert first == again
    assert not set(first) & set(second)


async def test_no_secret_is_listed_or_logged(httpserver: HTTPServer) -> None:
    async with a_platform() as platform:
        await platform.post(a_task(webhookURL=a_hook(httpserver, 500)))
        await platform.settled()
        listed = json.dumps(await platform.listing())
    assert "/hook" in listed
    assert platform.log
    assert "secret" not in listed + "".join(platform.log)


async def test_forgotten_tasks_can_be_submitted_again() -> None:
    async with a_platform() as platform:
        task = a_task()
        await platform.post(task)
        await platform.settled()
        await platform.client.delete("/_control/tasks")
        again = await platform.post(task)
    assert again.status_code == 200


async def test_a_dry_run_prices_and_keeps_nothing() -> None:
    async with a_platform() as platform:
        task = a_task(duration=8)
        priced = await platform.post(task, **{"x-runware-dry-run": "1"})
        wrong = await platform.post(a_task(duration=6), **{"x-runware-dry-run": "1"})
        counters = await platform.counters()
    assert priced.json()["data"][0]["cost"] == 0.299
    assert wrong.status_code == 400
    assert counters["tasks"] == 0


async def test_media_play_until_their_time_is_up() -> None:
    clock = Time()
    async with a_platform(clock=clock) as platform:
        task = a_task(ttl=60)
        await platform.post(task)
        await platform.settled()
        url = (await platform.poll(task))["data"][0]["videoURL"]
        whole = await platform.client.get(url)
        part = await platform.client.get(url, headers={"range": "bytes=4-7"})
        clock.now += timedelta(seconds=60)
        gone = await platform.client.get(url)
    assert whole.headers["content-type"] == "video/mp4"
    assert (part.status_code, part.content) == (206, b"ftyp")
    assert gone.status_code == 410


async def test_media_of_an_earlier_run_still_play() -> None:
    async with a_platform() as platform:
        video = await platform.client.get(f"/video/{uuid4()}.mp4")
        image = await platform.client.get(f"/image/{uuid4()}.jpg")
        absent = await platform.client.get("/video/clip.mp4")
    assert video.status_code == 200
    assert image.content.startswith(b"\xff\xd8")
    assert absent.status_code == 404


async def test_the_published_tasks_in_one_batch(httpserver: HTTPServer) -> None:
    pairs = published_pairs()
    async with a_platform() as platform:
        url = a_hook(httpserver)
        await platform.post(*({**pair["request"], "webhookURL": url} for pair in pairs))
        await platform.settled()
    called = {body["data"][0]["taskUUID"]: body["data"][0] for body in received(httpserver)}
    for pair in pairs:
        item = called[pair["request"]["taskUUID"]]
        assert item | {"videoURL": ""} == pair["response"] | {"videoURL": ""}


async def test_it_runs_on_a_socket_and_ends_with_callbacks_pending() -> None:
    config = SimulatorConfig(knobs=Knobs(delay_s=3600, submit_hang_s=3600))
    with anyio.fail_after(GIVE_UP_S):
        async with running(config) as url, httpx.AsyncClient(trust_env=False) as client:
            task = a_task(webhookURL="http://127.0.0.1:9/")
            with pytest.raises(httpx.ReadTimeout):
                await client.post(url, json=[task], headers=KEY, timeout=0.2)
            counters = (await client.get(f"{url}/_control")).json()["counters"]
    assert counters["results"]["processing"] == 1


async def test_a_taken_port_is_an_os_error() -> None:
    async with running(SimulatorConfig()) as url:
        with pytest.raises(OSError, match="in use"):
            async with running(SimulatorConfig(), port=int(url.rpartition(":")[2])):
                raise AssertionError

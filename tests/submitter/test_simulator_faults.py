"""The simulator's rarer faults: uploads, reports of work, given delays, late copies, media gone."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from submitter.simulator import plans
from submitter.simulator.app import HERE
from submitter.simulator.config import Knobs
from tests.submitter.test_simulator import (
    GIVE_UP_S,
    Json,
    Platform,
    Time,
    a_hook,
    a_platform,
    a_task,
    at_once,
    received,
)

pytestmark = pytest.mark.anyio

CLIP = (HERE / "sample.mp4").read_bytes()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def a_bucket(server: HTTPServer, status: int = 200) -> str:
    """An uploadEndpoint, as those of object stores: its query is a credential."""
    server.expect_request("/bucket").respond_with_handler(lambda _: Response(status=status))
    return server.url_for("/bucket?X-Amz-Signature=secret")


async def uploaded(platform: Platform) -> Json:
    """The counters once nothing is under way, uploads included."""
    with anyio.fail_after(GIVE_UP_S):
        while (counters := await platform.settled())["uploads"]["waiting"]:
            await anyio.lowlevel.checkpoint()
    return counters


@pytest.mark.parametrize(
    ("when", "order"), [("before", ["/bucket", "/hook"]), ("after", ["/hook", "/bucket"])]
)
async def test_a_result_is_uploaded_before_or_after_its_callback(
    httpserver: HTTPServer, when: str, order: list[str]
) -> None:
    async with a_platform(upload=when) as platform:
        task = a_task(webhookURL=a_hook(httpserver), uploadEndpoint=a_bucket(httpserver))
        await platform.post(task)
        counters = await uploaded(platform)
        (listed,) = await platform.listing()
    assert [request.path for request, _ in httpserver.log] == order
    (put,) = (request for request, _ in httpserver.log if request.path == "/bucket")
    assert (put.method, put.data, put.content_type) == ("PUT", CLIP, "video/mp4")
    assert put.query_string == b"X-Amz-Signature=secret"
    assert counters["uploads"] == {"waiting": 0, "accepted": 1, "failed": 0}
    assert listed["results"][0]["upload"]["status"] == 200
    assert "secret" not in json.dumps(listed) + "".join(platform.log)


async def test_a_result_is_never_uploaded(httpserver: HTTPServer) -> None:
    async with a_platform(upload="never") as platform:
        task = a_task(webhookURL=a_hook(httpserver), uploadEndpoint=a_bucket(httpserver))
        await platform.post(task)
        counters = await uploaded(platform)
    assert [request.path for request, _ in httpserver.log] == ["/hook"]
    assert counters["uploads"] == {"waiting": 0, "accepted": 0, "failed": 0}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_upload_that_fails_is_tried_once_and_costs_no_result(
    httpserver: HTTPServer, when: str
) -> None:
    async with a_platform(upload=when) as platform:
        task = a_task(webhookURL=a_hook(httpserver), uploadEndpoint=a_bucket(httpserver, 403))
        await platform.post(task)
        counters = await uploaded(platform)
        state = await platform.poll(task)
    assert sorted(request.path for request, _ in httpserver.log) == ["/bucket", "/hook"]
    assert counters["uploads"]["failed"] == 1
    assert state["data"][0]["status"] == "success"


async def test_a_failed_result_has_nothing_to_upload(httpserver: HTTPServer) -> None:
    async with a_platform(failures=1) as platform:
        await platform.post(a_task(uploadEndpoint=a_bucket(httpserver)))
        await uploaded(platform)
    assert httpserver.log == []


@pytest.mark.parametrize(("envelope", "is_wrapped"), [("wrapped", True), ("flat", False)])
async def test_work_is_reported_before_the_result(
    httpserver: HTTPServer, envelope: str, is_wrapped: bool
) -> None:
    async def in_turn(seconds: float) -> None:
        await anyio.sleep(seconds / 20)

    knobs: Json = {"progress_callbacks": 3, "delays": "10", "envelope": envelope}
    async with a_platform(sleep=in_turn, **knobs) as platform:
        await platform.post(a_task(webhookURL=a_hook(httpserver)))
        counters = await platform.settled()
        (listed,) = await platform.listing()
    bodies = received(httpserver)
    assert all(("data" in body) == is_wrapped for body in bodies)
    items = [body["data"][0] if is_wrapped else body for body in bodies]
    assert [item.get("progress") for item in items] == [25, 50, 75, None]
    assert [item["status"] for item in items[:3]] == ["processing"] * 3
    assert "videoUUID" in items[3]
    assert counters["progress"] == {"waiting": 0, "delivered": 3, "lost": 0}
    assert counters["callbacks"]["delivered"] == 1
    assert len(listed["results"][0]["progress"]) == 3


async def test_reports_take_no_time_from_the_result() -> None:
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)
        await at_once(seconds)

    async with a_platform(progress_callbacks=3, delays="10", sleep=wait) as platform:
        await platform.post(a_task(webhookURL="http://127.0.0.1:9/"))
        with anyio.fail_after(GIVE_UP_S):
            while (await platform.counters())["results"]["processing"]:
                await anyio.lowlevel.checkpoint()
    assert waited.count(2.5) == 4


async def test_a_report_does_not_stand_for_an_early_callback(httpserver: HTTPServer) -> None:
    knobs: Json = {"callback_before_ack": True, "progress_callbacks": 1}
    async with a_platform(sleep=anyio.sleep, **knobs) as platform:
        await platform.post(a_task(webhookURL=a_hook(httpserver)))
        assert any("videoUUID" in body["data"][0] for body in received(httpserver))


async def test_a_dropped_callback_can_have_been_announced(httpserver: HTTPServer) -> None:
    async with a_platform(progress_callbacks=1, drop=1) as platform:
        await platform.post(a_task(webhookURL=a_hook(httpserver)))
        with anyio.fail_after(GIVE_UP_S):
            while (await platform.counters())["progress"]["waiting"]:
                await anyio.lowlevel.checkpoint()
        counters = await platform.settled()
    assert [body["data"][0]["status"] for body in received(httpserver)] == ["processing"]
    assert counters["dropped"] == 1


def waits(count: int, **knobs: Any) -> list[tuple[int, float]]:
    setting = plans.Setting(Knobs(**knobs), plans.Dice(1, 0), "http://sim", {})
    return plans.waits(count, setting)


def test_delays_are_given_one_by_one() -> None:
    assert waits(4, delays="30,0.5") == [(0, 30.0), (1, 0.5), (2, 0.5), (3, 0.5)]
    assert waits(1, delays="7", order="shuffled", delay_s=9) == [(0, 7.0)]


@pytest.mark.parametrize("wrong", ["", ",", "1,", "-1", "1;2", "1,2,3,4,5", "1e9", "123456"])
async def test_delays_are_a_list_of_seconds(wrong: str) -> None:
    async with a_platform() as platform:
        answer = await platform.turn(delays=wrong)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["loc"] == ["delays"]


async def test_the_result_that_fails_can_be_chosen() -> None:
    async with a_platform(fail_index=1) as platform:
        many, one = a_task(numberResults=3), a_task()
        await platform.post(many, one)
        await platform.settled()
        states = [await platform.poll(task) for task in (many, one)]
    assert [(len(state["data"]), len(state.get("errors", []))) for state in states] == [
        (2, 1),
        (1, 0),
    ]


async def test_a_duplicate_comes_late(httpserver: HTTPServer) -> None:
    gate = anyio.Event()

    async def wait(seconds: float) -> None:
        await (gate.wait() if seconds == 99 else at_once(seconds))

    async with a_platform(duplicates=1, duplicate_after_s=99, sleep=wait) as platform:
        await platform.post(a_task(webhookURL=a_hook(httpserver)))
        with anyio.fail_after(GIVE_UP_S):
            while not (await platform.counters())["callbacks"]["delivered"]:
                await anyio.lowlevel.checkpoint()
        assert (await platform.counters())["callbacks"]["waiting"] == 1
        assert len(httpserver.log) == 1
        gate.set()
        await platform.settled()
    assert len(httpserver.log) == 2


async def test_error_envelopes_are_mixed(httpserver: HTTPServer) -> None:
    async with a_platform(failures=1, error_envelope="mixed") as platform:
        url = a_hook(httpserver)
        await platform.post(*(a_task(numberResults=4, webhookURL=url) for _ in range(8)))
        await platform.settled()
    shapes = {next(iter(body)) for body in received(httpserver)}
    assert shapes == {"errors", "error", "taskType", "data"}


async def test_one_task_of_a_request_is_refused_by_itself() -> None:
    async with a_platform(task_refusals=0.5, seed=3) as platform:
        tasks = [a_task() for _ in range(12)]
        answer = await platform.post(*tasks)
        body = answer.json()
        await platform.turn(task_refusals=1, submit_code="providerUnavailable")
        refused = await platform.post(a_task())
    assert answer.status_code == 200
    assert body["data"]
    assert {error["code"] for error in body["errors"]} == {"inferenceRateLimitExceeded"}
    told = [item["taskUUID"] for item in [*body["data"], *body["errors"]]]
    assert sorted(told) == sorted(task["taskUUID"] for task in tasks)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (
        400,
        "providerUnavailable",
    )


@pytest.mark.parametrize("status", [404, 410])
async def test_media_that_are_gone(status: int) -> None:
    clock = Time()
    async with a_platform(clock=clock, media_gone=status, media_ttl_s=9) as platform:
        task = a_task(ttl=60)
        await platform.post(task)
        await platform.settled()
        url = (await platform.poll(task))["data"][0]["videoURL"]
        clock.now += timedelta(seconds=8)
        there = await platform.client.get(url)
        clock.now += timedelta(seconds=1)
        gone = await platform.client.get(url)
    assert (there.status_code, gone.status_code) == (200, status)


async def test_a_refusal_of_the_key_names_no_task() -> None:
    async with a_platform(submit_status=401, submit_retry_after="9") as platform:
        answer = await platform.post(a_task(), a_task())
    assert answer.headers["retry-after"] == "9"
    for error in answer.json()["errors"]:
        assert (error["taskType"], "taskUUID" in error) == ("authentication", False)


async def test_pixverse_rules_are_turned_while_it_runs() -> None:
    wrong = a_task(width=7, height=7)
    async with a_platform() as platform:
        refused = await platform.post(wrong)
        await platform.turn(pixverse_rules="off")
        taken = await platform.post(wrong)
    assert refused.json()["errors"][0]["parameter"] == ["width", "height"]
    assert taken.status_code == 200

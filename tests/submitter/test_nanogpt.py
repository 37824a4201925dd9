"""NanoGPT's wire, where it differs from the others': what the suite of all platforms can't say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import stamina

from receiver.platforms.items import Category
from receiver.platforms.nanogpt import parse
from submitter.errors import AmbiguousSubmit, KeyRefused, PlatformUnavailable
from submitter.platforms.nanogpt import NanoGPT, models, request_of
from submitter.platforms.protocol import Accepted, Outcome, Outgoing, Rejection, TaskRef
from submitter.platforms.snapshots import Standing
from submitter.simulator.config import Knobs, SimulatorConfig
from submitter.simulator.serve import running
from submitter.tasks import GenerationTask
from tests.make import OTHER, TASK
from tests.submitter.platform_suite import Answer, Wire
from tests.submitter.stage import API_KEY

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
RUN = "vid_m1abc123def456"


@asynccontextmanager
async def talking_to(*answers: Answer) -> AsyncIterator[tuple[NanoGPT, Wire]]:
    wire = Wire(*answers)
    with stamina.set_testing(True, attempts=3):
        async with NanoGPT(API_KEY, transport=wire.transport) as nanogpt:
            yield nanogpt, wire


def a_task(model: str = "sora-2", **parameters: Any) -> GenerationTask:
    return GenerationTask(id=TASK, platform="nanogpt", model=model, parameters=parameters)


async def submit(answer: Answer, **parameters: Any) -> tuple[Outcome, Wire]:
    async with talking_to(answer) as (nanogpt, wire):
        outcomes = await nanogpt.submit([Outgoing(a_task(**parameters), "https://x.example")])
    return outcomes[TASK], wire


def ack(**more: Any) -> httpx.Response:
    return httpx.Response(202, json={"runId": RUN, "id": RUN, "status": "pending", **more})


async def test_a_request_carries_our_id_as_its_thread() -> None:
    said, wire = await submit(ack(cost=0.35, model="sora-2"), prompt="a boat", seconds="4")
    assert said == Accepted(RUN)
    (request,) = wire.asked
    assert str(request.url) == "https://nano-gpt.com/api/generate-video"
    sent = {"model": "sora-2", "prompt": "a boat", "seconds": "4", "conversationUUID": TASK}
    assert json.loads(request.content) == sent
    assert "x.example" not in request.content.decode()  # it calls nobody back
    assert request_of(a_task(conversationUUID="my own"))["conversationUUID"] == "my own"


@pytest.mark.parametrize("named", ["runId", "taskId"])
async def test_a_midjourney_run_is_extended_at_its_own_route(named: str) -> None:
    said, wire = await submit(
        ack(taskId=RUN, eta=60), model="midjourney-video", **{named: "vid_a", "index": 2}
    )
    assert said == Accepted(RUN)
    (request,) = wire.asked
    assert request.url.path == "/api/generate-video/extend"
    assert json.loads(request.content) == {named: "vid_a", "index": 2}


async def test_a_source_video_is_extended_like_any_task() -> None:
    source = {"prompt": "go on", "videoUrl": "https://cdn.example.com/a.mp4"}
    said, wire = await submit(ack(), model="wan-wavespeed-25-extend", **source)
    assert said == Accepted(RUN)
    assert wire.asked[0].url.path == "/api/generate-video"
    assert json.loads(wire.asked[0].content).items() >= source.items()


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize("named", ["runId", "id", "taskId"])
async def test_any_2xx_with_a_run_is_a_yes(status: int, named: str) -> None:
    said, _ = await submit(httpx.Response(status, json={named: RUN, "status": "pending"}))
    assert said == Accepted(RUN)


def fault(**more: str) -> Json:
    return {"error": {"message": "No.", **more}}


MISSING = fault(type="invalid_request_error", code="missing_required_parameter", param="prompt")
POLICY = {**fault(type="CONTENT_POLICY_VIOLATION"), "refundMessage": "It was refunded."}
POOR = {"error": "Insufficient balance", "status": 402, "requiredBalance": 0.35}
BODIES: list[tuple[int, Json, str, Category]] = [
    (400, MISSING, "missing_required_parameter", Category.VALIDATION),
    (402, POOR, "INSUFFICIENT_BALANCE", Category.QUOTA),
    (400, POLICY, "CONTENT_POLICY_VIOLATION", Category.SAFETY),
    (403, fault(type="PRO_REQUIRED"), "PRO_REQUIRED", Category.AUTH),
    (401, fault(type="authentication_error"), "authentication_error", Category.AUTH),
    (404, fault(code="model_not_found"), "model_not_found", Category.NOT_FOUND),
    (409, fault(code="conflict"), "conflict", Category.VALIDATION),
]


@pytest.mark.parametrize(
    ("status", "body", "code", "category"), BODIES, ids=[code for _, _, code, _ in BODIES]
)
async def test_each_of_its_error_bodies_is_a_rejection(
    status: int, body: Json, code: str, category: Category
) -> None:
    answer = httpx.Response(status, json=body, headers={"x-request-id": "req_17"})
    said, wire = await submit(answer)
    assert isinstance(said, Rejection)
    assert (said.code, said.http_status, said.request_id) == (code, status, "req_17")
    assert said.body == body
    assert said.parameter == ("prompt" if code == "missing_required_parameter" else None)
    (item,) = parse(said.body, TASK)
    assert item.error is not None
    assert (item.error.code, item.error.category) == (code, category)
    assert len(wire.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 413, 415, 422])
async def test_a_refusal_without_a_readable_body_is_one_by_its_status(status: int) -> None:
    said, wire = await submit(httpx.Response(status, text="<html>no</html>"))
    assert isinstance(said, Rejection)
    assert str(status) in said.message
    (item,) = parse(said.body, TASK)
    assert item.error is not None
    assert item.error.code == said.code
    assert len(wire.asked) == 1


async def test_a_time_out_that_it_tells_of_is_none_of_those() -> None:
    said, wire = await submit(
        httpx.Response(408, json={"error": "Timeout"}, headers={"x-request-id": "req_18"})
    )
    assert isinstance(said, AmbiguousSubmit)
    assert "req_18" in said.reason
    assert len(wire.asked) == 1


@pytest.mark.parametrize(
    ("headers", "more"),
    [({"x-x402": "true"}, {}), ({}, {"payment": {"version": 1, "paymentId": "pay_1"}})],
)
async def test_a_payment_challenge_says_what_to_check(headers: dict[str, str], more: Json) -> None:
    error = {"type": "insufficient_quota", "code": "insufficient_quota", "message": "Pay first."}
    answer = httpx.Response(402, json={"error": error, **more}, headers=headers)
    said, wire = await submit(answer)
    assert isinstance(said, Rejection)
    assert said.code == "insufficient_quota"
    assert "NANOGPT_API_KEY" in said.message
    assert "x-x402" not in wire.asked[0].headers  # which would ask for it


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503, json={"error": {"message": "Later.", "type": "service_unavailable"}}),
        httpx.Response(400, json={"error": {"message": "Later.", "type": "RATE_LIMITED"}}),
        httpx.Response(429, json={"error": {"code": "daily_rpd_limit_exceeded"}}),
    ],
    ids=lambda answer: str(answer.status_code),
)
async def test_what_it_refuses_for_now_is_sent_again(answer: httpx.Response) -> None:
    said, wire = await submit(answer)
    assert isinstance(said, PlatformUnavailable)
    assert said.http_status == answer.status_code
    assert len(wire.asked) == 3


async def test_a_daily_limit_is_not_waited_for() -> None:
    body = {"error": {"message": "Today is over.", "code": "daily_usd_limit_exceeded"}}
    said, wire = await submit(httpx.Response(429, json=body, headers={"retry-after": "7200"}))
    assert isinstance(said, PlatformUnavailable)
    assert (said.retry_after_s, len(wire.asked)) == (7200, 1)


def listed(*runs: Any) -> httpx.Response:
    return httpx.Response(200, json={"data": list(runs)})


def a_run(run: str = RUN, thread: str | None = TASK) -> Json:
    found = {"runId": run, "id": run, "model": "sora-2", "status": "completed"}
    return found if thread is None else {**found, "conversationUUID": thread}


def status(word: str = "IN_PROGRESS") -> httpx.Response:
    return httpx.Response(200, json={"requestId": RUN, "data": {"status": word}})


async def test_a_run_is_asked_after_by_its_own_name() -> None:
    async with talking_to(status()) as (nanogpt, wire):
        found = await nanogpt.fetch(TaskRef(TASK, RUN))
    assert (found.known, found.platform_id) == (True, RUN)
    assert str(wire.asked[0].url) == f"https://nano-gpt.com/api/video/status?requestId={RUN}"


async def test_a_run_whose_name_was_lost_is_found_by_our_id() -> None:
    others: list[Any] = [
        a_run("vid_other", OTHER),
        a_run("vid_none", None),
        {"conversationUUID": TASK},
        7,
    ]
    answers = [listed(*others, a_run(thread=TASK.upper())), status()]
    async with talking_to(*answers) as (nanogpt, wire):
        found = await nanogpt.fetch(TaskRef(TASK))
    assert (found.known, found.platform_id, found.standing) == (True, RUN, Standing.WHOLE)
    recover, asked = wire.asked
    assert recover.url.path == "/api/generate-video/recover"
    assert dict(recover.url.params) == {"conversationUUID": TASK, "limit": "50"}
    assert asked.url.params["requestId"] == RUN


@pytest.mark.parametrize("runs", [[], [a_run(thread=OTHER)], [a_run(thread=None)]])
async def test_a_run_that_is_not_listed_is_absent(runs: list[Json]) -> None:
    async with talking_to(listed(*runs)) as (nanogpt, wire):
        found = await nanogpt.fetch(TaskRef(TASK))
    assert (found.standing, found.known, found.platform_id) == (Standing.ABSENT, False, None)
    assert len(wire.asked) == 1


async def test_of_two_runs_with_our_id_neither_is_taken() -> None:
    async with talking_to(listed(a_run("vid_a"), a_run("vid_b"), a_run("vid_b"))) as (nanogpt, _):
        with pytest.raises(PlatformUnavailable, match="vid_a, vid_b"):
            await nanogpt.fetch(TaskRef(TASK))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.Response(401, json={"error": "No."}), KeyRefused),
        (httpx.Response(429, headers={"retry-after": "60"}), PlatformUnavailable),
        (httpx.Response(500), PlatformUnavailable),
        (httpx.Response(200, json={"data": "none"}), PlatformUnavailable),
        (httpx.ReadTimeout("no"), PlatformUnavailable),
    ],
)
async def test_a_list_that_can_not_be_read_says_nothing(
    answer: Answer, kind: type[Exception]
) -> None:
    async with talking_to(answer) as (nanogpt, _):
        with pytest.raises(kind) as caught:
            await nanogpt.fetch(TaskRef(TASK))
    assert type(caught.value) is kind


async def test_a_run_of_another_account_is_no_refused_key() -> None:
    body = {"error": {"message": "Not yours.", "type": "permission_denied_error"}}
    answer = httpx.Response(403, json=body, headers={"x-request-id": "req_19"})
    async with talking_to(answer) as (nanogpt, _):
        with pytest.raises(PlatformUnavailable, match="req_19") as caught:
            await nanogpt.fetch(TaskRef(TASK, RUN))
    assert type(caught.value) is PlatformUnavailable
    assert caught.value.http_status == 403


async def test_an_error_in_a_200_is_of_the_question() -> None:
    async with talking_to(httpx.Response(200, json={"error": "Something broke."})) as (nanogpt, _):
        with pytest.raises(PlatformUnavailable):
            await nanogpt.fetch(TaskRef(TASK, RUN))
    refused = httpx.Response(200, json={"error": {"code": "invalid_api_key", "message": "No."}})
    async with talking_to(refused) as (nanogpt, _):
        with pytest.raises(KeyRefused):
            await nanogpt.fetch(TaskRef(TASK, RUN))


@pytest.mark.parametrize(
    "body", [{"status": "completed"}, {"data": {"status": "COMPLETED", "output": {}}}]
)
async def test_a_run_that_is_complete_and_shows_nothing_is_shown_to_people(body: Json) -> None:
    async with talking_to(httpx.Response(200, json=body)) as (nanogpt, _):
        found = await nanogpt.fetch(TaskRef(TASK, RUN))
    assert (found.standing, found.known, found.results) == (Standing.WHOLE, True, 0)


@pytest.mark.parametrize("shape", ["guide", "unified"])
async def test_the_simulator_is_asked_in_both_shapes(shape: str) -> None:
    knobs = Knobs.model_validate({"delay_s": 0, "spread_s": 0, "nanogpt_shape": shape})
    async with running(SimulatorConfig(knobs=knobs, api_key=API_KEY)) as url:
        async with NanoGPT(API_KEY, f"{url}/api/") as nanogpt:
            assert nanogpt.is_local
            asked = Outgoing(a_task(prompt="a boat"), "")
            said = (await nanogpt.submit([asked]))[TASK]
            assert isinstance(said, Accepted)
            named = await nanogpt.fetch(TaskRef(TASK, said.platform_id))
            found = await nanogpt.fetch(TaskRef(TASK))
            assert found.platform_id == named.platform_id == said.platform_id
            assert not (await nanogpt.fetch(TaskRef(OTHER))).known
            assert not (await nanogpt.fetch(TaskRef(OTHER, "vid_nobody"))).known
        async with NanoGPT("another", f"{url}/api") as nanogpt:
            with pytest.raises(KeyRefused, match="NANOGPT_API_KEY"):
                await nanogpt.fetch(TaskRef(TASK, said.platform_id))


async def test_its_models_are_listed_without_a_key() -> None:
    async with running(SimulatorConfig()) as url:
        found = await models("", f"{url}/api")
    assert "sora-2" in [model["id"] for model in found]
    assert all("supported_parameters" in model for model in found)


@pytest.mark.parametrize(
    "answer", [httpx.Response(500), httpx.Response(200, json={}), httpx.ConnectError("no")]
)
async def test_models_that_are_not_listed_are_an_error(answer: Answer) -> None:
    async with talking_to(answer) as (nanogpt, _):
        with pytest.raises(PlatformUnavailable, match=r"^nanogpt did not list its models"):
            await nanogpt.models()

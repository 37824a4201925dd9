"""The simulator as NanoGPT: its endpoints over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest

from submitter.simulator import plans
from submitter.simulator.config import Knobs, SimulatorConfig
from submitter.simulator.nanogpt import contract, errors
from submitter.simulator.serve import running

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
GIVE_UP_S = 20
AT_ONCE: Json = {"delay_s": 0, "spread_s": 0}
NEVER: Json = {"delay_s": 3600, "spread_s": 0}
VIDEO = "/api/generate-video"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Platform:
    """A simulator on a socket, and a client with one key."""

    client: httpx.AsyncClient

    async def submit(self, **fields: Any) -> Json:
        answer = await self.client.post(VIDEO, json={"model": "sora-2", "prompt": "x"} | fields)
        assert answer.status_code == 202, answer.text
        ack: Json = answer.json()
        return ack

    async def status(self, run_id: str, **headers: str) -> httpx.Response:
        query = {"requestId": run_id}
        return await self.client.get("/api/video/status", params=query, headers=headers)

    async def ended(self, run_id: str) -> Json:
        """The status answer once the run has ended."""
        with anyio.fail_after(GIVE_UP_S):
            while (await self.counters())["results"]["processing"]:
                await anyio.lowlevel.checkpoint()
        body: Json = (await self.status(run_id)).json()
        return body

    async def counters(self) -> Json:
        counters: Json = (await self.client.get("/_control")).json()["counters"]
        return counters

    async def turn(self, **knobs: Any) -> None:
        answer = await self.client.post("/_control", json=knobs)
        assert answer.status_code == 200, answer.text


@asynccontextmanager
async def a_platform(*, api_key: str | None = None, **knobs: Any) -> AsyncIterator[Platform]:
    config = SimulatorConfig(knobs=Knobs(**(AT_ONCE | knobs)), api_key=api_key)
    async with (
        running(config) as url,
        httpx.AsyncClient(base_url=url, headers={"x-api-key": "k"}, trust_env=False) as client,
    ):
        yield Platform(client)


async def test_a_submit_is_acknowledged_with_its_precharge() -> None:
    async with a_platform(**NEVER) as platform:
        ack = await platform.submit()
        second = await platform.submit()
    assert ack["runId"] == ack["id"]
    assert ack["runId"].startswith("vid_")
    assert second["runId"] != ack["runId"]
    expected = {"status": "pending", "model": "sora-2", "cost": 0.35, "paymentSource": "USD"}
    assert ack | expected == ack
    assert (ack["remainingBalance"], second["remainingBalance"]) == (999.65, 999.3)


async def test_the_guide_shape_of_a_completed_run() -> None:
    async with a_platform(nanogpt_settles=2) as platform:
        ack = await platform.submit()
        body = await platform.ended(ack["runId"])
        clip = await platform.client.get(body["data"]["output"]["video"]["url"])
        by_alias = await platform.client.get("/api/video/status", params={"runId": ack["runId"]})
        query = {"runId": ack["runId"], "model": "sora-2"}
        old = (await platform.client.get(f"{VIDEO}/status", params=query)).json()
    assert (body["requestId"], body["model"]) == (ack["runId"], "sora-2")
    assert (body["data"]["status"], body["data"]["requestId"]) == ("COMPLETED", ack["runId"])
    assert body["data"]["cost"] == 0.7
    assert (clip.status_code, clip.headers["content-type"]) == (200, "video/mp4")
    assert by_alias.json() == body
    assert set(old) == {"data"}
    assert old["data"].pop("request_id") == body["data"].pop("requestId")
    assert old["data"] == body["data"]


async def test_the_unified_shape_of_a_completed_run() -> None:
    async with a_platform(nanogpt_shape="unified") as platform:
        ack = await platform.submit()
        body = await platform.ended(ack["runId"])
        clip = await platform.client.get(body["videoUrl"])
    assert body["status"] == "completed"
    assert clip.status_code == 200
    assert body["createdAt"] <= body["completedAt"]
    assert body["completedAt"].endswith("Z")
    assert "error" not in body


async def test_a_run_in_work_in_both_shapes() -> None:
    async with a_platform(**NEVER) as platform:
        ack = await platform.submit()
        guide = (await platform.status(ack["runId"])).json()
        await platform.turn(nanogpt_shape="unified")
        unified = (await platform.status(ack["runId"])).json()
    assert guide["data"] == {"status": "IN_QUEUE", "requestId": ack["runId"]}
    assert (unified["status"], unified["progress"]) == ("queued", 0)
    assert unified["estimatedTimeRemaining"] > 3000
    assert "completedAt" not in unified


async def test_mixed_shapes_tell_the_same_result() -> None:
    async with a_platform(nanogpt_shape="mixed") as platform:
        ack = await platform.submit()
        await platform.ended(ack["runId"])
        bodies = [(await platform.status(ack["runId"])).json() for _ in range(20)]
    guide = [body for body in bodies if "data" in body]
    unified = [body for body in bodies if "videoUrl" in body]
    assert len(guide) + len(unified) == 20
    assert all(guide == [guide[0]] * len(guide) for guide in (guide, unified) if guide)
    assert guide[0]["data"]["output"]["video"]["url"] == unified[0]["videoUrl"]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("nsfw", {"error", "isNSFWError", "userFriendlyError"}),
        ("friendly", {"error", "isNSFWError", "userFriendlyError"}),
        ("plain", {"error"}),
    ],
)
async def test_a_failed_run_is_told_and_refunded(kind: str, fields: set[str]) -> None:
    async with a_platform(failures=1, nanogpt_failure=kind) as platform:
        ack = await platform.submit()
        body = await platform.ended(ack["runId"])
        await platform.turn(nanogpt_shape="unified")
        unified = (await platform.status(ack["runId"])).json()
        again = await platform.submit()
    assert body["data"]["status"] == "FAILED"
    assert set(body["data"]) - {"status", "requestId"} == fields
    assert body["data"].get("isNSFWError", False) == (kind == "nsfw")
    assert (unified["status"], unified["error"]) == ("failed", body["data"]["error"])
    assert "videoUrl" not in unified
    assert again["remainingBalance"] == 999.65


async def test_the_failing_model_fails_here_too() -> None:
    async with a_platform() as platform:
        ack = await platform.submit(model=plans.FAILING)
        body = await platform.ended(ack["runId"])
    assert body["data"]["status"] == "FAILED"


@pytest.mark.parametrize(
    ("spelling", "guide", "unified"),
    [
        ("by_shape", "CANCELED", "cancelled"),
        ("one_l", "CANCELED", "canceled"),
        ("two_l", "CANCELLED", "cancelled"),
    ],
)
async def test_a_canceled_run(spelling: str, guide: str, unified: str) -> None:
    async with a_platform(nanogpt_cancels=1, nanogpt_canceled=spelling) as platform:
        ack = await platform.submit()
        body = await platform.ended(ack["runId"])
        await platform.turn(nanogpt_shape="unified")
        other = (await platform.status(ack["runId"])).json()
    assert (body["data"]["status"], other["status"]) == (guide, unified)


@pytest.mark.parametrize("header", [{"x-api-key": "right"}, {"authorization": "Bearer right"}])
async def test_a_key_comes_in_either_header(header: dict[str, str]) -> None:
    async with a_platform(api_key="right") as platform:
        del platform.client.headers["x-api-key"]
        submit = {"model": "sora-2", "prompt": "x"}
        right = await platform.client.post(VIDEO, json=submit, headers=header)
        wrong = await platform.client.post(VIDEO, json=submit, headers={"x-api-key": "wrong"})
        none = await platform.client.post(VIDEO, json=submit)
        asked = await platform.client.get("/api/video/status?requestId=x")
        models = await platform.client.get("/api/v1/video-models")
    assert (right.status_code, models.status_code) == (202, 200)
    assert [answer.status_code for answer in (wrong, none, asked)] == [401, 401, 401]
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert none.json()["error"]["type"] == "authentication_error"


async def test_a_job_belongs_to_the_key_that_sent_it() -> None:
    async with a_platform() as platform:
        ack = await platform.submit(model=contract.MIDJOURNEY)
        foreign = await platform.status(ack["runId"], **{"x-api-key": "other"})
        unknown = await platform.status("vid_nobody")
        nameless = await platform.client.get("/api/video/status")
        half = await platform.client.get(f"{VIDEO}/status", params={"runId": ack["runId"]})
        listed = await platform.client.get(f"{VIDEO}/recover", headers={"x-api-key": "other"})
        extended = await platform.client.post(
            f"{VIDEO}/extend",
            json={"runId": ack["runId"], "index": 0},
            headers={"x-api-key": "other"},
        )
    statuses = [each.status_code for each in (foreign, unknown, nameless, half, extended)]
    assert statuses == [403, 404, 400, 400, 403]
    assert half.json()["error"]["param"] == "model"
    assert listed.json() == {"data": []}


async def test_a_midjourney_run_is_extended() -> None:
    async with a_platform(nanogpt_settles=0) as platform:
        source = await platform.submit(model=contract.MIDJOURNEY)
        other = await platform.submit()

        async def extend(**body: Any) -> httpx.Response:
            return await platform.client.post(f"{VIDEO}/extend", json=body)

        taken = await extend(runId=source["runId"], index=3)
        legacy = await extend(taskId=source["runId"], index=0)
        refused = [
            await extend(index=0),
            await extend(runId=source["runId"]),
            await extend(runId=source["runId"], index=4),
            await extend(runId=source["runId"], index="0"),
            await extend(runId=source["runId"], index=True),
            await extend(runId=source["runId"], index=0, videoUrl="https://x.example/a.mp4"),
            await extend(runId=other["runId"], index=0),
        ]
        unknown = await extend(runId="vid_nobody", index=0)
        body = await platform.ended(taken.json()["runId"])
    ack = taken.json()
    assert (taken.status_code, ack["success"], ack["status"]) == (200, True, "pending")
    assert ack["runId"] == ack["id"] == ack["taskId"] != source["runId"]
    assert (ack["model"], ack["eta"]) == (contract.MIDJOURNEY, 60)
    assert ack["message"] == "Extending video 4 by 5 seconds..."
    assert legacy.status_code == 200
    assert [answer.status_code for answer in refused] == [400] * 7
    params = [answer.json()["error"]["param"] for answer in refused]
    assert params == ["runId", *["index"] * 4, "videoUrl", "runId"]
    assert unknown.status_code == 404
    assert body["data"]["status"] == "COMPLETED"


async def test_recover_lists_the_newest_runs_of_a_key_first() -> None:
    async with a_platform(**NEVER) as platform:
        runs = [(await platform.submit(conversationUUID=f"c{n}"))["runId"] for n in range(55)]
        last = (await platform.submit(model="veo2-video"))["runId"]

        async def recover(**query: Any) -> list[Json]:
            answer = await platform.client.get(f"{VIDEO}/recover", params=query)
            found: list[Json] = answer.json()["data"]
            return found

        usual, most = await recover(), await recover(limit=1000)
        by_conversation = await recover(conversationUUID="c7")
        by_model = await recover(model="veo2-video")
        wrong = await platform.client.get(f"{VIDEO}/recover", params={"limit": "0"})
    assert [run["runId"] for run in usual] == [last, *reversed(runs[-9:])]
    assert [run["runId"] for run in most] == [last, *reversed(runs[-49:])]
    (found,) = by_conversation
    assert (found["id"], found["conversationUUID"]) == (runs[7], "c7")
    assert (found["status"], found["model"]) == ("processing", "sora-2")
    assert found["createdAt"].endswith("Z")
    assert [run["runId"] for run in by_model] == [last]
    assert "conversationUUID" not in by_model[0]
    assert wrong.json()["error"]["param"] == "limit"


async def test_recover_tells_how_a_run_ended() -> None:
    async with a_platform() as platform:
        ack = await platform.submit()
        await platform.ended(ack["runId"])
        (found,) = (await platform.client.get(f"{VIDEO}/recover")).json()["data"]
    assert found["status"] == "completed"


async def test_the_models_are_listed_with_and_without_details() -> None:
    async with a_platform() as platform:
        full = (await platform.client.get("/api/v1/video-models")).json()
        brief = (await platform.client.get("/api/v1/video-models?detailed=false")).json()
    assert full["object"] == "list"
    assert full["meta"]["count"] == len(full["data"]) == len(brief["data"])
    assert {each["id"] for each in full["data"]} == {each["id"] for each in brief["data"]}
    assert all(each["capabilities"]["video_generation"] for each in full["data"])
    assert all(set(each) == {"id", "object"} for each in brief["data"])


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ("openai", {"error": {"message": ..., "type": "insufficient_quota", "code": ...}}),
        ("simple", {"error": ..., "status": 402, "requiredBalance": 0.35}),
        ("refund", {"error": {"message": ..., "type": "INSUFFICIENT_BALANCE"}}),
    ],
)
async def test_a_balance_that_does_not_cover_a_submit(shape: str, body: Json) -> None:
    async with a_platform(nanogpt_balance=0.35, nanogpt_errors=shape, **NEVER) as platform:
        await platform.submit()
        answer = await platform.client.post(VIDEO, json={"model": "sora-2", "prompt": "x"})
        told = answer.json()
        await platform.turn(nanogpt_402="x402")
        challenge = await platform.client.post(VIDEO, json={"model": "sora-2", "prompt": "x"})
    assert answer.status_code == challenge.status_code == 402
    assert ("refundMessage" in told) == (shape == "refund")
    assert _alike(body, told)
    assert challenge.headers["x-x402"] == "true"
    assert challenge.json()["payment"]["amountUsd"] == "0.3500"
    assert "x-x402" not in answer.headers


def _alike(pattern: Any, found: Any) -> bool:
    if isinstance(pattern, dict):
        return all(_alike(value, found[key]) for key, value in pattern.items())
    return pattern is ... or bool(pattern == found)


async def test_a_client_without_a_key_can_ask_for_a_payment_challenge() -> None:
    async with a_platform() as platform:
        del platform.client.headers["x-api-key"]
        answer = await platform.client.post(VIDEO, json={}, headers={"x-x402": "true"})
    assert answer.status_code == 402
    assert answer.json()["payment"]["paymentId"].startswith("pay_")


async def test_error_bodies_are_mixed() -> None:
    async with a_platform(nanogpt_errors="mixed") as platform:
        bodies = [(await platform.status("vid_nobody")).json() for _ in range(30)]
    kinds = {(type(body["error"]), "refundMessage" in body) for body in bodies}
    assert kinds == {(dict, False), (dict, True), (str, False)}


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 409, 413, 429, 500, 503, 504])
async def test_refused_submits_and_polls(status: int) -> None:
    knobs: Json = {"submit_status": status, "submit_refusals": 1}
    knobs |= {"poll_status": status, "poll_faults": 1}
    async with a_platform(**knobs) as platform:
        request = {"model": "sora-2", "prompt": "x"}
        submit = await platform.client.post(VIDEO, json=request)
        ack = await platform.submit()
        poll = await platform.status(ack["runId"])
        body = await platform.ended(ack["runId"])
        counters = await platform.counters()
    assert (submit.status_code, poll.status_code) == (status, status)
    assert submit.json()["error"]["code"] == contract.STATUS_CODES[status]
    assert [each.headers.get("retry-after") for each in (submit, poll)] == [
        "1" if status == 429 else None
    ] * 2
    assert submit.headers["x-request-id"] != poll.headers["x-request-id"]
    assert body["data"]["status"] == "COMPLETED"
    assert counters["nanogpt"]["submit"] == counters["nanogpt"]["status"] == 2
    assert counters["refused"] == 2


async def test_a_refusal_says_what_it_was_told_to() -> None:
    knobs: Json = {"submit_code": "daily_usd_limit_exceeded", "submit_retry_after": "7"}
    async with a_platform(submit_status=429, nanogpt_errors="refund", **knobs) as platform:
        refund = await platform.client.post(VIDEO, json={})
        await platform.turn(nanogpt_errors="openai")
        openai = await platform.client.post(VIDEO, json={})
        await platform.turn(nanogpt_errors="refund", submit_status=400, submit_code=errors.POLICY)
        policy = await platform.client.post(VIDEO, json={})
    assert (refund.json()["error"]["type"], refund.headers["retry-after"]) == ("RATE_LIMITED", "7")
    assert openai.json()["error"]["code"] == "daily_usd_limit_exceeded"
    assert policy.json()["error"]["type"] == "CONTENT_POLICY_VIOLATION"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000])
async def test_a_submit_is_a_json_object(body: bytes) -> None:
    async with a_platform() as platform:
        answer = await platform.client.post(VIDEO, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


async def test_jobs_are_counted_and_listed_beside_the_tasks_of_runware() -> None:
    async with a_platform() as platform:
        ack = await platform.submit()
        await platform.ended(ack["runId"])
        counters = await platform.counters()
        (job,) = (await platform.client.get("/_control/tasks")).json()["data"]
        await platform.client.delete("/_control/tasks")
        gone = await platform.status(ack["runId"])
    assert counters["tasks"] == counters["results"]["success"] == 1
    assert (job["platform"], job["runId"], job["model"]) == ("nanogpt", ack["runId"], "sora-2")
    assert (job["results"][0]["status"], job["results"][0]["callbacks"]) == ("success", [])
    assert gone.status_code == 404


async def test_media_are_gone_after_their_time() -> None:
    async with a_platform(media_ttl_s=0) as platform:
        ack = await platform.submit()
        body = await platform.ended(ack["runId"])
        clip = await platform.client.get(body["data"]["output"]["video"]["url"])
    assert clip.status_code == 410


async def test_naming_the_seed_repeats_the_run_whatever_runware_did() -> None:
    knobs: Json = {"failures": 0.3, "nanogpt_cancels": 0.3}
    task = {"taskType": "videoInference", "taskUUID": "7f0a1e5e-52a7-4f5a-9d0e-0a4c6b1f2d3e"}
    task |= {"model": "pixverse:1@2", "positivePrompt": "a boat"}

    async def outcomes(platform: Platform) -> list[str]:
        found = []
        for _ in range(8):
            ack = await platform.submit()
            found += [ack["runId"], (await platform.ended(ack["runId"]))["data"]["status"]]
        return found

    async with a_platform(seed=5, **knobs) as platform:
        first, second = await outcomes(platform), await outcomes(platform)
        await platform.turn(seed=5)
        bearer = {"authorization": "Bearer k"}
        assert (await platform.client.post("/v1", json=[task], headers=bearer)).status_code == 200
        await platform.client.delete("/_control/tasks")
        again = await outcomes(platform)
    assert first == again
    assert not {word for word in first if word.startswith("vid_")} & set(second)
    assert {"COMPLETED", "FAILED", "CANCELED"} <= set(first) | set(second)


async def test_a_hanging_submit_was_accepted() -> None:
    async with a_platform(submit_hang_s=3600) as platform:
        with pytest.raises(httpx.ReadTimeout):
            await platform.client.post(VIDEO, json={"model": "a", "prompt": "x"}, timeout=0.3)
        (found,) = (await platform.client.get(f"{VIDEO}/recover")).json()["data"]
    assert found["model"] == "a"

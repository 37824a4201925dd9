"""NanoGPT through the one door: its tasks are claimed, and its answers posted as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.clock import DAY, HOUR, SECOND
from receiver.platforms import nanogpt
from receiver.platforms.reading import loads
from receiver.reconciling import FIRST_POLL
from receiver.store.protocol import Query
from receiver.tasks import Status, absorb, give_up
from receiver.tokens import Source
from tests.doubles import PUBLIC_URL, START, Assembled, assembled
from tests.golden import golden
from tests.make import TASK, task

RUN = "vid_m1abc123def456"
BODIES = {known.file.removesuffix(".json"): known.body for known in golden("nanogpt")}
SHAPES = ("n3-completed", "n5-legacy-completed", "u3-unified-completed")
FAILURES = ("n4-failed", "n6-legacy-failed", "u4-unified-failed")

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


async def register(receiver: Assembled, src: str = "callback") -> str:
    """Put a task; the path of its URL."""
    answer = await receiver.client.put(
        f"/v1/tasks/{TASK}?src={src}", json={"platform": "nanogpt", "model": "veo2-video"}
    )
    url: str = answer.raise_for_status().json()["webhook_url"]
    assert url.startswith(f"{PUBLIC_URL}/webhooks/nanogpt?sig=")
    return url.removeprefix(PUBLIC_URL)


async def submitted(receiver: Assembled) -> str:
    """A task that NanoGPT took and that is claimed for its first poll; the path for the answer."""
    await register(receiver)
    patch = {"submit_state": "submitted", "platform_id": RUN}
    (await receiver.client.patch(f"/v1/tasks/{TASK}", json=patch)).raise_for_status()
    assert await claimed(receiver) == []
    receiver.clock.advance(FIRST_POLL)
    (task,) = await claimed(receiver)
    assert (task["id"], task["platform_id"]) == (TASK, RUN)
    return str(task["webhook_url"]).removeprefix(PUBLIC_URL)


async def claimed(receiver: Assembled) -> list[dict[str, Any]]:
    answer = await receiver.client.post("/v1/tasks/claim", json={"platforms": ["nanogpt"]})
    found: list[dict[str, Any]] = answer.raise_for_status().json()["data"]
    return found


async def post(receiver: Assembled, path: str, name: str) -> Any:
    """The door's answer to a body of the corpus."""
    return (await receiver.stranger.post(path, content=BODIES[name])).json()


async def task_of(receiver: Assembled) -> dict[str, Any]:
    found: dict[str, Any] = (await receiver.client.get(f"/v1/tasks/{TASK}")).json()
    return found


async def told(receiver: Assembled) -> list[str]:
    """The types of all events, oldest first."""
    return [event.type for event in reversed((await receiver.store.events(Query())).data)]


@pytest.mark.parametrize("first", SHAPES)
async def test_a_run_is_recorded_once_whatever_shapes_tell_of_it(
    receiver: Assembled, first: str
) -> None:
    path = await submitted(receiver)
    for working in ("n2-in-progress", "n5-legacy-in-progress", "u2-unified-processing"):
        assert await post(receiver, path, working) == {"status": "progress"}
    assert await post(receiver, path, first) == {"status": "recorded", "results": 1}
    for again in SHAPES:
        assert await post(receiver, path, again) == {"status": "duplicate"}
    assert await told(receiver) == ["result.succeeded", "task.completed"]
    task = await task_of(receiver)
    # The flat shape names no cost; one of the others fills it in.
    assert (task["status"], task["received"], task["cost"]) == ("succeeded", 1, 0.35)
    (result,) = await receiver.store.results(TASK)
    assert (result.key, result.source) == ("run:completed", "poll")
    assert result.media[0].url == "https://storage.example.com/video.mp4"
    receiver.clock.advance(HOUR)
    assert await claimed(receiver) == []


@pytest.mark.parametrize("first", FAILURES)
async def test_a_failed_run_is_one_failure_in_every_shape(receiver: Assembled, first: str) -> None:
    path = await submitted(receiver)
    assert await post(receiver, path, first) == {"status": "recorded", "results": 1}
    for again in FAILURES:
        assert await post(receiver, path, again) == {"status": "duplicate"}
    (result,) = await receiver.store.results(TASK)
    assert result.error is not None
    assert (result.error.code, result.error.category, result.error.retryable) == (
        "FAILED",
        "safety",
        False,
    )
    assert await told(receiver) == ["result.failed", "task.completed"]


async def test_a_run_in_work_stays_due(receiver: Assembled) -> None:
    path = await submitted(receiver)
    for _ in range(5):
        assert await post(receiver, path, "n2-in-progress") == {"status": "progress"}
        assert await claimed(receiver) == []
        receiver.clock.advance(3 * SECOND)
        (task,) = await claimed(receiver)
        path = str(task["webhook_url"]).removeprefix(PUBLIC_URL)
    # Its latest word alone is kept.
    (callback,) = (await receiver.store.callbacks(Query())).data
    assert callback.outcome == "progress"


@pytest.mark.parametrize(
    ("body", "code", "category"),
    [
        ("e1-openai", "missing_required_parameter", "validation"),
        ("e2-balance", "INSUFFICIENT_BALANCE", "quota"),
        ("e3-policy", "CONTENT_POLICY_VIOLATION", "safety"),
    ],
)
async def test_a_rejected_submit_ends_its_task(
    receiver: Assembled, body: str, code: str, category: str
) -> None:
    path = await register(receiver, "submit")
    assert await post(receiver, path, body) == {"status": "recorded", "results": 1}
    task = await task_of(receiver)
    assert (task["status"], task["submit_state"], task["cost"]) == ("failed", "rejected", None)
    (result,) = await receiver.store.results(TASK)
    assert result.error is not None
    assert (result.error.code, result.error.category) == (code, category)
    receiver.clock.advance(DAY)
    assert await claimed(receiver) == []


async def test_the_answer_to_a_submit_is_progress_and_no_cost(receiver: Assembled) -> None:
    path = await register(receiver, "submit")
    assert await post(receiver, path, "n1-submitted") == {"status": "progress"}
    task = await task_of(receiver)
    assert (task["submit_state"], task["status"], task["cost"]) == ("submitted", "pending", None)


async def test_a_run_that_is_not_found_fails_its_task(receiver: Assembled) -> None:
    path = await submitted(receiver)
    assert await post(receiver, path, "e8-not-found") == {"status": "recorded", "results": 1}
    (result,) = await receiver.store.results(TASK)
    assert result.error is not None
    assert (result.error.category, result.error.retryable) == ("not_found", False)


async def test_a_revoked_url_takes_nothing(receiver: Assembled) -> None:
    path = await submitted(receiver)
    await receiver.client.post(f"/v1/tasks/{TASK}/revoke")
    answer = await receiver.stranger.post(path, content=BODIES["n3-completed"])
    assert (answer.status_code, answer.json()["code"]) == (410, "token_gone")
    # A later claim has a fresh one.
    receiver.clock.advance(120 * SECOND)
    (task,) = await claimed(receiver)
    fresh = str(task["webhook_url"]).removeprefix(PUBLIC_URL)
    assert await post(receiver, fresh, "n3-completed") == {"status": "recorded", "results": 1}


async def test_an_expired_url_keeps_the_bytes_and_the_task_stays_due(receiver: Assembled) -> None:
    path = await submitted(receiver)
    receiver.clock.advance(2 * DAY)
    answer = await receiver.stranger.post(path, content=BODIES["n3-completed"])
    assert answer.status_code == 410
    (callback,) = (await receiver.store.callbacks(Query())).data
    assert callback.outcome == "expired"
    (task,) = await claimed(receiver)
    assert task["id"] == TASK


async def test_a_url_of_one_platform_opens_no_door_of_another(receiver: Assembled) -> None:
    path = await submitted(receiver)
    other = path.replace("/webhooks/nanogpt", "/webhooks/runware")
    answer = await receiver.stranger.post(other, content=BODIES["n3-completed"])
    assert (answer.status_code, answer.json()["code"]) == (401, "token_refused")


async def test_what_comes_after_the_task_was_given_up_still_counts(receiver: Assembled) -> None:
    path = await submitted(receiver)
    await receiver.store.give_up(START + 2 * DAY)
    assert (await task_of(receiver))["status"] == "failed"
    assert await post(receiver, path, "u3-unified-completed") == {
        "status": "recorded",
        "results": 1,
    }
    assert (await task_of(receiver))["status"] == "succeeded"
    assert (await told(receiver))[-2:] == ["result.succeeded", "task.revised"]


WORKING = sorted(
    known.file.removesuffix(".json") for known in golden("nanogpt") if known.kinds == ["progress"]
)


@given(st.lists(st.booleans(), max_size=12), st.sampled_from([SHAPES, FAILURES]), st.data())
def test_any_order_of_answers_ends_with_one_result(
    ends: list[bool], shapes: tuple[str, ...], data: st.DataObject
) -> None:
    state = task(platform="nanogpt")
    given_up = data.draw(st.none() | st.integers(0, len(ends)))
    completions = 0
    for turn, end in enumerate([*ends, True]):
        if turn == given_up and state.completed_at is None:
            completions += give_up(state, START).completed
        name = data.draw(st.sampled_from(shapes if end else WORKING))
        items = nanogpt.parse(loads(BODIES[name]), TASK)
        completions += absorb(state, items, source=Source.POLL, now=START).completed
    standing = [result.key for result in state.results.values() if not result.superseded]
    assert standing == ["run:completed" if shapes is SHAPES else "error:FAILED:0"]
    assert completions == 1
    assert state.status is (Status.SUCCEEDED if shapes is SHAPES else Status.FAILED)

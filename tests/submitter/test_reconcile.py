"""Fetching what never came: one batch against a scripted platform, a scripted ledger, no sleep."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from receiver.client import ApiRefused, Client
from submitter import door, reconcile
from submitter.errors import PlatformUnavailable
from submitter.platforms.runware import Runware
from submitter.reconcile import Found, Pace, Polled
from tests.make import OTHER, TASK, failure, success, uuid
from tests.submitter.stage import API_KEY

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
NOT_FOUND: Json = {"errors": [{"code": "taskNotFound", "message": "No such task."}]}


class FakeTime:
    """Seconds that pass while somebody sleeps, and only then."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def task(task_id: str) -> Json:
    """A claimed task as the ledger gives it."""
    moment = "2026-11-20T21:38:01Z"
    return {
        **dict.fromkeys(("platform_id", "model", "cost", "completed_at", "expected")),
        **dict.fromkeys(("received", "succeeded", "failed", "revision"), 0),
        **dict.fromkeys(("created_at", "deadline_at", "give_up_at"), moment),
        "id": task_id,
        "platform": "runware",
        "project": "default",
        "status": "pending",
        "overdue": True,
        "tags": {},
        "metadata": {},
        "submit_state": "submitted",
        "webhook_url": f"https://hooks.example.com/webhooks/runware?sig={task_id}",
    }


@dataclass
class Scene:
    """What was asked and posted. `platform` answers a question, `door` is what it answers."""

    due: list[list[str]]
    platform: Callable[[str, str], httpx.Response]
    door: int = 200
    ledger_status: int = 200
    time: FakeTime = field(default_factory=FakeTime)
    asked: list[tuple[float, str, str]] = field(default_factory=list)
    posted: list[tuple[str, bytes]] = field(default_factory=list)
    claims: list[Json] = field(default_factory=list)
    told: list[Polled] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        (question,) = json.loads(request.content)
        kind, task_id = question["taskType"], question["taskUUID"]
        self.asked.append((self.time.now, kind, task_id))
        said = self.platform(kind, task_id)
        return httpx.Response(said.status_code, headers=said.headers, content=said.content)

    def claim(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/tasks/claim"
        self.claims.append(json.loads(request.content))
        if self.ledger_status != 200:
            problem = {"code": "unauthenticated", "detail": "No."}
            return httpx.Response(self.ledger_status, json=problem)
        due = self.due.pop(0) if self.due else []
        return httpx.Response(200, json={"data": [*map(task, due)], "next_cursor": None})

    async def post(self, url: str, body: Any) -> int:
        self.posted.append((url.partition("sig=")[2], body))
        if self.door == 0:
            raise OSError("ConnectError")
        return self.door

    @asynccontextmanager
    async def parts(self) -> AsyncIterator[tuple[Runware, Client]]:
        platform = Runware(API_KEY, transport=httpx.MockTransport(self.answer))
        client = Client("http://ledger", "token", transport=httpx.MockTransport(self.claim))
        async with platform, client:
            yield platform, client

    async def tick(self, rate: float = 1.0, limit: int = 20) -> int:
        pace = Pace(rate, clock=self.time, sleep=self.time.sleep)
        async with self.parts() as (platform, ledger):
            return await reconcile.tick(
                platform, ledger, pace=pace, limit=limit, tell=self.told.append
            )


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scene], Scene]:
    def stage(scene: Scene) -> Scene:
        monkeypatch.setattr(door, "post", scene.post)
        return scene

    return stage


Staged = Callable[[Scene], Scene]


async def test_an_answer_is_posted_as_it_came(staged: Staged) -> None:
    # Neither re-encoded nor re-ordered: numbers and spaces are the platform's.
    body = b'{ "data":[' + json.dumps(success()).encode() + b'], "x": 1.50 }'
    scene = staged(Scene([[TASK]], lambda *_: httpx.Response(200, content=body)))
    assert await scene.tick() == 1
    assert scene.posted == [(TASK, body)]
    assert scene.told == [Polled(TASK, Found.POSTED)]


async def test_what_is_gone_is_looked_for_in_the_archive(staged: Staged) -> None:
    inner = {"data": [{**success(), "taskUUID": TASK}], "errors": [failure()]}

    def platform(kind: str, task_id: str) -> httpx.Response:
        if kind == "getResponse":
            return httpx.Response(400, json=NOT_FOUND)
        found = {"taskType": kind, "taskUUID": task_id, "request": [{}], "response": inner}
        return httpx.Response(200, json={"data": [found]})

    scene = staged(Scene([[TASK]], platform))
    await scene.tick()
    assert [kind for _, kind, _ in scene.asked] == ["getResponse", "getTaskDetails"]
    ((whose, body),) = scene.posted
    assert (whose, json.loads(body)) == (TASK, inner)


async def test_what_nobody_knows_is_left_to_the_ledger(staged: Staged) -> None:
    scene = staged(Scene([[TASK]], lambda *_: httpx.Response(400, json=NOT_FOUND)))
    assert await scene.tick() == 1
    assert (scene.posted, scene.told) == ([], [Polled(TASK, Found.UNKNOWN)])


async def test_all_questions_keep_one_rate(staged: Staged) -> None:
    scene = staged(Scene([[TASK, OTHER, uuid(3)]], lambda *_: httpx.Response(400, json=NOT_FOUND)))
    await scene.tick(rate=2.0)
    times = [when for when, _, _ in scene.asked]
    assert len(times) == 6
    assert {after - before for before, after in itertools.pairwise(times)} == {0.5}


async def test_a_retry_after_holds_everything_back(staged: Staged) -> None:
    answers = iter([httpx.Response(429, headers={"retry-after": "7"}, json={"errors": []})])

    def platform(_kind: str, task_id: str) -> httpx.Response:
        return next(answers, httpx.Response(200, json={"data": [success(task=task_id)]}))

    scene = staged(Scene([[TASK, OTHER]], platform))
    await scene.tick()
    (first, _, _), (second, _, _) = scene.asked
    assert second - first == 7
    assert [polled.found for polled in scene.told] == [Found.UNAVAILABLE, Found.POSTED]


async def test_a_long_retry_after_ends_the_batch(staged: Staged) -> None:
    busy = httpx.Response(503, headers={"retry-after": "120"}, json={"errors": []})
    scene = staged(Scene([[TASK, OTHER]], lambda *_: busy))
    assert await scene.tick() == 2
    assert len(scene.asked) == 1


@pytest.mark.parametrize(
    "said",
    [
        httpx.Response(401, json={"errors": [{"code": "invalidApiKey"}]}),
        httpx.Response(500, text="<html>"),
        httpx.Response(200, json={"data": []}),
        httpx.Response(200, json={"data": [success(task=OTHER)]}),
    ],
)
async def test_an_answer_about_something_else_is_not_posted(
    staged: Staged, said: httpx.Response
) -> None:
    scene = staged(Scene([[TASK]], lambda *_: said))
    await scene.tick()
    assert scene.posted == []
    assert [polled.found for polled in scene.told] == [Found.UNAVAILABLE]


@pytest.mark.parametrize("status", [0, 410, 503])
async def test_a_door_that_does_not_take_it_is_told_of(staged: Staged, status: int) -> None:
    scene = staged(
        Scene(
            [[TASK, OTHER]],
            lambda _, task_id: httpx.Response(200, json={"data": [success(task=task_id)]}),
            door=status,
        )
    )
    await scene.tick()
    assert [polled.found for polled in scene.told] == [Found.REFUSED] * 2
    assert "sig=" not in str(scene.told)


async def test_the_key_is_passed_on_to_nobody(staged: Staged) -> None:
    said = {"data": [success(prompt=f"you said {API_KEY}")]}
    scene = staged(Scene([[TASK]], lambda *_: httpx.Response(200, json=said)))
    await scene.tick()
    assert API_KEY.encode() not in scene.posted[0][1]
    assert json.loads(scene.posted[0][1])["data"][0]["prompt"] == "you said …"


async def test_the_lease_outlives_a_slow_batch(staged: Staged) -> None:
    scene = staged(Scene([], lambda *_: httpx.Response(500)))
    await scene.tick(rate=100, limit=20)
    await scene.tick(rate=1, limit=100)
    await scene.tick(rate=0.1, limit=100)
    assert [claim["lease_s"] for claim in scene.claims] == [60, 400, 600]


async def test_the_loop_pauses_when_little_is_due_and_ends_when_canceled(staged: Staged) -> None:
    scene = staged(
        Scene(
            [[TASK, OTHER], [TASK]],
            lambda _, task_id: httpx.Response(200, json={"data": [success(task=task_id)]}),
        )
    )
    paused = asyncio.Event()

    async def pause(_seconds: float) -> None:
        paused.set()
        await asyncio.Event().wait()

    pace = Pace(1, clock=scene.time, sleep=scene.time.sleep)
    async with scene.parts() as (platform, ledger):
        loop = asyncio.create_task(reconcile.run(platform, ledger, pace=pace, sleep=pause, limit=2))
        await paused.wait()
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop
    assert len(scene.posted) == 3


@pytest.mark.parametrize(("status", "ends"), [(401, True), (404, True), (503, False)])
async def test_the_loop_outlives_a_ledger_that_is_away_not_one_that_says_no(
    staged: Staged, status: int, ends: bool
) -> None:
    scene = staged(Scene([], lambda *_: httpx.Response(500), ledger_status=status))

    async def pause(_seconds: float) -> None:
        raise PlatformUnavailable(platform="test", task_id=TASK, reason="the loop went on")

    pace = Pace(1, clock=scene.time, sleep=scene.time.sleep)
    async with scene.parts() as (platform, ledger):
        with pytest.raises(ApiRefused if ends else PlatformUnavailable):
            await reconcile.run(platform, ledger, pace=pace, sleep=pause)

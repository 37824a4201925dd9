"""Fetching what never came: batches against a scripted platform and ledger, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from receiver.client import ApiRefused, ClaimedTask, Client, Unreachable
from submitter import reconcile
from submitter.errors import KeyRefused
from submitter.pace import Pace
from submitter.platforms.runware import Runware
from submitter.reconcile import IDLE, KEY_PAUSE_S, LEASE_S, Found, Polled, Reconciler
from tests.doubles import LIMIT_S
from tests.make import OTHER, TASK, failure, processing, success, uuid
from tests.submitter.stage import API_KEY
from tests.submitter.test_snapshots import SHAPES, fault
from tests.submitter.virtual import Time

pytestmark = pytest.mark.anyio

Json = dict[str, Any]


def no(code: str = "taskNotFound", task: str = TASK) -> httpx.Response:
    """An error about a task."""
    return httpx.Response(400, json={"errors": [fault(code, taskUUID=task)]})


def done(task: str = TASK) -> httpx.Response:
    """A finished task."""
    return httpx.Response(200, json={"data": [success(task=task)]})


def archived(response: Any, task: str = TASK) -> httpx.Response:
    """An entry of the archive."""
    kept = {"taskType": "getTaskDetails", "taskUUID": task, "request": [{}], "response": response}
    return httpx.Response(200, json={"data": [kept]})


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
    platform: Callable[[str, str], httpx.Response | Awaitable[httpx.Response]]
    door: Callable[[str], int] = lambda _url: 200
    ledger_status: int = 200
    time: Time = field(default_factory=Time)
    asked: list[tuple[float, str, str]] = field(default_factory=list)
    posted: list[tuple[str, bytes]] = field(default_factory=list)
    doors: list[str] = field(default_factory=list)
    claims: list[Json] = field(default_factory=list)
    released: list[tuple[bool, list[str]]] = field(default_factory=list)
    told: list[Polled] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        (question,) = json.loads(request.content)
        kind, task_id = question["taskType"], question["taskUUID"]
        self.asked.append((self.time.now, kind, task_id))
        said = self.platform(kind, task_id)
        given = said if isinstance(said, httpx.Response) else await said
        return httpx.Response(given.status_code, headers=given.headers, content=given.content)

    def ledger(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        if self.ledger_status != 200:
            problem = {"code": "unauthenticated", "detail": "No."}
            return httpx.Response(self.ledger_status, json=problem)
        if request.url.path == "/v1/tasks/release":
            assert asked["lease_until"] == self.lease_until.replace(".000Z", "Z")
            self.released.append((asked["polled"], asked["tasks"]))
            return httpx.Response(200, json={"released": len(asked["tasks"])})
        assert request.url.path == "/v1/tasks/claim"
        self.claims.append(asked)
        due = self.due.pop(0) if self.due else []
        claimed = [{**task(task_id), "lease_until": self.lease_until} for task_id in due]
        return httpx.Response(200, json={"data": claimed, "next_cursor": None})

    @property
    def lease_until(self) -> str:
        """Each claim is a minute after the one before."""
        return f"2026-11-20T21:{38 + len(self.claims)}:01.000Z"

    async def post(self, url: str, body: bytes) -> int:
        self.posted.append((url.partition("sig=")[2], body))
        self.doors.append(url.partition("?")[0])
        if not (status := self.door(url)):
            raise OSError("ConnectError")
        return status

    def client(self) -> Client:
        return Client("http://ledger", "token", transport=httpx.MockTransport(self.ledger))

    @asynccontextmanager
    async def reconciler(
        self, rate: float = 1.0, limit: int = 20
    ) -> AsyncIterator[Callable[[Client], Reconciler]]:
        pace = Pace(rate, clock=self.time, sleep=self.time.sleep)
        async with Runware(API_KEY, transport=httpx.MockTransport(self.answer)) as platform:

            def of(ledger: Client) -> Reconciler:
                tell = self.told.append
                return Reconciler(platform, ledger, self.post, pace=pace, limit=limit, tell=tell)

            yield of

    async def batch(self, rate: float = 5.0, limit: int = 20) -> int:
        """One batch; how many tasks it had."""
        async with self.reconciler(rate, limit) as of, self.client() as ledger:
            (claimed,) = await self.time.pass_for(of(ledger).batch())
        assert all(isinstance(found, ClaimedTask) for found in claimed)
        return len(claimed)

    async def drain(self, rate: float = 5.0, limit: int = 20) -> None:
        async with self.reconciler(rate, limit) as of, self.client() as ledger:
            await self.time.pass_for(of(ledger).drain())

    @property
    def found(self) -> list[Found]:
        return [polled.found for polled in self.told]


async def test_an_answer_is_posted_as_it_came() -> None:
    # Neither re-encoded nor re-ordered: numbers and spaces are the platform's.
    body = b'{ "data":[' + json.dumps(success()).encode() + b'], "x": 1.50 }'
    scene = Scene([[TASK]], lambda *_: httpx.Response(200, content=body))
    assert await scene.batch() == 1
    assert scene.posted == [(TASK, body)]
    assert scene.told == [Polled(TASK, Found.POSTED)]
    assert scene.released == []  # its answer has ended the lease


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_error_of_every_shape_is_posted(shape: str) -> None:
    body, _ = SHAPES[shape]
    scene = Scene([[TASK]], lambda *_: httpx.Response(200, json=body))
    await scene.batch()
    assert [kind for _, kind, _ in scene.asked] == ["getResponse"]
    assert [json.loads(posted) for _, posted in scene.posted] == [body]


@pytest.mark.parametrize(
    "gone", ["taskNotFound", "taskExpired", "mediaExpired", "taskFailedOrNotFound", "taskCancelled"]
)
async def test_what_is_gone_is_looked_for_in_the_archive(gone: str) -> None:
    inner = {"data": [success()], "errors": [failure()]}
    scene = Scene([[TASK]], lambda kind, _: no(gone) if kind == "getResponse" else archived(inner))
    await scene.batch()
    assert [kind for _, kind, _ in scene.asked] == ["getResponse", "getTaskDetails"]
    ((whose, body),) = scene.posted
    assert (whose, json.loads(body)) == (TASK, inner)


@pytest.mark.parametrize(
    ("now", "later", "found"),
    [
        ("taskNotFound", "taskNotFound", Found.UNKNOWN),
        ("taskExpired", "taskNotFound", Found.UNKNOWN),
        ("taskNotFound", "taskExpired", Found.UNKNOWN),
        ("taskExpired", "taskExpired", Found.POSTED),
    ],
)
async def test_a_task_that_is_not_found_has_not_failed(now: str, later: str, found: Found) -> None:
    scene = Scene([[TASK]], lambda kind, _: no(now if kind == "getResponse" else later))
    assert await scene.batch() == 1
    assert scene.told == [Polled(TASK, found)]
    # Its backoff goes on.
    assert scene.released == ([(True, [TASK])] if found is Found.UNKNOWN else [])


async def test_all_questions_keep_one_rate() -> None:
    scene = Scene([[TASK, OTHER, uuid(3)]], lambda _, task_id: no(task=task_id))
    await scene.batch(rate=2.0)
    times = [when for when, _, _ in scene.asked]
    assert len(times) == 6
    assert {after - before for before, after in itertools.pairwise(times)} == {0.5}


async def test_the_tasks_of_a_batch_are_polled_at_once() -> None:
    together = asyncio.Barrier(3)

    async def platform(_kind: str, task_id: str) -> httpx.Response:
        await together.wait()  # passes only when three questions are open
        return done(task_id)

    def answer(kind: str, task_id: str) -> Awaitable[httpx.Response]:
        return platform(kind, task_id)

    scene = Scene([[TASK, OTHER, uuid(3)]], answer)
    async with asyncio.timeout(LIMIT_S):
        assert await scene.batch() == 3
    assert scene.found == [Found.POSTED] * 3


async def test_one_that_hangs_ends_in_time_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconcile, "QUESTION_S", 1.0)  # which the other one has, too

    async def hang() -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    scene = Scene([[TASK, OTHER]], lambda _, task_id: hang() if task_id == TASK else done(OTHER))
    async with asyncio.timeout(LIMIT_S):
        await scene.batch()
    assert [whose for whose, _ in scene.posted] == [OTHER]
    assert set(scene.found) == {Found.POSTED, Found.UNAVAILABLE}
    assert scene.released == [(True, [TASK])]


def test_a_poll_can_not_outlast_its_lease() -> None:
    longest = reconcile.POLL_S + reconcile.HAND_BACK_S
    assert longest < LEASE_S - 10  # the claim's own answer may have taken its ten seconds
    assert 2 * reconcile.QUESTION_S < reconcile.POLL_S


@pytest.mark.parametrize(
    ("rate", "limit", "leased"), [(5, 100, 20), (5, 8, 8), (0.1, 100, 1), (1000, 100, 100)]
)
async def test_no_more_is_leased_than_gets_its_turn_in_time(
    rate: float, limit: int, leased: int
) -> None:
    scene = Scene([], lambda *_: httpx.Response(500))
    await scene.batch(rate=rate, limit=limit)
    assert [(claim["limit"], claim["lease_s"]) for claim in scene.claims] == [(leased, LEASE_S)]
    assert [claim["platforms"] for claim in scene.claims] == [["runware"]]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_retry_after_holds_everything_back(status: int) -> None:
    busy = httpx.Response(status, headers={"retry-after": "7"}, json={"errors": []})
    answers = iter([busy])
    scene = Scene([[TASK, OTHER]], lambda _, task_id: next(answers, done(task_id)))
    await scene.batch()
    (first, _, _), (second, _, _) = scene.asked
    assert second - first == 7
    assert scene.found == [Found.PUT_OFF, Found.POSTED]
    # It was not looked at, so it is due at once, and its backoff does not grow.
    assert scene.released == [(False, [TASK])]


@pytest.mark.parametrize(
    ("later", "seconds"),
    [("120", 120), ("Fri, 20 Nov 2026 22:10:00 GMT", 600), ("99999999", 900)],
    ids=["seconds", "date", "capped"],
)
async def test_a_long_retry_after_puts_the_rest_off(later: str, seconds: int) -> None:
    date = "Fri, 20 Nov 2026 22:00:00 GMT"
    busy = httpx.Response(503, headers={"retry-after": later, "date": date}, json={"errors": []})
    answers = iter([busy])
    scene = Scene([[TASK, OTHER], [TASK]], lambda _, task_id: next(answers, done(task_id)))
    async with scene.reconciler() as of, scene.client() as ledger:
        reconciler = of(ledger)
        await scene.time.pass_for(reconciler.batch())
        assert (len(scene.asked), scene.time.now) == (1, 0)
        assert sorted(scene.released[0][1]) == sorted([TASK, OTHER])
        # Nothing is leased before the platform may be asked again.
        await scene.time.pass_for(reconciler.batch())
        assert [when for when, _, _ in scene.asked] == [0, seconds]
    assert scene.found == [Found.PUT_OFF, Found.PUT_OFF, Found.POSTED]


@pytest.mark.parametrize(
    "said",
    [httpx.Response(500, text="<html>"), httpx.Response(502), httpx.Response(429)],
    ids=lambda said: str(said.status_code),
)
async def test_a_platform_that_is_down_is_asked_ever_more_rarely(said: httpx.Response) -> None:
    scene = Scene([[TASK]] * 4, lambda *_: said)
    async with scene.reconciler() as of, scene.client() as ledger:
        for _ in range(4):
            await scene.time.pass_for(of(ledger).batch())
    times = [when for when, _, _ in scene.asked]
    assert [after - before for before, after in itertools.pairwise(times)] == [1, 2, 4]


async def test_an_answer_ends_the_trouble() -> None:
    answers = iter([httpx.Response(500), httpx.Response(500), done(), httpx.Response(500)])
    scene = Scene([[TASK]] * 5, lambda *_: next(answers, done()))
    async with scene.reconciler(rate=5) as of, scene.client() as ledger:
        for _ in range(5):
            await scene.time.pass_for(of(ledger).batch())
    times = [when for when, _, _ in scene.asked]
    pauses = [round(after - before, 6) for before, after in itertools.pairwise(times)]
    assert pauses == [1, 2, 0.2, 1]


async def test_an_answer_about_one_task_holds_nobody_else_back() -> None:
    scene = Scene([[TASK, OTHER]], lambda _, task_id: done(uuid(9)))
    await scene.batch()
    assert [when for when, _, _ in scene.asked] == [0, 0.2]
    assert scene.found == [Found.UNAVAILABLE] * 2
    assert scene.posted == []


async def test_a_refused_key_ends_it_and_hands_everything_back() -> None:
    refused = httpx.Response(401, json={"errors": [fault("invalidApiKey")]})
    scene = Scene([[TASK, OTHER], [TASK]], lambda *_: refused)
    with pytest.raises(KeyRefused, match="RUNWARE_API_KEY"):
        await scene.drain()
    assert (len(scene.asked), scene.released) == (1, [(False, [TASK, OTHER])])
    assert len(scene.claims) == 1


OUTSIDE = "https://hooks.example.com/webhooks/runware"
INSIDE = "http://ledger/webhooks/runware"


@pytest.mark.parametrize(
    ("status", "doors"),
    [(0, [OUTSIDE, INSIDE]), (404, [OUTSIDE, INSIDE]), (503, [OUTSIDE, INSIDE]), (410, [OUTSIDE])],
)
async def test_a_door_that_does_not_take_it_is_told_of(status: int, doors: list[str]) -> None:
    scene = Scene([[TASK]], lambda _, task_id: done(task_id), door=lambda _url: status)
    await scene.batch()
    assert (scene.found, scene.doors) == ([Found.REFUSED], doors)
    assert "sig=" not in str(scene.told)
    assert scene.released == [(True, [TASK])]


@pytest.mark.parametrize("status", [0, 404, 502, 530])
async def test_where_the_public_url_leads_nowhere_the_door_is_found_at_the_ledger(
    status: int,
) -> None:
    scene = Scene(
        [[TASK]],
        lambda _, task_id: done(task_id),
        door=lambda url: 200 if url.startswith(INSIDE) else status,
    )
    await scene.batch()
    assert (scene.found, scene.doors) == ([Found.POSTED], [OUTSIDE, INSIDE])
    assert scene.posted[0] == scene.posted[1]  # the same token, the same bytes
    assert scene.released == []


async def test_the_key_is_passed_on_to_nobody() -> None:
    said = {"data": [success(prompt=f"you said {API_KEY}")]}
    scene = Scene([[TASK]], lambda *_: httpx.Response(200, json=said))
    await scene.batch()
    assert API_KEY.encode() not in scene.posted[0][1]
    assert json.loads(scene.posted[0][1])["data"][0]["prompt"] == "you said …"


async def test_a_drain_goes_on_until_nothing_was_due_when_it_began() -> None:
    scene = Scene([[TASK, OTHER], [uuid(3)]], lambda _, task_id: done(task_id))
    await scene.drain(limit=2)
    assert len(scene.posted) == 3
    # A minute before the lease's end, by the ledger's clock.
    began = "2026-11-20T21:38:01Z"
    assert [claim["due_by"] for claim in scene.claims] == [None, began, began]


async def test_a_drain_does_not_sit_out_a_long_hold() -> None:
    busy = httpx.Response(503, headers={"retry-after": "120"})
    scene = Scene([[TASK], [TASK]], lambda *_: busy)
    await scene.drain()
    assert (scene.time.now, len(scene.claims)) == (0, 1)


async def test_who_is_told_to_stop_hands_back_what_it_holds() -> None:
    hanging = asyncio.Event()

    async def hang() -> httpx.Response:
        hanging.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    scene = Scene([[TASK, OTHER]], lambda _, task_id: hang() if task_id == OTHER else done(TASK))
    async with scene.reconciler() as of, scene.client() as ledger:
        batch = asyncio.create_task(scene.time.pass_for(of(ledger).batch()))
        await hanging.wait()  # the first has had its turn, and its answer, before
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
    assert scene.found == [Found.POSTED]
    assert scene.released == [(False, [OTHER])]


async def test_a_ledger_that_is_away_gets_its_tasks_back_by_itself() -> None:
    def platform(_kind: str, _task_id: str) -> httpx.Response:
        scene.ledger_status = 503
        return httpx.Response(500)

    scene = Scene([[TASK]], platform)
    assert await scene.batch() == 1
    assert scene.released == []


class Ended(Exception):
    """The test has seen enough of an endless loop."""


@dataclass
class Loop:
    """`run`, with a pause that notes its seconds, and ends it after some."""

    scene: Scene
    ends_after: int
    pauses: list[float] = field(default_factory=list)
    connects: int = 0
    away: int = 0  # connections that find nobody

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) == self.ends_after:
            raise Ended

    def connect(self) -> Client:
        self.connects += 1
        if self.connects <= self.away:
            raise Unreachable(f"Nobody is at home, {self.connects} times.")
        return self.scene.client()

    async def run(self) -> None:
        async with self.scene.reconciler() as of:
            with pytest.raises(Ended):
                await self.scene.time.pass_for(
                    reconcile.run(self.connect, of, sleep=self.pause, note=self.scene.notes.append)
                )


async def test_the_loop_pauses_when_nothing_is_due() -> None:
    scene = Scene([[TASK, OTHER], [TASK]], lambda _, task_id: done(task_id))
    loop = Loop(scene, ends_after=2)
    await loop.run()
    assert (len(scene.posted), loop.pauses, loop.connects) == (3, [IDLE, IDLE], 1)
    assert scene.notes == []


@pytest.mark.parametrize("status", [401, 404, 503])
async def test_the_loop_outlives_a_ledger_that_is_away_or_says_no(status: int) -> None:
    scene = Scene([], lambda *_: httpx.Response(500), ledger_status=status)
    loop = Loop(scene, ends_after=8)
    await loop.run()
    assert loop.pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert loop.connects == 8  # its address may be another by now
    (note,) = scene.notes
    assert note.startswith("Waiting for the receiver. ")
    told = " Commands and the submitter take it from REELHOOK_ADMIN_TOKEN." if status == 401 else ""
    assert note.endswith(f"No.{told}")


async def test_the_loop_says_when_the_ledger_is_back() -> None:
    scene = Scene([[TASK]], lambda _, task_id: done(task_id))
    loop = Loop(scene, ends_after=4, away=2)
    await loop.run()
    assert loop.pauses == [1, 2, IDLE, IDLE]
    assert scene.notes == [
        "Waiting for the receiver. Nobody is at home, 1 times.",
        "Waiting for the receiver. Nobody is at home, 2 times.",
        "The receiver at http://ledger answers.",
    ]


async def test_the_loop_asks_a_platform_that_refuses_the_key_again_much_later() -> None:
    answers = iter([httpx.Response(401)])
    scene = Scene([[TASK], [TASK]], lambda _, task_id: next(answers, done(task_id)))
    await Loop(scene, ends_after=1).run()
    assert [when for when, _, _ in scene.asked] == [0, KEY_PAUSE_S]
    assert scene.found == [Found.PUT_OFF, Found.POSTED]
    (note,) = scene.notes
    assert "RUNWARE_API_KEY" in note
    assert "10 minutes" in note


async def test_a_task_in_work_is_posted_as_progress() -> None:
    scene = Scene([[TASK]], lambda *_: httpx.Response(200, json={"data": [processing()]}))
    await scene.batch()
    assert scene.found == [Found.POSTED]


async def test_an_archive_that_does_not_answer_concludes_nothing() -> None:
    scene = Scene(
        [[TASK]],
        lambda kind, _: no("taskExpired") if kind == "getResponse" else httpx.Response(500),
    )
    await scene.batch()
    assert (scene.posted, scene.found) == ([], [Found.UNAVAILABLE])


async def test_a_ledger_that_refuses_ends_a_drain() -> None:
    scene = Scene([], lambda *_: httpx.Response(500), ledger_status=401)
    with pytest.raises(ApiRefused):
        await scene.drain()

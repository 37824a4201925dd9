"""A submit that breaks at each step, against a real receiver and a simulator on real sockets."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import stamina

from receiver.client import Client, SubmitState, Task
from scripts.proofs.ports import held_port
from submitter.errors import (
    AmbiguousSubmit,
    IdempotencyConflict,
    InvalidTask,
    LedgerUnavailable,
    PlatformRejected,
    PlatformUnavailable,
    SubmitterError,
)
from submitter.platforms.runware import Runware
from submitter.processes import Child
from submitter.simulator.config import Knobs, SimulatorConfig
from submitter.simulator.serve import running
from submitter.submit import Submitter

pytestmark = [pytest.mark.anyio, pytest.mark.process]

ADMIN = "an-admin-token-for-tests-0123456789"
KEY = "rw-a-key-that-no-text-may-show"
MODEL = "pixverse:1@6"
PROMPT: dict[str, Any] = {"positivePrompt": "a boat", "width": 640, "height": 360, "duration": 5}
PATIENCE = 40.0


@dataclass
class House:
    """A receiver, a simulator, and what asks them."""

    ledger: Client
    simulator: str
    http: httpx.AsyncClient
    stack: AsyncExitStack

    def submitter(
        self,
        *,
        key: str = KEY,
        timeout: float = 5.0,
        transport: httpx.AsyncBaseTransport | None = None,
        base_url: str = "",
        ledger: Client | None = None,
        **options: Any,
    ) -> Submitter:
        platform = Runware(
            key,
            base_url or f"{self.simulator}/v1",
            timeout=httpx.Timeout(timeout),
            transport=transport,
        )
        self.stack.push_async_callback(platform.__aexit__, None, None, None)
        if ledger is not None:
            self.stack.push_async_callback(ledger.close)
        return Submitter(platform, ledger or self.ledger, **options)

    async def turn(self, **knobs: Any) -> None:
        answer = await self.http.post(f"{self.simulator}/_control", json=knobs)
        assert answer.status_code == 200, answer.text

    async def taken(self) -> list[str]:
        """The tasks that the platform accepted."""
        found = (await self.http.get(f"{self.simulator}/_control/tasks")).json()["data"]
        return [task["taskUUID"] for task in found]

    async def only_task(self) -> Task:
        (task,) = (await self.ledger.tasks()).data
        return task


@asynccontextmanager
async def a_house(
    folder: Path, *, api_key: str | None = None, **knobs: Any
) -> AsyncIterator[House]:
    env = {
        **os.environ,
        "PORT": str(port := held_port()),
        "REELHOOK_DATA_DIR": str(folder),
        "REELHOOK_ADMIN_TOKEN": ADMIN,
        "LOG_LEVEL": "warning",
    }
    argv = [sys.executable, "-m", "receiver", "serve"]
    config = SimulatorConfig(
        knobs=Knobs(**{"delay_s": 0.05, "spread_s": 0.0, **knobs}), api_key=api_key
    )
    with anyio.fail_after(PATIENCE), stamina.set_testing(True, attempts=3):
        async with (
            Child.start(argv, name="receiver", env=env) as child,
            running(config) as simulator,
            Client(f"http://127.0.0.1:{port}", ADMIN) as ledger,
            httpx.AsyncClient(trust_env=False) as http,
            AsyncExitStack() as stack,
        ):
            await child.ready(20)
            yield House(ledger, simulator, http, stack)


async def test_a_time_out_is_unknown_and_the_same_call_finishes_it_at_once(tmp_path: Path) -> None:
    async with a_house(tmp_path, submit_hang_s=60) as house:
        submitter = house.submitter(timeout=0.3)
        with pytest.raises(AmbiguousSubmit) as caught:
            await submitter.submit(MODEL, PROMPT, idempotency_key="k")
        assert caught.value.task_id in str(caught.value)
        await house.turn(submit_hang_s=0)
        task = await submitter.submit(MODEL, PROMPT, idempotency_key="k")
        assert not task.in_flight
        assert (await task.wait(10)).succeeded == 1
        assert await house.taken() == [task.id]


async def test_a_time_out_before_any_callback_is_resumed_at_once(tmp_path: Path) -> None:
    async with a_house(tmp_path, submit_hang_s=60, delay_s=0, drop=1.0) as house:
        submitter = house.submitter(timeout=0.3)
        with pytest.raises(AmbiguousSubmit) as caught:
            await submitter.submit(MODEL, PROMPT)
        assert (await house.only_task()).submit_state is SubmitState.UNKNOWN
        await house.turn(submit_hang_s=0)
        task = await submitter.resume(caught.value.task_id)
        assert not task.in_flight, "nobody else is at it: the lease has to go with `unknown`"
        assert (
            await task.wait(10)
        ).succeeded == 1  # by the poll's body: every callback was dropped
        assert await house.taken() == [task.id]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_was_not_taken_can_be_sent_again_at_once(tmp_path: Path, status: int) -> None:
    async with a_house(tmp_path, submit_status=status) as house:
        submitter = house.submitter()
        with pytest.raises((PlatformUnavailable, AmbiguousSubmit)):
            await submitter.submit(MODEL, PROMPT, idempotency_key="k")
        assert (await house.only_task()).status == "pending"
        await house.turn(submit_status=None)
        task = await submitter.submit(MODEL, PROMPT, idempotency_key="k")
        assert not task.in_flight
        assert (await task.wait(10)).succeeded == 1


async def test_a_platform_that_is_down_leaves_a_task_to_send_at_once(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        down = house.submitter(base_url=f"http://127.0.0.1:{held_port()}/v1")
        with pytest.raises(PlatformUnavailable):
            await down.submit(MODEL, PROMPT, idempotency_key="k")
        task = await house.submitter().submit(MODEL, PROMPT, idempotency_key="k")
        assert not task.in_flight
        assert (await task.wait(10)).succeeded == 1


async def test_a_time_out_told_by_the_platform_is_ambiguous(tmp_path: Path) -> None:
    async with a_house(tmp_path, submit_status=504) as house:
        with pytest.raises(AmbiguousSubmit):
            await house.submitter().submit(MODEL, PROMPT)
        assert (await house.only_task()).failed == 0


async def test_a_wrong_key_while_resuming_says_nothing_about_the_task(tmp_path: Path) -> None:
    async with a_house(tmp_path, api_key=KEY, submit_hang_s=60, drop=1.0) as house:
        with pytest.raises(AmbiguousSubmit) as caught:
            await house.submitter(timeout=0.3).submit(MODEL, PROMPT)
        wrong = house.submitter(key="another")
        await _lease_free(tmp_path)
        with pytest.raises(SubmitterError):
            await wrong.resume(caught.value.task_id)
        task = await house.only_task()
        assert (task.failed, task.submit_state) == (0, SubmitState.UNKNOWN), "and its lease is free"


async def test_an_empty_answer_while_resuming_is_an_error_of_ours(tmp_path: Path) -> None:
    async with a_house(tmp_path, submit_hang_s=60, drop=1.0) as house:
        with pytest.raises(AmbiguousSubmit) as caught:
            await house.submitter(timeout=0.3).submit(MODEL, PROMPT)
        await _lease_free(tmp_path)
        empty = httpx.MockTransport(lambda _request: httpx.Response(200, json={"data": []}))
        with pytest.raises(SubmitterError):
            await house.submitter(transport=empty).resume(caught.value.task_id)


async def test_a_crash_before_sending_is_resumed(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        with pytest.raises(_Crashed):
            await house.submitter(transport=_Crash()).submit(MODEL, PROMPT, metadata={"a": 1})
        await _lease_free(tmp_path)
        task = await house.submitter().resume((await house.only_task()).id)
        done = await task.wait(10)
        assert (done.succeeded, done.metadata, await house.taken()) == (1, {"a": 1}, [task.id])


async def test_the_same_key_at_the_same_time_sends_once(tmp_path: Path) -> None:
    async with a_house(tmp_path, submit_hang_s=0.5) as house:
        submitter, tasks = house.submitter(), []

        async def submit() -> None:
            tasks.append(await submitter.submit(MODEL, PROMPT, idempotency_key="k"))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(submit)
        assert len(await house.taken()) == 1
        assert sum(not task.in_flight for task in tasks) >= 1
        for task in tasks:
            assert (await task.wait(10)).succeeded == 1


async def test_a_rejection_is_recorded_by_the_door_and_raised(tmp_path: Path) -> None:
    async with a_house(tmp_path, submit_status=400) as house:
        with pytest.raises(PlatformRejected) as caught:
            await house.submitter().submit(MODEL, PROMPT, number_results=4)
        assert (caught.value.code, caught.value.http_status) == ("insufficientCredits", 400)
        task = await house.only_task()
        assert (task.submit_state, task.status) == (SubmitState.REJECTED, "failed")
        (result,) = await house.ledger.results(task.id)
        assert (result.source, result.error and result.error.code) == (
            "submit",
            "insufficientCredits",
        )


@pytest.mark.parametrize(
    ("parameters", "options"),
    [(PROMPT | {"duration": 8}, {}), (PROMPT, {"number_results": 2})],
)
async def test_another_request_under_the_same_key_is_a_conflict(
    tmp_path: Path, parameters: dict[str, Any], options: dict[str, Any]
) -> None:
    async with a_house(tmp_path) as house:
        submitter = house.submitter()
        await submitter.submit(MODEL, PROMPT, idempotency_key="k")
        with pytest.raises(IdempotencyConflict):
            await submitter.submit(MODEL, parameters, idempotency_key="k", **options)


async def test_another_request_under_the_same_task_id_is_a_conflict(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        submitter = house.submitter()
        first = await submitter.submit(MODEL, PROMPT)
        with pytest.raises(IdempotencyConflict):
            await submitter.submit(MODEL, PROMPT | {"duration": 8}, task_id=first.id)


async def test_parameters_cannot_swap_the_id_or_lose_results(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        submitter = house.submitter()
        other = "24cd5dff-cb81-4db5-8506-b72a9425f9d1"
        try:
            task = await submitter.submit(MODEL, PROMPT | {"taskUUID": other, "numberResults": 2})
        except InvalidTask:
            assert await house.taken() == []
        else:
            assert await house.taken() == [task.id]
            assert (await task.wait(10)).expected == 2


async def test_the_door_being_shut_does_not_hide_the_rejection(tmp_path: Path) -> None:
    async with a_house(tmp_path, submit_status=400) as house:
        with pytest.raises(PlatformRejected):
            await house.submitter(ledger=_Elsewhere(house.ledger.url, ADMIN)).submit(MODEL, PROMPT)


async def test_without_a_ledger_nothing_is_sent(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        down = Client(f"http://127.0.0.1:{held_port()}", ADMIN)
        with pytest.raises(LedgerUnavailable):
            await house.submitter(ledger=down).submit(MODEL, PROMPT)
        with pytest.raises(LedgerUnavailable) as caught:
            await house.submitter(ledger=Client(house.ledger.url, "wrong")).submit(MODEL, PROMPT)
        assert caught.value.status == 401
        assert await house.taken() == []


async def test_bad_tags_are_the_tasks_fault_not_the_ledgers(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        with pytest.raises(InvalidTask):
            await house.submitter().submit(MODEL, PROMPT, tags={"sig": "x"})
        with pytest.raises(InvalidTask):
            await house.submitter().submit(MODEL, PROMPT, tags={str(n): "x" for n in range(30)})


async def test_a_task_of_another_project_is_resumed(tmp_path: Path) -> None:
    async with a_house(tmp_path, submit_hang_s=60) as house:
        with pytest.raises(AmbiguousSubmit) as caught:
            await house.submitter(timeout=0.3, project="films").submit(MODEL, PROMPT)
        task = await house.submitter().resume(caught.value.task_id)
        assert task.id == caught.value.task_id


async def test_a_callback_before_the_answer_breaks_nothing(tmp_path: Path) -> None:
    async with a_house(tmp_path, callback_before_ack=True) as house:
        task = await house.submitter().submit(MODEL, PROMPT, number_results=3)
        assert [result.index async for result in task.results()] == [0, 1, 2]


async def test_no_secret_is_shown(tmp_path: Path) -> None:
    async with a_house(tmp_path, api_key="the right one") as house:
        submitter = house.submitter()
        with pytest.raises(PlatformRejected) as caught:
            await submitter.submit(MODEL, PROMPT)
        shown = f"{caught.value!r} {caught.value} {vars(caught.value)} {submitter!r}"
        assert KEY not in shown
        assert "sig=" not in shown
        await house.turn(submit_status=None)
        echo = httpx.MockTransport(
            lambda _request: httpx.Response(
                401,
                json={"errors": [{"code": "invalidApiKey", "message": f"bad key {KEY}"}]},
            )
        )
        with pytest.raises(PlatformRejected) as caught:
            await house.submitter(transport=echo).submit(MODEL, PROMPT)
        assert KEY not in f"{caught.value}"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"errors": [{"code": "rateLimitExceeded", "message": "full"}]}, PlatformUnavailable),
        (503, None, AmbiguousSubmit),  # a gateway's: the platform behind it may have accepted
        (
            200,
            {"data": [{"status": "error", "error": {"code": "invalidSeed", "message": "no"}}]},
            PlatformRejected,
        ),
    ],
)
async def test_an_answer_is_judged_by_what_it_says(
    tmp_path: Path, status: int, body: dict[str, Any] | None, expected: type[SubmitterError]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        sent = json.loads(request.content)[0]["taskUUID"]
        for item in (body or {}).get("data", []) + (body or {}).get("errors", []):
            item["taskUUID"] = sent
        return httpx.Response(status, json=body) if body else httpx.Response(status, text="<html>")

    async with a_house(tmp_path) as house:
        with pytest.raises(expected):
            await house.submitter(transport=httpx.MockTransport(answer)).submit(MODEL, PROMPT)


async def test_a_tuple_is_the_same_request_as_a_list(tmp_path: Path) -> None:
    frames = {"inputs": {"frameImages": ({"image": "https://x.example/a.jpg", "frame": "first"},)}}
    asked = {"positivePrompt": "a boat", "duration": 5} | frames
    async with a_house(tmp_path) as house:
        submitter = house.submitter()
        first = await submitter.submit("simulator:ok@1", asked, idempotency_key="k")
        assert (await submitter.submit("simulator:ok@1", asked, idempotency_key="k")).id == first.id


async def test_a_poll_that_fails_while_resuming_gives_the_lease_back(tmp_path: Path) -> None:
    async with a_house(tmp_path, submit_hang_s=60, drop=1.0) as house:
        with pytest.raises(AmbiguousSubmit) as caught:
            await house.submitter(timeout=0.3).submit(MODEL, PROMPT)
        down = house.submitter(base_url=f"http://127.0.0.1:{held_port()}/v1")
        with pytest.raises(SubmitterError):
            await down.resume(caught.value.task_id)
        assert not (await house.submitter().resume(caught.value.task_id)).in_flight


async def test_waiting_outlives_a_restart_of_the_receiver(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "receiver", "serve"]
    env = {
        **os.environ,
        "PORT": str(port := held_port()),
        "REELHOOK_DATA_DIR": str(tmp_path),
        "REELHOOK_ADMIN_TOKEN": ADMIN,
        "LOG_LEVEL": "warning",
    }
    config = SimulatorConfig(knobs=Knobs(delay_s=3, spread_s=0))
    with anyio.fail_after(PATIENCE):
        async with (
            running(config) as simulator,
            Client(f"http://127.0.0.1:{port}", ADMIN) as ledger,
            Runware(KEY, f"{simulator}/v1") as platform,
            anyio.create_task_group() as group,
        ):
            done: list[Task] = []
            over = anyio.Event()
            async with Child.start(argv, name="receiver", env=env) as child:
                await child.ready(20)
                task = await Submitter(platform, ledger).submit(MODEL, PROMPT)

                async def wait() -> None:
                    done.append(await task.wait())
                    over.set()

                group.start_soon(wait)
                await anyio.lowlevel.checkpoint()
            async with Child.start(argv, name="receiver", env=env) as child:
                await child.ready(20)
                await over.wait()
        assert done[0].succeeded == 1


class _Crashed(Exception):
    pass


class _Crash(httpx.AsyncBaseTransport):
    """The process ends here, as far as anybody can tell."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise _Crashed


class _Elsewhere(Client):
    """Its URLs lead to a door that is shut."""

    async def register_task(self, *args: Any, **options: Any) -> Any:
        found = await super().register_task(*args, **options)
        url = httpx.URL(found.webhook_url).copy_with(port=held_port())
        return found.model_copy(update={"webhook_url": str(url)})


async def _lease_free(folder: Path) -> None:
    """Two minutes later."""
    import sqlite3

    with sqlite3.connect(folder / "reelhook.db", timeout=10) as database:
        database.execute("UPDATE tasks SET submit_lease = 0")
    database.close()

"""The simulator's polls: refused, slow, archived and counted."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from submitter.simulator.contract import STATUS_CODES
from tests.submitter.test_simulator import GIVE_UP_S, Time, a_platform, a_task, at_once

pytestmark = pytest.mark.anyio

POLLS = ("getResponse", "getTaskDetails")


@pytest.mark.parametrize("kind", POLLS)
@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 502, 503, 504])
async def test_the_first_polls_are_refused(kind: str, status: int) -> None:
    async with a_platform(poll_status=status, poll_faults=2, poll_retry_after="7") as platform:
        task = a_task()
        assert (await platform.post(task)).status_code == 200
        question = {"taskType": kind, "taskUUID": task["taskUUID"]}
        refused = [await platform.post(question) for _ in range(2)]
        assert (await platform.post(question)).status_code == 200
        # Turning one of these knobs begins their count anew.
        await platform.turn(poll_faults=1)
        assert (await platform.post(question)).status_code == status
        polls = (await platform.counters())["polls"]
    assert polls == {name: 4 if name == kind else 0 for name in POLLS}
    for answer in refused:
        assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
        (error,) = answer.json()["errors"]
        assert error["code"] == STATUS_CODES[status]
        assert ("taskUUID" in error) == (status != 401)


async def test_a_submit_is_no_poll() -> None:
    async with a_platform(poll_status=500) as platform:
        assert (await platform.post(a_task())).status_code == 200
        assert (await platform.counters())["polls"] == dict.fromkeys(POLLS, 0)


async def test_a_hanging_poll_is_answered_in_the_end_and_counted_at_once() -> None:
    hangs, gate = anyio.Event(), anyio.Event()

    async def wait(seconds: float) -> None:
        if seconds == 99:
            hangs.set()
            await gate.wait()

    found = []
    async with a_platform(poll_hang_s=99, poll_faults=1, sleep=wait) as platform:
        task = a_task()
        await platform.post(task)
        await platform.settled()

        async def poll() -> None:
            found.append(await platform.poll(task))

        with anyio.fail_after(GIVE_UP_S):
            async with anyio.create_task_group() as group:
                group.start_soon(poll)
                await hangs.wait()
                assert (await platform.counters())["polls"]["getResponse"] == 1
                assert (await platform.poll(task))["data"][0]["status"] == "success"
                assert found == []
                gate.set()
    assert found[0]["data"][0]["status"] == "success"


async def test_a_finished_task_is_in_the_archive_alone_after_a_while() -> None:
    time = Time()
    async with a_platform(archive_after_s=60, clock=time, sleep=at_once) as platform:
        task = a_task(numberResults=2)
        await platform.post(task)
        await platform.settled()
        before = await platform.poll(task)
        time.now += timedelta(seconds=60)
        after = await platform.poll(task)
        kept = await platform.poll(task, "getTaskDetails")
    assert [each["status"] for each in before["data"]] == ["success"] * 2
    assert [error["code"] for error in after["errors"]] == ["taskExpired"]
    assert kept["data"][0]["response"] == before


async def test_a_task_in_work_is_not_archived() -> None:
    time, gate = Time(), anyio.Event()

    async def wait(_seconds: float) -> None:
        await gate.wait()

    async with a_platform(archive_after_s=0, clock=time, sleep=wait) as platform:
        task = a_task()
        await platform.post(task)
        assert (await platform.poll(task))["data"][0]["status"] == "processing"
        gate.set()
        await platform.settled()
        assert (await platform.poll(task))["errors"][0]["code"] == "taskExpired"

"""Which tasks are polled, and what a poll changes, each case through the real door."""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.client import Source, SubmitState, TaskPatch, TaskSpec
from receiver.clock import DAY, HOUR
from receiver.tokens import Claims, TokenBox, digest_tags, webhook_url
from tests.flows.test_reconcile import World, check_once, seconds_from_now, until_overdue, world
from tests.flows.test_spine import all_events, register
from tests.make import failure

pytestmark = [pytest.mark.anyio, pytest.mark.process]

PARTIAL = "simulator:partial@1"


async def post(url: str, body: object) -> str:
    """What the door answers to a body: a status word, or the HTTP status."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(url, content=content)
    found = answer.json()["status"]
    return str(found)


def expired_url(here: World, task_id: str, expected: int) -> str:
    """A URL of the task that was good until yesterday, by the receiver's own key."""
    key = json.loads((here.folder / "local.json").read_text())["signing_keys"]
    now = time.time_ns() // 1_000_000
    claims = Claims(
        jti=secrets.token_bytes(16),
        task=task_id,
        platform="runware",
        project="default",
        expected=expected,
        source=Source.CALLBACK,
        issued_at=now - 2 * DAY,
        expires_at=now - DAY - HOUR,
        tags=digest_tags([]),
    )
    return webhook_url(here.client.url, "runware", TokenBox([key]).mint(claims), {})


async def test_what_is_due_is_polled_and_nothing_else(tmp_path: Path) -> None:
    later: dict[str, Any] = {"deadline_at": seconds_from_now(3600)}
    async with world(tmp_path, "--drop", "1") as here:
        overdue, _ = await here.made(2)
        error, error_url = await here.made(2, PARTIAL, **later)
        unreadable, unreadable_url = await here.made(2, **later)
        expired, _ = await here.made(2, **later)
        asked, _ = await here.made(1, **later)
        quiet, _ = await here.made(1, **later)
        complete, complete_url = await here.made(2, **later)
        rejected, _ = await register(here.client, 1, deadline_at=seconds_from_now(0))
        refused, _ = await register(here.client, 1, deadline_at=seconds_from_now(0))
        no_submit = TaskPatch(submit_state=SubmitState.REJECTED)
        await here.client.change_task(refused, no_submit)  # its answer got lost
        due = {overdue: 2, error: 2, unreadable: 2, expired: 2, asked: 1}
        await here.done_at_the_platform([*due, quiet, complete])

        told = (await here.snapshot(error))["errors"]
        assert await post(error_url, {"errors": told}) == "recorded"
        assert await post(unreadable_url, b"{not json") == "quarantined"
        assert await post(expired_url(here, expired, 2), await here.snapshot(expired)) == "410"
        await here.client.reconcile_task(asked)
        assert await post(complete_url, await here.snapshot(complete)) == "recorded"
        spec = TaskSpec(platform="runware", expected=1)
        no = await here.client.register_task(rejected, spec, source=Source.SUBMIT)
        body = {"errors": [failure("invalidWidth", task=rejected)]}
        assert await post(no.webhook_url, body) == "recorded"
        await until_overdue(here.client, [overdue, refused])

        before = await here.polls()
        # Batch after batch, until nothing is due.
        code, said = await here.reconcile("--json", "--rate", "100", "--limit", "2")
        assert code == 0
        polled = [json.loads(line) for line in said.splitlines()]
        assert {line["task"]: line["found"] for line in polled} == dict.fromkeys(due, "posted")
        assert len(polled) == len(due)
        after = await here.polls()
        assert after["getResponse"] - before["getResponse"] == len(due)
        assert await here.reconcile() == (0, "Nothing is due.\n")
        assert await here.polls() == after

        left = await here.client.task(quiet)
        assert left is not None
        assert left.status == "pending"
        sent = {**due, complete: 2}
        for task_id, expected in sent.items():
            found = await here.client.task(task_id)
            assert found is not None
            assert (found.complete, found.received) == (True, expected)
        events = await all_events(here.client)
        completed = Counter(task for _, kind, task in events if kind == "task.completed")
        assert completed == Counter(dict.fromkeys([*sent, rejected], 1))


async def test_a_complete_task_is_polled_by_hand_alone_and_nothing_is_told_twice(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, "--drop", "1") as here:
        task_id, url = await here.made(2, PARTIAL)
        await here.done_at_the_platform([task_id])
        # Result by result, as callbacks come.
        known = await here.snapshot(task_id)
        assert await post(url, {"data": known["data"]}) == "recorded"
        assert await post(url, {"errors": known["errors"]}) == "recorded"
        await check_once(here, {task_id: 2})
        assert await here.reconcile() == (0, "Nothing is due.\n")
        await here.client.reconcile_task(task_id)
        assert (await here.reconcile())[1] == f"{task_id}  posted\n"
        assert await here.reconcile() == (0, "Nothing is due.\n")
        await check_once(here, {task_id: 2})


async def test_what_comes_by_a_poll_after_giving_up_is_late_and_revises_the_task(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, "--drop", "1") as here:
        soon = seconds_from_now(1)
        task_id, _ = await here.made(2, give_up_at=soon)
        await here.done_at_the_platform([task_id])
        given_up = await here.client.task(task_id)
        while given_up is not None and not given_up.complete:
            given_up = await here.client.task(task_id, wait=20, revision=given_up.revision)
        assert given_up is not None
        assert (given_up.status, given_up.failed) == ("failed", 2)
        assert await here.reconcile() == (0, "Nothing is due.\n")

        await here.client.reconcile_task(task_id)
        assert (await here.reconcile())[0] == 0
        found = await here.client.task(task_id)
        assert found is not None
        assert (found.status, found.succeeded, found.failed) == ("succeeded", 2, 0)
        results = await here.client.results(task_id)
        assert [(result.kind, result.late, result.superseded) for result in results] == [
            ("failed", False, True),
            ("failed", False, True),
            ("succeeded", True, False),
            ("succeeded", True, False),
        ]
        told = Counter(kind for _, kind, _ in await all_events(here.client))
        told.pop("task.overdue", None)  # it may have been given up first
        assert told == {
            "result.failed": 2,
            "task.completed": 1,
            "result.succeeded": 2,
            "task.revised": 1,
        }


async def test_a_task_of_the_archive_is_found_there(tmp_path: Path) -> None:
    async with world(tmp_path, "--drop", "1", "--archive-after-s", "0") as here:
        tasks = {(await here.made(count))[0]: count for count in (1, 2)}
        await until_overdue(here.client, list(tasks))
        code, _ = await here.reconcile()
        assert (code, await here.polls()) == (0, {"getResponse": 2, "getTaskDetails": 2})
        await check_once(here, tasks)

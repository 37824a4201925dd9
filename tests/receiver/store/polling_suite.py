"""What every store must do with a platform that does not call back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver.callbacks import Arrival, Outcome
from receiver.clock import DAY, HOUR, SECOND
from receiver.errors import Conflict
from receiver.platforms import nanogpt
from receiver.platforms.reading import loads
from receiver.reconciling import BACKOFF, FIRST_POLL, FIRST_SEARCH, next_due
from receiver.store.protocol import Store, TaskChange
from receiver.tasks import Status, SubmitState
from receiver.tokens import Source
from tests.doubles import START, FakeClock
from tests.make import OTHER, TASK, arrival, registration
from tests.receiver.store.suite import Opener, claim_tasks, outcomes, release_tasks


def run_of(status: str, **changes: Any) -> Arrival:
    """A poll's answer of NanoGPT, which does not call back."""
    video = {"output": {"video": {"url": "https://storage.example.com/video.mp4"}}, "cost": 0.35}
    found = {"status": status, **(video if status == "COMPLETED" else {})}
    body = json.dumps({"requestId": "vid_m1abc123def456", "data": found}).encode()
    items = nanogpt.parse(loads(body), TASK)
    more: dict[str, Any] = {"platform": "nanogpt", "source": Source.POLL, "items": items}
    return arrival(body=body, unreadable=None, **more, **changes)


async def submitted(store: Store, now: int = START, **fields: Any) -> None:
    """A task whose platform, which does not call back, took it at that moment."""
    await store.register(registration(platform="nanogpt", now=now, **fields))
    change = TaskChange(TASK, now, SubmitState.SUBMITTED, "vid_m1abc123def456")
    await store.change_task(change)


@pytest.mark.anyio
class PollingSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    async def test_what_does_not_call_back_is_due_soon_after_its_submit(self, store: Store) -> None:
        await store.register(registration(platform="nanogpt"))
        await submitted(store, START + 1)
        due = START + 1 + FIRST_POLL
        assert await claim_tasks(store, due - 1, platforms=["nanogpt"]) == []
        assert await claim_tasks(store, due, platforms=["runware"]) == []
        assert await claim_tasks(store, due, platforms=["runware", "nanogpt"]) == [TASK]

    async def test_it_is_polled_at_its_own_pace_while_it_is_in_work(self, store: Store) -> None:
        await submitted(store)
        now = START + FIRST_POLL
        for attempts in range(1, 50):
            assert await claim_tasks(store, now, platforms=["nanogpt"]) == [TASK]
            receipt = await store.record(run_of("IN_PROGRESS", received_at=now))
            assert receipt.outcome is Outcome.PROGRESS
            due = next_due(attempts, now=now, complete=False, polled=True)
            assert due is not None
            assert await claim_tasks(store, due - 1, platforms=["nanogpt"]) == []
            now = due
        assert await claim_tasks(store, now, platforms=["nanogpt"]) == [TASK]
        await store.record(run_of("COMPLETED", received_at=now))
        assert (await store.task(TASK)).status is Status.SUCCEEDED
        assert await claim_tasks(store, now + DAY, platforms=["nanogpt"]) == []
        assert await outcomes(store) == ["progress", "recorded"]

    async def test_a_repeated_patch_puts_no_poll_off(self, store: Store) -> None:
        await submitted(store)
        await store.change_task(TaskChange(TASK, START + 2 * SECOND, SubmitState.SUBMITTED))
        assert await claim_tasks(store, START + FIRST_POLL, platforms=["nanogpt"]) == [TASK]
        await store.change_task(TaskChange(TASK, START + FIRST_POLL, SubmitState.SUBMITTED))
        now = START + 60 * SECOND + FIRST_POLL
        assert await claim_tasks(store, now, platforms=["nanogpt"]) == [TASK]

    async def test_a_put_that_names_the_run_is_enough(self, store: Store) -> None:
        await store.register(registration(platform="nanogpt", platform_id="vid_1"))
        await store.register(registration(OTHER, platform="nanogpt"))
        await store.register(registration(OTHER, platform="nanogpt", platform_id="vid_2"))
        found = await claim_tasks(store, START + FIRST_POLL, platforms=["nanogpt"])
        assert sorted(found) == sorted([TASK, OTHER])

    async def test_what_was_not_sent_is_not_polled(self, store: Store) -> None:
        await store.register(registration(platform="nanogpt", deadline_at=START))
        assert await store.note_overdue(START) == 1
        assert await claim_tasks(store, START + DAY, platforms=["nanogpt"]) == []
        with pytest.raises(Conflict, match="PATCH it with the platform_id"):
            await store.reconcile_task(TaskChange(TASK, START))
        await store.change_task(TaskChange(TASK, START, platform_id="vid_1"))
        assert await claim_tasks(store, START, platforms=["nanogpt"]) == [TASK]

    @pytest.mark.parametrize("state", [SubmitState.SUBMITTED, SubmitState.UNKNOWN])
    async def test_a_run_that_nobody_knows_is_looked_for_by_and_by(
        self, store: Store, state: SubmitState
    ) -> None:
        await store.register(registration(platform="nanogpt"))
        await store.change_task(TaskChange(TASK, START, state))
        now = START + FIRST_SEARCH
        assert await claim_tasks(store, now - 1, platforms=["nanogpt"]) == []
        for pause in BACKOFF[:3]:  # not every few seconds: it takes a search
            assert await claim_tasks(store, now, platforms=["nanogpt"]) == [TASK]
            await release_tasks(store, now=now, claimed=now, polled=True)
            assert await claim_tasks(store, now + pause - 1, platforms=["nanogpt"]) == []
            now += pause
        await store.change_task(TaskChange(TASK, now - FIRST_POLL, platform_id="vid_1"))
        assert await claim_tasks(store, now, platforms=["nanogpt"]) == [TASK]
        await release_tasks(store, now=now, claimed=now, polled=True)
        assert await claim_tasks(store, now + FIRST_POLL, platforms=["nanogpt"]) == [TASK]

    async def test_a_submit_that_is_under_way_when_its_answer_comes_is_due_at_once(
        self, store: Store
    ) -> None:
        await store.register(registration(platform="nanogpt"))
        change = TaskChange(
            TASK, START, SubmitState.UNKNOWN, was=SubmitState.REGISTERED, lease=True
        )
        await store.change_task(change)
        await submitted(store, START + SECOND)
        due = START + SECOND + FIRST_POLL
        assert await claim_tasks(store, due - 1, platforms=["nanogpt"]) == []
        assert await claim_tasks(store, due, platforms=["nanogpt"]) == [TASK]

    async def test_by_hand_a_run_is_looked_for_at_once(self, store: Store) -> None:
        await store.register(registration(platform="nanogpt"))
        await store.change_task(TaskChange(TASK, START, SubmitState.UNKNOWN))
        await store.reconcile_task(TaskChange(TASK, START))
        assert await claim_tasks(store, START, platforms=["nanogpt"]) == [TASK]

    async def test_what_is_over_is_not_polled_since_its_run_is_known(self, store: Store) -> None:
        late = START + DAY
        await store.register(registration(platform="nanogpt", platform_id="vid_1"))
        await store.change_task(TaskChange(TASK, START, SubmitState.REJECTED))
        await store.register(registration(OTHER, platform="nanogpt", give_up_at=START + 1))
        await store.change_task(TaskChange(OTHER, START, SubmitState.SUBMITTED, "vid_2"))
        assert await claim_tasks(store, late, platforms=["nanogpt"]) == []
        assert await store.give_up(START + 1) == 1
        await store.change_task(TaskChange(OTHER, START + 2, SubmitState.SUBMITTED, "vid_2"))
        assert await claim_tasks(store, late, platforms=["nanogpt"]) == []

    async def test_a_submit_that_is_noted_after_the_result_asks_for_no_poll(
        self, store: Store
    ) -> None:
        await store.register(registration(platform="nanogpt"))
        await store.record(run_of("COMPLETED"))
        await store.change_task(TaskChange(TASK, START, SubmitState.SUBMITTED, "vid_1"))
        assert await claim_tasks(store, START + HOUR, platforms=["nanogpt"]) == []

    async def test_what_calls_back_is_not_due_after_its_submit(self, store: Store) -> None:
        await store.register(registration(platform_id="x"))
        await store.change_task(TaskChange(TASK, START, SubmitState.SUBMITTED, "y"))
        assert await claim_tasks(store, START + DAY) == []

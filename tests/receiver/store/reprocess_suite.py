"""What every store must do with a kept callback that is taken once more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver import ids
from receiver.callbacks import Callback, Outcome, Receipt
from receiver.clock import HOUR, MINUTE, to_datetime
from receiver.errors import Conflict, NotFound
from receiver.reprocessing import arrivals_of
from receiver.store.protocol import Query, Reprocessing, Store, TaskChange
from receiver.tasks import GIVE_UP, Status, SubmitState
from receiver.tokens import Source
from tests.doubles import START, FakeClock
from tests.make import (
    OTHER,
    TASK,
    arrival,
    endpoint,
    failure,
    processing,
    registration,
    success,
    wrapped,
)
from tests.receiver.store.suite import Opener, claim_tasks, outcomes, states, types

LATER = START + HOUR
DUPLICATE = Receipt(Outcome.DUPLICATE)


async def only(store: Store, **query: Any) -> Callback:
    """The one callback of a list."""
    (found,) = (await store.callbacks(Query(**query))).data
    return found


async def again(
    store: Store, callback_id: str, now: int = LATER, *, dry_run: bool = False
) -> Receipt:
    """Take a callback once more, as a release does that can read it."""
    kept = await store.kept_callback(callback_id)
    assert kept.body is not None
    arrivals = arrivals_of(kept, kept.body, now)
    return await store.reprocess(Reprocessing(kept.id, arrivals, now, dry_run=dry_run))


async def unread(
    store: Store, *items: dict[str, Any], body: bytes | None = None, **changes: Any
) -> Callback:
    """A body that could not be read when it came, and can be by now."""
    before = {found.id for found in (await store.callbacks(Query(limit=200))).data}
    fields: dict[str, Any] = {"expected": 2, "unreadable": "unknown_shape"} | changes
    await store.record(arrival(body=wrapped(*items) if body is None else body, **fields))
    (made,) = [f for f in (await store.callbacks(Query(limit=200))).data if f.id not in before]
    return made


@pytest.mark.anyio
class ReprocessSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    async def test_what_can_be_read_by_now_is_recorded_and_delivered_once(
        self, store: Store
    ) -> None:
        await store.add_endpoint(endpoint())
        callback = await unread(store, success(1), success(2))
        assert await again(store, callback.id) == Receipt(Outcome.RECORDED, 2)
        task = await store.task(TASK)
        assert (task.status, task.received, task.cost) == (Status.SUCCEEDED, 2, 0.943)
        assert task.completed_at == to_datetime(LATER)
        assert await types(store) == ["result.succeeded"] * 2 + ["task.completed"]
        assert await states(store) == ["pending"] * 3
        for _ in range(2):
            assert await again(store, callback.id) == DUPLICATE
        assert len(await states(store)) == len(await types(store)) == 3
        assert len(await store.results(TASK)) == 2

    async def test_the_callback_stays_the_one_that_came_and_when(self, store: Store) -> None:
        callback = await unread(store, success())
        await again(store, callback.id)
        now = await only(store)
        assert (now.outcome, now.reason) == (Outcome.RECORDED, None)
        same = callback.model_dump(exclude={"outcome", "reason"})
        assert now.model_dump(exclude={"outcome", "reason"}) == same
        (result,) = await store.results(TASK)
        assert (result.received_at, result.source) == (callback.received_at, Source.CALLBACK)
        await again(store, callback.id)
        assert (await only(store)).outcome is Outcome.RECORDED

    async def test_media_are_there_from_when_the_bytes_came(self, store: Store) -> None:
        await store.register(registration(expected=2, request={"ttl": 60}))
        callback = await unread(store, success())
        await again(store, callback.id)
        (result,) = await store.results(TASK)
        assert result.media[0].expires_at == to_datetime(START + MINUTE)

    async def test_a_dry_run_tells_the_same_and_leaves_nothing_behind(self, store: Store) -> None:
        changed: list[set[str]] = []
        await store.add_endpoint(endpoint())
        callback = await unread(store, success())
        before = (await store.task(TASK)).model_dump()
        store.on_change(lambda tasks, _work: changed.append(set(tasks)))
        for _ in range(2):
            receipt = await again(store, callback.id, dry_run=True)
            assert receipt == Receipt(Outcome.RECORDED, 1)
        assert (await store.task(TASK)).model_dump() == before
        assert (await only(store)).outcome is Outcome.QUARANTINED
        assert (await store.results(TASK), await types(store), await states(store)) == ([], [], [])
        assert not any(changed)
        assert await again(store, callback.id) == Receipt(Outcome.RECORDED, 1)

    async def test_two_at_once_record_once(self, store: Store) -> None:
        callback = await unread(store, success())
        found = await asyncio.gather(*[again(store, callback.id) for _ in range(8)])
        assert sorted(found) == sorted([Receipt(Outcome.RECORDED, 1), *[DUPLICATE] * 7])
        assert len(await store.results(TASK)) == 1

    async def test_what_came_otherwise_meanwhile_is_a_duplicate_and_frees_its_room(
        self, store: Store
    ) -> None:
        limit = 2 * 1 + 8
        read = await unread(store, success(), expected=1)
        for number in range(limit - 1):
            await unread(store, body=b"%d{" % number, expected=1)
        assert (await store.record(arrival(body=b"{"))).outcome is Outcome.LIMITED
        await store.record(arrival(success(note="again")))
        assert await again(store, read.id) == DUPLICATE
        assert (await store.callback(read.id)).outcome is Outcome.DUPLICATE
        assert (await store.record(arrival(body=b"{"))).outcome is Outcome.QUARANTINED

    async def test_what_contradicts_a_result_by_now_is_a_conflict_counted_once(
        self, store: Store
    ) -> None:
        callback = await unread(store, success(seed=1))
        await store.record(arrival(success()))
        for _ in range(2):
            assert await again(store, callback.id) == Receipt(Outcome.CONFLICT)
        assert (await only(store, outcome="conflict")).id == callback.id
        (result,) = await store.results(TASK)
        assert (result.seed, result.conflicts) == (44_372, 1)

    async def test_a_conflict_stays_one(self, store: Store) -> None:
        await store.record(arrival(success(), expected=2))
        await store.record(arrival(success(seed=1)))
        callback = await only(store, outcome="conflict")
        assert await again(store, callback.id) == Receipt(Outcome.CONFLICT)
        assert await outcomes(store) == ["recorded", "conflict"]
        assert (await store.results(TASK))[0].conflicts == 1

    async def test_what_still_can_not_be_read_stays_quarantined_with_todays_reason(
        self, store: Store
    ) -> None:
        callback = await unread(store, body=b'{"a": NaN}')
        assert await again(store, callback.id) == Receipt(Outcome.QUARANTINED)
        assert (await only(store, outcome="quarantined")).reason == "not_a_number"

    async def test_own_items_are_taken_and_foreign_ones_are_not(self, store: Store) -> None:
        foreign = success(9, OTHER)
        callback = await unread(store, success(), foreign)
        assert await again(store, callback.id) == Receipt(Outcome.RECORDED, 1)
        assert (await only(store)).reason == "foreign_items"
        alone = await unread(store, foreign)
        assert await again(store, alone.id) == Receipt(Outcome.QUARANTINED)
        assert (await store.callback(alone.id)).reason == "foreign_items"
        with pytest.raises(NotFound):
            await store.task(OTHER)

    async def test_the_part_that_waits_stays_quarantined_while_it_brings_nothing(
        self, store: Store
    ) -> None:
        await store.record(arrival(success(), {"taskUUID": TASK}, expected=2))
        assert await outcomes(store) == ["quarantined", "recorded"]
        part = await only(store, outcome="quarantined")
        assert await again(store, part.id) == DUPLICATE
        assert (await only(store, outcome="quarantined")).reason == "unknown_items"

    async def test_progress_is_shown_as_such_and_removes_no_later_one(self, store: Store) -> None:
        callback = await unread(store, processing(progress=1))
        await store.record(arrival(processing(progress=2)))
        for _ in range(2):
            assert await again(store, callback.id) == Receipt(Outcome.PROGRESS)
        assert await outcomes(store) == ["progress", "progress"]
        await store.record(arrival(processing(progress=3)))
        assert await outcomes(store) == ["progress"]

    async def test_of_a_revoked_task_nothing_is_taken(self, store: Store) -> None:
        callback = await unread(store, success())
        await store.revoke_task(TaskChange(TASK, START + 1))
        with pytest.raises(Conflict, match="revoked"):
            await again(store, callback.id)
        assert (await only(store)).outcome is Outcome.QUARANTINED
        assert await store.results(TASK) == []
        later = await unread(store, success(2), received_at=START + 2, issued_at=START + 2)
        assert await again(store, later.id) == Receipt(Outcome.RECORDED, 1)

    async def test_what_came_too_late_is_taken_by_hand(self, store: Store) -> None:
        await store.register(registration(expected=2))
        await store.record(arrival(success(), expired=True))
        callback = await only(store, outcome="expired")
        assert await again(store, callback.id) == Receipt(Outcome.RECORDED, 1)
        assert (await only(store)).outcome is Outcome.RECORDED

    async def test_after_the_give_up_it_is_a_late_result(self, store: Store) -> None:
        await store.register(registration(expected=1))
        callback = await unread(store, success())
        await store.give_up(START + GIVE_UP)
        assert await again(store, callback.id, START + GIVE_UP) == Receipt(Outcome.RECORDED, 1)
        missed, result = await store.results(TASK)
        assert (missed.superseded, result.late) == (True, True)
        assert (await store.task(TASK)).status is Status.SUCCEEDED
        told = ["result.failed", "task.completed", "result.succeeded", "task.revised"]
        assert await types(store) == told

    async def test_a_snapshot_and_a_rejection_end_their_task_as_they_would_have(
        self, store: Store
    ) -> None:
        callback = await unread(store, failure(), source=Source.POLL)
        await again(store, callback.id)
        assert (await store.task(TASK)).status is Status.FAILED
        other = failure(task=OTHER)
        rejected = await unread(store, other, source=Source.SUBMIT, task_id=OTHER)
        await again(store, rejected.id)
        assert (await store.task(OTHER)).submit_state is SubmitState.REJECTED

    async def test_a_second_reading_makes_no_poll_due(self, store: Store) -> None:
        callback = await unread(store, body=b"{")
        assert await claim_tasks(store) == [TASK]
        before = await store.task(TASK)
        await again(store, callback.id, LATER)
        assert await store.task(TASK) == before
        # Due as the poll left it: not anew, which would be LATER.
        assert await claim_tasks(store, START + 2 * MINUTE) == [TASK]

    async def test_a_task_takes_no_more_results_than_it_can_owe(self, store: Store) -> None:
        many = [success(number) for number in range(40)]
        callback = await unread(store, *many, expected=1)
        with pytest.raises(Conflict, match="more results"):
            await again(store, callback.id)
        assert await store.results(TASK) == []

    async def test_what_named_no_task_goes_to_the_one_it_names_by_now(self, store: Store) -> None:
        body = json.dumps(success()).encode()
        callback = await unread(store, body=body, task_id=None, jti=None, tags={"a": "b"})
        assert (callback.task_id, callback.outcome) == (None, Outcome.QUARANTINED)
        assert await again(store, callback.id) == Receipt(Outcome.RECORDED, 1)
        assert (await only(store, task=TASK)).id == callback.id
        task = await store.task(TASK)
        assert (task.expected, task.project, task.status) == (None, "default", Status.PARTIAL)
        assert (task.tags, task.registered) == ({"a": "b"}, False)
        assert await again(store, callback.id) == DUPLICATE

    async def test_of_several_tasks_each_gets_its_own(self, store: Store) -> None:
        both = wrapped(success(1), success(2, OTHER))
        callback = await unread(store, body=both, task_id=None, jti=None)
        assert await again(store, callback.id, dry_run=True) == Receipt(Outcome.RECORDED, 2)
        assert await again(store, callback.id) == Receipt(Outcome.RECORDED, 2)
        first, second = await only(store, task=TASK), await only(store, task=OTHER)
        assert (first.id, second.outcome) == (callback.id, Outcome.RECORDED)
        for found in (first, second):
            assert await again(store, found.id) == DUPLICATE
        assert await outcomes(store) == ["recorded", "recorded"]

    async def test_beside_a_static_key_nothing_is_foreign(self, store: Store) -> None:
        both = wrapped(success(1), success(2, OTHER))
        callback = await unread(store, body=both, jti=None)
        assert await again(store, callback.id) == Receipt(Outcome.RECORDED, 1)
        assert (await only(store)).reason is None

    async def test_what_names_no_task_still_waits(self, store: Store) -> None:
        callback = await unread(store, body=b"[]", task_id=None, jti=None)
        assert await again(store, callback.id) == Receipt(Outcome.QUARANTINED)
        assert (await only(store)).reason == "unknown_shape"
        alone = {key: value for key, value in success().items() if key != "taskUUID"}
        other = await unread(store, alone, task_id=None, jti=None)
        assert await again(store, other.id) == Receipt(Outcome.QUARANTINED)
        assert (await store.callback(other.id)).reason == "names_no_task"

    async def test_a_callback_that_is_gone_is_not_found(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await store.kept_callback(ids.CALLBACK + ids.encode(1))
        callback = await unread(store, success())
        kept = await store.kept_callback(callback.id)
        assert kept.body is not None
        arrivals = arrivals_of(kept, kept.body, LATER)
        await store.delete_task(TaskChange(TASK, LATER))
        with pytest.raises(NotFound):
            await store.reprocess(Reprocessing(kept.id, arrivals, LATER))
        with pytest.raises(NotFound):
            await store.task(TASK)

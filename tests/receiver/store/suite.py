"""What every store must do, whatever is behind it. A store's own test supplies `open_store`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from receiver import ids
from receiver.callbacks import Arrival, Outcome
from receiver.clock import DAY, HOUR, SECOND, to_datetime, to_rfc3339
from receiver.deliveries import Attempt, State
from receiver.endpoints import Endpoint, EndpointPatch
from receiver.endpoints import State as EndpointState
from receiver.errors import Conflict, Invalid, NotFound, StoreUnavailable
from receiver.expectations import FEWEST, SAMPLES
from receiver.platforms import runware
from receiver.platforms.reading import loads
from receiver.reconciling import BACKOFF
from receiver.recording import MOST_ORPHANS
from receiver.store.protocol import (
    Claimed,
    EndpointChange,
    Page,
    Query,
    Store,
    TaskChange,
    TasksAsked,
    TasksReleased,
)
from receiver.tasks import DEADLINE, GIVE_UP, Status, SubmitState
from receiver.tokens import Source
from tests.doubles import START, FakeClock, sent
from tests.make import (
    JTI,
    OTHER,
    TASK,
    arrival,
    endpoint,
    failure,
    processing,
    registration,
    settled,
    success,
    uuid,
    wrapped,
)

Opener = Callable[[], Awaitable[Store]]

LEASE = 35 * SECOND
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ABSENT = uuid(99)


def arrival_of(task: str, *found: dict[str, Any], **changes: Any) -> Arrival:
    """An arrival of another task than the usual one."""
    items = [{**item, "taskUUID": task} for item in found]
    parsed = runware.parse(loads(wrapped(*items)), task)
    return arrival(body=wrapped(*items), task_id=task, items=parsed, unreadable=None, **changes)


async def claim(store: Store, now: int = START, limit: int = 100) -> Sequence[Claimed]:
    return await store.claim(now=now, lease_until=now + LEASE, limit=limit)


async def overdue(store: Store, task: str = TASK, now: int = START, **fields: Any) -> None:
    """A submitted task that is due for reconcile since `now`."""
    await store.register(registration(task, deadline_at=now, **fields))
    await store.change_task(TaskChange(task, now, submit_state=SubmitState.SUBMITTED))
    await store.note_overdue(now)


async def claim_tasks(store: Store, now: int = START, limit: int = 100, **more: Any) -> list[str]:
    """The ids of the tasks that are leased for a minute."""
    asked = {"platforms": ["runware"], "project": None, "due_by": now, **more}
    until = now + 60 * SECOND
    claim = TasksAsked(now=now, lease_until=until, limit=limit, **asked)
    return [task.id for task in await store.claim_tasks(claim)]


async def release_tasks(store: Store, *, now: int, claimed: int = START, **more: Any) -> int:
    """Hand back what was claimed at a moment; how much of it was still leased."""
    asked = {"ids": [TASK], "polled": False, "lease_until": claimed + 60 * SECOND, **more}
    return await store.release_tasks(TasksReleased(now=now, **asked))


async def outcomes(store: Store) -> list[str]:
    """The outcomes of all callbacks, oldest first."""
    found = (await store.callbacks(Query(limit=200))).data
    return [callback.outcome.value for callback in reversed(found)]


async def types(store: Store, **query: Any) -> list[str]:
    """The types of all events, oldest first."""
    return [event.type for event in reversed((await store.events(Query(limit=200, **query))).data)]


async def states(store: Store, **query: Any) -> list[str]:
    """The states of all deliveries, oldest first."""
    found = (await store.deliveries(Query(limit=200, **query))).data
    return [delivery.state.value for delivery in reversed(found)]


async def log_of(store: Store, delivery_id: str) -> list[Attempt]:
    """The attempts of a delivery."""
    found = (await store.delivery(delivery_id)).attempt_log
    assert found is not None
    return found


async def queued(store: Store, count: int = 1, **spec: Any) -> Endpoint:
    """An endpoint with so many deliveries waiting for it, of as many tasks."""
    added = await store.add_endpoint(endpoint(event_types=["result.*"], **spec))
    numbers = range(count)
    first = ids.parse(ids.ENDPOINT, added.id) % 1_000_000 * 1_000
    await asyncio.gather(
        *[store.record(arrival_of(uuid(first + n), success(n), expected=2)) for n in numbers]
    )
    return added


@pytest.mark.anyio
class StoreSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    # What is let in

    async def test_a_store_that_works_lets_callbacks_in(self, store: Store) -> None:
        store.admit()
        await store.ready()

    async def test_a_closed_store_is_unavailable(self, store: Store) -> None:
        for _ in range(2):
            await store.close()
        with pytest.raises(StoreUnavailable):
            store.admit()
        for refused in (store.record(arrival(success())), store.ready()):
            with pytest.raises(StoreUnavailable):
                await refused

    # Callbacks

    async def test_a_callback_is_recorded_with_its_task_and_result(self, store: Store) -> None:
        receipt = await store.record(arrival(success(), expected=4, tags={"a": "b"}))
        assert (receipt.outcome, receipt.results) == (Outcome.RECORDED, 1)
        task = await store.task(TASK)
        assert (task.status, task.expected, task.received) == (Status.PARTIAL, 4, 1)
        assert (task.tags, task.cost, task.project) == ({"a": "b"}, 0.4715, "default")
        assert (task.created_at, task.completed_at) == (to_datetime(START), None)
        (result,) = await store.results(TASK)
        assert (result.index, result.kind, result.seed) == (0, "succeeded", 44_372)
        assert (result.media[0].id, result.media[0].url) == (uuid(1), success()["videoURL"])
        assert (result.source, result.raw) == (Source.CALLBACK, success())

    async def test_a_callback_is_kept_byte_for_byte_without_its_token(self, store: Store) -> None:
        body = b'{"data" : [ ' + json.dumps(success()).encode() + b" ]}\r\n"
        receipt = await store.record(arrival(success(), body=body))
        assert receipt.outcome is Outcome.RECORDED
        (listed,) = (await store.callbacks(Query())).data
        callback = await store.callback(listed.id)
        assert callback.body == body.decode()
        assert listed.body is None
        assert (await store.callbacks(Query(), whole=True)).data == [callback]
        assert callback.model_copy(update={"body": None, "body_exact": None}) == listed
        assert (callback.task_id, callback.jti) == (TASK, JTI.hex())
        assert (callback.size, callback.remote) == (len(body), "203.0.113.7")
        assert (callback.repeats, callback.received_at) == (0, to_datetime(START))

    async def test_a_body_that_is_no_text_is_shown_escaped(self, store: Store) -> None:
        await store.record(arrival(body=b"\xff\x00{", unreadable="not_utf8"))
        (listed,) = (await store.callbacks(Query())).data
        assert (await store.callback(listed.id)).body == "\\xff\x00{"

    async def test_a_repeated_callback_is_counted_on_the_first_one(self, store: Store) -> None:
        first = await store.record(arrival(success()))
        again = await store.record(arrival(success(), received_at=START + 5))
        assert [first.outcome, again.outcome] == [Outcome.RECORDED, Outcome.DUPLICATE]
        (callback,) = (await store.callbacks(Query())).data
        assert (callback.repeats, callback.last_received_at) == (1, to_datetime(START + 5))
        assert len(await store.results(TASK)) == 1
        assert await types(store) == ["result.succeeded", "task.completed"]

    async def test_a_hundred_equal_callbacks_at_once_record_one(self, store: Store) -> None:
        await store.add_endpoint(endpoint())
        arrivals = [arrival(success()) for _ in range(100)]
        receipts = await asyncio.gather(*map(store.record, arrivals))
        found = [receipt.outcome for receipt in receipts]
        assert (found.count(Outcome.RECORDED), found.count(Outcome.DUPLICATE)) == (1, 99)
        (callback,) = (await store.callbacks(Query())).data
        assert callback.repeats == 99
        assert len(await states(store)) == 2

    async def test_a_conflict_is_kept_beside_the_first_and_told_to_nobody(
        self, store: Store
    ) -> None:
        await store.record(arrival(success(), expected=2))
        receipt = await store.record(arrival(success(seed=1)))
        assert receipt.outcome is Outcome.CONFLICT
        assert await outcomes(store) == ["recorded", "conflict"]
        (result,) = await store.results(TASK)
        assert (result.seed, result.conflicts) == (44_372, 1)
        assert await types(store) == ["result.succeeded"]

    async def test_missing_fields_are_filled_in_by_a_later_callback(self, store: Store) -> None:
        poor = {key: value for key, value in success().items() if key not in ("seed", "cost")}
        await store.record(arrival(poor, expected=2))
        assert (await store.record(arrival(success()))).outcome is Outcome.DUPLICATE
        (result,) = await store.results(TASK)
        assert (result.seed, result.cost) == (44_372, 0.4715)
        assert (await store.task(TASK)).cost == 0.4715

    async def test_an_unreadable_body_is_quarantined(self, store: Store) -> None:
        receipt = await store.record(arrival(body=b"{", unreadable="bad_json"))
        assert receipt.outcome is Outcome.QUARANTINED
        (callback,) = (await store.callbacks(Query(outcome="quarantined"))).data
        assert (callback.reason, callback.task_id) == ("bad_json", TASK)
        assert (await store.task(TASK)).status is Status.PENDING
        assert await types(store) == []

    async def test_what_names_no_task_is_kept_once_and_up_to_a_bound(self, store: Store) -> None:
        def orphan(number: int) -> Arrival:
            return arrival(task_id=None, jti=None, body=b"%d" % number, tags={"a": "b"})

        for number in (0, 0, 0):
            assert (await store.record(orphan(number))).outcome is Outcome.QUARANTINED
        (first,) = (await store.callbacks(Query(orphan=True))).data
        assert (first.repeats, first.reason) == (2, "bad_json")
        assert (await store.kept_callback(first.id)).tags == {"a": "b"}
        await asyncio.gather(*[store.record(orphan(n)) for n in range(1, MOST_ORPHANS)])
        assert (await store.record(orphan(-1))).outcome is Outcome.LIMITED
        assert (await store.record(arrival(success()))).outcome is Outcome.RECORDED
        await store.delete_callback(first.id)
        assert (await store.record(orphan(-1))).outcome is Outcome.QUARANTINED
        assert [one.task_id for one in (await store.callbacks(Query(orphan=False))).data] == [TASK]

    async def test_a_static_key_opens_so_many_tasks_that_nobody_registered(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("receiver.store.verbs.ledger.MOST_STRANGERS", 2)

        async def came(task: str) -> Outcome:
            stranger = {"jti": None, "expected": None}
            return (await store.record(arrival_of(task, success(), **stranger))).outcome

        await store.register(registration(TASK))
        found = [await came(task) for task in (TASK, uuid(1), uuid(2), uuid(3), uuid(1))]
        assert found == ["recorded", "recorded", "recorded", "limited", "duplicate"]
        await store.register(registration(uuid(1)))
        assert await came(uuid(3)) is Outcome.RECORDED
        assert await came(uuid(4)) is Outcome.LIMITED
        await store.give_up(START + GIVE_UP)
        assert await came(uuid(4)) is Outcome.RECORDED

    async def test_a_task_says_whether_anybody_registered_it(self, store: Store) -> None:
        await store.record(arrival(success()))
        await store.register(registration(OTHER))
        assert [(await store.task(task)).registered for task in (TASK, OTHER)] == [False, True]
        for registered, of in ((False, TASK), (True, OTHER)):
            (found,) = (await store.tasks(Query(registered=registered))).data
            assert found.id == of
        await store.register(registration(TASK))
        assert (await store.task(TASK)).registered

    async def test_a_callback_that_brought_nothing_can_be_dropped(self, store: Store) -> None:
        await store.record(arrival(success()))
        for number in range(10):
            await store.record(arrival(body=b"%d{" % number))
        assert (await store.record(arrival(body=b"{"))).outcome is Outcome.LIMITED
        odd, *_, recorded = (await store.callbacks(Query())).data
        await store.delete_callback(odd.id)
        for gone in (odd.id, ids.CALLBACK + ids.encode(1)):
            with pytest.raises(NotFound):
                await store.delete_callback(gone)
        with pytest.raises(Conflict):
            await store.delete_callback(recorded.id)
        assert (await store.record(arrival(body=b"{"))).outcome is Outcome.QUARANTINED

    async def test_the_latest_progress_is_kept_and_no_other(self, store: Store) -> None:
        for percent in (10, 20):
            receipt = await store.record(arrival(processing(progress=percent)))
            assert receipt.outcome is Outcome.PROGRESS
        (callback,) = (await store.callbacks(Query())).data
        assert '"progress": 20' in ((await store.callback(callback.id)).body or "")

    async def test_equal_progress_after_a_result_is_still_kept(self, store: Store) -> None:
        await store.record(arrival(success(), expected=2))
        for _ in range(2):
            await store.record(arrival(processing(progress=10)))
        assert await outcomes(store) == ["recorded", "progress"]

    async def test_of_progress_in_one_batch_the_latest_is_kept(self, store: Store) -> None:
        bodies = [arrival(processing(progress=percent)) for percent in range(20)]
        await asyncio.gather(*map(store.record, bodies))
        (callback,) = (await store.callbacks(Query())).data
        assert '"progress": 19' in ((await store.callback(callback.id)).body or "")

    async def test_expired_bytes_of_an_open_task_are_kept(self, store: Store) -> None:
        await store.register(registration())
        assert (await store.record(arrival(success(), expired=True))).outcome is Outcome.EXPIRED
        assert await outcomes(store) == ["expired"]
        assert (await store.task(TASK)).received == 0

    async def test_expired_bytes_of_a_complete_or_unknown_task_are_not(self, store: Store) -> None:
        assert (await store.record(arrival(success(), expired=True))).outcome is Outcome.EXPIRED
        with pytest.raises(NotFound):
            await store.task(TASK)
        await store.record(arrival(success()))
        await store.record(arrival(failure(), expired=True))
        assert await outcomes(store) == ["recorded"]

    async def test_what_was_issued_before_a_revocation_is_refused(self, store: Store) -> None:
        await store.register(registration())
        await store.revoke_task(TaskChange(TASK, START + 10))
        old = await store.record(arrival(success(), issued_at=START + 10))
        new = await store.record(arrival(success(), issued_at=START + 11))
        assert [old.outcome, new.outcome] == [Outcome.REVOKED, Outcome.RECORDED]
        assert await outcomes(store) == ["recorded"]

    async def test_beyond_the_bound_nothing_more_is_kept(self, store: Store) -> None:
        bodies = [arrival(body=b"%d{" % number) for number in range(12)]
        found = [(await store.record(body)).outcome.value for body in bodies]
        assert found == ["quarantined"] * 10 + ["limited"] * 2
        assert len(await outcomes(store)) == 10
        assert (await store.record(arrival(success()))).outcome is Outcome.RECORDED

    async def test_a_body_that_names_no_task_is_kept_without_one(self, store: Store) -> None:
        orphan = arrival(task_id=None, body=b"[]", unreadable="unknown_shape", jti=None)
        assert (await store.record(orphan)).outcome is Outcome.QUARANTINED
        (callback,) = (await store.callbacks(Query())).data
        assert (callback.task_id, callback.jti) == (None, None)
        assert (await store.callback(callback.id)).body == "[]"

    async def test_a_task_of_a_static_key_is_never_complete_by_count(self, store: Store) -> None:
        for number in range(3):
            await store.record(arrival(success(number), expected=None, jti=None))
        task = await store.task(TASK)
        assert (task.expected, task.received, task.status) == (None, 3, Status.PARTIAL)

    async def test_results_complete_a_task_and_later_ones_revise_it(self, store: Store) -> None:
        await store.record(arrival(success(1), expected=2))
        await store.record(arrival(failure(), expected=2))
        await store.record(arrival(success(3), expected=2))
        task = await store.task(TASK)
        assert (task.status, task.received) == (Status.PARTIALLY_FAILED, 3)
        assert task.completed_at is not None
        assert [result.late for result in await store.results(TASK)] == [False, False, True]
        assert await types(store) == [
            "result.succeeded",
            "result.failed",
            "task.completed",
            "result.succeeded",
            "task.revised",
        ]

    async def test_seeds_beyond_64_bits_and_odd_texts_are_kept(self, store: Store) -> None:
        item = success(seed=2**64 + 1, note="\ud800\x00ä")
        await store.record(arrival(item, failure("\ud800", message="\x00"), expected=3))
        first, second = await store.results(TASK)
        assert (first.seed, first.raw["note"]) == (2**64 + 1, "\ud800\x00ä")
        assert second.error is not None
        await store.record(arrival(success(2)))
        assert [result.seed for result in await store.results(TASK)] == [2**64 + 1, None, 44_372]

    # The ledger

    async def test_a_registered_task_has_what_was_asked(self, store: Store) -> None:
        asked = registration(
            expected=4,
            model="pixverse:1@6",
            tags={"a": "b"},
            metadata={"c": [1]},
            request={"positivePrompt": "a film"},
            platform_id="run-1",
            client_ref="mine",
            traceparent=TRACE,
            project="film",
            deadline_at=START + 1,
            give_up_at=START + 2,
        )
        assert await store.register(asked)
        task = await store.task(TASK)
        shown = task.model_dump(exclude={"created_at", "completed_at", "revision", "cost"})
        assert shown == {
            "id": TASK,
            "platform": "runware",
            "platform_id": "run-1",
            "model": "pixverse:1@6",
            "project": "film",
            "status": Status.PENDING,
            "overdue": False,
            "expected": 4,
            "received": 0,
            "succeeded": 0,
            "failed": 0,
            "tags": {"a": "b"},
            "metadata": {"c": [1]},
            "registered": True,
            "expected_duration_s": None,
            "submit_state": SubmitState.REGISTERED,
            "client_ref": "mine",
            "traceparent": TRACE,
            "deadline_at": to_datetime(START + 1),
            "give_up_at": to_datetime(START + 2),
            "request": {"positivePrompt": "a film"},
        }

    async def test_a_second_registration_has_no_right_to_submit(self, store: Store) -> None:
        assert await store.register(registration())
        assert not await store.register(registration())

    async def test_of_many_registrations_at_once_one_may_submit(self, store: Store) -> None:
        found = await asyncio.gather(*[store.register(registration()) for _ in range(20)])
        assert found.count(True) == 1

    async def test_a_later_registration_fills_what_is_absent(self, store: Store) -> None:
        await store.record(arrival(success(), expected=4, tags={"a": "b"}))
        asked = registration(
            expected=4, model="m", tags={"x": "y"}, metadata={"k": 1}, deadline_at=START + 9
        )
        assert not await store.register(asked)
        task = await store.task(TASK)
        assert (task.model, task.metadata, task.tags) == ("m", {"k": 1}, {"a": "b"})
        assert (task.received, task.deadline_at) == (1, to_datetime(START + 9))
        await store.register(registration(expected=4, model="other", metadata={"z": 1}))
        task = await store.task(TASK)
        assert (task.model, task.metadata) == ("m", {"k": 1})

    async def test_a_registration_that_says_how_many_completes_what_is_all_there(
        self, store: Store
    ) -> None:
        await store.record(arrival(success(), expected=None, jti=None))
        await store.register(registration(expected=1))
        task = await store.task(TASK)
        assert (task.status, task.received) == (Status.SUCCEEDED, 1)
        assert task.completed_at is not None
        assert await types(store) == ["result.succeeded", "task.completed"]

    async def test_a_registration_after_the_callback_matches_endpoints_again(
        self, store: Store
    ) -> None:
        await store.add_endpoint(endpoint(filters={"metadata.team": "a"}))
        await store.add_endpoint(endpoint(filters={"model": "pixverse:*"}))
        await store.record(arrival(success()))
        assert await states(store) == []
        await store.register(registration(model="pixverse:1@6", metadata={"team": "a"}))
        assert await states(store) == ["pending"] * 4

    async def test_a_registration_again_tells_later_endpoints_nothing_old(
        self, store: Store
    ) -> None:
        await store.register(registration())
        await store.record(arrival(success()))
        await store.add_endpoint(endpoint())
        await store.register(registration())
        assert await states(store) == []

    async def test_a_registration_may_write_the_id_in_capitals(self, store: Store) -> None:
        assert await store.register(registration(TASK.upper()))
        assert not await store.register(registration(TASK.upper()))

    async def test_a_signed_callback_says_how_many_results_a_task_owes(self, store: Store) -> None:
        await store.record(arrival(success(1), expected=None, jti=None))
        await store.record(arrival(success(2), expected=2))
        assert (await store.task(TASK)).status is Status.SUCCEEDED

    @pytest.mark.parametrize(
        "change", [{"expected": 3}, {"project": "other"}], ids=["expected", "project"]
    )
    async def test_a_registration_that_contradicts_is_a_conflict(
        self, store: Store, change: dict[str, Any]
    ) -> None:
        await store.register(registration(expected=2))
        before = await store.task(TASK)
        with pytest.raises(Conflict):
            await store.register(registration(**{"expected": 2, **change}))
        assert await store.task(TASK) == before

    async def test_the_right_to_submit_is_leased_to_one_at_a_time(self, store: Store) -> None:
        await store.register(registration())
        ask = TaskChange(TASK, START + 119 * SECOND, SubmitState.REGISTERED)
        with pytest.raises(Conflict) as caught:
            await store.change_task(ask)
        assert caught.value.evidence["lease_until"] == START + 120 * SECOND
        await store.change_task(TaskChange(TASK, START + 120 * SECOND, SubmitState.REGISTERED))
        with pytest.raises(Conflict):
            await store.change_task(TaskChange(TASK, START + 121 * SECOND, SubmitState.REGISTERED))

    @pytest.mark.parametrize("state", [SubmitState.SUBMITTED, SubmitState.REJECTED])
    async def test_a_task_that_was_submitted_is_not_submitted_again(
        self, store: Store, state: SubmitState
    ) -> None:
        await store.register(registration())
        await store.change_task(TaskChange(TASK, START, state, "run-1"))
        with pytest.raises(Conflict) as caught:
            await store.change_task(TaskChange(TASK, START + 10**9, SubmitState.REGISTERED))
        assert caught.value.evidence["submit_state"] == state
        task = await store.task(TASK)
        assert (task.submit_state, task.platform_id) == (state, "run-1")

    async def test_an_unknown_submit_may_be_tried_again_after_its_lease(self, store: Store) -> None:
        await store.register(registration())
        await store.change_task(TaskChange(TASK, START, SubmitState.UNKNOWN))
        await store.change_task(TaskChange(TASK, START + 120 * SECOND, SubmitState.REGISTERED))
        assert (await store.task(TASK)).submit_state is SubmitState.REGISTERED

    async def test_one_caller_alone_can_say_that_it_is_about_to_send(self, store: Store) -> None:
        registered, unknown = SubmitState.REGISTERED, SubmitState.UNKNOWN
        await store.register(registration())
        about_to_send = TaskChange(TASK, START, unknown, was=registered, lease=True)
        await store.change_task(about_to_send)
        # Neither the same again, nor who looks for it, nor who would send it anew.
        for change in (
            about_to_send,
            TaskChange(TASK, START + 119 * SECOND, unknown, was=unknown, lease=True),
            TaskChange(TASK, START + 119 * SECOND, registered),
        ):
            with pytest.raises(Conflict):
                await store.change_task(change)
        await store.change_task(TaskChange(TASK, START, unknown))  # it timed out
        look = TaskChange(TASK, START, unknown, was=unknown, lease=True)
        await store.change_task(look)
        with pytest.raises(Conflict):
            await store.change_task(look)
        assert (await store.task(TASK)).submit_state is unknown

    async def test_who_knows_that_nothing_arrived_puts_the_task_back(self, store: Store) -> None:
        registered, unknown = SubmitState.REGISTERED, SubmitState.UNKNOWN
        await store.register(registration())
        back = TaskChange(TASK, START, registered, was=unknown, lease=False)
        with pytest.raises(Conflict):
            await store.change_task(back)
        about_to_send = TaskChange(TASK, START, unknown, was=registered, lease=True)
        await store.change_task(about_to_send)
        await store.change_task(back)
        assert (await store.task(TASK)).submit_state is registered
        await store.change_task(about_to_send)

    @pytest.mark.parametrize("state", [SubmitState.SUBMITTED, SubmitState.REJECTED])
    async def test_a_task_that_was_answered_is_never_put_back(
        self, store: Store, state: SubmitState
    ) -> None:
        await store.register(registration())
        await store.change_task(TaskChange(TASK, START, state))
        await store.change_task(TaskChange(TASK, START, SubmitState.REGISTERED, lease=False))
        assert (await store.task(TASK)).submit_state is state

    async def test_a_callback_knows_better_than_a_submit_that_timed_out(self, store: Store) -> None:
        await store.register(registration(expected=2))
        await store.record(arrival(success(), expected=2))
        assert (await store.task(TASK)).submit_state is SubmitState.SUBMITTED
        await store.change_task(TaskChange(TASK, START, SubmitState.UNKNOWN))
        assert (await store.task(TASK)).submit_state is SubmitState.SUBMITTED

    async def test_a_rejected_submit_ends_the_task(self, store: Store) -> None:
        await store.register(registration(expected=4))
        await store.record(arrival(failure("invalidDuration"), source=Source.SUBMIT))
        task = await store.task(TASK)
        assert (task.status, task.submit_state) == (Status.FAILED, SubmitState.REJECTED)
        assert await types(store) == ["result.failed", "task.completed"]

    async def test_each_change_of_a_task_has_a_new_revision(self, store: Store) -> None:
        seen = []

        async def note() -> None:
            seen.append((await store.task(TASK)).revision)

        await store.register(registration(expected=2))
        await note()
        await store.change_task(TaskChange(TASK, START, SubmitState.SUBMITTED))
        await note()
        await store.record(arrival(success(), expected=2))
        await note()
        await store.revoke_task(TaskChange(TASK, START))
        await note()
        await store.register(registration(expected=2, model="m"))
        await note()
        assert seen == sorted(set(seen))

    async def test_a_deleted_task_takes_its_results_and_callbacks_along(self, store: Store) -> None:
        added = await store.add_endpoint(endpoint())
        await store.record(arrival(success()))
        await store.delete_task(TaskChange(TASK, START))
        for gone in (store.task, store.results):
            with pytest.raises(NotFound):
                await gone(TASK)
        assert await outcomes(store) == []
        assert await types(store) == ["result.succeeded", "task.completed"]
        deliveries = (await store.deliveries(Query(endpoint=added.id))).data
        assert [delivery.task_id for delivery in deliveries] == [None, None]
        assert len(await claim(store)) == 2

    async def test_what_does_not_exist_is_not_found(self, store: Store) -> None:
        change = TaskChange(ABSENT, START, SubmitState.SUBMITTED)
        missing: list[Awaitable[Any]] = [
            store.task(ABSENT),
            store.results(ABSENT),
            store.change_task(change),
            store.revoke_task(change),
            store.delete_task(change),
            store.callback(ids.CALLBACK + ids.encode(1)),
            store.event(ids.EVENT + ids.encode(1)),
            store.delivery(ids.delivery_id(1, 1)),
            store.retry(ids.delivery_id(1, 1), START),
            store.cancel(ids.delivery_id(1, 1), START),
            store.endpoint(ids.ENDPOINT + ids.encode(1)),
            store.change_endpoint(EndpointChange(ids.ENDPOINT + ids.encode(1), EndpointPatch())),
            store.set_endpoint_state(ids.ENDPOINT + ids.encode(1), EndpointState.PAUSED, None),
            store.delete_endpoint(ids.ENDPOINT + ids.encode(1), START),
        ]
        for found in await asyncio.gather(*missing, return_exceptions=True):
            assert isinstance(found, NotFound)

    @pytest.mark.parametrize("odd", ["", "x", "../..", "\x00", "😀", "1" * 10_000, "24cd5dff"])
    async def test_an_odd_id_is_not_found(self, store: Store, odd: str) -> None:
        for verb in (store.task, store.callback, store.event, store.delivery, store.endpoint):
            with pytest.raises(NotFound):
                await verb(odd)
        with pytest.raises(NotFound):
            await store.register(registration(odd))

    async def test_a_ttl_of_the_request_says_until_when_media_are_there(self, store: Store) -> None:
        await store.register(registration(expected=2, request={"ttl": 3_600}))
        came = START + 600 * SECOND
        await store.record(arrival(success(1), received_at=came))
        await store.record(arrival(success(2), source=Source.POLL, received_at=came))
        first, second = [result.media[0].expires_at for result in await store.results(TASK)]
        assert (first, second) == (to_datetime(came + 3_540 * SECOND), to_datetime(START + HOUR))
        (completed,) = (await store.events(Query(event_type="task.completed"))).data
        payload = (await store.event(completed.id)).payload
        told = [result["media"][0]["expires_at"] for result in payload["data"]["results"]]
        assert told == [to_rfc3339(came + 3_540 * SECOND), to_rfc3339(START + HOUR)]

    async def test_a_ttl_that_comes_after_the_callback_dates_what_is_there(
        self, store: Store
    ) -> None:
        await store.record(arrival(success(1), expected=None, jti=None))
        await store.record(arrival(success(2), processing(), expected=None, source=Source.POLL))
        assert [one.media[0].expires_at for one in await store.results(TASK)] == [None, None]
        await store.register(registration(expected=2, now=START + 5, request={"ttl": 3_600}))
        # What a poll found may be older than anything that we know of.
        found = [one.media[0].expires_at for one in await store.results(TASK)]
        assert found == [to_datetime(START + HOUR - 60 * SECOND), None]
        *before, completed = reversed((await store.events(Query())).data)
        told = [(await store.event(one.id)).payload["data"] for one in (*before, completed)]
        assert told[0]["result"]["media"][0]["expires_at"] is None
        assert told[2]["results"][0]["media"][0]["expires_at"] == to_rfc3339(
            START + HOUR - 60 * SECOND
        )
        await store.register(registration(expected=2, request={"ttl": 60}))
        assert [one.media[0].expires_at for one in await store.results(TASK)] == found

    async def test_a_deadline_that_nobody_named_follows_from_what_the_last_ones_took(
        self, store: Store
    ) -> None:
        async def deadline(number: int, **asked: Any) -> tuple[Any, Any]:
            now = START + number * SECOND
            await store.register(registration(uuid(number), now=now, **{"model": "m", **asked}))
            task = await store.task(uuid(number))
            assert task.deadline_at is not None
            return task.deadline_at - task.created_at, task.expected_duration_s

        for number in range(FEWEST):
            assert await deadline(number) == (timedelta(minutes=15), None)
            came = START + number * SECOND + (90 + number) * SECOND
            await store.record(arrival_of(uuid(number), success(number), received_at=came))
        assert await deadline(10) == (timedelta(seconds=188), 92.0)
        assert await deadline(11, model="n") == (timedelta(minutes=15), None)
        assert await deadline(12, model=None) == (timedelta(minutes=15), None)
        assert await deadline(13, platform="nanogpt") == (timedelta(minutes=15), None)
        # How long another project's took, nobody is told.
        assert await deadline(14, project="film") == (timedelta(minutes=15), None)
        named = START + 15 * SECOND + 7
        assert (await deadline(15, deadline_at=named))[0] == timedelta(milliseconds=7)
        short = {"give_up_at": START + 116 * SECOND}
        assert await deadline(16, **short) == (timedelta(seconds=100), 92.0)

    async def test_the_latest_of_a_model_say_what_is_expected(self, store: Store) -> None:
        for number in range(2 * SAMPLES):
            await store.register(registration(uuid(number), model="m"))
            came = START + (20 if number >= SAMPLES else 2_000) * SECOND
            await store.record(arrival_of(uuid(number), success(number), received_at=came))
        await store.register(registration(uuid(999), model="m"))
        task = await store.task(uuid(999))
        assert (task.deadline_at, task.expected_duration_s) == (
            to_datetime(START + 60 * SECOND),
            20.0,
        )

    async def test_tasks_that_a_callback_created_teach_nothing(self, store: Store) -> None:
        for number in range(FEWEST):
            await store.record(arrival_of(uuid(number), success(number), expected=2))
            await store.register(registration(uuid(number), model="m", expected=2))
            await store.record(arrival_of(uuid(number), success(99), received_at=START + SECOND))
        await store.register(registration(uuid(10), model="m"))
        assert (await store.task(uuid(10))).deadline_at == to_datetime(START + DEADLINE)

    async def test_a_deadline_is_named_once(self, store: Store) -> None:
        for first, later in (({}, {"deadline_at": START + 9}), ({"deadline_at": START + 9}, {})):
            task = uuid(len(first))
            for asked in (first, later, {"deadline_at": START + 99}, {}):
                await store.register(registration(task, **asked))
            assert (await store.task(task)).deadline_at == to_datetime(START + 9)
        # Also one that is, by chance, what nobody would have named.
        for deadline in (START + DEADLINE, START + 9):
            await store.register(registration(OTHER, deadline_at=deadline))
        assert (await store.task(OTHER)).deadline_at == to_datetime(START + DEADLINE)

    async def test_a_deadline_that_was_learned_can_still_be_named(self, store: Store) -> None:
        for number in range(FEWEST):
            await store.register(registration(uuid(number), model="m"))
            await store.record(arrival_of(uuid(number), success(number)))
        await store.register(registration(model="m"))
        assert (await store.task(TASK)).deadline_at == to_datetime(START + 60 * SECOND)
        await store.register(registration(model="m"))
        assert (await store.task(TASK)).deadline_at == to_datetime(START + 60 * SECOND)
        await store.register(registration(model="m", deadline_at=START + 9))
        assert (await store.task(TASK)).deadline_at == to_datetime(START + 9)

    async def test_overdue_tasks_are_flagged_and_told_once(self, store: Store) -> None:
        await store.register(registration(deadline_at=START + 10))
        await store.register(registration(OTHER, deadline_at=START + 11))
        assert await store.note_overdue(START + 9) == 0
        assert await store.note_overdue(START + 10) == 1
        assert await store.note_overdue(START + 10) == 0
        assert (await store.task(TASK)).overdue
        assert await types(store) == ["task.overdue"]
        assert [task.id for task in (await store.tasks(Query(overdue=True))).data] == [TASK]
        assert [task.id for task in (await store.tasks(Query(overdue=False))).data] == [OTHER]

    async def test_a_complete_task_is_never_overdue(self, store: Store) -> None:
        await store.register(registration(deadline_at=START))
        await store.record(arrival(success()))
        assert await store.note_overdue(START + 10) == 0

    async def test_a_hopeless_task_is_given_up_and_a_late_result_revises_it(
        self, store: Store
    ) -> None:
        await store.register(registration(expected=2, give_up_at=START + 10))
        await store.record(arrival(success(1)))
        assert await store.give_up(START + 9) == 0
        assert await store.give_up(START + 10) == 1
        assert await store.give_up(START + 10) == 0
        task = await store.task(TASK)
        assert (task.status, task.succeeded, task.failed) == (Status.PARTIALLY_FAILED, 1, 1)
        last = (await store.results(TASK))[-1]
        assert last.error is not None
        assert (last.error.code, last.source) == ("deadlineExceeded", Source.DEADLINE)
        await store.record(arrival(success(2)))
        task = await store.task(TASK)
        assert (task.status, task.succeeded, task.failed) == (Status.SUCCEEDED, 2, 0)
        assert [result.superseded for result in await store.results(TASK)] == [False, True, False]
        assert (await types(store))[-2:] == ["result.succeeded", "task.revised"]

    # Reconcile

    async def test_a_due_task_is_leased_to_one_of_two(self, store: Store) -> None:
        await overdue(store)
        both = await asyncio.gather(claim_tasks(store), claim_tasks(store))
        assert sorted(both) == [[], [TASK]]
        assert await claim_tasks(store, START + 60 * SECOND - 1) == []
        assert await claim_tasks(store, START + 60 * SECOND) == [TASK]

    async def test_what_is_not_due_is_not_claimed(self, store: Store) -> None:
        await store.register(registration(deadline_at=START))
        assert await claim_tasks(store) == []
        await store.note_overdue(START)
        assert await claim_tasks(store, START - 1) == []
        assert await claim_tasks(store, platforms=["other"]) == []
        assert await claim_tasks(store, project="other") == []
        assert await claim_tasks(store, project="default") == [TASK]

    async def test_a_deadline_makes_a_task_due_whatever_its_backoff(self, store: Store) -> None:
        await store.register(registration(expected=2, deadline_at=START + 20 * SECOND))
        now = START + 10 * SECOND
        for _ in range(3):  # its backoff is a minute by now
            await store.record(arrival(body=b"{", expected=2, received_at=now))
            assert await claim_tasks(store, now) == [TASK]
            await store.record(arrival(processing(), expected=2, source=Source.POLL))
        later = START + 20 * SECOND
        assert await claim_tasks(store, later) == []
        await store.note_overdue(later)
        assert await claim_tasks(store, later) == [TASK]

    async def test_those_that_are_due_for_longest_come_first(self, store: Store) -> None:
        for number in (3, 1, 2):
            await overdue(store, uuid(number), now=START + number)
        assert await claim_tasks(store, START + 9, limit=2) == [uuid(1), uuid(2)]
        assert await claim_tasks(store, START + 9, limit=2) == [uuid(3)]

    async def test_who_drains_does_not_meet_its_first_tasks_again(self, store: Store) -> None:
        await overdue(store)
        assert await claim_tasks(store, START, due_by=START) == [TASK]
        await store.record(arrival(processing(), source=Source.POLL))
        assert await claim_tasks(store, START + DAY, due_by=START) == []
        assert await claim_tasks(store, START + DAY, due_by=START + 2 * DAY) == [TASK]

    async def test_what_nobody_polled_is_due_again_at_once(self, store: Store) -> None:
        await overdue(store)
        assert await claim_tasks(store, START) == [TASK]
        assert await release_tasks(store, now=START + 1) == 1
        assert await claim_tasks(store, START + 1) == [TASK]
        # As if it had been claimed once: the first pause follows.
        assert await release_tasks(store, now=START + 2, claimed=START + 1, polled=True) == 1
        assert await claim_tasks(store, START + 1 + BACKOFF[0] - 1) == []
        assert await claim_tasks(store, START + 1 + BACKOFF[0]) == [TASK]

    async def test_a_lease_of_another_is_not_handed_back(self, store: Store) -> None:
        await overdue(store)
        assert await claim_tasks(store) == [TASK]
        later = START + 60 * SECOND
        assert await claim_tasks(store, later) == [TASK]
        assert await release_tasks(store, now=later, claimed=START) == 0
        assert await release_tasks(store, now=later, claimed=later, project="other") == 0
        assert await claim_tasks(store, later + 59 * SECOND) == []
        assert await release_tasks(store, now=later, claimed=later, ids=[TASK, ABSENT]) == 1

    @pytest.mark.parametrize("found", [processing(), {"what": "ever"}])
    async def test_a_poll_ends_its_lease_and_the_next_follows_the_backoff(
        self, store: Store, found: dict[str, Any]
    ) -> None:
        await overdue(store)
        now = START
        for pause in (*BACKOFF, BACKOFF[-1]):
            assert await claim_tasks(store, now) == [TASK]
            await store.record(arrival(found, source=Source.POLL))
            assert await claim_tasks(store, now + pause - 1) == []
            now += pause

    async def test_a_poll_that_completes_a_task_is_the_last(self, store: Store) -> None:
        await overdue(store)
        assert await claim_tasks(store) == [TASK]
        receipt = await store.record(arrival(success(), source=Source.POLL))
        assert receipt.outcome is Outcome.RECORDED
        assert (await store.results(TASK))[0].source is Source.POLL
        assert await claim_tasks(store, START + DAY) == []
        again = await store.record(arrival(success()))
        assert again.outcome is Outcome.DUPLICATE
        assert (await types(store)).count("task.completed") == 1

    async def test_a_callback_that_completes_a_due_task_ends_the_polling(
        self, store: Store
    ) -> None:
        await overdue(store)
        await store.record(arrival(success()))
        assert await claim_tasks(store, START + DAY) == []

    async def test_giving_up_ends_the_polling(self, store: Store) -> None:
        await overdue(store, give_up_at=START + 1)
        await store.give_up(START + 1)
        assert await claim_tasks(store, START + DAY) == []

    @pytest.mark.parametrize(
        "odd",
        [
            {"found": [failure()]},
            {"body": b"not json"},
            {"found": [success()], "expired": True},
            {"found": [success(), {"taskUUID": TASK}]},
            {"found": [success()], "foreign": 1},
        ],
        ids=["failure", "unreadable", "expired", "unknown-part", "foreign-part"],
    )
    async def test_an_odd_callback_makes_an_open_task_due(
        self, store: Store, odd: dict[str, Any]
    ) -> None:
        await store.register(registration(expected=2))
        asked = {"expected": 2, **odd}
        await store.record(arrival(*asked.pop("found", []), **asked))
        assert await claim_tasks(store) == [TASK]

    @pytest.mark.parametrize("odd", [{"found": [failure()]}, {"body": b"not json"}])
    async def test_an_odd_callback_of_a_complete_task_is_no_reason(
        self, store: Store, odd: dict[str, Any]
    ) -> None:
        await store.register(registration())
        await store.record(arrival(success()))
        await store.record(arrival(*odd.pop("found", []), **odd))
        assert await claim_tasks(store) == []

    async def test_a_task_is_due_by_hand_whatever_its_backoff(self, store: Store) -> None:
        await store.register(registration())
        for _ in range(3):
            await store.reconcile_task(TaskChange(TASK, START))
            assert await claim_tasks(store) == [TASK]

    async def test_a_complete_task_is_polled_by_hand_until_an_answer(self, store: Store) -> None:
        await store.record(arrival(success()))
        await store.reconcile_task(TaskChange(TASK, START))
        assert await claim_tasks(store) == [TASK]
        await store.record(arrival(success(), source=Source.POLL))
        assert await claim_tasks(store, START + DAY) == []

    async def test_a_complete_task_that_nobody_knows_is_left_alone_in_the_end(
        self, store: Store
    ) -> None:
        await store.record(arrival(success()))
        await store.reconcile_task(TaskChange(TASK, START))
        polls = 0
        while await claim_tasks(store, START + polls * DAY):
            polls += 1
        assert polls == len(BACKOFF) + 1

    async def test_a_rejected_task_is_never_polled(self, store: Store) -> None:
        await overdue(store)
        change = TaskChange(TASK, START, submit_state=SubmitState.REJECTED)
        await store.change_task(change)
        assert await claim_tasks(store, START + DAY) == []
        with pytest.raises(Conflict):
            await store.reconcile_task(TaskChange(TASK, START))
        with pytest.raises(NotFound):
            await store.reconcile_task(TaskChange(ABSENT, START))

    async def test_a_task_that_a_callback_created_becomes_overdue_too(self, store: Store) -> None:
        await store.record(arrival(success(), expected=2))
        task = await store.task(TASK)
        assert task.deadline_at == to_datetime(START + DEADLINE)
        assert task.give_up_at == to_datetime(START + GIVE_UP)
        assert await store.note_overdue(START + DEADLINE) == 1
        assert await claim_tasks(store, START + DEADLINE) == [TASK]
        assert await store.give_up(START + GIVE_UP) == 1

    async def test_a_put_that_names_a_deadline_replaces_the_default(self, store: Store) -> None:
        await store.record(arrival(success(), expected=2))
        await store.register(registration(expected=2, now=START + 1))
        assert (await store.task(TASK)).deadline_at == to_datetime(START + DEADLINE)
        named: dict[str, Any] = {"deadline_at": START + 5, "give_up_at": START + 6}
        await store.register(registration(expected=2, now=START + 2, **named))
        other: dict[str, Any] = {"deadline_at": START + 7, "give_up_at": START + 8}
        await store.register(registration(expected=2, now=START + 3, **other))
        task = await store.task(TASK)
        assert task.deadline_at == to_datetime(START + 5)
        assert task.give_up_at == to_datetime(START + 6)

    # Events and endpoints

    async def test_events_are_numbered_in_the_order_of_their_commits(self, store: Store) -> None:
        for number in range(3):
            await store.record(arrival_of(uuid(number), success(number)))
        events = list(reversed((await store.events(Query())).data))
        assert [event.seq for event in events] == list(range(1, 7))
        assert [event.task_id for event in events] == [uuid(n // 2) for n in range(6)]
        assert [event.type for event in events] == ["result.succeeded", "task.completed"] * 3

    async def test_an_event_shows_the_payload_that_is_sent(self, store: Store) -> None:
        await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.record(arrival(success()))
        (claimed,) = await claim(store)
        event = await store.event(ids.EVENT + ids.encode(claimed.event_id))
        assert event.payload == json.loads(claimed.payload)
        assert event.payload["data"]["task"]["id"] == TASK
        (listed, *_) = (await store.events(Query(event_type="result.succeeded"))).data
        assert (listed.id, listed.payload) == (event.id, None)

    async def test_an_event_goes_to_the_endpoints_that_want_it(self, store: Store) -> None:
        wanted = {
            "all": endpoint(),
            "results": endpoint(event_types=["result.*"]),
            "team": endpoint(filters={"tags.team": ["a*", "b"], "platform": "runware"}),
            "other-team": endpoint(filters={"tags.team": "b"}),
            "other-project": endpoint("film"),
        }
        names = {(await store.add_endpoint(new)).id: name for name, new in wanted.items()}
        await store.record(arrival(success(), tags={"team": "alpha"}))
        deliveries = (await store.deliveries(Query())).data
        reached = sorted((names[found.endpoint_id], found.event_type) for found in deliveries)
        assert reached == [
            ("all", "result.succeeded"),
            ("all", "task.completed"),
            ("results", "result.succeeded"),
            ("team", "result.succeeded"),
            ("team", "task.completed"),
        ]

    async def test_an_endpoint_hears_of_what_happens_after_it_was_added(self, store: Store) -> None:
        await store.record(arrival(success(1), expected=2))
        await store.add_endpoint(endpoint())
        assert await states(store) == []
        await store.record(arrival(success(2), expected=2))
        assert await states(store) == ["pending", "pending"]

    async def test_an_endpoint_is_shown_without_its_secret(self, store: Store) -> None:
        added = await store.add_endpoint(endpoint(secret="whsec_hidden", description="d"))
        for shown in (
            added,
            await store.endpoint(added.id),
            *(await store.endpoints(Query())).data,
            await store.change_endpoint(EndpointChange(added.id, EndpointPatch(description="e"))),
            await store.set_endpoint_state(added.id, EndpointState.PAUSED, "by hand"),
        ):
            assert "whsec_hidden" not in shown.model_dump_json()
            assert shown.secret is None

    async def test_a_patch_changes_what_it_names_from_the_next_attempt(self, store: Store) -> None:
        added = await queued(store, 2, headers={"X-A": "1"}, schedule=[1, 2], concurrency=1)
        (first,) = await claim(store)
        assert (first.url, first.headers) == ("https://example.com/hook", {"X-A": "1"})
        assert (first.schedule, first.secrets) == ((1, 2), ("whsec_x",))
        patch = EndpointPatch(url="https://new.example", schedule=None, headers={})
        changed = await store.change_endpoint(EndpointChange(added.id, patch))
        assert changed.model_dump(include={"url", "schedule", "headers", "concurrency"}) == {
            "url": "https://new.example",
            "schedule": None,
            "headers": {},
            "concurrency": 1,
        }
        await store.settle(settled(first))
        (second,) = await claim(store)
        assert (second.url, second.headers, second.schedule) == ("https://new.example", {}, None)

    @pytest.mark.parametrize("state", [EndpointState.PAUSED, EndpointState.DISABLED])
    async def test_the_queue_of_an_endpoint_that_is_not_enabled_is_held(
        self, store: Store, state: EndpointState
    ) -> None:
        added = await queued(store)
        shown = await store.set_endpoint_state(added.id, state, "why")
        assert (shown.state, shown.reason) == (state, "why")
        assert await store.next_due() is None
        assert list(await claim(store)) == []
        await store.record(arrival(success()))
        assert await states(store) == ["pending", "pending"]
        await store.set_endpoint_state(added.id, EndpointState.ENABLED, None)
        assert len(await claim(store)) == 2

    async def test_a_deleted_endpoint_takes_its_queue_along(self, store: Store) -> None:
        added = await queued(store, 2)
        (first, _) = await claim(store)
        await store.settle(settled(first))
        await store.delete_endpoint(added.id, START + 5)
        await store.record(arrival(success()))
        with pytest.raises(NotFound):
            await store.endpoint(added.id)
        assert (await store.endpoints(Query())).data == []
        assert sorted(await states(store)) == ["sending", "succeeded"]
        with pytest.raises(Conflict):
            await store.retry(ids.delivery_id(first.event_id, first.endpoint_id), START)

    async def test_deleting_cancels_what_waits(self, store: Store) -> None:
        added = await queued(store, 2)
        await store.delete_endpoint(added.id, START + 5)
        assert await states(store) == ["canceled", "canceled"]
        found = (await store.deliveries(Query())).data
        assert {delivery.settled_at for delivery in found} == {to_datetime(START + 5)}

    async def test_an_attempt_under_way_while_its_endpoint_is_deleted_does_not_come_back(
        self, store: Store
    ) -> None:
        added = await queued(store)
        (claimed,) = await claim(store)
        await store.delete_endpoint(added.id, START)
        await store.settle(settled(claimed, State.PENDING, next_attempt_at=START))
        assert await states(store) == ["canceled"]
        assert await store.next_due() is None

    async def test_a_canceled_delivery_was_settled_when_it_was_canceled(self, store: Store) -> None:
        added = await queued(store)
        (claimed,) = await claim(store, START + 50)
        await store.delete_endpoint(added.id, START + 60)
        await store.settle(settled(claimed, State.PENDING, now=START + 70, next_attempt_at=START))
        (delivery,) = (await store.deliveries(Query())).data
        assert delivery.settled_at == to_datetime(START + 70)

    async def test_a_lease_that_lapses_after_its_endpoint_was_deleted_is_canceled(
        self, store: Store
    ) -> None:
        added = await queued(store)
        await claim(store)
        await store.delete_endpoint(added.id, START)
        await store.release_lapsed(START + LEASE)
        assert await states(store) == ["canceled"]

    # The queue

    async def test_a_claimed_delivery_is_sent_once(self, store: Store) -> None:
        await queued(store)
        assert await store.next_due() == START
        (claimed,) = await claim(store)
        assert (claimed.attempt, claimed.round_attempt) == (1, 1)
        assert list(await claim(store)) == []
        assert await store.next_due() is None
        assert await states(store) == ["sending"]

    async def test_claims_at_once_never_share_a_delivery(self, store: Store) -> None:
        await queued(store, 30, concurrency=100)
        found = await asyncio.gather(*[claim(store, limit=4) for _ in range(10)])
        claims = [claimed.event_id for batch in found for claimed in batch]
        assert len(claims) == len(set(claims)) == 30

    async def test_a_claim_names_the_task_and_its_first_trace(self, store: Store) -> None:
        await store.add_endpoint(endpoint(event_types=["result.*", "endpoint.test"]))
        await store.record(arrival(success(1), expected=2))
        await store.register(registration(expected=2, traceparent=TRACE))
        await store.register(registration(expected=2, traceparent=TRACE.replace("4", "5")))
        await store.record(arrival_of(uuid(7), success(2), expected=2))
        (added,) = (await store.endpoints(Query())).data
        await store.test_endpoint(added.id, START)
        found = [(claimed.task, claimed.traceparent) for claimed in await claim(store)]
        assert sorted(found, key=str) == sorted(
            [(TASK, TRACE), (uuid(7), None), (None, None)], key=str
        )
        assert (await store.task(TASK)).traceparent == TRACE

    async def test_nothing_is_claimed_before_its_time(self, store: Store) -> None:
        await queued(store)
        (claimed,) = await claim(store)
        await store.settle(settled(claimed, State.PENDING, next_attempt_at=START + 5_000))
        assert await store.next_due() == START + 5_000
        assert list(await claim(store, START + 4_999)) == []
        (again,) = await claim(store, START + 5_000)
        assert (again.attempt, again.round_attempt) == (2, 2)

    async def test_an_endpoint_gets_no_more_at_once_than_it_likes(self, store: Store) -> None:
        await queued(store, 5, concurrency=2)
        first, second = await claim(store)
        assert list(await claim(store)) == []
        await store.settle(settled(first))
        assert len(await claim(store)) == 1
        await store.settle(settled(second))
        assert len(await claim(store)) == 1

    async def test_an_endpoint_gets_no_more_a_second_than_it_likes(self, store: Store) -> None:
        await queued(store, 20, rate_limit=2.0, concurrency=100)
        taken = [len(await claim(store, START + ms)) for ms in (0, 0, 499, 500, 1_000, 60_000)]
        assert taken == [1, 0, 0, 1, 1, 2]

    async def test_a_rate_below_one_a_second_is_kept_too(self, store: Store) -> None:
        await queued(store, 3, rate_limit=0.1)
        taken = [len(await claim(store, START + s * SECOND)) for s in (0, 9, 10, 11, 20)]
        assert taken == [1, 0, 1, 0, 1]

    async def test_a_scarce_limit_is_shared_by_all_endpoints(self, store: Store) -> None:
        added = [await queued(store, 6, concurrency=100) for _ in range(3)]
        served: dict[int, int] = {}
        for _ in range(3):
            for claimed in await claim(store, limit=1):
                served[claimed.endpoint_id] = served.get(claimed.endpoint_id, 0) + 1
        assert served == {ids.parse(ids.ENDPOINT, one.id): 1 for one in added}

    async def test_an_endpoint_that_never_answers_is_in_nobodys_way(self, store: Store) -> None:
        stuck = await queued(store, 40, concurrency=5)
        quick = await queued(store, 3)
        claims = await claim(store, limit=10)
        owners = [claimed.endpoint_id for claimed in claims]
        assert owners.count(ids.parse(ids.ENDPOINT, stuck.id)) == 5
        assert owners.count(ids.parse(ids.ENDPOINT, quick.id)) == 3

    async def test_the_oldest_due_delivery_goes_first(self, store: Store) -> None:
        await queued(store, 3, concurrency=1)
        order = []
        for _ in range(3):
            (claimed,) = await claim(store)
            order.append(claimed.event_id)
            await store.settle(settled(claimed))
        assert order == sorted(order)

    async def test_a_success_is_kept_with_its_attempt(self, store: Store) -> None:
        await queued(store)
        (claimed,) = await claim(store)
        seen = sent(200, body=b"o\xffk" * 5_000)
        await store.settle(settled(claimed, outcome=seen, now=START + 7))
        (listed,) = (await store.deliveries(Query())).data
        delivery = await store.delivery(listed.id)
        assert (delivery.state, delivery.attempts, delivery.last_error) == ("succeeded", 1, None)
        moment = to_datetime(START + 7)
        assert (delivery.first_succeeded_at, delivery.settled_at) == (moment, moment)
        assert delivery.next_attempt_at is None
        (attempt,) = await log_of(store, listed.id)
        assert (attempt.number, attempt.status, attempt.error) == (1, 200, None)
        assert attempt.response_body.startswith("o\ufffdko")
        assert (len(attempt.response_body), attempt.response_truncated) == (4_096, True)
        assert listed.attempt_log is None

    async def test_a_failure_says_why_and_when_it_is_tried_again(self, store: Store) -> None:
        await queued(store)
        (claimed,) = await claim(store)
        await store.settle(settled(claimed, State.PENDING, next_attempt_at=START + 5))
        (delivery,) = (await store.deliveries(Query())).data
        assert (delivery.state, delivery.last_error) == ("pending", "status")
        assert (delivery.next_attempt_at, delivery.settled_at) == (to_datetime(START + 5), None)

    async def test_the_last_failure_makes_a_dead_letter(self, store: Store) -> None:
        await queued(store)
        (claimed,) = await claim(store)
        await store.settle(settled(claimed, State.DEAD))
        assert await states(store, state=State.DEAD) == ["dead"]
        assert await store.next_due() is None

    async def test_a_lease_that_runs_out_returns_its_delivery(self, store: Store) -> None:
        await queued(store)
        await claim(store)
        assert await store.release_lapsed(START + LEASE - 1) == 0
        assert await store.release_lapsed(START + LEASE) == 1
        (again,) = await claim(store, START + LEASE)
        assert again.attempt == 2
        (listed,) = (await store.deliveries(Query())).data
        (lost,) = await log_of(store, listed.id)
        assert (lost.number, lost.error) == (1, "lease_lapsed")

    async def test_stale_news_is_kept_as_an_attempt_and_moves_nothing(self, store: Store) -> None:
        await queued(store)
        (stale,) = await claim(store)
        await store.release_lapsed(START + LEASE)
        (current,) = await claim(store, START + LEASE)
        await store.settle(settled(stale, State.DEAD))
        await store.settle(settled(stale, outcome=sent(200)))
        (listed,) = (await store.deliveries(Query())).data
        assert (listed.state, listed.attempts) == ("sending", 2)
        await store.settle(settled(current, State.DEAD))
        log = await log_of(store, listed.id)
        assert [(one.number, one.status) for one in log] == [(1, 200), (2, 500)]

    async def test_a_delivery_is_not_sent_again_after_a_2xx_that_came_late(
        self, store: Store
    ) -> None:
        await queued(store)
        (claimed,) = await claim(store)
        await store.release_lapsed(START + LEASE)
        await store.settle(settled(claimed))
        assert list(await claim(store, START + LEASE)) == []

    async def test_a_410_disables_the_endpoint_and_holds_its_queue(self, store: Store) -> None:
        added = await queued(store, 2, concurrency=1)
        (claimed,) = await claim(store)
        gone = settled(claimed, State.PENDING, next_attempt_at=START + 5, disable="gone")
        await store.settle(gone)
        shown = await store.endpoint(added.id)
        assert (shown.state, shown.reason) == (EndpointState.DISABLED, "gone")
        assert await states(store) == ["pending", "pending"]
        assert list(await claim(store, START + 10**6)) == []
        await store.set_endpoint_state(added.id, EndpointState.ENABLED, None)
        assert len(await claim(store, START + 10**6)) == 1

    async def test_a_410_from_an_endpoint_that_was_deleted_disables_nothing(
        self, store: Store
    ) -> None:
        added = await queued(store)
        (claimed,) = await claim(store)
        await store.delete_endpoint(added.id, START)
        await store.settle(settled(claimed, State.DEAD, disable="gone"))
        assert await states(store) == ["dead"]

    async def test_a_retry_by_hand_begins_the_schedule_anew(self, store: Store) -> None:
        await queued(store)
        (first,) = await claim(store)
        await store.settle(settled(first))
        delivery = ids.delivery_id(first.event_id, first.endpoint_id)
        await store.retry(delivery, START + 9)
        shown = await store.delivery(delivery)
        assert (shown.state, shown.attempts, shown.settled_at) == ("pending", 1, None)
        (second,) = await claim(store, START + 9)
        assert (second.attempt, second.round_attempt) == (2, 1)
        assert (second.event_id, second.payload) == (first.event_id, first.payload)
        await store.settle(settled(second, State.DEAD, now=START + 10))
        shown = await store.delivery(delivery)
        assert (shown.state, shown.first_succeeded_at) == ("dead", to_datetime(START))

    async def test_an_endpoint_without_secrets_in_its_project_hears_nothing_of_another(
        self, store: Store
    ) -> None:
        await store.add_endpoint(endpoint("film"))
        await store.record(arrival(success()))
        await store.record(arrival_of(OTHER, success(2), project="film"))
        assert [found.project for found in (await store.events(Query(project="film"))).data] == [
            "film",
            "film",
        ]
        assert [d.task_id for d in (await store.deliveries(Query(project="film"))).data] == [
            OTHER,
            OTHER,
        ]
        assert (await store.deliveries(Query(project="default"))).data == []
        assert [task.id for task in (await store.tasks(Query(project="film"))).data] == [OTHER]
        assert [c.task_id for c in (await store.callbacks(Query(project="film"))).data] == [OTHER]
        assert len((await store.endpoints(Query(project="film"))).data) == 1
        assert (await store.endpoints(Query(project="default"))).data == []

    # Lists

    async def test_tasks_are_listed_by_every_filter(self, store: Store) -> None:
        await store.register(
            registration(
                model="pixverse:1@6",
                tags={"team": "a", 'odd"name': "x"},
                metadata={"note": "100%_\\"},
                client_ref="mine",
            )
        )
        await store.register(registration(OTHER, now=START + 10, platform_id="run-7"))
        await store.record(arrival_of(OTHER, success()))

        async def found(**query: Any) -> list[str]:
            return [task.id for task in (await store.tasks(Query(**query))).data]

        assert await found() == [OTHER, TASK]
        assert await found(status="pending") == [TASK]
        assert await found(status="succeeded") == [OTHER]
        assert await found(model="pixverse:1@6") == [TASK]
        assert await found(platform="runware") == [OTHER, TASK]
        assert await found(platform="nanogpt") == []
        assert await found(tag=("team", "a")) == [TASK]
        assert await found(tag=("team", "b")) == []
        assert await found(tag=("tea", "a")) == []
        assert await found(since=START + 10) == [OTHER]
        assert await found(until=START + 10) == [TASK]
        assert await found(q="run-7") == [OTHER]
        assert await found(q="PIXVERSE") == [TASK]
        assert await found(q="mine") == [TASK]
        assert await found(q="100%_") == [TASK]
        assert await found(q="1%_") == []
        assert await found(q="'; DROP TABLE tasks; --") == []

    async def test_callbacks_events_and_deliveries_are_listed_by_their_filters(
        self, store: Store
    ) -> None:
        added = await store.add_endpoint(endpoint(event_types=["task.*"]))
        await store.record(arrival(success(), received_at=START))
        await store.record(arrival_of(OTHER, success(2), received_at=START + 10, expected=2))
        assert len((await store.callbacks(Query(task=TASK))).data) == 1
        assert len((await store.callbacks(Query(since=START + 10))).data) == 1
        assert len((await store.callbacks(Query(outcome="recorded"))).data) == 2
        assert await types(store, task=OTHER) == ["result.succeeded"]
        assert await types(store, event_type="task.completed") == ["task.completed"]
        assert await types(store, until=START) == []
        assert await states(store, endpoint=added.id) == ["pending"]
        assert await states(store, endpoint=ids.ENDPOINT + ids.encode(1)) == []
        assert await states(store, task=OTHER) == []
        assert await states(store, event_type="task.completed") == ["pending"]
        assert await states(store, state=State.DEAD) == []

    @pytest.mark.parametrize("name", ["tasks", "callbacks", "events", "endpoints", "deliveries"])
    async def test_pages_show_everything_once_whatever_is_added_meanwhile(
        self, store: Store, name: str
    ) -> None:
        async def add(number: int) -> None:
            await store.add_endpoint(endpoint())
            await store.record(arrival_of(uuid(number), success(number)))

        async def page(before: tuple[int, ...] | None) -> Page[Any]:
            found: Page[Any] = await getattr(store, name)(Query(limit=2, before=before))
            return found

        for number in range(3):
            await add(number)
        everything: Page[Any] = await getattr(store, name)(Query(limit=200))
        assert everything.next_cursor is None
        before = [found.id for found in everything.data]
        assert len(before) >= 3
        paged, cursor, number = [], None, 3
        while True:
            found = await page(cursor)
            paged += [one.id for one in found.data]
            assert len(found.data) <= 2
            await add(number)
            number += 1
            if (cursor := found.next_cursor) is None:
                break
        assert paged == before

    async def test_a_last_page_that_is_full_has_no_next_one(self, store: Store) -> None:
        for number in range(4):
            await store.register(registration(uuid(number)))
        first = await store.tasks(Query(limit=2))
        last = await store.tasks(Query(limit=2, before=first.next_cursor))
        assert [task.id for task in (*first.data, *last.data)] == [
            uuid(number) for number in (3, 2, 1, 0)
        ]
        assert last.next_cursor is None

    async def test_the_cursor_of_another_list_is_invalid(self, store: Store) -> None:
        with pytest.raises(Invalid):
            await store.deliveries(Query(before=(1,)))
        with pytest.raises(Invalid):
            await store.tasks(Query(before=(1, 2)))

    # The store itself

    async def test_who_listens_hears_of_each_commit(self, store: Store) -> None:
        heard: list[tuple[set[str], bool]] = []
        store.on_change(lambda tasks, work: heard.append((set(tasks), work)))
        await store.record(arrival(success(1), expected=2))
        assert heard[-1] == ({TASK}, False)
        await store.add_endpoint(endpoint())
        await store.record(arrival(success(2), expected=2))
        assert heard[-1] == ({TASK}, True)
        await store.record(arrival(success(2), expected=2))
        assert heard[-1] == ({TASK}, False)
        (claimed, _) = await claim(store)
        await store.settle(settled(claimed))
        assert heard[-1] == (set(), True)

    async def test_who_counts_hears_of_each_transaction(self, store: Store) -> None:
        heard: list[tuple[int, bool]] = []
        store.on_commit(lambda jobs, seconds, committed: heard.append((jobs, committed)))
        await store.record(arrival(success()))
        assert heard == [(1, True)]

    async def test_everything_is_there_after_closing_and_opening_again(
        self, open_store: Opener, clock: FakeClock
    ) -> None:
        store = await open_store()
        await queued(store, 3, concurrency=2)
        await claim(store)
        await store.record(arrival(success()))
        before = await self.everything(store)
        instance = store.instance
        await store.close()
        clock.advance(5)
        again = await open_store()
        try:
            assert again.instance == instance
            assert len(instance) == 32
            assert await self.everything(again) == before
            assert sorted(await states(again)) == ["pending"] * 4
            found = (await again.deliveries(Query())).data
            assert sorted(delivery.attempts for delivery in found) == [0, 0, 1, 1]
            assert len(await claim(again, START + 5)) == 2
        finally:
            await again.close()

    @staticmethod
    async def everything(store: Store) -> list[Any]:
        query = Query(limit=200)
        kept = (await store.tasks(query), await store.callbacks(query), await store.events(query))
        found = [one for page in kept for one in page.data]
        return [*found, *(await store.endpoints(query)).data, *await store.results(TASK)]

    async def test_the_store_says_that_it_is_ready(self, store: Store) -> None:
        await store.ready()
        await store.ready()

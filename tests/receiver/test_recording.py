"""What a batch of arrivals is planned to write."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.callbacks import Arrival, Outcome
from receiver.endpoints import Subscription
from receiver.recording import Plan, Recorder, Room
from receiver.tasks import Status, SubmitState, TaskState
from receiver.tokens import Source
from tests.doubles import START
from tests.make import TASK, arrival, failure, processing, success, task, uuid

EVERYTHING = Subscription(7, "default", ("*",))


def recorded(
    *arrivals: Arrival,
    known: TaskState | None = None,
    kept: Sequence[Arrival] = (),
    subscriptions: Sequence[Subscription] = (EVERYTHING,),
    room: Room | None = None,
) -> tuple[Plan, TaskState | None]:
    """The plan for a batch, and the task afterwards."""
    tasks = {} if known is None else {known.id: known}
    digests: set[tuple[str | None, bytes]] = {(one.task_id, one.sha256) for one in kept}
    plan = Recorder(tasks, digests, subscriptions, count(1).__next__, room).record(arrivals)
    return plan, tasks.get(TASK)


def outcomes(plan: Plan) -> list[str]:
    return [receipt.outcome.value for receipt in plan.receipts]


def noisy(state: TaskState) -> TaskState:
    """A task that has kept as many bodies that record nothing as it may."""
    state.noise = state.noise_limit
    return state


def test_a_callback_for_an_unknown_task_creates_it_from_the_claims() -> None:
    plan, state = recorded(arrival(success(), expected=3, tags={"a": "b"}, project="film"))
    assert state is not None
    assert list(plan.created) == [TASK]
    assert (state.expected, state.project, state.tags) == (3, "film", '{"a":"b"}')
    assert (state.status, state.submit_state) == (Status.PARTIAL, SubmitState.SUBMITTED)
    assert not plan.touched


def test_a_new_result_is_kept_with_its_callback_its_events_and_their_endpoints() -> None:
    plan, state = recorded(arrival(success()), known=task())
    assert outcomes(plan) == ["recorded"]
    assert plan.receipts[0].results == 1
    assert [(row.task_id, row.outcome) for row in plan.callbacks] == [(TASK, Outcome.RECORDED)]
    assert [result.key for _, result in plan.results] == list(state.results if state else ())
    assert [row.announcement.type for row in plan.events] == ["result.succeeded", "task.completed"]
    assert [row.endpoints for row in plan.events] == [[7], [7]]
    assert list(plan.touched) == [TASK]


def test_an_event_goes_to_the_endpoints_of_its_project_that_want_it() -> None:
    subscriptions = [
        Subscription(1, "default", ("task.*",)),
        Subscription(2, "other", ("*",)),
        Subscription(3, "default", ("*",), {"tags.team": ("a",)}),
        Subscription(4, "default", ("*",), {"tags.team": ("b",)}),
    ]
    plan, _ = recorded(arrival(success(), tags={"team": "a"}), subscriptions=subscriptions)
    assert [row.endpoints for row in plan.events] == [[3], [1, 3]]


def test_bytes_that_were_seen_before_are_counted_and_told_to_nobody() -> None:
    first = arrival(success(), expected=2)
    plan, state = recorded(first, first, first)
    assert outcomes(plan) == ["recorded", "duplicate", "duplicate"]
    assert (len(plan.callbacks), len(plan.repeats), len(plan.events)) == (1, 2, 1)
    assert state is not None
    assert (state.duplicates, state.noise) == (2, 0)


def test_the_same_result_in_other_bytes_is_a_duplicate_that_is_kept() -> None:
    plan, _ = recorded(arrival(success()), arrival(success(note="again")))
    assert outcomes(plan) == ["recorded", "duplicate"]
    assert [row.outcome.value for row in plan.callbacks] == ["recorded", "duplicate"]


def test_other_content_of_a_result_is_kept_as_a_conflict_and_told_once() -> None:
    plan, _ = recorded(arrival(success(), expected=2), arrival(success(seed=1)))
    assert outcomes(plan) == ["recorded", "conflict"]
    assert [row.outcome.value for row in plan.callbacks] == ["recorded", "conflict"]
    assert len(plan.events) == 1
    ((_, result),) = plan.changed_results
    assert result.conflicts == 1


@pytest.mark.parametrize(
    ("items", "outcome"),
    [
        ([success(1, seed=9), success(2)], "recorded"),
        ([success(1, seed=9), failure("known")], "conflict"),
        ([failure("known"), processing()], "duplicate"),
        ([processing(), {"taskUUID": TASK}], "progress"),
        ([{"taskUUID": TASK}], "quarantined"),
    ],
)
def test_a_bodys_status_is_the_first_that_one_of_its_items_has(
    items: list[dict[str, Any]], outcome: str
) -> None:
    before = arrival(success(1), failure("known"), expected=9)
    plan, _ = recorded(before, arrival(*items))
    assert outcomes(plan) == ["recorded", outcome]


def test_an_unreadable_body_is_kept_and_makes_the_task_due_for_reconcile() -> None:
    plan, state = recorded(arrival(body=b"{", unreadable="bad_json"))
    assert outcomes(plan) == ["quarantined"]
    (row,) = plan.callbacks
    assert (row.outcome, row.reason, row.arrival.body) == (Outcome.QUARANTINED, "bad_json", b"{")
    assert state is not None
    assert (state.reconcile_at, state.status) == (START, Status.PENDING)
    assert plan.events == []


def test_own_items_of_a_mixed_body_are_recorded_and_the_body_is_quarantined_too() -> None:
    plan, state = recorded(arrival(success(), foreign=1))
    assert outcomes(plan) == ["recorded"]
    assert [(row.outcome.value, row.reason) for row in plan.callbacks] == [
        ("quarantined", "foreign_items"),
        ("recorded", None),
    ]
    assert state is not None
    assert state.succeeded == 1


@pytest.mark.parametrize(
    ("item", "outcome"),
    [(success(1, note="again"), "duplicate"), (success(1, seed=1), "conflict")],
)
def test_a_mixed_body_is_counted_once_however_often_it_comes(
    item: dict[str, Any], outcome: str
) -> None:
    mixed = arrival(item, foreign=1)
    plan, _ = recorded(arrival(success(1), expected=2), mixed)
    assert [row.outcome.value for row in plan.callbacks] == ["recorded", "quarantined", outcome]
    assert plan.repeats == []
    plan, _ = recorded(arrival(success(1), expected=2), mixed, mixed)
    assert (len(plan.callbacks), plan.repeats) == (3, [(TASK, mixed)])


@pytest.mark.parametrize("odd", [arrival(body=b"{"), arrival({"taskUUID": TASK})])
def test_a_body_that_tells_nothing_completes_no_task(odd: Arrival) -> None:
    # A static key's results, before anybody said how many are owed.
    known = task(None)
    recorded(arrival(success(), jti=None, expected=None), known=known)
    plan, _ = recorded(odd, known=known)
    assert outcomes(plan) == ["quarantined"]
    assert (known.expected, known.status, plan.events) == (None, Status.PARTIAL, [])
    plan, _ = recorded(arrival(success()), known=known)
    assert (known.expected, known.status) == (1, Status.SUCCEEDED)
    assert [row.announcement.type for row in plan.events] == ["task.completed"]


def test_a_refused_body_tells_nothing_of_its_task() -> None:
    known = task(None)
    recorded(arrival(success(), jti=None, expected=None), known=known)
    plan, _ = recorded(arrival(success(seed=1)), known=noisy(known))
    assert outcomes(plan) == ["limited"]
    assert known.expected is None


@pytest.mark.parametrize(("unreadable", "reason"), [(None, "names_no_task"), ("empty", "empty")])
def test_a_body_without_a_task_is_kept_apart(unreadable: str | None, reason: str) -> None:
    plan, state = recorded(arrival(task_id=None, body=b"x", unreadable=unreadable))
    assert outcomes(plan) == ["quarantined"]
    assert state is None
    assert [(row.task_id, row.reason) for row in plan.callbacks] == [(None, reason)]


def test_bodies_without_a_task_have_their_bound_and_a_repeat_takes_no_room() -> None:
    orphans = [arrival(task_id=None, jti=None, body=b"%d" % number) for number in range(4)]
    plan, _ = recorded(*orphans, orphans[1], kept=orphans[:1], room=Room(orphans=2))
    assert outcomes(plan) == ["quarantined"] * 3 + ["limited", "quarantined"]
    assert [row.arrival.body for row in plan.callbacks] == [b"1", b"2"]
    assert [arrival.body for _, arrival in plan.repeats] == [b"0", b"1"]


def test_tasks_that_a_static_key_alone_knows_of_have_their_bound() -> None:
    strangers = [arrival(success(n), task_id=uuid(n), jti=None, expected=None) for n in range(3)]
    plan, _ = recorded(*strangers, arrival(success()), strangers[0], room=Room(strangers=2))
    assert outcomes(plan) == ["recorded", "recorded", "limited", "recorded", "duplicate"]
    assert list(plan.created) == [uuid(0), uuid(1), TASK]


def test_progress_replaces_the_progress_before_it_and_tells_nobody() -> None:
    plan, state = recorded(arrival(processing(progress=1)), known=task())
    assert outcomes(plan) == ["progress"]
    assert plan.replaced_progress == [TASK]
    assert plan.events == []
    assert state is not None
    assert (state.noise, state.status) == (0, Status.PENDING)


def test_what_was_issued_before_a_revocation_is_not_kept() -> None:
    plan, _ = recorded(arrival(success()), known=task(revoked_at=START))
    assert outcomes(plan) == ["revoked"]
    assert plan == Plan(receipts=plan.receipts)
    plan, _ = recorded(arrival(success(), issued_at=START + 1), known=task(revoked_at=START))
    assert outcomes(plan) == ["recorded"]


def test_expired_bytes_of_an_open_task_are_kept_and_record_nothing() -> None:
    plan, state = recorded(arrival(success(), expired=True), known=task())
    assert outcomes(plan) == ["expired"]
    assert [row.outcome.value for row in plan.callbacks] == ["expired"]
    assert state is not None
    assert (state.received, state.reconcile_at, state.noise) == (0, START, 1)


@pytest.mark.parametrize("known", [None, task(completed_at=START), noisy(task())])
def test_expired_bytes_of_any_other_task_are_not_kept(known: TaskState | None) -> None:
    plan, _ = recorded(arrival(success(), expired=True), known=known)
    assert outcomes(plan) == ["expired"]
    assert plan == Plan(receipts=plan.receipts)


def test_beyond_the_bound_bodies_that_record_nothing_are_refused() -> None:
    limit = task().noise_limit
    assert limit == 2 * 1 + 8
    odd = [arrival(body=b"%d{" % number) for number in range(limit + 2)]
    plan, _ = recorded(*odd)
    assert outcomes(plan) == ["quarantined"] * limit + ["limited"] * 2
    assert len(plan.callbacks) == limit


def test_beyond_the_bound_conflicts_are_refused() -> None:
    known = task(2)
    recorded(arrival(success()), known=known)
    plan, _ = recorded(arrival(success(seed=1)), known=noisy(known))
    assert outcomes(plan) == ["limited"]
    assert plan.callbacks == []


def test_beyond_the_bound_an_owed_result_a_repeat_and_a_poll_are_still_taken() -> None:
    known = noisy(task(9))
    plan, _ = recorded(arrival(success(1)), known=known)
    assert outcomes(plan) == ["recorded"]
    odd = arrival(body=b"{")
    plan, _ = recorded(odd, known=known, kept=[odd])
    assert outcomes(plan) == ["quarantined"]
    assert len(plan.repeats) == 1
    plan, _ = recorded(arrival(body=b"[", source=Source.POLL), known=known)
    assert outcomes(plan) == ["quarantined"]
    plan, _ = recorded(arrival(success(1, seed=1), source=Source.POLL), known=known)
    assert outcomes(plan) == ["conflict"]


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param({"taskUUID": TASK}, id="unknown-item"),
        pytest.param(success(1, seed=1), id="conflict"),
        pytest.param(processing(), id="progress"),
    ],
)
def test_beyond_the_bound_a_known_result_beside_noise_is_no_way_around_it(
    noise: dict[str, Any],
) -> None:
    known = task(9)
    recorded(arrival(success(1)), arrival(success(2)), known=known)
    noisy(known)
    plan, _ = recorded(
        *[arrival(success(2), noise, {"taskUUID": TASK, "n": n}) for n in range(99)], known=known
    )
    kept = Counter(row.outcome for row in plan.callbacks)
    assert kept[Outcome.QUARANTINED] == kept[Outcome.CONFLICT] == 0
    assert kept[Outcome.DUPLICATE] <= known.noise_limit
    assert kept[Outcome.PROGRESS] <= 1


def test_duplicates_do_not_use_up_the_room_of_what_must_be_looked_at() -> None:
    known = task(9)
    recorded(arrival(success(1)), known=known)
    recorded(*[arrival(success(1, note=n)) for n in range(100)], known=known)
    plan, _ = recorded(arrival(body=b"{"), known=known)
    assert outcomes(plan) == ["quarantined"]


@pytest.mark.parametrize(
    ("source", "state"), [("callback", "submitted"), ("poll", "submitted"), ("submit", "rejected")]
)
def test_an_arrival_settles_how_the_submit_went(source: str, state: str) -> None:
    known = task(2, submit_state=SubmitState.UNKNOWN)
    recorded(arrival(failure(), source=Source(source)), known=known)
    assert known.submit_state == state


def test_one_batch_may_hold_several_callbacks_of_one_task() -> None:
    plan, state = recorded(*[arrival(success(n), expected=3) for n in (1, 2, 3)])
    assert outcomes(plan) == ["recorded"] * 3
    told = [row.announcement.type for row in plan.events]
    assert told == ["result.succeeded"] * 3 + ["task.completed"]
    assert state is not None
    assert state.status is Status.SUCCEEDED
    statuses = [
        json.loads(row.announcement.payload)["data"]["task"]["status"] for row in plan.events
    ]
    assert statuses == ["partial", "partial", "succeeded", "succeeded"]


BODIES = [
    arrival(success(1)),
    arrival(success(1, seed=1)),
    arrival(success(2), success(3)),
    arrival(failure()),
    arrival(success(1), failure(), source=Source.POLL),
    arrival(processing()),
    arrival(processing(), success(4)),
    arrival({"taskUUID": TASK}),
    arrival(body=b"{"),
    arrival(success(2), foreign=1),
    arrival(success(5), expired=True),
]


@given(st.lists(st.sampled_from(BODIES), max_size=12), st.integers(1, 5))
def test_a_plan_always_accounts_for_each_result_and_event_once(
    arrivals: list[Arrival], expected: int
) -> None:
    known = task(expected)
    plan, _ = recorded(*arrivals, known=known)
    assert len(plan.receipts) == len(arrivals)
    assert len(plan.results) == known.received == sum(one.results for one in plan.receipts)
    types = [row.announcement.type for row in plan.events]
    assert types.count("task.completed") == (known.completed_at is not None)
    assert sum(kind.startswith("result.") for kind in types) == known.received
    ids = [row.id for row in plan.callbacks] + [row.id for row in plan.events]
    ids += [result.id for _, result in plan.results]
    assert len(set(ids)) == len(ids)
    for row in plan.events:
        json.loads(row.announcement.payload)

"""The life of a task: what each body changes, and that order and repetition do not matter."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from receiver.platforms.items import Category, Kind
from receiver.tasks import (
    COMPLETE,
    MISSED,
    MOST_COST,
    Changes,
    Status,
    SubmitState,
    TaskPatch,
    TaskSpec,
    TaskState,
    absorb,
    facts_of,
    give_up,
    missing,
    status_of,
)
from receiver.tokens import Source
from tests.doubles import START
from tests.make import failure, items_of, processing, success, task

LATER = START + 1_000


def take(
    state: TaskState, *items: dict[str, Any], source: Source = Source.CALLBACK, now: int = START
) -> Changes:
    return absorb(state, items_of(*items), source=source, now=now)


def counts(state: TaskState) -> tuple[Any, ...]:
    """What no order and no repetition may change."""
    return (
        state.status,
        state.succeeded,
        state.failed,
        state.missed,
        state.indexed,
        state.cost,
        state.closed,
        sorted(state.results),
        state.completed_at is not None,
    )


@pytest.mark.parametrize(
    ("expected", "succeeded", "failed", "closed", "status"),
    [
        (1, 0, 0, False, Status.PENDING),
        (4, 0, 0, False, Status.PENDING),
        (4, 3, 0, False, Status.PARTIAL),
        (4, 0, 3, False, Status.PARTIAL),
        (4, 4, 0, False, Status.SUCCEEDED),
        (4, 3, 1, False, Status.PARTIALLY_FAILED),
        (4, 0, 4, False, Status.FAILED),
        (4, 5, 0, False, Status.SUCCEEDED),
        (4, 1, 0, True, Status.SUCCEEDED),
        (4, 1, 1, True, Status.PARTIALLY_FAILED),
        (4, 0, 1, True, Status.FAILED),
        (None, 0, 0, False, Status.PENDING),
        (None, 9, 0, False, Status.PARTIAL),
        (None, 9, 0, True, Status.SUCCEEDED),
    ],
)
def test_a_status_follows_from_the_counts(
    expected: int | None, succeeded: int, failed: int, closed: bool, status: Status
) -> None:
    assert status_of(expected, succeeded, failed, closed) is status


def test_a_task_completes_exactly_once_with_its_last_owed_result() -> None:
    state = task(3)
    completions = [take(state, success(number)).completed for number in (1, 2, 2, 3, 3)]
    assert completions == [False, False, False, True, False]
    assert state.completed_at == START
    assert state.status is Status.SUCCEEDED


def test_one_body_with_all_results_completes_at_once() -> None:
    state = task(2)
    changes = take(state, success(1), failure())
    assert changes.completed
    assert not changes.revised
    assert state.status is Status.PARTIALLY_FAILED


def test_results_are_numbered_in_the_order_of_arrival() -> None:
    state = task(3)
    take(state, success(7))
    take(state, success(5), success(6))
    assert [result.index for result in state.results.values()] == [0, 1, 2]
    assert state.indexed == 3


def test_an_error_callback_counts_one_and_makes_the_task_due_for_reconcile() -> None:
    state = task(4)
    changes = take(state, failure())
    assert (state.failed, state.status) == (1, Status.PARTIAL)
    assert not changes.completed
    assert state.reconcile_at == START


def test_a_success_does_not_make_a_task_due_for_reconcile() -> None:
    state = task(4)
    take(state, success())
    assert state.reconcile_at is None


EXPIRED = failure("mediaExpired")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_media_that_expired_after_we_had_them_are_no_second_result(order: tuple[int, int]) -> None:
    state = task(2)
    take(state, success(1))
    snapshot = (EXPIRED, success(2))
    changes = take(state, *(snapshot[place] for place in order), source=Source.POLL)
    assert (len(changes.new), changes.duplicates, changes.completed) == (1, 1, True)
    assert (state.status, state.succeeded, state.failed) == (Status.SUCCEEDED, 2, 0)


def test_what_expired_before_we_had_it_is_a_failed_result() -> None:
    state = task(2)
    changes = take(state, EXPIRED, success(2), source=Source.POLL)
    assert changes.completed
    assert (state.status, state.succeeded, state.failed) == (Status.PARTIALLY_FAILED, 1, 1)


def test_what_is_missing_while_something_is_in_work_is_not_concluded() -> None:
    state = task(2)
    take(state, success(1))
    changes = take(state, EXPIRED, processing(), source=Source.POLL)
    assert (state.status, changes.progress, changes.new) == (Status.PARTIAL, 1, [])


def test_a_complete_task_loses_nothing_by_a_poll_after_its_media_expired() -> None:
    state = task(2)
    take(state, success(1), success(2))
    changes = take(state, EXPIRED, EXPIRED, source=Source.POLL)
    assert (state.status, changes.new, changes.revised) == (Status.SUCCEEDED, [], False)


def test_a_callback_is_believed_whatever_it_says() -> None:
    state = task(2)
    take(state, EXPIRED, success(1))
    assert (state.status, state.failed) == (Status.PARTIALLY_FAILED, 1)


def test_what_expired_takes_the_place_of_what_was_given_up() -> None:
    state = task(1)
    give_up(state, LATER)
    changes = take(state, EXPIRED, source=Source.POLL, now=LATER)
    assert changes.revised
    assert (state.status, state.failed, state.missed) == (Status.FAILED, 1, 0)


def test_a_snapshot_with_nothing_processing_ends_a_task_short_of_what_was_expected() -> None:
    state = task(4)
    changes = take(state, success(1), failure(), source=Source.POLL)
    assert changes.completed
    assert state.status is Status.PARTIALLY_FAILED
    assert state.reconcile_at is None


@pytest.mark.parametrize("other", [processing(), {"taskUUID": "x", "what": "ever"}])
def test_a_snapshot_with_something_else_in_it_ends_nothing(other: dict[str, Any]) -> None:
    state = task(4)
    changes = absorb(state, items_of(success(1), other), source=Source.POLL, now=START)
    assert not changes.completed
    assert state.status is Status.PARTIAL


def test_a_snapshot_without_items_ends_nothing() -> None:
    state = task(4)
    assert not absorb(state, [], source=Source.POLL, now=START).completed
    assert state.status is Status.PENDING


def test_a_snapshot_of_what_is_known_already_can_end_a_task() -> None:
    state = task(4)
    take(state, success(1))
    assert take(state, success(1), source=Source.POLL).completed


def test_a_callback_never_ends_a_task_short_of_what_was_expected() -> None:
    state = task(4)
    assert not take(state, success(1), failure()).completed


def test_the_same_failure_by_callback_and_by_poll_is_one() -> None:
    state = task(2)
    take(state, failure())
    changes = take(state, failure(message="In other words."), source=Source.POLL)
    assert (changes.duplicates, len(changes.new), state.failed) == (1, 0, 1)


def test_a_snapshot_shows_how_many_equal_failures_there_really_were() -> None:
    state = task(2)
    take(state, failure())
    take(state, failure())
    assert state.failed == 1
    take(state, failure(), failure(), source=Source.POLL)
    assert (state.failed, state.status) == (2, Status.FAILED)


def test_a_rejected_submit_ends_a_task_at_once() -> None:
    state = task(4)
    assert take(state, failure("invalidDuration"), source=Source.SUBMIT).completed
    assert (state.status, state.reconcile_at) == (Status.FAILED, None)


def test_what_a_submit_says_that_is_no_failure_ends_nothing() -> None:
    state = task(4)
    assert not take(state, success(), source=Source.SUBMIT).completed


@pytest.mark.parametrize(
    "change",
    [
        {"videoURL": "https://elsewhere.example/1.mp4"},
        {"seed": 1},
        {"cost": 0.1},
        {"NSFWContent": True},
    ],
)
def test_other_content_of_the_same_result_is_a_conflict_and_changes_nothing(
    change: dict[str, Any],
) -> None:
    state = task(2)
    take(state, success(NSFWContent=False))
    (known,) = state.results.values()
    before = (known.told, known.cost, counts(state))
    changes = take(state, success(**{"NSFWContent": False, **change}))
    assert (changes.conflicts, changes.duplicates, len(changes.new)) == (1, 0, 0)
    assert known.conflicts == 1
    assert (known.told, known.cost, counts(state)) == before


def test_a_url_that_is_signed_anew_is_no_conflict() -> None:
    state = task(2)
    url = success()["videoURL"]
    take(state, success(videoURL=f"{url}?sig=1"))
    assert take(state, success(videoURL=f"{url}?sig=2&x=y")).duplicates == 1


@pytest.mark.parametrize("name", ["seed", "cost", "videoURL", "NSFWContent"])
def test_a_field_that_was_missing_is_filled_in_and_then_kept(name: str) -> None:
    whole = success(NSFWContent=False)
    state = task(2)
    take(state, {key: value for key, value in whole.items() if key != name})
    (known,) = state.results.values()
    assert [result.key for result in take(state, whole).filled] == [known.key]
    told = json.loads(known.told)
    values = {
        "seed": told["seed"],
        "cost": told["cost"],
        "videoURL": told["media"][0]["url"],
        "NSFWContent": told["nsfw"],
    }
    assert values[name] is not None
    assert state.cost == 471_500
    again = take(state, {key: value for key, value in whole.items() if key != name})
    assert (again.duplicates, again.filled) == (1, [])
    assert known.cost == state.cost == 471_500


def test_the_cost_of_a_task_is_the_sum_of_its_results() -> None:
    state = task(3)
    assert state.cost is None
    for body in (success(1), success(2, cost=0.000_001), failure(cost=0.5)):
        take(state, body)
    assert state.cost == 471_500 + 1 + 500_000


def test_a_sum_that_no_database_could_hold_is_none() -> None:
    state = task(3)
    for body in (success(1, cost=9e11), success(2), success(3, cost=9e11)):
        take(state, body)
    assert (state.received, state.cost) == (3, MOST_COST)
    state = task(1)
    take(state, success(1, cost=None))
    take(state, success(1, cost=9e11))
    assert state.cost == MOST_COST


def test_progress_is_counted_and_changes_nothing() -> None:
    state = task(2)
    before = counts(state)
    assert take(state, processing(progress=47)).progress == 1
    assert counts(state) == before


def test_a_result_after_completion_counts_is_late_and_revises() -> None:
    state = task(1)
    take(state, success(1))
    changes = take(state, failure(), now=LATER)
    assert (changes.completed, changes.revised) == (False, True)
    assert changes.new[0].late
    assert (state.status, state.completed_at) == (Status.PARTIALLY_FAILED, START)


def test_a_duplicate_after_completion_revises_nothing() -> None:
    state = task(1)
    take(state, success(1))
    assert not take(state, success(1)).revised


def test_a_task_that_is_given_up_gets_a_failure_for_each_result_it_is_owed() -> None:
    state = task(3)
    take(state, success(1))
    changes = give_up(state, LATER)
    assert changes.completed
    assert (state.succeeded, state.failed, state.missed) == (1, 2, 2)
    errors = [json.loads(result.told)["error"] for result in changes.new]
    assert {(error["code"], error["category"]) for error in errors} == {(MISSED, Category.TIMEOUT)}
    assert {result.source for result in changes.new} == {Source.DEADLINE}
    assert state.status is Status.PARTIALLY_FAILED


def test_a_task_of_unknown_size_is_given_up_with_one_failure_or_with_what_it_has() -> None:
    empty, started = task(None), task(None)
    take(started, success(1))
    give_up(empty, LATER)
    give_up(started, LATER)
    assert (empty.status, empty.failed) == (Status.FAILED, 1)
    assert (started.status, started.failed) == (Status.SUCCEEDED, 0)


def test_what_comes_after_all_takes_the_place_of_a_placeholder() -> None:
    state = task(2)
    give_up(state, START)
    first = take(state, success(1), now=LATER)
    assert (len(first.superseded), first.revised) == (1, True)
    assert counts(state)[:4] == (Status.PARTIALLY_FAILED, 1, 1, 1)
    take(state, success(2), now=LATER)
    assert counts(state)[:4] == (Status.SUCCEEDED, 2, 0, 0)
    assert all(result.superseded for key, result in state.results.items() if MISSED in key)
    third = take(state, success(3), now=LATER)
    assert (third.superseded, state.received) == ([], 3)


def test_a_late_failure_takes_a_placeholders_place_too() -> None:
    state = task(1)
    give_up(state, START)
    take(state, failure(), now=LATER)
    assert (state.failed, state.missed, state.status) == (1, 0, Status.FAILED)


def test_a_platform_may_itself_say_what_our_placeholders_say() -> None:
    state = task(2)
    take(state, failure(MISSED))
    give_up(state, LATER)
    assert (state.failed, state.missed) == (2, 1)


def test_placeholders_name_the_task_they_stand_for() -> None:
    (item,) = missing(task(1))
    assert item.task_id == task(1).id
    assert MISSED in item.raw
    assert item.kind is Kind.FAILED


@pytest.mark.parametrize(
    ("before", "source", "failed", "after"),
    [
        (SubmitState.REGISTERED, Source.DEADLINE, True, SubmitState.REGISTERED),
        (SubmitState.REGISTERED, Source.CALLBACK, False, SubmitState.SUBMITTED),
        (SubmitState.UNKNOWN, Source.CALLBACK, False, SubmitState.SUBMITTED),
        (SubmitState.UNKNOWN, Source.POLL, True, SubmitState.SUBMITTED),
        (SubmitState.REGISTERED, Source.SUBMIT, True, SubmitState.REJECTED),
        (SubmitState.SUBMITTED, Source.SUBMIT, True, SubmitState.REJECTED),
        (SubmitState.REGISTERED, Source.SUBMIT, False, SubmitState.SUBMITTED),
        (SubmitState.UNKNOWN, Source.CALLBACK, True, SubmitState.SUBMITTED),
        (SubmitState.REJECTED, Source.POLL, True, SubmitState.REJECTED),
    ],
)
def test_who_speaks_tells_whether_the_platform_took_the_task(
    before: SubmitState, source: Source, failed: bool, after: SubmitState
) -> None:
    state = task(submit_state=before)
    state.confirm_submit(source, failed=failed)
    assert state.submit_state is after


def test_a_revocation_holds_for_what_was_issued_before() -> None:
    assert not task().is_revoked(START)
    state = task(revoked_at=START)
    assert state.is_revoked(START - 1)
    assert state.is_revoked(START)
    assert not state.is_revoked(START + 1)


# One body is a tuple of items; numbers are results, letters are error codes.
BODY = st.lists(st.sampled_from([1, 2, 3, 4, "a", "b", "..."]), min_size=1, max_size=3)
ARRIVAL = st.tuples(BODY, st.sampled_from([Source.CALLBACK, Source.POLL]))
ARRIVALS = st.lists(ARRIVAL, max_size=6)


def body_of(tokens: list[Any]) -> list[dict[str, Any]]:
    return [
        success(token)
        if isinstance(token, int)
        else processing()
        if token == "..."
        else failure(token)
        for token in tokens
    ]


def told(arrivals: Any, expected: int | None) -> TaskState:
    state = task(expected)
    for moment, (body, source) in enumerate(arrivals):
        take(state, *body_of(body), source=source, now=START + moment)
    return state


@given(ARRIVALS, st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_order_of_arrivals_does_not_matter(arrivals: Any, expected: int, random: Any) -> None:
    shuffled = list(arrivals)
    random.shuffle(shuffled)
    assert counts(told(shuffled, expected)) == counts(told(arrivals, expected))


def test_every_order_of_four_results_and_an_error_ends_the_same() -> None:
    arrivals = [([number], Source.CALLBACK) for number in (1, 2, 3)] + [(["a"], Source.CALLBACK)]
    ends = {counts(told(order, 4))[:4] for order in permutations(arrivals)}
    assert ends == {(Status.PARTIALLY_FAILED, 3, 1, 0)}


@given(st.lists(ARRIVAL, min_size=1, max_size=6), st.integers(1, 5))
def test_replaying_any_arrival_changes_nothing(arrivals: Any, expected: int) -> None:
    state = told(arrivals, expected)
    before = counts(state)
    for body, source in arrivals:
        changes = take(state, *body_of(body), source=source, now=LATER)
        assert counts(state) == before
        assert (changes.new, changes.filled) == ([], [])
        assert (changes.completed, changes.revised) == (False, False)


@given(ARRIVALS, st.one_of(st.none(), st.integers(1, 5)))
def test_counts_always_add_up(arrivals: Any, expected: int | None) -> None:
    state = told(arrivals, expected)
    live = [result for result in state.results.values() if not result.superseded]
    assert len(live) == state.received
    assert state.indexed == len(state.results)
    assert sorted(result.index for result in state.results.values()) == list(range(state.indexed))
    assert (state.completed_at is not None) == (state.status in COMPLETE)


@given(ARRIVALS, st.integers(1, 5), st.integers(0, 6))
def test_a_completion_is_told_once_however_a_task_ends(
    arrivals: Any, expected: int, given_up_after: int
) -> None:
    state, completions = task(expected), 0
    for moment, (body, source) in enumerate(arrivals):
        if moment == given_up_after and state.completed_at is None:
            completions += give_up(state, START).completed
        changes = take(state, *body_of(body), source=source)
        completions += changes.completed
        assert not (changes.completed and changes.revised)
    assert completions == (state.completed_at is not None)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"platform": "Runware"},
        {"platform": "runware", "expected": 0},
        {"platform": "runware", "expected": 101},
        {"platform": "runware", "project": "a b"},
        {"platform": "runware", "tags": {"a": 1}},
        {"platform": "runware", "tags": {str(n): "x" for n in range(21)}},
        {"platform": "runware", "nonsense": 1},
        {"platform": "runware", "deadline_at": "soon"},
    ],
)
def test_a_registration_that_means_nothing_is_invalid(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TaskSpec.model_validate(fields)


def test_a_patch_knows_its_fields() -> None:
    assert TaskPatch.model_validate({"submit_state": "rejected"}).submit_state is (
        SubmitState.REJECTED
    )
    for wrong in ({"submit_state": "maybe"}, {"status": "failed"}):
        with pytest.raises(ValidationError):
            TaskPatch.model_validate(wrong)


def test_filters_see_platform_model_status_tags_and_metadata() -> None:
    facts = facts_of(task(model="pixverse:1@6"), {"a": "b"}, {"c": 1})
    assert facts == {
        "platform": "runware",
        "model": "pixverse:1@6",
        "status": "pending",
        "tags": {"a": "b"},
        "metadata": {"c": 1},
    }


@pytest.mark.parametrize(
    ("how", "source", "took"),
    [
        ({}, Source.CALLBACK, 1_000),
        ({"overdue": True}, Source.CALLBACK, 1_000),
        ({}, Source.POLL, 1_000),
        # It took no longer than until its deadline, but nobody knows how long.
        ({"overdue": True}, Source.POLL, None),
        ({"overdue": True, "platform": "nanogpt"}, Source.POLL, 1_000),
        ({"asked_at": None}, Source.CALLBACK, None),
        ({"asked_at": LATER + 1}, Source.CALLBACK, None),
        ({}, Source.SUBMIT, None),
    ],
)
def test_what_a_task_took_says_what_others_will(
    how: dict[str, Any], source: Source, took: int | None
) -> None:
    state = task(2, **{"asked_at": START, **how})
    take(state, success(1), processing(), source=source, now=START + 10)
    assert state.took is None
    take(state, success(2), source=source, now=LATER)
    assert (state.status, state.took) == (Status.SUCCEEDED, took)
    take(state, success(3), source=source, now=LATER + 1)
    assert state.took == took


def test_a_failure_or_giving_up_says_nothing_of_how_long_others_take() -> None:
    failed, given_up = task(2, asked_at=START), task(1, asked_at=START)
    take(failed, success(), failure(), now=LATER)
    give_up(given_up, LATER)
    assert [one.took for one in (failed, given_up)] == [None, None]
    take(given_up, success(), now=LATER + 1)
    assert (given_up.status, given_up.took) == (Status.SUCCEEDED, None)

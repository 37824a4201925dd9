"""What follows from an attempt, as tables."""

from __future__ import annotations

from email.utils import formatdate
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.clock import DAY, HOUR, SECOND
from receiver.deliveries import Failure, Outcome, State
from receiver.delivery.policy import (
    DEMO_SCHEDULE,
    SCHEDULE,
    Decision,
    decide,
    parse_retry_after,
    refuses_payload,
    succeeded,
    throttles,
)

NOW = 1_790_000_000_000
MIDDLE = 0.5  # the jitter that changes nothing


def outcome(
    status: int | None = None, failure: Failure | None = None, retry_after: str | None = None
) -> Outcome:
    if status is not None and not 200 <= status < 300:
        failure = failure or Failure.STATUS
    return Outcome(status, failure, "A sentence.", 12, retry_after=retry_after)


def decided(
    what: Outcome, attempt: int = 1, jitter: float = MIDDLE, schedule: tuple[int, ...] = SCHEDULE
) -> Decision:
    return decide(what, attempt=attempt, schedule=schedule, now=NOW, jitter=jitter)


def delay(decision: Decision) -> int:
    assert decision.next_attempt_at is not None
    return decision.next_attempt_at - NOW


def test_the_schedules_start_at_once_and_grow() -> None:
    for schedule in (SCHEDULE, DEMO_SCHEDULE):
        assert schedule[0] == 0
        assert all(earlier < later for earlier, later in pairwise(schedule))
    assert len(SCHEDULE) == 12
    assert sum(SCHEDULE) * SECOND > 2 * DAY


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_2xx_settles_the_delivery(status: int) -> None:
    assert decided(outcome(status)) == Decision(State.SUCCEEDED, None, None)


@pytest.mark.parametrize("status", [None, 101, 199, 300, 304, 400, 410, 500, 999])
def test_anything_else_does_not(status: int | None) -> None:
    assert not succeeded(Outcome(status, None, "A sentence.", 1))


def test_a_2xx_with_a_failure_is_no_success() -> None:
    assert decided(outcome(200, Failure.TIMEOUT)).state is State.PENDING


@pytest.mark.parametrize("attempt", range(1, len(SCHEDULE)))
def test_after_the_nth_failure_comes_the_nth_delay(attempt: int) -> None:
    assert delay(decided(outcome(500), attempt)) == SCHEDULE[attempt] * SECOND


@pytest.mark.parametrize("attempt", [len(SCHEDULE), len(SCHEDULE) + 1, 999])
def test_the_last_failure_is_death(attempt: int) -> None:
    assert decided(outcome(500), attempt) == Decision(State.DEAD, None)


def test_an_empty_schedule_allows_the_one_try() -> None:
    assert decided(outcome(500), schedule=()).state is State.DEAD


@pytest.mark.parametrize(("jitter", "expected"), [(0.0, 4000), (0.5, 5000), (0.999, 5998)])
def test_jitter_spreads_by_a_fifth(jitter: float, expected: int) -> None:
    assert delay(decided(outcome(500), jitter=jitter)) == expected


def test_410_asks_to_disable_and_leaves_the_delivery_in_the_held_queue() -> None:
    assert decided(outcome(410)) == Decision(State.PENDING, NOW + 5000, "gone")


def test_410_on_the_last_attempt_is_death_and_still_disables() -> None:
    assert decided(outcome(410), len(SCHEDULE)) == Decision(State.DEAD, None, "gone")


@pytest.mark.parametrize(
    ("what", "throttle"),
    [
        (outcome(429), True),
        (outcome(502), True),
        (outcome(504), True),
        (outcome(failure=Failure.TIMEOUT), True),
        (outcome(500), False),
        (outcome(503), False),
        (outcome(failure=Failure.CONNECT), False),
        (outcome(failure=Failure.DNS), False),
        (outcome(failure=Failure.LEASE_LAPSED), False),
    ],
)
def test_what_throttles(what: Outcome, throttle: bool) -> None:
    assert throttles(what) is throttle


@pytest.mark.parametrize("status", range(200, 600))
def test_who_has_something_against_one_event_alone(status: int) -> None:
    assert refuses_payload(outcome(status)) is (status in (400, 409, 413, 422))


@pytest.mark.parametrize("failure", [Failure.TIMEOUT, Failure.PROTOCOL])
def test_an_answer_that_broke_off_is_about_no_event(failure: Failure) -> None:
    assert not refuses_payload(outcome(400, failure))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("120", 120_000),
        (" 120.6 ", 120_600),
        ("0", 5000),
        ("3", 5000),
        ("-1", 5000),
        ("1e9", 5000),
        ("abc", 5000),
        ("", 5000),
        ("٣٣٣", 5000),
        ("1000000000", DAY),
        (formatdate(NOW / 1000 + 3600, usegmt=True), HOUR),
        (formatdate(NOW / 1000 - 3600, usegmt=True), 5000),
        (formatdate(NOW / 1000 + 86_400 * 400, usegmt=True), DAY),
    ],
)
def test_retry_after_only_extends(header: str, expected: int) -> None:
    assert delay(decided(outcome(503, retry_after=header))) == expected


def test_retry_after_never_shortens_a_long_delay() -> None:
    assert delay(decided(outcome(429, retry_after="60"), 11)) == DAY


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 37_000),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 37_000),
        ("Sun Nov  6 08:49:37 1994", 37_000),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 37_000),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", DAY),  # two digits mean 2001
        ("Fri, 31 Dec 9999 23:59:59 -2359", DAY),
        ("9" * 400, DAY),
        ("0.5", 500),
        ("٥", None),
        ("tomorrow", None),
        ("+5", None),
        (".5", None),
    ],
)
def test_forms_of_retry_after(header: str, expected: int | None) -> None:
    assert parse_retry_after(header, 784_111_740_000) == expected


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ \S+"))
def test_no_header_breaks_the_parser(value: str) -> None:
    waits = parse_retry_after(value, NOW)
    assert waits is None or 0 <= waits <= DAY


@given(
    status=st.integers(100, 999) | st.none(),
    failure=st.sampled_from(Failure) | st.none(),
    retry_after=st.text(max_size=40) | st.none(),
    attempt=st.integers(1, 20),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_every_decision_is_one_the_state_table_knows(
    status: int | None,
    failure: Failure | None,
    retry_after: str | None,
    attempt: int,
    jitter: float,
) -> None:
    decision = decided(Outcome(status, failure, ".", 1, retry_after=retry_after), attempt, jitter)
    assert (decision.next_attempt_at is not None) == (decision.state is State.PENDING)
    if decision.state is State.PENDING:
        assert 0.8 * SCHEDULE[attempt] * SECOND <= delay(decision) <= 1.2 * DAY
    assert (decision.disable == "gone") == (status == 410)

"""How an endpoint fares: throttle and breaker, attempt by attempt."""

from __future__ import annotations

from dataclasses import replace
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.clock import DAY, HOUR, MINUTE, SECOND
from receiver.deliveries import Failure, Outcome
from receiver.delivery.health import (
    BRIEFLY,
    FAILING,
    FIRST_PAUSE,
    LEAST_PAUSE,
    LONG_FAILURE,
    LONGEST_PAUSE,
    MOVES,
    STRIKES,
    WELL,
    Health,
    Move,
    Seen,
    disabling,
    follow,
    is_well,
    longest_pause,
    probe,
    reset,
    room,
    width_of,
)
from receiver.delivery.policy import DEMO_SCHEDULE, SCHEDULE
from receiver.endpoints import Breaker
from tests.doubles import START, sent

LEASE = 35 * SECOND
BROKEN = [
    sent(500),
    sent(404),
    sent(429),
    *[sent(None, failure) for failure in Failure if failure is not Failure.STATUS],
]
REFUSED = [sent(status) for status in (400, 409, 413, 422)]


def seen(what: Outcome, now: int = START, *, began: int | None = None, of: int = 8) -> Seen:
    return Seen(what, now if began is None else began, now, of)


def after(health: Health, what: Outcome, times: int = 1, now: int = START) -> Health:
    for _ in range(times):
        health = follow(health, seen(what, now))
    return health


def asking(status: int, retry_after: str) -> Outcome:
    return replace(sent(status), retry_after=retry_after)


def opened(now: int = START) -> Health:
    """An endpoint whose breaker opened at this moment."""
    health = after(WELL, sent(500), now=now - BRIEFLY)
    return after(health, sent(500), STRIKES - 1, now)


def probing(now: int = START) -> Health:
    return probe(opened(now - FIRST_PAUSE), now + LEASE)


# The breaker

WAYS = {Breaker.CLOSED: WELL, Breaker.OPEN: opened(), Breaker.HALF_OPEN: probing()}


def moved(health: Health, move: Move) -> Health:
    """What a move makes of a health, by the means that there are."""
    later = START + LEASE
    match move:
        case Move.STRIKE_OUT:
            return follow(health, seen(sent(500), later)) if health == ready_to_open() else health
        case Move.PROBE:
            return probe(health, later)
        case Move.FAIL:
            return follow(health, seen(sent(500), later))
        case Move.ANSWER:
            return follow(health, seen(sent(204), later))
        case Move.RESET:
            return reset(health)


def ready_to_open() -> Health:
    return after(WELL, sent(500), STRIKES - 1)


def test_the_ways_of_these_tests_reach_every_state() -> None:
    assert {state: health.breaker for state, health in WAYS.items()} == {
        state: state for state in Breaker
    }


@pytest.mark.parametrize("state", Breaker)
@pytest.mark.parametrize("move", Move)
def test_the_breaker_makes_the_moves_of_the_table_and_no_other(state: Breaker, move: Move) -> None:
    health = ready_to_open() if (state, move) == (Breaker.CLOSED, Move.STRIKE_OUT) else WAYS[state]
    assert moved(health, move).breaker is MOVES.get((state, move), state)


def test_the_table_is_the_one_that_was_agreed() -> None:
    assert {f"{state} {move} {then}" for (state, move), then in MOVES.items()} == {
        "closed strike out open",
        "open probe half_open",
        "open answer closed",
        "open reset closed",
        "half_open probe half_open",
        "half_open fail open",
        "half_open answer closed",
        "half_open reset closed",
    }


@pytest.mark.parametrize("what", BROKEN, ids=lambda what: f"{what.status} {what.failure}")
def test_so_many_failures_in_a_row_open_it(what: Outcome) -> None:
    health = after(after(WELL, what, now=START - BRIEFLY), what, STRIKES - 2)
    assert health.breaker is Breaker.CLOSED
    assert after(health, what).breaker is Breaker.OPEN
    assert after(after(health, sent(204)), what).breaker is Breaker.CLOSED


@pytest.mark.parametrize("what", REFUSED, ids=lambda what: str(what.status))
def test_a_word_about_one_event_says_nothing_against_the_endpoint(what: Outcome) -> None:
    health = after(WELL, what, 5 * STRIKES, now=START - BRIEFLY)
    assert (health.breaker, health.failures) == (Breaker.CLOSED, 5 * STRIKES)
    assert after(after(ready_to_open(), what), sent(500), now=START + HOUR).strikes == 1
    assert after(probing(), what).breaker is Breaker.CLOSED


def test_a_failure_that_lasts_shorter_than_a_restart_opens_nothing() -> None:
    health = after(after(WELL, sent(500)), sent(500), 100, START + BRIEFLY - 1)
    assert health.breaker is Breaker.CLOSED
    assert after(health, sent(500), now=START + BRIEFLY).breaker is Breaker.OPEN


def test_each_probe_that_fails_doubles_the_pause_up_to_a_bound() -> None:
    health, now, pauses = opened(), START, []
    for _ in range(9):
        assert room(health, concurrency=8, busy=0, now=now) == 0
        assert health.held_until is not None
        pauses.append(health.held_until - now)
        now = health.held_until
        assert room(health, concurrency=8, busy=0, now=now - 1) == 0
        assert room(health, concurrency=8, busy=0, now=now) == 1
        assert room(health, concurrency=8, busy=1, now=now) == 0
        health = after(probe(health, now + LEASE), sent(500), now=now)
    assert pauses == [FIRST_PAUSE << n for n in range(6)] + [LONGEST_PAUSE] * 3


def test_there_is_one_probe_until_it_is_settled_or_its_lease_is_over() -> None:
    health = probing()
    assert room(health, concurrency=8, busy=0, now=START + LEASE - 1) == 0
    assert room(health, concurrency=8, busy=0, now=START + LEASE) == 1


def test_an_attempt_from_before_does_not_lengthen_the_pause() -> None:
    health = opened()
    straggler = follow(health, seen(sent(500), START + 1, began=START - MINUTE))
    assert (straggler.held_until, straggler.pause) == (health.held_until, health.pause)
    assert straggler.failures == health.failures + 1


def test_what_was_held_goes_one_by_one_at_first() -> None:
    health, sizes = after(probing(), sent(204)), []
    for _ in range(10):
        sizes.append(width_of(health, 8))
        health = after(health, sent(204))
    assert sizes == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]
    assert health == Health(last_success_at=START, last_failure_at=health.last_failure_at)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (SCHEDULE, LONGEST_PAUSE),
        (DEMO_SCHEDULE, 5 * SECOND),
        ((0,), LEAST_PAUSE),
        ((), LEAST_PAUSE),
        ((0, 60, 30), MINUTE),
    ],
)
def test_who_retries_within_seconds_is_looked_at_within_seconds(
    schedule: tuple[int, ...], expected: int
) -> None:
    assert longest_pause(schedule) == expected
    health = opened()
    for _ in range(9):
        what = Seen(sent(500), START, START, 8, longest_pause(schedule))
        health = follow(probe(health, START), what)
    assert health.held_until == START + expected


# The throttle


@pytest.mark.parametrize(
    "what", [sent(429), sent(502), sent(504), sent(None, Failure.TIMEOUT)], ids=str
)
def test_too_much_halves_what_goes_out_at_once_down_to_one(what: Outcome) -> None:
    health, widths = WELL, []
    for number in range(6):
        health = follow(health, seen(what, START + number))
        widths.append(width_of(health, 9))
    assert widths == [4, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("what", [sent(500), sent(503), sent(404), sent(None, Failure.CONNECT)])
def test_other_failures_do_not_throttle(what: Outcome) -> None:
    assert width_of(after(WELL, what), 8) == 8


def test_all_attempts_of_one_moment_halve_it_once() -> None:
    health = WELL
    for number in range(8):
        health = follow(health, seen(sent(429), START + 1 + number, began=START))
    assert width_of(health, 8) == 4
    assert width_of(follow(health, seen(sent(429), START + 9, began=START + 8)), 8) == 2


def test_successes_give_it_back_one_by_one() -> None:
    health, widths = after(WELL, sent(429)), []
    for _ in range(4):
        widths.append(width_of(health, 8))
        health = after(health, sent(204))
    assert widths == [4, 5, 6, 7]
    assert (health.width, health.throttled_at) == (None, None)


def test_successes_of_attempts_from_before_give_nothing_back() -> None:
    health = follow(WELL, seen(sent(429), START + 1))
    late = after(health, sent(204), 99)
    assert late.width == 4


def test_less_is_never_more_than_was_set() -> None:
    health = replace(WELL, width=6)
    assert [width_of(health, of) for of in (1, 5, 6, 9)] == [1, 5, 6, 6]
    assert room(health, concurrency=3, busy=5, now=START) == 0


# What an endpoint asks for itself


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (asking(429, "60"), MINUTE),
        (asking(503, "60"), MINUTE),
        (asking(503, "120.6"), 120_600),
        (asking(503, formatdate(START / 1000 + 90, usegmt=True)), 90 * SECOND),
        (asking(429, "86400"), HOUR),
        (asking(429, "1000000000"), HOUR),
        (asking(502, "60"), None),
        (asking(500, "60"), None),
        (asking(429, "0"), None),
        (asking(429, "-5"), None),
        (asking(429, "soon"), None),
        (asking(429, formatdate(START / 1000 - 90, usegmt=True)), None),
        (sent(429), None),
    ],
)
def test_retry_after_of_429_and_503_holds_the_whole_endpoint(
    what: Outcome, expected: int | None
) -> None:
    health = after(WELL, what)
    assert health.held_until == (None if expected is None else START + expected)
    if health.held_until is not None:
        assert room(health, concurrency=8, busy=0, now=health.held_until - 1) == 0
        assert room(health, concurrency=8, busy=0, now=health.held_until) > 0


def test_who_takes_what_began_after_the_refusal_meant_one_delivery() -> None:
    health = follow(WELL, seen(asking(503, "60"), START + 9, began=START))
    before = follow(health, seen(sent(204), START + 10, began=START - 1))
    assert before.held_until == START + 9 + MINUTE
    later = follow(health, seen(sent(204), START + 10, began=START))
    assert (later.held_until, later.refused_at) == (None, None)


def test_who_fails_one_in_ten_still_gets_several_at_once() -> None:
    health, widths = WELL, []
    for number in range(400):
        what = sent(429) if number % 10 == 9 else sent(204)
        health = follow(health, seen(what, START + number, of=80))
        widths.append(width_of(health, 80))
    assert min(widths[200:]) >= 8


def test_a_shorter_hold_does_not_cut_a_longer_one() -> None:
    health = after(after(WELL, asking(503, "60")), asking(503, "5"))
    assert health.held_until == START + MINUTE


def test_nor_does_a_breaker_that_opens() -> None:
    held = after(ready_to_open(), asking(503, "3600"), now=START + BRIEFLY)
    assert (held.breaker, held.held_until) == (Breaker.OPEN, START + BRIEFLY + HOUR)
    almost = replace(WELL, strikes=STRIKES - 2, failing_since=START - BRIEFLY)
    asked = after(almost, asking(429, "3600"))
    opened_then = after(asked, sent(500))
    assert (opened_then.breaker, opened_then.held_until) == (Breaker.OPEN, START + HOUR)


def test_a_probe_that_is_asked_to_wait_longer_than_the_pause_waits_for_so_long() -> None:
    assert after(probing(), asking(503, "600")).held_until == START + 10 * MINUTE


# The long failure


def test_five_days_without_a_success_disable() -> None:
    health = after(after(WELL, sent(204)), sent(422))
    assert health.failing_since == START
    health = after(health, sent(None, Failure.DNS), now=START + 2 * DAY)
    assert disabling(health, START + LONG_FAILURE - 1) is None
    assert disabling(health, START + LONG_FAILURE) == FAILING
    assert disabling(after(health, sent(204)), START + LONG_FAILURE) is None
    assert disabling(WELL, START) is None


@pytest.mark.parametrize("health", [opened(), probing(), after(WELL, sent(429))])
def test_enabling_by_hand_forgets_the_failures_and_begins_gently(health: Health) -> None:
    fresh = reset(health)
    assert fresh == Health(width=1, last_failure_at=health.last_failure_at)
    assert reset(after(WELL, sent(204))) == Health(last_success_at=START)


def test_of_successes_in_a_row_the_last_one_says_it_all_where_all_is_well() -> None:
    well = after(WELL, sent(204))
    assert is_well(well)
    assert after(after(well, sent(204), 9), sent(204), now=START + 9) == after(
        well, sent(204), now=START + 9
    )


@pytest.mark.parametrize(
    "health", [opened(), probing(), after(WELL, sent(500)), after(WELL, sent(429)), Health(width=2),
               Health(held_until=START)]
)  # fmt: skip
def test_what_a_success_changes_is_not_well(health: Health) -> None:
    assert not is_well(health)


# Whatever happens

OUTCOMES = st.sampled_from([sent(204), *BROKEN, *REFUSED, asking(429, "30"), asking(503, "7200")])


@given(
    story=st.lists(st.tuples(OUTCOMES, st.integers(0, HOUR), st.integers(0, MINUTE)), max_size=60),
    concurrency=st.integers(1, 12),
    longest=st.integers(LEAST_PAUSE, LONGEST_PAUSE),
)
def test_no_story_gives_an_endpoint_too_much_or_nothing_for_ever(
    story: list[tuple[Outcome, int, int]], concurrency: int, longest: int
) -> None:
    health, now = WELL, START
    for outcome, pause, took in story:
        now += pause
        if room(health, concurrency=concurrency, busy=0, now=now):
            health = probe(health, now + LEASE)
        health = follow(health, Seen(outcome, now, now + took, concurrency, longest))
        now += took
        assert 1 <= width_of(health, concurrency) <= concurrency
        held = (health.held_until or now) - now
        assert held <= HOUR
        free = room(health, concurrency=concurrency, busy=0, now=now + HOUR)
        assert 1 <= free <= concurrency
        assert (health.failures == 0) == (health.failing_since is None)
        assert health.strikes <= health.failures

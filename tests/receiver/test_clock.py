"""Time as integers, and how it is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from receiver.clock import (
    DAY,
    HOUR,
    SECOND,
    AgreedClock,
    SteadyClock,
    agreed,
    from_datetime,
    to_datetime,
    to_rfc3339,
    wall_clock,
)
from tests.doubles import SteppingClock

MOMENT = 1_795_203_604_120


def test_a_moment_is_written_in_utc_with_milliseconds() -> None:
    assert to_rfc3339(MOMENT) == "2026-11-20T19:40:04.120Z"
    assert to_rfc3339(0) == "1970-01-01T00:00:00.000Z"


def test_an_aware_datetime_is_read_in_its_own_zone_and_a_naive_one_as_utc() -> None:
    naive = datetime(2026, 11, 20, 19, 40, 4, 120_000)
    east = timezone(timedelta(hours=2))
    assert from_datetime(naive) == from_datetime(naive.replace(tzinfo=UTC)) == MOMENT
    assert from_datetime(naive.replace(tzinfo=east)) == MOMENT - 2 * 3_600_000


@given(st.integers(0, 250_000_000_000_000))
def test_a_datetime_keeps_each_millisecond(moment: int) -> None:
    assert from_datetime(to_datetime(moment)) == moment
    assert from_datetime(datetime.fromisoformat(to_rfc3339(moment))) == moment


def test_the_wall_clock_gives_milliseconds_of_this_century() -> None:
    assert to_datetime(wall_clock()).year >= 2026


def test_a_steady_clock_of_a_machine_is_its_clock() -> None:
    clock = SteadyClock()
    before = wall_clock()
    assert before - SECOND < clock() < wall_clock() + SECOND


@given(st.lists(st.tuples(st.integers(0, 10**13), st.integers(-5 * 10**8, 5 * 10**8)), max_size=30))
def test_a_clock_that_is_kept_right_is_followed_to_the_millisecond(
    turns: list[tuple[int, int]],
) -> None:
    # An NTP daemon slews by half a second in a second at the very most (adjtimex: 0.5 ms).
    machine = SteppingClock()
    clock = machine.steady()
    for passed, drift in turns:
        machine.pass_ns(passed, drift=max(-passed // 2, min(drift, passed // 2)))
        assert clock() == machine.wall()


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(-DAY + HOUR, DAY - HOUR)), max_size=30)
)
def test_a_step_changes_its_pace_by_half_at_most_and_never_turns_it_back(
    turns: list[tuple[int, int]],
) -> None:
    machine = SteppingClock()
    clock = machine.steady()
    before = clock()
    for passed, _ in turns:
        machine.step(HOUR if passed % 2 else -HOUR)
        machine.pass_ns(passed)
        now = clock()
        least, most = passed // 2 // 1_000_000, passed * 3 // 2 // 1_000_000
        assert least - 1 <= now - before <= most + 1
        before = now


def test_after_a_step_it_comes_to_agree_again_and_says_so_once() -> None:
    for step in (HOUR, -HOUR):
        machine, told = SteppingClock(), list[int]()
        clock = SteadyClock(machine.wall_ns, machine.steady_ns, told.append)
        machine.step(step)
        machine.pass_ns(1_000 * 10**9)
        assert abs(machine.wall() - clock()) == HOUR - 500 * SECOND
        for _ in range(10):
            machine.pass_ns(1_000 * 10**9)
            clock()
        assert clock() == machine.wall()
        assert told == [step]


def test_a_clock_that_was_never_right_is_believed_at_once() -> None:
    machine, told = SteppingClock(), list[int]()
    clock = SteadyClock(machine.wall_ns, machine.steady_ns, told.append)
    for step in (400 * DAY, -400 * DAY):
        machine.step(step)
        machine.pass_ns(10**9)
        assert clock() == machine.wall()
    assert told == [400 * DAY, -400 * DAY]


# A server's time


@given(
    st.integers(-(10**12), 10**12),
    st.lists(st.tuples(st.integers(0, 10**10), st.integers(0, 10**10)), min_size=1, max_size=20),
)
def test_what_is_agreed_on_is_never_proved_wrong(ahead: int, ways: list[tuple[int, int]]) -> None:
    """Whatever a question and its answer take: it is off by no more than the quickest way took."""
    here = [0]
    clock = AgreedClock(lambda: here[0])

    def answer(there: int, back: int) -> int:
        here[0] += there
        said = here[0] + ahead
        here[0] += back
        return said

    for number, (there, back) in enumerate(ways, start=1):
        clock.agree(partial(answer, there, back))
        wrong_by = clock.ns() - here[0] - ahead
        soonest = [min(took) for took in zip(*ways[:number], strict=True)]
        assert -soonest[1] <= wrong_by <= soonest[0]


def test_clocks_that_may_agree_are_left_alone() -> None:
    assert agreed(0, asked=100, said=95, heard=110) == -5
    assert agreed(0, asked=100, said=100, heard=110) == 0
    assert agreed(0, asked=100, said=110, heard=110) == 0
    assert agreed(0, asked=100, said=120, heard=110) == 10
    assert agreed(7, asked=100, said=50, heard=90) == 7  # the own one was set back meanwhile


def test_an_agreed_clock_is_ones_own_until_a_server_says_otherwise() -> None:
    told: list[int] = []
    machine, ahead = SteppingClock(), 0
    clock = AgreedClock(machine.wall_ns, told.append)
    assert clock() == machine.wall()
    for ahead in (2_000, 2_001, 60_000, -60_000, 0, -2_001):
        said = machine.wall_ns() + ahead * 1_000_000
        clock.agree(partial(int, said))
        assert clock() == machine.wall() + ahead
    assert told == [2_001, -2_001]


def test_a_steady_clock_follows_what_is_agreed_on_slowly() -> None:
    machine = SteppingClock()
    clock = AgreedClock(machine.wall_ns)
    clock.agree(lambda: machine.wall_ns() + 60 * SECOND * 1_000_000)
    steady = SteadyClock(clock.ns, machine.steady_ns)
    begun = steady()
    assert begun == machine.wall() + 60 * SECOND
    clock.agree(machine.wall_ns)  # the server was set right
    machine.advance(60 * SECOND)
    assert steady() - begun == 30 * SECOND
    machine.advance(60 * SECOND)
    assert steady() == machine.wall()

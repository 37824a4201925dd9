"""How often one address may fail."""

from __future__ import annotations

from receiver.clock import SECOND
from receiver.limits import ALLOWED, REMEMBERED, WINDOW, FailureLimit
from tests.doubles import FakeClock


def test_an_address_may_fail_so_often_and_is_then_told_how_long_to_wait() -> None:
    limit = FailureLimit(FakeClock())
    assert [limit.note("a") for _ in range(ALLOWED)] == [None] * ALLOWED
    assert limit.note("a") == WINDOW // SECOND + 1


def test_another_address_is_counted_apart() -> None:
    limit = FailureLimit(FakeClock(), allowed=1)
    assert [limit.note("a"), limit.note("b"), limit.note("a")] == [None, None, WINDOW // SECOND + 1]


def test_the_wait_gets_shorter_and_then_all_is_forgotten() -> None:
    clock = FakeClock()
    limit = FailureLimit(clock, allowed=1)
    limit.note("a")
    clock.advance(WINDOW - SECOND)
    assert limit.note("a") == 2
    clock.advance(SECOND)
    assert limit.note("a") is None


def test_a_clock_that_steps_back_locks_nobody_out() -> None:
    clock = FakeClock()
    limit = FailureLimit(clock, allowed=1)
    limit.note("a")
    clock.advance(-10 * WINDOW)
    assert limit.note("a") is None


def test_only_so_many_addresses_are_remembered_the_latest_ones() -> None:
    limit = FailureLimit(FakeClock(), allowed=1)
    for number in range(REMEMBERED):
        limit.note(str(number))
    assert limit.note("0") is not None  # now the one seen last
    limit.note("one more")
    assert limit.note("1") is None
    assert limit.note("0") is not None

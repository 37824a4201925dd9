"""Until when media are there: a lower bound, from what is known of when they were made."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.clock import HOUR, MINUTE, to_rfc3339
from receiver.results import RETRYING, expiry, made_after
from receiver.tasks import LONGEST_TTL, TaskSpec, TaskState, absorb
from receiver.tokens import Source
from tests.doubles import START
from tests.make import failure, items_of, success, task

ASKED = START - HOUR
CALLBACK, POLL = Source.CALLBACK, Source.POLL


def told(state: TaskState, number: int = 1) -> list[Any]:
    """The expiry of each of a result's media."""
    (result,) = [one for one in state.results.values() if one.index == number - 1]
    return [part["expires_at"] for part in json.loads(result.told)["media"]]


@pytest.mark.parametrize(
    ("source", "asked_at", "came", "made"),
    [
        (CALLBACK, ASKED, START, START - RETRYING),  # the last of its attempts, at worst
        (CALLBACK, START - 5_000, START, START - 5_000),  # it can't be older than its task
        (CALLBACK, None, START, START - RETRYING),  # nobody registered it
        (CALLBACK, START, START, START),
        (CALLBACK, START + 1, START, START - RETRYING),  # registered after it came: no bound
        (POLL, ASKED, START, ASKED),  # it may have been there all along
        (POLL, None, START, None),
        (POLL, START + 1, START, None),
    ],
)
def test_a_result_was_made_after(
    source: Source, asked_at: int | None, came: int, made: int | None
) -> None:
    assert made_after(source, asked_at, came) == made


def test_the_window_of_repeated_callbacks_is_a_minute() -> None:
    assert RETRYING == MINUTE


@given(
    source=st.sampled_from([CALLBACK, POLL]),
    asked=st.integers(0, 3 * HOUR),
    work=st.integers(0, HOUR),
    late=st.integers(0, HOUR),
    ttl=st.integers(1, 10**6),
)
def test_what_is_told_is_never_later_than_the_truth(
    source: Source, asked: int, work: int, late: int, ttl: int
) -> None:
    made = asked + work
    came = made + (late % RETRYING if source is CALLBACK else late)
    for registered in (asked, None, came + 1):
        bound = made_after(source, registered, came)
        assert bound is None or bound <= made
        assert expiry(ttl, bound) is None or expiry(ttl, bound) <= to_rfc3339(made + ttl * 1_000)  # type: ignore[operator]


def test_each_of_a_results_media_says_until_when_it_is_there() -> None:
    state = task(2, ttl=3_600, asked_at=ASKED)
    both = success(imageURL="https://im.runware.ai/a.jpg")
    absorb(state, items_of(both), source=CALLBACK, now=START)
    absorb(state, items_of(success(2)), source=POLL, now=START)
    assert told(state) == [to_rfc3339(START - RETRYING + HOUR)] * 2
    assert told(state, 2) == [to_rfc3339(ASKED + HOUR)]


@pytest.mark.parametrize("known", [{}, {"ttl": None, "asked_at": ASKED}])
def test_without_a_ttl_nothing_is_known(known: dict[str, Any]) -> None:
    state = task(1, **known)
    absorb(state, items_of(success()), source=CALLBACK, now=START)
    assert told(state) == [None]
    assert state.date_results() == []


def test_media_that_come_with_a_second_telling_count_from_the_first() -> None:
    state = task(2, ttl=60, asked_at=ASKED)
    absorb(state, items_of(success(videoURL=None)), source=CALLBACK, now=START)
    changes = absorb(state, items_of(success()), source=POLL, now=START + HOUR)
    assert changes.duplicates == 1
    assert told(state) == [to_rfc3339(START - RETRYING + MINUTE)]


def test_a_ttl_that_is_learned_later_dates_what_has_media_and_no_date() -> None:
    state = task(3)
    absorb(state, items_of(success(1), failure()), source=CALLBACK, now=START)
    state.ttl = 60
    (dated,) = state.date_results()
    assert (dated.index, told(state)) == (0, [to_rfc3339(START - RETRYING + MINUTE)])
    state.ttl = 120
    assert state.date_results() == []


def test_bytes_that_are_taken_once_more_count_from_when_they_came() -> None:
    state = task(1, ttl=60)
    absorb(state, items_of(success()), source=CALLBACK, now=START + HOUR, came=START)
    assert told(state) == [to_rfc3339(START - RETRYING + MINUTE)]
    assert state.completed_at == START + HOUR


@pytest.mark.parametrize(
    ("request_", "ttl"),
    [
        (None, None),
        ({}, None),
        ({"ttl": 60}, 60),
        ({"ttl": 60.0}, 60),
        ({"ttl": "60"}, None),
        ({"ttl": True}, None),
        ({"ttl": None}, None),
        ({"ttl": 0}, None),
        ({"ttl": -1}, None),
        ({"ttl": 1.5}, None),
        ({"ttl": 10**30}, LONGEST_TTL),
    ],
)
def test_a_ttl_is_whole_seconds(request_: dict[str, Any] | None, ttl: int | None) -> None:
    assert TaskSpec(platform="runware", request=request_).ttl == ttl


def test_the_longest_ttl_can_still_be_written() -> None:
    assert expiry(LONGEST_TTL, START) is not None

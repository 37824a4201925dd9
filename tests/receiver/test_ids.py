"""Ids that are prefixed and sort by time."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import ids
from receiver.errors import NotFound
from tests.doubles import START, Dice

NUMBERS = st.integers(0, (1 << 63) - 1)


@given(NUMBERS)
def test_an_id_is_the_number_it_was_made_of(number: int) -> None:
    text = ids.encode(number)
    assert len(text) == ids.WIDTH
    assert ids.decode(text) == number
    assert ids.parse("cb_", "cb_" + text) == number


@given(NUMBERS, NUMBERS)
def test_texts_sort_as_their_numbers(one: int, other: int) -> None:
    assert (ids.encode(one) < ids.encode(other)) == (one < other)


@given(NUMBERS, NUMBERS)
def test_a_delivery_is_named_by_its_event_and_its_endpoint(event: int, endpoint: int) -> None:
    assert ids.parse_delivery(ids.delivery_id(event, endpoint)) == (event, endpoint)


@given(st.text())
def test_no_text_is_more_than_not_found(text: str) -> None:
    for prefix in (ids.CALLBACK, ids.EVENT, ids.ENDPOINT):
        try:
            number = ids.parse(prefix, text)
        except NotFound:
            continue
        assert text == prefix + ids.encode(number)
    with pytest.raises(NotFound):
        ids.parse_delivery(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cb_",
        "evt_0000000000000",
        "cb_000000000000",
        "cb_00000000000000",
        "cb_000000000000i",
        "cb_000000000000A",
        "cb_zzzzzzzzzzzzz",  # more than 63 bits
        "cb_000000000000\u0660",
        "dlv_0000000000000",
    ],
)
def test_what_is_no_id_is_not_found(text: str) -> None:
    with pytest.raises(NotFound) as caught:
        ids.parse("cb_", text)
    assert caught.value.status == 404


@pytest.mark.parametrize("text", ["dlv_none", "evt_0000000000000", "dlv_" + "0" * 13 + "i" * 13])
def test_what_is_no_delivery_is_named_as_it_was_given(text: str) -> None:
    with pytest.raises(NotFound, match=re.escape(f"There is no delivery '{text}'.")):
        ids.parse_delivery(text)


def test_ids_of_one_moment_and_of_a_clock_that_steps_back_still_increase() -> None:
    source = ids.IdSource(lambda bits: (1 << bits) - 1)
    moments = [START, START, START - 60_000, START + 1, START]
    made = [source.next(now) for now in moments]
    assert all(earlier < later for earlier, later in pairwise(made))


def test_ids_go_on_above_what_an_earlier_process_made() -> None:
    source = ids.IdSource(Dice().bits)
    source.go_on((START + 3_600_000) << ids.ENTROPY_BITS)
    made = [source.next(START), source.next(START + 1)]
    assert made == sorted(made)
    assert made[0] > (START + 3_600_000) << ids.ENTROPY_BITS
    source.go_on(0)
    assert source.next(START) > made[1]


def test_an_id_tells_its_moment() -> None:
    source = ids.IdSource(Dice().bits)
    assert source.next(START) >> ids.ENTROPY_BITS == START


def test_the_ids_of_attempts_sort_by_their_number() -> None:
    made = [ids.attempt_id(1, 2, number) for number in (1, 2, 31, 32, 33, 1_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)

"""Which secrets sign, and until when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.clock import DAY, HOUR
from receiver.delivery.rotation import MOST_OLD, Key, live, rotated
from receiver.errors import Conflict

NOW = 1_000_000


def test_the_new_secret_is_first_and_the_one_before_signs_along() -> None:
    keys = rotated([Key("a")], "b", now=NOW, overlap=DAY)
    assert keys == (Key("b"), Key("a", NOW + DAY))
    assert live(keys, NOW) == ("b", "a")


@pytest.mark.parametrize(
    ("after", "signing"),
    [(0, ("b", "a")), (DAY - 1, ("b", "a")), (DAY, ("b",)), (9 * DAY, ("b",))],
)
def test_an_earlier_secret_signs_until_its_time_and_no_longer(
    after: int, signing: tuple[str, ...]
) -> None:
    assert live(rotated([Key("a")], "b", now=NOW, overlap=DAY), NOW + after) == signing


def test_each_earlier_secret_keeps_the_time_it_was_given() -> None:
    keys = rotated(
        rotated([Key("a")], "b", now=NOW, overlap=DAY), "c", now=NOW + HOUR, overlap=HOUR
    )
    assert keys == (Key("c"), Key("b", NOW + 2 * HOUR), Key("a", NOW + DAY))


def test_without_an_overlap_none_of_the_earlier_ones_signs() -> None:
    keys = rotated([Key("a")], "b", now=NOW, overlap=DAY)
    assert rotated(keys, "c", now=NOW, overlap=0) == (Key("c"),)


def test_what_is_over_is_forgotten() -> None:
    keys = rotated([Key("a")], "b", now=NOW, overlap=HOUR)
    assert rotated(keys, "c", now=NOW + HOUR, overlap=HOUR) == (
        Key("c"),
        Key("b", NOW + 2 * HOUR),
    )


def test_no_more_than_ten_earlier_ones_sign() -> None:
    keys: tuple[Key, ...] = (Key("0"),)
    for number in range(1, MOST_OLD + 1):
        keys = rotated(keys, str(number), now=NOW, overlap=DAY)
    assert len(live(keys, NOW)) == MOST_OLD + 1
    with pytest.raises(Conflict) as caught:
        rotated(keys, "x", now=NOW, overlap=DAY)
    assert caught.value.evidence == {"most": MOST_OLD}
    assert rotated(keys, "x", now=NOW, overlap=0) == (Key("x"),)
    assert len(rotated(keys, "x", now=NOW + DAY, overlap=DAY)) == 2


def test_a_secret_that_signs_already_is_no_new_one() -> None:
    keys = rotated([Key("a")], "b", now=NOW, overlap=HOUR)
    for known in ("a", "b"):
        with pytest.raises(Conflict):
            rotated(keys, known, now=NOW, overlap=HOUR)
    assert live(rotated(keys, "a", now=NOW + HOUR, overlap=0), NOW) == ("a",)


def test_a_secret_is_in_no_repr() -> None:
    assert "hidden" not in repr(Key("hidden", 5))


steps = st.lists(
    st.tuples(st.integers(0, 3 * HOUR), st.sampled_from([0, HOUR, 2 * HOUR])), max_size=30
)


@given(steps)
def test_whatever_is_rotated_the_newest_signs_and_nothing_beyond_its_promise(
    taken: list[tuple[int, int]],
) -> None:
    keys: tuple[Key, ...] = (Key("first"),)
    now = NOW
    promised = {"first": now}  # until when a consumer may rely on it, at least
    for number, (pause, overlap) in enumerate(taken):
        now += pause
        name, current = str(number), keys[0].text
        try:
            keys = rotated(keys, name, now=now, overlap=overlap)
        except Conflict:
            assert sum(end > now for end in promised.values()) >= MOST_OLD
            continue
        promised = promised if overlap else {}
        promised[current] = now + overlap
        expected = {known for known, end in promised.items() if end > now} | {name}
        assert live(keys, now)[0] == name
        assert set(live(keys, now)) == expected
        assert len(keys) <= MOST_OLD + 1

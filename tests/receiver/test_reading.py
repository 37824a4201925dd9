"""Untrusted JSON: a value, or Unreadable with a stable reason, and never anything else."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import Unreadable
from receiver.platforms.reading import (
    MAX_DEPTH,
    MAX_PARTS,
    boolean_of,
    dumps,
    integer_of,
    loads,
    mapping_of,
    micros_of,
    text_of,
)
from tests.golden import golden
from tests.make import failure, success, wrapped

REASONS = {
    "value",
    "bad_json",
    "duplicate_keys",
    "empty",
    "not_a_number",
    "not_utf8",
    "number_out_of_range",
    "too_deep",
    "too_many_parts",
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def outcome_of(body: bytes) -> str:
    """The reason, or `value` for what can be read and then written."""
    try:
        dumps(loads(body))
    except Unreadable as error:
        return error.reason
    return "value"


def reason_of(body: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        loads(body)
    return caught.value.reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"{", "bad_json"),
        (b"<html>", "bad_json"),
        (b'{"a":1} x', "bad_json"),
        (b'{"a":1}{"a":1}', "bad_json"),
        (b'{"a":1,}', "bad_json"),
        (b"{'a':1}", "bad_json"),
        (b'"\x00"', "bad_json"),
        (b"{}\x00", "bad_json"),
        (b'{"a":1,"a":2}', "duplicate_keys"),
        (b'{"x":[{"taskUUID":"a","taskUUID":"b"}]}', "duplicate_keys"),
        (b'{"a":1,"\\u0061":2}', "duplicate_keys"),
        (b"NaN", "not_a_number"),
        (b'{"cost":Infinity}', "not_a_number"),
        (b"[-Infinity]", "not_a_number"),
        (b"1e999", "number_out_of_range"),
        (b'{"cost":-1e999}', "number_out_of_range"),
        (b"1" * 5_000, "number_out_of_range"),
        (b'{"seed":-' + b"9" * 5_000 + b"}", "number_out_of_range"),
        (b"\xff", "not_utf8"),
        (b'"\xc3\x28"', "not_utf8"),
        (b'"\xed\xa0\x80"', "not_utf8"),
        ('{"a":1}'.encode("utf-16"), "not_utf8"),
        ('{"a":1}'.encode("utf-16-le"), "bad_json"),
        ('{"a":1}'.encode("utf-32"), "not_utf8"),
        (b"[" * 50_000, "too_deep"),
        (b"[" * 50_000 + b"]" * 50_000, "too_deep"),
        (b'{"a":' * 50_000, "too_deep"),
        (b'[{"a":' * 25_000 + b"1" + b"}]" * 25_000, "too_deep"),
        (b'["]]]]",' * 25_000, "too_deep"),
        (b'["\\"' + b"[" * 70, "bad_json"),
        (b'["\\' + b"[" * 70 + b"\\", "bad_json"),
        (b"[" * 100_000, "too_many_parts"),
        (b'{"a":' * 50_001, "too_many_parts"),
        (b"[" + b"[]," * 25_000 + b"[]]", "too_many_parts"),
        (b"[" + b"1," * 50_000 + b"1]", "too_many_parts"),
    ],
)
def test_an_unreadable_body_has_a_stable_reason(body: bytes, reason: str) -> None:
    assert reason_of(body) == reason


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"null", None),
        (b" [1, 2.5, true] ", [1, 2.5, True]),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b'"\\ud800"', "\ud800"),
        (b'"\\u0000"', "\x00"),
        (b"18446744073709551617", 2**64 + 1),
        (b"1" * 4_000, int("1" * 4_000)),
        (b"1e308", 1e308),
        (b"1e-999", 0.0),
        (b"-0", 0),
        ('"ä€😀"'.encode(), "ä€😀"),
    ],
)
def test_odd_but_valid_json_is_a_value(body: bytes, value: Any) -> None:
    assert loads(body) == value


def test_the_deepest_body_that_is_read_is_as_deep_as_the_bound() -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        deep = opening * MAX_DEPTH + "1" + closing * MAX_DEPTH
        loads(deep.encode())
        assert reason_of((opening + deep + closing).encode()) == "too_deep"


def test_brackets_in_strings_and_side_by_side_are_no_depth() -> None:
    assert loads(b'["' + b"[{" * 1_000 + b'\\"[[["]') == ["[{" * 1_000 + '"[[[']
    assert len(loads(b"[" + b"[]," * 1_000 + b"[]]")) == 1_001
    assert len(loads(b"[" + b"1," * (MAX_PARTS - 1) + b"1]")) == MAX_PARTS


@pytest.mark.parametrize("piece", [b'\\"', b'"', b'\\\\"', b"\\", b'"\\', b'""[', b'"[],'])
def test_no_text_is_looked_at_again_and_again(piece: bytes) -> None:
    # Quadratic, it would take minutes: pytest's own limit ends it.
    for body in (b"[" * 70 + b'"' + piece * 350_000, b"[" * 70 + piece * 350_000 + b"\\"):
        assert outcome_of(body[: 1 << 20]) in REASONS


@given(st.binary(max_size=400))
def test_random_bytes_are_a_value_or_unreadable(body: bytes) -> None:
    assert outcome_of(body) in REASONS


@given(
    st.sampled_from([wrapped(success(), failure()), *(known.body for known in golden("runware"))]),
    st.integers(0, 1_000),
    st.binary(max_size=6),
    st.integers(0, 6),
)
def test_a_real_callback_with_bytes_exchanged_is_a_value_or_unreadable(
    body: bytes, place: int, put: bytes, taken: int
) -> None:
    place %= len(body)
    assert outcome_of(body[:place] + put + body[place + taken :]) in REASONS


@given(JSON)
def test_what_is_read_can_be_written_for_any_store_and_read_again(value: Any) -> None:
    text = dumps(value)
    assert "\x00" not in text
    assert loads(text.encode()) == value == json.loads(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_nothing_is_written_that_is_no_json(value: Any) -> None:
    with suppress(ValueError):
        loads(dumps(value).encode())


def test_a_text_is_fit_for_every_text_column() -> None:
    assert text_of("plain") == "plain"
    assert text_of("x" * 5, 3) == "xxx"
    assert text_of("a\x00b") == "a\ufffdb"
    assert text_of("ä\x00") == "ä\ufffd"
    assert text_of("\ud800ä") == "?ä"
    assert text_of("") == ""
    others: list[Any] = [None, 1, True, ["a"], {}]
    for other in others:
        assert text_of(other) is None


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_can_be_stored(text: str) -> None:
    stored = text_of(text, 50)
    assert stored is not None
    assert "\x00" not in stored
    assert len(stored.encode()) >= len(stored)


def test_an_integer_is_unbounded_and_never_a_boolean() -> None:
    assert integer_of(2**70) == 2**70
    assert integer_of(-5) == -5
    assert integer_of(44_372.0) == 44_372
    assert integer_of(1e308) == int(1e308)
    others: list[Any] = [True, False, 1.5, "1", None, []]
    for other in others:
        assert integer_of(other) is None


def test_dollars_become_micro_dollars_or_nothing() -> None:
    assert micros_of(0.4715) == 471_500
    assert micros_of(0) == 0
    assert micros_of(3) == 3_000_000
    assert micros_of(1e-9) == 0
    others: list[Any] = [-0.01, 1e300, 10**400, True, "0.1", None, [], math.nan, math.inf]
    for other in others:
        assert micros_of(other) is None


@pytest.mark.parametrize("text", ["\ud800", "\x00", "ä€😀", "\u2028", '"\\\n'])
def test_odd_characters_are_written_so_that_every_store_takes_them(text: str) -> None:
    written = dumps({text: [text]})
    assert "\x00" not in written
    assert json.loads(written.encode()) == {text: [text]}


@given(st.integers() | st.floats())
def test_an_amount_always_fits_64_bits(value: float) -> None:
    micros = micros_of(value)
    assert micros is None or 0 <= micros < 2**63


def test_booleans_and_mappings_are_taken_for_nothing_else() -> None:
    assert (boolean_of(True), boolean_of(False), boolean_of(0), boolean_of("true")) == (
        True,
        False,
        None,
        None,
    )
    assert mapping_of({"a": 1}) == {"a": 1}
    assert mapping_of([("a", 1)]) is None

"""The feed as a listener hears it: the other side of `receiver.feed`, held against it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import heard
from receiver.admin.stream import GONE
from receiver.feed import Place, Told
from receiver.heard import Heard, Messages, NotTheFeed, page_of
from receiver.platforms.reading import dumps
from tests.doubles import START

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def events(draw: st.DrawFn) -> Told:
    """Any event that could be told, under any names."""
    return Told(
        place=Place(draw(st.integers(1, 1 << 40)), draw(st.integers(0, 1 << 40))),
        id="evt_" + draw(st.text("0123456789abcdef", min_size=1, max_size=13)),
        seq=draw(st.integers(1, 1 << 40)),
        type=draw(st.sampled_from(["result.succeeded", "task.completed"])),
        task_id=draw(st.none() | st.uuids().map(str)),
        project=draw(WORDS),
        created_at=START,
        resent_at=draw(st.none() | st.just(START)),
        payload=dumps({"data": draw(ANY_JSON)}).encode(),
    )


def as_heard(told: Told) -> Heard:
    again = told.resent_at is not None
    return Heard(told.id, told.type, told.task_id, again, told.payload)


@given(told=st.lists(events(), max_size=5), cuts=st.lists(st.integers(1, 40), max_size=30))
def test_a_stream_is_read_as_it_was_told_whatever_pieces_it_comes_in(
    told: list[Told], cuts: list[int]
) -> None:
    text = b"retry: 2000\nid: 7\n\n" + b"".join(one.message for one in told)
    messages, found = Messages(), []
    for size in [*cuts, len(text)]:
        found += messages.take(text[:size])
        text = text[size:]
    first, *others = found
    assert (first.place, first.heard) == ("7", None)
    assert [one.place for one in others] == [str(one.place) for one in told]
    assert [one.heard for one in others] == [as_heard(one) for one in told]


@given(told=st.lists(events(), max_size=5))
def test_a_long_poll_is_read_as_it_was_told(told: list[Told]) -> None:
    items = b",".join(one.json for one in told)
    found, place = page_of(b'{"data":[' + items + b'],"next_cursor":"4.2"}')
    assert place == "4.2"
    assert found == [as_heard(one) for one in told]


def test_a_comment_is_no_event() -> None:
    (message,) = Messages().take(b": still here\n\n")
    assert (message.place, message.heard) == (None, None)


def test_why_a_stream_ends_is_no_event() -> None:
    (message,) = Messages().take(GONE)
    assert (message.place, message.heard) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        b"data: <html>\n\n",
        b"data: []\n\n",
        b'data: {"id":"evt_1"}\n\n',
        b'data: {"id":"evt_1","type":"a"}\n\n',
    ],
)
def test_what_is_no_event_is_refused(text: bytes) -> None:
    with pytest.raises(NotTheFeed):
        Messages().take(text)


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"{}", b"[]", b"\xff", b'{"next_cursor":"1"}', b'{"data":[{}],"next_cursor":1}'],
)
def test_what_is_no_page_is_refused(body: bytes) -> None:
    with pytest.raises(NotTheFeed):
        page_of(body)


def test_a_message_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heard, "LONGEST", 100)
    messages = Messages()
    messages.take(b"data: " + b"x" * 90)
    with pytest.raises(NotTheFeed, match="no end"):
        messages.take(b"x" * 10)


def test_an_event_shows_no_payload_in_an_error() -> None:
    told = Heard("evt_1", "result.failed", None, False, json.dumps({"data": "private"}).encode())
    assert "private" not in repr(told)

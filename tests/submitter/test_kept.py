"""What the ledger keeps of a request."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.kept import LARGEST, kept, missing

LARGE = "data:image/png;base64," + "iVBO" * LARGEST
BARE = base64.b64encode(bytes(range(256)) * 40).decode()

SMALL = [
    "https://cdn.example.com/" + "a/" * LARGEST,  # a URL is kept, however long
    "a long story. " * LARGEST,
    "data:image/png;base64,iVBO",
    "A" * LARGEST,
    "24cd5dff-cb81-4db5-8506-b72a9425f9d1",
]


@pytest.mark.parametrize(
    "text", [LARGE, BARE, BARE.replace("+", "-").replace("/", "_"), BARE + "\n"]
)
def test_of_large_media_a_digest_is_kept(text: str) -> None:
    found = kept({"inputs": {"frameImages": ({"image": text, "frame": "first"}, "a")}})
    mark = f"sha256:{hashlib.sha256(text.encode()).hexdigest()} ({len(text)} bytes)"
    assert found == {"inputs": {"frameImages": [{"image": mark, "frame": "first"}, "a"]}}
    assert [*missing(found)] == ["inputs.frameImages.0.image"]


@pytest.mark.parametrize("text", SMALL, ids=lambda text: text[:12])
def test_what_is_small_or_no_media_is_kept_as_it_is(text: str) -> None:
    assert kept({"a": [text]}) == {"a": [text]}
    assert [*missing(kept({"a": text}))] == []


def test_other_media_have_another_digest() -> None:
    assert kept({"image": LARGE}) == kept({"image": LARGE})
    assert kept({"image": LARGE}) != kept({"image": LARGE[:-1] + "P"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.just(LARGE),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_it_is_json_of_little_size_and_stable(request: dict[str, Any]) -> None:
    found = kept(request)
    assert found == json.loads(json.dumps(found)) == kept(found)
    assert LARGE not in json.dumps(found)
    assert len([*missing(found)]) == json.dumps(request).count(json.dumps(LARGE)[1:-1])

"""What every platform's parser must do. A new one passes this with a corpus of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.callbacks import read
from receiver.errors import Unreadable
from receiver.platforms import PARSERS, PLATFORMS, POLLED
from receiver.platforms.items import RETRYABLE, Category, Item, Kind
from receiver.platforms.reading import dumps, loads
from receiver.tokens import TokenBox, webhook_url
from tests.golden import Golden, folder, golden
from tests.make import KEY, OTHER, TASK, claims
from tests.strategies import JSON_SCALARS

RESULTS: Final = (Kind.SUCCEEDED, Kind.FAILED)
BODIES: Final = [body for platform in PLATFORMS for body in golden(platform)]
STRANGER: Final = "11111111-2222-4333-8444-555555555555"

each_platform = pytest.mark.parametrize("platform", sorted(PLATFORMS))
each_body = pytest.mark.parametrize("body", BODIES, ids=str)


def parsed(body: Golden, task: str | None = TASK) -> list[Item]:
    return PARSERS[body.platform](loads(body.body), task)


def described(item: Item) -> dict[str, Any]:
    """An item as the index has it."""
    found = {
        "kind": item.kind.value,
        "task": item.task_id,
        "key": item.key or None,
        "category": item.error and item.error.category.value,
        "cost": item.cost,
    }
    return {name: value for name, value in found.items() if value is not None}


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from objects(inner)


def backwards(value: Any) -> Any:
    """The same value with the names of each object in the opposite order."""
    if isinstance(value, list):
        return [backwards(inner) for inner in value]
    if isinstance(value, dict):
        return {name: backwards(value[name]) for name in reversed(value)}
    return value


def check(item: Item) -> None:
    """What holds for any item of any body."""
    assert (item.kind is Kind.FAILED) == (item.error is not None)
    assert (item.kind is Kind.SUCCEEDED) == bool(item.media)
    assert bool(item.key) == (item.kind in RESULTS)
    assert item.cost is None or (item.cost >= 0 and item.kind in RESULTS)
    assert isinstance(json.loads(item.raw), dict)
    for text in (item.raw, item.key, item.error and item.error.message, *map(str, item.media)):
        assert text is None or "\x00" not in text.encode().decode()


class PlatformSuite:
    """Over all of PLATFORMS."""

    # The corpus

    @each_platform
    def test_its_corpus_shows_every_kind_of_body(self, platform: str) -> None:
        kinds = {kind for body in golden(platform) for kind in body.kinds}
        assert kinds == {kind.value for kind in Kind}

    @each_platform
    def test_its_index_has_every_file_once(self, platform: str) -> None:
        files = [body.file for body in golden(platform)]
        assert len(set(files)) == len(files)
        assert {*files, "index.json"} == {path.name for path in folder(platform).iterdir()}

    @each_body
    def test_its_source_is_told_and_what_was_repaired(self, body: Golden) -> None:
        page, _, _ = body.source.partition(": ")
        assert page.endswith((".md", ".mdx", ".json")) or "://" in page or " " in page
        assert body.repair != ""
        assert not (body.repair and body.constructed)

    # Reading

    @each_body
    def test_a_documented_body_is_read(self, body: Golden) -> None:
        items = parsed(body, None)
        assert [described(item) for item in items] == body.items
        for item in items:
            check(item)

    @each_body
    def test_a_result_keeps_its_key_however_its_body_is_written(self, body: Golden) -> None:
        found = loads(body.body)
        wanted = [item.key for item in parsed(body)]
        for again in (found, backwards(found), json.loads(json.dumps(found, indent=4))):
            keys = [item.key for item in PARSERS[body.platform](again, TASK)]
            assert keys == wanted
        results = [key for key in wanted if key]
        assert len(set(results)) == len(results)

    @each_body
    def test_an_item_is_of_the_task_that_it_names_else_of_the_tokens(self, body: Golden) -> None:
        for task in (TASK, OTHER, STRANGER, None):
            owners = [item.task_id for item in parsed(body, task)]
            assert owners == [item.get("task", task) for item in body.items]

    @each_body
    def test_an_unknown_field_changes_nothing(self, body: Golden) -> None:
        found = loads(body.body)
        for place in list(objects(found)):
            place["somethingNew"] = {"a": [1, None]}
        items = PARSERS[body.platform](found, None)
        assert [described(item) for item in items] == body.items

    @each_body
    def test_no_item_carries_a_credential_that_its_body_echoes(self, body: Golden) -> None:
        token = TokenBox([KEY]).mint(claims(platform=body.platform))
        url = webhook_url("https://hooks.example.com", body.platform, token, {})
        static = "https://hooks.example.com/webhooks/x?apiKey=a-static-key-0123456789"
        found = loads(body.body)
        for place in list(objects(found)):
            place |= {"webhookURL": url, "callback": [static]}
            if isinstance(place.get("message"), str):
                place["message"] += f" {url} {static}"
        items, unreadable = read(body.platform, dumps(found).encode(), TASK)
        assert unreadable is None
        assert [item.kind.value for item in items] == body.kinds
        assert [item.key for item in items] == [item.key for item in parsed(body)]
        assert token not in str(items)
        assert "a-static-key" not in str(items)

    # What nobody documents

    @each_platform
    @pytest.mark.parametrize("body", [None, 7, 1.5, True, "text", [], {}, [1, None, "a"], [[{}]]])
    def test_what_is_no_body_is_unreadable(self, platform: str, body: Any) -> None:
        with pytest.raises(Unreadable) as caught:
            PARSERS[platform](body, TASK)
        assert caught.value.reason == "unknown_shape"

    @each_platform
    def test_an_object_of_another_world_is_unknown_and_of_the_tokens_task(
        self, platform: str
    ) -> None:
        (item,) = PARSERS[platform]({"hello": "world"}, TASK)
        assert (item.kind, item.task_id, json.loads(item.raw)) == (
            Kind.UNKNOWN,
            TASK,
            {"hello": "world"},
        )

    @each_platform
    @given(data=st.data())
    def test_a_body_of_which_anything_is_exchanged_is_items_or_unreadable(
        self, platform: str, data: st.DataObject
    ) -> None:
        found = loads(data.draw(st.sampled_from(golden(platform))).body)
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.sampled_from([found, *objects(found)]))
            if isinstance(place, dict) and place:
                place[data.draw(st.sampled_from(sorted(place)))] = data.draw(VALUES)
        try:
            items = PARSERS[platform](found, TASK)
        except Unreadable:
            return
        assert items
        for item in items:
            check(item)

    # Errors

    @each_platform
    @given(code=st.text())
    def test_any_code_has_a_category(self, platform: str, code: str) -> None:
        assert PLATFORMS[platform].categorise(code) in RETRYABLE

    @each_platform
    def test_a_code_that_nobody_knows_may_pass_with_time(self, platform: str) -> None:
        assert PLATFORMS[platform].categorise("whoKnowsWhat") is Category.SERVER

    @each_body
    def test_an_error_has_the_category_of_its_code_or_of_its_words(self, body: Golden) -> None:
        for item in parsed(body):
            if item.error is not None:
                assert item.error.retryable == RETRYABLE[item.error.category]
                assert item.error.message
                assert item.error.code

    # The description

    @each_platform
    def test_it_is_described_under_its_name(self, platform: str) -> None:
        known = PLATFORMS[platform]
        assert known.name == platform
        assert PARSERS[platform] is known.parse
        assert (platform in POLLED) == (not known.calls_back)


VALUES: Final = st.recursive(
    JSON_SCALARS | st.sampled_from([body.body for body in BODIES]).map(loads),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)

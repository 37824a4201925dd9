"""Which events an endpoint wants, and what may not be asked for."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from receiver.endpoints import (
    EndpointPatch,
    EndpointSpec,
    PreviewAsked,
    Subscription,
    as_patterns,
    check,
    facts_in,
    matches,
    subscription_of,
)
from receiver.errors import Invalid

FACTS = {
    "platform": "runware",
    "model": "pixverse:1@6",
    "status": "partial",
    "tags": {"team": "a.b", "empty": ""},
    "metadata": {"paid": True, "n": 5, "deep": {"x": 1}, "none": None, "list": ["a", 1]},
}
# RFC 9110 §7.6.1, what says something of our body, and what the sender writes.
OURS_TO_SEND = [
    *("Host", "HOST", "Content-Length", "Content-Type", "Content-Encoding", "content-md5"),
    *("Transfer-Encoding", "TE", "Trailer", "Connection", "Keep-Alive", "Upgrade", "Expect"),
    *("Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "Accept-Encoding"),
    *("User-Agent", "Date", "webhook-timestamp", "Webhook-Anything"),
]
TEXT = st.text(st.characters(exclude_characters="*"), max_size=10)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("result.succeeded", "result.succeeded", True),
        ("result.succeeded", "result.succeeded ", False),
        ("result.*", "result.failed", True),
        ("result.*", "task.completed", False),
        ("*.completed", "task.completed", True),
        ("*.completed", "task.completed.x", False),
        ("*verse*", "pixverse:1@6", True),
        ("*verse*", "runware", False),
        ("*", "", True),
        ("*", "anything", True),
        ("", "", True),
    ],
)
def test_a_star_at_an_end_stands_for_anything(pattern: str, text: str, found: bool) -> None:
    assert matches(pattern, text) is found


@given(TEXT, TEXT, TEXT)
def test_a_pattern_matches_what_was_put_around_it(before: str, core: str, after: str) -> None:
    whole = before + core + after
    assert matches(f"*{core}*", whole)
    assert matches(f"{before}*", whole)
    assert matches(f"*{after}", whole)
    assert matches(core, core)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, True),
        ({"platform": ("runware",)}, True),
        ({"platform": ("nanogpt",)}, False),
        ({"platform": ("nanogpt", "run*")}, True),
        ({"model": ("pixverse:*",), "status": ("partial", "failed")}, True),
        ({"model": ("pixverse:*",), "status": ("failed",)}, False),
        ({"tags.team": ("a.b",)}, True),
        ({"tags.empty": ("",)}, True),
        ({"tags.other": ("*",)}, False),
        ({"metadata.paid": ("true",)}, True),
        ({"metadata.n": ("5",)}, True),
        ({"metadata.list": ('["a",1]',)}, True),
        ({"metadata.list": ('*"a"*',)}, True),
        ({"metadata.deep": ('{"x":1}',)}, True),
        ({"metadata.none": ("*",)}, False),
        ({"metadata.missing": ("*",)}, False),
    ],
)
def test_all_filters_must_hold(filters: dict[str, tuple[str, ...]], wanted: bool) -> None:
    assert Subscription(1, "default", ("*",), filters).wants("result.failed", FACTS) is wanted


def test_one_of_the_event_types_is_enough() -> None:
    subscription = Subscription(1, "default", ("task.*", "result.failed"))
    assert subscription.wants("task.completed", FACTS)
    assert subscription.wants("result.failed", FACTS)
    assert not subscription.wants("result.succeeded", FACTS)


def test_a_task_without_a_model_matches_no_filter_on_it() -> None:
    facts = {**FACTS, "model": None}
    assert not Subscription(1, "default", ("*",), {"model": ("*",)}).wants("x", facts)


@pytest.mark.parametrize("fields", [{"filters": {name: "a"}} for name in
    ("model", "tags.a", "metadata.a.b")] + [
    {"filters": {"platform": ["runware", "nano*"], "status": "*ed"}},
    {"event_types": ["result.*", "*.completed", "*", "task.overdue"]},
    {"headers": {"X-Api-Key": "k", "Authorization": "Bearer x"}},
    {"filters": {"model": ["a", "b*"]}},
])  # fmt: skip
def test_what_can_work_is_accepted(fields: dict[str, Any]) -> None:
    check(EndpointSpec(url="https://example.com", **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"filters": {"project": "a"}},
        {"filters": {"tags": "a"}},
        {"filters": {"tag.a": "a"}},
        {"filters": {"model": ""}},
        {"filters": {"model": ["a", "b*c"]}},
        {"event_types": ["re*ult"]},
        {"event_types": ["**"]},
        {"event_types": [""]},
        {"event_types": ["result.*", "results.*"]},
        {"event_types": ["task.complete"]},
        {"filters": {"platform": "Runware"}},
        {"filters": {"platform": ["runware", "nan"]}},
        {"filters": {"status": "complete"}},
        {"filters": {"tags.": "a"}},
        {"filters": {"metadata.": "a"}},
        {"filters": {".": "a"}},
        {"headers": {"Host": "a"}},
        {"headers": {"webhook-signature": "a"}},
        {"headers": {"WEBHOOK-ID": "a"}},
        *[{"headers": {name: "1"}} for name in OURS_TO_SEND],
        {"headers": {"X-A": "1", "x-a": "2"}},
        {"headers": {"x-a": "1", "X-A": "2"}},
        {"headers": {"a" * 101: "1"}},
        {"headers": {"a:": "1"}},
        {"headers": {"a\n": "1"}},
        {"headers": {"": "a"}},
        {"headers": {"a b": "a"}},
        {"headers": {"a\r\nb": "a"}},
        {"headers": {"ä": "a"}},
        {"headers": {"a": "b\r\nc: d"}},
        {"headers": {"a": "\x00"}},
        {"headers": {"a": "b\n"}},
        {"headers": {"a": "b\rc"}},
        {"headers": {"a": "\x7f"}},
        {"headers": {"a": "ä"}},
        {"headers": {"a": "x" * 4_097}},
    ],
)
def test_what_could_never_work_is_invalid_and_says_which_field(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        check(EndpointSpec(url="https://example.com", **fields))
    assert str(caught.value.evidence["parameter"]).startswith(next(iter(fields)))


def test_a_filter_without_a_value_is_invalid() -> None:
    with pytest.raises((Invalid, ValidationError)):
        check(EndpointSpec(url="https://example.com", filters={"model": []}))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"url": 5},
        {"url": "x", "event_types": []},
        {"url": "x", "rate_limit": 0},
        {"url": "x", "rate_limit": float("nan")},
        {"url": "x", "rate_limit": float("inf")},
        {"url": "x", "concurrency": 0},
        {"url": "x", "concurrency": 1_001},
        {"url": "x", "schedule": []},
        {"url": "x", "schedule": [-1]},
        {"url": "x", "schedule": [8 * 86_400]},
        {"url": "x", "secret": "whsec_mine"},
        {"url": "x", "signatures": []},
        {"url": "x", "signatures": ["v1a"]},
        {"url": "x", "signatures": ["v1", "v2"]},
        {"url": "x", "signatures": None},
        {"url": "x", "state": "enabled"},
    ],
)
def test_fields_have_their_bounds_and_others_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EndpointSpec.model_validate(fields)


def test_a_patch_names_what_it_changes_and_nothing_else() -> None:
    patch = EndpointPatch.model_validate({"rate_limit": None, "url": "https://a.example"})
    assert patch.model_dump(exclude_unset=True) == {"rate_limit": None, "url": "https://a.example"}
    with pytest.raises(ValidationError):
        EndpointPatch.model_validate({"state": "paused"})


def test_null_in_a_patch_means_the_default_but_for_the_url() -> None:
    current = EndpointSpec(
        url="https://a.example", headers={"X-A": "1"}, concurrency=3, schedule=[1]
    )
    cleared = EndpointPatch(headers=None, concurrency=None, schedule=None).of(current)
    assert cleared == EndpointSpec(url="https://a.example")
    assert EndpointPatch().of(current) == current
    assert EndpointPatch(url="https://b.example").of(current).headers == {"X-A": "1"}
    with pytest.raises(ValidationError):
        EndpointPatch(url=None).of(current)
    with pytest.raises(ValidationError):
        EndpointPatch(concurrency=0).of(current)


def test_signatures_are_a_set_with_v1_in_it() -> None:
    asked = EndpointSpec.model_validate({"url": "x", "signatures": ["v1a", "v1", "v1a"]})
    assert asked.signatures == ["v1", "v1a"]


@given(name=st.text(max_size=8), value=st.text(max_size=8))
def test_whatever_header_is_accepted_is_one_line_of_a_request(name: str, value: str) -> None:
    try:
        check(EndpointSpec(url="https://example.com", headers={name: value}))
    except Invalid:
        return
    line = f"{name}: {value}"
    assert re.fullmatch(r"[!-9;-~]+: [\t -~]*", line)
    assert not name.lower().startswith(("webhook-", "content-", "proxy-"))


def test_a_subscription_that_is_not_there_yet_wants_what_one_would() -> None:
    asked = PreviewAsked(event_types=["result.*"], filters={"tags.team": ["a*", "c"]})
    subscription = subscription_of(asked, "default")
    assert subscription.wants("result.failed", FACTS)
    assert not subscription.wants("task.overdue", FACTS)
    assert not subscription.wants("result.failed", {**FACTS, "tags": {"team": "b"}})


def test_an_event_about_no_task_has_nothing_to_filter_by() -> None:
    assert facts_in({"type": "endpoint.test", "data": {}}) == {}
    assert facts_in({"data": {"task": {"model": "m"}}}) == {"model": "m"}


def test_one_value_is_a_list_of_one() -> None:
    assert as_patterns("a") == as_patterns(["a"]) == ("a",)


@pytest.mark.parametrize(
    ("pattern", "reached"),
    [
        ("*", {"result.succeeded", "task.completed"}),
        ("*ed", {"result.succeeded", "task.completed"}),
        ("*.exhausted", set()),
        ("delivery.exhausted", {"delivery.exhausted"}),
        ("delivery.*", {"delivery.exhausted"}),
        ("e*", {"endpoint.disabled"}),
        ("endpoint.test", set()),
    ],
)
def test_what_the_receiver_tells_of_itself_is_for_those_who_named_it(
    pattern: str, reached: set[str]
) -> None:
    kinds = (
        "result.succeeded",
        "task.completed",
        "endpoint.disabled",
        "delivery.exhausted",
        "endpoint.test",
    )
    wants = Subscription(1, "default", (pattern,)).wants
    assert {kind for kind in kinds if wants(kind, {})} == reached
    spec = EndpointSpec(url="https://example.com", event_types=[pattern])
    if reached:
        check(spec)
    else:
        with pytest.raises(Invalid, match="matches nothing"):
            check(spec)

"""The simulator's pure half: tables of tasks, shapes and plans."""

from __future__ import annotations

import json
from collections.abc import Container
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from submitter.simulator import contract, desk, plans
from submitter.simulator.app import published_pairs
from submitter.simulator.config import Knobs
from submitter.simulator.jobs import without_query

ID = "7f0a1e5e-52a7-4f5a-9d0e-0a4c6b1f2d3e"
Json = dict[str, Any]


def a_task(**changes: Any) -> Json:
    task: Json = {
        "taskType": "videoInference",
        "taskUUID": ID,
        "model": "pixverse:1@2",
        "positivePrompt": "a paper boat",
    }
    return {key: value for key, value in {**task, **changes}.items() if value is not ...}


def a_setting(seed: int = 1, ordinal: int = 0, **knobs: Any) -> plans.Setting:
    published = plans.by_task(published_pairs())
    return plans.Setting(Knobs(**knobs), plans.Dice(seed, ordinal), "http://sim", published)


def fault_of(task: Json, known: Container[str] = (), **knobs: Any) -> Json | None:
    return desk.fault_of(task, Knobs(**knobs), known)


def bodies(task: Json, **knobs: Any) -> list[Json]:
    outcomes = plans.plan(task, a_setting(**knobs))
    return [json.loads(body) for outcome in outcomes for body in outcome.bodies]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"taskUUID": ...}, "missingTaskUUID"),
        ({"taskUUID": "7f0a1e5e"}, "invalidTaskUUID"),
        ({"taskUUID": f"{{{ID}}}"}, "invalidTaskUUID"),
        ({"taskUUID": 7}, "invalidTaskUUID"),
        ({"taskUUID": "019c42a0-c3ff-7138-be83-ee257abc5331"}, None),
        ({"model": ...}, "missingModel"),
        ({"model": 5}, "invalidModel"),
        ({"positivePrompt": ...}, "missingPositivePrompt"),
        ({"positivePrompt": "a"}, "invalidPositivePrompt"),
        ({"positivePrompt": "ab"}, None),
        ({"positivePrompt": "a" * 2048}, None),
        ({"positivePrompt": "a" * 2049}, "invalidPositivePrompt"),
        ({"negativePrompt": "b"}, "invalidNegativePrompt"),
        ({"numberResults": 0}, "invalidNumberResults"),
        ({"numberResults": 4}, None),
        ({"numberResults": 5}, "invalidNumberResults"),
        ({"numberResults": True}, "invalidNumberResults"),
        ({"numberResults": "2"}, "invalidNumberResults"),
        ({"deliveryMethod": "async"}, None),
        ({"deliveryMethod": "sync"}, "invalidDeliveryMethod"),
        ({"ttl": 59}, "invalidTtl"),
        ({"ttl": 60}, None),
        ({"ttl": 60.5}, "invalidTtl"),
        ({"includeCost": "yes"}, "invalidIncludeCost"),
        ({"webhookURL": "https://receiver.example/webhooks/runware?sig=x"}, None),
        ({"webhookURL": "http://127.0.0.1:8000/x"}, None),
        ({"webhookURL": "receiver.example/x"}, "invalidWebhookURL"),
        ({"webhookURL": "ftp://receiver.example/x"}, "invalidWebhookURL"),
        ({"webhookURL": "https://"}, "invalidWebhookURL"),
        ({"webhookURL": "https://receiver.example:99999/"}, "invalidWebhookURL"),
        ({"webhookURL": "https://[::1"}, "invalidWebhookURL"),
        ({"webhookURL": None}, "invalidWebhookURL"),
        ({"duration": 5}, None),
        ({"duration": 8.0}, None),
        ({"duration": 6}, "unsupportedDuration"),
        ({"duration": 5.5}, "unsupportedDuration"),
        ({"duration": 10}, "unsupportedDuration"),
        ({"duration": "5"}, "invalidDuration"),
        ({"duration": True}, "invalidDuration"),
        ({"duration": 10, "model": "pixverse:1@6"}, None),
        ({"duration": 10, "model": "pixverse:1@6", "resolution": "1080p"}, "unsupportedDuration"),
        (
            {"duration": 10, "model": "pixverse:1@6", "width": 1080, "height": 1920},
            "unsupportedDuration",
        ),
        ({"duration": 10, "model": "pixverse:1@6", "width": 1280, "height": 720}, None),
        ({"duration": 99, "model": "other:1@1"}, None),
    ],
)
def test_a_task_is_checked(changes: Json, code: str | None) -> None:
    fault = fault_of(a_task(**changes))
    assert (fault and fault["code"]) == code


def test_an_unsupported_duration_names_the_allowed_ones() -> None:
    fault = fault_of(a_task(duration=6))
    assert fault is not None
    assert fault["allowedValues"] == [5, 8]
    assert (fault["parameter"], fault["taskUUID"]) == ("duration", ID)


def test_a_used_task_uuid_is_a_conflict_in_any_case_of_letters() -> None:
    fault = fault_of(a_task(taskUUID=ID.upper()), {ID})
    assert fault is not None
    assert fault["code"] == "conflictTaskUUID"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalidJson"),
        (b"{", "invalidJson"),
        (b"\xff", "invalidJson"),
        (b"[" * 100_000, "invalidJson"),
        (b"{}", "invalidRequest"),
        (b"[]", "invalidRequest"),
        (b'"x"', "invalidRequest"),
    ],
)
def test_a_body_must_be_an_array_of_tasks(body: bytes, code: str) -> None:
    fault = contract.read(body)
    assert isinstance(fault, dict)
    assert fault["code"] == code


AUTH = {"taskType": "authentication"}


@pytest.mark.parametrize(
    ("header", "first", "api_key", "passes"),
    [
        ("Bearer k", {}, None, True),
        ("bearer k", {}, "k", True),
        ("Bearer other", {}, "k", False),
        ("Bearer ", {}, None, False),
        ("Basic k", {}, None, False),
        (None, {}, None, False),
        (None, {**AUTH, "apiKey": "k"}, None, True),
        (None, {**AUTH, "apiKey": "k"}, "k", True),
        (None, {**AUTH, "apiKey": "other"}, "k", False),
        (None, {**AUTH, "apiKey": ""}, None, False),
        (None, AUTH, None, False),
    ],
)
def test_a_key_comes_by_header_or_first_task(
    header: str | None, first: Json, api_key: str | None, passes: bool
) -> None:
    fault = contract.authenticate(header, [first], api_key)
    assert (fault is None) == passes
    assert passes or (fault and fault["code"] == "invalidApiKey" and fault["taskType"])


@pytest.mark.parametrize(
    ("changes", "cost"),
    [
        ({"duration": 8}, 0.299),
        ({"duration": 5}, 0.15),
        ({"model": "pixverse:1@6"}, 0.4715),
        ({"model": "other:1@1"}, 0.18),
    ],
)
def test_a_price_is_one_of_the_published_ones(changes: Json, cost: float) -> None:
    assert contract.price(a_task(**changes)) == cost
    assert bodies(a_task(includeCost=True, **changes))[0]["data"][0]["cost"] == cost
    assert "cost" not in bodies(a_task(**changes))[0]["data"][0]


def test_success_envelopes() -> None:
    (wrapped,) = bodies(a_task(), envelope="wrapped")
    (flat,) = bodies(a_task(), envelope="flat")
    assert set(wrapped) == {"data"}
    assert flat == {**wrapped["data"][0], "status": "success"}
    shapes = {next(iter(body)) for n in range(9) for body in bodies_of(n, envelope="mixed")}
    assert shapes == {"data", "taskType"}


def bodies_of(ordinal: int, **knobs: Any) -> list[Json]:
    outcomes = plans.plan(a_task(), a_setting(ordinal=ordinal, **knobs))
    return [json.loads(body) for outcome in outcomes for body in outcome.bodies]


@pytest.mark.parametrize(
    ("envelope", "path"),
    [
        ("errors", ("errors", 0)),
        ("error", ("error",)),
        ("flat", ()),
        ("item", ("data", 0, "error")),
    ],
)
def test_error_envelopes(envelope: str, path: tuple[str | int, ...]) -> None:
    (body,) = bodies(a_task(model=plans.FAILING), error_envelope=envelope)
    assert ID in json.dumps(body)
    found: Any = body
    for step in path:
        found = found[step]
    assert found["code"] == "timeoutProvider"


def test_the_last_result_of_the_partial_model_fails() -> None:
    task = a_task(model=plans.PARTIAL, numberResults=3)
    outcomes = plans.plan(task, a_setting())
    assert [each.item["status"] for each in outcomes] == ["success", "success", "error"]


def test_the_same_seed_gives_the_same_plan() -> None:
    task = a_task(numberResults=4)
    knobs: Json = {"failures": 0.5, "duplicates": 0.5, "drop": 0.3, "envelope": "mixed"}
    assert plans.plan(task, a_setting(**knobs)) == plans.plan(task, a_setting(**knobs))
    other = plans.plan(task, a_setting(seed=2, **knobs))
    assert other != plans.plan(task, a_setting(**knobs))


def test_a_knob_does_not_move_the_ids() -> None:
    task = a_task(numberResults=4)
    calm, wild = a_setting(), a_setting(duplicates=1, extra_fields=True, delay_s=9)
    ids = [[each.media_id for each in plans.plan(task, setting)] for setting in (calm, wild)]
    assert ids[0] == ids[1]


def test_results_are_shuffled_or_in_order() -> None:
    shuffled = {tuple(t for t, _ in plans.waits(4, a_setting(ordinal=n))) for n in range(9)}
    assert len(shuffled) > 1
    turns = plans.waits(4, a_setting(order="in_order", delay_s=2, spread_s=1))
    assert [turn for turn, _ in turns] == [0, 1, 2, 3]
    seconds = [wait for _, wait in turns]
    assert seconds == sorted(seconds)
    assert 1 <= seconds[0] <= seconds[-1] <= 3


def test_an_early_callback_does_not_wait() -> None:
    setting = a_setting(callback_before_ack=True, delay_s=60)
    assert [wait for _, wait in plans.waits(2, setting)] == [0, 0]


def test_an_exact_duplicate_is_the_same_bytes() -> None:
    (outcome,) = plans.plan(a_task(), a_setting(duplicates=1, duplicate_count=3))
    assert len(outcome.bodies) == 4
    assert len(set(outcome.bodies)) == 1


def test_a_reordered_duplicate_says_the_same_in_other_bytes() -> None:
    (outcome,) = plans.plan(a_task(), a_setting(duplicates=1, duplicate_kind="reordered"))
    first, copy = outcome.bodies
    assert first != copy
    assert json.loads(first) == json.loads(copy)


@pytest.mark.parametrize(("asked", "field"), [(True, "cost"), (False, "seed")])
def test_a_conflict_has_another_cost_or_else_seed(asked: bool, field: str) -> None:
    knobs: Json = {"duplicates": 1, "duplicate_kind": "conflict"}
    first, copy = (body["data"][0] for body in bodies(a_task(includeCost=asked), **knobs))
    assert {key for key in first if first[key] != copy[key]} == {field}


def test_odd_fields() -> None:
    knobs: Json = {"include_nsfw": True, "big_seeds": True, "extra_fields": True}
    item = bodies(a_task(), **knobs)[0]["data"][0]
    assert item["seed"] > 2**31 - 1
    assert isinstance(item["NSFWContent"], bool)
    assert item["timings"]["steps"] == [1, 2]


def test_a_dropped_result_has_no_bodies() -> None:
    assert bodies(a_task(numberResults=4), drop=1, duplicates=1) == []


def test_the_asked_seed_is_that_of_the_first_result() -> None:
    first, second = bodies(a_task(seed=44, numberResults=2))
    assert first["data"][0]["seed"] == 44
    assert second["data"][0]["seed"] != 44


def test_an_image_task_gives_images() -> None:
    item = bodies(a_task(taskType="imageInference"))[0]["data"][0]
    assert item["imageURL"] == f"http://sim/image/{item['imageUUID']}.jpg"


@pytest.mark.parametrize("pair", published_pairs(), ids=lambda pair: str(pair["name"]))
def test_a_published_task_gives_the_published_result(pair: Json) -> None:
    assert fault_of(pair["request"]) is None
    item = bodies(pair["request"])[0]["data"][0]
    assert item == {**pair["response"], "videoURL": f"http://sim/video/{item['videoUUID']}.mp4"}


def test_there_are_nine_published_pairs() -> None:
    pairs = published_pairs()
    assert len({pair["request"]["taskUUID"] for pair in pairs}) == 9
    assert len({pair["name"] for pair in pairs}) == 9


def test_retries_double_from_a_quarter_second_to_eight() -> None:
    delays = [contract.retry_delay(retry, Random(retry)) for retry in range(1, 10)]
    for delay, full in zip(delays, [0.25, 0.5, 1, 2, 4, 8, 8, 8, 8], strict=True):
        assert 0.75 * full <= delay <= full


@pytest.mark.parametrize(
    "wrong",
    [{"drop": 2}, {"nope": 1}, {"envelope": "x"}, {"max_attempts": 0}, {"submit_status": 200}],
)
def test_a_wrong_knob_is_refused(wrong: Json) -> None:
    with pytest.raises(ValidationError):
        Knobs().changed(wrong)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (None, None),
        ("https://r.example/webhooks/runware?sig=secret", "https://r.example/webhooks/runware"),
        ("https://u:secret@r.example:8/x#secret", "https://r.example:8/x"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str | None, shown: str | None) -> None:
    assert without_query(url) == shown

"""Every body that any source shows Runware to send, and what is made of it."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runware import errors as sdk

from receiver.errors import Unreadable
from receiver.platforms import PARSERS
from receiver.platforms.items import RETRYABLE, Category, Item, Kind
from receiver.platforms.runware import categorise, parse
from tests.make import OTHER, TASK, failure, processing, success, uuid
from tests.strategies import JSON_SCALARS

VIDEO = uuid(1)


def kinds(items: list[Item]) -> list[str]:
    return [item.kind.value for item in items]


def one(body: Any, task: str | None = TASK) -> Item:
    (item,) = parse(body, task)
    return item


@pytest.mark.parametrize(
    ("envelope", "expected"),
    [
        (success(), ["succeeded"]),
        ({"data": [success(1), success(2)]}, ["succeeded", "succeeded"]),
        ({"data": success()}, ["succeeded"]),
        (failure(), ["failed"]),
        ({"errors": [failure(), failure("x")]}, ["failed", "failed"]),
        ({"errors": failure()}, ["failed"]),
        ({"data": [], "errors": [failure()]}, ["failed"]),
        ({"data": None, "errors": [failure()]}, ["failed"]),
        ({"data": [success()], "errors": [failure()]}, ["succeeded", "failed"]),
        ({"data": [success()], "error": failure()}, ["succeeded", "failed"]),
        ({"error": {"code": "x", "message": "y"}, "taskUUID": TASK}, ["failed"]),
        ({"error": [{"code": "x"}, {"code": "y"}], "taskUUID": TASK}, ["failed", "failed"]),
        ({"data": [{"taskUUID": TASK, "error": {"code": "x", "message": "y"}}]}, ["failed"]),
        ([success(1), failure(), processing()], ["succeeded", "failed", "progress"]),
        (processing(), ["progress"]),
        ({"data": [processing(progress=47)]}, ["progress"]),
        ({"taskUUID": TASK, "progress": 47}, ["progress"]),
        ({"data": [success(), processing()]}, ["succeeded", "progress"]),
        ({"taskUUID": TASK, "taskType": "videoInference"}, ["unknown"]),
        ({"hello": "world"}, ["unknown"]),
    ],
)
def test_every_envelope_is_read(envelope: Any, expected: list[str]) -> None:
    assert kinds(parse(envelope, TASK)) == expected


@pytest.mark.parametrize(
    "body", [None, 1, 1.5, True, "text", [], {}, [1, "a", None], {"data": []}, {"data": ["a", 1]},
             {"data": [], "errors": []}, {"data": None}, {"error": []}, [[success()]]]
)  # fmt: skip
def test_a_body_without_any_item_is_unreadable(body: Any) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(body, TASK)
    assert caught.value.reason == "unknown_shape"


@pytest.mark.parametrize("status", ["processing", "Pending", "queued", "running", "progress"])
def test_work_under_way_is_no_result(status: str) -> None:
    assert one({"taskUUID": TASK, "status": status}).kind is Kind.PROGRESS


def test_work_under_way_is_no_result_even_when_its_media_are_named_already() -> None:
    item = processing(videoUUID=VIDEO)
    assert one(item).kind is Kind.PROGRESS


def test_a_success_needs_no_status() -> None:
    item = success()
    del item["status"]
    assert one(item).kind is Kind.SUCCEEDED


@pytest.mark.parametrize("name", ["video", "image", "audio", "media"])
def test_a_result_is_known_by_the_id_of_its_media(name: str) -> None:
    item = one({f"{name}UUID": VIDEO.upper(), f"{name}URL": "https://x/y.mp4?a=1"})
    assert item.key == f"{name}:{VIDEO}"
    assert (item.media[0].kind, item.media[0].url) == (name, "https://x/y.mp4?a=1")


def test_a_result_without_an_id_is_known_by_its_url_without_the_query() -> None:
    first, again = (
        one({"videoURL": "https://x/y.mp4?s=1"}),
        one({"videoURL": "https://x/y.mp4?s=2"}),
    )
    assert first.key == again.key == "video:https://x/y.mp4"


def test_a_result_may_have_several_media() -> None:
    item = one(success(imageUUID=uuid(9)))
    assert [part.kind for part in item.media] == ["video", "image"]
    assert item.key == f"video:{VIDEO}"


def test_the_values_of_a_result_are_taken() -> None:
    item = one(success(NSFWContent=False))
    assert (item.seed, item.cost, item.nsfw) == (44_372, 471_500, False)
    assert json.loads(item.raw) == success(NSFWContent=False)


@pytest.mark.parametrize("seed", [0, 2**31, 2**63, 2**64 + 1, 10**400])
def test_a_seed_is_never_capped(seed: int) -> None:
    assert one(success(seed=seed)).seed == seed


@pytest.mark.parametrize("value", ["0.1", -1, True, [], {}, 1e300])
def test_a_cost_that_is_no_amount_does_not_spoil_the_result(value: Any) -> None:
    item = one(success(cost=value))
    assert (item.kind, item.cost) == (Kind.SUCCEEDED, None)


@pytest.mark.parametrize("value", [None, "x", 1.5, [], {}, True])
def test_values_of_the_wrong_type_do_not_spoil_the_result(value: Any) -> None:
    item = one(success(seed=value, NSFWContent=1, videoURL=5, status=7))
    assert (item.kind, item.seed, item.nsfw, item.media[0].url) == (
        Kind.SUCCEEDED,
        None,
        None,
        None,
    )


def test_an_item_names_its_task_or_has_the_envelopes_or_the_tokens() -> None:
    assert one(success(task=TASK.upper())).task_id == TASK
    assert one(success(task=OTHER)).task_id == OTHER
    nameless = success()
    del nameless["taskUUID"]
    assert one({"data": [nameless], "taskUUID": OTHER}).task_id == OTHER
    assert one({"data": [nameless]}).task_id == TASK
    assert one({"data": [nameless]}, None).task_id is None
    for odd in ("", None, 5, ["x"]):
        assert one({**nameless, "taskUUID": odd}).task_id == TASK


def test_equal_errors_of_one_body_are_told_apart_by_their_ordinal() -> None:
    items = parse({"errors": [failure("a"), failure("b"), failure("a")]}, TASK)
    assert [item.key for item in items] == ["error:a:0", "error:b:0", "error:a:1"]


def test_equal_errors_of_two_tasks_in_one_body_are_counted_apart() -> None:
    items = parse({"errors": [failure("a"), failure("a", OTHER)]}, TASK)
    assert [item.key for item in items] == ["error:a:0", "error:a:0"]


def test_an_error_keeps_its_words() -> None:
    error = one(failure("timeoutProvider", message="Too late.")).error
    assert error is not None
    assert (error.code, error.category, error.message, error.retryable) == (
        "timeoutProvider",
        Category.TIMEOUT,
        "Too late.",
        True,
    )


@pytest.mark.parametrize(
    "item", [{"status": "error"}, {"status": "ERROR", "code": 5}, {"error": {}, "code": "outer"}]
)
def test_an_error_without_a_code_is_an_unknown_one(item: dict[str, Any]) -> None:
    error = one(item).error
    assert error is not None
    assert (error.code, error.category) == ("unknownError", Category.SERVER)


def test_texts_of_an_error_are_bounded_and_fit_for_a_column() -> None:
    error = one(failure("\ud800" + "c" * 500, message="m\x00" * 5_000)).error
    assert error is not None
    assert len(error.code) == 100
    assert len(error.message) == 2_000
    assert "\x00" not in error.message
    error.code.encode()


CODES = {
    Category.VALIDATION: (
        "invalidPositivePrompt missingPositivePrompt unsupportedDuration invalidDuration"
        " valueTooLarge conflictTaskUUID duplicateTaskUUID arrayTooLong maxLength unknownParameter"
        " incompatibleParameters mismatchProviderSettingsProvider unknownProviderSettingsProvider"
        " validationFailed invalidWidth"
    ),
    Category.AUTH: (
        "invalidApiKey missingApiKey unauthorized forbidden permissionDenied"
        " insufficientPermissions authenticationFailed tokenExpired accountSuspended"
        " organizationDisabled workspaceNotFound"
    ),
    Category.QUOTA: (
        "insufficientCredits providerInsufficientCredits thirdPartyInsufficientCredits"
        " quotaExceeded insufficientBalance paymentRequired"
    ),
    Category.RATE_LIMIT: (
        "rateLimitExceeded inferenceRateLimitExceeded providerRateLimitExceeded"
        " inferenceRateLimitRequestTooLarge"
    ),
    Category.SAFETY: (
        "contentPolicyViolation providerContentPolicyViolation sensitiveContentDetected"
        " unsafeContentDetected nsfwContentDetected promptBlocked imageBlocked moderationFailed"
    ),
    Category.TIMEOUT: (
        "timeout timeoutProvider providerTimeout providerGatewayTimeout webhookTimeout"
    ),
    Category.NOT_FOUND: (
        "taskNotFound taskExpired mediaExpired taskCancelled taskFailedOrNotFound modelNotFound"
    ),
    Category.PROVIDER: (
        "providerError providerUnavailable providerBadGateway inferenceError processingFailed"
        " taskFailed downloadFailed uploadFailed noAvailableServer modelUnavailable"
        " mediaStorageFileCouldNotBeMoved"
    ),
    Category.SERVER: (
        "internalServerError serviceUnavailable standardError unknownError whoKnowsWhat"
    ),
}


@pytest.mark.parametrize(
    ("code", "category"),
    [(code, category) for category, codes in CODES.items() for code in codes.split()],
)
def test_a_code_has_a_category(code: str, category: Category) -> None:
    assert categorise(code) is category
    assert categorise(code.upper()) is category


# As the platform's own client sorts them; what only the client itself raises is left out.
SORTED: Final = sorted(
    {code for name, codes in vars(sdk).items() if name.endswith("_CODES") for code in codes}
    - sdk._SDK_ONLY_RAW_CODES
    - sdk._RETRYABLE_CODES
    | {"unknownModel", "missingApiKey", "environmentPaused", "invalidWidth"}
)
SDK_NAMES: Final = {"rateLimit": "rate_limit", "notFound": "not_found", "serverError": "server"}


@pytest.mark.parametrize("code", SORTED)
def test_a_code_has_the_category_that_the_platforms_own_client_gives_it(code: str) -> None:
    theirs = sdk.derive_code(code)
    assert categorise(code).value == SDK_NAMES.get(theirs, theirs)
    assert RETRYABLE[categorise(code)] == sdk.is_retryable(theirs)


def test_each_category_says_whether_asking_again_may_help() -> None:
    assert set(RETRYABLE) == set(Category) == set(CODES)
    again = {category for category, retryable in RETRYABLE.items() if retryable}
    assert again == {Category.RATE_LIMIT, Category.TIMEOUT, Category.PROVIDER, Category.SERVER}


NAMES = ["data", "errors", "error", "taskUUID", "status", "code", "message", "progress"]
NAMES += ["videoUUID", "videoURL", "mediaURL", "seed", "cost", "NSFWContent"]
VALUES = st.recursive(
    JSON_SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=15,
)


@given(VALUES)
def test_anything_is_items_or_unreadable(body: Any) -> None:
    try:
        items = parse(body, TASK)
    except Unreadable:
        return
    assert items
    for item in items:
        item.raw.encode()
        assert (item.kind is Kind.FAILED) == (item.error is not None)
        assert (item.kind is Kind.SUCCEEDED) == bool(item.media)
        assert bool(item.key) == (item.kind in (Kind.SUCCEEDED, Kind.FAILED))
        item.key.encode()


def test_every_platform_that_the_door_knows_has_a_parser() -> None:
    assert PARSERS["runware"] is parse

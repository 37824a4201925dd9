"""Every answer that any source shows NanoGPT to give, and what is made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import Unreadable
from receiver.platforms.items import Category, Item, Kind, Media
from receiver.platforms.nanogpt import categorise, error_of, is_end_of_run, parse
from tests.make import TASK
from tests.strategies import JSON_SCALARS

RUN = "vid_m1abc123def456"
URL = "https://storage.example.com/video.mp4"
ACK = {
    "runId": RUN,
    "id": RUN,
    "status": "pending",
    "model": "veo2-video",
    "cost": 0.35,
    "paymentSource": "XNO",
    "remainingBalance": 12.5,
    "prechargeLabel": "string",
}


def one(body: Any, task: str | None = TASK) -> Item:
    (item,) = parse(body, task)
    return item


def guide(status: str, **more: Any) -> dict[str, Any]:
    """A status as the guide has it."""
    return {"requestId": RUN, "model": "sora-2", "data": {"status": status, **more}}


def legacy(status: str, **more: Any) -> dict[str, Any]:
    """A status of the legacy route."""
    return {"data": {"status": status, "request_id": RUN, **more}}


def unified(status: str, **more: Any) -> dict[str, Any]:
    """A status as the OpenAPI file has it: every name is there, null where nothing is known."""
    none = dict.fromkeys(("videoUrl", "error", "createdAt", "completedAt", "progress"))
    return {"requestId": RUN, "status": status, **none, **more}


def failed(body: Any) -> tuple[str, Category]:
    """The code and category of a failure."""
    item = one(body)
    assert item.kind is Kind.FAILED
    assert item.error is not None
    return item.error.code, item.error.category


VIDEO = {"output": {"video": {"url": URL}}}
DONE = (
    guide("COMPLETED", cost=0.35, **VIDEO),
    legacy("COMPLETED", cost=0.35, **VIDEO),
    unified("completed", videoUrl=URL, progress=100),
)


@pytest.mark.parametrize("body", DONE)
def test_a_finished_run_is_the_same_result_in_every_shape(body: dict[str, Any]) -> None:
    item = one(body)
    assert (item.kind, item.task_id, item.key) == (Kind.SUCCEEDED, TASK, "run:completed")
    assert item.media == (Media("video", None, URL),)
    assert json.loads(item.raw) == body
    assert is_end_of_run(item)


def test_the_cost_of_a_finished_run_is_taken() -> None:
    assert one(DONE[0]).cost == 350_000
    assert one(unified("completed", videoUrl=URL, cost=1)).cost == 1_000_000
    assert one(DONE[2]).cost is None


@pytest.mark.parametrize(
    ("output", "urls"),
    [
        ({"video": URL}, [URL]),
        ({"url": URL}, [URL]),
        ({"video": [{"url": URL}, {"url": URL + "2"}]}, [URL, URL + "2"]),
        ({"videos": [{"url": URL}, URL + "2", 5, None], "url": URL}, [URL, URL + "2"]),
    ],
)
def test_videos_are_found_wherever_they_stand(output: Any, urls: list[str]) -> None:
    assert [media.url for media in one(guide("COMPLETED", output=output)).media] == urls


def test_a_seed_is_taken_where_there_is_one() -> None:
    assert one(guide("COMPLETED", output={"url": URL, "seed": 2**40})).seed == 2**40
    assert one(guide("COMPLETED", seed=7, **VIDEO)).seed == 7


WORKING = [
    "IN_QUEUE",
    "IN_PROGRESS",
    "queued",
    "processing",
    "generating",
    "delivering",
    "pending",
    "unknown",
    "whoKnows",
]


@pytest.mark.parametrize("shape", [guide, legacy, unified])
@pytest.mark.parametrize("status", WORKING)
def test_a_run_under_way_is_no_result(shape: Any, status: str) -> None:
    for spelled in (status, status.lower(), status.upper(), f" {status} "):
        item = one(shape(spelled, cost=0.35))
        assert (item.kind, item.key, item.cost) == (Kind.PROGRESS, "", None)


def test_what_is_named_before_a_run_has_ended_is_no_result() -> None:
    assert one(guide("IN_PROGRESS", error="slow", **VIDEO)).kind is Kind.PROGRESS


@pytest.mark.parametrize(
    "status", ["pending", "processing", "completed", "failed", "COMPLETED", "cancelled", None]
)
def test_the_answer_to_a_submit_is_never_a_result_and_its_cost_not_the_last_word(
    status: str | None,
) -> None:
    item = one(ACK | {"status": status})
    assert (item.kind, item.cost) == (Kind.PROGRESS, None)


def test_the_answer_to_an_extension_is_one_of_a_submit() -> None:
    extended = {"success": True, "runId": RUN, "id": RUN, "taskId": RUN, "status": "pending"}
    assert one(extended | {"eta": 60, "message": "Extending video 1"}).kind is Kind.PROGRESS


def test_a_status_that_has_a_video_is_a_result_whatever_else_it_names() -> None:
    assert one(unified("completed", videoUrl=URL, runId=RUN)).kind is Kind.SUCCEEDED
    assert one(unified("failed", error="no", runId=RUN)).kind is Kind.FAILED


@pytest.mark.parametrize("status", ["CANCELED", "CANCELLED", "canceled", "cancelled"])
@pytest.mark.parametrize("shape", [guide, legacy, unified])
def test_a_canceled_run_is_a_failure(shape: Any, status: str) -> None:
    item = one(shape(status))
    assert item.key == "error:CANCELED:0"
    assert failed(shape(status)) == ("CANCELED", Category.NOT_FOUND)
    assert item.error is not None
    assert item.error.message == "NanoGPT says CANCELED and gives no reason."
    assert is_end_of_run(item)


NSFW = {
    "error": "Content policy violation",
    "isNSFWError": True,
    "userFriendlyError": "Content flagged as inappropriate. Please modify your prompt.",
}


@pytest.mark.parametrize(
    "body", [guide("FAILED", **NSFW), legacy("FAILED", **NSFW), unified("failed", **NSFW)]
)
def test_a_failed_run_is_the_same_result_in_every_shape(body: dict[str, Any]) -> None:
    item = one(body)
    assert item.key == one(unified("failed", error="Something else")).key == "error:FAILED:0"
    assert failed(body) == ("FAILED", Category.SAFETY)
    assert (item.nsfw, item.cost, is_end_of_run(item)) == (True, None, True)
    assert item.error is not None
    assert item.error.message == "Content policy violation"


@pytest.mark.parametrize(
    ("error", "code", "category"),
    [
        (None, "FAILED", Category.PROVIDER),
        ("Something went wrong", "FAILED", Category.PROVIDER),
        ("Content flagged as inappropriate", "FAILED", Category.SAFETY),
        ("Generation timed out", "FAILED", Category.TIMEOUT),
        ("Image not found at that URL", "FAILED", Category.PROVIDER),
        ("Invalid API key of the provider", "FAILED", Category.PROVIDER),
        ("Too many requests to the provider", "FAILED", Category.PROVIDER),
        ("duration must be 5 or 8", "FAILED", Category.VALIDATION),
        ({"message": "no", "code": "content_policy_violation"}, "content_policy_violation",
         Category.SAFETY),
    ],
)  # fmt: skip
def test_why_a_run_failed_is_read_from_its_words(error: Any, code: str, category: Category) -> None:
    assert failed(guide("FAILED", error=error)) == (code, category)
    assert one(guide("FAILED", error=error)).key == "error:FAILED:0"


def test_a_flag_says_that_a_run_failed_for_its_content_whatever_its_words() -> None:
    flagged = guide("FAILED", error="Generation timed out", isNSFWError=True)
    assert failed(flagged) == ("FAILED", Category.SAFETY)
    assert one(guide("FAILED", error="Oh", isNSFWError=False)).nsfw is None


def test_a_failed_run_has_the_first_of_its_reasons() -> None:
    told = one(guide("FAILED", userFriendlyError="Try another prompt.")).error
    assert told is not None
    assert told.message == "Try another prompt."


# The three bodies of errors, a fourth of the OpenAPI file, and a challenge to pay.
ERRORS = [
    ({"error": {"message": "m", "type": "invalid_request_error",
                "code": "missing_required_parameter", "param": "model"}},
     "missing_required_parameter", Category.VALIDATION),
    ({"type": "error", "error": {"type": "invalid_request_error", "message": "m"}},
     "invalid_request_error", Category.VALIDATION),
    ({"error": {"message": "m", "type": "invalid_request_error",
                "code": "content_policy_violation"}},
     "content_policy_violation", Category.SAFETY),
    ({"error": {"message": "m", "type": "authentication_error", "code": None}},
     "authentication_error", Category.AUTH),
    ({"error": {"message": "m", "type": "rate_limit_error", "code": "daily_usd_limit_exceeded"}},
     "daily_usd_limit_exceeded", Category.RATE_LIMIT),
    ({"error": {"message": "m", "type": "not_found_error", "code": "whoKnows"}},
     "whoKnows", Category.NOT_FOUND),
    ({"error": "Insufficient balance", "status": 402, "requiredBalance": 0.0035},
     "INSUFFICIENT_BALANCE", Category.QUOTA),
    ({"error": "Content policy violation", "status": 400},
     "CONTENT_POLICY_VIOLATION", Category.SAFETY),
    ({"error": "Something is off", "status": 400}, "invalid_request_error", Category.VALIDATION),
    ({"error": "Video generation request not found"}, "not_found_error", Category.NOT_FOUND),
    ({"error": "That is not yours", "status": 403}, "permission_denied_error", Category.AUTH),
    ({"error": "Later", "status": 429}, "RATE_LIMITED", Category.RATE_LIMIT),
    ({"error": "Hm", "status": 500}, "server_error", Category.SERVER),
    ({"error": "Hm", "status": 504}, "timeout", Category.TIMEOUT),
    ({"error": "Hm", "status": "error"}, "unknownError", Category.SERVER),
    ({"error": {"message": "m", "type": "CONTENT_POLICY_VIOLATION"}, "refundMessage": "Refunded."},
     "CONTENT_POLICY_VIOLATION", Category.SAFETY),
    ({"error": {"message": "m", "type": "INSUFFICIENT_BALANCE"}, "refundMessage": "Refunded."},
     "INSUFFICIENT_BALANCE", Category.QUOTA),
    ({"error": {"message": "m", "type": "PRO_REQUIRED"}}, "PRO_REQUIRED", Category.AUTH),
    ({"error": {"message": "m", "type": "RATE_LIMITED"}}, "RATE_LIMITED", Category.RATE_LIMIT),
    ({"error": {"status": 503, "message": "m", "code": "service_unavailable"}},
     "service_unavailable", Category.SERVER),
    ({"error": 404, "message": "m"}, "not_found_error", Category.NOT_FOUND),
    ({"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "m"},
      "payment": {"version": 1}, "x402Version": 1, "accepts": []},
     "insufficient_quota", Category.QUOTA),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "category"), ERRORS)
def test_every_error_body_is_a_failure(body: Any, code: str, category: Category) -> None:
    item = one(body)
    assert failed(body) == (code, category)
    assert (item.key, item.task_id) == (f"error:{code}:0", TASK)
    assert error_of(body) == item.error
    assert not is_end_of_run(item)


def test_the_message_of_an_error_is_the_platforms() -> None:
    for body in (
        {"error": {"message": "Too dear.", "type": "PRO_REQUIRED"}},
        {"error": "Too dear.", "status": 402},
        {"error": 402, "message": "Too dear."},
    ):
        told = error_of(body)
        assert told is not None
        assert told.message == "Too dear."


def test_the_status_of_http_is_the_last_resort() -> None:
    for body, status, category in (
        ({"error": "Hm"}, 404, Category.NOT_FOUND),
        ({"error": "Hm"}, 502, Category.SERVER),
        ({"error": "Hm"}, 409, Category.VALIDATION),
        ({"error": "Content policy violation"}, 402, Category.SAFETY),
        ({"error": "Prompt not found", "status": 402}, 400, Category.QUOTA),
        ({"error": "Hm"}, None, Category.SERVER),
        ({"error": "Hm", "status": 402}, 400, Category.QUOTA),
        ({"error": {"type": "PRO_REQUIRED"}}, 404, Category.AUTH),
        ({"error": {"type": "whoKnows"}}, 404, Category.NOT_FOUND),
    ):
        told = error_of(body, status)
        assert told is not None
        assert told.category is category


@pytest.mark.parametrize(
    "body", [None, 1, "x", [], {}, {"error": None}, {"error": ""}, {"error": True}, {"error": []}]
)
def test_what_tells_of_no_error_has_none(body: Any) -> None:
    assert error_of(body, 500) is None


@pytest.mark.parametrize("body", [None, 1, 1.5, True, "text", [], {}, [guide("COMPLETED")]])
def test_what_is_no_object_is_unreadable(body: Any) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(body, TASK)
    assert caught.value.reason == "unknown_shape"


@pytest.mark.parametrize(
    "body",
    [
        {"hello": "world"},
        {"data": None},
        {"data": [{"runId": RUN, "status": "completed"}]},  # a list of runs names none of ours
        guide("COMPLETED"),
        unified("completed"),
        {"status": 200},
    ],
)
def test_what_says_nothing_of_a_run_is_unknown(body: Any) -> None:
    assert one(body).kind is Kind.UNKNOWN


def test_a_video_without_a_status_is_a_result() -> None:
    assert one({"videoUrl": URL}).kind is Kind.SUCCEEDED


def test_an_answer_is_of_the_tokens_task() -> None:
    assert one(DONE[0], None).task_id is None


CODES = {
    Category.VALIDATION: (
        "invalid_request_error missing_required_parameter invalid_parameter_value invalid_json"
        " image_input_not_supported conflicting_moderation_model empty_moderation_input"
        " unsupported_moderation_input context_length_exceeded validation_error"
    ),
    Category.AUTH: (
        "PRO_REQUIRED authentication_error permission_denied_error permission_error"
        " missing_api_key invalid_api_key model_not_allowed insufficient_permissions forbidden"
        " inline_moderation_requires_api_key"
    ),
    Category.QUOTA: (
        "INSUFFICIENT_BALANCE insufficient_quota memory_balance_required both_balance_required"
        " insufficient_funds insufficient_credits payment_required"
    ),
    Category.RATE_LIMIT: (
        "RATE_LIMITED rate_limit_error rate_limit_exceeded daily_rpd_limit_exceeded"
        " daily_usd_limit_exceeded"
    ),
    Category.SAFETY: "CONTENT_POLICY_VIOLATION content_policy_violation nsfw_detected",
    Category.TIMEOUT: "timeout timed_out gateway_timeout",
    Category.NOT_FOUND: "not_found_error model_not_found CANCELED CANCELLED run_expired",
    Category.PROVIDER: (
        "FAILED model_not_available all_fallbacks_failed no_fallback_available empty_response"
        " provider_error"
    ),
    Category.SERVER: "server_error service_unavailable api_error unknownError whoKnowsWhat",
}


@pytest.mark.parametrize(
    ("code", "category"),
    [(code, category) for category, codes in CODES.items() for code in codes.split()],
)
def test_a_code_has_a_category(code: str, category: Category) -> None:
    assert categorise(code) is category
    assert categorise(code.upper()) is category


def test_texts_of_an_error_are_bounded_and_fit_for_a_column() -> None:
    told = error_of({"error": {"code": "\ud800" + "c" * 500, "message": "m\x00" * 5_000}})
    assert told is not None
    assert (len(told.code), len(told.message)) == (100, 2_000)
    assert "\x00" not in told.message
    told.code.encode()


NAMES = ["data", "error", "status", "code", "type", "message", "output", "video", "videos", "url"]
NAMES += ["videoUrl", "runId", "cost", "seed", "isNSFWError", "userFriendlyError"]
STATUSES = [*WORKING, "COMPLETED", "completed", "FAILED", "CANCELLED", "error"]
VALUES = st.recursive(
    JSON_SCALARS | st.sampled_from(STATUSES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=15,
)


@given(VALUES)
def test_anything_is_one_item_or_unreadable(body: Any) -> None:
    try:
        item = one(body)
    except Unreadable:
        return
    assert json.loads(item.raw) == body
    assert (item.kind is Kind.FAILED) == (item.error is not None)
    assert (item.kind is Kind.SUCCEEDED) == bool(item.media)
    assert bool(item.key) == (item.kind in (Kind.SUCCEEDED, Kind.FAILED))
    assert item.cost is None or item.kind is Kind.SUCCEEDED
    item.raw.encode()
    item.key.encode()

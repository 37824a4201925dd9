"""Floor 0, nouns: NanoGPT's answers as items, and its error codes as categories. Pure.

It does not call back, so these are answers to polls and to submits, posted as they came. A status
has two documented shapes (reference: platforms.md §3): `{"data": {"status", "output", …}}` of the
guide, with `request_id` on the legacy route, and flat, with `videoUrl`, of the OpenAPI file. One
task is one run and a run ends once, so its end is known by that alone, whichever shape tells it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from receiver.errors import Unreadable
from receiver.platforms.items import Category, Item, Kind, Media, PlatformError
from receiver.platforms.reading import dumps, integer_of, mapping_of, micros_of, text_of

COMPLETED: Final = "COMPLETED"
_ENDED_BADLY: Final = {"FAILED": "FAILED", "CANCELED": "CANCELED", "CANCELLED": "CANCELED"}
_SUCCESS: Final = "run:completed"
# What only the answer to a submit has; a status names its run `requestId`, or `request_id`.
_SUBMITTED: Final = ("runId", "paymentSource", "prechargeLabel")
_UNKNOWN: Final = "unknownError"

# The first pattern that matches decides. `missing_api_key` is auth before `missing…`, and
# `unsupported_moderation_input` is validation before anything of moderation.
_CATEGORIES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), category)
    for pattern, category in (
        (r"rate.?limit|^daily_|too.?many|limit_exceeded$", Category.RATE_LIMIT),
        (r"balance|quota|credit|insufficient_fund|^payment", Category.QUOTA),
        (
            r"^pro_required|api.?key|authenti|unauthori|permission|forbidden|denied|not_allowed",
            Category.AUTH,
        ),
        (r"^missing|^invalid|^conflict|unsupported|not_supported|^empty_mod", Category.VALIDATION),
        (r"policy|nsfw|moderation|safety|unsafe|sensitive|flagged", Category.SAFETY),
        (r"time.?d?.?out", Category.TIMEOUT),
        (r"not.?found|expired|^cancell?ed", Category.NOT_FOUND),
        (r"validation|^bad_?request|too_(?:large|long)|length_exceeded", Category.VALIDATION),
        (r"^failed$|generation|provider|upstream|fallback|^model|empty_res", Category.PROVIDER),
        (r"server|^service|^api_error$|internal|^unknown", Category.SERVER),
    )
)

# Codes for errors that have none: the platform's own words for the same, where it has any. A number
# that says enough goes before the text, and one that does not (400, 500) after it.
_BY_TEXT: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), code)
    for pattern, code in (
        (
            r"content polic|nsfw|inappropriate|moderat|flagged|unsafe|sensitive",
            "CONTENT_POLICY_VIOLATION",
        ),
        (r"insufficient|balance|credits|payment required", "INSUFFICIENT_BALANCE"),
        (r"rate.?limit|too many requests", "RATE_LIMITED"),
        (r"api.?key|unauthori[sz]ed|authenticat", "authentication_error"),
        (r"forbidden|permission|not allowed|denied|not own", "permission_denied_error"),
        (r"timed? ?out", "timeout"),
        (r"not found|no such", "not_found_error"),
        (r"required|invalid|must |supported|missing|too (?:long|large)", "invalid_request_error"),
    )
)
_BY_STATUS: Final = {
    401: "authentication_error",
    402: "INSUFFICIENT_BALANCE",
    403: "permission_denied_error",
    404: "not_found_error",
    408: "timeout",
    413: "invalid_request_error",
    429: "RATE_LIMITED",
    504: "timeout",
}
_BY_CLASS: Final = {4: "invalid_request_error", 5: "server_error"}
# Why a run may have failed. Its text may speak of anything; that a file was not found, or a
# provider's key was refused, says nothing of the run being known, or of our key.
_OF_A_RUN: Final = frozenset(
    {Category.SAFETY, Category.TIMEOUT, Category.VALIDATION, Category.QUOTA}
)


def categorise(code: str) -> Category:
    """The category of a raw code; what nobody knows is the server's fault, and retryable."""
    return _known(code) or Category.SERVER


def _known(code: str) -> Category | None:
    for pattern, category in _CATEGORIES:
        if pattern.search(code):
            return category
    return None


def parse(body: Any, task_id: str | None) -> list[Item]:
    """The one item of an answer, which is of `task_id`: NanoGPT knows no id of ours.

    Raises Unreadable when it is no JSON object, or an empty one.
    """
    answer = mapping_of(body)
    if not answer:
        raise Unreadable("unknown_shape", "no answer of a shape that NanoGPT sends")
    raw, said = dumps(answer), _flattened(answer)
    status = _status(said)
    if status in _ENDED_BADLY and not _is_bare_submit(said):
        return [_failure(said, _ENDED_BADLY[status], task_id, raw)]
    if status in (COMPLETED, "") and (media := tuple(_media(said))):
        return [_success(said, media, task_id, raw)]
    if not status and (error := error_of(answer)) is not None:
        return [Item(Kind.FAILED, task_id, f"error:{error.code}:0", raw, error=error)]
    working = _is_bare_submit(said) if status in ("", COMPLETED) else True
    return [Item(Kind.PROGRESS if working else Kind.UNKNOWN, task_id, "", raw)]


def is_end_of_run(item: Item) -> bool:
    """Whether an item says how a run ended; other failures are of the question, or of a submit."""
    return item.key in _ENDS


_ENDS: Final = frozenset({_SUCCESS, *(f"error:{end}:0" for end in _ENDED_BADLY.values())})


def error_of(answer: Any, status: int | None = None) -> PlatformError | None:
    """The error that an error body tells of, or None; `status` is that of HTTP, the last resort.

    Its shapes: an object with message, type, code and param; a text beside `status` and
    `requiredBalance`; an object beside `refundMessage`; a number beside `message`.
    """
    said = mapping_of(answer) or {}
    error = said.get("error")
    if not isinstance(error, str | int | dict) or not error or error is True:
        return None
    inner = mapping_of(error) or {}
    message = _first(inner.get("message"), error, said.get("message"))
    numbers = map(integer_of, (inner.get("status"), said.get("status"), error))
    derived = _code_of(message, next(filter(None, numbers), 0), status or 0)
    words = _words(inner, said)
    code = next(iter(words), derived or _UNKNOWN)
    category = next(filter(None, map(_known, (*words, derived or ""))), Category.SERVER)
    return PlatformError(code, category, message)


def _words(*sources: Mapping[str, Any]) -> list[str]:
    # `"type": "error"` is a wrapper, not a word for what went wrong.
    found = [text_of(source.get(name), 100) for source in sources for name in ("code", "type")]
    return [word for word in found if word and word != "error"]


def _code_of(message: str, stated: int, http: int) -> str | None:
    if stated in _BY_STATUS:
        return _BY_STATUS[stated]
    for pattern, code in _BY_TEXT:
        if pattern.search(message):
            return code
    status = stated or http
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100)


def _first(*values: Any) -> str:
    return next(filter(None, map(text_of, values)), "")


def _flattened(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**answer, **(mapping_of(answer.get("data")) or {})}


def _status(said: Mapping[str, Any]) -> str:
    """The status in one spelling; "" for none, and for a number, which is HTTP's."""
    status = said.get("status")
    if not isinstance(status, str):
        return ""
    spelled = status.strip().upper()
    return "" if spelled == "ERROR" else spelled


def _is_bare_submit(said: Mapping[str, Any]) -> bool:
    """Whether this is a submit's answer: its status and its cost are no word of a result yet."""
    if said.get("error") or any(_media(said)):
        return False
    return any(name in said for name in _SUBMITTED)


def _success(
    said: Mapping[str, Any], media: tuple[Media, ...], owner: str | None, raw: str
) -> Item:
    output = mapping_of(said.get("output")) or {}
    return Item(
        Kind.SUCCEEDED,
        owner,
        _SUCCESS,
        raw,
        media=media,
        seed=integer_of(output.get("seed", said.get("seed"))),
        cost=micros_of(said.get("cost")),
    )


def _failure(said: Mapping[str, Any], end: str, owner: str | None, raw: str) -> Item:
    """A run that ended without a video. It cost nothing: a failure is refunded."""
    told = error_of({"error": said.get("error")})
    flagged = said.get("isNSFWError") is True
    category = told.category if told and told.category in _OF_A_RUN else categorise(end)
    words = _words(mapping_of(said.get("error")) or {})
    message = _first(told and told.message, said.get("userFriendlyError"))
    error = PlatformError(
        next(iter(words), end),
        Category.SAFETY if flagged else category,
        message or f"NanoGPT says {end} and gives no reason.",
    )
    return Item(
        Kind.FAILED, owner, f"error:{end}:0", raw, error=error, nsfw=True if flagged else None
    )


def _media(said: Mapping[str, Any]) -> Iterator[Media]:
    seen = set()
    for url in _urls(said):
        if url not in seen:
            seen.add(url)
            yield Media("video", None, url)


def _urls(said: Mapping[str, Any]) -> Iterator[str]:
    output = mapping_of(said.get("output")) or {}
    places = (output.get("video"), output.get("videos"), output.get("url"), said.get("videoUrl"))
    for place in places:
        for found in place if isinstance(place, list) else [place]:
            location = found.get("url") if isinstance(found, dict) else found
            url = text_of(location, 4_000)
            if url:
                yield url

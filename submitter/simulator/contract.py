"""Runware's wire contract: checks of a task, acknowledgements, errors, envelopes. Pure: no I/O.

Source of the rules: Runware's video inference reference, its two PixVerse pages, and the error
codes that its published clients test for. What none of them says is marked as an assumption.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Sequence
from random import Random
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
Check = Callable[[Json], Json | None]

DOCUMENTATION = "https://runware.ai/docs/en/video-inference/api-reference"
POLLS = ("getResponse", "getTaskDetails")
MEDIA = {"videoInference": "video", "imageInference": "image"}
MESSAGES = {
    "timeoutProvider": "The provider gave no answer in time, and the request was ended.",
    "taskNotFound": "No task has this taskUUID.",
    "taskExpired": "The response of this task is not kept here any more.",
    "conflictTaskUUID": "A task with this taskUUID exists already.",
    "insufficientCredits": "The account has too few credits for this task.",
    "rateLimitExceeded": "The queue of this model is full; try again later.",
    "serviceUnavailable": "The service is unavailable for the moment.",
}
# The usual code for each status that the submit knob can answer with.
STATUS_CODES = {
    400: "insufficientCredits",  # Seen in the field, where the documentation promises 402.
    401: "invalidApiKey",
    402: "insufficientCredits",
    403: "forbidden",
    404: "taskNotFound",
    408: "timeout",
    409: "conflictTaskUUID",
    413: "valueTooLarge",
    429: "rateLimitExceeded",
    500: "internalServerError",
    502: "providerBadGateway",
    503: "serviceUnavailable",
    504: "timeout",
}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def error(code: str, task: Json, *, message: str = "", **facts: Any) -> Json:
    """One error object about `task`, without the keys the task doesn't have."""
    named = {key: task[key] for key in ("taskUUID", "taskType") if isinstance(task.get(key), str)}
    text = message or MESSAGES.get(code, f"The simulator was told to answer {code}.")
    return {"code": code, "message": text, **facts, **named}


def invalid(parameter: str, kind: str, task: Json, **facts: Any) -> Json:
    """The error for a missing or wrong parameter, named the way the platform names them."""
    prefix = "invalid" if parameter in task else "missing"
    code = f"{prefix}{parameter[0].upper()}{parameter[1:]}"
    link = f"{DOCUMENTATION}#request-{parameter.lower()}"
    message = f"The value of '{parameter}' is {prefix}; it must be of type {kind}."
    return error(
        code, task, message=message, parameter=parameter, type=kind, **facts, documentation=link
    )


def read(body: bytes) -> list[Any] | Json:
    """The tasks of a request, or the error that the body deserves (codes: an assumption)."""
    try:
        tasks = json.loads(body)
    except (ValueError, RecursionError):
        return error("invalidJson", {}, message="The body isn't JSON.")
    if not isinstance(tasks, list) or not tasks:
        return error("invalidRequest", {}, message="The body must be an array of tasks.")
    return tasks


def authenticate(header: str | None, tasks: Sequence[Any], api_key: str | None) -> Json | None:
    """None when a key was given (header, or first task) and is the right one; else the error."""
    scheme, _, given = (header or "").partition(" ")
    keys = [given.strip()] if scheme.lower() == "bearer" else []
    first = tasks[0] if tasks else None
    if isinstance(first, dict) and first.get("taskType") == "authentication":
        keys.append(str(first.get("apiKey") or ""))
    if any(key and key == (api_key or key) for key in keys):
        return None
    task = {"taskType": "authentication"}
    return error("invalidApiKey", task, message="The API key is wrong.", parameter="apiKey")


def check(task: Json) -> Json | None:
    """The first error of a generation task by what holds for every model, or None."""
    return next((found for rule in CHECKS if (found := rule(task))), None)


def conflict(task: Json, known: Container[str]) -> Json | None:
    """The error of a checked task whose taskUUID is among those already used, or None."""
    if task["taskUUID"].lower() in known:
        return error("conflictTaskUUID", task, parameter="taskUUID")
    return None


def is_uuid(value: object) -> bool:
    """Any version passes: the platform was seen to accept others than the documented v4."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def is_url(value: object) -> bool:
    """An absolute http or https URL with a host and a possible port."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        return (
            parts is not None
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
        )
    except ValueError:
        return False


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _task_uuid(task: Json) -> Json | None:
    return None if is_uuid(task.get("taskUUID")) else invalid("taskUUID", "string", task)


def _text(parameter: str, low: int, high: int, *, required: bool) -> Check:
    def rule(task: Json) -> Json | None:
        value = task.get(parameter)
        if parameter not in task and not required:
            return None
        if isinstance(value, str) and low <= len(value) <= high:
            return None
        return invalid(parameter, "string", task, min=low, max=high)

    return rule


def _whole(parameter: str, low: int, high: int | None = None) -> Check:
    bounds = {"min": low} if high is None else {"min": low, "max": high}

    def rule(task: Json) -> Json | None:
        value = task.get(parameter, low)
        if _is_integer(value) and low <= value and (high is None or value <= high):
            return None
        return invalid(parameter, "integer", task, **bounds)

    return rule


def _url(parameter: str) -> Check:
    def rule(task: Json) -> Json | None:
        if parameter not in task or is_url(task[parameter]):
            return None
        return invalid(parameter, "string", task)

    return rule


def _delivery(task: Json) -> Json | None:
    if task.get("deliveryMethod", "async") == "async":
        return None
    return invalid("deliveryMethod", "string", task, allowedValues=["async"])


def _cost_flag(task: Json) -> Json | None:
    if isinstance(task.get("includeCost", False), bool):
        return None
    return invalid("includeCost", "boolean", task)


def _one_of(parameter: str, *words: str) -> Check:
    """A text in any letter case, or a list of such; of videos alone."""

    def rule(task: Json) -> Json | None:
        if parameter not in task or task["taskType"] != "videoInference":
            return None
        value = task[parameter]
        given = value if isinstance(value, list) and value else [value]
        if all(isinstance(word, str) and word.upper() in words for word in given):
            return None
        return invalid(parameter, "string", task, allowedValues=list(words))

    return rule


def _safety(task: Json) -> Json | None:
    value = task.get("safety", {})
    if (
        isinstance(value, dict)
        and isinstance(value.get("checkContent", False), bool)
        and value.get("mode", "none") in ("none", "fast", "full")
    ):
        return None
    return invalid("safety", "object", task)


def _duration(task: Json) -> Json | None:
    value = task.get("duration", 5)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if is_number else invalid("duration", "float", task)


CHECKS: tuple[Check, ...] = (
    _task_uuid,
    _text("model", 1, 256, required=True),
    _text("positivePrompt", 2, 2048, required=True),
    _text("negativePrompt", 2, 2048, required=False),
    _whole("numberResults", 1, 4),
    _delivery,
    _whole("ttl", 60),
    _cost_flag,
    _url("webhookURL"),
    _url("uploadEndpoint"),
    _one_of("outputType", "URL"),
    _one_of("outputFormat", "MP4", "WEBM", "MOV"),
    _whole("outputQuality", 20, 99),
    _whole("seed", 0, 9_223_372_036_854_776_000),
    _safety,
    _duration,
)


def acknowledge(task: Json) -> Json:
    """The placeholder a submit answers with: one a task, however many results it owes."""
    return {"taskType": task["taskType"], "taskUUID": task["taskUUID"]}


def price(task: Json) -> float:
    """US dollars for one result, as the published examples have them; never a real quotation."""
    if task["model"] == "pixverse:1@6":
        return 0.4715
    if task["model"] == "pixverse:1@2":
        return 0.299 if task.get("duration") == 8 else 0.15
    return 0.18


def envelop(item: Json, envelope: str) -> Json:
    """The body of a success callback: bare (`flat`) or in a `data` list (`wrapped`)."""
    if envelope == "flat":
        return item
    # The one published wrapped body has no status; the flat ones have, and all that report work.
    hidden = () if item["status"] == "processing" else ("status",)
    return {"data": [{key: value for key, value in item.items() if key not in hidden}]}


def envelop_error(fault: Json, envelope: str) -> Json:
    """The body of an error callback in one of the four shapes seen in the field."""
    names = {key: fault[key] for key in ("taskType", "taskUUID")}
    inner = {key: value for key, value in fault.items() if key not in ("status", *names)}
    shapes: dict[str, Json] = {
        "errors": {"errors": [fault]},
        "error": {"error": inner, "taskUUID": names["taskUUID"]},
        "flat": {**names, "status": "error", **inner},
        "item": {"data": [{**names, "status": "error", "error": inner}]},
    }
    return shapes[envelope]


def retry_delay(retry: int, rng: Random) -> float:
    """Seconds before retry 1, 2, …: 250 ms, doubling to 8 s, less up to a quarter of jitter."""
    doubled: float = min(8.0, 0.25 * 2.0 ** min(retry - 1, 5))
    return doubled * rng.uniform(0.75, 1.0)

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
DURATIONS = {"pixverse:1@2": (5, 8), "pixverse:1@6": (5, 8, 10)}
MESSAGES = {
    "timeoutProvider": "The provider gave no answer in time, and the request was ended.",
    "taskNotFound": "No task has this taskUUID.",
    "taskExpired": "The response of this task is not kept here any more.",
    "conflictTaskUUID": "A task with this taskUUID exists already.",
    "unsupportedDuration": "The model can't make videos of this duration.",
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


def check(task: Json, known: Container[str]) -> Json | None:
    """The first error of a generation task, or None; `known` are the taskUUIDs already used."""
    fault = next((found for rule in CHECKS if (found := rule(task))), None)
    if fault is None and task["taskUUID"].lower() in known:
        return error("conflictTaskUUID", task, parameter="taskUUID")
    return fault


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


def _webhook(task: Json) -> Json | None:
    if "webhookURL" not in task or is_url(task["webhookURL"]):
        return None
    return invalid("webhookURL", "string", task)


def _delivery(task: Json) -> Json | None:
    if task.get("deliveryMethod", "async") == "async":
        return None
    return invalid("deliveryMethod", "string", task, allowedValues=["async"])


def _cost_flag(task: Json) -> Json | None:
    if isinstance(task.get("includeCost", False), bool):
        return None
    return invalid("includeCost", "boolean", task)


def durations(task: Json) -> tuple[int, ...] | None:
    """Durations in seconds that the task's model can make; None when no page says."""
    allowed = DURATIONS.get(task["model"])
    width, height = task.get("width"), task.get("height")
    # Of a table's pair the shorter side names the resolution.
    is_1080p = task.get("resolution") == "1080p" or (
        isinstance(width, int) and isinstance(height, int) and min(width, height) == 1080
    )
    return (5, 8) if allowed and is_1080p else allowed


def _duration(task: Json) -> Json | None:
    if "duration" not in task:
        return None
    value, allowed = task["duration"], durations(task)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return invalid("duration", "float", task)
    if allowed is None or value in allowed:
        return None
    link = f"{DOCUMENTATION}#request-duration"
    facts: Json = {"parameter": "duration", "type": "float", "documentation": link}
    return error("unsupportedDuration", task, **facts, allowedValues=list(allowed))


CHECKS: tuple[Check, ...] = (
    _task_uuid,
    _text("model", 1, 256, required=True),
    _text("positivePrompt", 2, 2048, required=True),
    _text("negativePrompt", 2, 2048, required=False),
    _whole("numberResults", 1, 4),
    _delivery,
    _whole("ttl", 60),
    _cost_flag,
    _webhook,
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
    # The one published wrapped body has no status; the flat ones have.
    return {"data": [{key: value for key, value in item.items() if key != "status"}]}


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

"""Floor 4, doors: every parameter of the API: what it means, what it may be. No third party.

A row names its parameters (`receiver.admin.routes.rows`); a name means the same on every route.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from receiver import ids
from receiver.access import Action
from receiver.callbacks import Outcome
from receiver.clock import from_datetime, within_reason
from receiver.costs import Grouping
from receiver.deliveries import Failure
from receiver.deliveries import State as DeliveryState
from receiver.errors import Invalid
from receiver.tasks import PROJECT, Status
from receiver.tokens import Source

MAX_LIMIT: Final = 200
MAX_KEY: Final = 255  # characters of an Idempotency-Key, as Stripe takes them
MAX_TEXT: Final = 500  # characters
SOURCES: Final = (Source.CALLBACK, Source.POLL, Source.SUBMIT)

Reader = Callable[[str, str], Any]
Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """`read(text, name)` gives its value, or raises Invalid; `schema` is JSON Schema's for it."""

    meaning: str
    schema: Schema
    read: Reader


def _text(text: str, name: str) -> str:
    if len(text) > MAX_TEXT:
        raise Invalid(f"{name} is too long.", parameter=name)
    return text


def _flag(text: str, name: str) -> bool:
    if text not in ("true", "false"):
        raise Invalid(f"{name} must be true or false.", parameter=name)
    return text == "true"


def _moment(text: str, name: str) -> int:
    try:
        return within_reason(from_datetime(datetime.fromisoformat(text)))
    except (ValueError, OverflowError):
        raise Invalid(
            f"{name} must be a time such as 2026-11-20T19:40:04Z.", parameter=name
        ) from None


def _limit(text: str, name: str) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= 6
    if not digits or not 1 <= int(text) <= MAX_LIMIT:
        raise Invalid(f"{name} must be a number from 1 to {MAX_LIMIT}.", parameter=name)
    return int(text)


def _status(text: str, name: str) -> int:
    if not re.fullmatch("[1-9][0-9]{2}", text, re.ASCII):
        raise Invalid(f"{name} must be a status of HTTP, such as 503.", parameter=name)
    return int(text)


def _seconds(text: str, name: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise Invalid(f"{name} must be seconds, such as 25.", parameter=name)
    return max(found, 0.0)


def cursor_of(text: str, name: str = "cursor") -> tuple[int, ...]:
    """The place in a list that a cursor stands for. Raises Invalid."""
    try:
        return tuple(ids.decode(part) for part in text.split("-"))
    except ValueError:
        raise Invalid(f"{name} is not one that a list gave.", parameter=name) from None


def _tag(text: str, name: str) -> tuple[str, str]:
    tag, equals, value = _text(text, name).partition("=")
    if not equals or '"' in tag:
        raise Invalid(f"{name} must be name=value.", parameter=name)
    return tag, value


def _filter(text: str, name: str) -> tuple[str, str]:
    field, equals, value = _text(text, name).partition("=")
    if not equals:
        raise Invalid(f"{name} must be field=value, such as tags.team=film.", parameter=name)
    return field, value


def _grouping(text: str, name: str) -> Grouping:
    return Grouping.read(_text(text, name))


def _project(text: str, name: str) -> str:
    if not re.fullmatch(PROJECT, text):
        raise Invalid(f"{name} has 1 to 64 letters, digits and '_.-'.", parameter=name)
    return text


def _some(meaning: str, **schema: Any) -> Parameter:
    return Parameter(meaning, {"type": "string", "maxLength": MAX_TEXT, **schema}, _text)


def _yes(meaning: str) -> Parameter:
    return Parameter(meaning, {"type": "boolean"}, _flag)


def _when(meaning: str) -> Parameter:
    return Parameter(meaning, {"type": "string", "format": "date-time"}, _moment)


def _one(meaning: str, *words: StrEnum, **schema: Any) -> Parameter:
    def read(text: str, name: str) -> str:
        found = next((word for word in words if word == text), None)
        if found is None:
            raise Invalid(f"{name} must be one of {', '.join(words)}.", parameter=name)
        return found

    return Parameter(
        meaning, {"type": "string", "enum": [word.value for word in words], **schema}, read
    )


QUERY: Final[Mapping[str, Parameter]] = {
    "limit": Parameter(
        "How many at most.",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 50},
        _limit,
    ),
    "cursor": Parameter(
        "The `next_cursor` of the page before; of the stream also the id of a message.",
        {"type": "string", "maxLength": 100},
        cursor_of,
    ),
    "project": Parameter(
        "Of this project alone; of something new: the project it is made in.",
        {"type": "string", "pattern": PROJECT},
        _project,
    ),
    "status": _one("Tasks that stand there.", *Status),
    "platform": _some("Tasks of this platform."),
    "model": _some("Tasks of this model."),
    "overdue": _yes("Tasks whose deadline passed with results missing, or the others."),
    "registered": _yes("Tasks that a PUT made, or those that are known from a callback alone."),
    "tag": Parameter(
        "Tasks with this tag, as `name=value`.",
        {"type": "string", "maxLength": MAX_TEXT, "pattern": '^[^"=]*=', "examples": ["team=film"]},
        _tag,
    ),
    "since": _when("Nothing from before this moment."),
    "until": _when("Nothing from this moment on."),
    "q": _some("Tasks with this text in their model, tags or metadata."),
    "by": Parameter(
        "The trait by which is summed up.",
        {
            "type": "string",
            "maxLength": MAX_TEXT,
            "pattern": '^(task|model|day|project|platform|tag:[^"]+)$',
            "default": "model",
        },
        _grouping,
    ),
    "outcome": _one("Callbacks of which this became.", *Outcome),
    "task": _some("What belongs to this task."),
    "event": _some("Deliveries of this event."),
    "orphan": _yes("Callbacks that name no task, or the others."),
    "event_type": _some(
        "Of these types of events, divided by commas; `*` at an end is a wildcard.",
        examples=["result.*,task.completed"],
    ),
    "filter": Parameter(
        "Of tasks that the `filters` of an endpoint would let by, as `field=value`; all must hold.",
        {
            "type": "array",
            "items": {"type": "string", "pattern": "^[^=]+=", "maxLength": MAX_TEXT},
            "examples": [["tags.team=film"]],
        },
        _filter,
    ),
    "state": _one("Deliveries that stand there.", *DeliveryState),
    "last_error": _one("Deliveries whose last attempt failed of this.", *Failure),
    "last_status": Parameter(
        "Deliveries whose last attempt was answered with this status of HTTP.",
        {"type": "integer", "minimum": 100, "maximum": 999},
        _status,
    ),
    "endpoint": _some("What goes to this endpoint."),
    "actor": _some("What `admin`, or the API token with this id, did."),
    "action": _one("What was done.", *Action),
    "target": _some("What was done to this one."),
    "missing": _yes("Also what the endpoint wants today and was never meant for it."),
    "wait": Parameter(
        "Seconds to wait for a change; 30 at most are waited.",
        {"type": "number", "minimum": 0, "default": 0},
        _seconds,
    ),
    "src": _one(
        "Who posts to the URL: the platform, a poller, or who noted a rejected submit.",
        *SOURCES,
        default=Source.CALLBACK.value,
    ),
}

HEADERS: Final[Mapping[str, tuple[str, Schema]]] = {
    "last-event-id": (
        "The id of the last message that was read: the stream goes on behind it. Browsers send it.",
        {"type": "string"},
    ),
    "if-none-match": (
        "The `ETag` that is known; 304 when it is still the one.",
        {"type": "string"},
    ),
    "if-match": (
        "Only if it still has this `ETag`, or one of these, divided by commas; else 412.",
        {"type": "string"},
    ),
    "idempotency-key": (
        "The same key gets the same answer, and nothing is done twice.",
        {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[ -~]+$"},
    ),
    "traceparent": (
        "The trace of the task, if the body names none; one that is malformed is ignored.",
        {"type": "string"},
    ),
}

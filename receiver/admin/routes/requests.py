"""Floor 4, doors: what a request to the API asks. Starlette and pydantic only; raises Invalid."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from pydantic import BaseModel, FiniteFloat, TypeAdapter, ValidationError
from starlette.requests import Request

from receiver import ids
from receiver.admin.ops import Query
from receiver.admin.routes.rows import row_of
from receiver.callbacks import Outcome
from receiver.clock import from_datetime, within_reason
from receiver.costs import Grouping
from receiver.deliveries import State as DeliveryState
from receiver.errors import Invalid, Unreadable
from receiver.platforms.reading import loads
from receiver.shown import without_tokens
from receiver.tasks import Status
from receiver.tokens import Source

M = TypeVar("M", bound=BaseModel)

MAX_LIMIT: Final = 200
MAX_KEY: Final = 255  # characters of an Idempotency-Key, as Stripe takes them


async def body_of(request: Request, kind: type[M]) -> M:
    text = (await request.body() or b"{}").decode("latin-1")  # byte for byte
    try:
        # Who notes a whole request with its task notes the webhookURL too, which is not kept.
        found = loads(without_tokens(text).encode("latin-1"))
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()
        return kind.model_validate(found)
    except Unreadable as error:
        raise Invalid(f"The body is not JSON that can be read: {error}.") from None
    except UnicodeEncodeError:  # no database but SQLite, and no strict client, takes such a text
        raise Invalid("A text in the body has half of a character (a lone surrogate).") from None


def query_of(request: Request) -> Query:
    """What a list is asked for, of what its row allows. Raises Invalid."""
    given, known = dict(request.query_params), row_of(request).parameters
    if unknown := set(given) - {*known}:
        raise Invalid(
            f"There is no parameter {min(unknown)!r} here; known: {', '.join(known)}.",
            parameter=min(unknown),
        )
    values: dict[str, Any] = {name: text for name, text in given.items() if text != ""}
    cursor, tag = values.pop("cursor", None), values.pop("tag", None)
    parsed = {name: _READ[name](text, name) for name, text in values.items()}
    return Query(**parsed, before=cursor_of(cursor), tag=_tag(tag))


def _moment(text: str, name: str) -> int:
    try:
        return within_reason(from_datetime(datetime.fromisoformat(text)))
    except (ValueError, OverflowError):
        raise Invalid(f"{name} must be a time such as 2026-11-20T19:40:04Z.") from None


def _limit(text: str, name: str) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= 6
    if not digits or not 1 <= int(text) <= MAX_LIMIT:
        raise Invalid(f"{name} must be a number from 1 to {MAX_LIMIT}.", parameter=name)
    return int(text)


def _flag(text: str, name: str) -> bool:
    if text not in ("true", "false"):
        raise Invalid(f"{name} must be true or false.", parameter=name)
    return text == "true"


def _text(text: str, name: str) -> str:
    if len(text) > 500 or "\x00" in text:
        raise Invalid(f"{name} is too long or has a NUL.", parameter=name)
    return text


def _word(kind: type[StrEnum]) -> Callable[[str, str], str]:
    def read(text: str, name: str) -> str:
        if text not in [*kind]:
            raise Invalid(f"{name} must be one of {', '.join(kind)}.", parameter=name)
        return text

    return read


_READ: Final[Mapping[str, Callable[[str, str], Any]]] = {
    **{field.name: _text for field in fields(Query)},
    "status": _word(Status),
    "state": _word(DeliveryState),
    "outcome": _word(Outcome),
    "limit": _limit,
    "by": lambda text, name: Grouping.read(_text(text, name)),
    "since": _moment,
    "until": _moment,
    "overdue": _flag,
    "registered": _flag,
    "orphan": _flag,
}


def cursor_of(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(ids.decode(part) for part in text.split("-"))
    except ValueError:
        raise Invalid("cursor is not one that a list gave.", parameter="cursor") from None


def _tag(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    name, equals, value = _text(text, "tag").partition("=")
    if not equals or '"' in name:
        raise Invalid("tag must be name=value.", parameter="tag")
    return name, value


_FINITE: Final = TypeAdapter(FiniteFloat)


def revision_of(request: Request) -> int | None:
    text = request.headers.get("if-none-match", "").removeprefix("W/").strip('"')
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def seconds_of(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    try:
        return max(_FINITE.validate_python(text), 0.0)
    except ValidationError:
        raise Invalid("wait must be seconds, such as 25.", parameter="wait") from None


def key_of(request: Request) -> str | None:
    """The request's `Idempotency-Key`. Raises Invalid for one that nobody would make."""
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise Invalid(f"An Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters.")
    return key


def one_of(kind: type[Source], text: str, name: str) -> Source:
    allowed = (Source.CALLBACK, Source.POLL, Source.SUBMIT)
    if text not in allowed:
        raise Invalid(f"{name} must be one of {', '.join(allowed)}.", parameter=name)
    return kind(text)

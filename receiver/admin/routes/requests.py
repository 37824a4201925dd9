"""Floor 4, doors: what a request to the API asks. Starlette and pydantic only; raises Invalid."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from receiver.admin.ops import Query, Revisions
from receiver.admin.routes.parameters import MAX_KEY, QUERY
from receiver.admin.routes.rows import row_of
from receiver.errors import Invalid, Unreadable
from receiver.platforms.reading import loads
from receiver.shown import without_tokens

M = TypeVar("M", bound=BaseModel)


async def body_of(request: Request, kind: type[M]) -> M:
    text = (await request.body() or b"{}").decode("latin-1")  # byte for byte
    try:
        # Who notes a whole request with its task notes the webhookURL too, which is not kept.
        found = loads(without_tokens(text).encode("latin-1"))
    except Unreadable as error:
        raise Invalid(f"The body is not JSON that can be read: {error}.") from None
    if "\\u" in text:  # JSON has neither in any other spelling
        check_texts(found)
    return kind.model_validate(found)


def check_texts(given: Any) -> None:
    """Raises Invalid for a text, at any depth, that has a NUL or half of a character.

    No database but SQLite keeps them, and no strict client reads them. This is for what somebody
    tells us: what platforms call back with is taken as it is.
    """
    for place, text in _texts(given, ""):
        if _ODD.search(text):
            raise Invalid(
                f"{place or 'The body'} has a NUL, or half of a character (a lone surrogate).",
                parameter=_ODD.sub("\ufffd", place),
            )


def _texts(given: Any, place: str) -> Iterator[tuple[str, str]]:
    # As deep as `loads` lets a body be.
    if isinstance(given, str):
        yield place, given
    elif isinstance(given, Mapping):
        for name, value in given.items():
            inside = f"{place}.{name}" if place else str(name)
            yield inside, name
            yield from _texts(value, inside)
    elif isinstance(given, list):
        for value in given:
            yield from _texts(value, place)


_ODD: Final = re.compile("[\x00\ud800-\udfff]")


def check_parameters(request: Request) -> None:
    """Raises Invalid for a parameter that the request's row does not have, or with an odd text.

    One that is misspelled would otherwise be none: `?projekt=film` would mean all projects.
    """
    for name, text in request.query_params.multi_items():
        check_texts({name: text})
    known = row_of(request).parameters
    if unknown := set(request.query_params) - {*known}:
        raise Invalid(
            f"There is no parameter {min(unknown)!r} here; known: {', '.join(known) or 'none'}.",
            parameter=min(unknown),
        )


def query_of(request: Request) -> Query:
    """What a list is asked for. Raises Invalid."""
    given = dict(request.query_params)
    values = {name: QUERY[name].read(text, name) for name, text in given.items() if text != ""}
    before = values.pop("cursor", None)
    return Query(**values, before=before)


def parameter_of(request: Request, name: str) -> Any:
    """The value of one parameter, None when it is not given. Raises Invalid."""
    text = request.query_params.get(name)
    return None if text is None else QUERY[name].read(text, name)


def given_of(request: Request, name: str) -> Any:
    """The same of a parameter that a form may leave empty. Raises Invalid."""
    return parameter_of(request, name) if request.query_params.get(name) else None


def revision_of(request: Request) -> int | None:
    text = request.headers.get("if-none-match", "").removeprefix("W/").strip('"')
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def revisions_of(request: Request) -> Revisions:
    """Which revisions `If-Match` lets through; None: any (RFC 9110 §13.1.1).

    Weak tags and those that we never gave match nothing.
    """
    given = request.headers.get("if-match")
    if given is None or given.strip() == "*":
        return None
    tags = [part.strip() for part in given.split(",")]
    return frozenset(int(tag[1:-1]) for tag in tags if _TAG.fullmatch(tag))


_TAG: Final = re.compile(r'"[0-9]{1,15}"', re.ASCII)


def key_of(request: Request) -> str | None:
    """The request's `Idempotency-Key`. Raises Invalid for one that nobody would make."""
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise Invalid(f"An Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters.")
    return key

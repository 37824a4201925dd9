"""Floor 0, nouns: a result, one outcome of a task: what is kept and told of it. Pure.

What endpoints are told is rendered once, when the result comes: a completed task repeats all of
its results, and parsing parts only to render them again was a tenth of ingest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel

from receiver.clock import SECOND, to_rfc3339
from receiver.platforms.items import Category, Item, Kind
from receiver.platforms.reading import dollars, dumps
from receiver.tokens import Source


@dataclass(slots=True)
class ResultState:
    """One result within the ledger. `cost` in micro-dollars, times in milliseconds."""

    id: int
    key: str
    index: int
    kind: Kind
    source: Source
    received_at: int
    told: (
        str  # what endpoints are told of it, as JSON text: rendered once, read back only to compare
    )
    cost: int | None = None
    raw: str | None = None  # None when read back without it
    late: bool = False
    superseded: bool = False  # a placeholder that a late result has replaced
    conflicts: int = 0


# How long a platform tries again to deliver a callback that nobody acknowledged. An assumption:
# the first pauses are known, their number is not (reference: platforms.md §1.1, point 5).
RETRYING: Final = 60 * SECOND


def made_after(source: Source, asked_at: int | None, came: int) -> int | None:
    """The moment before which a result that came then can't have been made; None: not known.

    A callback comes soon after its result is made, or within RETRYING. What a poll finds may have
    been there ever since the platform was asked, which was after `asked_at`. In milliseconds.
    """
    if asked_at is not None and asked_at > came:  # so it was asked before we knew of it
        asked_at = None
    return max(asked_at or 0, came - RETRYING) if source is Source.CALLBACK else asked_at


def expiry(ttl: int | None, made: int | None) -> str | None:
    """Until when media are there at least, RFC 3339, if they are deleted `ttl` seconds after."""
    return None if ttl is None or made is None else to_rfc3339(made + ttl * SECOND)


def tell(item: Item, expires_at: str | None = None) -> str:
    """What is told of an item, as JSON text: media, seed, cost in dollars, nsfw, and its error."""
    return dumps(_facts_of(item, expires_at))


def _facts_of(item: Item, expires_at: str | None = None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "media": [
            {"kind": kind, "id": identity, "url": url, "expires_at": expires_at}
            for kind, identity, url in item.media
        ],
        "seed": item.seed,
        "cost": dollars(item.cost),
        "nsfw": item.nsfw,
    }
    if item.error is not None:
        facts["error"] = {
            "code": item.error.code,
            "category": item.error.category.value,
            "message": item.error.message,
            "retryable": item.error.retryable,
        }
    return facts


def differs(known: ResultState, item: Item) -> bool:
    """Whether an item contradicts the result it names, in the fields that both have (design §4)."""
    mine, other = _facts(known), _facts_of(item)
    ours, theirs = _locations(mine["media"]), _locations(other["media"])
    if any(theirs.get(kind, url) != url for kind, url in ours.items()):
        return True
    return any(
        None not in (mine[name], other[name]) and mine[name] != other[name]
        for name in ("seed", "cost", "nsfw")
    )


def _facts(known: ResultState) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(known.told)
    return found


def _locations(media: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    # Without the query: platforms sign their URLs anew each time.
    return {part["kind"]: part["url"].partition("?")[0] for part in media if part["url"]}


def fill(known: ResultState, item: Item, expires_at: str | None = None) -> list[str]:
    """Take what `known` lacks from an item that tells the same result again; the names of it."""
    mine, other = _facts(known), _facts_of(item, expires_at)
    lacked = [
        name for name in ("seed", "cost", "nsfw") if mine[name] is None and other[name] is not None
    ]
    if not _locations(mine["media"]) and _locations(other["media"]):
        lacked.append("media")
    if "cost" in lacked:
        known.cost = item.cost
    known.told = dumps(mine | {name: other[name] for name in lacked})
    return lacked


def date(known: ResultState, expires_at: str | None) -> bool:
    """Say of media that were told without it until when they are there; whether there were any."""
    facts = _facts(known)
    undated = [part for part in facts["media"] if part["expires_at"] is None]
    if expires_at is None or not undated:
        return False
    for part in undated:
        part["expires_at"] = expires_at
    known.told = dumps(facts)
    return True


class MediaView(BaseModel):
    """One file of a result; `expires_at` is a lower bound where it is known."""

    kind: str
    id: str | None
    url: str | None
    expires_at: datetime | None = None


class ErrorView(BaseModel):
    """A failure with the platform's code and our category."""

    code: str
    category: Category
    message: str
    retryable: bool


class Result(BaseModel):
    """A result as the API shows it. `cost` in dollars."""

    id: str
    task_id: str
    key: str
    index: int
    kind: Literal[Kind.SUCCEEDED, Kind.FAILED]
    late: bool
    superseded: bool = False
    conflicts: int = 0
    media: list[MediaView]
    seed: int | None
    cost: float | None
    nsfw: bool | None
    error: ErrorView | None
    source: Source
    received_at: datetime
    raw: Any = None

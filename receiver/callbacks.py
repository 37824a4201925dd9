"""Floor 0, nouns: a callback, one inbound request on a signed URL, kept byte for byte. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict

from receiver import ids
from receiver.errors import Unreadable
from receiver.platforms import PARSERS
from receiver.platforms.items import Item
from receiver.platforms.reading import dumps, loads
from receiver.shown import carries_credential, redact
from receiver.tokens import Source


class Outcome(StrEnum):
    """What became of a callback; the first five are acknowledged with a 200."""

    RECORDED = "recorded"
    CONFLICT = "conflict"
    DUPLICATE = "duplicate"
    PROGRESS = "progress"
    QUARANTINED = "quarantined"
    EXPIRED = "expired"  # kept, answered 410
    REVOKED = "revoked"  # not kept, answered 410
    LIMITED = "limited"  # not kept, answered 429


@dataclass(slots=True)
class Arrival:
    """What ingest hands to the store: one authentic body, its items, and on whose word it came.

    `foreign` counts items that name other tasks, `unreadable` is the reason why there are no items.
    """

    task_id: str | None  # None: it came with a static key and names no task
    platform: str
    project: str
    expected: int | None
    source: Source
    issued_at: int
    jti: bytes | None
    body: bytes = field(repr=False)
    sha256: bytes
    received_at: int
    remote: str
    tags: Mapping[str, str] = field(default_factory=dict)
    items: Sequence[Item] = ()
    foreign: int = 0
    unreadable: str | None = None
    expired: bool = False


class Receipt(NamedTuple):
    """What the store did with an arrival; `results` counts the new ones."""

    outcome: Outcome
    results: int = 0


def together(receipts: Sequence[Receipt]) -> Receipt:
    """What one body brought to several tasks: the best outcome, and all new results."""
    best = min(receipts, key=lambda receipt: _RANK[receipt.outcome])
    return Receipt(best.outcome, sum(receipt.results for receipt in receipts))


_RANK: Final = {outcome: rank for rank, outcome in enumerate(Outcome)}


@dataclass(frozen=True, slots=True)
class Kept:
    """A callback with its exact bytes; they are None once retention has taken them."""

    id: int
    task_id: str | None
    project: str
    platform: str
    source: Source
    jti: bytes | None  # None: it came with a static key
    tags: Mapping[str, str]  # of its URL, while no task has them
    received_at: int
    remote: str
    body: bytes | None = field(repr=False)


def read(platform: str, body: bytes, task: str | None) -> tuple[Sequence[Item], str | None]:
    """The items of a body, or the reason why it has none. No item carries a credential of ours.

    `task`: whose items those without an id are, if the URL said so.
    """
    parse = PARSERS[platform]
    try:
        found = loads(body)
        items = parse(found, task)
        if any(carries_credential(item.raw) for item in items):
            items = parse(loads(redact(dumps(found)).encode()), task)
    except Unreadable as error:
        return [], error.reason
    return items, None


class Reprocess(BaseModel):
    """`POST /v1/callbacks/{id}/reprocess`; a dry run only says what would come of it."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = False


def by_task(items: Sequence[Item]) -> Mapping[str | None, Sequence[Item]]:
    """The items of each task that a body names, for who has no word of the task; None: of none."""
    found: dict[str | None, list[Item]] = {}
    for item in items:
        found.setdefault(_task_of(item), []).append(item)
    return found or {None: []}


def _task_of(item: Item) -> str | None:
    try:
        return None if item.task_id is None else ids.canonical_task(item.task_id)
    except ValueError:
        return None


class Callback(BaseModel):
    """A callback as the API shows it. `body` only on the single object, decoded for reading.

    `body_exact`: whether that text is what came, byte for byte; None beside no body. Retention
    takes a body long before its callback: at `body_dropped_at`.
    """

    id: str
    task_id: str | None
    jti: str | None
    platform: str
    source: str
    outcome: Outcome
    reason: str | None
    size: int
    sha256: str
    received_at: datetime
    repeats: int
    last_received_at: datetime
    remote: str
    body_dropped_at: datetime | None = None
    body: str | None = None
    body_exact: bool | None = None


class Reprocessed(Callback):
    """A callback after its bytes were taken once more: what they brought, and how many results."""

    status: Outcome
    results: int

"""Floor 2, edges: what Runware's answers to polls say of a task, and what they don't. No I/O.

An answer may speak of the task, of the question (a refused key, a full queue), or of nothing at
all; only the first kind is a snapshot. Sources: platforms.md §1.4 (codes) and §1.5 (shapes).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

import httpx

from receiver.platforms import Unreadable
from receiver.platforms.items import Category, Item, Kind
from receiver.platforms.runware import parse
from submitter.errors import KeyRefused, PlatformUnavailable

NAME: Final = "runware"
SETTING: Final = "RUNWARE_API_KEY"

_NEVER_HAD_IT: Final = frozenset({"taskNotFound"})
# It had the task, and there will never be more of it than there is now.
_OVER: Final = re.compile(r"(expired|cancell?ed)$", re.IGNORECASE)
_UNAUTHORIZED, _FORBIDDEN, _TOO_MANY = 401, 403, 429


class Standing(StrEnum):
    """How much an answer says of the task that was asked after."""

    WHOLE = "whole"  # results, failures, or what is in work: there is no more to know
    LACKING = "lacking"  # the same, and results that can't be shown any more
    OVER = "over"  # nothing but that they can't be shown any more
    ABSENT = "absent"  # no such task, or so it seems


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All the platform says of a task now; `known` is False when it says it never had it.

    `content` is the body as it came, for whoever passes it on; `results` counts what is finished.
    """

    standing: Standing
    known: bool
    results: int
    body: Any
    content: bytes

    @property
    def has_results(self) -> bool:
        """Whether there is something to record."""
        return self.results > 0


def snapshot_of(
    response: httpx.Response, content: bytes, task_id: str, *, owner: str | None = None
) -> Snapshot:
    """What an answer says of the task. Items that name no task are of `owner`.

    Raises KeyRefused and PlatformUnavailable when it speaks of the question, or of nothing.
    """
    body = read(content)
    items = _items(body, owner)
    _refuse(response, items, task_id)
    gone = [item for item in items if _category(item) is Category.NOT_FOUND]
    told = [item for item in items if item not in gone]
    if not gone and not any(item.task_id == task_id for item in told):
        status = response.status_code
        raise unseen(task_id, f"HTTP {status} does not speak of it", status)
    codes = {item.error.code for item in gone if item.error}
    return Snapshot(
        standing=_standing(gone, told, codes),
        known=bool(told) or codes != _NEVER_HAD_IT,
        results=sum(item.kind in (Kind.SUCCEEDED, Kind.FAILED) for item in told),
        body=body,
        content=content,
    )


def conclusion(now: Snapshot, archived: Snapshot) -> Snapshot | None:
    """What may be told of a task that was lacking something, once the archive was asked as well.

    None: nothing yet. A task that one of the two does not find may still be on its way, so it is
    asked after again until it is given up; it is over only where both say so.
    """
    if archived.standing is Standing.WHOLE and archived.results >= now.results:
        return archived
    if now.standing is Standing.LACKING:
        return now
    if archived.standing in (Standing.WHOLE, Standing.LACKING):
        return archived
    return now if now.standing is archived.standing is Standing.OVER else None


def read(content: bytes) -> Any:
    """The JSON value of an answer; None for what is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def retry_after(response: httpx.Response) -> float | None:
    """The seconds of a Retry-After header, which may be a date (RFC 9110 §10.2.3).

    A date is compared with the platform's own clock where it shows it.
    """
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    until = _date(text)
    if until is None:
        return None
    now = _date(response.headers.get("date", "")) or datetime.now(UTC)
    return max((until - now).total_seconds(), 0.0)


def unseen(
    task_id: str, reason: str, status: int | None = None, after: float | None = None
) -> PlatformUnavailable:
    """The platform did not say what became of a task."""
    said = f"{NAME} did not say what became of task {task_id} ({reason}). Ask again later."
    return PlatformUnavailable(
        said,
        platform=NAME,
        task_id=task_id,
        reason=reason,
        http_status=status,
        retry_after_s=after,
    )


def _items(body: Any, owner: str | None) -> Sequence[Item]:
    try:
        return parse(body, owner)
    except Unreadable:
        return ()


def _category(item: Item) -> Category | None:
    return None if item.error is None else item.error.category


def _refuse(response: httpx.Response, items: Sequence[Item], task_id: str) -> None:
    status, said = response.status_code, {_category(item) for item in items}
    # An error of the question names no task (platforms.md §1.3), unless its status tells.
    of_the_question = status == _FORBIDDEN or not any(item.task_id for item in items)
    if status == _UNAUTHORIZED or (said == {Category.AUTH} and of_the_question):
        raise KeyRefused(
            platform=NAME,
            task_id=task_id,
            reason=f"HTTP {status}",
            http_status=status,
            setting=SETTING,
        )
    if said == {Category.RATE_LIMIT} and of_the_question:
        status = _TOO_MANY
    if status in (_FORBIDDEN, _TOO_MANY) or status >= 500 or not items:
        reason = f"HTTP {response.status_code}"
        raise unseen(task_id, reason, status, retry_after(response))


def _standing(gone: Sequence[Item], told: Sequence[Item], codes: set[str]) -> Standing:
    if told:
        return Standing.LACKING if gone else Standing.WHOLE
    return Standing.OVER if all(map(_OVER.search, codes)) else Standing.ABSENT


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else None  # an HTTP date ends with GMT

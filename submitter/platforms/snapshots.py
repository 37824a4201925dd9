"""Floor 2, edges: what a platform's answer to a poll is worth, whichever it is. No I/O.

An answer may speak of the task, of the question (a refused key, a full queue), or of nothing at
all; only the first kind is a snapshot.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from submitter.errors import KeyRefused, PlatformUnavailable


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
    `platform_id` is the platform's own name for the task, where it was found out only now.
    """

    standing: Standing
    known: bool
    results: int
    body: Any
    content: bytes
    platform_id: str | None = None

    @property
    def has_results(self) -> bool:
        """Whether there is something to record."""
        return self.results > 0


def conclusion(now: Snapshot, archived: Snapshot | None) -> Snapshot | None:
    """What may be told of a task that was lacking something, once the archive was asked as well.

    None: nothing yet. A task that one of the two does not find may still be on its way, so it is
    asked after again until it is given up; it is over only where both say so. Where there is no
    archive, what the platform says now is all there is.
    """
    if archived is None:
        return None if now.standing is Standing.ABSENT else now
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


def unseen(
    platform: str,
    task_id: str,
    reason: str,
    status: int | None = None,
    after: float | None = None,
) -> PlatformUnavailable:
    """The platform did not say what became of a task."""
    said = f"{platform} did not say what became of task {task_id} ({reason}). Ask again later."
    return PlatformUnavailable(
        said,
        platform=platform,
        task_id=task_id,
        reason=reason,
        http_status=status,
        retry_after_s=after,
    )


def unlisted(platform: str, reason: str, status: int | None = None) -> PlatformUnavailable:
    """The platform did not list its models."""
    return PlatformUnavailable(
        f"{platform} did not list its models ({reason}). Ask again later.",
        platform=platform,
        task_id="",
        reason=reason,
        http_status=status,
    )


def refused(platform: str, setting: str, task_id: str, status: int) -> KeyRefused:
    """The platform does not take our key, whatever is asked."""
    return KeyRefused(
        platform=platform,
        task_id=task_id,
        reason=f"HTTP {status}",
        http_status=status,
        setting=setting,
    )

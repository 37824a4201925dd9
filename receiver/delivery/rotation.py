"""Floor 1, decisions: which of an endpoint's secrets sign, and until when. Pure.

Times are milliseconds and passed in. Standard Webhooks 1.0: "zero downtime secret rotation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from receiver.errors import Conflict

MOST_OLD: Final = 10  # each makes the signature header longer, on every attempt


@dataclass(frozen=True, slots=True)
class Key:
    """A secret or private key. It signs while `until` is ahead; None: it is the current one."""

    text: str = field(repr=False)
    until: int | None = None


def live(keys: Sequence[Key], now: int) -> tuple[str, ...]:
    """What signs at this moment, the newest first."""
    return tuple(key.text for key in keys if key.until is None or now < key.until)


def rotated(keys: Sequence[Key], new: str, *, now: int, overlap: int) -> tuple[Key, ...]:
    """The keys with a new one in front; what was current signs for `overlap` more.

    Older ones keep the time that they were given. With an overlap of 0 none signs any more, as
    after a leak. Raises Conflict for a key that is there already, or for the eleventh old one.
    """
    if new in live(keys, now):
        raise Conflict("The endpoint signs with that secret already. Give another, or none.")
    if not overlap:
        return (Key(new),)
    old = [Key(key.text, key.until or now + overlap) for key in keys]
    old = [key for key in old if key.until is not None and now < key.until]
    if len(old) > MOST_OLD:
        raise Conflict(
            f"{MOST_OLD} earlier secrets still sign. Wait until one is over, or set overlap_s to 0,"
            " which ends them all.",
            most=MOST_OLD,
        )
    return (Key(new), *old)

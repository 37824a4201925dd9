"""Floor 0, nouns: what a platform's body says, in our words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """What one item of a body is."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PROGRESS = "progress"  # still working: kept, never a result
    UNKNOWN = "unknown"  # nothing we know: quarantined


class Category(StrEnum):
    """Why a platform failed, the same over all platforms."""

    VALIDATION = "validation"
    AUTH = "auth"
    QUOTA = "quota"
    RATE_LIMIT = "rate_limit"
    SAFETY = "safety"
    TIMEOUT = "timeout"
    NOT_FOUND = "not_found"
    PROVIDER = "provider"
    SERVER = "server"


RETRYABLE: Final[Mapping[Category, bool]] = {
    Category.VALIDATION: False,
    Category.AUTH: False,
    Category.QUOTA: False,
    Category.RATE_LIMIT: True,
    Category.SAFETY: False,
    Category.TIMEOUT: True,
    Category.NOT_FOUND: False,
    Category.PROVIDER: True,
    Category.SERVER: True,
}


class Media(NamedTuple):
    """One file of a result; `url` may be absent where the platform uploaded it elsewhere."""

    kind: str
    id: str | None
    url: str | None


class PlatformError(NamedTuple):
    """A failure in the platform's words, with our category."""

    code: str
    category: Category
    message: str

    @property
    def retryable(self) -> bool:
        """Whether asking again, unchanged, may succeed."""
        return RETRYABLE[self.category]


class Item(NamedTuple):
    """One item of a body. `key` identifies the result within its task; `raw` is its JSON text.

    `cost` is in micro-dollars, `seed` is unbounded (platforms exceed what they document).
    """

    kind: Kind
    task_id: str | None
    key: str
    raw: str
    media: tuple[Media, ...] = ()
    seed: int | None = None
    cost: int | None = None
    nsfw: bool | None = None
    error: PlatformError | None = None

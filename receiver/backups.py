"""Floor 0, nouns: a backup that is asked for, and one that was made. Stdlib and pydantic."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Kept = Annotated[int, Field(ge=1, le=10_000)]


class BackupAsked(BaseModel):
    """`POST /v1/backup`. `keep`: so many of this receiver's backups stay, None: all of them.

    Where it goes is up to REELHOOK_BACKUP_DIR alone.
    """

    model_config = ConfigDict(extra="forbid")

    keep: Kept | None = None


class BackupMade(BaseModel):
    """A copy of everything, checked and on disk. `path` is one of the receiver's machine."""

    path: str
    bytes: int
    sha256: str
    created_at: datetime
    seconds: float
    instance: str
    schema_version: int
    counts: dict[str, int]
    dropped: list[str]

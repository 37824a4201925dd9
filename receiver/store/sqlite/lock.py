"""Floor 2, edges: the lock that keeps a second process off a database. os only."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from receiver import directories
from receiver.errors import CannotStart, StoreLocked


def take_lock(path: Path) -> int:
    """Hold a database; close the descriptor to let go of it. Raises StoreLocked, CannotStart."""
    # The lock stands beside the database: SQLite's own locks live inside it, and closing any
    # descriptor of the file would drop those (POSIX).
    try:
        directories.make(path.parent)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise not_writable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StoreLocked(
            f"Another process has {path} open. Stop it first, or give this one its own"
            " REELHOOK_DATA_DIR.",
            path=str(path),
        ) from None
    return lock


def not_writable(path: Path, error: OSError) -> CannotStart:
    """What to change where a database can't be written."""
    return CannotStart(
        f"{error.filename or path} can't be written: {error.strerror}. The receiver's user"
        f" has to be able to write {path.parent}; or set REELHOOK_DATA_DIR.",
        path=str(path),
    )

"""Floor 2, edges: the lock that keeps a second process off a database. os only."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from receiver import directories
from receiver.errors import CannotStart, StoreLocked

# The bytes that SQLite locks in a database (SHARED_FIRST and SHARED_SIZE in its os.h): in WAL mode
# whoever has one open holds one of them all the time.
_FIRST: Final = 0x40000002
_BYTES: Final = 510


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


def check_nobody_else(path: Path) -> None:
    """Raises StoreLocked while another process has the database open, without our lock.

    Only for a process that has not opened it itself: that would lose its own locks by this.
    """
    if not path.exists():
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _BYTES, _FIRST)
    except (BlockingIOError, PermissionError):  # which of them, POSIX leaves open
        raise StoreLocked(
            f"Another program has {path} open, as Litestream or a shell would, and would go on"
            " with the file that is replaced. End it first.",
            path=str(path),
        ) from None
    finally:
        os.close(descriptor)


def not_writable(path: Path, error: OSError) -> CannotStart:
    """What to change where a database can't be written."""
    return CannotStart(
        f"{error.filename or path} can't be written: {error.strerror}. The receiver's user"
        f" has to be able to write {path.parent}; or set REELHOOK_DATA_DIR.",
        path=str(path),
    )

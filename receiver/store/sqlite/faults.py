"""Floor 2, edges: what a failed write to SQLite means. Touches nothing.

A job's own fault is its caller's to hear. A fault of the environment (disk full, a foreign lock)
passes, so the store refuses until a write succeeds. After the rest no write can be trusted: most
of all after a failed fsync, since the system may have dropped the pages and forgotten about it, so
that the next fsync succeeds and lies (Rebello and others, "Can Applications Recover from fsync
Failures?", USENIX ATC 2020). The receiver ends then, and goes on from what is on disk.
"""

from __future__ import annotations

from typing import Final

from receiver.errors import StoreBroken, StoreUnavailable
from receiver.store.faults import Fault

# Names of SQLite's result codes (sqlite.org/rescode.html), the first part of a name for a family.
_FSYNC: Final = ("SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC")
_DAMAGED: Final = (  # CORRUPT is also what SQLite calls a read that fails with EIO
    "SQLITE_CORRUPT",
    "SQLITE_NOTADB",
    "SQLITE_IOERR_SHORT_READ",
    "SQLITE_READONLY_DBMOVED",
)
_PASSING: Final = (
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_READONLY",
    "SQLITE_CANTOPEN",
    "SQLITE_PROTOCOL",
    "SQLITE_NOLFS",
)


def judge(error: BaseException) -> Fault:
    """What follows from an exception that a write raised."""
    if isinstance(error, StoreBroken | MemoryError) or not isinstance(error, Exception):
        return Fault.END
    name = _name(error)
    if name.startswith(_FSYNC + _DAMAGED):
        return Fault.END
    if isinstance(error, OSError) or name.startswith(_PASSING):
        return Fault.ENVIRONMENT
    return Fault.JOB


def unavailable(error: Exception) -> StoreUnavailable:
    """What the waiters of a write are told that could not be committed."""
    return StoreUnavailable(f"The database could not commit: {error}.", sqlite=_name(error))


def broken(error: BaseException) -> StoreBroken:
    """Why the receiver ends, and what to do about it."""
    if isinstance(error, StoreBroken):
        return error
    name = _name(error)
    if name.startswith(_FSYNC):
        return StoreBroken(
            f"The disk failed to keep what was written ({name}). Look after it (dmesg, the volume's"
            " status), then start the receiver again: it goes on from what is on disk.",
            sqlite=name,
        )
    if name.startswith(_DAMAGED):
        return StoreBroken(
            f"The database is damaged, or the disk can't read it ({name}: {error}). Look after the"
            " disk (dmesg), and start the receiver again. If that does not last, keep a copy of the"
            " database with its -wal file, then restore a backup, or save what `sqlite3 FILE"
            " .recover` can read.",
            sqlite=name,
        )
    return StoreBroken(
        f"The thread that writes ended with {type(error).__name__}: {error}. Start the receiver"
        " again; if that does not last, look at the machine's memory, and report it.",
        sqlite=name,
    )


def _name(error: BaseException) -> str:
    return str(getattr(error, "sqlite_errorname", ""))

"""Floor 2, edges: what a failed statement to PostgreSQL means. asyncpg only.

A server that restarts, has no room or no connection left passes, so the store refuses until a write
succeeds. What another writer stood in the way of is tried again: a deadlock, or a row that both
made at once. Codes are those of postgresql.org/docs/current/errcodes-appendix.html.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from receiver.errors import StoreBroken, StoreUnavailable
from receiver.store.faults import Fault

_AGAIN: Final = ("23505", "40001", "40P01")  # unique_violation, serialization, deadlock
_PASSING: Final = (
    "08",  # connection exceptions
    "25006",  # read_only_sql_transaction: a standby that took over has not become primary yet
    "53",  # insufficient resources: disk_full, out_of_memory, too_many_connections
    "55P03",  # lock_not_available
    "57",  # operator intervention: admin_shutdown, crash_shutdown, cannot_connect_now
    "58",  # system errors of the server: io_error
    "XX",  # internal errors and corruption: the server's operator has to see to it
)


def judge(error: BaseException) -> Fault:
    """What follows from an exception that a write raised."""
    if isinstance(error, StoreBroken | MemoryError) or not isinstance(error, Exception):
        return Fault.END
    if isinstance(error, asyncpg.PostgresError):
        return _by_code(code_of(error))
    return Fault.ENVIRONMENT if owns(error) else Fault.JOB


def _by_code(code: str) -> Fault:
    if code.startswith(_AGAIN):
        return Fault.AGAIN
    return Fault.ENVIRONMENT if code.startswith(_PASSING) else Fault.JOB


def owns(error: BaseException) -> bool:
    """Whether the server or the way to it raised it."""
    return isinstance(
        error, asyncpg.PostgresError | asyncpg.InterfaceError | OSError | TimeoutError
    ) and not isinstance(error, asyncpg.DataError)


def unavailable(error: Exception) -> StoreUnavailable:
    """What the waiters of a write are told that could not be committed."""
    told = str(error).partition("\n")[0] or type(error).__name__
    return StoreUnavailable(f"The database could not commit: {told}.", sqlstate=code_of(error))


def broken(error: BaseException) -> StoreBroken:
    """Why the receiver ends, and what to do about it."""
    if isinstance(error, StoreBroken):
        return error
    return StoreBroken(
        f"The thread that writes ended with {type(error).__name__}: {error}. Start the receiver"
        " again; if that does not last, look at the machine's memory, and report it.",
        sqlstate=code_of(error),
    )


def code_of(error: BaseException) -> str:
    """The SQLSTATE, "" for what has none."""
    return str(getattr(error, "sqlstate", None) or "")

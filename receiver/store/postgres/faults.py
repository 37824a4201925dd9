"""Floor 2, edges: what a failed statement to PostgreSQL means. asyncpg only.

A server that restarts, has no room or no connection left passes, so the store refuses until a write
succeeds. What another writer stood in the way of is tried again: a deadlock, a row that both made
at once, a statement that was planned for a table which the next release has changed meanwhile.
Codes are those of postgresql.org/docs/current/errcodes-appendix.html.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from receiver.errors import StoreBroken, StoreUnavailable
from receiver.store.faults import Fault

_AGAIN: Final = (
    "0A000",  # feature_not_supported: a cached plan must not change its result's type
    "23505",  # unique_violation
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "55P03",  # lock_not_available: a lock_timeout of the role's
    "57014",  # query_canceled: a statement_timeout of the role's, or somebody's pg_cancel_backend
)
_PASSING: Final = (
    "08",  # connection exceptions
    "25006",  # read_only_sql_transaction: a standby that took over has not become primary yet
    "25P03",  # idle_in_transaction_session_timeout: this process was frozen
    "28",  # invalid authorization: the role, or its password, is being changed
    "3D",  # invalid_catalog_name: the database is gone, and may be being restored
    "3F",  # invalid_schema_name
    "42501",  # insufficient_privilege
    "42P01",  # undefined_table: being restored
    "53",  # insufficient resources: disk_full, out_of_memory, too_many_connections
    "55000",  # object_not_in_prerequisite_state: the database takes no connections
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
    if code in _AGAIN:
        return Fault.AGAIN
    return Fault.ENVIRONMENT if code.startswith(_PASSING) else Fault.JOB


def owns(error: BaseException) -> bool:
    """Whether the server or the way to it raised it, and not a value of ours that fits nowhere."""
    return isinstance(error, _OF_THE_SERVER) and not isinstance(error, asyncpg.DataError)


_OF_THE_SERVER: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    StoreUnavailable,  # what the engine itself refused a transaction for
)


def told(error: BaseException) -> str:
    """What an error says in its first line, or its name."""
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


def unavailable(error: Exception) -> StoreUnavailable:
    """What the waiters of a write are told that could not be committed."""
    if isinstance(error, StoreUnavailable):
        return error
    return StoreUnavailable(
        f"The database could not commit: {told(error)}.", sqlstate=code_of(error)
    )


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

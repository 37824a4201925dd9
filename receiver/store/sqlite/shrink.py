"""Floor 2, edges: the file gives back what it has no use for. sqlite3 only.

Pages that became free are cut off its end, but for a part of the file that will be filled again
anyhow.
"""

from __future__ import annotations

import time
from typing import Final

from receiver.store.connection import Connection
from receiver.store.protocol import Prune
from receiver.store.verbs.prune import Found
from receiver.store.writer import Transaction

PAGES: Final = 50  # given back in a step; each may have to be moved first
RESERVE: Final = 10  # a tenth of the file may be free: cutting it off only to grow again costs more


def shrink(tx: Transaction, asked: Prune, until: float, freed: bool) -> tuple[Found, bool]:
    """Give a few pages back."""
    connection = tx.connection
    pages = _pragma(connection, "page_count")
    for page in range(0 if asked.dry_run else min(_surplus(connection), PAGES)):
        if page and time.monotonic() > until:
            break
        connection.execute(
            "PRAGMA incremental_vacuum(1)"
        ).fetchall()  # more at once: only one is done
    gone = pages - _pragma(connection, "page_count")
    if gone:  # never, in a file of an earlier release that `reelhook migrate` has not rewritten
        return Found(freed_bytes=gone * _pragma(connection, "page_size")), True
    tx.shrunk = tx.shrunk or freed
    return Found(), False


def _surplus(connection: Connection) -> int:
    reserve = _pragma(connection, "page_count") // RESERVE
    return max(_pragma(connection, "freelist_count") - reserve, 0)


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

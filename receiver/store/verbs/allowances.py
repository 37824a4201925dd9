"""Floor 2, edges: how much of its rate each endpoint has left. stdlib only.

A bucket that fills by `rate_limit` a second, to a second's worth at most, and begins with one. It
is kept in memory where one process alone claims, and as rows where several do.
"""

from __future__ import annotations

from typing import Final

from receiver.clock import SECOND
from receiver.store.connection import Connection

SKEW: Final = 15 * SECOND  # milliseconds that clocks of several machines may be apart


class Allowances:
    """The buckets of this process. Times in milliseconds."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[float, int]] = {}

    def load(self, connection: Connection) -> None:
        """A claim begins."""

    def keep(self, connection: Connection) -> None:
        """A claim ends."""

    def left(self, endpoint: int, rate: float, now: int) -> int:
        """How many deliveries may be sent at this moment."""
        held, at = self._held.get(endpoint, (1.0, now))
        held = min(max(rate, 1.0), held + max(now - at, 0) / SECOND * rate)
        self._held[endpoint] = (held, self._filled_at(at, now))
        return int(held)

    def _filled_at(self, _before: int, now: int) -> int:
        return now

    def spend(self, endpoint: int, count: int) -> None:
        """So many are sent."""
        held, at = self._held[endpoint]
        self._held[endpoint] = (held - count, at)


class KeptAllowances(Allowances):
    """Those of all processes, read and written by each claim: one at a time (Held.CLAIMS)."""

    def load(self, connection: Connection) -> None:
        """Read what the last claim left, whoever made it."""
        rows = connection.execute("SELECT endpoint_id, held, at FROM endpoint_allowances")
        self._before = {endpoint: (held, at) for endpoint, held, at in rows}
        self._held = dict(self._before)

    def _filled_at(self, before: int, now: int) -> int:
        # Of two clocks that differ, the one that is behind must not give the other the time anew.
        return before if now < before <= now + SKEW else now

    def keep(self, connection: Connection) -> None:
        """Write what changed."""
        changed = [
            (endpoint, *bucket)
            for endpoint, bucket in self._held.items()
            if self._before.get(endpoint) != bucket
        ]
        if changed:
            connection.executemany(
                "INSERT INTO endpoint_allowances (endpoint_id, held, at) VALUES (?, ?, ?)"
                " ON CONFLICT (endpoint_id) DO UPDATE SET held = excluded.held, at = excluded.at",
                changed,
            )

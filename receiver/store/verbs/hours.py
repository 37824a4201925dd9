"""Floor 2, edges: how attempts went, summed up hour by hour as they come. stdlib only.

A busy endpoint has a million attempts in a day; what a page shows of them is a few hundred sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from receiver.clock import HOUR
from receiver.delivery.policy import succeeded
from receiver.figures import HOURS, within
from receiver.store.connection import Connection
from receiver.store.protocol import Settled

_ADD: Final = (
    "INSERT INTO endpoint_hours (endpoint_id, hour, ok, within_ms, attempts) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (endpoint_id, hour, ok, within_ms)"
    " DO UPDATE SET attempts = endpoint_hours.attempts + excluded.attempts"
)


def add(connection: Connection, news: Sequence[Settled]) -> None:
    """Count these attempts, and forget the hours that nobody asks for any more."""
    counts = Counter(map(_key, news))
    connection.executemany(_ADD, [(*key, count) for key, count in sorted(counts.items())])
    oldest = news[-1].now // HOUR - HOURS
    connection.execute("DELETE FROM endpoint_hours WHERE hour < ?", (oldest,))


def _key(settled: Settled) -> tuple[int, int, bool, int]:
    outcome = settled.outcome
    width = within(outcome.duration_ms)
    return settled.claimed.endpoint_id, settled.now // HOUR, succeeded(outcome), width

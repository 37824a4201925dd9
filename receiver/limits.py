"""Floor 2, edges: how often one address may fail. Stdlib only, in memory.

Only failed tokens count: behind a tunnel or a proxy all callers share an address, and a valid
token must never be refused for a neighbour's sake.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from receiver.clock import MINUTE, SECOND, Clock

ALLOWED: Final = 60  # failures a window
WINDOW: Final = MINUTE
REMEMBERED: Final = 10_000  # addresses; the one seen longest ago is forgotten first


class FailureLimit:
    """Counts failures an address and window."""

    def __init__(self, clock: Clock, allowed: int = ALLOWED) -> None:
        self._clock = clock
        self._allowed = allowed
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()  # address: (since, count)

    def note(self, address: str) -> int | None:
        """Count a failure. Seconds to wait when there were too many, else None."""
        now = self._clock()
        since, count = self._seen.pop(address, (now, 0))
        if not 0 <= now - since < WINDOW:
            since, count = now, 0
        self._seen[address] = (since, count + 1)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        if count < self._allowed:
            return None
        return (since + WINDOW - now) // SECOND + 1

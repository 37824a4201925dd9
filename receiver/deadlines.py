"""Floor 3, flows: deadlines. A tick flags overdue tasks and gives up on the hopeless ones."""

from __future__ import annotations

from receiver.clock import Clock
from receiver.store.protocol import Store


async def tick(store: Store, clock: Clock) -> tuple[int, int]:
    """(tasks that became overdue, tasks given up) now."""
    now = clock()
    return await store.note_overdue(now), await store.give_up(now)

"""A process that drops old tasks while it records new ones, and prints each of these. To be killed.

It first fills the file, then takes one step of a prune for every few callbacks. It never comes to
the end of the prune: whoever is to kill it may be late.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path

from receiver.callbacks import Outcome
from receiver.clock import DAY, wall_clock
from receiver.keeping import Keep
from receiver.store.protocol import Prune
from receiver.store.sqlite import SqliteStore
from tests.make import success, uuid
from tests.receiver.store.suite import arrival_of

OLD_TASKS = 1_000
STEPS = 20  # each drops some 200 bodies, events and tasks with what hangs on them, of 6,000
FIRST = 10_000  # the number of the first new task


async def fill(path: Path) -> None:
    """Write tasks that are too old by now."""
    old = wall_clock() - 400 * DAY
    async with await SqliteStore.open(path, clock=lambda: old) as store:
        arrivals = [
            arrival_of(uuid(n), success(n, note="x" * 3_000), received_at=old)
            for n in range(OLD_TASKS)
        ]
        await asyncio.gather(*[store.record(arrival) for arrival in arrivals])


async def main(path: Path) -> None:
    await fill(path)
    numbers, bounds = count(FIRST), Keep().bounds(wall_clock())
    place: tuple[int, ...] = ()
    async with await SqliteStore.open(path, clock=wall_clock) as store:

        async def acknowledge() -> None:
            number = next(numbers)
            arrival = arrival_of(uuid(number), success(number), received_at=wall_clock())
            assert (await store.record(arrival)).outcome is Outcome.RECORDED
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()

        for _ in range(STEPS):
            step = asyncio.create_task(store.prune(Prune(wall_clock(), bounds, place)))
            await asyncio.gather(*[acknowledge() for _ in range(8)])
            found = (await step).place
            assert found is not None
            place = found
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

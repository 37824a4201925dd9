"""A process that records callbacks and prints each number once it is acknowledged. To be killed."""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path

from receiver.clock import wall_clock
from receiver.store.sqlite import SqliteStore
from tests.make import endpoint, success, uuid
from tests.receiver.store.suite import arrival_of


async def main(path: Path) -> None:
    numbers = count()
    async with await SqliteStore.open(path, clock=wall_clock) as store:
        await store.add_endpoint(endpoint())

        async def acknowledge() -> None:
            for number in numbers:
                await store.record(arrival_of(uuid(number), success(number)))
                sys.stdout.write(f"{number}\n")
                sys.stdout.flush()

        await asyncio.gather(*[acknowledge() for _ in range(16)])


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

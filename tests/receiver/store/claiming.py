"""A process that leases what is due, prints how much that was, and waits. To be killed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from submitter.processes import Child
from tests.doubles import ROOT
from tests.receiver.store.processes import process
from tests.receiver.store.suite import claim


@asynccontextmanager
async def claimer(url: str, *before: str) -> AsyncIterator[tuple[Child, int]]:
    """That process, behind the words of a command that runs it, and what it has leased."""
    argv = [*before, sys.executable, "-m", __name__, url]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    async with Child.start(argv, name="claimer", env=env) as child:
        yield child, int(await anext(aiter(child.lines)))


async def main(url: str) -> None:
    store = await process(url, seed=99)
    sys.stdout.write(f"{len(await claim(store))}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

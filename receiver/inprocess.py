"""Floor 5, assembly: a receiver within another program's process, on sockets of its own.

It leaves the process as it was: no signal, no log set-up, no tuning. `reelhook serve` is for use.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from receiver.app import FrontDoor, build
from receiver.clock import AgreedClock, SteadyClock, wall_clock
from receiver.delivery.guard import Guard
from receiver.delivery.sender import Sender
from receiver.log import Log
from receiver.serve import Listening, open_sockets, ourselves_of, public_port
from receiver.server import serve
from receiver.settings import Settings
from receiver.stores import open_store, time_of

GRACE: Final = 1.0  # seconds for what is still asked at the end


@asynccontextmanager
async def receiving(settings: Settings, log: Log) -> AsyncIterator[Listening]:
    """A receiver until the end of the block. Raises CannotStart."""
    listening = open_sockets(settings)
    guard, agreed = Guard(settings.networks, ourselves=ourselves_of(listening)), AgreedClock()
    async with (
        await open_store(settings, log.warning, clock=agreed) as store,
        Sender(guard, deadline_s=settings.delivery_deadline) as sender,
    ):
        service = build(
            settings,
            store=store,
            sender=sender,
            guard=guard,
            clock=SteadyClock(time_of(settings, agreed)),
            wall=wall_clock,
            log=log,
            public_url=listening.public_url,
        )
        door = FrontDoor(service, log, public_port(listening, settings))
        ready, stop = asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(
            serve(
                door,
                listening.sockets,
                forwarded_allow_ips=settings.forwarded_allow_ips,
                on_ready=ready.set,
                on_stop=service.ops.stop_waiting,
                journal=service.metrics.refused,
                grace=GRACE,
                until=stop,
            )
        )
        try:
            await ready.wait()
            yield listening
        finally:
            stop.set()
            await serving

"""Floor 3, flows: the use cases of sending again, and of trying an endpoint out. The protocol."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from receiver.admin.ops.asking import Principal
from receiver.admin.ops.deliveries import DeliveryOps
from receiver.admin.ops.endpoints import EndpointOps
from receiver.admin.ops.watch import Watch
from receiver.deliveries import Delivery
from receiver.repair import ReplayAsked, Replayed
from receiver.store.protocol import Replay

MAX_WAIT: Final = 30.0  # seconds of a long poll; proxies cut longer ones
LOOK: Final = 0.05  # seconds between two looks, however much is delivered meanwhile


class RepairOps(EndpointOps, DeliveryOps):
    """What an operator does when something did not arrive."""

    watch: Watch

    async def replay(self, who: Principal, event_id: str, asked: ReplayAsked) -> Replayed:
        """Send an event again to those that want it today. Raises Conflict when the named doesn't.

        An existing delivery gets a new round of attempts, a missing one is made.
        """
        await self.event(who, event_id)
        if asked.endpoint is not None:
            await self.endpoint(who, asked.endpoint)
        return await self.store.replay(Replay(event_id, self._clock(), asked.endpoint))

    async def test_endpoint(self, who: Principal, endpoint_id: str, seconds: float) -> Delivery:
        """Send an endpoint its own `endpoint.test`; after its attempt, or after so many seconds."""
        await self.endpoint(who, endpoint_id)
        delivery_id = await self.store.test_endpoint(endpoint_id, self._clock())
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, MAX_WAIT)):
                await self._attempted(delivery_id)
        return await self.store.delivery(delivery_id)

    async def _attempted(self, delivery_id: str) -> None:
        with self.watch.listening() as moved:
            while not self.watch.is_over:
                if (await self.store.delivery(delivery_id)).attempt_log:
                    return
                await moved.wait()
                moved.clear()
                await asyncio.sleep(LOOK)

"""Time that passes only when everybody waits for it, and then at once."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from typing import Any

SETTLES = 40  # turns of the event loop after which whoever does not sleep has gone on


class Time:
    """Seconds since its making: a clock (call it), and a sleep that ends in the order of times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleeping: list[tuple[float, int, asyncio.Event]] = []
        self._slept = 0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Wait until so many seconds have passed for all."""
        self._slept += 1
        wake = asyncio.Event()
        heapq.heappush(self._sleeping, (self.now + seconds, self._slept, wake))
        await wake.wait()

    async def pass_for(self, *works: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run works side by side to their ends; what each gives."""
        gathered = asyncio.gather(*works)
        driver = asyncio.create_task(self._pass())
        try:
            return await gathered
        finally:
            driver.cancel()

    async def _pass(self) -> None:
        while True:
            for _ in range(SETTLES):
                await asyncio.sleep(0)
            if self._sleeping:
                self.now, _, wake = heapq.heappop(self._sleeping)
                wake.set()

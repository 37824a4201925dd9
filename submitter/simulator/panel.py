"""The knobs while the simulator runs, and what is counted against them. Waits are arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from submitter.simulator.config import Knobs
from submitter.simulator.courier import Sleep
from submitter.simulator.plans import Dice


class Panel:
    """One for both platforms: they are refused, held up and drawn by the same knobs."""

    def __init__(self, knobs: Knobs, sleep: Sleep) -> None:
        self.knobs = knobs
        self._sleep = sleep
        self._ordinals: Counter[str] = Counter()
        self._refusals = 0
        self._poll_faults = 0
        self._closing = anyio.Event()

    def close(self) -> None:
        """Answer at once whatever hangs, from now on."""
        self._closing.set()

    def turn(self, patch: dict[str, Any]) -> Knobs:
        """Change knobs for future tasks; naming `seed` begins its sequence anew.

        Raises `pydantic.ValidationError`, and then changes nothing.
        """
        self.knobs = self.knobs.changed(patch)
        if "seed" in patch:
            self._ordinals.clear()
        if patch.keys() & {"submit_status", "submit_refusals"}:
            self._refusals = 0
        if any(name.startswith("poll_") for name in patch):
            self._poll_faults = 0
        return self.knobs

    def dice(self, platform: str = "") -> Dice:
        """The random numbers of the next accepted task of a platform; Runware has no name here."""
        ordinal = self._ordinals[platform]
        self._ordinals[platform] += 1
        return Dice(self.knobs.seed, ordinal, platform)

    def refuses_submit(self) -> bool:
        """Whether the submit at hand is to be refused; it counts as one that was."""
        limit = self.knobs.submit_refusals
        spent = limit is not None and self._refusals >= limit
        if self.knobs.submit_status is None or spent:
            return False
        self._refusals += 1
        return True

    async def fails_poll(self) -> bool:
        """Whether the poll at hand is refused; one that hangs does so first."""
        limit = self.knobs.poll_faults
        if limit is not None and self._poll_faults >= limit:
            return False
        self._poll_faults += 1
        fails = self.knobs.poll_status is not None
        await self.pause(self.knobs.poll_hang_s)
        return fails

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the end."""
        if seconds:
            await self.until(lambda: self._sleep(seconds))

    async def until(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait for something, or for the end."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_on_close, group.cancel_scope)
            await wait()
            group.cancel_scope.cancel()

    async def _cancel_on_close(self, scope: anyio.CancelScope) -> None:
        await self._closing.wait()
        scope.cancel()

"""Floor 4, doors: word for open pages that something has changed. Starlette only.

A page asks for its part anew (docs/dashboard.md), so this stream carries no data, needs no place to
go on from, and costs no query.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Final

from starlette.responses import Response

from receiver.admin.dashboard.pages import PageRow, Visit
from receiver.admin.ops import ANYTHING, Ops, Principal
from receiver.admin.stream import GONE, HEARTBEAT, LIFE, RETRY, streamed

GAP: Final = 0.5  # seconds between two words, however much happens
HELLO: Final = f"retry: {RETRY}\ndata: hello\n\n".encode()
CHANGE: Final = b"data: change\n\n"
SILENCE: Final = b": nothing yet\n\n"


class LivePages:
    """`/live`."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[PageRow]:
        """The stream."""
        return (PageRow("GET", "/live", self._live),)

    async def _live(self, visit: Visit) -> Response:
        return await streamed(visit.request, self._words(visit.who))

    async def _words(self, who: Principal) -> AsyncGenerator[bytes]:
        end = asyncio.get_running_loop().time() + LIFE
        with self._ops.watch.listening(ANYTHING) as changed:
            yield HELLO
            while (word := await self._word(changed, end)) is not None:
                if not await self._ops.is_still(who):
                    yield GONE
                    return
                yield word
                await asyncio.sleep(GAP)

    async def _word(self, changed: asyncio.Event, end: float) -> bytes | None:
        """What to say next, once there is something or it was silent for long; None: no more."""
        if not self._ops.watch.is_over:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await changed.wait()
        if self._ops.watch.is_over or asyncio.get_running_loop().time() >= end:
            return None
        word = CHANGE if changed.is_set() else SILENCE
        changed.clear()
        return word

"""Floor 5, assembly: `reelhook reconcile`: its parts, put together from the environment."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress

from receiver.client import Client
from submitter.door import Door
from submitter.environment import read
from submitter.errors import MissingKey
from submitter.pace import Pace
from submitter.platforms.catalogue import DEFAULT, account
from submitter.reconcile import Polled, Reconciler, run

Environ = Mapping[str, str]
Tell = Callable[[Polled], None]


async def drain(environ: Environ, *, limit: int, rate: float, tell: Tell) -> None:
    """Poll what is due, and end.

    Raises MissingKey and KeyRefused, and Unreachable or ApiRefused when there is no ledger.
    """
    async with (
        _prepared(environ, limit=limit, rate=rate, tell=tell) as reconciler_of,
        _ledger(environ) as ledger,
    ):
        await reconciler_of(ledger).drain()


async def keep_on(
    environ: Environ, *, limit: int, rate: float, tell: Tell, note: Callable[[str], None]
) -> None:
    """Poll what is due until SIGTERM. `note` hears why nothing can be polled, once.

    It never ends by itself: a process runner stops every process when one of them ends.
    """
    loop = asyncio.ensure_future(_keep_on(environ, limit=limit, rate=rate, tell=tell, note=note))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, loop.cancel)
    with suppress(asyncio.CancelledError):
        await loop


async def _keep_on(
    environ: Environ, *, limit: int, rate: float, tell: Tell, note: Callable[[str], None]
) -> None:
    try:
        async with _prepared(environ, limit=limit, rate=rate, tell=tell) as reconciler_of:
            await run(lambda: _ledger(environ), reconciler_of, sleep=asyncio.sleep, note=note)
    except MissingKey as error:
        note(
            f"There is nothing to poll: {error.setting} is not set. Results whose callback never"
            " comes are not fetched. Set it and start this again; until then it idles."
        )
        await asyncio.Event().wait()


@asynccontextmanager
async def _prepared(
    environ: Environ, *, limit: int, rate: float, tell: Tell
) -> AsyncIterator[Callable[[Client], Reconciler]]:
    pace = Pace(rate, clock=time.monotonic, sleep=asyncio.sleep)
    async with aclosing(account(environ, DEFAULT)) as platform, Door() as door:

        def reconciler_of(ledger: Client) -> Reconciler:
            return Reconciler(platform, ledger, door.post, pace=pace, limit=limit, tell=tell)

        yield reconciler_of


def _ledger(environ: Environ) -> Client:
    # Read anew each time: a local receiver writes its file when it is ready.
    found = read(environ)
    return Client(found.ledger_url, found.ledger_token)

"""Floor 5, assembly: `reelhook reconcile`: its parts, put together from the environment.

Each platform that has a key gets a reconciler of its own, with its own pace: what one of them asks
for patience, or refuses, is nothing to the others.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from receiver.client import ApiRefused, Client, Unreachable
from submitter.door import Door
from submitter.environment import read
from submitter.errors import MissingKey
from submitter.pace import Pace
from submitter.platforms.catalogue import SHIPPED, account, key_in
from submitter.platforms.protocol import Platform
from submitter.reconcile import RATE, Polled, Reconciler, run

Environ = Mapping[str, str]
Tell = Callable[[Polled], None]
Note = Callable[[str], None]

LOOK_S: Final = 60.0  # seconds between looks for tasks whose platform has no key

_OPEN: Final = ("pending", "partial")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`limit` tasks of each platform in work at once; `rates` in questions a second, by name."""

    limit: int
    rates: Mapping[str, float] = field(default_factory=dict)


async def drain(environ: Environ, options: Options, *, tell: Tell, note: Note) -> None:
    """Poll what is due, and end. `note` hears of tasks whose platform can't be asked.

    Raises MissingKey and KeyRefused, and Unreachable or ApiRefused when there is no ledger.
    """
    async with _prepared(environ, options, tell) as reconcilers, _ledger(environ) as ledger:
        if not reconcilers:
            settings = " or ".join(SHIPPED[name].setting for name in SHIPPED)
            raise MissingKey(platform="any platform", setting=settings)
        await _tell_unasked(ledger, _without_key(environ), note)
        ends = await asyncio.gather(
            *(make(ledger).drain() for make in reconcilers), return_exceptions=True
        )
    for end in ends:
        if end is not None:
            raise end


async def keep_on(environ: Environ, options: Options, *, tell: Tell, note: Note) -> None:
    """Poll what is due until SIGTERM. `note` hears why nothing can be polled, once.

    It never ends by itself: a process runner stops every process when one of them ends.
    """
    loop = asyncio.ensure_future(_keep_on(environ, options, tell, _once(note)))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, loop.cancel)
    with suppress(asyncio.CancelledError):
        await loop


async def _keep_on(environ: Environ, options: Options, tell: Tell, note: Note) -> None:
    async with _prepared(environ, options, tell) as reconcilers:
        if not reconcilers:
            first, *others = (SHIPPED[name].setting for name in SHIPPED)
            note(
                f"There is nothing to poll: {first} is not set, nor is {' or '.join(others)}."
                " Results whose callback never comes are not fetched. Set one and start this"
                " again; until then it idles."
            )
            await asyncio.Event().wait()
        # A group, since it ends when all have ended: each hands back what it holds.
        async with asyncio.TaskGroup() as group:
            group.create_task(_look_for_unasked(environ, note))
            for make in reconcilers:
                work = run(lambda: _ledger(environ), make, sleep=asyncio.sleep, note=note)
                group.create_task(work)


async def _look_for_unasked(environ: Environ, note: Note) -> None:
    """Say once of each platform without a key that the ledger has tasks of it, when it has."""
    silent = _without_key(environ)
    while silent:
        with suppress(Unreachable, ApiRefused):  # the reconcilers tell of that
            async with _ledger(environ) as ledger:
                silent = await _tell_unasked(ledger, silent, note)
        await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def _prepared(
    environ: Environ, options: Options, tell: Tell
) -> AsyncIterator[Sequence[Callable[[Client], Reconciler]]]:
    """For each platform that has a key, what makes its reconciler."""
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(Door())
        made = []
        for name in SHIPPED:
            if key_in(environ, name):
                platform = await stack.enter_async_context(aclosing(account(environ, name)))
                pace = Pace(
                    options.rates.get(name, RATE), clock=time.monotonic, sleep=asyncio.sleep
                )
                one = partial(_reconciler, platform, door, pace=pace, limit=options.limit)
                made.append(partial(one, tell=tell))
        yield made


def _reconciler(
    platform: Platform, door: Door, ledger: Client, *, pace: Pace, limit: int, tell: Tell
) -> Reconciler:
    return Reconciler(platform, ledger, door.post, pace=pace, limit=limit, tell=tell)


def _ledger(environ: Environ) -> Client:
    # Read anew each time: a local receiver writes its file when it is ready.
    found = read(environ)
    return Client(found.ledger_url, found.ledger_token)


def _without_key(environ: Environ) -> list[str]:
    return [name for name in SHIPPED if not key_in(environ, name)]


async def _tell_unasked(ledger: Client, names: Sequence[str], note: Note) -> list[str]:
    """Tell of open tasks whose platform can't be asked; the platforms that have none."""
    silent = []
    for name in names:
        if await _has_open(ledger, name):
            setting = SHIPPED[name].setting
            note(f"Tasks of {name} wait for an answer and are not polled: {setting} is not set.")
        else:
            silent.append(name)
    return silent


async def _has_open(ledger: Client, platform: str) -> bool:
    for status in _OPEN:
        if (await ledger.tasks(platform=platform, status=status, limit=1)).data:
            return True
    return False


def _once(note: Note) -> Note:
    """Several reconcilers wait for one receiver: what all of them say is said once."""
    last = ""

    def say(text: str) -> None:
        nonlocal last
        if text != last:
            last = text
            note(text)

    return say

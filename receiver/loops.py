"""Floor 5, assembly: the loops that keep a receiver going, whatever one turn of them meets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.types import Lifespan

from receiver import deadlines
from receiver.admin.ops import Ops
from receiver.admin.ops.broadcast import Broadcaster
from receiver.alerts import Alerts
from receiver.clock import Clock
from receiver.delivery.worker import Worker
from receiver.errors import StoreUnavailable
from receiver.jobs import Jobs
from receiver.log import Log
from receiver.retention import LOOK, Retention
from receiver.store.protocol import Store

TICK: Final = 1.0  # seconds between looks at the deadlines
TIDY: Final = 60.0  # seconds between notes of which API tokens were used

Turn = Callable[[], Awaitable[None]]


def of_all(ops: Ops, log: Log) -> dict[str, Turn]:
    """What every process needs, for whoever asks it."""
    return {"feed": lambda: _feed(ops.feed, log), "access": lambda: _tidy(ops, log)}


def of_work(
    store: Store,
    worker: Worker,
    retention: Retention,
    jobs: Jobs,
    alerts: Alerts,
    clock: Clock,
    log: Log,
) -> dict[str, Turn]:
    """What delivers, and does what falls due."""
    return {
        "worker": worker.run,
        "deadlines": lambda: _watch_deadlines(store, clock, log),
        "retention": lambda: _prune(retention, log),
        "jobs": lambda: _work(jobs, log),
        "alerts": lambda: _tell(alerts, log),
    }


def lifespan(ops: Ops, turns: Mapping[str, Turn], log: Log) -> Lifespan[Starlette]:
    """What runs as long as the application does."""

    @contextlib.asynccontextmanager
    async def kept_going(_app: Starlette) -> AsyncIterator[None]:
        loops = [asyncio.create_task(_supervised(name, turn, log)) for name, turn in turns.items()]
        try:
            yield
        finally:
            ops.stop_waiting()
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            with contextlib.suppress(StoreUnavailable):  # the store itself says so
                await ops.tidy()

    return kept_going


async def _supervised(name: str, loop: Turn, log: Log) -> None:
    # Broad on purpose: a defect in one turn must not end deliveries for good, nor hide.
    while True:
        try:
            await loop()
        except Exception:
            log.exception("loop failed", loop=name)
        await asyncio.sleep(TICK)


async def _watch_deadlines(store: Store, clock: Clock, log: Log) -> None:
    while True:
        try:
            overdue, given_up = await deadlines.tick(store, clock)
        except StoreUnavailable as error:
            log.debug("deadlines", error=str(error))  # the store itself says so, once
        else:
            if overdue or given_up:
                log.info("deadlines", overdue=overdue, given_up=given_up)
        await asyncio.sleep(TICK)


async def _prune(retention: Retention, log: Log) -> None:
    try:
        await retention.run()
    except StoreUnavailable as error:
        log.warning("retention", error=str(error))
        await asyncio.sleep(LOOK)


async def _work(jobs: Jobs, log: Log) -> None:
    try:
        await jobs.run()
    except StoreUnavailable as error:
        log.debug("jobs", error=str(error))  # the store itself says so, once


async def _feed(feed: Broadcaster, log: Log) -> None:
    try:
        await feed.run()
    except StoreUnavailable as error:
        log.debug("feed", error=str(error))  # the store itself says so, once


async def _tell(alerts: Alerts, log: Log) -> None:
    while True:
        try:
            await alerts.tick()
        except StoreUnavailable as error:
            log.debug("alerts", error=str(error))  # the store itself says so, once
        await asyncio.sleep(TICK)


async def _tidy(ops: Ops, log: Log) -> None:
    while True:
        await asyncio.sleep(TIDY)
        try:
            await ops.tidy()
        except StoreUnavailable as error:
            log.debug("access", error=str(error))  # the store itself says so, once

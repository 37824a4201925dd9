"""`scripts/prove delivery`: a consumer that does everything wrong gets everything, and in time.

Results are posted to a receiver with three endpoints at a hostile consumer, a process of its own:
30 % of the first tries of each event end in a time-out, a reset, a 500, a 429 or 503 with
Retry-After, a redirect, half an answer, dripping heads and bodies, a gzip bomb, endless headers or
endless 1xx; one endpoint takes nothing at all at first; one event in a hundred is never taken. When
nothing is under way any more, the consumer's ledger is compared with the receiver's file. The
control runs the same against a receiver that takes time-outs for success, hurries and forgets.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from receiver import ids
from scripts.proofs.altered import altered
from scripts.proofs.careless import CARELESS
from scripts.proofs.delivered import AGAIN, CLAIMED, EARLY, Comparison, Endpoint, compare
from scripts.proofs.harness import (
    SERVE,
    Callback,
    Line,
    Receiver,
    Verdict,
    callbacks_of,
    options,
    progress,
    run,
)
from scripts.proofs.hostile import FATES, OUTAGE, read_ledger
from scripts.proofs.postgres import NotInstalled
from scripts.proofs.stored import problems_of
from scripts.proofs.stores import Databases, add_options, chosen, is_strict, one_of
from submitter.processes import Child

NAMES: Final = ("flaky", "moody", OUTAGE)
# Two tries of an event are never in the same second: by that the consumer tells them apart.
SCHEDULE: Final = (0, 2, 2, 3, 3, 4, 4)
LINES: Final = 8  # connections that post
LOOK: Final = 0.5  # seconds between looks at what is still under way
READY: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. Times in seconds."""

    events: int
    deadline: float  # of an attempt
    outage: float
    limit: float  # for all of it
    seed: int = 1
    alterations: tuple[str, ...] = ()


SHORT: Final = Plan(events=500, deadline=1.5, outage=8.0, limit=100)
LONG: Final = Plan(events=20_000, deadline=2.0, outage=8.0, limit=10_000)


@dataclass(slots=True)
class Found:
    """What a run has seen."""

    compared: Comparison = field(default_factory=Comparison)
    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


async def play(plan: Plan, where: Databases | None = None) -> Found:
    """One run, from the first callback to the comparison."""
    begun, found = time.monotonic(), Found()
    async with AsyncExitStack() as ground:
        name = ground.enter_context(tempfile.TemporaryDirectory(prefix="reelhook-delivery-"))
        env, folder = await ground.enter_async_context(one_of(where)), Path(name)
        async with AsyncExitStack() as stack:
            argv = [sys.executable, "-m", "scripts.proofs.hostile", str(folder / "ledger")]
            argv += ["--seed", str(plan.seed), "--outage", str(plan.outage)]
            hostile = await stack.enter_async_context(Child.start(argv, name="consumer"))
            url = str((await hostile.ready(READY))["url"])
            receiver = await stack.enter_async_context(_receiver(folder, plan, env))
            endpoints = [await _register(receiver, url, name) for name in NAMES]
            posted = await post(receiver.port, plan.events)
            progress(f"{len(posted)} callbacks acknowledged, {time.monotonic() - begun:.0f} s")
            if not await _until_settled(receiver, begun + plan.limit):
                found.problems.append(f"not settled within {plan.limit:g} s")
            settled = time.monotonic() - begun
            await receiver.end()
            await hostile.stop()
        ledger = read_ledger(folder / "ledger")
        kept = await receiver.kept()
        found.compared = compare(kept, endpoints, ledger, plan.seed)
        found.problems += problems_of(kept, posted) + found.compared.problems
    found.figures = _figures(found.compared) | {
        "settled_after_s": round(settled),
        "seconds": round(time.monotonic() - begun),
    }
    return found


def _receiver(folder: Path, plan: Plan, store: Mapping[str, str]) -> Receiver:
    command = altered(*plan.alterations) if plan.alterations else SERVE
    # Proxies that are not there: a sender that asked one would deliver nothing.
    proxies = dict.fromkeys(("HTTP_PROXY", "ALL_PROXY", "http_proxy"), "http://127.0.0.1:9")
    env = {"REELHOOK_DELIVERY_DEADLINE": str(plan.deadline), "NO_PROXY": "", **proxies, **store}
    return Receiver(folder, command=command, env=env)


async def _register(receiver: Receiver, url: str, name: str) -> Endpoint:
    spec = {
        "url": f"{url}/{name}",
        "event_types": ["result.*"],
        "concurrency": 80,
        "schedule": list(SCHEDULE),
    }
    made = await receiver.ask("POST", "/v1/endpoints", spec)
    return Endpoint(name, ids.parse(ids.ENDPOINT, made["id"]), made["secret"], SCHEDULE)


async def post(port: int, results: int) -> list[Callback]:
    """So many results, in callbacks of tasks with one to four; all are acknowledged."""
    posted: list[Callback] = []
    made = _made(results)

    async def feed() -> None:
        line = await Line.open(port)
        for callback in made:
            posted.append(callback)
            answer = await line.ask(callback.request)
            while answer is None or answer.status == 503:  # as a platform does
                await asyncio.sleep(LOOK)
                line.close()
                line = await Line.open(port)
                answer = await line.ask(callback.request)
            if answer.status != 200:
                raise RuntimeError(f"a callback was answered {answer.status}")
        line.close()

    await asyncio.gather(*[feed() for _ in range(LINES)])
    return posted


def _made(results: int) -> Iterator[Callback]:
    # One task at a time: the other run on this loop must not wait for a hundred thousand.
    while results > 0:
        task = callbacks_of(random.randint(1, min(4, results)))
        results -= len(task)
        yield from task


async def _until_settled(receiver: Receiver, until: float) -> bool:
    while time.monotonic() < until:
        pages = [
            await receiver.ask("GET", f"/v1/deliveries?state={state}&limit=1")
            for state in ("pending", "sending", "pending")  # one may move while the other is asked
        ]
        if not any(page["data"] for page in pages):
            return True
        await asyncio.sleep(LOOK)
    return False


def _figures(compared: Comparison) -> dict[str, Any]:
    return {
        "events": compared.events,
        "deliveries": compared.deliveries,
        "states": dict(compared.states),
        "attempts": dict(compared.attempts),
        "what_the_consumer_did": dict(compared.fates),
        "copies_after_a_reset_of_a_kept_connection": compared.copies,
        "taken_and_heard_too_late": compared.late,
        "wrong": dict(compared.kinds),
    }


def _asked() -> argparse.Namespace:
    parser = options("delivery", __doc__)
    add_options(parser)
    parser.add_argument("--events", type=int, help="instead of the form's own")
    parser.add_argument("--seed", type=int, default=1, help="of what the consumer does")
    return parser.parse_args()


async def main() -> int:
    """Run the control and the proof side by side."""
    asked, verdict = _asked(), Verdict("delivery")
    try:
        async with chosen(asked) as where:
            return await _prove(asked, verdict, where)
    except NotInstalled as reason:
        return verdict.skip(str(reason), strict=is_strict(asked))


async def _prove(asked: argparse.Namespace, verdict: Verdict, where: Databases | None) -> int:
    plan = replace(SHORT if asked.ci else LONG, seed=asked.seed)
    if asked.events:
        plan = replace(plan, events=asked.events)
    careless = replace(SHORT, events=200, limit=40, alterations=tuple(CARELESS), seed=asked.seed)
    found, control = await asyncio.gather(play(plan, where), play(careless, where))
    verdict.control = {"a careless receiver": control.figures}
    verdict.control_failed = all(control.compared.kinds[kind] for kind in (CLAIMED, EARLY, AGAIN))
    verdict.figures = found.figures | {"store": asked.store, "cores": os.cpu_count()}
    verdict.problems = found.problems
    verdict.problems += [
        f"nothing seen of {fate!r}: this run proves nothing"
        for fate in FATES
        if not found.compared.fates[fate]
    ]
    return verdict.tell()


if __name__ == "__main__":
    sys.exit(run(main()))

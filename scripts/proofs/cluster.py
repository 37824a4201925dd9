"""`scripts/prove cluster`: many processes on one PostgreSQL, and any of them may be killed.

Three `serve --no-worker`, four `worker` and two `reconcile` share a database. A platform calls back
to one receiver after the other, again until a 2xx, now and then twice. Every few seconds one of the
processes gets SIGKILL, and a new one takes its place; PostgreSQL itself is restarted, once in the
fast way and once as in a crash. Some tasks go to the simulator, which drops their callbacks, so
that a reconciler has to fetch what it made. When nothing is under way any more, what is kept and
what came to the consumer have to agree: nothing acknowledged is lost, every event came to each
endpoint that wants it, in order where that was asked for, and a second time only after a crash. The
control answers before it commits, claims without a lock and loses deliveries: all must be found.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx

from receiver import ids
from receiver.client import Client
from receiver.endpoints import EndpointSpec
from scripts.proofs.altered import BEFORE_COMMIT
from scripts.proofs.arrived import AGAIN, LOST, Comparison, Consumer, Endpoint, compare
from scripts.proofs.copied import copy, damage_in
from scripts.proofs.crew import RECONCILE, SERVE, WORKER, Crew, Member
from scripts.proofs.harness import ADMIN, Verdict, options, progress, run
from scripts.proofs.platform import Platform
from scripts.proofs.ports import held_port
from scripts.proofs.postgres import NotInstalled
from scripts.proofs.reconcile import ASKED, Kept, made_of
from scripts.proofs.reconcile import KEY as NO_KEY
from scripts.proofs.stored import problems_of
from scripts.proofs.stores import Databases, add_url, databases, is_strict
from scripts.proofs.unshared import LOSES, UNLOCKED
from submitter import Submitter
from submitter.platforms.runware import Runware
from submitter.processes import Child

READY: Final = 60.0  # seconds
LOOK: Final = 0.5  # seconds between looks at what is still under way
ALL: Final = "all"
RESULTS: Final = "results"
FEW: Final = {ALL: ("result.*", "task.completed"), RESULTS: ("result.*",)}
SCHEDULE: Final = "0,1,1,1,2,2,2,3,3,5,5,5,5,5,5"
PLATFORM: Final = ("--port", "0", "--quiet", "--drop", "0.5", "--duplicates", "0.2")
LATER: Final = ("--failures", "0.04", "--max-attempts", "6")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. Times in seconds."""

    callbacks: int
    simulated: int = 0  # tasks of the simulator
    rate: float = 0.0  # callbacks a second; 0: as fast as they are taken
    roles: Mapping[str, int] = field(default_factory=lambda: {SERVE: 3, WORKER: 4, RECONCILE: 2})
    every: float = 4.0  # between two kills, if their number is not given
    first: Sequence[str] = (WORKER, SERVE, RECONCILE)  # whom to kill first; then anybody
    kills: int | None = None  # evenly over the callbacks; None: as many as there is time for
    restarts: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGQUIT)
    deadline: float = 30.0  # of a simulated task, after its submit
    limit: float  # from the last callback until nothing is under way
    alterations: Sequence[str] = ()
    seed: int = 1


LONG: Final = Plan(callbacks=50_000, simulated=400, limit=1_800)
SHORT: Final = Plan(
    callbacks=1_500,
    simulated=24,
    rate=80,
    kills=3,
    restarts=(signal.SIGQUIT,),
    deadline=8,
    limit=90,
)
CONTROL: Final = Plan(
    callbacks=500,
    roles={SERVE: 1, WORKER: 2},
    first=(SERVE,),
    kills=1,
    restarts=(),
    limit=20,
    alterations=(BEFORE_COMMIT, UNLOCKED, LOSES),
)


@dataclass(slots=True)
class Found:
    """What a run has seen."""

    compared: Comparison = field(default_factory=Comparison)
    unkept: list[str] = field(default_factory=list)  # acknowledged, and not there as it must be
    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class World:
    """A database, those who share it, a platform that calls them and who is told."""

    def __init__(self, plan: Plan, folder: Path, url: str, consumer: Consumer) -> None:
        self.plan = plan
        self.url = url
        self.consumer = consumer
        self.folder = folder
        self.simulator = ""
        self.tasks: dict[str, int] = {}  # of the simulator: how many results each owes
        self.endpoints: list[Endpoint] = []
        self.ports = [held_port() for _ in range(plan.roles[SERVE])]
        self.platform = Platform(self.ports, plan.callbacks, plan.rate)
        self.crew: Crew

    def members(self) -> list[Member]:
        """Everybody, not started yet."""
        made = []
        for role, most in self.plan.roles.items():
            for number in range(most):
                folder = self.folder / f"{role}{number}"
                env = self._environment(role, self.ports[number % len(self.ports)])
                alterations = () if role == RECONCILE else self.plan.alterations
                made.append(Member(folder, role, env, alterations))
        return made

    def _environment(self, role: str, port: int) -> dict[str, str]:
        env = {"DATABASE_URL": self.url, "REELHOOK_DELIVERY_SCHEDULE": SCHEDULE}
        if role == SERVE:
            env |= {"PORT": str(port)}
        if role == RECONCILE:
            env |= {
                "REELHOOK_URL": f"http://127.0.0.1:{port}",
                "RUNWARE_API_KEY": NO_KEY,
                "RUNWARE_BASE_URL": f"{self.simulator}/v1",
            }
        return env

    async def register(self) -> None:
        """Two endpoints, of which one keeps the order of a task's events."""
        async with Client(f"http://127.0.0.1:{self.ports[0]}", ADMIN) as client:
            for name, kinds in FEW.items():
                made = await client.add_endpoint(
                    EndpointSpec(
                        url=f"{self.consumer.url}/{name}",
                        event_types=list(kinds),
                        ordered=name == ALL,
                        concurrency=80,
                    )
                )
                number = ids.parse(ids.ENDPOINT, made.id)
                self.endpoints.append(Endpoint(name, number, kinds, ordered=name == ALL))

    async def submit(self) -> None:
        """Submit to the simulator as users do, by one receiver after the other."""
        rng = random.Random(self.plan.seed)
        counts = [rng.randint(1, 4) for _ in range(self.plan.simulated)]
        await asyncio.gather(
            *[
                self._submit(port, counts[place :: len(self.ports)])
                for place, port in enumerate(self.ports)
            ]
        )

    async def _submit(self, port: int, counts: Sequence[int]) -> None:
        account = Runware(NO_KEY, f"{self.simulator}/v1")
        model, parameters = ASKED["runware"]
        async with Submitter(account, Client(f"http://127.0.0.1:{port}", ADMIN)) as submitter:
            for count in counts:
                due = datetime.now(UTC) + timedelta(seconds=self.plan.deadline)
                task = await submitter.submit(
                    model, parameters, number_results=count, deadline_at=due
                )
                self.tasks[task.id] = count

    async def simulated(self, path: str) -> dict[str, Any]:
        """What the simulator's controls answer."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            found: dict[str, Any] = (await http.get(f"{self.simulator}{path}")).json()
            return found

    async def left(self) -> int:
        """How much is still under way."""
        found = 0
        if self.tasks:
            counters = (await self.simulated("/_control"))["counters"]
            found += counters["results"]["processing"] + counters["callbacks"]["waiting"]
        raw = await asyncpg.connect(self.url)
        try:
            found += int(await raw.fetchval(_UNDER_WAY))
            # What the control's receivers lost, nobody sends them again.
            found += 0 if self.plan.alterations else int(await raw.fetchval(_OPEN))
        finally:
            await raw.close()
        return found


_UNDER_WAY: Final = "SELECT count(*) FROM deliveries WHERE state IN ('pending', 'sending')"
_OPEN: Final = "SELECT count(*) FROM tasks WHERE completed_at IS NULL"


@asynccontextmanager
async def world(plan: Plan, where: Databases, folder: Path) -> AsyncIterator[World]:
    """All processes, started."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(where.one())
        consumer = await stack.enter_async_context(Consumer())
        here = World(plan, folder, url, consumer)
        if plan.simulated:
            argv = [sys.executable, "-m", "submitter.simulator", *PLATFORM, *LATER]
            argv += ["--seed", str(plan.seed)]
            child = await stack.enter_async_context(Child.start(argv, name="simulator"))
            here.simulator = str((await child.ready(READY))["url"])
        here.crew = Crew(here.members(), where.server, plan.seed)
        stack.push_async_callback(here.crew.end)
        await here.crew.start()
        yield here


async def play(plan: Plan, where: Databases) -> Found:
    """One run, from the first start to the comparison."""
    begun, found = time.monotonic(), Found()
    with tempfile.TemporaryDirectory(prefix="reelhook-cluster-") as name:
        async with world(plan, where, Path(name)) as here:
            _tell(here, f"{len(here.crew.members)} processes started", begun)
            await here.register()
            await here.submit()
            await disturbed(here)
            _tell(here, f"{len(here.platform.acknowledged)} callbacks acknowledged", begun)
            posted = time.monotonic()
            if not await until_settled(here, posted + plan.limit):
                found.problems.append(f"not settled within {plan.limit:g} s: {await here.left()}")
            _tell(here, "settled", begun)
            settled = time.monotonic()
            await here.crew.stop()
            await judge(found, here, Path(name) / "copy.db")
            found.figures = figures(found, here) | {
                "seconds": {
                    "until_all_was_acknowledged": round(posted - begun),
                    "until_all_was_settled": round(settled - begun),
                    "in_all": round(time.monotonic() - begun),
                }
            }
    return found


def _tell(here: World, text: str, begun: float) -> None:
    kind = "control" if here.plan.alterations else "cluster"
    progress(f"{kind}: {text}, {time.monotonic() - begun:.0f} s")


async def disturbed(here: World) -> None:
    """All callbacks, and whatever happens to those who take them meanwhile."""
    calling = asyncio.create_task(here.platform.run())
    restarting = asyncio.create_task(_restart(here))
    killing = asyncio.create_task(_kill(here))
    try:
        await calling
        await restarting
        if here.plan.kills is not None:
            await killing
    finally:
        for task in (calling, restarting, killing):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await killing


async def _kill(here: World) -> None:
    kills, first = here.plan.kills, here.plan.first
    for number in count() if kills is None else range(kills):
        if kills is None:
            await asyncio.sleep(here.plan.every)
        else:
            await here.platform.until(here.plan.callbacks * (number + 1) // (kills + 2))
        # What began is finished: a process that was killed has its successor.
        await asyncio.shield(here.crew.kill(first[number] if number < len(first) else None))


async def _restart(here: World) -> None:
    for number, how in enumerate(here.plan.restarts, 1):
        enough = here.plan.callbacks * number // (len(here.plan.restarts) + 1)
        await here.platform.until(enough)
        await here.crew.restart_database(how)


async def until_settled(here: World, until: float) -> bool:
    """Whether nothing is under way any more, in time."""
    while await here.left():
        if time.monotonic() > until:
            return False
        here.crew.look()
        await asyncio.sleep(LOOK)
    return True


async def judge(found: Found, here: World, kept: Path) -> None:
    """What was acknowledged and what was made against what is kept; that against what came."""
    await copy(here.url, kept)
    platform = here.platform
    found.unkept = problems_of(kept, platform.acknowledged, sent=platform.sent)
    found.compared = compare(kept, here.endpoints, here.consumer.visits, here.crew.crashes)
    found.problems += platform.problems + here.crew.problems + found.unkept
    found.problems += found.compared.problems + await damage_in(here.url)
    if here.tasks:
        made = (await here.simulated("/_control/tasks"))["data"]
        found.problems += fetched(here, made, kept)


def fetched(here: World, made: Sequence[Mapping[str, Any]], kept: Path) -> list[str]:
    """Whether what the simulator made is there, called back or fetched; [] if it is."""
    found, sources = list[str](), Counter[str]()
    with closing(sqlite3.connect(f"file:{kept}?mode=ro", uri=True)) as file:
        for task in made:
            its = Kept(file, task["taskUUID"])
            sources += its.sources
            expected = here.tasks.get(its.task, 0)
            found += its.problems(made_of(task), expected, here.consumer.taken)
    if len(made) != len(here.tasks):
        found.append(f"{len(here.tasks)} tasks submitted, the platform has {len(made)}")
    if not sources["poll"]:
        found.append("nothing had to be fetched: this run proves nothing of reconcilers")
    return found


def figures(found: Found, here: World) -> dict[str, Any]:
    """For the verdict."""
    compared, crew = found.compared, here.crew
    return {
        "callbacks": here.plan.callbacks,
        "acknowledged": len(here.platform.acknowledged),
        "answers": dict(here.platform.said),
        "lost_or_wrong": len(found.unkept),
        "killed": dict(crew.killed),
        "database_restarted": crew.restarts,
        "starts_refused_meanwhile": crew.refused_starts,
        "tasks": dict(compared.tasks),
        "simulated_tasks": len(here.tasks),
        "polls": sum(member.polls for member in crew.members),
        "events": compared.events,
        "deliveries": compared.deliveries,
        "states": dict(compared.states),
        "requests": compared.requests,
        "answered_500": compared.failed,
        "attempts_nobody_settled": compared.lapsed,
        "sent_again_after_a_2xx": compared.repeats,
        "wrong": dict(compared.kinds),
    }


def _asked() -> argparse.Namespace:
    parser = options("cluster", __doc__)
    add_url(parser)
    parser.add_argument("--callbacks", type=int, help="instead of the form's own")
    parser.add_argument("--seed", type=int, default=1, help="of whom is killed")
    return parser.parse_args()


async def main() -> int:
    """Run the control and the proof side by side, each on a server of its own."""
    asked, verdict = _asked(), Verdict("cluster")
    try:
        async with AsyncExitStack() as stack:
            for_control, for_proof = [
                await stack.enter_async_context(databases(asked.database_url, on_disk=not asked.ci))
                for _ in range(2)
            ]
            return await _prove(asked, verdict, for_control, for_proof)
    except NotInstalled as reason:
        return verdict.skip(str(reason), strict=is_strict(asked))


async def _prove(
    asked: argparse.Namespace, verdict: Verdict, for_control: Databases, for_proof: Databases
) -> int:
    plan = replace(SHORT if asked.ci else LONG, seed=asked.seed)
    if asked.callbacks:
        plan = replace(plan, callbacks=asked.callbacks)
    if for_proof.server is None:  # somebody else's is not ours to end
        plan = replace(plan, restarts=())
    control, found = await asyncio.gather(play(CONTROL, for_control), play(plan, for_proof))
    verdict.control = {"answers early, has no lock, loses": control.figures}
    kinds = control.compared.kinds
    lost = any("acknowledged" in problem for problem in control.unkept)
    verdict.control_failed = lost and bool(kinds[AGAIN]) and bool(kinds[LOST])
    verdict.figures = found.figures | {"cores": os.cpu_count()}
    verdict.problems = found.problems + _unseen(plan, found)
    return verdict.tell()


def _unseen(plan: Plan, found: Found) -> list[str]:
    """What a run has to have seen to prove anything."""
    seen = {
        "a kill of each role": set(found.figures["killed"]) == set(plan.roles),
        "all restarts": len(found.figures["database_restarted"]) == len(plan.restarts),
        "a callback that was not taken at once": bool(
            found.figures["answers"].keys() & {"503", "unanswered"}
        ),
        "an attempt of a process that was killed": bool(found.compared.lapsed),
    }
    return [
        f"nothing seen of {what}: this run proves nothing"
        for what, is_so in seen.items()
        if not is_so
    ]


if __name__ == "__main__":
    sys.exit(run(main()))

"""Floor 5, assembly: `reelhook demo`: the main job as four real processes, told as it happens.

Receiver, simulator, reconciler and consumer run on this machine with a data directory of their own.
The simulator sends some callbacks twice and some never; the reconciler fetches what never came. At
the end nothing is believed: what the simulator says it made, what the ledger holds and what the
consumer verified are compared, and only if all agree is the exit code 0. No key is ever read.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any, Final

import httpx

from receiver.client import Client, EndpointSpec, Result, Source
from submitter.handle import SubmittedTask
from submitter.platforms.runware import Runware
from submitter.processes import Child
from submitter.submit import Submitter

READY: Final = 30.0  # seconds for a process to listen
PATIENCE: Final = 60.0  # seconds for all that follows
INTERRUPTED: Final = 130
LOOK: Final = 0.2  # seconds between looks at what is still under way
OVERDUE: Final = timedelta(seconds=2.2)  # the last callback is sent after 1.9 s
SCHEDULE: Final = "0,1,2,5"
KNOBS: Final = (
    *("--delay-s", "1", "--spread-s", "0.9", "--duplicates", "0.4", "--drop", "0.2"),
    *("--seed", "7"),
)
FAILING: Final = "simulator:fail@1"
NO_KEY: Final = "no-key-needed"

_OURS: Final = ("REELHOOK_", "RUNWARE_", "NANOGPT_")
_GENERIC: Final = frozenset({"HOST", "PORT", "DATABASE_URL", "LOG_LEVEL", "WEB_CONCURRENCY"})
_NOT_PARAMETERS: Final = frozenset({"taskType", "taskUUID", "model"})


@dataclass(frozen=True, slots=True)
class Stage:
    """The processes, and a client for each that answers."""

    ledger: Client
    simulator: str
    consumer: str
    http: httpx.AsyncClient

    async def simulator_says(self, path: str) -> dict[str, Any]:
        """What the simulator's controls answer."""
        found: dict[str, Any] = (await self.http.get(f"{self.simulator}{path}")).json()
        return found

    async def consumer_saw(self) -> dict[str, Any]:
        """What the consumer verified and refused."""
        found: dict[str, Any] = (await self.http.get(f"{self.consumer}/seen")).json()
        return found


@dataclass(slots=True)
class Report:
    """What was compared, each with whether it held."""

    checks: list[tuple[str, bool]] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=dict)

    def check(self, what: str, holds: bool) -> None:
        """Note one comparison."""
        self.checks.append((what, holds))

    @property
    def holds(self) -> bool:
        """Whether there were comparisons and all of them held."""
        return bool(self.checks) and all(holds for _, holds in self.checks)


async def run(*, keep: bool, as_json: bool) -> int:
    """Play the whole flow; 0 only if everything that was checked holds.

    A signal ends it in order: the processes of the stage have sessions of their own, so they would
    outlive us otherwise.
    """
    playing = asyncio.current_task()
    assert playing is not None  # noqa: S101 - a coroutine runs in a task
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(sig, playing.cancel)
    try:
        return await _run(keep=keep, as_json=as_json)
    except asyncio.CancelledError:
        _say("Stopped.")
        return INTERRUPTED


async def _run(*, keep: bool, as_json: bool) -> int:
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(_stage())
        try:
            async with asyncio.timeout(PATIENCE):
                report = await _play(stage)
        except TimeoutError:
            _say(f"Not done within {PATIENCE:.0f} s.")
            return 1
        _conclude(report, as_json)
        if keep:
            await _linger(stage)
        return 0 if report.holds else 1


@asynccontextmanager
async def _stage() -> AsyncIterator[Stage]:
    token = secrets.token_urlsafe(32)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="reelhook-demo-"))
        # All of them import for a while, so they do it side by side.
        serving = await _start(stack, "receiver", _receiver_env(folder, token), "receiver", "serve")
        simulating = await _start(
            stack, "simulator", _bare(), "submitter.simulator", "--port", "0", "--quiet", *KNOBS
        )
        consuming = await _start(stack, "consumer", _bare(), "submitter.consumer", "--port", "0")
        simulator = await _ready(stack, simulating)
        receiver = await _ready(stack, serving)
        reconciling = _reconciler_env(receiver["url"], token, simulator["url"])
        reconciler = await _start(
            stack, "reconciler", reconciling, "receiver", "reconcile", "--json"
        )
        _introduce(stack, reconciler, receiver["url"])
        consumer = await _ready(stack, consuming)
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=10))
        ledger = await stack.enter_async_context(Client(receiver["url"], token))
        yield Stage(ledger, simulator["url"], consumer["url"], http)


async def _start(stack: AsyncExitStack, name: str, env: Mapping[str, str], *module: str) -> Child:
    argv = [sys.executable, "-m", *module]
    return await stack.enter_async_context(Child.start(argv, name=name, env=env))


async def _ready(stack: AsyncExitStack, child: Child) -> dict[str, Any]:
    ready = await child.ready(READY)
    _introduce(stack, child, ready["url"])
    return ready


def _introduce(stack: AsyncExitStack, child: Child, url: str) -> None:
    _say(f"    {child.name:<10} {url}  (process {child.pid})")
    narrator = asyncio.create_task(_narrate(child))
    stack.callback(narrator.cancel)


async def _narrate(child: Child) -> None:
    """Tell what a process tells: deliveries that were verified, tasks that were asked after."""
    async for line in child.lines:
        told = json.loads(line)
        if told.get("event") == "delivery":
            _say(f"==> delivered  {told['task'][:8]}  {told['type']}, signature verified")
        elif "found" in told:
            _say(f"??? overdue    {told['task'][:8]}  asked after: {told['found']}")


def _bare() -> dict[str, str]:
    """The environment without any setting of ours: the demo must not find a key, nor a ledger."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OURS) and name not in _GENERIC
    }


def _receiver_env(folder: str, token: str) -> dict[str, str]:
    return {
        **_bare(),
        "PORT": "0",
        "LOG_LEVEL": "warning",
        "REELHOOK_DATA_DIR": folder,
        "REELHOOK_ADMIN_TOKEN": token,
        "REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        "REELHOOK_DELIVERY_SCHEDULE": SCHEDULE,
    }


def _reconciler_env(receiver: str, token: str, simulator: str) -> dict[str, str]:
    return {
        **_bare(),
        "REELHOOK_URL": receiver,
        "REELHOOK_ADMIN_TOKEN": token,
        "RUNWARE_BASE_URL": f"{simulator}/v1",
        "RUNWARE_API_KEY": NO_KEY,
    }


async def _play(stage: Stage) -> Report:
    spec = EndpointSpec(url=f"{stage.consumer}/hooks", description="the demo's consumer")
    endpoint = await stage.ledger.add_endpoint(spec)
    await stage.http.post(f"{stage.consumer}/secret", json={"secret": endpoint.secret})
    platform = Runware(NO_KEY, f"{stage.simulator}/v1")
    async with platform:
        submitter = Submitter(platform, stage.ledger)
        tasks = [await _submit(submitter, wanted) for wanted in _wanted()]
        await asyncio.gather(*(_follow(task) for task in tasks))
        await _settled(stage)
    return await _compare(stage, tasks)


def _wanted() -> list[dict[str, Any]]:
    """The nine published requests, one that owes four results, and one that fails."""
    text = resources.files("submitter.simulator").joinpath("published.json").read_text()
    published = [pair["request"] for pair in json.loads(text)["pairs"]]
    like = {"positivePrompt": "a paper boat in the rain", "width": 640, "height": 360}
    four = {"model": "pixverse:1@6", **like, "duration": 5, "numberResults": 4}
    return [*published, four, {"model": FAILING, **like, "duration": 5}]


async def _submit(submitter: Submitter, wanted: dict[str, Any]) -> SubmittedTask:
    parameters = {name: wanted[name] for name in wanted if name not in _NOT_PARAMETERS}
    count = parameters.pop("numberResults", 1)
    task = await submitter.submit(
        wanted["model"],
        parameters,
        number_results=count,
        task_id=wanted.get("taskUUID"),
        tags={"projectId": "proj_789"},
        deadline_at=datetime.now(UTC) + OVERDUE,
    )
    _say(f"--> submitted  {task.id[:8]}  {wanted['model']:<17} × {count}")
    return task


async def _follow(task: SubmittedTask) -> None:
    async for result in task.results():
        way = "fetched " if result.source is Source.POLL else "callback"
        _say(f"<-- {way}   {task.id[:8]}  result {result.index + 1}  {_outcome(result)}")
    done = await task.wait()
    _say(f"=== {done.status.value:<10} {task.id[:8]}  {done.received} of {done.expected}")


def _outcome(result: Result) -> str:
    if result.error is not None:
        return f"failed: {result.error.code}"
    cost = "" if result.cost is None else f"  ${result.cost:g}"
    return f"{result.media[0].id if result.media else ''}{cost}"


async def _settled(stage: Stage) -> None:
    """Return once the simulator has nothing more to send and every delivery is settled."""
    while True:
        counters = (await stage.simulator_says("/_control"))["counters"]
        open_now = [
            delivery
            for state in ("pending", "sending")
            for delivery in (await stage.ledger.deliveries(state=state, limit=1)).data
        ]
        if not counters["callbacks"]["waiting"] and not open_now:
            return
        await asyncio.sleep(LOOK)


async def _compare(stage: Stage, tasks: list[SubmittedTask]) -> Report:
    report = Report()
    sent = (await stage.simulator_says("/_control/tasks"))["data"]
    results = {task.id: await stage.ledger.results(task.id) for task in tasks}
    events = (await stage.ledger.events(limit=200)).data
    callbacks = [
        callback
        for callback in (await stage.ledger.callbacks(limit=200)).data
        if callback.source == Source.CALLBACK
    ]
    seen = await stage.consumer_saw()

    held = Counter(_name(found) for listed in results.values() for found in listed)
    made = [result for task in sent for result in task["results"]]
    told = Counter(_made(result) for result in made)
    report.check("every result of the platform is recorded once", held == told)
    dropped = {_made(result) for result in made if result["dropped"]}
    polled = {
        _name(found)
        for listed in results.values()
        for found in listed
        if found.source is Source.POLL
    }
    fetched = bool(dropped) and dropped <= polled
    report.check("some were never called back, and were fetched", fetched)
    acknowledged = sum(_acknowledged(task) for task in sent)
    kept = sum(1 + callback.repeats for callback in callbacks)
    report.check("every callback that was acknowledged is counted", acknowledged == kept)
    by_callback = sum(held.values()) - len(polled)
    report.check("some came twice, and were told once", kept > by_callback)
    report.check("the published results are as published", _as_published(results))
    completed = Counter(event.task_id for event in events if event.type == "task.completed")
    once = completed == Counter({task.id: 1 for task in tasks})
    report.check("each task was told complete exactly once", once)
    verified = set(seen["events"]) == {event.id for event in events} and not seen["refused"]
    report.check("every event was delivered, and its signature verified", verified)
    failed = [found for listed in results.values() for found in listed if found.error]
    report.check("the task that fails is told as failed, and it alone", len(failed) == 1)
    report.figures = {
        "tasks": len(tasks),
        "callbacks": kept,
        "results": sum(held.values()),
        "duplicates": kept - by_callback,
        "fetched": len(polled),
        "events": len(events),
        "deliveries_verified": sum(seen["times"].values()),
    }
    return report


def _name(result: Result) -> str | None:
    return result.error.code if result.error else result.media[0].id


def _made(result: dict[str, Any]) -> str | None:
    found: str | None = result["media"] or result["code"]
    return found


def _acknowledged(task: dict[str, Any]) -> int:
    return sum(
        attempt["status"] == 200
        for result in task["results"]
        for callback in result["callbacks"]
        for attempt in callback["attempts"]
    )


def _as_published(results: dict[str, list[Result]]) -> bool:
    text = resources.files("submitter.simulator").joinpath("published.json").read_text()
    answers = [pair["response"] for pair in json.loads(text)["pairs"]]
    return all(
        [(found.media[0].id, found.seed, found.cost) for found in results[answer["taskUUID"]]]
        == [(answer["videoUUID"], answer["seed"], answer["cost"])]
        for answer in answers
    )


def _conclude(report: Report, as_json: bool) -> None:
    if as_json:
        checks = [{"check": what, "holds": holds} for what, holds in report.checks]
        _print(json.dumps({"ok": report.holds, **report.figures, "checks": checks}))
        return
    figures = ", ".join(f"{count} {name}" for name, count in report.figures.items())
    _print(figures.replace("_", " "))
    for what, holds in report.checks:
        _print(f"  {'ok    ' if holds else 'FAILED'}  {what}")


async def _linger(stage: Stage) -> None:
    _say(f"Still running until Ctrl-C: {stage.ledger.url}, {stage.simulator}, {stage.consumer}")
    await asyncio.Event().wait()


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


__all__ = ["Report", "run"]

"""Floor 5, assembly: `reelhook trigger`: an event on demand, made as a platform would make it.

A task is put into the ledger and called back in the simulator's wire format, through the receiver's
own door; so what follows is what follows in earnest, and all of it carries the tag `trigger`. No
platform is asked and no key of one is read.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Final
from uuid import uuid4

import httpx

from receiver.client import (
    ApiRefused,
    Client,
    Delivery,
    Endpoint,
    EndpointSpec,
    Event,
    SubmitState,
    TaskPatch,
    TaskSpec,
)
from submitter.door import Door, base_of
from submitter.errors import SubmitterError
from submitter.processes import Child
from submitter.simulator import plans
from submitter.simulator.config import Knobs

MODEL: Final = "simulator:trigger@1"
MEDIA: Final = "http://127.0.0.1:8100"  # where `reelhook simulate` shows its sample
TAG: Final = "trigger"
LOOK: Final = 0.2  # seconds between two looks at what follows
PATIENCE: Final = 20.0  # seconds for it; a deadline is noticed within one
READY: Final = 30.0  # seconds for the consumer to listen

SUCCEEDED, FAILED = "result.succeeded", "result.failed"
COMPLETED, REVISED, OVERDUE = "task.completed", "task.revised", "task.overdue"
TYPES: Final = (SUCCEEDED, FAILED, COMPLETED, REVISED, OVERDUE)
# What no platform can cause, and what does.
OTHERWISE: Final = {
    "endpoint.test": "reelhook endpoints test ep_…",
    "endpoint.disabled": "reelhook trigger result.succeeded --status 410",
    "delivery.exhausted": "reelhook trigger result.succeeded --status 503",
}


@dataclass(kw_only=True, eq=False)
class NothingCame(SubmitterError):
    """{event_type} did not follow within {waited_s:g} s; see `reelhook tasks show {task_id}`."""

    event_type: str
    task_id: str
    waited_s: float
    code: str = field(default="nothing_came", init=False)


@dataclass(kw_only=True, eq=False)
class DoorShut(SubmitterError):
    """The receiver at {url} answered a callback with {status}."""

    url: str
    status: int | str
    code: str = field(default="door_shut", init=False)


@dataclass(kw_only=True, eq=False)
class NoDelivery(SubmitterError):
    """{url} may not deliver here: start it on this machine with {setting}=127.0.0.0/8."""

    url: str
    setting: str = "REELHOOK_ALLOW_NETWORKS"
    code: str = field(default="no_delivery", init=False)


@dataclass(frozen=True, slots=True)
class Trigger:
    """What is to happen. `answers`: what a consumer of ours says to each try, the last for ever."""

    event_type: str
    results: int = 1
    duplicate: bool = False
    shuffle: bool = False
    delay_s: float = 0.0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    project: str | None = None
    answers: Sequence[int] = ()

    @property
    def callbacks(self) -> int:
        """Results that the platform tells of: a revised task gets one more than it was owed."""
        return 0 if self.event_type == OVERDUE else self.results + (self.event_type == REVISED)


@dataclass(frozen=True, slots=True)
class Called:
    """A callback that the receiver answered."""

    number: int
    total: int
    status: int


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt that the receiver made to deliver to our consumer."""

    delivery: str
    number: int
    status: int | None
    state: str


News = Called | Tried | Event
Tell = Callable[[News], None]


async def pull(asked: Trigger, ledger: Client, tell: Tell, dice: Random) -> str:
    """Make it happen; the task's id. Raises DoorShut, NothingCame and what the client raises."""
    task_id = str(uuid4())
    async with _consumer(asked, ledger, task_id) as endpoint:
        webhook_url = await _register(asked, ledger, task_id)
        await _call_back(asked, ledger.url, webhook_url, bodies(asked, task_id, dice), tell)
        for event in await _followed(asked, ledger, task_id):
            tell(event)
        if endpoint is not None:
            await _follow(ledger, endpoint, tell)
    return task_id


async def _register(asked: Trigger, ledger: Client, task_id: str) -> str:
    deadline = datetime.now(UTC) if asked.event_type == OVERDUE else None
    spec = TaskSpec(
        platform="runware",
        model=MODEL,
        expected=asked.results,
        tags={**asked.tags, TAG: task_id},
        deadline_at=deadline,
        **({} if asked.project is None else {"project": asked.project}),
    )
    task = await ledger.register_task(task_id, spec)
    await ledger.change_task(task_id, TaskPatch(submit_state=SubmitState.SUBMITTED))
    return task.webhook_url


def bodies(asked: Trigger, task_id: str, dice: Random) -> list[bytes]:
    """The callbacks, in the order in which they are sent. `dice` shuffles them."""
    if not asked.callbacks:
        return []
    task = {
        "taskType": "videoInference",
        "taskUUID": task_id,
        "model": MODEL,
        "numberResults": asked.callbacks,
        "includeCost": True,
    }
    knobs = Knobs(
        failures=float(asked.event_type == FAILED), duplicates=float(asked.duplicate), seed=1
    )
    setting = plans.Setting(knobs, plans.Dice(1, int(task_id[:8], 16)), MEDIA, {})
    found = [body for outcome in plans.plan(task, setting) for body in outcome.bodies]
    if asked.shuffle:
        dice.shuffle(found)
    return [_overridden(body, asked.overrides) for body in found]


def _overridden(body: bytes, overrides: Mapping[str, Any]) -> bytes:
    if not overrides:
        return body
    found = json.loads(body)
    for item in (*found.get("data", ()), *found.get("errors", ())):
        for path, value in overrides.items():
            _put(item, path.split("."), value)
    return plans.encode(found)


def _put(item: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *parents, name = path
    for parent in parents:
        inner = item.get(parent)
        item[parent] = inner if isinstance(inner, dict) else {}
        item = item[parent]
    item[name] = value


async def _call_back(
    asked: Trigger, url: str, webhook_url: str, found: Sequence[bytes], tell: Tell
) -> None:
    # Whoever reaches the API reaches the door beside it; the public URL may be a tunnel that is not
    # open, or one that leads around the world.
    target = f"{url.rstrip('/')}/{webhook_url.removeprefix(base_of(webhook_url))}"
    async with Door() as door:
        for number, body in enumerate(found, 1):
            if number > 1:
                await asyncio.sleep(asked.delay_s)
            try:
                status = await door.post(target, body)
            except OSError as error:
                raise DoorShut(url=url, status=str(error)) from None
            if not 200 <= status < 300:
                raise DoorShut(url=url, status=status)
            tell(Called(number, len(found), status))


async def _followed(asked: Trigger, ledger: Client, task_id: str) -> list[Event]:
    """The task's events, oldest first, once the one that was asked for is among them."""
    found: list[Event] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while asked.event_type not in [event.type for event in found]:
                await asyncio.sleep(LOOK if found or not asked.callbacks else 0)
                found = (await ledger.events(task=task_id, limit=200)).data
    except TimeoutError:
        raise NothingCame(event_type=asked.event_type, task_id=task_id, waited_s=PATIENCE) from None
    return found[::-1]


# A consumer that answers as it was told, so that retries can be watched


@asynccontextmanager
async def _consumer(asked: Trigger, ledger: Client, task_id: str) -> AsyncIterator[Endpoint | None]:
    if not asked.answers:
        yield None
        return
    said = ",".join(map(str, asked.answers))
    argv = [sys.executable, "-m", "submitter.consumer", "--port", "0", "--answers", said]
    async with Child.start(argv, name="consumer") as child:
        url = (await child.ready(READY))["url"]
        endpoint = await _add(ledger, _spec(asked, url, task_id))
        try:
            async with httpx.AsyncClient(trust_env=False) as http:
                await http.post(f"{url}/secret", json={"secret": endpoint.secret})
            yield endpoint
        finally:
            await ledger.delete_endpoint(endpoint.id)


async def _add(ledger: Client, spec: EndpointSpec) -> Endpoint:
    try:
        return await ledger.add_endpoint(spec)
    except ApiRefused as error:
        if error.problem != "url_refused":
            raise
        raise NoDelivery(url=ledger.url) from None


def _spec(asked: Trigger, url: str, task_id: str) -> EndpointSpec:
    return EndpointSpec(
        url=f"{url}/hooks",
        event_types=[asked.event_type],
        filters={f"tags.{TAG}": task_id},
        description="reelhook trigger; it goes when that ends",
        schedule=[0, *[1] * (len(asked.answers) - 1)],
    )


async def _follow(ledger: Client, endpoint: Endpoint, tell: Tell) -> None:
    """Tell of each attempt until all deliveries are settled, or held since we asked for it."""
    told: dict[str, int] = {}
    while True:
        held = (await ledger.endpoint(endpoint.id)).state != "enabled"
        found = (await ledger.deliveries(endpoint=endpoint.id, limit=200)).data
        for delivery in found:
            await _tell_tried(ledger, delivery, told, tell)
        if held or all(delivery.state not in ("pending", "sending") for delivery in found):
            return
        await asyncio.sleep(LOOK)


async def _tell_tried(ledger: Client, listed: Delivery, told: dict[str, int], tell: Tell) -> None:
    if listed.attempts == told.get(listed.id, 0):
        return
    delivery = await ledger.delivery(listed.id)
    for attempt in delivery.attempt_log or ():
        if attempt.number > told.get(listed.id, 0):
            tell(Tried(delivery.id, attempt.number, attempt.status, delivery.state.value))
            told[listed.id] = attempt.number

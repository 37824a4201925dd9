"""Callbacks, repeats, losses, late arrivals and polls in any order, on either platform and in every
envelope: in the end each result is there once, and the task was completed once.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver import deadlines
from receiver.clock import DAY, MINUTE
from receiver.store.protocol import Query
from receiver.tokens import Source
from tests.doubles import PUBLIC_URL, Assembled, assembled
from tests.golden import golden
from tests.make import failure, processing, success, uuid

FAILED: Final = ("timeoutProvider", "providerError")
NANOGPT: Final = {known.file.removesuffix(".json"): known.body for known in golden("nanogpt")}
ENDS: Final = {
    True: ("n3-completed", "n5-legacy-completed", "u3-unified-completed"),
    False: ("n4-failed", "n6-legacy-failed", "u4-unified-failed"),
}
IN_WORK: Final = ("n2-in-progress", "n5-legacy-in-progress", "u2-unified-processing")
NUMBERS = count(1_000)

Item = dict[str, Any]


class World:
    """One receiver for all examples; each has a task of its own."""

    def __init__(self, runner: asyncio.Runner, receiver: Assembled) -> None:
        self.runner = runner
        self.receiver = receiver

    def get(self, path: str) -> Any:
        return self.runner.run(self.receiver.client.get(path)).raise_for_status().json()

    def post(self, url: str, body: bytes) -> str:
        """What the door says to a body; it takes every authentic one."""
        sent = self.receiver.stranger.post(url.removeprefix(PUBLIC_URL), content=body)
        return str(self.runner.run(sent).raise_for_status().json()["status"])

    def register(self, task: str, source: Source, **spec: Any) -> str:
        asked = self.receiver.client.put(f"/v1/tasks/{task}?src={source}", json=spec)
        return str(self.runner.run(asked).raise_for_status().json()["webhook_url"])

    def pass_time(self, ms: int) -> None:
        """Let deadlines come, as the receiver's own tick sees them."""
        self.receiver.clock.advance(ms)
        self.runner.run(deadlines.tick(self.receiver.store, self.receiver.clock))

    def events(self, task: str) -> Counter[str]:
        found = self.runner.run(self.receiver.store.events(Query(task=task, limit=200)))
        return Counter(event.type for event in found.data)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("interleavings")
    with asyncio.Runner() as runner:
        opened = assembled(folder)
        receiver = runner.run(opened.__aenter__())
        yield World(runner, receiver)
        runner.run(opened.__aexit__(None, None, None))


# What Runware may send of some results: each way that any of its sources shows.


def told(items: Sequence[Item], envelope: str) -> bytes:
    """Items in an envelope; an error of several goes into its own list, as the platform does it."""
    fine = [item for item in items if "code" not in item]
    wrong = [item for item in items if "code" in item]
    if envelope == "flat" and len(items) == 1:
        body: Any = items[0]
    elif envelope == "list":
        body = list(items)
    elif envelope == "embedded":
        body = {"data": [*fine, *map(_embedded, wrong)]}
    elif envelope == "error" and wrong and not fine:
        body = {"error": wrong[0] if len(wrong) == 1 else wrong, "taskUUID": wrong[0]["taskUUID"]}
    elif wrong:
        body = {"data": fine, "errors": wrong}
    else:
        body = {"data": fine}
    return json.dumps(body).encode()


def _embedded(item: Item) -> Item:
    error = {name: item[name] for name in ("code", "message")}
    return {"taskUUID": item["taskUUID"], "status": "error", "error": error}


ENVELOPES: Final = ("flat", "wrapped", "list", "embedded", "error")


@dataclass
class Runware:
    """A task at the platform: its results, and which of them are finished by now."""

    task: str
    items: list[Item]
    finished: set[int] = field(default_factory=set)

    def snapshot(self) -> list[Item]:
        """The whole task, in stable order, as a poll shows it."""
        return [
            item if place in self.finished else processing(self.task)
            for place, item in enumerate(self.items)
        ]


def _new_task() -> str:
    return uuid(next(NUMBERS))


def _item(task: str, code: str | None) -> Item:
    return success(next(NUMBERS), task) if code is None else failure(code, task)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("finish"), st.integers(0, 3)),
        st.tuples(
            st.just("callback"),
            st.tuples(
                st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True),
                st.sampled_from(ENVELOPES),
                st.integers(1, 3),
            ),
        ),
        st.tuples(st.just("poll"), st.sampled_from(ENVELOPES[1:])),
        st.tuples(st.just("wait"), st.sampled_from([MINUTE, 20 * MINUTE, DAY + MINUTE])),
    ),
    max_size=14,
)

examined = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(
    st.lists(st.none() | st.sampled_from(FAILED), min_size=1, max_size=4),
    steps,
    st.sampled_from(ENVELOPES[1:]),
    st.booleans(),
)
@examined
def test_runware(
    world: World, codes: list[str | None], steps: list[Any], last: str, patient: bool
) -> None:
    task = _new_task()
    platform = Runware(task, [_item(task, code) for code in codes])
    spec = {"platform": "runware", "expected": len(codes)}
    if patient:  # never given up
        spec["give_up_at"] = "2100-01-01T00:00:00Z"
    world.register(task, Source.CALLBACK, **spec)
    for kind, value in steps:
        _take(world, platform, kind, value, spec)
    platform.finished = set(range(len(codes)))
    world.post(world.register(task, Source.POLL, **spec), told(platform.snapshot(), last))
    _is_told_once(world, task, codes)


def _take(world: World, platform: Runware, kind: str, value: Any, spec: dict[str, Any]) -> None:
    if kind == "finish":
        platform.finished.add(value % len(platform.items))
    elif kind == "wait":
        world.pass_time(value)
    elif kind == "poll":
        world.post(
            world.register(platform.task, Source.POLL, **spec), told(platform.snapshot(), value)
        )
    else:
        places, envelope, copies = value
        known = {place % len(platform.items) for place in places} & platform.finished
        items = [platform.items[place] for place in sorted(known)]
        fresh = world.register(platform.task, Source.CALLBACK, **spec)  # days may have passed
        for _ in range(copies if items else 0):
            world.post(fresh, told(items, envelope))


def _is_told_once(world: World, task: str, codes: Sequence[str | None]) -> None:
    results = [
        result
        for result in world.get(f"/v1/tasks/{task}/results")["data"]
        if not result["superseded"]
    ]
    found = Counter(result["error"] and result["error"]["code"] for result in results)
    assert found == Counter(codes)
    assert len({result["key"] for result in results}) == len(codes)
    shown = world.get(f"/v1/tasks/{task}")
    assert (shown["succeeded"], shown["failed"]) == (found[None], len(codes) - found[None])
    events = world.events(task)
    assert events["task.completed"] == 1
    everything = world.get(f"/v1/tasks/{task}/results")["data"]
    assert events["result.succeeded"] + events["result.failed"] == len(everything)


answers = st.lists(
    st.sampled_from([*IN_WORK, "end", MINUTE, 20 * MINUTE, DAY + MINUTE]), max_size=10
)


@given(st.booleans(), answers, st.lists(st.integers(0, 2), min_size=11, max_size=11))
@examined
def test_nanogpt(world: World, succeeds: bool, steps: list[str | int], shapes: list[int]) -> None:
    task, spec = _new_task(), {"platform": "nanogpt"}
    world.register(task, Source.CALLBACK, **spec)
    for step, shape in zip([*steps, "end"], shapes, strict=False):
        if isinstance(step, int):
            world.pass_time(step)
        else:
            name = ENDS[succeeds][shape] if step == "end" else step
            world.post(world.register(task, Source.POLL, **spec), NANOGPT[name])
    _is_told_once(world, task, [None if succeeds else "FAILED"])

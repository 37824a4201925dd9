"""Reconciling several platforms beside each other: a real receiver, and a simulator of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from receiver.client import Client
from scripts.proofs.ports import held_port
from submitter import reconciler
from submitter.errors import KeyRefused, MissingKey
from submitter.pace import Pace
from submitter.platforms.nanogpt import NanoGPT
from submitter.platforms.runware import Runware
from submitter.reconcile import Polled
from submitter.reconciler import Options, drain, keep_on
from submitter.simulator.config import Knobs, SimulatorConfig
from submitter.simulator.serve import running as simulating
from submitter.submit import Submitter
from tests.doubles import ADMIN_TOKEN, LIMIT_S, Running, running
from tests.submitter.stage import API_KEY, MODEL, PARAMETERS, RECEIVER

pytestmark = [pytest.mark.anyio, pytest.mark.process]

OPTIONS = Options(limit=8)


@dataclass
class World:
    """Two tasks that are due, one of each platform, and what was told of their polls."""

    client: Client
    environ: dict[str, str]
    tasks: dict[str, str] = field(default_factory=dict)
    told: list[Polled] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    async def drain(self, **environ: str) -> dict[str, str]:
        """What each task's poll found."""
        given = {**self.environ, **environ}
        await drain(given, OPTIONS, tell=self.told.append, note=self.notes.append)
        return self.found

    @property
    def found(self) -> dict[str, str]:
        names = {task: name for name, task in self.tasks.items()}
        return {names[polled.task]: polled.found for polled in self.told if polled.task in names}

    async def complete(self, name: str) -> bool:
        task = await self.client.task(self.tasks[name])
        return task is not None and task.complete


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("receiver"), **RECEIVER) as found:
        yield found


@asynccontextmanager
async def world(receiver: Running, **knobs: Any) -> AsyncIterator[World]:
    url = receiver.ready["url"]
    settings = Knobs(**{"delay_s": 0, "spread_s": 0, "drop": 1, **knobs})
    config = SimulatorConfig(knobs=settings, api_key=API_KEY)
    async with simulating(config) as simulator, Client(url, ADMIN_TOKEN) as client:
        environ = {
            "REELHOOK_URL": url,
            "REELHOOK_ADMIN_TOKEN": ADMIN_TOKEN,
            "RUNWARE_API_KEY": API_KEY,
            "RUNWARE_BASE_URL": f"{simulator}/v1",
            "NANOGPT_API_KEY": API_KEY,
            "NANOGPT_BASE_URL": f"{simulator}/api",
        }
        here = World(client, environ)
        for platform, model, parameters in (
            (Runware(API_KEY, f"{simulator}/v1"), MODEL, PARAMETERS),
            (NanoGPT(API_KEY, f"{simulator}/api"), "sora-2", {"prompt": "a boat"}),
        ):
            async with Submitter(platform, Client(url, ADMIN_TOKEN)) as submitter:
                task = await submitter.submit(model, parameters)
            await client.reconcile_task(task.id)
            here.tasks[platform.name] = task.id
        yield here
        for task_id in here.tasks.values():
            await client.delete_task(task_id)


async def test_both_are_drained(receiver: Running) -> None:
    async with world(receiver) as here:
        assert await here.drain() == {"runware": "posted", "nanogpt": "posted"}
        assert await here.complete("runware")
        assert await here.complete("nanogpt")
        assert here.notes == []


@pytest.mark.parametrize(("down", "other"), [("runware", "nanogpt"), ("nanogpt", "runware")])
async def test_one_that_is_down_holds_up_no_other(receiver: Running, down: str, other: str) -> None:
    async with world(receiver) as here:
        nobody = {f"{down.upper()}_BASE_URL": f"http://127.0.0.1:{held_port()}"}
        assert await here.drain(**nobody) == {down: "unavailable", other: "posted"}
        assert await here.complete(other)


@pytest.mark.parametrize(("wrong", "other"), [("runware", "nanogpt"), ("nanogpt", "runware")])
async def test_a_key_that_is_refused_stops_no_other(
    receiver: Running, wrong: str, other: str
) -> None:
    async with world(receiver) as here:
        with pytest.raises(KeyRefused) as caught:
            await here.drain(**{f"{wrong.upper()}_API_KEY": "another"})
        assert caught.value.platform == wrong
        assert here.found == {wrong: "put_off", other: "posted"}
        assert await here.complete(other)
        # What was put off was handed back: the right key finds it due.
        here.told.clear()
        assert await here.drain() == {wrong: "posted"}


@pytest.mark.parametrize(("without", "other"), [("runware", "nanogpt"), ("nanogpt", "runware")])
async def test_without_a_key_its_tasks_are_told_of_and_left_alone(
    receiver: Running, without: str, other: str
) -> None:
    setting = f"{without.upper()}_API_KEY"
    async with world(receiver) as here:
        assert await here.drain(**{setting: ""}) == {other: "posted"}
        (note,) = here.notes
        assert f"{setting} is not set" in note
        assert without in note


async def test_without_any_key_nobody_can_be_asked(tmp_path: Path) -> None:
    environ = {"REELHOOK_DATA_DIR": str(tmp_path)}
    with pytest.raises(MissingKey, match="RUNWARE_API_KEY or NANOGPT_API_KEY"):
        await drain(environ, OPTIONS, tell=print, note=print)


async def test_the_loop_asks_both_and_tells_once_of_what_has_no_key(
    receiver: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "LOOK_S", 0.01)
    async with asyncio.timeout(LIMIT_S), world(receiver) as here:
        told, noted = asyncio.Event(), asyncio.Event()

        def tell(polled: Polled) -> None:
            here.told.append(polled)
            told.set()

        def note(text: str) -> None:
            here.notes.append(text)
            noted.set()

        environ = {**here.environ, "NANOGPT_API_KEY": ""}
        loop = asyncio.create_task(keep_on(environ, OPTIONS, tell=tell, note=note))
        await told.wait()
        await noted.wait()
        for _ in range(20):  # some more looks
            await here.client.health()
        loop.cancel()
        await loop
        assert here.found == {"runware": "posted"}
        assert len(here.notes) == 1
        assert "NANOGPT_API_KEY is not set" in here.notes[0]


async def test_both_loops_wait_for_one_receiver_and_say_so_once(tmp_path: Path) -> None:
    said: list[str] = []
    twice = asyncio.Event()

    def note(text: str) -> None:
        said.append(text)
        twice.set()

    environ = {
        "REELHOOK_DATA_DIR": str(tmp_path),
        "REELHOOK_URL": f"http://127.0.0.1:{held_port()}",
        "RUNWARE_API_KEY": API_KEY,
        "NANOGPT_API_KEY": API_KEY,
    }
    async with asyncio.timeout(LIMIT_S):
        loop = asyncio.create_task(keep_on(environ, OPTIONS, tell=print, note=note))
        await twice.wait()
        loop.cancel()
        await loop
    assert len(said) == 1
    assert said[0].startswith("Waiting for the receiver.")


def test_what_is_said_by_several_is_said_once() -> None:
    said: list[str] = []
    say = reconciler._once(said.append)
    for text in ("waiting", "waiting", "back", "back", "waiting"):
        say(text)
    assert said == ["waiting", "back", "waiting"]


async def test_each_platform_has_a_rate_of_its_own(
    receiver: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    class Noting(Pace):
        def __init__(self, rate: float, **options: Any) -> None:
            rates.append(rate)
            super().__init__(rate, **options)

    monkeypatch.setattr(reconciler, "Pace", Noting)
    async with world(receiver) as here:
        options = Options(limit=8, rates={"nanogpt": 2.0})
        await drain(here.environ, options, tell=here.told.append, note=here.notes.append)
    assert rates == [5.0, 2.0]

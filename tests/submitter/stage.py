"""What the submitter's tests stand on: a receiver, a simulator, and an ear on both wires."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import anyio
import httpx

from receiver.client import Client
from submitter.platforms.answers import TIMEOUT
from submitter.platforms.runware import Runware
from submitter.simulator.config import Knobs, SimulatorConfig
from submitter.simulator.courier import Sleep
from submitter.simulator.serve import running as simulating
from submitter.submit import Submitter
from tests.doubles import ADMIN_TOKEN, LIMIT_S, ROOT, Running

API_KEY = "rw-a-key-that-nobody-may-ever-see"
MODEL = "pixverse:1@6"
PARTIAL = "simulator:partial@1"
FAILING = "simulator:fail@1"
PARAMETERS = {"positivePrompt": "a paper boat", "width": 1280, "height": 720, "duration": 5}
RECEIVER = {
    "REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
    "REELHOOK_DELIVERY_SCHEDULE": "0,1,1,1,1",
    "LOG_LEVEL": "warning",
}
Json = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """One request as it left."""

    server: str
    method: str
    path: str
    body: Any

    @property
    def line(self) -> str:
        """Whom it asked for what; a task's id is left out."""
        path = self.path.partition("/v1/tasks/")[1] or self.path
        return f"{self.server} {self.method} {path}"


class Recording(httpx.AsyncBaseTransport):
    """A real network, each of whose requests is noted before it leaves."""

    def __init__(self, server: str, seen: list[Seen]) -> None:
        self._server = server
        self._seen = seen
        self._network = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        body = json.loads(content) if content else None
        self._seen.append(Seen(self._server, request.method, request.url.path, body))
        return await self._network.handle_async_request(request)

    async def aclose(self) -> None:
        await self._network.aclose()


class Leaving(httpx.AsyncBaseTransport):
    """Gives up waiting for an answer at a moment of the test's choice, and not of the machine's."""

    def __init__(self, network: httpx.AsyncBaseTransport, leaves: asyncio.Event) -> None:
        self._network = network
        self._leaves = leaves

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asking = asyncio.ensure_future(self._network.handle_async_request(request))
        await self._leaves.wait()
        asking.cancel()
        await asyncio.wait([asking])
        raise httpx.ReadTimeout("It was left.", request=request)

    async def aclose(self) -> None:
        await self._network.aclose()


@dataclass
class Stage:
    """A receiver's client, a simulator, and all requests of the submitters made here."""

    url: str
    client: Client
    simulator: str
    http: httpx.AsyncClient
    seen: list[Seen] = field(default_factory=list)

    @asynccontextmanager
    async def submitter(
        self,
        *,
        timeout: httpx.Timeout = TIMEOUT,
        leaves: asyncio.Event | None = None,
        **options: Any,
    ) -> AsyncIterator[Submitter]:
        """A submitter whose requests are noted in `seen`; it waits for the platform no longer than
        until it `leaves`."""
        heard: httpx.AsyncBaseTransport = Recording("platform", self.seen)
        if leaves is not None:
            heard = Leaving(heard, leaves)
        base_url = f"{self.simulator}/v1"
        platform = Runware(API_KEY, base_url, transport=heard, timeout=timeout)
        ledger = Client(self.url, ADMIN_TOKEN, transport=Recording("ledger", self.seen))
        async with Submitter(platform, ledger, **options) as submitter:
            yield submitter

    @property
    def sent(self) -> list[Json]:
        """Every task that was sent to the platform."""
        arrays = [seen.body for seen in self.seen if seen.server == "platform"]
        return [task for array in arrays for task in array if task["taskType"] != "getResponse"]

    async def accepted(self) -> list[str]:
        """The tasks that the platform took."""
        found = (await self.http.get(f"{self.simulator}/_control/tasks")).json()["data"]
        return [task["taskUUID"] for task in found]

    async def turn(self, **knobs: Any) -> None:
        """Turn the simulator's knobs."""
        answer = await self.http.post(f"{self.simulator}/_control", json=knobs)
        assert answer.status_code == 200, answer.text


@asynccontextmanager
async def stage(
    receiver: Running, *, sleep: Sleep = anyio.sleep, **knobs: Any
) -> AsyncIterator[Stage]:
    """A simulator of one's own in front of a receiver that may be shared; `sleep` is its every
    wait."""
    settings = Knobs(**{"delay_s": 0.02, "spread_s": 0.02, **knobs})
    url = receiver.ready["url"]
    async with (
        simulating(SimulatorConfig(knobs=settings), sleep=sleep) as simulator,
        Client(url, ADMIN_TOKEN) as client,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        yield Stage(url, client, simulator, http)


@contextmanager
def simulator_process(*flags: str) -> Iterator[str]:
    """The simulator as a process of its own; its URL."""
    argv = [sys.executable, "-m", "submitter.simulator", "--port", "0", "--quiet", *flags]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE)
    with process:
        try:
            assert process.stdout is not None
            yield str(json.loads(process.stdout.readline())["url"])
            process.terminate()
            process.wait(LIMIT_S)
        finally:
            process.kill()


def command_environment(receiver_url: str, simulator: str, **environ: str) -> dict[str, str]:
    """What a command needs to find both."""
    return {
        **os.environ,
        "REELHOOK_URL": receiver_url,
        "REELHOOK_ADMIN_TOKEN": ADMIN_TOKEN,
        "RUNWARE_BASE_URL": f"{simulator}/v1",
        "RUNWARE_API_KEY": API_KEY,
        **environ,
    }


def a_key() -> str:
    """An idempotency key that no other test has used."""
    return f"order-{uuid4()}"

"""The worker, its store and its sender at consumers on real sockets: what follows from each fault.

The clock is moved by hand; only the name server and the consumers are the test's own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver

from receiver.clock import DAY, HOUR, MINUTE, SECOND, from_datetime
from receiver.deliveries import Delivery
from receiver.store.protocol import Query
from tests.doubles import START, Assembled, assembled_over
from tests.make import success, uuid
from tests.receiver.nameserver import naming
from tests.receiver.sender.remotes import Handler, answering, request, serving
from tests.receiver.store.bench import until
from tests.receiver.store.suite import arrival_of

pytestmark = pytest.mark.anyio

LOOPBACK = "127.0.0.0/8"
NOTHING = b"Content-Length: 0\r\nConnection: close\r\n\r\n"
TAKEN = b"HTTP/1.1 204 X\r\n" + NOTHING


@dataclass
class Stage:
    """A whole receiver; nothing is sent but when told."""

    receiver: Assembled
    visits: Counter[str] = field(default_factory=Counter)
    told: int = 0

    async def add(self, url: str, **spec: Any) -> str:
        answer = await self.receiver.client.post(
            "/v1/endpoints", json={"url": url, "event_types": ["result.*"], **spec}
        )
        return str(answer.json()["id"])

    async def tell(self, events: int = 1) -> None:
        """So many events for every endpoint."""
        for _ in range(events):
            self.told += 1
            await self.receiver.store.record(
                arrival_of(uuid(self.told), success(self.told), expected=2)
            )

    async def turn(self, later: int = 0) -> int:
        """Let milliseconds pass, send what is then due; how many attempts."""
        self.receiver.clock.advance(later)
        worker = self.receiver.service.worker
        begun = await worker.tick()
        await worker.drain()
        return begun

    async def delivery(self, endpoint: str) -> Delivery:
        """The newest to an endpoint, with its log."""
        found = await self.receiver.store.deliveries(Query(endpoint=endpoint, limit=1))
        return await self.receiver.store.delivery(found.data[0].id)

    async def states(self, endpoint: str) -> Counter[str]:
        found = await self.receiver.store.deliveries(Query(endpoint=endpoint, limit=200))
        return Counter(str(each.state) for each in found.data)

    def noting(self, name: str, answer: bytes = TAKEN) -> Handler:
        """A consumer that counts its visits."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request(reader)
            self.visits[name] += 1
            writer.write(answer)

        return handle


@asynccontextmanager
async def staged(folder: Path, resolver: AbstractResolver | None = None) -> AsyncIterator[Stage]:
    environ = {"REELHOOK_ALLOW_NETWORKS": LOOPBACK}
    async with assembled_over(folder, resolver, environ) as receiver:
        yield Stage(receiver)


async def hanging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a request, and says nothing for ever."""
    await request(reader)
    await asyncio.Event().wait()


async def test_an_attempt_is_kept_as_it_went_and_without_its_secrets(tmp_path: Path) -> None:
    said = b"HTTP/1.1 400 No\r\nContent-Length: 24\r\n\r\nno such key: abcdefghijk"
    async with staged(tmp_path) as here, serving(answering(said)) as port:
        headers = {"x-api-key": "abcdefghijk", "x-team": "film"}
        made = await here.add(f"http://127.0.0.1:{port}/hook?token=t0k3n-t0k3n", headers=headers)
        await here.tell()
        assert await here.turn() == 1
        delivery = await here.delivery(made)
    assert delivery.attempt_log is not None
    (attempt,) = delivery.attempt_log
    kept = {name.lower(): value for name, value in attempt.request_headers.items()}
    assert (attempt.number, attempt.status, attempt.error) == (1, 400, "status")
    assert attempt.response_body == "no such key: [redacted]"
    assert attempt.duration_ms >= 0
    assert (kept["webhook-id"], kept["x-team"]) == (delivery.event_id, "film")
    assert {kept["webhook-signature"], kept["x-api-key"]} == {"[redacted]"}
    assert "t0k3n" not in attempt.model_dump_json()


async def test_a_410_disables_the_endpoint_and_holds_its_queue(tmp_path: Path) -> None:
    async with staged(tmp_path) as here:
        gone = here.noting("gone", b"HTTP/1.1 410 Gone\r\n" + NOTHING)
        async with serving(gone) as port:
            made = await here.add(f"http://127.0.0.1:{port}/", concurrency=1)
            await here.tell(3)
            await here.turn()
            for _ in range(3):
                assert await here.turn(DAY) == 0
        endpoint = await here.receiver.store.endpoint(made)
        assert (endpoint.state, endpoint.reason) == ("disabled", "gone")
        assert here.visits == {"gone": 1}
        assert await here.states(made) == {"pending": 3}


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        ("0", 5 * SECOND),
        ("-1", 5 * SECOND),
        ("abc", 5 * SECOND),
        ("", 5 * SECOND),
        ("3", 5 * SECOND),
        ("120.6", 120_600),
        ("1000000000", DAY),
        (formatdate(START / 1_000 - 60, usegmt=True), 5 * SECOND),
        (formatdate(START / 1_000 + 3_600, usegmt=True), HOUR),
        (formatdate(START / 1_000 + 9e6, usegmt=True), DAY),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_only_extends_and_has_a_cap(
    tmp_path: Path, status: int, asked: str, waits: int
) -> None:
    answer = b"HTTP/1.1 %d X\r\nRetry-After: %s\r\n%s" % (status, asked.encode(), NOTHING)
    async with staged(tmp_path) as here, serving(here.noting("busy", answer)) as port:
        made = await here.add(f"http://127.0.0.1:{port}/", schedule=[0, 5, 5])
        await here.tell()
        await here.turn()
        again = (await here.delivery(made)).next_attempt_at
        assert again is not None
        delay = from_datetime(again) - here.receiver.clock.now
        spread = SECOND if waits == 5 * SECOND else 0  # jitter is for what the schedule says
        assert waits - spread <= delay <= waits + spread
        assert await here.turn(delay - 1) == 0
        assert await here.turn(1) == 1
    assert here.visits == {"busy": 2}


async def test_an_endpoint_that_hangs_takes_no_place_of_another(tmp_path: Path) -> None:
    async with staged(tmp_path) as here, AsyncExitStack() as stack:
        hung = await stack.enter_async_context(serving(hanging))
        well = await stack.enter_async_context(serving(here.noting("well")))
        first = await here.add(f"http://127.0.0.1:{hung}/", concurrency=5)
        other = await here.add(f"http://127.0.0.1:{well}/", concurrency=5)
        await here.tell(60)
        worker = here.receiver.service.worker
        while (await here.states(other))["succeeded"] < 60:
            await worker.tick()
            await asyncio.sleep(0)
        assert await here.states(first) == {"sending": 5, "pending": 55}
        assert here.visits == {"well": 60}
        for task in worker._running:
            task.cancel()


async def test_an_endpoint_whose_name_hangs_takes_no_place_of_another(tmp_path: Path) -> None:
    async with (
        naming() as (resolver, server),
        staged(tmp_path, resolver) as here,
        serving(here.noting("well"), "127.0.0.2") as port,
    ):
        first = await here.add(f"http://silent.example:{port}/", concurrency=5)
        other = await here.add(f"http://well.example:{port}/", concurrency=5)
        await here.tell(30)
        worker = here.receiver.service.worker
        while (await here.states(other))["succeeded"] < 30:
            await worker.tick()
            await asyncio.sleep(0)
        assert "silent.example" in server.asked
        assert await here.states(first) == {"sending": 5, "pending": 25}
        for task in worker._running:
            task.cancel()


async def test_a_changed_url_is_used_from_the_next_attempt(tmp_path: Path) -> None:
    failing = b"HTTP/1.1 500 X\r\n" + NOTHING
    async with staged(tmp_path) as here, AsyncExitStack() as stack:
        old = await stack.enter_async_context(serving(here.noting("old", failing)))
        new = await stack.enter_async_context(serving(here.noting("new")))
        made = await here.add(f"http://127.0.0.1:{old}/", schedule=[0, 5, 5])
        await here.tell()
        await here.turn()
        path, url = f"/v1/endpoints/{made}", f"http://127.0.0.1:{new}/"
        assert (await here.receiver.client.patch(path, json={"url": url})).status_code == 200
        await here.turn(MINUTE)
        assert here.visits == {"old": 1, "new": 1}
        assert await here.states(made) == {"succeeded": 1}


@pytest.mark.parametrize(
    ("method", "path", "left"),
    [
        ("DELETE", "", "canceled"),
        ("POST", "/disable", "pending"),
        ("POST", "/pause", "pending"),
    ],
)
async def test_an_endpoint_that_is_stopped_in_the_middle_is_not_called_again(
    tmp_path: Path, method: str, path: str, left: str
) -> None:
    failing = b"HTTP/1.1 500 X\r\n" + NOTHING
    async with staged(tmp_path) as here, serving(here.noting("old", failing)) as port:
        made = await here.add(f"http://127.0.0.1:{port}/", schedule=[0, 5, 5])
        await here.tell(2)
        await here.turn()
        answer = await here.receiver.client.request(method, f"/v1/endpoints/{made}{path}")
        assert answer.is_success
        for _ in range(3):
            assert await here.turn(MINUTE) == 0
        assert here.visits == {"old": 2}
        assert await here.states(made) == {left: 2}


async def test_an_attempt_under_way_while_its_endpoint_is_deleted_is_the_last(
    tmp_path: Path,
) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        arrived.set()
        await go.wait()
        writer.write(b"HTTP/1.1 500 X\r\n" + NOTHING)

    async with staged(tmp_path) as here, serving(slow) as port:
        made = await here.add(f"http://127.0.0.1:{port}/", schedule=[0, 5, 5])
        await here.tell()
        worker = here.receiver.service.worker
        assert await worker.tick() == 1
        await until(arrived.is_set)
        assert (await here.receiver.client.delete(f"/v1/endpoints/{made}")).is_success
        go.set()
        await worker.drain()
        assert await here.turn(MINUTE) == 0
        assert await here.states(made) == {"canceled": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-team", "a\r\nx-evil: b"),
        ("x-team", "a\nb"),
        ("x-team\r\nx-evil", "b"),
        ("x-team", "a\x00"),
        ("x team", "a"),
        ("", "a"),
        ("Host", "evil.example"),
        ("host", "evil.example"),
        ("Content-Length", "3"),
        ("Transfer-Encoding", "chunked"),
        ("webhook-signature", "v1,x"),
        ("Webhook-Id", "evt_1"),
        ("WEBHOOK-ANYTHING", "x"),
    ],
)
async def test_headers_that_would_break_the_request_are_refused(
    tmp_path: Path, name: str, value: str
) -> None:
    async with staged(tmp_path) as here:
        spec = {"url": "https://example.com/", "headers": {name: value}}
        made = await here.add("https://example.com/")
        client = here.receiver.client
        created = await client.post("/v1/endpoints", json=spec)
        updated = await client.patch(f"/v1/endpoints/{made}", json={"headers": {name: value}})
        assert (created.status_code, updated.status_code) == (422, 422)
        assert (await here.receiver.store.endpoint(made)).headers == {}

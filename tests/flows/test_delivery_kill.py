"""SIGKILL between a consumer's receipt and our commit: the same id, as the next attempt."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook

from receiver.client import Client, TaskSpec
from receiver.deliveries import Delivery
from receiver.endpoints import EndpointSpec
from scripts.proofs.ports import held_port
from submitter.processes import Child
from tests.doubles import Heard
from tests.make import TASK, success, wrapped
from tests.receiver.sender.remotes import request, serving

pytestmark = [pytest.mark.anyio, pytest.mark.process]

ADMIN = "an-admin-token-for-tests-0123456789"
TAKEN = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
LIMIT_S = 60.0
READY = 30.0


class Consumer:
    """Hears everything; its first visitor is answered only if `answers`, and told of after that."""

    def __init__(self, *, answers: bool) -> None:
        self.heard: asyncio.Queue[Heard] = asyncio.Queue()
        self._answers = answers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One delivery."""
        heard = Heard(*await request(reader))
        answers, self._answers = self._answers, True
        if answers:
            writer.write(TAKEN)
            await writer.drain()
        self.heard.put_nowait(heard)
        if not answers:
            await reader.read()


@asynccontextmanager
async def receiving(folder: Path, port: int) -> AsyncIterator[tuple[Child, Client]]:
    environ = {
        **os.environ,
        "PORT": str(port),
        "REELHOOK_DATA_DIR": str(folder),
        "REELHOOK_ADMIN_TOKEN": ADMIN,
        "REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        "REELHOOK_DELIVERY_SCHEDULE": "0,600",  # nothing but the kill brings a second attempt
    }
    argv = [sys.executable, "-m", "receiver", "serve"]
    async with Child.start(argv, name="receiver", env=environ) as child:
        await child.ready(READY)
        async with Client(f"http://127.0.0.1:{port}", ADMIN) as client:
            yield child, client


async def report(client: Client) -> None:
    """The platform calls back with a result."""
    task = await client.register_task(TASK, TaskSpec(platform="runware", expected=2))
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(task.webhook_url, content=wrapped(success()))
    assert answer.json()["status"] == "recorded"


async def settled(client: Client) -> Delivery:
    """The only delivery, once it is no longer under way."""
    while True:
        (found,) = (await client.deliveries()).data
        if found.state not in ("pending", "sending"):
            return await client.delivery(found.id)
        await asyncio.sleep(0.01)


async def test_what_was_received_and_not_committed_comes_again_under_its_id(
    tmp_path: Path,
) -> None:
    consumer, port = Consumer(answers=False), held_port()
    async with asyncio.timeout(LIMIT_S), serving(consumer.serve) as sink:
        async with receiving(tmp_path, port) as (child, client):
            endpoint = await client.add_endpoint(EndpointSpec(url=f"http://127.0.0.1:{sink}/"))
            await report(client)
            first = await consumer.heard.get()
            child.kill()
            await child.wait()
        async with receiving(tmp_path, port) as (_, client):
            second = await consumer.heard.get()
            delivery = await settled(client)
    secret = Webhook(endpoint.secret or "")
    for heard in (first, second):
        assert secret.verify(heard.body, heard.headers)["type"] == "result.succeeded"
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == delivery.event_id
    assert first.body == second.body
    assert (delivery.state, delivery.attempts) == ("succeeded", 2)
    log = [(each.number, each.error, each.status) for each in delivery.attempt_log or ()]
    assert log == [(1, "lease_lapsed", None), (2, None, 204)]
    assert consumer.heard.empty()


async def test_an_answer_that_may_have_been_committed_is_asked_for_again_only_if_it_was_not(
    tmp_path: Path,
) -> None:
    consumer, port = Consumer(answers=True), held_port()
    async with asyncio.timeout(LIMIT_S), serving(consumer.serve) as sink:
        async with receiving(tmp_path, port) as (child, client):
            await client.add_endpoint(EndpointSpec(url=f"http://127.0.0.1:{sink}/"))
            await report(client)
            visits = [await consumer.heard.get()]
            child.kill()
            await child.wait()
        async with receiving(tmp_path, port) as (_, client):
            delivery = await settled(client)
            if delivery.attempts == 2:
                visits.append(await consumer.heard.get())
    assert consumer.heard.empty()
    assert {visit.headers["webhook-id"] for visit in visits} == {delivery.event_id}
    assert (delivery.state, delivery.attempts) == ("succeeded", len(visits))
    log = [(each.number, each.status) for each in delivery.attempt_log or ()]
    assert log == ([(1, 204)] if len(visits) == 1 else [(1, None), (2, 204)])

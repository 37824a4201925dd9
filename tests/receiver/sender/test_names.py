"""Names, asked of a real name server: what it never says delays nobody else."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest

from receiver.deliveries import Failure
from receiver.delivery import sender as module
from receiver.delivery.guard import Guard, Network
from receiver.delivery.sender import Sender
from tests.receiver.nameserver import naming
from tests.receiver.sender.remotes import BODY, HASTY, HEADERS, OK, PATIENT, answering, serving
from tests.receiver.store.bench import until

pytestmark = pytest.mark.anyio

ALLOWED: list[Network] = [ip_network("127.0.0.2")]
CLOSING = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


async def test_names_that_hang_delay_no_other() -> None:
    async with (
        naming() as (resolver, server),
        serving(answering(CLOSING), "127.0.0.2") as port,
        Sender(Guard(ALLOWED), resolver=resolver) as sender,
    ):
        hung = [
            asyncio.create_task(sender.send(f"http://silent{n}.example:{port}/", BODY, HEADERS))
            for n in range(50)
        ]
        await until(lambda: len(set(server.asked)) == len(hung))
        for _ in range(3):
            outcome = await sender.send(f"http://well.example:{port}/", BODY, HEADERS)
            assert outcome.status == 200
        assert not any(attempt.done() for attempt in hung)
        for attempt in hung:
            attempt.cancel()
        await asyncio.wait(hung)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("silent.example", "the name servers did not answer in time"),
        ("gone.example", "did not resolve"),
        ("empty.example", "did not resolve"),
        ("a" * 300 + ".example", "spelling"),
        ("xn--.example", "can't be read"),
        ("xn--a.example", "can't be read"),
        ("xn--bcher-kva.example", "did not resolve"),
    ],
)
async def test_what_has_no_address_is_a_dns_failure(
    monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    if name == "silent.example":  # no answer comes too late here, nor the deadline meanwhile
        monkeypatch.setattr(module, "LOOKUP_S", HASTY)
    async with (
        naming() as (resolver, _),
        Sender(Guard(ALLOWED), resolver=resolver, deadline_s=PATIENT) as sender,
    ):
        outcome = await sender.send(f"https://{name}/", BODY, HEADERS)
    assert outcome.failure is Failure.DNS
    assert says in outcome.detail


@pytest.mark.parametrize("name", ["alias.example", "both.example"])
async def test_what_leads_inside_by_any_record_is_blocked(name: str) -> None:
    async with (
        naming() as (resolver, _),
        serving(answering(OK), "127.0.0.2") as port,
        Sender(Guard(ALLOWED), resolver=resolver) as sender,
    ):
        outcome = await sender.send(f"http://{name}:{port}/", BODY, HEADERS)
    assert outcome.failure is Failure.BLOCKED_ADDRESS


async def test_a_name_is_asked_for_at_every_connection() -> None:
    async with (
        naming() as (resolver, server),
        serving(answering(CLOSING), "127.0.0.2") as port,
        Sender(Guard(ALLOWED), resolver=resolver) as sender,
    ):
        for _ in range(3):
            await sender.send(f"http://well.example:{port}/", BODY, HEADERS)
    assert server.asked.count("well.example") >= 3

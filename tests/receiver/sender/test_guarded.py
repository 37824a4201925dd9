"""The guard inside the sender's connector: canaries on loopback hear nothing."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from receiver.deliveries import Failure
from receiver.delivery.guard import Guard, Network, UrlRefused
from receiver.delivery.sender import Sender
from tests.receiver.sender.remotes import (
    BODY,
    BYPASSES,
    HEADERS,
    LOOPBACK,
    ODD_URLS,
    Zone,
    answering,
    canary,
    checked,
    sent,
    serving,
)

pytestmark = pytest.mark.anyio


async def test_no_spelling_of_a_local_address_reaches_it() -> None:
    async with canary() as (port, hits):
        urls = [f"{scheme}://{host}:{port}/" for host in BYPASSES for scheme in ("http", "https")]
        urls += [odd.format(port=port) for odd in ODD_URLS]
        for zone in (Zone(["127.0.0.1"]), Zone(["::1"]), Zone(["8.8.8.8", "127.0.0.1"])):
            async with Sender(Guard(), resolver=zone) as sender:
                for url in urls:
                    outcome = checked(await sender.send(url, BODY, HEADERS))
                    assert outcome.failure in (Failure.BLOCKED_ADDRESS, Failure.DNS), url
    assert hits == []


@pytest.mark.parametrize("host", BYPASSES)
async def test_the_connector_blocks_even_what_the_url_check_lets_through(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guard, "check_url", lambda self, url: None)
    async with canary() as (port, hits):
        for scheme in ("http", "https"):
            outcome = await sent(f"{scheme}://{host}:{port}/", allow=())
            assert outcome.failure is not None
    assert hits == []


async def test_the_canary_sings_when_it_may() -> None:
    async with canary() as (port, hits):
        await sent(f"http://localhost:{port}/")
    assert hits


async def test_a_blocked_attempt_names_the_address_and_the_setting() -> None:
    outcome = await sent("https://rebound.example/", allow=(), resolver=Zone(["10.1.2.3"]))
    assert outcome.failure is Failure.BLOCKED_ADDRESS
    assert "10.1.2.3" in outcome.detail
    assert "REELHOOK_ALLOW_NETWORKS" in outcome.detail


async def test_a_name_is_vetted_on_every_connection() -> None:
    zone = Zone(["127.0.0.1"], ["10.1.2.3"])
    closing = answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    async with serving(closing) as port, Sender(Guard(LOOPBACK), resolver=zone) as sender:
        url = f"http://sink.example:{port}/"
        failures = [(await sender.send(url, BODY, HEADERS)).failure for _ in range(2)]
    assert failures == [None, Failure.BLOCKED_ADDRESS]
    assert len(zone.asked) == 2


async def test_plain_http_reaches_only_the_allowed_networks() -> None:
    networks: list[Network] = [ip_network("10.0.0.0/8")]
    for answer in (["8.8.8.8"], ["10.0.0.1", "8.8.8.8"]):
        outcome = await sent("http://sink.example/", allow=networks, resolver=Zone(answer))
        assert outcome.failure is Failure.BLOCKED_ADDRESS


def test_the_url_check_refuses_each_bypass_that_is_no_name() -> None:
    names = {"a.127.0.0.1.nip.io", "localtest.me"}
    for host in BYPASSES:
        if host not in names:
            with pytest.raises(UrlRefused):
                Guard().check_url(f"https://{host}/")

"""Nothing is delivered to the receiver itself: by origin, by socket, by whatever name."""

from __future__ import annotations

import socket
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.deliveries import Failure
from receiver.delivery.guard import Guard, Network, OwnAddress, UrlRefused
from receiver.delivery.ourselves import NOWHERE, Ourselves
from receiver.delivery.sender import Sender
from tests.doubles import ADMIN_TOKEN, PUBLIC_URL, assembled, running
from tests.receiver.sender.remotes import BODY, HEADERS, OK, Zone, answering, canary, serving

pytestmark = pytest.mark.anyio

EVERYTHING: list[Network] = [ip_network("0.0.0.0/0"), ip_network("::/0")]
LOOPBACK = "127.0.0.0/8,::1/128"
UNUSED = "203.0.113.77"  # TEST-NET-3: no machine has it
NOWAY = "255.255.255.255"  # the kernel lets nobody connect there who did not ask to broadcast


def guard_of(ourselves: Ourselves) -> Guard:
    return Guard(EVERYTHING, ourselves=ourselves)


def refused(ourselves: Ourselves, url: str) -> bool:
    try:
        guard_of(ourselves).check_url(url)
    except UrlRefused as refusal:
        told = "this receiver itself; which no setting opens" in str(refusal)
        return told and isinstance(refusal.__cause__, OwnAddress)
    return False


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/webhooks/runware?sig=x",
        "https://hooks.example.com",
        "https://hooks.example.com:443/",
        "HTTPS://Hooks.Example.COM/",
        "https://hooks.example.com./",
        "https://hooks.example.com.:443/anything/at/all",
        "https://HOOKS.example.com:00443/",
    ],
)
def test_our_own_origin_is_refused_however_it_is_written(url: str) -> None:
    for public in (PUBLIC_URL, "https://HOOKS.example.com.:443", "https://hooks.example.com/hook"):
        assert refused(Ourselves.at([public]), url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://hooks.example.com:8443/",
        "https://example.com/",
        "https://app.hooks.example.com/",
        "https://hooks.example.com.evil.example/",
    ],
)
def test_another_origin_is_not_ours(url: str) -> None:
    assert not refused(Ourselves.at([PUBLIC_URL]), url)


@pytest.mark.parametrize(
    ("public", "url"),
    [
        ("https://bücher.example", "https://xn--bcher-kva.example/"),
        ("http://[::1]:8000", "http://[0:0:0:0:0:0:0:1]:8000/"),
        ("http://10.0.0.1:80", "http://[::ffff:10.0.0.1]/"),
        ("http://[fd00::1]:80", "http://[FD00:0::1]/"),
    ],
)
def test_one_host_has_many_spellings(public: str, url: str) -> None:
    assert refused(Ourselves.at([public]), url)


def blocked(bound: tuple[str, int], address: str, port: int) -> bool:
    try:
        guard_of(Ourselves.at([], [bound])).check_address(address, port)
    except OwnAddress:
        return True
    return False


@pytest.mark.parametrize(
    ("bound", "ours", "others"),
    [
        ("127.0.0.1", ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0"], ["127.0.0.2", "::1", UNUSED]),
        ("::1", ["::1", "::", "0:0::1"], ["127.0.0.1", UNUSED, "2001:db8::1"]),
        (
            "0.0.0.0",
            ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::ffff:127.0.0.1"],
            ["::1", UNUSED, NOWAY],
        ),
        ("::", ["127.0.0.1", "0.0.0.0", "::1", "::"], [UNUSED, "2001:db8::1"]),
        (UNUSED, [UNUSED], ["127.0.0.1", "203.0.113.78", "0.0.0.0"]),
    ],
)
def test_our_own_sockets_are_blocked_and_other_ports_are_not(
    bound: str, ours: list[str], others: list[str]
) -> None:
    assert [each for each in ours if not blocked((bound, 8000), each, 8000)] == []
    assert [each for each in others if blocked((bound, 8000), each, 8000)] == []
    assert [each for each in ours + others if blocked((bound, 8000), each, 8001)] == []


def outward() -> str:
    """The address of this machine that others see, or loopback's where it is alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((UNUSED, 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def test_a_wildcard_means_every_address_of_this_machine() -> None:
    assert blocked(("0.0.0.0", 8000), outward(), 8000)


def test_a_receiver_that_listens_nowhere_has_no_self() -> None:
    guard_of(NOWHERE).check_url("http://127.0.0.1:8000/")
    assert Ourselves.at(["unix"]) == NOWHERE


async def test_a_name_that_leads_to_us_is_blocked_in_the_connector() -> None:
    async with canary() as (port, hits):
        guard = guard_of(Ourselves.at([PUBLIC_URL], [("127.0.0.1", port)]))
        for answers in (["127.0.0.1"], ["::ffff:127.0.0.1"], ["127.0.0.2", "127.0.0.1"]):
            async with Sender(guard, resolver=Zone(answers)) as sender:
                outcome = await sender.send(f"http://sink.example:{port}/", BODY, HEADERS)
            assert outcome.failure is Failure.BLOCKED_ADDRESS
            assert f"port {port}, is this receiver itself" in outcome.detail
        async with Sender(guard) as sender:
            for url in (f"http://127.0.0.1:{port}/", f"{PUBLIC_URL}/webhooks/runware"):
                outcome = await sender.send(url, BODY, HEADERS)
                assert outcome.failure is Failure.BLOCKED_ADDRESS
    assert hits == []


async def test_a_consumer_on_another_port_of_this_machine_is_reached() -> None:
    async with serving(answering(OK)) as port:
        guard = guard_of(Ourselves.at(["http://127.0.0.1:1"], [("0.0.0.0", 1)]))
        async with Sender(guard) as sender:
            outcome = await sender.send(f"http://127.0.0.1:{port}/", BODY, HEADERS)
    assert outcome.status == 200


async def test_create_and_update_say_that_it_is_us(tmp_path: Path) -> None:
    async with assembled(tmp_path) as receiver:
        endpoint = await receiver.client.post("/v1/endpoints", json={"url": "https://a.example/"})
        path = f"/v1/endpoints/{endpoint.json()['id']}"
        for answer in (
            await receiver.client.post("/v1/endpoints", json={"url": f"{PUBLIC_URL}/x"}),
            await receiver.client.patch(path, json={"url": "https://HOOKS.example.com.:443"}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (422, "url_refused")
            assert "this receiver itself" in answer.json()["detail"]


@pytest.mark.process
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_running_receiver_knows_where_it_listens(tmp_path: Path, host: str) -> None:
    environ = {
        "HOST": host,
        "REELHOOK_ADMIN_PORT": "0",
        "REELHOOK_PUBLIC_URL": PUBLIC_URL,
        "REELHOOK_ALLOW_NETWORKS": LOOPBACK,
    }
    with running(tmp_path, **environ) as receiver:
        admin = httpx.URL(receiver.ready["admin_url"])
        headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
        with httpx.Client(base_url=admin, headers=headers, trust_env=False) as client:

            def added(url: str) -> tuple[int, str]:
                answer = client.post("/v1/endpoints", json={"url": url})
                found: dict[str, Any] = answer.json()
                return answer.status_code, found.get("detail", "")

            own = "::1" if ":" in host else "127.0.0.1"
            shown = f"[{own}]" if ":" in own else own
            for url in (
                f"http://{shown}:{receiver.port}/",
                f"http://localhost:{receiver.port}/",
                f"http://app.localhost.:{receiver.port}/",
                f"http://127.0.0.1:{admin.port}/v1/endpoints",
                f"http://localhost:{admin.port}/",
                f"{PUBLIC_URL}/webhooks/runware",
            ):
                status, detail = added(url)
                assert (status, "this receiver itself" in detail) == (422, True), (url, detail)
            assert added("http://127.0.0.1:9/")[0] == 201

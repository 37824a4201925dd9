"""The sample consumer against our signatures and those of the reference library."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from receiver.delivery.signing import new_private_key, new_secret, sign
from submitter.consumer import TOLERANCE, Seen, build, verified

pytestmark = pytest.mark.anyio

SECRET = new_secret(bytes(range(32)))
OTHER_SECRET = new_secret(bytes(range(1, 33)))
NOW = 1_790_000_000
Signs = Callable[[str, int, bytes], str]


def ours(event: str, at: int, body: bytes) -> str:
    return sign([SECRET], event_id=event, timestamp=at, body=body)


def theirs(event: str, at: int, body: bytes) -> str:
    return Webhook(SECRET).sign(event, datetime.fromtimestamp(at, UTC), body.decode())


def headers(signs: Signs, body: bytes, *, event: str = "evt_1", at: int = NOW) -> dict[str, str]:
    return {
        "webhook-id": event,
        "webhook-timestamp": str(at),
        "webhook-signature": signs(event, at, body),
    }


def holds(given: dict[str, str], body: bytes, *, now: float = NOW, secret: str = SECRET) -> bool:
    return verified(b64decode(secret.removeprefix("whsec_")), given, body, now)


@pytest.mark.parametrize("signs", [ours, theirs])
def test_what_was_signed_with_the_secret_holds(signs: Signs) -> None:
    body = '{"type":"result.succeeded","who":"é"}'.encode()
    given = headers(signs, body)
    assert holds(given, body)
    assert not holds(given, body + b" ")
    assert not holds(given, body, secret=OTHER_SECRET)
    assert not holds({**given, "webhook-id": "evt_2"}, body)
    assert not holds({**given, "webhook-timestamp": str(NOW + 1)}, body)


def test_one_good_signature_among_others_is_enough() -> None:
    body = b"{}"
    rotated = sign(
        [OTHER_SECRET, SECRET],
        event_id="evt_1",
        timestamp=NOW,
        body=body,
        ed25519_keys=[new_private_key(bytes(32))],
    )
    given = {**headers(ours, body), "webhook-signature": rotated}
    assert holds(given, body)
    assert holds(given, body, secret=OTHER_SECRET)
    assert not holds({**given, "webhook-signature": rotated.replace("v1,", "v2,")}, body)


@pytest.mark.parametrize(
    ("now", "fresh"),
    [
        (NOW + TOLERANCE, True),
        (NOW - TOLERANCE, True),
        (NOW + TOLERANCE + 1, False),
        (NOW - TOLERANCE - 1, False),
    ],
)
def test_a_delivery_is_good_for_five_minutes(now: float, fresh: bool) -> None:
    assert holds(headers(ours, b"{}"), b"{}", now=now) is fresh


@pytest.mark.parametrize("moment", ["", "soon", "-1", "1.5", "²", "१", "9" * 5_000])
def test_a_time_that_is_none_is_refused(moment: str) -> None:
    assert not holds({**headers(ours, b"{}"), "webhook-timestamp": moment}, b"{}")


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_refused(name: str) -> None:
    given = headers(ours, b"{}")
    del given[name]
    assert not holds(given, b"{}")


def test_before_it_has_a_secret_nothing_holds() -> None:
    import hashlib
    import hmac
    from base64 import b64encode

    mac = hmac.digest(b"", f"evt_1.{NOW}.".encode() + b"{}", hashlib.sha256)
    given = {**headers(ours, b"{}"), "webhook-signature": f"v1,{b64encode(mac).decode()}"}
    assert not verified(b"", given, b"{}", NOW)


@asynccontextmanager
async def consumer(*answers: int) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build(Seen(), answers))
    async with httpx.AsyncClient(transport=transport, base_url="http://consumer") as client:
        assert (await client.post("/secret", json={"secret": SECRET})).status_code == 204
        yield client


def payload(kind: str = "result.succeeded") -> bytes:
    return json.dumps({"type": kind, "data": {"task": {"id": "t1"}}}).encode()


async def test_an_event_counts_once_and_its_repeats_are_told() -> None:
    async with consumer() as client:
        now = int(time.time())
        for event, body in (
            ("evt_1", payload()),
            ("evt_2", payload("task.completed")),
            ("evt_1", payload()),
        ):
            given = headers(ours, body, event=event, at=now)
            assert (await client.post("/hooks", content=body, headers=given)).status_code == 204
        seen = (await client.get("/seen")).json()
    assert seen == {
        "events": {"evt_1": "result.succeeded", "evt_2": "task.completed"},
        "times": {"evt_1": 2, "evt_2": 1},
        "refused": 0,
    }


async def test_what_is_refused_is_counted_and_not_kept() -> None:
    async with consumer() as client:
        given: dict[str, Any] = headers(ours, payload(), at=int(time.time()))
        forged = await client.post("/hooks", content=payload("task.completed"), headers=given)
        bare = await client.post("/hooks", content=payload())
        stale = await client.post("/hooks", content=payload(), headers=headers(ours, payload()))
        assert [forged.status_code, bare.status_code, stale.status_code] == [400, 400, 400]
        assert (await client.get("/seen")).json() == {"events": {}, "times": {}, "refused": 3}


async def test_an_event_that_is_about_no_task_is_taken_too() -> None:
    body = json.dumps({"type": "endpoint.disabled", "data": {"endpoint": {"id": "ep_1"}}}).encode()
    async with consumer() as client:
        given = headers(ours, body, at=int(time.time()))
        assert (await client.post("/hooks", content=body, headers=given)).status_code == 204
        assert (await client.get("/seen")).json()["times"] == {"evt_1": 1}


async def test_each_event_is_answered_try_by_try_as_it_was_told() -> None:
    async with consumer(503, 410, 204) as client:
        seen = []
        for event in ("evt_1", "evt_1", "evt_2", "evt_1", "evt_1"):
            body = payload()
            given = headers(ours, body, event=event, at=int(time.time()))
            seen.append((await client.post("/hooks", content=body, headers=given)).status_code)
        assert seen == [503, 410, 503, 204, 204]
        unsigned = await client.post("/hooks", content=payload(), headers={"webhook-id": "evt_3"})
        assert unsigned.status_code == 400

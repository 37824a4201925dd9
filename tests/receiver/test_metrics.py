"""What Prometheus reads: over a real socket by its own parser, and each figure by its source."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from receiver import __version__, ids
from receiver.admin.ops import ADMIN
from receiver.admin.ops import metrics as metric_ops
from receiver.clock import MINUTE, SECOND
from receiver.condition import StoreCondition
from receiver.deliveries import Failure, Outcome, State
from receiver.errors import StoreUnavailable
from receiver.metrics import COUNTER, OF_THE_PROCESS, OF_THE_STORE, class_of
from tests.doubles import (
    ADMIN_TOKEN,
    LIMIT_S,
    Assembled,
    assembled,
    consuming,
    reaching,
    running,
    sent,
    wire,
)
from tests.make import TASK, arrival, registration, settled, success, uuid, wrapped
from tests.receiver.store.bench import until
from tests.receiver.store.suite import arrival_of, claim, overdue, queued

pytestmark = pytest.mark.anyio

HEADERS = {"authorization": f"Bearer {ADMIN_TOKEN}"}
DEFINED = {defined.name: defined for defined in (*OF_THE_PROCESS, *OF_THE_STORE)}

Scraped = Mapping[str, float]  # by name and labels, as they stand in the text


def parsed(text: str) -> dict[str, float]:
    """Every sample, `name{label="value"}` by its value."""
    return {
        sample.name
        + "".join(
            f'{{{label}="{value}"}}' for label, value in sorted(sample.labels.items())
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(api: httpx.AsyncClient) -> Scraped:
    answer = await api.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(answer.text)


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path, REELHOOK_ALLOW_NETWORKS="127.0.0.0/8") as found:
        yield found


@pytest.mark.process
async def test_a_running_receiver_is_scraped(tmp_path: Path) -> None:
    """A callback comes in, is delivered to one endpoint and not to another; both sockets."""
    environ = {"REELHOOK_ADMIN_PORT": "0", "REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8"}
    with closing(socket.socket()) as nobody, running(tmp_path, **environ) as process:
        nobody.bind(("127.0.0.1", 0))  # and listens to nothing
        async with (
            consuming() as consumer,
            httpx.AsyncClient(base_url=process.ready["admin_url"], headers=HEADERS) as api,
        ):
            silent = f"http://127.0.0.1:{nobody.getsockname()[1]}/hook?token=a-secret-query"
            async with wire(process.port) as line:
                await line.send(b"\x16\x03\x01")
                assert (await line.answer()).status == 400
            for url in (consumer.url, silent):
                spec = {"url": url, "schedule": [0, 3_600]}  # nothing is tried again meanwhile
                answer = await api.post("/v1/endpoints", json=spec)
                assert answer.status_code == 201
            task = (await api.put(f"/v1/tasks/{TASK}", json={"platform": "runware"})).json()
            async with httpx.AsyncClient() as platform:
                for url, status in (("url", 404), ("admin_url", 401)):
                    answer = await platform.get(f"{process.ready[url]}/metrics")
                    assert answer.status_code == status
                await platform.post(task["webhook_url"], content=wrapped(success()))
            for _ in range(2):
                await asyncio.wait_for(consumer.heard.get(), LIMIT_S)
            await until(lambda: process.stderr().count('"event":"attempt"') >= 4)
            await until(lambda: '"event":"refused"' in process.stderr())
            found, text = await scraped(api), (await api.get("/metrics")).text
    assert found['reelhook_ingest_answers_total{outcome="recorded"}'] == 1
    assert found["reelhook_ingest_duration_seconds_count"] == 1
    assert found['reelhook_connections_refused_total{code="malformed"}'] == 1
    assert 0 < found["reelhook_ingest_duration_seconds_sum"] < LIMIT_S
    assert found['reelhook_attempts_total{class="2xx"}{failure=""}'] == 2
    assert found['reelhook_attempts_total{class="network"}{failure="connect"}'] == 2
    assert found["reelhook_attempt_duration_seconds_count"] == 4
    commits = found['reelhook_commits_total{result="committed"}']
    assert found["reelhook_commit_jobs_sum"] >= commits
    assert found["reelhook_commit_duration_seconds_count"] == commits > 3
    assert found["reelhook_commit_jobs_sum"] >= commits
    assert found['reelhook_deliveries_settled_total{state="succeeded"}'] == 2
    assert found["process_resident_memory_bytes"] > 1 << 20
    for secret in (ADMIN_TOKEN, "a-secret-query", consumer.url, "127.0.0.1", TASK):
        assert secret not in text


async def furnished(receiver: Assembled) -> str:
    """Something of everything; the id of an endpoint that has attempts."""
    store = receiver.store
    await overdue(store, uuid(900))
    good = await queued(store)
    (claimed,) = await claim(store)
    await store.settle(settled(claimed, outcome=Outcome(200, None, "", 180)))
    bad = await queued(store)
    for claimed in await claim(store):
        is_bad = claimed.endpoint_id == ids.parse(ids.ENDPOINT, bad.id)
        await store.settle(settled(claimed, State.DEAD if is_bad else State.SUCCEEDED))
    await receiver.client.post(f"/v1/endpoints/{bad.id}/disable")
    await store.record(arrival_of(uuid(901), success(901), expected=2))
    await store.record(arrival(success(), success(task=TASK, seed=1)))
    await store.record(arrival(body=b"unreadable"))
    receiver.service.metrics.refused({"malformed": 1})
    return good.id


async def test_every_metric_that_is_defined_is_exported_and_no_other(receiver: Assembled) -> None:
    await furnished(receiver)
    found = await scraped(receiver.client)
    names = {name.partition("{")[0] for name in found}
    ours = {name for name in names if not name.startswith("process_")}
    assert ours == {
        f"{name}{ending}"
        for name, defined in DEFINED.items()
        for ending in {
            COUNTER: ("_total",),
            "gauge": ("",),
            "histogram": ("_bucket", "_count", "_sum"),
        }[defined.kind]
    }


async def test_the_store_is_told_of_as_it_is(receiver: Assembled) -> None:
    endpoint = await furnished(receiver)
    receiver.clock.advance(MINUTE)
    found = await scraped(receiver.client)
    overview = (await receiver.client.get("/v1/overview")).json()
    for name, value in {
        "reelhook_tasks_open": overview["tasks"]["open"]["count"],
        "reelhook_tasks_overdue": 1,
        "reelhook_last_callback_age_seconds": 60,
        "reelhook_queue_deliveries": overview["queue"]["waiting"]["count"],
        "reelhook_oldest_due_delivery_age_seconds": 60,
        "reelhook_dead_deliveries": 1,
        "reelhook_quarantined_callbacks": 1,
        'reelhook_endpoints{state="enabled"}': 1,
        'reelhook_endpoints{state="disabled"}': 1,
        "reelhook_endpoints_unlisted": 0,
        "reelhook_store_readable": 1,
        "reelhook_store_refusing": 0,
        f'reelhook_endpoint_healthy{{endpoint="{endpoint}"}}': 1,
        f'reelhook_endpoint_success_ratio{{endpoint="{endpoint}"}}': 1,
        f'reelhook_endpoint_oldest_due_delivery_age_seconds{{endpoint="{endpoint}"}}': 60,
    }.items():
        assert found[name] == value, name
    assert 0.18 <= found[f'reelhook_endpoint_p95_seconds{{endpoint="{endpoint}"}}'] < 0.18 * 1.2
    assert overview["queue"]["held"] == found["reelhook_queue_held_deliveries"] > 0
    assert found["reelhook_disk_free_bytes"] > found["reelhook_database_size_bytes"] > 0
    (info,) = (name for name in found if name.startswith("reelhook_info"))
    assert f'{{version="{__version__}"}}' in info


async def test_before_the_first_callback_its_age_is_infinite(receiver: Assembled) -> None:
    await receiver.store.register(registration())
    found = await scraped(receiver.client)
    assert found["reelhook_last_callback_age_seconds"] == inf
    assert found["reelhook_tasks_open"] == 1
    assert found['reelhook_ingest_answers_total{outcome="recorded"}'] == 0


async def test_the_store_is_asked_every_few_seconds_whoever_scrapes(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, overview = [], receiver.store.overview

    async def counting(found: Any) -> Any:
        asked.append(found)
        return await overview(found)

    monkeypatch.setattr(receiver.store, "overview", counting)
    await asyncio.gather(*(receiver.service.ops.metrics(ADMIN) for _ in range(5)))
    receiver.clock.advance(metric_ops.FRESH - 1)
    await scraped(receiver.client)
    assert len(asked) == 1
    receiver.clock.advance(SECOND)
    await receiver.store.record(arrival(success()))
    assert (await scraped(receiver.client))["reelhook_last_callback_age_seconds"] < 10
    assert len(asked) == 2


async def test_a_store_that_can_not_be_read_hides_no_counter(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_asked: Any) -> Any:
        raise StoreUnavailable("The database could not be read.")

    monkeypatch.setattr(receiver.store, "overview", broken)
    receiver.service.metrics.committed(3, 0.004, False)
    await receiver.stranger.post("/webhooks/runware?sig=a.b", content=b"{}")
    found = await scraped(receiver.client)
    assert (found["reelhook_store_readable"], "reelhook_tasks_open" in found) == (0, False)
    assert found['reelhook_ingest_answers_total{outcome="token_forged"}'] == 1
    assert found['reelhook_commits_total{result="failed"}'] == 1
    assert found['reelhook_commit_duration_seconds_bucket{le="0.005"}'] == 1
    assert found['reelhook_commit_duration_seconds_bucket{le="0.0025"}'] == 0
    assert found['reelhook_commit_jobs_bucket{le="4"}'] == 1


async def test_what_a_database_server_keeps_to_itself_is_left_out(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = await receiver.store.condition()

    async def condition() -> StoreCondition:
        return known.model_copy(update={"log_size": None, "free": None, "refusal": "No room."})

    monkeypatch.setattr(receiver.store, "condition", condition)
    found = await scraped(receiver.client)
    assert not {"reelhook_wal_size_bytes", "reelhook_disk_free_bytes"} & found.keys()
    assert (found["reelhook_store_refusing"], found["reelhook_database_size_bytes"] > 0) == (
        1,
        True,
    )


async def test_a_defect_at_the_door_is_counted(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver.service.ingest, "_admit", lambda _scope: 1 / 0)
    await receiver.stranger.post("/webhooks/runware?sig=a.b", content=b"{}")
    found = await scraped(receiver.client)
    assert found['reelhook_ingest_answers_total{outcome="internal"}'] == 1


async def test_only_so_many_endpoints_have_series_of_their_own(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_ops, "LISTED", 3)
    monkeypatch.setattr(metric_ops, "AT_ONCE", 2)
    names = [(await queued(receiver.store)).id for _ in range(5)]
    found = await scraped(receiver.client)
    listed = {name for name in names if f'reelhook_endpoint_healthy{{endpoint="{name}"}}' in found}
    assert listed == {*names[2:]}
    assert found["reelhook_endpoints_unlisted"] == 2
    assert found['reelhook_endpoints{state="enabled"}'] == 5
    assert found["reelhook_queue_deliveries"] == sum(range(6))


async def test_it_is_for_those_who_may_read_all(receiver: Assembled) -> None:
    for asked, status in (
        ({"scope": "read"}, 200),
        ({"scope": "submit"}, 403),
        ({"scope": "read", "project": "film"}, 403),
    ):
        made = await receiver.client.post("/v1/api-tokens", json={"name": "x", **asked})
        async with reaching(receiver.door, made.json()["token"]) as client:
            assert (await client.get("/metrics")).status_code == status, asked
    assert (await receiver.stranger.get("/metrics")).status_code == 401


def test_attempts_have_a_class() -> None:
    for status, failure, kind in (
        (204, None, "2xx"),
        (301, Failure.REDIRECT, "3xx"),
        (410, Failure.STATUS, "4xx"),
        (503, Failure.STATUS, "5xx"),
        (None, Failure.DNS, "network"),
        (None, Failure.TIMEOUT, "network"),
        (600, Failure.PROTOCOL, "network"),
        (None, Failure.BLOCKED_ADDRESS, "refused"),
        (None, Failure.SIGNING, "refused"),
    ):
        assert class_of(sent(status, failure)) == (kind, failure or "")

"""The typed client against the real API, and against what is not it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from receiver.client import (
    ApiRefused,
    Client,
    Counted,
    Job,
    RecoverAsked,
    RetryAsked,
    Unreachable,
)
from receiver.endpoints import EndpointPatch, EndpointSpec, PreviewAsked, RotateAsked
from receiver.problems import problem
from receiver.tasks import SubmitState, TaskPatch, TaskSpec
from receiver.tokens import Source
from tests.doubles import ADMIN_TOKEN, Assembled, assembled
from tests.make import OTHER, TASK, arrival, success, uuid
from tests.receiver.store.repair_suite import die
from tests.receiver.store.suite import claim

URL = "https://example.com/hook"

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


@pytest.fixture
async def client(receiver: Assembled) -> AsyncIterator[Client]:
    transport = httpx.ASGITransport(receiver.service.app)
    async with Client("http://receiver/", ADMIN_TOKEN, transport=transport) as found:
        yield found


def answering(response: httpx.Response) -> Client:
    transport = httpx.MockTransport(lambda _request: response)
    return Client("http://receiver", "token", transport=transport)


async def test_costs_come_by_what_is_named(receiver: Assembled, client: Client) -> None:
    await receiver.store.record(arrival(success(), tags={"team": "a"}))
    found = await client.costs("tag:team", model=None, limit=1)
    assert [(one.value, one.cost) for one in found.data] == [("a", 0.4715)]
    assert found.total is not None
    assert (found.total.tasks, found.next_cursor) == (1, None)
    assert (await client.costs(project="other")).data == []


async def test_a_task_goes_through_its_life(receiver: Assembled, client: Client) -> None:
    spec = TaskSpec(platform="runware", expected=2, tags={"a": "b"})
    made = await client.register_task(TASK, spec, source=Source.POLL)
    assert (made.may_submit, made.expected, made.tags) == (True, 2, {"a": "b"})
    changed = await client.change_task(TASK, TaskPatch(submit_state=SubmitState.SUBMITTED))
    assert changed.submit_state is SubmitState.SUBMITTED
    assert await client.task(TASK, revision=changed.revision) is None
    assert await client.task(TASK, wait=0.01, revision=changed.revision) is None
    await receiver.store.record(arrival(success(), expected=2))
    seen = await client.task(TASK, wait=10, revision=changed.revision)
    assert seen is not None
    assert (seen.received, seen.complete) == (1, False)
    assert [result.index for result in await client.results(TASK)] == [0]
    await client.revoke_task(TASK)
    await client.delete_task(TASK)
    with pytest.raises(ApiRefused) as caught:
        await client.task(TASK)
    assert (caught.value.status, caught.value.problem) == (404, "not_found")


async def test_half_a_character_that_a_platform_sent_is_read(
    receiver: Assembled, client: Client
) -> None:
    item = success(note="a \U0001f600 cut: \ud83d", deeper={"\ude00": 1})
    await receiver.store.record(arrival(item))
    (result,) = await client.results(TASK)
    assert result.raw == success(note="a \U0001f600 cut: ?", deeper={"?": 1})
    told = [await client.event(event.id) for event in (await client.events()).data]
    assert [event.payload["data"]["result"]["raw"] for event in told[-1:]] == [result.raw]


async def test_tasks_are_claimed_by_platform(client: Client) -> None:
    for task, platform in ((TASK, "runware"), (OTHER, "nanogpt")):
        await client.register_task(task, TaskSpec(platform=platform, platform_id="vid_1"))
        await client.reconcile_task(task)
    assert [task.id for task in await client.claim_tasks(platforms=("nanogpt",))] == [OTHER]
    (claimed,) = await client.claim_tasks()
    assert claimed.id == TASK
    await client.release_tasks([TASK], lease_until=claimed.lease_until)


async def test_an_endpoint_goes_through_its_life(client: Client) -> None:
    made = await client.add_endpoint(EndpointSpec(url=URL, event_types=["task.*"]))
    assert made.secret is not None
    assert (await client.endpoint(made.id)).secret is None
    changed = await client.change_endpoint(made.id, EndpointPatch(description="mine"))
    assert (changed.description, changed.event_types) == ("mine", ["task.*"])
    for verb, state in (("pause", "paused"), ("resume", "enabled"), ("disable", "disabled")):
        assert (await client.move_endpoint(made.id, verb)).state == state
    assert [found.id for found in (await client.endpoints()).data] == [made.id]
    new = await client.rotate_secret(made.id, RotateAsked(overlap_s=60))
    assert new.secret not in (None, made.secret)
    assert new.overlap_until is not None
    await client.delete_endpoint(made.id)
    assert (await client.endpoints()).data == []


async def test_a_subscription_is_previewed(receiver: Assembled, client: Client) -> None:
    await receiver.store.record(arrival(success()))
    found = await client.preview(PreviewAsked(event_types=["task.*"], last=10))
    assert (found.examined, found.matched, found.data[0].type) == (2, 1, "task.completed")
    assert (await client.preview(PreviewAsked(), project="film")).examined == 0


async def test_callbacks_events_and_deliveries_are_read(
    receiver: Assembled, client: Client
) -> None:
    await client.add_endpoint(EndpointSpec(url=URL, event_types=["result.*"]))
    await receiver.store.record(arrival(success()))
    (callback,) = (await client.callbacks(task=TASK, outcome=None)).data
    assert "videoUUID" in str((await client.callback(callback.id)).body)
    (event,) = (await client.events(event_type="result.succeeded")).data
    assert (await client.event(event.id)).payload["type"] == "result.succeeded"
    (delivery,) = (await client.deliveries(state="pending")).data
    assert (await client.move_delivery(delivery.id, "cancel")).state == "canceled"
    assert (await client.move_delivery(delivery.id, "retry")).state == "pending"
    await claim(receiver.store)
    assert (await client.delivery(delivery.id)).attempts == 1
    with pytest.raises(ApiRefused) as caught:
        await client.move_delivery(delivery.id, "cancel")
    assert caught.value.status == 409


async def test_what_failed_is_seen_and_sent_again(receiver: Assembled, client: Client) -> None:
    added = await client.add_endpoint(EndpointSpec(url=URL, event_types=["result.*"]))
    await receiver.store.record(arrival(success()))
    await die(receiver.store)
    (group,) = (await client.dead_letters(endpoint=added.id, since=None)).data
    assert (group.count, group.status) == (1, 500)
    receiver.clock.advance(1)
    counted = await client.retry_deliveries(RetryAsked())
    assert isinstance(counted, Counted)
    assert (counted.count, counted.complete) == (1, True)
    since = datetime(2026, 9, 21, tzinfo=UTC)
    job = await client.recover(added.id, RecoverAsked(since=since, dry_run=False), key="k")
    assert isinstance(job, Job)
    assert await client.recover(added.id, RecoverAsked(since=since, dry_run=False), key="k") == job
    assert (await client.jobs(limit=1)).data == [await client.job(job.id)] == [job]
    assert (await client.cancel_job(job.id)).state == "canceled"
    event = (await receiver.store.delivery(group.example)).event_id
    assert (await client.replay(event, endpoint=added.id)).retried == 1
    tried = await client.test_endpoint(added.id)
    assert (tried.event_type, tried.state) == ("endpoint.test", "pending")
    assert (await client.test_endpoint(added.id, wait=0.01)).attempt_log == []


async def test_every_task_is_found_page_by_page(client: Client) -> None:
    wanted = [uuid(number) for number in range(5)]
    for task in wanted:
        await client.register_task(task, TaskSpec(platform="runware"))
    assert [task.id async for task in client.each_task(limit=2)] == wanted[::-1]
    page = await client.tasks(limit=2, model=None)
    assert (len(page.data), page.next_cursor is None) == (2, False)


async def test_health_is_asked_without_reading_a_task(receiver: Assembled, client: Client) -> None:
    assert (await client.health())["instance"] == receiver.store.instance


async def test_a_wrong_token_is_refused(receiver: Assembled) -> None:
    transport = httpx.ASGITransport(receiver.service.app)
    async with Client("http://receiver", "wrong", transport=transport) as client:
        with pytest.raises(ApiRefused) as caught:
            await client.tasks()
    assert (caught.value.status, caught.value.problem) == (401, "unauthenticated")
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(500, json=[]),
        httpx.Response(404, json={"detail": "x"}),
        httpx.Response(301, headers={"location": "https://elsewhere.example"}),
    ],
)
async def test_what_is_not_a_receiver_is_told_apart(response: httpx.Response) -> None:
    async with answering(response) as client:
        with pytest.raises(ApiRefused) as caught:
            await client.task(OTHER)
    assert (caught.value.status, caught.value.problem) == (response.status_code, "not_reelhook")


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_receiver_that_takes_nothing_now_counts_as_away(status: int) -> None:
    body = problem(status, "stopping", "The receiver is stopping; send it again.")
    for answer in (httpx.Response(status, content=body), httpx.Response(status, text="<html>")):
        async with answering(answer) as client:
            with pytest.raises(Unreachable, match=f"takes nothing now .{status}."):
                await client.task(OTHER)


async def test_a_success_that_is_not_a_receivers_is_told_apart() -> None:
    async with answering(httpx.Response(200, text="<html>Welcome</html>")) as client:
        with pytest.raises(ApiRefused):
            await client.task(OTHER)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "ftp://x"])
async def test_where_nobody_answers_the_remedy_is_told(url: str) -> None:
    async with Client(url, "token") as client:
        with pytest.raises(Unreachable, match="reelhook serve"):
            await client.tasks()


@pytest.mark.parametrize("url", ["http://me:sesame@127.0.0.1:1", "http://me:sesame@h:port"])
async def test_a_password_in_the_url_is_told_to_nobody(url: str) -> None:
    with pytest.raises(Unreachable) as caught:
        async with Client(url, "token") as client:
            await client.tasks()
    assert "sesame" not in str(caught.value)


async def test_a_proxy_in_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    client = Client("http://receiver", "token")
    assert client._http._mounts == {}
    await client.close()

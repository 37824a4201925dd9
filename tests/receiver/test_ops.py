"""The use cases for a principal that may see one project alone, and the long polls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from receiver import ids
from receiver.admin.ops import Begun, Ops, Principal, Watch
from receiver.admin.ops.watch import MAX_WAIT
from receiver.callbacks import Reprocess
from receiver.clock import to_datetime
from receiver.deliveries import State
from receiver.delivery.guard import UrlRefused
from receiver.endpoints import EndpointPatch, EndpointSpec, PreviewAsked, RotateAsked
from receiver.endpoints import State as EndpointState
from receiver.errors import Conflict, Forbidden, NotFound
from receiver.repair import Counted, RecoverAsked, ReplayAsked, RetryAsked
from receiver.store.protocol import Query
from receiver.tasks import TaskClaim, TaskPatch, TaskSpec
from receiver.tokens import Source
from tests.doubles import PUBLIC_URL, START, Assembled, assembled
from tests.make import OTHER, TASK, arrival, failure, settled, success, uuid, wrapped
from tests.receiver.store.suite import claim

ADMIN = Principal("admin")
OWNER = Principal("owner", "film")
STRANGER = Principal("stranger", "music")
URL = "https://example.com/hook"

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


@pytest.fixture
async def things(receiver: Assembled) -> dict[str, str]:
    """One of everything, in the project film."""
    ops = receiver.service.ops
    await ops.register_task(OWNER, TASK, TaskSpec(platform="runware"), Source.CALLBACK)
    endpoint = await ops.add_endpoint(OWNER, EndpointSpec(url=URL, event_types=["task.*"]), None)
    await receiver.store.record(arrival(success()))
    (claimed,) = await claim(receiver.store)
    await receiver.store.settle(settled(claimed, State.DEAD))
    (callback,) = (await ops.callbacks(OWNER, Query())).data
    return {
        "endpoint": endpoint.id,
        "callback": callback.id,
        "event": ids.EVENT + ids.encode(claimed.event_id),
        "delivery": ids.delivery_id(claimed.event_id, claimed.endpoint_id),
    }


async def test_a_project_is_not_told_what_is_behind_the_receiver(receiver: Assembled) -> None:
    ops = receiver.service.ops
    made = await ops.add_endpoint(OWNER, EndpointSpec(url=URL), None)
    for url, why in (
        ("https://10.1.2.3/", "REELHOOK_ALLOW_NETWORKS"),
        ("https://169.254.169.254/", "metadata"),
        ("https://localhost/", "127.0.0.1"),
        (PUBLIC_URL, "this receiver itself"),
    ):
        told = set()
        for who in (ADMIN, OWNER):
            with pytest.raises(UrlRefused) as added:
                await ops.add_endpoint(who, EndpointSpec(url=url), "film")
            with pytest.raises(UrlRefused) as changed:
                await ops.change_endpoint(who, made.id, EndpointPatch(url=url))
            assert str(added.value) == str(changed.value)
            assert (why in str(added.value)) == (who is ADMIN)
            told.add(str(added.value))
        assert "This host can't be delivered to; ask whoever runs the receiver." in told
    with pytest.raises(UrlRefused, match="user name"):
        await ops.add_endpoint(OWNER, EndpointSpec(url="https://a:b@example.com/"), None)


def asked_by(
    ops: Ops, who: Principal, of: dict[str, str]
) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Everything that can be asked about one thing."""
    return {
        "task": lambda: ops.task(who, TASK),
        "wait": lambda: ops.wait_task(who, TASK, None, 0.01),
        "results": lambda: ops.results(who, TASK),
        "change": lambda: ops.change_task(who, TASK, TaskPatch(platform_id="x")),
        "reconcile": lambda: ops.reconcile_task(who, TASK),
        "body": lambda: ops.callback_body(who, of["callback"]),
        "reprocess": lambda: ops.reprocess(who, of["callback"], Reprocess()),
        "revoke": lambda: ops.revoke_task(who, TASK),
        "callback": lambda: ops.callback(who, of["callback"]),
        "drop": lambda: _but(Conflict, ops.delete_callback(who, of["callback"])),
        "event": lambda: ops.event(who, of["event"]),
        "delivery": lambda: ops.delivery(who, of["delivery"]),
        "retry": lambda: ops.retry(who, of["delivery"]),
        "cancel": lambda: ops.cancel(who, of["delivery"]),
        "endpoint": lambda: ops.endpoint(who, of["endpoint"]),
        "patch": lambda: ops.change_endpoint(who, of["endpoint"], EndpointPatch(description="x")),
        "rotate": lambda: ops.rotate_secret(who, of["endpoint"], RotateAsked()),
        "move": lambda: ops.move_endpoint(who, of["endpoint"], EndpointState.PAUSED),
        "delete-endpoint": lambda: ops.delete_endpoint(who, of["endpoint"]),
        "delete-task": lambda: ops.delete_task(who, TASK),
    }


async def _but(error: type[Exception], asked: Awaitable[Any]) -> None:
    # A refusal for what it is, not for whose it is.
    with suppress(error):
        await asked


async def test_another_project_has_nothing_by_that_id(
    receiver: Assembled, things: dict[str, str]
) -> None:
    for ask in asked_by(receiver.service.ops, STRANGER, things).values():
        with pytest.raises(NotFound):
            await ask()
    assert (await receiver.store.task(TASK)).platform_id is None
    assert (await receiver.store.endpoint(things["endpoint"])).state == "enabled"


@pytest.mark.parametrize("who", [OWNER, ADMIN], ids=["owner", "admin"])
async def test_ones_own_project_and_an_admin_get_an_answer(
    receiver: Assembled, things: dict[str, str], who: Principal
) -> None:
    for ask in asked_by(receiver.service.ops, who, things).values():
        await ask()
    with pytest.raises(NotFound):
        await receiver.store.task(TASK)


async def test_what_names_no_task_is_the_default_projects(receiver: Assembled) -> None:
    ops, owner = receiver.service.ops, Principal("owner", "default")
    await receiver.store.record(arrival(task_id=None, jti=None, body=b"{"))
    (listed,) = (await ops.callbacks(owner, Query())).data
    assert (await ops.callbacks(STRANGER, Query())).data == []
    of = {"callback": listed.id}
    for name in ("callback", "body", "reprocess"):
        assert await asked_by(ops, owner, of)[name]()
    for name in ("callback", "body", "reprocess", "drop"):
        with pytest.raises(NotFound):
            await asked_by(ops, STRANGER, of)[name]()
    await asked_by(ops, owner, of)["drop"]()


async def test_lists_show_ones_own_project_alone(
    receiver: Assembled, things: dict[str, str]
) -> None:
    ops = receiver.service.ops
    for verb in (ops.tasks, ops.costs, ops.callbacks, ops.endpoints, ops.events, ops.deliveries):
        assert (await verb(STRANGER, Query())).data == []
        assert len((await verb(OWNER, Query())).data) > 0
        assert len((await verb(ADMIN, Query(project="film"))).data) > 0
        with pytest.raises(Forbidden):
            await verb(STRANGER, Query(project="film"))


async def test_a_preview_looks_at_ones_own_project_alone(
    receiver: Assembled, things: dict[str, str]
) -> None:
    ops, asked = receiver.service.ops, PreviewAsked()
    assert (await ops.preview(STRANGER, asked, None)).examined == 0
    (shown,) = (await ops.preview(OWNER, PreviewAsked(event_types=["task.*"]), None)).data
    assert shown.id == things["event"]
    assert (await ops.preview(ADMIN, asked, "film")).examined > 0
    assert (await ops.preview(ADMIN, asked, None)).examined == 0
    with pytest.raises(Forbidden):
        await ops.preview(STRANGER, asked, "film")


async def test_something_new_belongs_to_ones_own_project(receiver: Assembled) -> None:
    ops, spec = receiver.service.ops, EndpointSpec(url=URL)
    assert (await ops.add_endpoint(OWNER, spec, None)).project == "film"
    assert (await ops.add_endpoint(OWNER, spec, "film")).project == "film"
    assert (await ops.add_endpoint(ADMIN, spec, None)).project == "default"
    assert (await ops.add_endpoint(ADMIN, spec, "music")).project == "music"
    with pytest.raises(Forbidden):
        await ops.add_endpoint(OWNER, spec, "music")
    task = TaskSpec(platform="runware", project="music")
    with pytest.raises(Forbidden):
        await ops.register_task(OWNER, uuid(5), task, Source.CALLBACK)


async def test_who_waits_is_woken_by_his_own_task_and_by_the_end() -> None:
    watch = Watch()
    watch.hear({"a"}, True)
    with watch.listening("a") as one, watch.listening("a") as two, watch.listening("b") as other:
        watch.hear({"a", "c"}, False)
        assert [found.is_set() for found in (one, two, other)] == [True, True, False]
        watch.wake_all()
        assert other.is_set()
    with watch.listening("a") as late:
        assert late.is_set()
    watch.hear({"a", "b"}, False)
    assert not watch._waiting


async def test_a_change_between_looking_and_waiting_is_not_missed(receiver: Assembled) -> None:
    ops = receiver.service.ops
    task = await ops.register_task(
        ADMIN, TASK, TaskSpec(platform="runware", expected=2), Source.CALLBACK
    )
    waiting = [
        asyncio.create_task(ops.wait_task(ADMIN, TASK, task.revision, 30)) for _ in range(20)
    ]
    await receiver.store.record(arrival(success(), expected=2))
    async with asyncio.timeout(10):
        found = await asyncio.gather(*waiting)
    assert {(one.received, one.revision > task.revision) for one in found} == {(1, True)}


async def test_who_comes_while_the_receiver_stops_does_not_wait(receiver: Assembled) -> None:
    ops = receiver.service.ops
    task = await ops.register_task(ADMIN, TASK, TaskSpec(platform="runware"), Source.CALLBACK)
    ops.stop_waiting()
    async with asyncio.timeout(MAX_WAIT / 2):
        assert (await ops.wait_task(ADMIN, TASK, task.revision, 30)).revision == task.revision


@pytest.mark.parametrize("tags", [{"note": "x" * 900}, {"note": "\0"}, {"": "nameless"}])
async def test_tags_that_no_url_can_carry_keep_no_task_from_being_polled(
    receiver: Assembled, tags: dict[str, str]
) -> None:
    """A static key's own URL has room for more, and its tags were vouched for by nobody."""
    ops, store = receiver.service.ops, receiver.store
    await store.record(arrival(failure(), jti=None, expected=None, tags=tags))
    await ops.register_task(ADMIN, OTHER, TaskSpec(platform="runware"), Source.CALLBACK)
    await ops.reconcile_task(ADMIN, OTHER)
    claimed = {task.id: task for task in await ops.claim_tasks(ADMIN, TaskClaim())}
    assert set(claimed) == {TASK, OTHER}
    registered = await ops.register_task(
        ADMIN, TASK, TaskSpec(platform="runware", expected=2), Source.CALLBACK
    )
    assert registered.tags == claimed[TASK].tags == tags
    for number, url in enumerate((claimed[TASK].webhook_url, registered.webhook_url), 1):
        answer = await receiver.client.post(url, content=wrapped(success(number)))
        assert answer.json() == {"status": "recorded", "results": 1}


async def test_a_project_sends_again_what_is_its_own(
    receiver: Assembled, things: dict[str, str]
) -> None:
    ops, since = receiver.service.ops, to_datetime(START)
    receiver.clock.advance(1)
    for who, count in ((OWNER, 1), (STRANGER, 0), (ADMIN, 1)):
        counted = await ops.retry_all(who, RetryAsked(), None)
        assert isinstance(counted, Counted)
        assert counted.count == count
    begun = await ops.retry_all(OWNER, RetryAsked(dry_run=False), "k")
    assert isinstance(begun, Begun)
    assert (begun.new, begun.job.project, begun.job.total) == (True, "film", 1)
    every = await ops.retry_all(ADMIN, RetryAsked(dry_run=False), "k")
    assert isinstance(every, Begun)
    assert (every.new, every.job.project) == (True, None)
    assert [job.id for job in (await ops.jobs(OWNER, Query())).data] == [begun.job.id]
    assert len((await ops.jobs(ADMIN, Query())).data) == 2
    for refused in (
        ops.job(STRANGER, begun.job.id),
        ops.cancel_job(STRANGER, begun.job.id),
        ops.job(OWNER, every.job.id),
        ops.retry_all(STRANGER, RetryAsked(endpoint=things["endpoint"]), None),
        ops.recover(STRANGER, things["endpoint"], RecoverAsked(since=since), None),
        ops.replay(STRANGER, things["event"], ReplayAsked()),
        ops.test_endpoint(STRANGER, things["endpoint"], 0),
    ):
        with pytest.raises(NotFound):
            await refused
    with pytest.raises(Forbidden):
        await ops.retry_all(OWNER, RetryAsked(project="music"), None)

"""`GET /v1/events/stream`: what it shows, where it begins, how it ends, and what it costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from receiver.admin import stream as door
from receiver.admin.dashboard import live
from receiver.admin.ops import Principal, broadcast, standing
from receiver.admin.ops.broadcast import Broadcaster
from receiver.clock import to_rfc3339
from receiver.deliveries import State
from receiver.errors import Busy, Forbidden, Invalid, StoreUnavailable
from receiver.feed import Place, Told
from receiver.store.protocol import Query, Replay
from receiver.store.sqlite import SqliteStore
from receiver.store.writer import Transaction
from tests.doubles import LIMIT_S, PUBLIC_URL, START, Assembled, assembled, reaching
from tests.make import TASK, arrival, endpoint, registration, settled, success, uuid
from tests.receiver.browsing import logged_in, send, token_of
from tests.receiver.store.suite import arrival_of
from tests.receiver.streams import PATH, Stream, streaming

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


@pytest.fixture
def feed(receiver: Assembled) -> Broadcaster:
    return receiver.service.ops.feed


async def happen(receiver: Assembled, *numbers: int, project: str = "default") -> list[str]:
    """An event of a task for each number; their ids."""
    found = []
    for number in numbers:
        found_by = arrival_of(uuid(number), success(number), expected=2, project=project)
        await receiver.store.record(found_by)
        (event, *_) = (await receiver.store.events(Query(limit=1))).data
        found.append(event.id)
    return found


async def somebody_watches(feed: Broadcaster) -> None:
    """Let others run until a long poll is there, and knows where the feed ends."""
    for _ in count():
        if feed._end is not None:
            return
        await asyncio.sleep(0)


async def ids(stream: Stream, count: int) -> list[str]:
    return [(await stream.shown()).data["id"] for _ in range(count)]


# The text


@pytest.mark.parametrize("text", ["", "x", "-1", "1.", ".1", "1.2.3", "1 ", "٣", "1" * 19, "1.x"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        Place.read(text)
    assert refused.value.evidence == {"parameter": "cursor"}


def test_a_place_is_read_as_it_is_written() -> None:
    for place in (Place(0), Place(41), Place(41, 7)):
        assert Place.read(str(place)) == place
    assert Place(41) < Place(41, 1) < Place(41, 2) < Place(42)


def test_a_payload_stands_in_a_message_byte_for_byte_and_breaks_no_line() -> None:
    payload = '{"data":{"a":"\u2028,\\"payload\\":"},"n":1.50}'.encode()
    told = Told(Place(3), "evt_1", 3, "result.failed", None, 'a","payload":1', 0, None, payload)
    assert told.json.partition(b',"payload":')[2] == payload + b"}"
    assert told.message.decode() == (f"id: 3\nevent: result.failed\ndata: {told.json.decode()}\n\n")
    assert json.loads(told.json)["payload"] == json.loads(payload)


# What it shows


async def test_events_are_told_as_they_happen(receiver: Assembled, feed: Broadcaster) -> None:
    await happen(receiver, 1)
    async with streaming(receiver.door) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        first = await stream.next()
        assert first is not None
        assert first.fields == {"retry": "2000", "id": "1"}
        (event,) = await happen(receiver, 2)
        await feed.tick()
        said = await stream.shown()
        assert said.fields["event"] == "result.succeeded"
        whole = (await receiver.client.get(f"/v1/events/{event}")).json()
        assert said.data == {
            **whole,
            "created_at": to_rfc3339(START),
            "resent_at": None,
            "cursor": "2",
        }
        assert said.id == "2"


async def test_what_is_sent_again_is_told_again(receiver: Assembled, feed: Broadcaster) -> None:
    (event,) = await happen(receiver, 1)
    async with streaming(receiver.door) as stream:
        receiver.clock.advance(5)
        (await receiver.client.post(f"/v1/events/{event}/replay")).raise_for_status()
        await feed.tick()
        said = await stream.shown()
        assert (said.id, said.data["id"]) == ("1.1", event)
        assert said.data["resent_at"] == to_rfc3339(START + 5)


async def test_it_goes_on_behind_the_last_id(receiver: Assembled) -> None:
    events = await happen(receiver, 1, 2, 3)
    await receiver.store.replay(Replay(events[0], START))
    for last, left in (("0", 4), ("1", 3), ("3", 1), ("3.1", 0), ("3.9", 0)):
        by_header: dict[str, Any] = {"last_event_id": last}
        for query, headers in ((f"cursor={last}", {}), ("cursor=2", by_header)):
            async with streaming(receiver.door, query, **headers) as stream:
                assert await ids(stream, left) == [*events, events[0]][4 - left :]


async def test_a_place_of_a_lost_database_is_its_end(
    receiver: Assembled, feed: Broadcaster
) -> None:
    await happen(receiver, 1)
    async with streaming(receiver.door, "cursor=900") as stream:
        first = await stream.next()
        assert first is not None
        assert first.id == "1"
        events = await happen(receiver, 2)
        await feed.tick()
        assert await ids(stream, 1) == events


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", ["result.succeeded", "task.completed", "result.succeeded"]),
        ("event_type=*", ["result.succeeded", "task.completed", "result.succeeded"]),
        ("event_type=task.*", ["task.completed"]),
        ("event_type=task.completed&event_type=result.failed", ["task.completed"]),
        ("event_type=task.completed,endpoint.disabled", ["task.completed"]),
        ("project=film", ["result.succeeded"]),
        ("filter=tags.team=a", ["result.succeeded", "task.completed"]),
        ("filter=tags.team=a&filter=tags.team=b", ["result.succeeded", "task.completed"]),
        ("filter=tags.team=a&filter=platform=nano*", []),
        ("filter=tags.team=z", []),
    ],
)
async def test_it_shows_what_is_asked_for(
    receiver: Assembled, query: str, wanted: Sequence[str]
) -> None:
    await receiver.store.add_endpoint(endpoint())
    await receiver.store.register(registration(expected=1, tags={"team": "a"}))
    await receiver.store.record(arrival(success()))
    await happen(receiver, 5, project="film")
    added = (await receiver.store.endpoints(Query())).data[0]
    await receiver.store.test_endpoint(added.id, START)  # for that one alone
    async with streaming(receiver.door, f"cursor=0&{query}") as stream:
        assert [(await stream.shown()).data["type"] for _ in wanted] == wanted
        receiver.service.ops.stop_waiting()
        while said := await stream.next():
            assert not said.is_shown
    found = (await receiver.client.get(f"{PATH}?cursor=0&wait=0&{query}")).json()
    assert [one["type"] for one in found["data"]] == wanted
    assert found["next_cursor"] == "4"


async def test_operational_events_have_to_be_named(receiver: Assembled) -> None:
    added = await receiver.store.add_endpoint(endpoint())
    await happen(receiver, 1)
    (claimed,) = await receiver.store.claim(now=START, lease_until=START + 1, limit=9)
    await receiver.store.settle(settled(claimed, State.DEAD, disable="gone"))
    assert added.id
    kinds = {}
    for name in ("*", "endpoint.*", "delivery.exhausted"):
        found = (await receiver.client.get(f"{PATH}?cursor=0&wait=0&event_type={name}")).json()
        kinds[name] = [one["type"] for one in found["data"]]
    assert kinds == {
        "*": ["result.succeeded"],
        "endpoint.*": ["endpoint.disabled"],
        "delivery.exhausted": ["delivery.exhausted"],
    }


@pytest.mark.parametrize(
    "query",
    [
        "cursor=x",
        "event_type=result.gone",
        "event_type=endpoint.test",
        "event_type=**",
        "filter=x",
        "filter=nothing=1",
        "filter=status=odd",
        "wait=x",
        "limit=5",
        "since=2026-11-20",
    ],
)
async def test_what_could_never_work_is_refused(receiver: Assembled, query: str) -> None:
    response = await receiver.client.get(f"{PATH}?{query}")
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert receiver.service.ops.feed.watchers == 0


async def test_head_has_the_headers_alone(receiver: Assembled) -> None:
    async with streaming(receiver.door, method="HEAD") as stream:
        assert await stream.next() is None
        assert stream.headers["content-type"].startswith("text/event-stream")
    assert receiver.service.ops.feed.watchers == 0


async def test_nobody_watches_without_a_token(receiver: Assembled) -> None:
    assert (await receiver.stranger.get(PATH)).status_code == 401


# Long polls


async def test_a_long_poll_is_answered_by_the_next_event(
    receiver: Assembled, feed: Broadcaster
) -> None:
    waiting = asyncio.create_task(receiver.client.get(f"{PATH}?wait=25"))
    async with asyncio.timeout(LIMIT_S):
        await somebody_watches(feed)
        events = await happen(receiver, 1)
        while not waiting.done():
            await feed.tick()
            await asyncio.sleep(0)
    found = (await waiting).json()
    assert [one["id"] for one in found["data"]] == events
    assert found["next_cursor"] == "1"
    assert (await receiver.client.get(f"{PATH}?wait=0&cursor=1")).json() == {
        "data": [],
        "next_cursor": "1",
    }


async def test_a_long_poll_waits_on_when_something_else_happens(
    receiver: Assembled, feed: Broadcaster
) -> None:
    asked = f"{PATH}?wait=25&event_type=task.completed"
    waiting = asyncio.create_task(receiver.client.get(asked))
    async with asyncio.timeout(LIMIT_S):
        await somebody_watches(feed)
        await happen(receiver, 1)
        await feed.tick()
        await receiver.store.record(arrival(success()))
        while not waiting.done():
            await feed.tick()
            await asyncio.sleep(0)
    assert [one["type"] for one in (await waiting).json()["data"]] == ["task.completed"]


async def test_long_polls_bring_everything_once_page_by_page(receiver: Assembled) -> None:
    tasks = [uuid(number) for number in range(230)]
    await asyncio.gather(
        *[receiver.store.record(arrival_of(task, success(1), expected=2)) for task in tasks]
    )
    seen: list[str] = []
    cursor, sizes = "0", []
    while True:
        page = (await receiver.client.get(f"{PATH}?wait=0&cursor={cursor}")).json()
        if not page["data"]:
            break
        sizes.append(len(page["data"]))
        seen += [one["task_id"] for one in page["data"]]
        cursor = page["next_cursor"]
    assert sizes == [100, 100, 30]
    assert sorted(seen) == sorted(tasks)


async def test_a_poll_that_wants_little_still_gets_on(receiver: Assembled) -> None:
    await happen(receiver, 1, 2, 3)
    page = (await receiver.client.get(f"{PATH}?wait=0&cursor=0&event_type=task.overdue")).json()
    assert page == {"data": [], "next_cursor": "3"}


async def test_a_long_poll_ends_with_the_receiver(receiver: Assembled, feed: Broadcaster) -> None:
    waiting = asyncio.create_task(receiver.client.get(f"{PATH}?wait=30"))
    async with asyncio.timeout(LIMIT_S):
        await somebody_watches(feed)
        receiver.service.ops.stop_waiting()
        assert (await waiting).json() == {"data": [], "next_cursor": "0"}


# How it ends


async def test_it_ends_when_the_receiver_stops(receiver: Assembled, feed: Broadcaster) -> None:
    async with streaming(receiver.door) as stream:
        events = await happen(receiver, 1)
        await feed.tick()
        assert await ids(stream, 1) == events
        receiver.service.ops.stop_waiting()
        assert await stream.next() is None
    async with streaming(receiver.door) as late:
        assert await late.next() is not None
        assert await late.next() is None


async def test_who_is_gone_watches_no_more(receiver: Assembled, feed: Broadcaster) -> None:
    async with streaming(receiver.door) as stream:
        await stream.next()
        assert feed.watchers == 1
    assert feed.watchers == 0


async def test_who_took_nothing_before_watches_no_more_either(
    receiver: Assembled, feed: Broadcaster
) -> None:
    async with streaming(receiver.door, deaf=True):
        assert feed.watchers == 1
    assert feed.watchers == 0


async def test_a_stream_ends_after_its_time(
    receiver: Assembled, feed: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "LIFE", 0.0)
    async with streaming(receiver.door) as stream:
        assert await stream.next() is not None
        assert await stream.next() is None
    assert feed.watchers == 0


async def test_a_sign_of_life_says_where_one_is(
    receiver: Assembled, feed: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "HEARTBEAT", 0.0)
    async with streaming(receiver.door, "event_type=task.overdue") as stream:
        await stream.next()
        await happen(receiver, 1, 2)
        await feed.tick()
        async with asyncio.timeout(LIMIT_S):
            while (said := await stream.next()) is not None and said.id != "2":
                assert said.fields == {"id": "0"}
        assert said is not None
        assert said.fields == {"id": "2"}


async def test_a_store_that_can_not_be_read_is_said_at_once_and_ends_later(
    receiver: Assembled, feed: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> Any:
        raise StoreUnavailable("The disk is gone.")

    async with streaming(receiver.door, "cursor=0") as stream:
        await stream.next()
        await happen(receiver, 1)
        monkeypatch.setattr(SqliteStore, "told", broken)
        with pytest.raises(StoreUnavailable):
            await feed.tick()
        monkeypatch.setattr(feed, "_end", Place(5))
        monkeypatch.setattr(feed, "_from", Place(5))
        feed._news.set()
        assert await stream.next() is None
    monkeypatch.setattr(SqliteStore, "newest_place", broken)
    response = await receiver.client.get(PATH)
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    assert feed.watchers == 0


async def test_only_so_many_watch_at_once(receiver: Assembled, feed: Broadcaster) -> None:
    feed._most = 2
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(streaming(receiver.door))
        for query in ("", "?wait=1"):
            response = await receiver.client.get(PATH + query)
            assert (response.status_code, response.json()["code"]) == (503, "busy")
            assert response.headers["retry-after"] == "2"
    assert feed.watchers == 0
    assert (await receiver.client.get(f"{PATH}?wait=0")).status_code == 200


# Whose it is


async def test_nothing_is_told_once_the_token_is_revoked(
    receiver: Assembled, feed: Broadcaster
) -> None:
    token_id, token = await token_of(receiver, scope="read")
    async with streaming(receiver.door, authorization=f"Bearer {token}") as stream:
        events = await happen(receiver, 1)
        await feed.tick()
        assert await ids(stream, 1) == events
        await receiver.client.delete(f"/v1/api-tokens/{token_id}")
        await happen(receiver, 2)
        await feed.tick()
        await over(stream)
    assert feed.watchers == 0


async def over(stream: Stream) -> None:
    """The last message of somebody who may be told no more."""
    said = await stream.next()
    assert said is not None
    assert said.fields["event"] == "problem"
    assert (said.data["status"], said.data["code"]) == (401, "unauthenticated")
    assert "id" not in said.fields
    assert await stream.next() is None


async def test_a_silent_stream_ends_at_a_sign_of_life_after_its_token(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "FRESH", 0.0)
    lapses = to_rfc3339(START + 1_000)
    _, lapsing = await token_of(receiver, scope="read", expires_at=lapses)
    gone, going = await token_of(receiver, scope="admin")
    async with (
        streaming(receiver.door, authorization=f"Bearer {lapsing}") as one,
        streaming(receiver.door, authorization=f"Bearer {going}") as other,
    ):
        for stream in (one, other):
            assert await stream.next() is not None
        receiver.clock.advance(1_000)
        await receiver.store.delete_api_token(gone)  # as another process of the receiver would
        monkeypatch.setattr(door, "HEARTBEAT", 0.0)
        receiver.service.ops.feed._news.set()
        for stream in (one, other):
            await over(stream)


async def test_a_stream_of_a_session_ends_with_it(
    receiver: Assembled, feed: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "GAP", 0)
    async with logged_in(receiver) as browser:
        cookie = "; ".join(f"{name}={text}" for name, text in browser.cookies.items())
        asked: dict[str, Any] = {
            "cookie": cookie,
            "host": urlsplit(PUBLIC_URL).netloc,
            "authorization": "",
        }
        async with (
            streaming(receiver.door, **asked) as stream,
            streaming(receiver.door, path="/live", **asked) as word,
        ):
            events = await happen(receiver, 1)
            await feed.tick()
            assert await ids(stream, 1) == events
            assert await word.next() is not None
            assert (await word.shown()).fields["data"] == "change"
            assert (await send(browser, "/", "/logout")).status_code == 303
            await happen(receiver, 2)
            await feed.tick()
            await over(stream)
            await over(word)


@pytest.mark.parametrize("path", [PATH, f"/v1/tasks/{TASK}"])
async def test_a_long_poll_is_refused_once_the_token_is_revoked(
    receiver: Assembled, feed: Broadcaster, path: str
) -> None:
    await receiver.store.register(registration())
    known = (await receiver.client.get(f"/v1/tasks/{TASK}")).headers["etag"]
    token_id, token = await token_of(receiver, scope="read")
    asked = {"authorization": f"Bearer {token}", "if-none-match": known}
    waiting = asyncio.create_task(receiver.stranger.get(f"{path}?wait=25", headers=asked))
    async with asyncio.timeout(LIMIT_S):
        for _ in count():
            if feed.watchers or receiver.service.ops.watch._waiting:
                break
            await asyncio.sleep(0)
        await receiver.client.delete(f"/v1/api-tokens/{token_id}")
        await receiver.store.record(arrival(success()))
        while not waiting.done():
            await feed.tick()
            await asyncio.sleep(0)
    assert ((await waiting).status_code, (await waiting).json()["code"]) == (401, "unauthenticated")
    assert (await waiting).headers["www-authenticate"] == "Bearer"


async def test_the_watchers_of_a_token_share_one_look_at_it(
    receiver: Assembled, feed: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, token = await token_of(receiver, scope="read")
    looks: list[str] = []
    known = receiver.store.api_token

    async def looking(token_id: str) -> Any:
        looks.append(token_id)
        return await known(token_id)

    async with AsyncExitStack() as stack:
        asked: dict[str, Any] = {"authorization": f"Bearer {token}"}
        streams = [
            await stack.enter_async_context(streaming(receiver.door, **asked)) for _ in range(50)
        ]
        monkeypatch.setattr(receiver.store, "api_token", looking)
        monkeypatch.setattr(standing, "FRESH", LIMIT_S)
        events = await happen(receiver, 1, 2)
        await feed.tick()
        for stream in streams:
            assert await ids(stream, 2) == events
    assert len(looks) == 1


# What it costs


class Counted:
    """A store's two reads of the feed, counted."""

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        for name in ("told", "newest_place"):
            monkeypatch.setattr(store, name, self._counting(name, getattr(store, name)))

    def _counting(self, name: str, verb: Any) -> Any:
        async def counting(*given: Any) -> Any:
            self.calls.append(name)
            return await verb(*given)

        return counting


async def test_many_watchers_cost_one_query(
    receiver: Assembled, feed: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(receiver.store, monkeypatch)
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(streaming(receiver.door)) for _ in range(100)]
        assert counted.calls == ["newest_place"]
        events = await happen(receiver, 1, 2, 3)
        await feed.tick()
        for stream in streams:
            assert await ids(stream, 3) == events
        assert counted.calls == ["newest_place", "told", "told"]  # the last one finds nothing


async def test_where_nobody_watches_nothing_is_read(
    receiver: Assembled, feed: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(receiver.store, monkeypatch)
    async with streaming(receiver.door) as stream:
        await stream.next()
    counted.calls.clear()
    await happen(receiver, 1)
    assert await feed.tick() == 0
    assert counted.calls == []
    assert feed._held == []


async def test_the_loop_looks_after_commits_and_once_more_after_a_failure(
    receiver: Assembled, feed: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "PAUSE", 0.0)
    told, failures = receiver.store.told, [StoreUnavailable("Not now.")]

    async def at_times(after: Place) -> Sequence[Told]:
        if failures:
            raise failures.pop()
        return await told(after)

    async with streaming(receiver.door) as stream:
        await stream.next()
        monkeypatch.setattr(receiver.store, "told", at_times)
        events = await happen(receiver, 1)
        with pytest.raises(StoreUnavailable):
            await feed.run()
        again = asyncio.create_task(feed.run())
        assert await ids(stream, 1) == events
        assert await ids(stream, 0) == []
        events = await happen(receiver, 2)
        assert await ids(stream, 1) == events
        again.cancel()


async def test_who_falls_behind_reads_from_the_store_and_misses_nothing(
    receiver: Assembled, feed: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "HELD", 5)
    with feed.watching() as slow, feed.watching() as quick:
        await slow.place()
        await quick.place()
        seen: list[str] = []
        events: list[str] = []
        for number in range(20):
            events += await happen(receiver, number)
            await feed.tick()
            seen += [one.id for one in await quick.next(0)]
        assert len(feed._held) == 5
        late: list[str] = []
        while page := await slow.next(0):
            late += [one.id for one in page]
        assert seen == late == events


async def test_what_is_held_is_bounded_in_bytes(
    receiver: Assembled, feed: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "HELD_BYTES", 1_000_000)
    with feed.watching() as watcher:
        await watcher.place()
        for number in range(4):
            item = success(number, uuid(number), padding="x" * 400_000)
            await receiver.store.record(arrival_of(uuid(number), item, expected=2))
            await feed.tick()
            assert feed._bytes == sum(len(one.payload) for one in feed._held) <= 1_000_000
        assert len(feed._held) == 2
        assert [one.seq for one in await watcher.next(0)] == [1, 2, 3]
        assert [one.seq for one in await watcher.next(0)] == [4]


async def test_what_is_too_large_to_be_held_is_still_told(
    receiver: Assembled, feed: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "HELD_BYTES", 10)
    with feed.watching() as watcher:
        await watcher.place()
        await happen(receiver, 1, 2)
        await feed.tick()
        assert feed._held == []
        assert [one.seq for one in await watcher.next(0)] == [1, 2]
        assert await watcher.next(0) == ()


async def test_a_watcher_that_comes_as_the_last_one_leaves_misses_nothing(
    receiver: Assembled, feed: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, entered, go_on = receiver.store.told, asyncio.Event(), asyncio.Event()

    async def slowly(after: Place) -> Sequence[Told]:
        found = await told(after)
        entered.set()
        await go_on.wait()
        return found

    with feed.watching() as first:
        await first.place()
        await happen(receiver, 1)
        monkeypatch.setattr(receiver.store, "told", slowly)
        ticking = asyncio.create_task(feed.tick())
        await entered.wait()
    with feed.watching(Place(0)) as second:
        await happen(receiver, 2)
        await second.place()
        go_on.set()
        assert await ticking == 0  # what it read belongs to an earlier time
        monkeypatch.setattr(receiver.store, "told", told)
        await feed.tick()
        assert [one.seq for one in await second.next(0)] == [1, 2]


async def test_a_place_whose_resends_are_pruned_is_the_end(
    receiver: Assembled, feed: Broadcaster
) -> None:
    first, _ = await happen(receiver, 1, 2)
    for _ in range(2):
        await receiver.store.replay(Replay(first, START))
    with feed.watching(Place(2, 1)) as watcher:
        await watcher.place()

        def forget(tx: Transaction, _asked: Sequence[None]) -> list[None]:
            tx.connection.execute("DELETE FROM resends")
            return [None]

        await receiver.store._writer.call(forget, None)
        assert await watcher.next(0) == ()
        assert await watcher.place() == Place(2, 2)


async def test_too_many_watchers_are_refused_where_they_ask(feed: Broadcaster) -> None:
    feed._most = 0
    with pytest.raises(Busy, match="streams are open"), feed.watching():
        pass


async def test_a_project_watches_its_own(receiver: Assembled) -> None:
    ops, own = receiver.service.ops, Principal("a token", "film")
    await happen(receiver, 1)
    (event,) = await happen(receiver, 2, project="film")
    found, _ = await ops.wait_events(ops.wanted(own, ["*"], {}, None), Place(0), 0)
    assert [one.id for one in found] == [event]
    with pytest.raises(Forbidden):
        ops.wanted(own, ["*"], {}, "default")


async def test_the_list_of_events_is_still_there(receiver: Assembled) -> None:
    async with reaching(receiver.door, "x") as client:
        assert (await client.get("/v1/events")).status_code == 401
    await receiver.store.record(arrival(success()))
    found = (await receiver.client.get(f"/v1/events?task={TASK}")).json()
    assert [one["type"] for one in found["data"]] == ["task.completed", "result.succeeded"]

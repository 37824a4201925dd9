"""What every store tells of deliveries that died and endpoints that were disabled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver.clock import MINUTE, to_rfc3339
from receiver.deliveries import Failure, State
from receiver.endpoints import State as EndpointState
from receiver.store.protocol import Query, Replay, Store
from tests.doubles import START, FakeClock, sent
from tests.make import arrival, endpoint, registration, settled, success
from tests.receiver.store.repair_suite import all_deliveries
from tests.receiver.store.suite import Opener, claim, queued, types

SECRET_URL = "https://user:hunter2@hooks.example.com:8443/services/T0/hunter2?key=hunter2#hunter2"
TAGS = {"team": "film"}


async def exhaust(store: Store, now: int = START, **settling: Any) -> None:
    """Claim what is due, and let it die."""
    for claimed in await claim(store, now):
        await store.settle(settled(claimed, State.DEAD, now=now, **settling))


async def payloads(store: Store, kind: str) -> list[Any]:
    """The payloads of all events of a type, oldest first."""
    found = (await store.events(Query(limit=200, event_type=kind), whole=True)).data
    return [event.payload for event in reversed(found)]


async def told_to(store: Store, kind: str) -> set[str]:
    """The endpoints that an event of a type is queued for."""
    return {one.endpoint_id for one in await all_deliveries(store, event_type=kind)}


@pytest.mark.anyio
class OperationsSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    async def test_a_delivery_that_died_is_told_without_a_secret(
        self, store: Store, clock: FakeClock
    ) -> None:
        added = await store.add_endpoint(
            endpoint(url=SECRET_URL, event_types=["result.*"], description="ours")
        )
        await store.record(arrival(success(), tags=TAGS))
        (dead,) = await all_deliveries(store)
        (result,) = await payloads(store, "result.succeeded")
        now = clock.advance(MINUTE)
        await exhaust(store, now, outcome=sent(503))
        (payload,) = await payloads(store, "delivery.exhausted")
        assert payload == {
            "type": "delivery.exhausted",
            "timestamp": to_rfc3339(now),
            "data": {
                "task": result["data"]["task"],
                "endpoint": {
                    "id": added.id,
                    "project": "default",
                    "host": "hooks.example.com",
                    "description": "ours",
                },
                "delivery": {
                    "id": dead.id,
                    "event_id": dead.event_id,
                    "event_type": "result.succeeded",
                    "task_id": dead.task_id,
                    "attempts": 1,
                    "created_at": to_rfc3339(START),
                    "last_error": "status",
                    "last_status": 503,
                    "last_detail": "A sentence.",
                },
            },
        }

    async def test_a_disabled_endpoint_is_told_to_all_others(
        self, store: Store, clock: FakeClock
    ) -> None:
        gone = await store.add_endpoint(
            endpoint(url=SECRET_URL, event_types=["result.*", "endpoint.*"])
        )
        await store.record(arrival(success(), expected=2))
        other = await store.add_endpoint(endpoint(event_types=["endpoint.disabled"]))
        await store.add_endpoint(endpoint())
        await store.add_endpoint(endpoint("other", event_types=["endpoint.*"]))
        now = clock.advance(MINUTE)
        await exhaust(store, now, outcome=sent(410), disable="gone")
        assert (await store.endpoint(gone.id)).state is EndpointState.DISABLED
        (payload,) = await payloads(store, "endpoint.disabled")
        assert payload["data"]["endpoint"] == {
            "id": gone.id,
            "project": "default",
            "host": "hooks.example.com",
            "description": "",
            "reason": "gone",
        }
        assert await told_to(store, "endpoint.disabled") == {other.id}
        (event,) = (await store.events(Query(event_type="endpoint.disabled"))).data
        found = await store.replay(Replay(event.id, now))
        assert [one[-13:] for one in found.deliveries] == [other.id[3:]]  # nor by a replay

    async def test_those_who_named_them_get_operational_events(self, store: Store) -> None:
        named = [
            await store.add_endpoint(endpoint(event_types=patterns))
            for patterns in (["delivery.*"], ["delivery.exhausted"], ["d*"], ["*", "delivery.*"])
        ]
        for patterns in (["*"], ["*ed"], ["result.*"], ["endpoint.*"]):
            await store.add_endpoint(endpoint(event_types=patterns))
        await store.record(arrival(success()))
        await exhaust(store)
        assert await told_to(store, "delivery.exhausted") == {one.id for one in named}

    async def test_filters_look_at_the_task_of_what_died(self, store: Store) -> None:
        await queued(store, 0)
        film, music = [
            await store.add_endpoint(
                endpoint(event_types=["delivery.*", "endpoint.*"], filters={"tags.team": team})
            )
            for team in ("film", "music")
        ]
        await store.record(arrival(success(), tags=TAGS))
        await exhaust(store, outcome=sent(410), disable="gone")
        assert await told_to(store, "delivery.exhausted") == {film.id}
        assert await told_to(store, "endpoint.disabled") == set()  # it is about no task
        assert music.id

    async def test_what_tells_of_itself_makes_no_loop(self, store: Store) -> None:
        added = await store.add_endpoint(endpoint(event_types=["*", "delivery.*", "endpoint.*"]))
        await store.record(arrival(success()))
        await store.test_endpoint(added.id, START)
        for _ in range(5):
            await exhaust(store, outcome=sent(None, Failure.CONNECT))
        kinds = await types(store)
        assert kinds.count("delivery.exhausted") == kinds.count("result.succeeded") + kinds.count(
            "task.completed"
        )
        assert await claim(store) == []

    async def test_news_that_is_told_twice_is_one_event(self, store: Store) -> None:
        await queued(store)
        (claimed,) = await claim(store)
        news = settled(claimed, State.DEAD)
        await store.settle(news)
        await store.settle(news)  # its commit was taken for lost
        assert len(await payloads(store, "delivery.exhausted")) == 1
        (dead,) = await all_deliveries(store)
        await store.retry(dead.id, START)
        await store.settle(news)  # stale
        assert len(await payloads(store, "delivery.exhausted")) == 1
        await exhaust(store)
        assert len(await payloads(store, "delivery.exhausted")) == 2

    @pytest.mark.parametrize("state", [State.SUCCEEDED, State.PENDING])
    async def test_what_did_not_die_is_not_told(self, store: Store, state: State) -> None:
        await queued(store)
        (claimed,) = await claim(store)
        await store.settle(settled(claimed, state, next_attempt_at=START))
        assert await types(store) == ["result.succeeded"]
        assert await store.alerts(9) == []

    async def test_of_a_deleted_endpoint_nothing_is_told(self, store: Store) -> None:
        added = await queued(store)
        (claimed,) = await claim(store)
        await store.delete_endpoint(added.id, START)
        await store.settle(settled(claimed, State.DEAD, outcome=sent(410), disable="gone"))
        assert await types(store) == ["result.succeeded"]

    async def test_whoever_runs_the_receiver_hears_of_each_once(
        self, store: Store, open_store: Opener, clock: FakeClock
    ) -> None:
        await queued(store, 2)
        await exhaust(store, outcome=sent(410), disable="gone")
        found = await store.alerts(9)
        kinds = [alert.payload["type"] for alert in found]
        assert sorted(kinds) == ["delivery.exhausted", "delivery.exhausted", "endpoint.disabled"]
        assert [alert.id for alert in found] == sorted(alert.id for alert in found)
        assert await store.alerts(1) == found[:1]
        await store.drop_alerts([found[0].id])
        await store.close()
        again = await open_store()  # what was not told is not forgotten
        try:
            assert await again.alerts(9) == found[1:]
        finally:
            await again.close()

    async def test_a_put_of_the_task_minds_no_operational_event(self, store: Store) -> None:
        """It matches the events of its task again, with what it brings."""
        await store.add_endpoint(endpoint())
        await store.record(arrival(success()))
        await exhaust(store)
        named = await store.add_endpoint(endpoint(event_types=["delivery.*"]))
        await store.register(registration(metadata={"team": "film"}))
        assert await told_to(store, "delivery.exhausted") == set()
        assert named.id

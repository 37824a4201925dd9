"""How every store lets what went wrong be seen and sent again. A store's own test opens it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from receiver.clock import MINUTE, SECOND, to_datetime
from receiver.deliveries import DeadLetters, Delivery, Failure, State
from receiver.store.protocol import Claimed, Query, Store
from tests.doubles import START, FakeClock, sent
from tests.make import endpoint, settled
from tests.receiver.store.suite import Opener, claim, queued

CAUSES = (
    sent(500),
    sent(404),
    sent(None, Failure.TIMEOUT),
    sent(None, Failure.DNS),
    sent(302, Failure.REDIRECT),
)


async def die(store: Store, now: int = START, *causes: int) -> Sequence[Claimed]:
    """Claim what is due, and let it die of these causes in turn."""
    claims = await claim(store, now)
    for number, claimed in enumerate(claims):
        outcome = CAUSES[causes[number % len(causes)] if causes else 0]
        await store.settle(settled(claimed, State.DEAD, now=now, outcome=outcome))
    return claims


async def all_deliveries(store: Store, **query: Any) -> list[Delivery]:
    return list((await store.deliveries(Query(limit=200, **query))).data)


async def dead_pages(store: Store, **query: Any) -> list[DeadLetters]:
    """Every group, page by page."""
    page = await store.dead_letters(Query(**query))
    found = list(page.data)
    while page.next_cursor is not None:
        page = await store.dead_letters(Query(**query, before=page.next_cursor))
        found += page.data
    return found


@pytest.mark.anyio
class RepairSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    # Dead letters

    async def test_where_nothing_died_there_is_no_group(self, store: Store) -> None:
        await queued(store)
        assert (await store.dead_letters(Query())).data == []

    async def test_the_dead_are_counted_by_endpoint_and_cause(
        self, store: Store, clock: FakeClock
    ) -> None:
        first = await queued(store, 2)
        await die(store, START, 0, 2)
        second = await queued(store, 3)
        await die(store, clock.advance(MINUTE), 0)
        groups = (await store.dead_letters(Query())).data
        assert [
            (group.endpoint_id, group.error, group.status, group.count) for group in groups
        ] == [
            (first.id, "status", 500, 4),  # it heard of the second one's tasks, too
            (second.id, "status", 500, 3),
            (first.id, "timeout", None, 1),
        ]

    async def test_a_group_says_from_when_to_when_and_shows_its_newest(
        self, store: Store, clock: FakeClock
    ) -> None:
        added = await queued(store, 3)
        await die(store)
        (group,) = (await store.dead_letters(Query())).data
        dead = [one for one in await all_deliveries(store) if one.endpoint_id == added.id]
        assert group.example == max(one.id for one in dead)
        assert group.oldest == min(one.created_at for one in dead)
        assert group.newest == max(one.created_at for one in dead) == to_datetime(START)
        assert (group.project, group.endpoint_deleted) == ("default", False)
        shown = await store.delivery(group.example)
        assert (shown.last_error, shown.last_status) == ("status", 500)

    async def test_what_is_sent_again_is_dead_no_more(self, store: Store) -> None:
        await queued(store, 2)
        await die(store)
        (group,) = (await store.dead_letters(Query())).data
        await store.retry(group.example, START)
        (group,) = (await store.dead_letters(Query())).data
        assert group.count == 1

    async def test_the_dead_of_a_deleted_endpoint_are_marked(self, store: Store) -> None:
        added = await queued(store)
        await die(store)
        await store.delete_endpoint(added.id, START)
        (group,) = (await store.dead_letters(Query())).data
        assert group.endpoint_deleted

    async def test_groups_are_those_of_the_list_whatever_is_asked(
        self, store: Store, clock: FakeClock
    ) -> None:
        """Against a count of every dead delivery of the list, over causes made at random."""
        dice = random.Random(7)
        ends = [await queued(store, 4) for _ in range(3)]
        other = await store.add_endpoint(endpoint("other", event_types=["result.*"]))
        for _ in range(6):
            await die(store, clock.advance(SECOND), *[dice.randrange(5) for _ in range(7)])
            for one in await all_deliveries(store, state=State.DEAD):
                if dice.random() < 0.3:
                    await store.retry(one.id, clock.advance(SECOND))
        asked: dict[str, Any]
        for asked in ({}, {"endpoint": ends[0].id}, {"project": "default"}):
            dead = await all_deliveries(store, state=State.DEAD, **asked)
            wanted = Counter((one.endpoint_id, one.last_error, one.last_status) for one in dead)
            groups = await dead_pages(store, limit=2, **asked)
            counted = {(one.endpoint_id, one.error, one.status): one.count for one in groups}
            assert counted == wanted
            assert len(groups) == len(counted)
            assert [one.count for one in groups] == sorted(wanted.values(), reverse=True)
        for asked in ({"project": "other"}, {"endpoint": other.id}, {"until": START}):
            assert await dead_pages(store, **asked) == []
        assert await dead_pages(store, since=START) != []

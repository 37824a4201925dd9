"""The only state table of a delivery, and that the store makes no move beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from receiver import ids
from receiver.clock import MINUTE, SECOND
from receiver.deliveries import MOVES, Move, State
from receiver.errors import Conflict
from receiver.store.protocol import Claimed, Query
from receiver.store.sqlite import SqliteStore
from tests.doubles import START, FakeClock
from tests.make import arrival, endpoint, settled, success

# How a delivery gets where it stands: from the start of its life, move by move.
WAYS = {
    "new": (),
    "failed-once": (Move.CLAIM, Move.RESCHEDULE),
    "lapsed": (Move.CLAIM, Move.LAPSE),
    "retried": (Move.CLAIM, Move.SUCCEED, Move.RETRY),
    "sending": (Move.CLAIM,),
    "sending-again": (Move.CLAIM, Move.LAPSE, Move.CLAIM),
    "succeeded": (Move.CLAIM, Move.SUCCEED),
    "late": (Move.CLAIM, Move.LAPSE, Move.ARRIVE_LATE),
    "dead": (Move.CLAIM, Move.EXHAUST),
    "canceled": (Move.CANCEL,),
    "canceled-after-a-try": (Move.CLAIM, Move.RESCHEDULE, Move.CANCEL),
}
# A 2xx that is reported is a success while the lease holds, and arrives late once it has lapsed.
ONE_AND_THE_SAME = {
    ("lapsed", Move.SUCCEED),
    *((way, Move.ARRIVE_LATE) for way in WAYS if way not in ("lapsed", "late")),
}
AFTER = {Move.SUCCEED: State.SUCCEEDED, Move.RESCHEDULE: State.PENDING, Move.EXHAUST: State.DEAD}


@dataclass
class Life:
    """One delivery in a real store."""

    store: SqliteStore
    clock: FakeClock
    id: str
    claimed: Claimed | None = None

    async def make(self, move: Move) -> None:
        """Try a move the way the receiver would; a refusal is an answer too."""
        now = self.clock.advance(MINUTE)
        match move:
            case Move.CLAIM:
                for claimed in await self.store.claim(now=now, lease_until=now + SECOND, limit=9):
                    self.claimed = claimed
            case Move.LAPSE:
                await self.store.release_lapsed(now)
            case Move.CANCEL:
                with suppress(Conflict):
                    await self.store.cancel(self.id, now)
            case Move.RETRY:
                with suppress(Conflict):
                    await self.store.retry(self.id, now)
            case Move.ARRIVE_LATE:
                await self.store.settle(settled(self.last(), State.SUCCEEDED, now=now))
            case Move.SUCCEED | Move.RESCHEDULE | Move.EXHAUST:
                next_attempt = now if move is Move.RESCHEDULE else None
                news = settled(self.last(), AFTER[move], now=now, next_attempt_at=next_attempt)
                await self.store.settle(news)

    def last(self) -> Claimed:
        """What a worker has in hand, or would if it had made up a claim."""
        event, number = ids.parse_delivery(self.id)
        made_up = Claimed(event, number, 1, 1, "https://example.com", {}, (), None, b"{}")
        return self.claimed or made_up

    async def state(self) -> State:
        return (await self.store.delivery(self.id)).state


@asynccontextmanager
async def living(path: Path, *moves: Move) -> AsyncIterator[Life]:
    clock = FakeClock()
    async with await SqliteStore.open(path / "db", clock=clock) as store:
        await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.record(arrival(success()))
        (delivery,) = (await store.deliveries(Query())).data
        life = Life(store, clock, delivery.id)
        state = State.PENDING
        for move in moves:
            await life.make(move)
            state = MOVES[state, move]
            assert await life.state() is state
        yield life


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("way", "move"), [pair for pair in product(WAYS, Move) if pair not in ONE_AND_THE_SAME]
)
async def test_the_store_makes_the_moves_of_the_table_and_no_other(
    tmp_path: Path, way: str, move: Move
) -> None:
    async with living(tmp_path, *WAYS[way]) as life:
        before = await life.state()
        await life.make(move)
        assert await life.state() is MOVES.get((before, move), before)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("way", "verb"),
    [
        ("sending", "cancel"),
        ("succeeded", "cancel"),
        ("dead", "cancel"),
        ("canceled", "cancel"),
        ("new", "retry"),
        ("sending", "retry"),
    ],
)
async def test_a_move_by_hand_that_is_not_in_the_table_is_refused_and_says_the_state(
    tmp_path: Path, way: str, verb: str
) -> None:
    async with living(tmp_path, *WAYS[way]) as life:
        with pytest.raises(Conflict) as caught:
            await getattr(life.store, verb)(life.id, START)
        assert caught.value.evidence["state"] == await life.state()


def test_the_ways_of_these_tests_reach_every_state_and_make_every_move() -> None:
    reached, made = {State.PENDING}, set()
    for way in WAYS.values():
        state = State.PENDING
        for move in way:
            made.add((state, move))
            state = MOVES[state, move]
            reached.add(state)
    assert reached == set(State)
    assert {move for _, move in made} == set(Move)


def test_every_state_can_be_left_and_the_table_is_the_one_that_was_agreed() -> None:
    assert {state for state, _ in MOVES} == set(State)
    assert {f"{state} {move} {after}" for (state, move), after in MOVES.items()} == {
        "pending claim sending",
        "sending succeed succeeded",
        "sending reschedule pending",
        "sending lapse pending",
        "sending exhaust dead",
        "pending cancel canceled",
        "pending arrive late succeeded",
        "succeeded retry pending",
        "dead retry pending",
        "canceled retry pending",
    }

"""The comparison of `prove delivery` sees each way in which a delivery can be wrong, and the
consumer does what it says. What the control alters is still where it alters it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from unittest.mock import patch

import pytest

from receiver import app, ids
from receiver.deliveries import Failure, State
from receiver.delivery import policy
from receiver.delivery.guard import Guard
from receiver.delivery.sender import Sender
from receiver.delivery.signing import new_secret
from receiver.store.protocol import Claimed, Query
from receiver.store.sqlite import SqliteStore
from scripts.proofs import delivered
from scripts.proofs.altered import alter
from scripts.proofs.careless import CARELESS, CREDULOUS, FORGETFUL, FORGOTTEN, HURRIED
from scripts.proofs.delivered import (
    AGAIN,
    CLAIMED,
    DEATH,
    EARLY,
    FORGED,
    LOST,
    Comparison,
    Endpoint,
    compare,
    signature,
)
from scripts.proofs.hostile import (
    FATES,
    REFUSED,
    TAKEN,
    TAME,
    WELL,
    Hostile,
    Visit,
    draw,
    fate_of,
    is_poisoned,
)
from tests.doubles import START, FakeClock, sent
from tests.make import arrival, endpoint, settled, success
from tests.receiver.sender.remotes import HASTY, PATIENT, serving

pytestmark = pytest.mark.anyio

SECRET = new_secret(bytes(range(32)))
SCHEDULE = (0, 2, 3)
SEED = 1


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    patch.stopall()


class World:
    """One delivery that took two attempts, as the file and the ledger have it."""

    def __init__(self, path: Path, event: int, to: int, payload: bytes) -> None:
        self.path = path
        self.event = ids.EVENT + ids.encode(event)
        self.endpoint = Endpoint("flaky", to, SECRET, SCHEDULE)
        digest = sha256(payload).hexdigest()
        first = Visit("flaky", self.event, "100", "", digest, "busy", 10.0, 10.0, False)
        second = replace(first, timestamp="104", fate=WELL, arrived=14.1, acted=14.1)
        self.ledger = [
            replace(visit, signature=f"v1,old {signature(SECRET, visit, payload)}")
            for visit in (first, second)
        ]

    def alter(self, script: str) -> None:
        with closing(sqlite3.connect(self.path)) as file:
            file.executescript(script)

    def compared(self) -> Comparison:
        return compare(self.path, [self.endpoint], self.ledger, SEED)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    path = tmp_path / "db"
    async with await SqliteStore.open(path, clock=FakeClock()) as store:
        await store.add_endpoint(endpoint(secret=SECRET, event_types=["result.*"]))
        await store.record(arrival(success(), expected=2))
        await attempted(store, State.PENDING, 429, START + 10, again=START + 4_010)
        claimed = await attempted(store, State.SUCCEEDED, 200, START + 4_110)
    patch.object(delivered, "is_poisoned", lambda *_: False).start()  # ids differ from run to run
    return World(path, claimed.event_id, claimed.endpoint_id, claimed.payload)


async def attempted(
    store: SqliteStore, state: State, status: int, at: int, again: int | None = None
) -> Claimed:
    (claimed,) = await store.claim(now=at, lease_until=at + 1, limit=1)
    await store.settle(settled(claimed, state, now=at, outcome=sent(status), next_attempt_at=again))
    return claimed


async def test_what_is_right_is_found_right(world: World) -> None:
    found = world.compared()
    assert found.problems == []
    assert (found.events, found.deliveries, found.late, found.copies) == (1, 1, 0, 0)
    assert found.attempts == {"status": 1, "succeeded": 1}


IN_THE_FILE: Mapping[str, tuple[str, str]] = {
    "a delivery is missing": (LOST, "DELETE FROM deliveries; DELETE FROM attempts"),
    "it still waits": (LOST, "UPDATE deliveries SET state = 'pending'"),
    "it died of nothing": (LOST, "UPDATE deliveries SET state = 'dead'"),
    "it died early": (DEATH, "UPDATE deliveries SET state = 'dead'"),
    "it was tried too often": (DEATH, "UPDATE deliveries SET attempts = 4"),
    "an attempt is not in the log": (DEATH, "DELETE FROM attempts WHERE number = 1"),
    "the last attempt was no success": (
        CLAIMED,
        "UPDATE attempts SET status = NULL, error = 'timeout' WHERE number = 2",
    ),
    "a success was not the last": (AGAIN, "UPDATE attempts SET status = 200, error = NULL"),
    "nobody settled it": (AGAIN, "UPDATE attempts SET error = 'lease_lapsed' WHERE number = 1"),
    "it came too often": (
        AGAIN,
        "DELETE FROM attempts WHERE number = 2; UPDATE deliveries SET attempts = 1",
    ),
    "it was hurried": (EARLY, f"UPDATE attempts SET at = {START + 1_500} WHERE number = 2"),
    "another payload": (FORGED, "UPDATE events SET payload = x'00'"),
}


@pytest.mark.parametrize("wrong", IN_THE_FILE)
async def test_what_is_wrong_in_the_file_is_found(world: World, wrong: str) -> None:
    kind, script = IN_THE_FILE[wrong]
    world.alter(script)
    assert world.compared().kinds[kind]


Altered = Callable[[Visit, Visit], list[Visit]]
IN_THE_LEDGER: Mapping[str, tuple[str, Altered]] = {
    "it never came": (CLAIMED, lambda one, two: []),
    "what came was not taken": (CLAIMED, lambda one, two: [one, replace(two, fate="hang")]),
    "it came too early": (EARLY, lambda one, two: [one, replace(two, arrived=11.5)]),
    "it did not wait as asked": (EARLY, lambda one, two: [one, replace(two, arrived=12.8)]),
    "another id": (FORGED, lambda one, two: [one, two, replace(two, event="evt_1")]),
    "another endpoint": (FORGED, lambda one, two: [one, two, replace(two, endpoint="x")]),
    "another body": (FORGED, lambda one, two: [one, replace(two, digest="0")]),
    "a wrong signature": (FORGED, lambda one, two: [one, replace(two, signature="v1,x")]),
    "another time was signed": (FORGED, lambda one, two: [one, replace(two, timestamp="105")]),
    "one more attempt": (AGAIN, lambda one, two: [one, two, replace(two, timestamp="109")]),
    "the same attempt twice": (AGAIN, lambda one, two: [one, two, two]),
    "twice after a reset of a new connection": (
        AGAIN,
        lambda one, two: [replace(one, fate="reset"), one, two],
    ),
    "three times after a reset": (
        AGAIN,
        lambda one, two: [replace(one, fate="reset", kept=True)] * 2 + [one, two],
    ),
}


@pytest.mark.parametrize("wrong", IN_THE_LEDGER)
async def test_what_is_wrong_in_the_ledger_is_found(world: World, wrong: str) -> None:
    kind, change = IN_THE_LEDGER[wrong]
    world.ledger = change(*world.ledger)
    assert world.compared().kinds[kind]


async def test_a_copy_after_a_reset_of_a_kept_connection_is_no_second_attempt(
    world: World,
) -> None:
    one, two = world.ledger
    world.ledger = [replace(one, fate="reset", kept=True), replace(one, fate="reset"), two]
    found = world.compared()
    assert (found.problems, found.copies) == ([], 1)


# The consumer


async def test_what_it_does_is_drawn_anew_alike_and_ends_in_time() -> None:
    drawn = [fate_of(SEED, "flaky", f"evt_{n}", 1, down=False) for n in range(4_000)]
    assert drawn == [fate_of(SEED, "flaky", f"evt_{n}", 1, down=False) for n in range(4_000)]
    assert set(drawn) == {WELL, *FATES}
    assert 0.65 < drawn.count(WELL) / len(drawn) < 0.75
    for n in range(200):
        end = REFUSED if is_poisoned(SEED, "flaky", f"evt_{n}") else WELL
        assert fate_of(SEED, "flaky", f"evt_{n}", TAME, down=False) == end
        assert fate_of(SEED, "flaky", f"evt_{n}", TAME, down=True) != WELL
    assert draw(1, "a") != draw(2, "a")


@asynccontextmanager
async def consumer(fate: str) -> AsyncIterator[tuple[str, Hostile]]:
    hostile = Hostile(SEED, outage=0.0)
    with patch.object(hostile, "_fate", lambda *_: fate):
        async with serving(hostile.serve) as port:
            yield f"http://127.0.0.1:{port}/flaky", hostile


ENDS: Mapping[str, Failure | None] = {
    WELL: None,
    "drip": None,
    "bomb": None,
    REFUSED: Failure.STATUS,
    "error": Failure.STATUS,
    "busy": Failure.STATUS,
    "away": Failure.STATUS,
    "redirect": Failure.REDIRECT,
    "hang": Failure.TIMEOUT,
    "drip head": Failure.TIMEOUT,
    "reset": Failure.PROTOCOL,
    "cut": Failure.PROTOCOL,
    "endless headers": Failure.PROTOCOL,
    "endless hints": Failure.PROTOCOL,
}


# What never ends is cut at the sender's deadline; of a body that drips, the head has come by then.
DEADLINES: Final = {"hang": HASTY, "drip head": HASTY, "drip": 2.0}


@pytest.mark.parametrize("fate", [WELL, *FATES])
async def test_each_of_its_ways_ends_as_the_comparison_believes(fate: str) -> None:
    guard, deadline = Guard([ip_network("127.0.0.0/8")]), DEADLINES.get(fate, PATIENT)
    async with consumer(fate) as (url, hostile), Sender(guard, deadline_s=deadline) as sender:
        outcome = await sender.send(url, b"{}", {"webhook-id": "evt_1"})
    assert outcome.failure is ENDS[fate]
    assert (outcome.failure is None) == (fate in TAKEN)
    (visit,) = hostile.ledger
    assert (visit.endpoint, visit.event, visit.fate, visit.kept) == ("flaky", "evt_1", fate, False)


# The control


def test_time_outs_are_taken_for_success() -> None:
    alter([CREDULOUS])
    timeout = sent(None, Failure.TIMEOUT)
    decided = policy.decide(timeout, attempt=1, schedule=(0, 5), now=START, jitter=0.5)
    assert decided.state is State.SUCCEEDED


def test_delays_are_cut_short() -> None:
    alter([HURRIED])
    decided = policy.decide(sent(500), attempt=1, schedule=(0, 5), now=START, jitter=0.5)
    assert decided.next_attempt_at == START + 2_500


async def test_successes_are_forgotten(tmp_path: Path) -> None:
    alter([FORGETFUL])
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        await store.add_endpoint(endpoint(secret=SECRET, event_types=["result.*"]))
        await store.record(arrival(*[success(n) for n in range(FORGOTTEN)], expected=FORGOTTEN))
        for claimed in await store.claim(now=START, lease_until=START + 1, limit=FORGOTTEN):
            await store.settle(settled(claimed, State.SUCCEEDED, now=START, outcome=sent(200)))
        assert len((await store.deliveries(Query(state=State.SENDING))).data) == 1
    assert vars(app)["lease_of"](20.0) == 3_000
    assert set(CARELESS) == {CREDULOUS, HURRIED, FORGETFUL}

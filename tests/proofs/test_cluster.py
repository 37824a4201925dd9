"""The judge of `prove cluster` sees each way in which a delivery to many can be wrong; those who
call, are called and are killed do what it believes of them."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import pytest

from receiver import ids
from receiver.deliveries import State
from receiver.store.postgres.connection import PostgresConnection
from receiver.store.sqlite import SqliteStore
from scripts.proofs import arrived, crew, platform
from scripts.proofs.altered import alter
from scripts.proofs.arrived import (
    AGAIN,
    FORGED,
    LOST,
    ORDER,
    STATUS,
    Comparison,
    Consumer,
    Endpoint,
    Visit,
    compare,
)
from scripts.proofs.crew import SERVE, WORKER, Crew, Member
from scripts.proofs.harness import Line, post
from scripts.proofs.platform import Platform
from scripts.proofs.unshared import LOSES, UNLOCKED
from scripts.proofs.unshared import LOST as ONE_IN
from tests.doubles import START, FakeClock, sent
from tests.make import arrival, endpoint, settled, success
from tests.receiver.sender.remotes import serving

pytestmark = pytest.mark.anyio

KINDS = ("result.*", "task.completed")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    patch.stopall()


class World:
    """Two results and their completion came to one ordered endpoint; the first one twice, since
    the worker that sent it was killed."""

    def __init__(self, path: Path, number: int, visits: Sequence[Visit]) -> None:
        self.path = path
        self.endpoints = [Endpoint("all", number, KINDS, ordered=True)]
        self.visits = list(visits)
        self.crashes = [11.0]

    def alter(self, script: str) -> None:
        with closing(sqlite3.connect(self.path)) as file:
            file.executescript(script)

    def compared(self) -> Comparison:
        return compare(self.path, self.endpoints, self.visits, self.crashes)


async def _lived(path: Path) -> tuple[int, list[Visit]]:
    visits, number = list[Visit](), 0
    async with await SqliteStore.open(path, clock=FakeClock()) as store:
        await store.add_endpoint(endpoint(event_types=list(KINDS), ordered=True))
        await store.record(arrival(success(1), success(2), expected=2))
        for at in range(4):
            now = START + at
            (claimed,) = await store.claim(now=now, lease_until=now, limit=9)
            number, digest = claimed.endpoint_id, sha256(claimed.payload).digest()
            event = ids.EVENT + ids.encode(claimed.event_id)
            visits.append(Visit("all", event, digest, 200, 10.0 + 10 * at))
            if at == 0:
                await store.release_lapsed(now)  # nobody came back to tell
            else:
                await store.settle(settled(claimed, State.SUCCEEDED, now=now, outcome=sent(200)))
    return number, visits


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, list[Visit]]:
    path = tmp_path_factory.mktemp("lived") / "db"
    return path, *asyncio.run(_lived(path))


@pytest.fixture
def world(lived: tuple[Path, int, list[Visit]], tmp_path: Path) -> World:
    path, number, visits = lived
    return World(Path(shutil.copy(path, tmp_path)), number, visits)


async def test_what_is_right_is_found_right(world: World) -> None:
    found = world.compared()
    assert found.problems == []
    assert (found.events, found.deliveries, found.requests) == (3, 3, 4)
    assert (found.lapsed, found.repeats, found.tasks) == (1, 1, {"succeeded": 1})


FIRST = "(SELECT min(id) FROM events)"
IN_THE_FILE: Mapping[str, tuple[str, str]] = {
    "a delivery is missing": (LOST, f"DELETE FROM deliveries WHERE event_id = {FIRST}"),
    "one is still sent": (LOST, "UPDATE deliveries SET state = 'sending'"),
    "one waits": (LOST, "UPDATE deliveries SET state = 'pending'"),
    "it was sent after a 2xx that was kept": (AGAIN, "UPDATE attempts SET error = NULL"),
    "both attempts were settled": (AGAIN, "UPDATE attempts SET error = 'status' WHERE number = 1"),
    "an attempt is not in the log": (AGAIN, "DELETE FROM attempts WHERE number = 1"),
    "it came too often": (
        AGAIN,
        f"DELETE FROM attempts WHERE number = 2; UPDATE deliveries SET attempts = 1"
        f" WHERE event_id = {FIRST}",
    ),
    "another body": (FORGED, "UPDATE events SET payload = CAST(payload || ' ' AS BLOB)"),
    "a task is open": (STATUS, "UPDATE tasks SET completed_at = NULL"),
    "a task counts wrong": (STATUS, "UPDATE tasks SET succeeded = 1"),
    "a task is called failed": (STATUS, "UPDATE tasks SET status = 'failed'"),
    "the results changed places": (
        ORDER,
        "UPDATE events SET payload = (SELECT payload FROM events WHERE type = 'task.completed')"
        f" WHERE id = {FIRST}",
    ),
}


@pytest.mark.parametrize("wrong", IN_THE_FILE)
async def test_what_is_wrong_in_the_file_is_found(world: World, wrong: str) -> None:
    kind, script = IN_THE_FILE[wrong]
    world.alter(script)
    assert world.compared().kinds[kind]


Altered = Callable[[list[Visit]], list[Visit]]
IN_THE_VISITS: Mapping[str, tuple[str, Altered]] = {
    "one never came": (LOST, lambda all_: all_[:3]),
    "one was never taken": (LOST, lambda all_: [*all_[:3], replace(all_[3], status=500)]),
    "once more": (AGAIN, lambda all_: [*all_, replace(all_[3], at=41.0)]),
    "another event": (FORGED, lambda all_: [*all_, replace(all_[0], event="evt_1")]),
    "a body was changed": (FORGED, lambda all_: [*all_[:3], replace(all_[3], digest=b"")]),
    "the next one came before the last was settled": (
        ORDER,
        lambda all_: [all_[0], replace(all_[2], at=15.0), all_[1], all_[3]],
    ),
    "the completion came first": (ORDER, lambda all_: [replace(all_[3], at=1.0), *all_[:3]]),
}


@pytest.mark.parametrize("wrong", IN_THE_VISITS)
async def test_what_is_wrong_in_what_came_is_found(world: World, wrong: str) -> None:
    kind, change = IN_THE_VISITS[wrong]
    world.visits = change(world.visits)
    assert world.compared().kinds[kind]


@pytest.mark.parametrize("crash", [5.0, 21.0])
async def test_a_second_time_needs_a_crash_since_the_first(world: World, crash: float) -> None:
    world.crashes = [crash]
    assert world.compared().kinds == {AGAIN: 1}


async def test_what_an_endpoint_does_not_want_must_not_come(world: World) -> None:
    world.endpoints = [replace(world.endpoints[0], event_types=("result.*",))]
    assert world.compared().kinds == {FORGED: 1}


# Those around it


async def test_the_consumer_notes_each_request_and_what_it_said() -> None:
    async with Consumer() as consumer:
        line = await Line.open(int(consumer.url.rpartition(":")[2]))
        with patch.object(arrived, "LINGERS", 0.0):
            for fails in (0.0, 1.0):
                with patch.object(arrived, "FAILS", fails):
                    answer = await line.ask(post("/all", b"{}"))
                assert answer is not None
                assert answer.status == (500 if fails else 200)
        line.close()
    assert [(visit.endpoint, visit.status) for visit in consumer.visits] == [
        ("all", 200),
        ("all", 500),
    ]
    assert {visit.digest for visit in consumer.visits} == {sha256(b"{}").digest()}


async def test_the_platform_calls_again_until_it_is_heard() -> None:
    said = [b"503 X\r\nRetry-After: 1", b"", b"200 OK", b"200 OK"]
    asked = list[bytes]()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("length: ")[1].split("\r")[0])
                asked.append(await reader.readexactly(length))
                if not (status := said.pop(0)):
                    break
                body = b'{"status":"recorded"}'
                answer = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b"
                writer.write(answer % (status, len(body), body))
        writer.close()

    async with serving(take) as port:
        with patch.multiple(platform, PAUSE=0.0, TWICE=0.0, CONNECTIONS=1):
            calling = Platform([port], 2)
            await calling.run()
            await calling.until(2)
    assert calling.said == {"503": 1, "unanswered": 1, "recorded": 2}
    assert (len(asked), len(set(asked)), calling.problems) == (4, 2, [])
    assert {callback.body for callback in calling.acknowledged} == set(asked)


READY = """
import json, sys, time
print(json.dumps({"event": "ready", "url": "http://127.0.0.1:1"}), flush=True)
time.sleep(60 if sys.argv[1] == "stays" else 0)
sys.exit(3)
"""


def _member(folder: Path, role: str, how: str) -> Member:
    member = Member(folder / role, role, {})
    member.command = (sys.executable, "-S", "-c", READY, how)
    return member


async def test_whoever_is_killed_is_replaced_and_whoever_ends_is_told_of(tmp_path: Path) -> None:
    one, other = _member(tmp_path, SERVE, "stays"), _member(tmp_path, WORKER, "ends")
    with patch.object(crew, "AWAY", 0.0):
        people = Crew([one, other], None, seed=1)
        await people.start()
        assert one.process is not None
        assert other.process is not None
        first = one.process.pid
        await other.process.wait()
        await people.kill(SERVE)
        assert (people.killed, len(people.crashes)) == ({SERVE: 1}, 1)
        await people.restart_database(signal.SIGINT)  # somebody else's: it stays as it is
        await people.stop()
    assert one.process.pid != first
    assert people.restarts == []
    assert [text.partition(":")[0] for text in people.problems] == [
        "worker ended by itself with 3",
        "serve was stopped, and ended with -15",
    ]
    await people.end()


# The control


async def test_one_delivery_in_so_many_is_lost(tmp_path: Path) -> None:
    alter([LOSES])
    async with await SqliteStore.open(tmp_path / "db", clock=FakeClock()) as store:
        await store.add_endpoint(endpoint(event_types=["result.*"], concurrency=100))
        await store.record(arrival(*[success(n) for n in range(ONE_IN)], expected=ONE_IN))
        claims = await store.claim(now=START, lease_until=START, limit=100)
        assert len(claims) == ONE_IN - 1


def test_claims_leave_out_nothing_that_others_hold() -> None:
    holding = PostgresConnection.hold
    alter([UNLOCKED])
    assert PostgresConnection.skip_locked == ""
    assert PostgresConnection.hold is not holding

"""The one writer: batches, poison, cancellation, saturation, and how it closes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import Conflict, StoreSaturated, StoreUnavailable
from receiver.store import writer as module
from receiver.store.commits import TRIES
from receiver.store.faults import Fault
from receiver.store.sqlite.engine import IDLE_WAL, LARGE_WAL, Connection
from receiver.store.writer import Transaction, each
from tests.receiver.store.bench import LIMIT_S, Bench, gathered, held

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    found = Bench(tmp_path / "db")
    await found.writer.start()
    yield found
    await found.writer.close()


async def test_a_call_gives_back_what_its_handler_found(bench: Bench) -> None:
    assert await bench.writer.call(bench.put, 7) == 70
    assert bench.kept() == [7]
    assert bench.told == [{"7"}]
    assert bench.writer.depth == 0
    assert bench.writer.healthy


async def test_what_waits_together_is_committed_together(bench: Bench) -> None:
    async with held(bench) as gate:
        calls = asyncio.gather(*[bench.writer.call(bench.put, number) for number in range(50)])
        await asyncio.sleep(0)
        assert bench.writer.depth == 51
        gate.open()
        assert await calls == [number * 10 for number in range(50)]
    assert bench.batches == [list(range(50))]
    assert len(bench.told) == 2
    assert [told[::2] for told in bench.timed] == [(1, True), (50, True)]
    assert all(seconds > 0 for _, seconds, _ in bench.timed)


async def test_a_batch_has_a_bound(bench: Bench) -> None:
    async with held(bench) as gate:
        calls = asyncio.gather(*[bench.writer.call(bench.put, n) for n in range(module.BATCH + 9)])
        await asyncio.sleep(0)
        gate.open()
        await calls
    assert [len(batch) for batch in bench.batches] == [module.BATCH, 9]


async def test_verbs_of_one_batch_keep_their_own_outcomes(bench: Bench) -> None:
    def other(tx: Transaction, payloads: Sequence[str]) -> list[str]:
        return [text.upper() for text in payloads]

    async with held(bench) as gate:
        calls = asyncio.gather(
            bench.writer.call(bench.put, 1),
            bench.writer.call(other, "a"),
            bench.writer.call(bench.put, 2),
            bench.writer.call(other, "b"),
        )
        await asyncio.sleep(0)
        gate.open()
        assert list(await calls) == [10, "A", 20, "B"]


async def test_a_poison_job_fails_alone(bench: Bench) -> None:
    await bench.writer.call(bench.put, 3)
    async with held(bench) as gate:
        calls = asyncio.create_task(gathered(bench, range(6)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gate.open()
        found = await calls
    assert isinstance(found[3], StoreUnavailable)
    assert [answer for answer in found if isinstance(answer, int)] == [0, 10, 20, 40, 50]
    assert bench.kept() == [0, 1, 2, 3, 4, 5]
    assert bench.writer.healthy
    assert bench.writer.depth == 0
    alone = [(1, number != 3) for number in range(6)]
    assert [told[::2] for told in bench.timed] == [(1, True), (1, True), *alone]


class InTheWay(Exception):
    """Another writer was faster."""


@pytest.mark.parametrize("times", [*range(TRIES + 3)])
async def test_what_others_stand_in_the_way_of_is_done_once_or_not_at_all(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """As often as it is tried, also by the last try."""
    left, judge = [times], bench.engine.judge

    def judged(error: BaseException) -> Fault:
        return Fault.AGAIN if isinstance(error, InTheWay) else judge(error)

    def put(tx: Transaction, payloads: Sequence[int]) -> list[int]:
        found = bench.put(tx, payloads)
        if left[0]:
            left[0] -= 1
            raise InTheWay
        return found

    monkeypatch.setattr(bench.engine, "judge", judged)
    if times < TRIES:
        assert await bench.writer.call(put, 7) == 70
    else:
        with pytest.raises(InTheWay):
            await bench.writer.call(put, 7)
    assert len(bench.batches) == min(times + 1, TRIES)
    assert bench.kept() == [7] * (times < TRIES)
    assert bench.told == [{"7"}] * (times < TRIES)


async def test_what_was_committed_is_not_tried_again_when_its_follow_up_fails(
    bench: Bench,
) -> None:
    followed: list[int] = []

    def follow() -> None:
        followed.append(len(followed))
        if len(followed) == 1:
            raise sqlite3.OperationalError("disk I/O error")

    def put(tx: Transaction, payloads: Sequence[int]) -> list[int]:
        tx.after_commit.append(follow)
        return bench.put(tx, payloads)

    assert await bench.writer.call(put, 1) == 10
    assert (followed, bench.batches) == ([0], [[1]])
    assert await bench.writer.call(bench.put, 2) == 20
    assert followed == [0, 1]  # owed to the next commit, and paid
    assert bench.kept() == [1, 2]


async def test_a_defect_of_a_handler_leaves_nothing_behind(bench: Bench) -> None:
    def broken(tx: Transaction, payloads: Sequence[int]) -> list[int]:
        tx.connection.execute("INSERT INTO kept (number) VALUES (99)")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await bench.writer.call(broken, 1)
    assert bench.kept() == []
    assert await bench.writer.call(bench.put, 1) == 10


async def test_a_handler_that_answers_too_little_commits_nothing(bench: Bench) -> None:
    def forgetful(tx: Transaction, payloads: Sequence[int]) -> list[int]:
        tx.connection.execute("INSERT INTO kept (number) VALUES (99)")
        return []

    with pytest.raises(ValueError, match="zip"):
        await bench.writer.call(forgetful, 1)
    assert bench.kept() == []


async def test_a_refusal_reaches_its_own_caller_and_spoils_no_neighbour(bench: Bench) -> None:
    def choosy(tx: Transaction, number: int) -> int:
        if number == 2:
            raise Conflict("Not this one.")
        tx.connection.execute("INSERT INTO kept (number) VALUES (?)", (number,))
        return number

    handler = each(choosy)
    async with held(bench) as gate:
        calls = asyncio.gather(
            *[bench.writer.call(handler, number) for number in (1, 2, 3)], return_exceptions=True
        )
        await asyncio.sleep(0)
        gate.open()
        one, two, three = await calls
    assert (one, three) == (1, 3)
    assert isinstance(two, Conflict)
    assert bench.kept() == [1, 3]


async def test_a_cancelled_caller_does_not_undo_its_job(bench: Bench) -> None:
    async with held(bench) as gate:
        calls = [asyncio.create_task(bench.writer.call(bench.put, n)) for n in range(4)]
        await asyncio.sleep(0)
        for call in calls[:2]:
            call.cancel()
        gate.open()
        found = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in found] == [True, True, False, False]
    assert bench.kept() == [0, 1, 2, 3]
    assert bench.writer.depth == 0


async def test_a_full_queue_is_saturated_and_drains(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "db", capacity=3)
    await bench.writer.start()
    async with held(bench) as gate:
        calls = [asyncio.create_task(bench.writer.call(bench.put, n)) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(StoreSaturated):
            await bench.writer.call(bench.put, 9)
        gate.open()
        assert await asyncio.gather(*calls) == [0, 10]
    assert await bench.writer.call(bench.put, 9) == 90
    await bench.writer.close()


async def test_what_waits_at_closing_is_still_committed(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "db")
    await bench.writer.start()
    async with held(bench) as gate:
        calls = [asyncio.create_task(bench.writer.call(bench.put, n)) for n in range(10)]
        await asyncio.sleep(0)
        closing_it = asyncio.create_task(bench.writer.close())
        await asyncio.sleep(0)
        gate.open()
        assert await asyncio.gather(*calls) == [number * 10 for number in range(10)]
        await closing_it
    assert bench.kept() == list(range(10))
    with pytest.raises(StoreUnavailable, match="closed"):
        await bench.writer.call(bench.put, 11)
    assert not bench.writer.healthy


async def test_closing_leaves_no_log_behind(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "db")
    await bench.writer.start()
    await bench.writer.call(bench.put, 1)
    await bench.writer.close()
    await bench.writer.close()
    assert not tmp_path.joinpath("db-wal").exists()
    assert bench.kept() == [1]


async def test_a_writer_that_never_started_closes_and_is_unavailable(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "db")
    await bench.writer.close()
    assert not bench.writer.healthy
    with pytest.raises(StoreUnavailable):
        await bench.writer.call(bench.put, 1)


async def test_what_connecting_raises_is_raised_by_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "missing" / "db")
    with pytest.raises(sqlite3.OperationalError):
        await bench.writer.start()
    await bench.writer.close()


async def test_a_very_long_log_is_brought_home_without_waiting(bench: Bench) -> None:
    def bulky(tx: Transaction, payloads: Sequence[int]) -> list[None]:
        for number in payloads:
            tx.connection.execute("INSERT INTO kept VALUES (?, zeroblob(?))", (number, LARGE_WAL))
        return [None for _ in payloads]

    await bench.writer.call(bulky, 1)
    await bench.writer.call(bench.put, 2)  # begins after the checkpoint
    assert bench.path.stat().st_size >= LARGE_WAL
    assert bench.path.with_name("db-wal").stat().st_size < LARGE_WAL


async def test_a_long_log_is_brought_home_once_nobody_writes(tmp_path: Path) -> None:
    checkpointed = threading.Event()

    class Noting(Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            found = super().execute(sql, *values)
            if "wal_checkpoint" in sql:
                checkpointed.set()
            return found

    def bulky(tx: Transaction, payloads: Sequence[int]) -> list[None]:
        for number in payloads:
            tx.connection.execute("INSERT INTO kept VALUES (?, zeroblob(?))", (number, IDLE_WAL))
        return [None for _ in payloads]

    bench = Bench(tmp_path / "db", factory=Noting)
    await bench.writer.start()
    await bench.writer.call(bulky, 1)
    assert await asyncio.to_thread(checkpointed.wait, LIMIT_S)
    await bench.writer.call(bench.put, 2)
    assert bench.path.stat().st_size >= IDLE_WAL
    await bench.writer.close()

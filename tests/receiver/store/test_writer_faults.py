"""The writer when the ground gives way: a disk that refuses, a thread that dies, files that go."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from receiver.errors import StoreBroken, StoreSaturated, StoreUnavailable
from receiver.store import commits
from receiver.store import writer as module
from receiver.store.commits import Committer
from receiver.store.sqlite import engine, place
from receiver.store.sqlite.engine import CHECKPOINT_WAIT, Connection
from receiver.store.writer import BATCH, Transaction
from tests.receiver.store.bench import LIMIT_S, Bench, gathered, held, no_room, until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "IDLE", 0.01)
    monkeypatch.setattr(commits, "TICK", 0.01)
    monkeypatch.setattr(engine, "REST", 0.01)
    monkeypatch.setattr(place, "LOOK_AT_ROOM", 0.0)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    found = Bench(tmp_path / "db")
    await found.writer.start()
    yield found
    await closed(found)


async def closed(bench: Bench) -> StoreBroken | None:
    """Close a writer within the time that a test has; what it says about that."""
    try:
        async with asyncio.timeout(LIMIT_S):
            await bench.writer.close()
    except StoreBroken as error:
        return error
    return None


def sqlite_error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("as SQLite would say it")
    error.sqlite_errorname = name
    return error


def failing(error: BaseException) -> Callable[[Transaction, Sequence[Any]], list[Any]]:
    def handler(tx: Transaction, payloads: Sequence[Any]) -> list[Any]:
        tx.connection.execute("INSERT INTO kept (number) VALUES (99)")
        raise error

    return handler


def refusing(statement: str, error: BaseException) -> type[Connection]:
    """A connection on which one kind of statement fails."""

    class Refusing(Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if statement in sql:
                raise error
            return super().execute(sql, *values)

    return Refusing


# What ends it


ENDS = [
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    MemoryError(),
    sqlite_error("SQLITE_IOERR_FSYNC"),
    sqlite_error("SQLITE_IOERR_DIR_FSYNC"),
    sqlite_error("SQLITE_IOERR_SHORT_READ"),
    sqlite_error("SQLITE_CORRUPT_INDEX"),
    sqlite_error("SQLITE_NOTADB"),
]


@pytest.mark.parametrize("error", ENDS, ids=lambda error: f"{error!r:.40}")
async def test_what_ends_the_thread_ends_every_wait(bench: Bench, error: BaseException) -> None:
    async with held(bench) as gate:
        ending = asyncio.create_task(bench.writer.call(failing(error), 1))
        waiting = [asyncio.create_task(gathered(bench, range(BATCH + 9)))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gate.open()
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(StoreBroken):
                await ending
            (found,) = await asyncio.gather(*waiting)
            reason = await bench.writer.broken()
    assert {type(one) for one in found} == {StoreBroken}
    assert "again" in str(reason) or "backup" in str(reason)  # it says what to do
    assert not bench.writer.healthy
    assert bench.writer.depth == 0
    for refused in (bench.writer.call(bench.put, 1), bench.writer.close()):
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(StoreBroken):
                await refused
    with pytest.raises(StoreBroken):
        bench.writer.admit()
    assert bench.kept() == []


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("COMMIT", sqlite_error("SQLITE_IOERR_FSYNC")),
        ("COMMIT", SystemExit()),
        ("BEGIN", sqlite_error("SQLITE_CORRUPT")),
        ("wal_checkpoint", sqlite_error("SQLITE_IOERR_FSYNC")),
        ("wal_checkpoint", MemoryError()),
        ("busy_timeout = 100", SystemExit()),
    ],
)
async def test_it_ends_wherever_that_strikes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str, error: BaseException
) -> None:
    monkeypatch.setattr(engine, "LARGE_WAL", 0)
    bench = Bench(tmp_path / "db", factory=refusing(statement, error))
    await bench.writer.start()
    calls = asyncio.gather(*[gathered(bench, [n]) for n in range(3)])
    async with asyncio.timeout(LIMIT_S):
        assert isinstance(await bench.writer.broken(), StoreBroken)
        await calls
    assert await closed(bench) is not None


async def test_it_ends_when_the_last_checkpoint_fails(tmp_path: Path) -> None:
    error = sqlite_error("SQLITE_IOERR_FSYNC")
    bench = Bench(tmp_path / "db", factory=refusing("wal_checkpoint", error))
    await bench.writer.start()
    assert await bench.writer.call(bench.put, 1) == 10
    assert "fsync" in str(await closed(bench)).lower()
    assert tmp_path.joinpath("db-wal").stat().st_size  # the log is there for the next start
    assert bench.kept() == [1]


async def test_a_defect_after_the_commit_ends_it_with_the_write_kept(bench: Bench) -> None:
    def put(tx: Transaction, payloads: Sequence[int]) -> list[int]:
        tx.after_commit.append(lambda: 1 // 0)  # type: ignore[arg-type]
        return bench.put(tx, payloads)

    with pytest.raises(StoreBroken, match="ZeroDivisionError"):
        await bench.writer.call(put, 1)
    assert bench.kept() == [1]
    assert bench.batches == [[1]]  # never a second time


async def test_a_write_that_can_not_be_rolled_back_ends_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "db", factory=refusing("ROLLBACK", sqlite_error("SQLITE_ERROR")))
    await bench.writer.start()
    with pytest.raises(StoreBroken, match="rolled back"):
        await bench.writer.call(failing(ZeroDivisionError()), 1)
    await closed(bench)
    assert bench.kept() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_dies_without_a_word_is_missed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL", 0.05)
    stall = bench.writer._stall

    def mute(*_: object) -> None:
        raise SystemExit

    def once_it_is_dead() -> None:
        assert bench.writer._thread is not None
        bench.writer._thread.join(LIMIT_S)  # as long as it lives it is only slow
        stall()

    monkeypatch.setattr(Committer, "_post", mute)
    monkeypatch.setattr(bench.writer, "_stall", once_it_is_dead)
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(StoreBroken, match="gone"):
            await bench.writer.call(bench.put, 1)


# What passes


async def test_a_full_disk_fails_what_waits_once_and_passes(bench: Bench) -> None:
    await bench.writer.call(bench.put, 0)
    bench.batches.clear()
    async with held(bench) as gate:
        calls = asyncio.create_task(gathered(bench, range(1, BATCH + 9)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with no_room(bench.path):
            gate.open()
            found = await calls
            assert {type(one) for one in found} == {StoreUnavailable}
            # One by one, and batch by batch, it would only have failed as often again.
            assert [len(batch) for batch in bench.batches] == [BATCH]
            await until(lambda: bench.probes >= 3)  # none of which succeeds
            assert not bench.writer.healthy
            with pytest.raises(StoreUnavailable, match="could not commit"):
                bench.writer.admit()
            with pytest.raises(StoreUnavailable):
                await bench.writer.call(bench.put, 5)
            assert len(bench.batches) == 1  # refused before it was tried
    await until(lambda: bench.writer.healthy)  # of itself, with nobody asking
    bench.writer.admit()
    assert await bench.writer.call(bench.put, 1) == 10
    assert bench.kept() == [0, 1]
    assert [event for event, _ in bench.notices] == [
        "the store can't write",
        "the store can write again",
    ]


async def test_a_foreign_lock_is_unavailable_and_passes(bench: Bench) -> None:
    await bench.writer.call(bench.put, 1)
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await bench.writer.call(bench.put, 2)
        assert not bench.writer.healthy
        other.execute("ROLLBACK")
    await until(lambda: bench.writer.healthy)
    assert await bench.writer.call(bench.put, 2) == 20


async def test_an_environment_that_fails_half_way_is_not_asked_for_the_rest(
    bench: Bench,
) -> None:
    tried: list[int] = []

    def handler(tx: Transaction, payloads: Sequence[int]) -> list[int]:
        if len(payloads) > 1:
            raise ZeroDivisionError
        tried.extend(payloads)
        if 2 in payloads:
            raise sqlite_error("SQLITE_BUSY")
        return bench.put(tx, payloads)

    async with held(bench) as gate:
        calls = [asyncio.create_task(bench.writer.call(handler, n)) for n in range(6)]
        await asyncio.sleep(0)
        gate.open()
        found = await asyncio.gather(*calls, return_exceptions=True)
    assert list(found[:2]) == [0, 10]
    assert {type(one) for one in found[2:]} == {StoreUnavailable}
    assert tried == [0, 1, 2]


async def test_a_disk_that_does_not_answer_keeps_nobody_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, opened = threading.Event(), threading.Event()

    def hang(tx: Transaction, payloads: Sequence[int]) -> list[int]:
        entered.set()
        assert opened.wait(LIMIT_S)
        return bench.put(tx, payloads)

    with monkeypatch.context() as patch:  # what is asked later has the time that it needs
        patch.setattr(module, "STALL", 0.05)
        hung = asyncio.create_task(bench.writer.call(hang, 1))
        assert await asyncio.to_thread(entered.wait, LIMIT_S)
    waiting = asyncio.create_task(bench.writer.call(bench.put, 2))
    for call in (hung, waiting):
        with pytest.raises(StoreUnavailable, match="too long"):
            await call
    with pytest.raises(StoreUnavailable):
        bench.writer.admit()
    opened.set()
    await until(lambda: bench.writer.healthy)
    assert bench.kept() == [1]  # not acknowledged, and stored: the platform's next try finds it
    assert await bench.writer.call(bench.put, 2) == 20


# How much it takes in


async def test_large_payloads_are_bounded_by_their_bytes(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "db", held=100)
    await bench.writer.start()
    async with held(bench) as gate:
        first = asyncio.create_task(bench.writer.call(bench.put, 1, 49))
        await asyncio.sleep(0)
        bench.writer.admit()
        second = asyncio.create_task(bench.writer.call(bench.put, 2, 1))
        await asyncio.sleep(0)
        with pytest.raises(StoreSaturated):
            bench.writer.admit()  # nobody new is let in
        third = asyncio.create_task(bench.writer.call(bench.put, 3, 50))  # who is inside may go on
        await asyncio.sleep(0)
        with pytest.raises(StoreSaturated):
            await bench.writer.call(bench.put, 4)
        gate.open()
        assert [await first, await second, await third] == [10, 20, 30]
    bench.writer.admit()
    assert await bench.writer.call(bench.put, 4, 1_000) == 40  # alone, anything goes
    bench.writer.admit()
    await closed(bench)


async def test_what_was_refused_frees_its_room(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "db", held=100)
    await bench.writer.start()
    entered, opened = threading.Event(), threading.Event()

    def busy(tx: Transaction, payloads: Sequence[int]) -> list[int]:
        entered.set()
        assert opened.wait(LIMIT_S)
        raise sqlite_error("SQLITE_BUSY")

    working = asyncio.create_task(bench.writer.call(busy, 1, 30))
    assert await asyncio.to_thread(entered.wait, LIMIT_S)
    waiting = asyncio.create_task(bench.writer.call(bench.put, 2, 60))
    await asyncio.sleep(0)
    opened.set()
    for call in (working, waiting):
        with pytest.raises(StoreUnavailable):
            await call
    await until(lambda: bench.writer.healthy)
    bench.writer.admit()
    await closed(bench)


async def test_a_full_queue_lets_nobody_new_in(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "db", capacity=4)
    await bench.writer.start()
    async with held(bench) as gate:
        bench.writer.admit()
        call = asyncio.create_task(bench.writer.call(bench.put, 1))
        await asyncio.sleep(0)
        with pytest.raises(StoreSaturated):
            bench.writer.admit()
        gate.open()
        await call
    bench.writer.admit()
    await closed(bench)


# How it closes


async def test_closing_gives_up_on_a_disk_that_does_not_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSING", 0.05)
    async with asyncio.timeout(LIMIT_S):
        async with held_for_good(bench) as (gate, call):
            error = await closed(bench)
            with pytest.raises(StoreBroken):
                await call
            gate.set()
    assert "does not answer" in str(error)


class held_for_good:  # noqa: N801 - used as a function
    """A call that does not come back while inside."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._entered, self._opened = threading.Event(), threading.Event()

    async def __aenter__(self) -> tuple[threading.Event, asyncio.Task[Any]]:
        call = asyncio.create_task(self._bench.writer.call(self._hang, None))
        assert await asyncio.to_thread(self._entered.wait, LIMIT_S)
        return self._opened, call

    def _hang(self, tx: Transaction, payloads: Sequence[None]) -> list[None]:
        self._entered.set()
        assert self._opened.wait(LIMIT_S)
        return [None for _ in payloads]

    async def __aexit__(self, *_: object) -> None:
        self._opened.set()


async def test_who_closes_second_waits_as_well(bench: Bench) -> None:
    async with held(bench) as gate:
        first = asyncio.create_task(bench.writer.close())
        second = asyncio.create_task(bench.writer.close())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not second.done()
        gate.open()
        await asyncio.gather(first, second)
    assert bench.writer._thread is not None
    assert not bench.writer._thread.is_alive()


async def test_a_close_that_is_cancelled_still_closes(bench: Bench) -> None:
    async with held(bench) as gate:
        waiting = asyncio.create_task(bench.writer.call(bench.put, 1))
        await asyncio.sleep(0)
        first = asyncio.create_task(bench.writer.close())
        await asyncio.sleep(0)
        first.cancel()
        gate.open()
        assert await waiting == 10
    assert await closed(bench) is None
    assert bench.kept() == [1]


async def test_a_start_that_is_cancelled_can_be_closed(tmp_path: Path) -> None:
    entered, opened = threading.Event(), threading.Event()

    class Slow(Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            entered.set()
            assert opened.wait(LIMIT_S)
            return super().execute(sql, *values)

    bench = Bench(tmp_path / "db", factory=Slow)
    start = asyncio.create_task(bench.writer.start())
    assert await asyncio.to_thread(entered.wait, LIMIT_S)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    opened.set()
    assert await closed(bench) is None
    assert not bench.writer.healthy


async def test_a_writer_that_could_not_open_keeps_nobody_waiting(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "missing" / "db")
    with pytest.raises(sqlite3.OperationalError):
        await bench.writer.start()
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(StoreUnavailable):
            await bench.writer.call(bench.put, 1)


# The log that can't be brought home


async def test_a_long_reader_holds_no_write_up_and_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LARGE_WAL", 50_000)
    said: list[str] = []

    class Noting(Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            said.append(sql)
            return super().execute(sql, *values)

    def bulky(tx: Transaction, payloads: Sequence[int]) -> list[None]:
        for number in payloads:
            tx.connection.execute("INSERT INTO kept VALUES (?, zeroblob(50000))", (number,))
        return [None for _ in payloads]

    bench = Bench(tmp_path / "db", factory=Noting)
    await bench.writer.start()
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM kept").fetchall()
        for number in range(40):
            await bench.writer.call(bulky, number)
            await asyncio.sleep(0.011)
        told = [evidence for event, evidence in bench.notices if "log grows" in event]
        reader.execute("COMMIT")
    assert 2 <= len(told) <= 6  # at each doubling, not at each batch
    assert told[0]["bytes"] >= 100_000
    assert "another program" in told[0]["why"]
    place = said.index("PRAGMA wal_checkpoint(TRUNCATE)")
    assert said[place - 1] == f"PRAGMA busy_timeout = {CHECKPOINT_WAIT}"
    assert said[place + 1] == "PRAGMA busy_timeout = 1"  # as it was
    await until(lambda: bench.path.with_name("db-wal").stat().st_size < 50_000)
    await until(lambda: bench.writer.wal_size < 50_000)
    await closed(bench)


def test_one_that_never_ends_is_waited_for_ever_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Litestream reads all the time: each try would hold up a callback for as long as it waits."""
    now = [0.0]
    for name, value in {"REST": 1.0, "IDLE_WAL": 1, "CHECKPOINT_WAIT": 0}.items():
        monkeypatch.setattr(engine, name, value)
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: now[0]))
    tried: list[float] = []

    class Noting(Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if "wal_checkpoint" in sql:
                tried.append(now[0])
            return super().execute(sql, *values)

    bench = Bench(tmp_path / "db", factory=Noting)
    bench.engine.open()

    def beside_a_reader(seconds: range) -> list[float]:
        tried.clear()
        with closing(sqlite3.connect(bench.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM kept").fetchall()
            bench.engine.probe()
            for now[0] in seconds:
                bench.engine.look()
                bench.engine.tidy(idle=True)
        return [*tried]

    assert beside_a_reader(range(60)) == [0, 1, 3, 7, 15, 31, 47]
    now[0] = 63
    bench.engine.tidy(idle=True)
    assert bench.path.with_name("db-wal").stat().st_size == 0
    assert beside_a_reader(range(64, 70)) == [64, 65, 67]  # as at first
    bench.engine.close()


async def test_a_checkpoint_without_room_is_told_of_and_costs_no_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LARGE_WAL", 1)
    refused = refusing("wal_checkpoint", sqlite_error("SQLITE_FULL"))
    bench = Bench(tmp_path / "db", factory=refused)
    await bench.writer.start()
    assert await bench.writer.call(bench.put, 1) == 10
    await until(lambda: bench.notices)
    assert bench.notices[0][1]["why"] == "as SQLite would say it"
    assert bench.writer.healthy
    await closed(bench)


# The files


def replace(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


HARM = [
    ("db", Path.unlink),
    ("db", replace),
    ("db", cut),
    ("db-wal", Path.unlink),
    ("db-wal", replace),
    ("db-wal", lambda path: os.truncate(path, 0)),
    ("db.lock", Path.unlink),
]


@pytest.mark.parametrize(("name", "harm"), HARM)
async def test_files_that_were_changed_end_it_though_nobody_writes(
    bench: Bench, name: str, harm: Callable[[Path], None]
) -> None:
    assert await bench.writer.call(bench.put, 1) == 10
    harm(bench.path.with_name(name))
    async with asyncio.timeout(LIMIT_S):
        reason = await bench.writer.broken()
    assert str(reason).startswith(name)  # the public probe shows it, so not the whole path
    assert reason.evidence["path"] == str(bench.path.with_name(name))
    assert "backup" in str(reason)


async def test_a_log_that_was_cut_is_missed_though_the_next_write_lengthens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "IDLE", LIMIT_S)  # nobody looks in between
    bench = Bench(tmp_path / "db")
    await bench.writer.start()
    assert await bench.writer.call(bench.put, 1) == 10
    os.truncate(bench.path.with_name("db-wal"), 0)
    with pytest.raises(StoreBroken, match="was cut"):
        await bench.writer.call(bench.put, 2)
    assert bench.batches == [[1]]
    await closed(bench)


@pytest.mark.parametrize(("name", "harm"), HARM[:2] + HARM[3:5])
async def test_a_commit_into_a_file_that_is_gone_is_not_acknowledged(
    bench: Bench, name: str, harm: Callable[[Path], None]
) -> None:
    def harmed(tx: Transaction, payloads: Sequence[int]) -> list[int]:
        harm(bench.path.with_name(name))
        return bench.put(tx, payloads)

    with pytest.raises(StoreBroken):
        await bench.writer.call(harmed, 1)


# Everything at once


def moody(bench: Bench, chance: random.Random) -> Callable[[Transaction, Sequence[int]], list[int]]:
    """A verb that mostly writes, and fails in every way that there is."""

    def handler(tx: Transaction, payloads: Sequence[int]) -> list[int]:
        drawn = chance.random()
        if drawn < 0.01:
            raise MemoryError
        if drawn < 0.1:
            raise sqlite_error("SQLITE_BUSY")
        if drawn < 0.15:
            raise ZeroDivisionError
        return bench.put(tx, payloads)

    return handler


@pytest.mark.parametrize("seed", range(40))
async def test_nobody_waits_for_ever_and_nothing_acknowledged_is_missing(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    bench = Bench(tmp_path / "db", capacity=chance.choice([3, 40, 8_192]))
    await bench.writer.start()
    handler, acknowledged = moody(bench, chance), set[int]()

    async def ask(number: int) -> None:
        with suppress(StoreUnavailable, ZeroDivisionError):
            await bench.writer.call(handler, number, chance.randint(0, 20))
            acknowledged.add(number)

    asked: list[asyncio.Task[None]] = []
    closing: list[asyncio.Task[None]] = []
    for _ in range(chance.randint(5, 60)):
        asked += [asyncio.create_task(ask(len(asked) + n)) for n in range(chance.randint(0, 12))]
        if asked and chance.random() < 0.3:
            chance.choice(asked).cancel()
        if not closing and chance.random() < 0.03:
            closing.append(asyncio.create_task(bench.writer.close()))
        await asyncio.sleep(chance.choice([0, 0, 0.001, 0.004]))
    if closing and chance.random() < 0.3:
        closing[0].cancel()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*asked, *closing, return_exceptions=True)
    await closed(bench)
    assert (bench.writer.depth, bench.writer._held) == (0, 0)
    assert acknowledged <= set(bench.kept())

"""The SQLite store: the suite, and what only a file can do wrong."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from receiver.callbacks import Outcome
from receiver.errors import CannotStart, SchemaTooNew, StoreLocked, StoreUnavailable
from receiver.platforms import runware
from receiver.platforms.reading import loads
from receiver.store.protocol import Query, Store
from receiver.store.sqlite import SqliteStore
from receiver.store.sqlite import store as module
from receiver.store.sqlite.engine import CHECKPOINT_WAIT, Connection
from receiver.store.sqlite.store import PRAGMAS
from receiver.store.verbs import registry
from receiver.store.writer import Transaction
from tests.doubles import START, Dice, FakeClock
from tests.make import TASK, arrival, endpoint, registration, success, uuid, wrapped
from tests.receiver.store.bench import no_room, until
from tests.receiver.store.killing import acknowledged_before_a_kill
from tests.receiver.store.suite import Opener, StoreSuite, arrival_of, claim, log_of, states

ROOT = Path(__file__).parents[3]
LIMIT_S = 30.0

pytestmark = pytest.mark.anyio


class TestSqliteStore(StoreSuite):
    """The behaviour that every store has."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: FakeClock) -> Opener:
        dice = Dice()

        async def open_it() -> Store:
            return await SqliteStore.open(tmp_path / "db", clock=clock, entropy=dice.bits)

        return open_it


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    async with await SqliteStore.open(path, clock=FakeClock()) as store:
        yield store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(tmp_path / "db") as found:
        yield found


async def on_the_writer(store: SqliteStore, sql: str) -> Any:
    """Run a statement on the connection that writes."""

    def handler(tx: Transaction, payloads: Any) -> list[Any]:
        return [tx.connection.execute(sql).fetchone() for sql in payloads]

    return await store._writer.call(handler, sql)


async def test_a_second_store_of_the_same_file_is_refused(store: SqliteStore) -> None:
    with pytest.raises(StoreLocked, match="REELHOOK_DATA_DIR"):
        await SqliteStore.open(store.path, clock=FakeClock())
    await store.ready()


async def test_the_lock_ends_with_its_store(tmp_path: Path) -> None:
    for _ in range(2):
        async with opened(tmp_path / "deep" / "down" / "db") as store:
            await store.ready()


@pytest.mark.parametrize("name", ["a b", "50%41", "was?so=1", "h#sh", "ünïcode", "'quoted\""])
async def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    async with opened(folder / "db") as store:
        await store.record(arrival(success()))
        assert (await store.task(TASK)).received == 1
    assert os.listdir(tmp_path) == [name]  # and no other file, of a name cut short
    assert "db" in os.listdir(folder)


async def test_what_is_kept_is_nobody_elses_to_read(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        async with opened(tmp_path / "data" / "db") as store:
            await store.add_endpoint(endpoint())
            modes = {
                path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "data").iterdir()
            }
    finally:
        os.umask(before)
    assert set(modes.values()) == {0}


async def test_a_commit_is_on_disk_when_it_returns(store: SqliteStore) -> None:
    for name, _, expected in PRAGMAS:
        found = await on_the_writer(store, f"PRAGMA {name}")
        assert found[0] == expected
    assert ("synchronous", "FULL", 2) in PRAGMAS


async def test_who_reads_for_long_holds_no_start_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Litestream reads for ever: a start waits for it as little as a batch does."""
    path, said = tmp_path / "db", list[str]()

    class Noting(Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            said.append(sql)
            return super().execute(sql, *values)

    async with opened(path) as store:
        await store.record(arrival(success()))
    monkeypatch.setattr(module, "Connection", Noting)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM tasks").fetchone() == (1,)
        async with opened(path) as store:
            place = said.index("PRAGMA wal_checkpoint(TRUNCATE)")
            assert said[place - 1] == f"PRAGMA busy_timeout = {CHECKPOINT_WAIT}"
            assert (await on_the_writer(store, "PRAGMA busy_timeout"))[0] == 5_000
            await store.ready()


async def test_readers_can_not_write(store: SqliteStore) -> None:
    with pytest.raises(StoreUnavailable, match="readonly"):
        await store._reads.rows("DELETE FROM tasks")


async def test_a_database_of_a_later_release_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with opened(path) as store:
        await store.record(arrival(success()))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew) as caught:
        await SqliteStore.open(path, clock=FakeClock())
    assert caught.value.evidence["found"] == 999
    assert path.read_bytes() == before


async def test_a_later_database_in_another_journal_mode_is_refused_untouched(
    tmp_path: Path,
) -> None:
    path = tmp_path / "db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE later (x)")
        connection.execute("PRAGMA user_version = 999")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew):
        await SqliteStore.open(path, clock=FakeClock())
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"not a database " * 100, b"SQLite format 3\x00" + b"\xff" * 4_080]
)
async def test_a_file_that_is_no_database_is_refused_untouched(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "db"
    path.write_bytes(content)
    with pytest.raises(CannotStart, match="can't be opened"):
        await SqliteStore.open(path, clock=FakeClock())
    assert path.read_bytes() == content


async def test_a_full_disk_is_unavailable_and_passes(store: SqliteStore) -> None:
    await store.record(arrival(success()))
    other = arrival_of(uuid(5), success())
    with no_room(store.path):
        with pytest.raises(StoreUnavailable, match="could not commit"):
            await store.record(other)
        for refused in (store.record(other), store.ready()):
            with pytest.raises(StoreUnavailable):
                await refused
        with pytest.raises(StoreUnavailable):
            store.admit()
        assert not store.healthy
        assert (await store.task(TASK)).received == 1
    await until(lambda: store.healthy)
    await store.ready()
    assert (await store.record(other)).outcome is Outcome.RECORDED


async def test_an_endpoint_that_was_not_stored_is_sent_nothing(store: SqliteStore) -> None:
    await store.ready()
    with no_room(store.path):
        failed = await asyncio.gather(
            store.add_endpoint(endpoint()), store.record(arrival()), return_exceptions=True
        )
        assert [type(found) for found in failed] == [StoreUnavailable, StoreUnavailable]
    await until(lambda: store.healthy)
    await store.record(arrival(success()))
    assert await states(store) == []


async def test_while_another_program_holds_the_database_nothing_is_acknowledged(
    store: SqliteStore,
) -> None:
    await on_the_writer(store, "PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.record(arrival(success()))
        assert not store.healthy
        with pytest.raises(StoreUnavailable):
            await store.ready()
        other.execute("ROLLBACK")
    await until(lambda: store.healthy)
    assert (await store.record(arrival(success()))).outcome is Outcome.RECORDED


async def test_what_was_sending_when_the_process_ended_is_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with opened(path) as store:
        await store.add_endpoint(endpoint(event_types=["result.*"]))
        await store.record(arrival(success()))
        assert len(await claim(store)) == 1
    async with opened(path) as store:
        assert await store.next_due() == START
        (claimed,) = await claim(store)
        assert claimed.attempt == 2
        (delivery,) = (await store.deliveries(Query())).data
        (lost,) = await log_of(store, delivery.id)
        assert lost.error == "lease_lapsed"


async def test_a_task_is_the_same_however_its_id_is_written(store: SqliteStore) -> None:
    plain = TASK.replace("-", "")
    items = runware.parse(loads(wrapped(success(2, plain))), plain)
    await store.record(arrival(success(1), expected=2))
    receipt = await store.record(arrival(body=b"{}", task_id=plain, items=items, unreadable=None))
    assert receipt.outcome is Outcome.RECORDED
    assert (await store.task(plain)).received == 2


async def test_listeners_hear_a_tasks_id_in_its_one_spelling(store: SqliteStore) -> None:
    heard: set[str] = set()
    store.on_change(lambda tasks, _work: heard.update(tasks))
    await store.register(registration(TASK.upper()))
    assert heard == {TASK}


async def test_a_cancelled_caller_splits_no_write(store: SqliteStore) -> None:
    calls = [asyncio.create_task(store.record(arrival_of(uuid(n), success(n)))) for n in range(50)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await store.ready()
    for number in range(50):
        assert (await store.task(uuid(number))).received == 1


@pytest.mark.process
async def test_nothing_acknowledged_is_missing_after_a_kill(tmp_path: Path) -> None:
    acknowledged = await acknowledged_before_a_kill("acknowledging", tmp_path / "db", 300)
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    async with opened(tmp_path / "db") as store:
        for number in acknowledged:
            assert (await store.task(uuid(number))).received == 1
            assert len(await store.results(uuid(number))) == 1
            deliveries = await store.deliveries(Query(task=uuid(number)))
            assert len(deliveries.data) == 2


async def test_what_a_model_took_is_read_from_an_index_alone(store: SqliteStore) -> None:
    with closing(sqlite3.connect(store.path)) as connection:
        values = ("runware", "m", "default", 50)
        steps = connection.execute(f"EXPLAIN QUERY PLAN {registry.LATEST}", values).fetchall()
    plan = [step[3] for step in steps]
    searched = "platform=? AND model=? AND project=?"
    assert plan == [f"SEARCH tasks USING COVERING INDEX tasks_took ({searched})"]


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.RECORDED}))
async def test_odd_callbacks_are_found_by_their_index(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    asked: list[tuple[str, Any]] = []

    async def noted(sql: str, values: Any = ()) -> list[Any]:
        asked.append((sql, values))
        return []

    with monkeypatch.context() as patch:
        patch.setattr(store._reads, "rows", noted)
        await store.callbacks(Query(outcome=outcome, limit=50))
    ((sql, values),) = asked
    plan = [row["detail"] for row in await store._reads.rows(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert plan[0] == "SEARCH c USING INDEX callbacks_odd (outcome=?)"
    assert not any("TEMP B-TREE" in line for line in plan)

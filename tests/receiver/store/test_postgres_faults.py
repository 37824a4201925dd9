"""The PostgreSQL store when the server restarts, hangs, refuses, or is not to be trusted."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from receiver.callbacks import Outcome
from receiver.errors import StoreBroken, StoreUnavailable
from receiver.store import commits
from receiver.store import writer as writing
from receiver.store.commits import Transaction, each
from receiver.store.faults import Fault
from receiver.store.postgres import PostgresStore, connection, engine, readers
from receiver.store.postgres import store as module
from receiver.store.postgres.faults import judge, owns
from receiver.store.protocol import Query
from tests.make import TASK, arrival, registration, success, uuid
from tests.postgres import Server
from tests.receiver.store.processes import LIMIT_S, ask, intruder, process, processes
from tests.receiver.store.suite import arrival_of

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "IDLE", 0.01)
    monkeypatch.setattr(commits, "TICK", 0.02)
    monkeypatch.setattr(module, "LOOK", 0.05)


async def back(store: PostgresStore) -> None:
    """Wait until a store takes callbacks in again, by itself."""
    async with asyncio.timeout(LIMIT_S):
        while not store.healthy:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)


async def refused(store: PostgresStore, number: int = 900) -> StoreUnavailable:
    """What whoever writes now is told."""
    with pytest.raises(StoreUnavailable) as told:
        await store.record(arrival_of(uuid(number), success(1)))
    return told.value


async def failing(store: PostgresStore) -> None:
    """Wait until it has noticed, and let nobody in, nor read."""
    async with asyncio.timeout(LIMIT_S):
        while store.healthy:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
    with pytest.raises(StoreUnavailable):
        store.admit()
    with pytest.raises(StoreUnavailable):
        await store.tasks(Query())


async def listening(url: str, count: int) -> None:
    """Wait until so many listen."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    async with asyncio.timeout(LIMIT_S):
        while (await ask(url, query))[0][0] < count:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)


async def connections(url: str) -> int:
    ((count,),) = await ask(
        url,
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    return int(count)


async def no_more_than(url: str, count: int) -> None:
    """Wait until only so many are connected; some of those who asked here have yet to end."""
    async with asyncio.timeout(LIMIT_S):
        while await connections(url) > count:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)


# A server that comes back


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_restart_of_the_server_loses_nothing_that_was_acknowledged(
    url: str, postgres: Server, how: signal.Signals
) -> None:
    acknowledged: set[str] = set()
    over = asyncio.Event()

    async def callbacks(store: PostgresStore, first: int) -> None:
        for number in range(first, first + 100_000):
            if over.is_set():
                return
            with suppress(StoreUnavailable):
                await store.record(arrival_of(uuid(number), success(1)))
                acknowledged.add(uuid(number))
            await asyncio.sleep(0.001)

    async with processes(url, 2) as stores:
        tasks = len(asyncio.all_tasks())
        before = await connections(url)
        flows = [
            asyncio.create_task(callbacks(store, 1_000_000 * (n + 1)))
            for n, store in enumerate(stores)
        ]
        for _ in range(2):
            known = len(acknowledged)
            async with asyncio.timeout(LIMIT_S):
                while len(acknowledged) < known + 10:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(postgres.stop, how)
            for store in stores:
                await failing(store)
            await asyncio.to_thread(postgres.start)
            for store in stores:
                await back(store)
                store.admit()
        over.set()
        await asyncio.gather(*flows)
        kept = {str(row[0].hex()) for row in await ask(url, "SELECT id FROM tasks")}
        assert {task.replace("-", "") for task in acknowledged} <= kept
        for store in stores:
            assert len((await store.tasks(Query())).data) > 1
        # Who listens does again, and nothing is left of what was cut off.
        await listening(url, 2)
        await no_more_than(url, before + 2 * (readers.CONNECTIONS - 1))
        async with asyncio.timeout(LIMIT_S):
            while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110 - a hint may be under way
                await asyncio.sleep(0.01)


async def test_a_store_closes_while_the_server_is_away(url: str, postgres: Server) -> None:
    store = await process(url)
    await store.record(arrival(success(1)))
    postgres.stop()
    try:
        async with asyncio.timeout(LIMIT_S):
            await store.close()
    finally:
        postgres.start()
    assert len(await ask(url, "SELECT * FROM tasks")) == 1


async def test_an_attempt_to_connect_that_is_cut_off_leaves_no_error_behind() -> None:
    """A stop does that while the server is away; whoever reads the log would look for a fault."""
    asked: list[bytes] = []
    stray: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError):
            asked.append(await reader.read(8))

    loop = asyncio.get_running_loop()
    usual = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: stray.append(context))
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"postgresql://somebody@127.0.0.1:{server.sockets[0].getsockname()[1]}/any"
        for turns in range(24):  # of the loop, each of which may be its last
            attempt = asyncio.create_task(connection.reach(url))
            for _ in range(turns):
                await asyncio.sleep(0)
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
            for _ in range(3):  # what was cut off hears of it
                await asyncio.sleep(0)
    gc.collect()
    loop.set_exception_handler(usual)
    assert 0 < len(asked) < 24  # some of them before the server had heard of it
    assert stray == []


# A server that hangs


@dataclass
class Pipe:
    """What stands between a store and its server, and may swallow all that comes."""

    port: int
    url: str = ""
    hangs: bool = False
    hung: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            there, back_ = await asyncio.open_connection("127.0.0.1", self.port)
            self._writers += [writer, back_]
            with closing(back_):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass_on(reader, back_))
                    group.create_task(self._pass_on(there, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        swallowed = False
        with suppress(OSError):
            while data := await reader.read(65_536):
                swallowed = swallowed or self.hangs  # a connection that hung stays so
                if swallowed:
                    self.hung.set()
                else:
                    writer.write(data)
                    await writer.drain()
        writer.close()

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def piped(url: str) -> AsyncIterator[Pipe]:
    parts = urlsplit(url)
    pipe = Pipe(parts.port or 0)
    server = await asyncio.start_server(pipe.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pipe.url = url.replace(f":{parts.port}/", f":{port}/")
    try:
        yield pipe
    finally:
        pipe.close()
        server.close()


HANGS: Final = 2.0  # seconds: one that answers has not taken so long, be its machine ever so busy


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CLOSING", 0.5)
    monkeypatch.setattr(engine, "ANSWERING", HANGS)
    monkeypatch.setattr(engine, "PARTING", 0.1)
    monkeypatch.setattr(readers, "CLOSING", 0.1)
    monkeypatch.setattr(readers, "ANSWERING", HANGS)
    monkeypatch.setattr(connection, "CONNECTING", HANGS)
    monkeypatch.setattr(readers, "CONNECTING", HANGS)


async def test_whoever_waits_for_a_server_that_hangs_is_told_so(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    async with piped(url) as pipe:
        store = await process(pipe.url)
        await store.record(arrival(success(1)))
        pipe.hangs = True
        with monkeypatch.context() as patch:
            patch.setattr(writing, "STALL", 0.1)
            assert "too long" in str(await refused(store))
        with pytest.raises(StoreUnavailable):
            store.admit()
        with pytest.raises(StoreUnavailable):
            await store.tasks(Query())
        pipe.hangs = False  # for who connects anew
        await back(store)
        await store.record(arrival_of(uuid(2), success(1)))
        assert len((await store.tasks(Query())).data) in (2, 3)  # that one may have been committed
        await store.close()


async def test_a_store_closes_while_the_server_hangs(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    async with piped(url) as pipe:
        store = await process(pipe.url)
        pipe.hangs = True
        monkeypatch.setattr(writing, "STALL", 0.1)
        await refused(store)
        async with asyncio.timeout(LIMIT_S):
            with suppress(StoreBroken):
                await store.close()
        assert not [task for task in asyncio.all_tasks() if "PostgresStore" in repr(task)]


# A server that refuses, or is not to be trusted


@pytest.fixture
def role(postgres: Server) -> str:
    """The URL of a database whose owner is a role like any other's."""
    found = postgres.empty()
    name = urlsplit(found).path.removeprefix("/")
    postgres.psql(f"CREATE ROLE {name} LOGIN; ALTER DATABASE {name} OWNER TO {name}")
    return found.replace("postgres@", f"{name}@")


TROUBLES = {
    "no connection is left": (
        "ALTER ROLE {0} CONNECTION LIMIT 0",
        "ALTER ROLE {0} CONNECTION LIMIT -1",
        "too many connections",
    ),
    "it is a standby": (
        "ALTER DATABASE {0} SET default_transaction_read_only = on",
        "ALTER DATABASE {0} RESET default_transaction_read_only",
        "read-only",
    ),
    "commits return early": (
        "ALTER ROLE {0} SET synchronous_commit = off",
        "ALTER ROLE {0} RESET synchronous_commit",
        "synchronous_commit = off",
    ),
    "the role may not log in": (
        "ALTER ROLE {0} NOLOGIN",
        "ALTER ROLE {0} LOGIN",
        "not permitted to log in",
    ),
    "it takes nobody": (
        "ALTER DATABASE {0} ALLOW_CONNECTIONS false",
        "ALTER DATABASE {0} ALLOW_CONNECTIONS true",
        "not currently accepting connections",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_what_passes_is_waited_for(role: str, postgres: Server, trouble: str) -> None:
    """It comes with a new connection, is told to whoever writes, and needs no restart."""
    breaks, heals, words = TROUBLES[trouble]
    name = urlsplit(role).path.removeprefix("/")
    cut_off = (
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{name}'"
    )
    notices: list[str] = []
    store = await PostgresStore.open(
        role, clock=lambda: 1_790_000_000_000, notice=lambda event, **_: notices.append(event)
    )
    try:
        await store.record(arrival(success(1)))
        postgres.psql(breaks.format(name))
        postgres.psql(cut_off)
        assert words in str(await refused(store))
        assert words in (store.refusal or "")
        postgres.psql(heals.format(name))
        await back(store)
        await store.record(arrival_of(uuid(2), success(1)))
        assert len((await store.tasks(Query())).data) == 2
    finally:
        postgres.psql(heals.format(name))
        await store.close()
    assert {"the store can't write", "the store can write again"} <= set(notices)


async def test_a_setting_that_loses_commits_is_noticed_without_a_new_connection(
    url: str, postgres: Server
) -> None:
    store = await process(url)
    try:
        for setting in ("synchronous_commit", "fsync"):
            await store.ready()
            postgres.psql(f"ALTER SYSTEM SET {setting} = off")
            postgres.psql("SELECT pg_reload_conf()")
            async with asyncio.timeout(LIMIT_S):
                while store.healthy:
                    with suppress(StoreUnavailable):
                        await store.ready()
            assert f"{setting} = off" in str(store.refusal)
            postgres.psql(f"ALTER SYSTEM RESET {setting}")
            postgres.psql("SELECT pg_reload_conf()")
            await back(store)
        await store.record(arrival(success(1)))
    finally:
        postgres.psql("ALTER SYSTEM RESET ALL")
        postgres.psql("SELECT pg_reload_conf()")
        await store.close()


async def test_a_database_that_was_replaced_is_not_written_to(url: str) -> None:
    async with processes(url, 1) as (store,):
        await store.record(arrival(success(1)))
        await ask(url, "UPDATE meta SET value = 'another' WHERE name = 'instance'")
        assert "another one" in str(await refused(store))
        await ask(url, "UPDATE meta SET value = $1 WHERE name = 'instance'", store.instance)
        await back(store)


def in_haste(tx: Transaction, _: None) -> None:
    tx.connection.execute("SET statement_timeout = '100ms'")


async def test_a_write_that_waits_for_too_long_fails_and_no_other(role: str) -> None:
    """The role has a statement_timeout: what it ends is its caller's to hear."""
    async with processes(role, 1) as (store,):
        await store.register(registration(TASK, expected=2))
        # As if the role had it; but a start tries nothing again that a busy machine made slow.
        await store._writer.call(each(in_haste), None)
        async with intruder(role, "SELECT 1 FROM tasks FOR UPDATE"):
            with pytest.raises(StoreUnavailable, match="timeout"):
                await store.record(arrival(success(1), expected=2))
            assert store.healthy
            await store.record(arrival_of(uuid(2), success(1)))
        assert (await store.record(arrival(success(1), expected=2))).outcome is Outcome.RECORDED


async def test_the_next_release_may_change_tables_under_a_store_that_runs(url: str) -> None:
    """What was planned for the table as it was is planned anew, and no callback is refused."""
    async with processes(url, 1) as (store,):
        await store.register(registration(TASK, expected=2))
        await store.register(registration(TASK, expected=2))
        await ask(url, "ALTER TABLE tasks ADD COLUMN of_the_next_release BIGINT")
        try:
            assert not await store.register(registration(TASK, expected=2))
            assert (await store.task(TASK)).expected == 2
            assert (await store.record(arrival(success(1)))).outcome is Outcome.RECORDED
        finally:
            await ask(url, "ALTER TABLE tasks DROP COLUMN of_the_next_release")


async def test_a_look_that_fails_is_not_the_last_one(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loops that beat and look go on, whatever a step of theirs meets."""
    heard: list[str] = []
    store = await PostgresStore.open(
        url,
        clock=lambda: 1_790_000_000_000,
        notice=lambda event, **evidence: heard.append(str(evidence)),
    )
    try:
        tries: list[BaseException] = [
            asyncpg.InterfaceError("connection is closed"),
            asyncpg.InternalClientError("unexpected"),
            StoreUnavailable("away"),
            ZeroDivisionError("a defect"),
        ]
        done = asyncio.Event()

        async def look() -> None:
            if tries:
                raise tries.pop()
            done.set()

        monkeypatch.setattr(store, "look", look)
        async with asyncio.timeout(LIMIT_S):
            await done.wait()
        assert len(heard) == 1
        assert "a defect" in heard[0]
    finally:
        await store.close()


def told_by_the_server(code: str) -> asyncpg.PostgresError:
    found: asyncpg.PostgresError = asyncpg.PostgresError.new({"C": code, "M": "as it says"})
    return found


JUDGED: Sequence[tuple[Fault, Sequence[str]]] = [
    (Fault.AGAIN, ["40001", "40P01", "23505", "55P03", "57014", "0A000"]),
    (Fault.ENVIRONMENT, ["53100", "53200", "53300", "57P01", "57P02", "57P03", "58030", "XX001"]),
    (Fault.ENVIRONMENT, ["08006", "25006", "25P03", "28P01", "28000", "3D000", "42501", "42P01"]),
    (Fault.JOB, ["22021", "22003", "23502", "42703", "25P02"]),
]


@pytest.mark.parametrize(("fault", "codes"), JUDGED)
def test_what_the_server_says_is_judged_by_its_code(fault: Fault, codes: Sequence[str]) -> None:
    for code in codes:
        error = told_by_the_server(code)
        assert judge(error) is fault, code
        assert owns(error) is not code.startswith("22"), code


def test_what_asyncpg_says_by_itself_is_judged_too() -> None:
    for error in (
        asyncpg.InterfaceError("pool is closed"),
        asyncpg.InternalClientError(),
        OSError(),
        TimeoutError(),
    ):
        assert judge(error) is Fault.ENVIRONMENT
        assert owns(error)
    for mistake in (asyncpg.DataError("$1"), ValueError(), KeyError()):
        assert judge(mistake) is Fault.JOB
        assert not owns(mistake)
    for end in (MemoryError(), SystemExit(), StoreBroken()):
        assert judge(end) is Fault.END

"""A store moves from SQLite to PostgreSQL: everything is there, or nobody is told that it is."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from receiver.clock import MINUTE, AgreedClock
from receiver.errors import CannotStart, SchemaTooNew, StoreLocked
from receiver.feed import Place
from receiver.store.moving import source as source_module
from receiver.store.moving.move import move
from receiver.store.moving.source import Source
from receiver.store.moving.tables import SHARED_ONLY, TABLES, Sum
from receiver.store.moving.target import Target
from receiver.store.postgres import PostgresStore
from receiver.store.protocol import Query, Store
from receiver.store.sqlite import SqliteStore
from tests.doubles import ROOT, START, FakeClock, assembled
from tests.make import endpoint, registration, success, uuid
from tests.postgres import Server, programs
from tests.receiver.shell import reelhook
from tests.receiver.store.suite import arrival_of, claim
from tests.receiver.test_access_walk import furnished

NOW = START + MINUTE
KEYED = {"idempotency-key": "once"}


async def lived(folder: Path) -> None:
    """A store with something in every table."""
    async with assembled(folder) as receiver:
        api, store = receiver.client, receiver.store
        await furnished(receiver)
        wanted = {"url": "https://example.com/other", "rate_limit": 2.5, "ordered": True}
        await api.post("/v1/endpoints", json=wanted, headers=KEYED)
        for number in range(2, 8):
            await store.register(registration(uuid(number), model="pixverse:1@6", tags={"a": "ü"}))
            await store.record(arrival_of(uuid(number), success(number, uuid(number))))
        (event, *_) = (await store.events(Query())).data
        await api.post(f"/v1/events/{event.id}/replay")
        await api.post("/v1/login-links")
        await claim(store)  # under way when the receiver is killed
        with closing(sqlite3.connect(store.path)) as connection:
            connection.execute("INSERT INTO alerts (event_id) VALUES (7)")
            connection.execute("INSERT INTO ended_sessions VALUES ('x', 8)")
            connection.execute("INSERT INTO answers VALUES ('admin', 'k', x'00', 1, 0, NULL, NULL)")
            connection.commit()


FIRST, LAST = (f"(SELECT {end}(n) FROM tasks)" for end in ("min", "max"))


def path_in(folder: Path) -> Path:
    return folder / "reelhook.db"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    asyncio.run(lived(tmp_path))
    return path_in(tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The file of a store that has little in it."""

    async def fill() -> None:
        async with await SqliteStore.open(path_in(tmp_path), clock=FakeClock()) as store:
            await store.add_endpoint(endpoint())
            arrivals = [arrival_of(uuid(number), success(number)) for number in range(40)]
            await asyncio.gather(*[store.record(arrival) for arrival in arrivals])

    asyncio.run(fill())
    return path_in(tmp_path)


async def everything(store: Store) -> dict[str, Any]:
    """What a store says of all that is in it."""
    whole = Query(limit=200)
    tasks, deliveries = await store.tasks(whole), await store.deliveries(whole)
    return {
        "instance": store.instance,
        "tasks": tasks,
        "results": [await store.results(task.id) for task in tasks.data],
        "callbacks": await store.callbacks(whole, whole=True),
        "endpoints": await store.endpoints(whole),
        "events": await store.events(whole, whole=True),
        "told": await store.told(Place(0, 0)),
        "deliveries": [await store.delivery(delivery.id) for delivery in deliveries.data],
        "dead": await store.dead_letters(whole),
        "jobs": await store.jobs(whole),
        "audit": await store.audit(whole),
        "tokens": await store.api_tokens(whole),
        "costs": await store.costs(whole),
        "alerts": await store.alerts(9),
        "ended": await store.is_ended("x"),
        "due": await store.next_due(),
    }


async def of_sqlite(path: Path) -> dict[str, Any]:
    async with await SqliteStore.open(path, clock=FakeClock(NOW)) as store:
        return await everything(store)


async def of_postgres(url: str, then: Callable[[Store], Any] | None = None) -> dict[str, Any]:
    async with await PostgresStore.open(url, clock=FakeClock(NOW)) as store:
        found = await everything(store)
        if then is not None:
            await then(store)
        return found


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_all_that_is_read_from_one_is_read_from_the_other(path: Path, postgres: Server) -> None:
    """And its dump, restored into a third database, says the same."""
    url = postgres.empty()
    moved = move(path, url, now=NOW)
    assert moved.is_done
    assert {table.name for table in moved.tables if not table.source.rows} == set()
    assert {table.name: table.changed for table in moved.tables if table.changed} == {}
    before = asyncio.run(of_sqlite(path))
    restored = dumped_and_restored(postgres, url)

    async def goes_on(store: Store) -> None:
        """Numbers that the database gives are above all that were given."""
        greatest = max(event.seq for event in before["events"].data)
        await store.record(arrival_of(uuid(99), success(99)))
        assert (await store.newest_place()).seq > greatest
        api = {delivery.state.value for delivery in before["deliveries"]}
        assert "sending" not in api

    assert asyncio.run(of_postgres(url, goes_on)) == before
    assert asyncio.run(of_postgres(restored, goes_on)) == before
    for name, given in (("events", "seq"), ("resends", "n"), ("audit", "seq")):
        sequence = f"SELECT last_value FROM {name}_{given}_seq"
        newest = f"SELECT max({given}) FROM {name}"
        database = url.rpartition("/")[2]
        assert int(postgres.psql(sequence, database)) >= int(postgres.psql(newest, database))


def dumped_and_restored(postgres: Server, url: str) -> str:
    """The URL of a database that pg_restore made of a dump."""
    folder, target = programs(), postgres.empty()
    assert folder is not None
    dump = subprocess.run(
        [str(folder / "pg_dump"), "--format=custom", url], check=True, capture_output=True
    ).stdout
    command = [str(folder / "pg_restore"), "--exit-on-error", "--no-owner", f"--dbname={target}"]
    subprocess.run(command, input=dump, check=True, capture_output=True)
    return target


def test_what_is_cut_short_goes_on_and_nobody_starts_meanwhile(
    small: Path, tmp_path: Path, postgres: Server
) -> None:
    url = postgres.empty()
    command = [sys.executable, "-m", f"{__package__}.moving_away", str(small), url, "9"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "results\n":
            assert line in ("meta\n", "tasks\n")
            process.stdin.write("\n")
            process.stdin.flush()
        process.send_signal(signal.SIGKILL)  # tasks are there, and some results
    database = url.rpartition("/")[2]
    assert postgres.psql("SELECT count(*) FROM results", database) == "9"

    with pytest.raises(CannotStart, match="moved into"):
        asyncio.run(of_postgres(url))
    other = tmp_path / "other"
    other.mkdir()
    asyncio.run(of_sqlite(path_in(other)))  # makes it
    with pytest.raises(CannotStart, match="another store"):
        move(path_in(other), url, now=NOW)

    seen: list[str] = []
    moved = move(small, url, now=NOW, told=lambda table, rows: seen.append(table))
    assert moved.is_done
    assert "tasks" not in seen
    assert asyncio.run(of_postgres(url)) == asyncio.run(of_sqlite(small))


def test_a_row_that_differs_is_found(small: Path, postgres: Server) -> None:
    """Before it is done, and when it is asked for once more."""
    url = postgres.empty()
    database = url.rpartition("/")[2]

    def changed(table: str, rows: int) -> None:
        if table == "events":
            postgres.psql(f"UPDATE tasks SET cost = cost + 1 WHERE n = {FIRST}", database)

    moved = move(small, url, now=NOW, told=changed)
    assert [table.name for table in moved.tables if not table.is_same] == ["tasks"]
    with pytest.raises(CannotStart):
        asyncio.run(of_postgres(url))
    postgres.psql(f"UPDATE tasks SET cost = cost - 1 WHERE n = {FIRST}", database)
    assert move(small, url, now=NOW).is_done
    again = move(small, url, now=NOW)
    assert (again.is_done, again.before) == (True, True)
    postgres.psql("DELETE FROM deliveries WHERE event_id = (SELECT min(id) FROM events)", database)
    names = [table.name for table in move(small, url, now=NOW).tables if not table.is_same]
    assert names == ["deliveries"]

    said = reelhook(small.parent, "migrate-store", f"sqlite:///{small}", url, "--json")
    assert said.code == 1
    assert said.json[0]["done"] is False
    differing = [one["table"] for one in said.json[0]["tables"] if not one["same"]]
    assert differing == ["deliveries"]


def test_what_postgres_can_not_keep_is_replaced_and_counted(small: Path, postgres: Server) -> None:
    sql(
        small,
        f"UPDATE tasks SET model = 'a' || char(0) || 'b', client_ref = char(0) WHERE n = {FIRST}",
        f"UPDATE tasks SET platform_id = CAST(x'ff61' AS TEXT) WHERE n = {LAST}",
        "UPDATE endpoints SET description = 'ü' || char(0)",
        f"UPDATE results SET key = key || char(0) WHERE task_n = {FIRST}",
    )
    url = postgres.empty()
    moved = move(small, url, now=NOW)
    assert moved.is_done
    changed = {table.name: table.changed for table in moved.tables if table.changed}
    assert changed == {"tasks": 3, "endpoints": 1, "results": 1}
    database = url.rpartition("/")[2]
    query = "SELECT model, client_ref, platform_id FROM tasks WHERE"
    first = postgres.psql(f"{query} n = {FIRST}", database)
    last = postgres.psql(f"{query} n = {LAST}", database)
    assert (first, last) == ("a\ufffdb|\ufffd|", "||\ufffda")


def test_a_place_is_found_again_whatever_the_key_holds(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(
        small,
        f"UPDATE results SET key = 'k' || char(0) WHERE task_n = {FIRST}",
        f"UPDATE results SET key = CAST(x'6bff' AS TEXT) WHERE task_n = {LAST}",
        *(f"INSERT INTO login_codes VALUES (x'{number:02x}ff', 1, 'admin')" for number in range(9)),
    )
    monkeypatch.setattr(source_module, "ROWS", 1)
    with Source(small, now=NOW, dry_run=True) as source:
        for name in ("results", "login_codes", "meta"):
            (table,) = (table for table in TABLES if table.name == name)
            found, place = list[Any](), None
            while batch := next(source.batches(table, place), None):
                found += batch.rows
                place = batch.place
            assert Sum().plus(found) == source.sum(table)
            assert len(found) == source.count(table)


def test_it_refuses_whoever_is_at_work(small: Path, tmp_path: Path, postgres: Server) -> None:
    url = postgres.empty()

    async def runs() -> None:
        clock = AgreedClock()  # `now` is another time than the server's
        async with await PostgresStore.open(url, clock=clock, agree=clock.agree):
            with pytest.raises(CannotStart, match="Processes use"):
                await asyncio.to_thread(move, small, url, now=NOW)

    asyncio.run(runs())
    with pytest.raises(CannotStart, match="another store"):
        move(small, url, now=NOW)

    async def held() -> None:
        async with await SqliteStore.open(small, clock=FakeClock()):
            with pytest.raises(StoreLocked):
                await asyncio.to_thread(move, small, postgres.empty(), now=NOW)

    asyncio.run(held())
    with pytest.raises(CannotStart, match="no database"):
        move(tmp_path / "absent.db", url, now=NOW)
    with pytest.raises(CannotStart, match="can't be used"):
        move(small, "postgresql://postgres@127.0.0.1:1/x", now=NOW)
    sql(small, "PRAGMA user_version = 999")
    with pytest.raises(SchemaTooNew):
        move(small, postgres.empty(), now=NOW)


def test_a_dry_run_changes_nothing(small: Path, postgres: Server) -> None:
    url = postgres.empty()
    before = small.read_bytes()
    said = reelhook(small.parent, "migrate-store", f"sqlite:///{small}", url, "--dry-run")
    assert (said.code, "tasks" in said.out, "Nothing was changed" in said.err) == (0, True, True)
    assert small.read_bytes() == before
    query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert postgres.psql(query, url.rpartition("/")[2]) == "0"
    other_way = reelhook(small.parent, "migrate-store", url, f"sqlite:///{small}")
    assert (other_way.code, "SQLite to PostgreSQL alone" in other_way.err) == (2, True)


def test_no_table_and_no_column_is_forgotten(small: Path, postgres: Server) -> None:
    url = postgres.wiped()
    asyncio.run(of_postgres(url))
    database = url.rpartition("/")[2]
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    theirs = {*postgres.psql(query, database).split()}
    ours = {table.name for table in TABLES}
    assert ours | {*SHARED_ONLY} == theirs
    with closing(sqlite3.connect(small)) as connection:
        query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        assert {name for (name,) in connection.execute(query)} == ours
    with Source(small, now=NOW, dry_run=True) as source, Target(url) as target:
        more = {
            (table.name, column)
            for table in TABLES
            for column in target.columns(table) ^ {*source.columns(table)}
        }
    assert more == {("deliveries", "leased_by")}

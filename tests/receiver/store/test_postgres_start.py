"""How a process finds its PostgreSQL: migrations, whose database it is, and what a URL may be."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from receiver.errors import CannotStart, SchemaTooNew
from receiver.store.postgres import PostgresStore, migrate
from receiver.store.postgres.address import checked, host_of
from receiver.store.postgres.connection import asked_whether_pooled
from receiver.store.seal import Seal
from tests.doubles import FakeClock
from tests.make import arrival, endpoint, success
from tests.postgres import Server
from tests.receiver.store.processes import LIMIT_S, ask, intruder, process, processes, waiting

pytestmark = pytest.mark.anyio

SECRET = "tr0ub4dor"


async def opened(url: str, seal: Seal | None = None) -> None:
    store = await PostgresStore.open(url, clock=FakeClock(), seal=seal)
    await store.close()


async def refusal(url: str) -> str:
    """Why a process does not start; the password is nowhere in it, nor in what caused it."""
    with pytest.raises(CannotStart) as refused:
        await opened(url)
    error: BaseException | None = refused.value
    said = str(error)
    while error is not None:
        assert SECRET not in f"{error!r} {error} {getattr(error, 'evidence', '')}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return said


# Whose database it is


async def test_processes_that_start_at_once_make_the_tables_once(postgres: Server) -> None:
    url = postgres.empty()
    stores = await asyncio.gather(*[process(url, seed=n + 1) for n in range(4)])
    try:
        assert len({store.instance for store in stores}) == 1
        rows = await ask(url, "SELECT number FROM schema_migrations ORDER BY number")
        assert [row[0] for row in rows] == [number for number, _ in migrate.migrations()]
        await asyncio.gather(*[store.record(arrival(success(1))) for store in stores])
    finally:
        for store in stores:
            await store.close()


async def test_who_starts_waits_for_whoever_migrates(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that takes: the role's time-outs are for what is at work."""
    url = postgres.empty()
    name = urlsplit(url).path.removeprefix("/")
    known = migrate.migrations()
    slow = known[-1][0] + 1, (held := "SELECT pg_advisory_xact_lock(7)")
    monkeypatch.setattr(migrate, "migrations", lambda: [*known, slow])
    async with intruder(url, held) as raw:
        await ask(url, f"ALTER DATABASE {name} SET statement_timeout = '1s'")
        starting = [asyncio.create_task(process(url, seed=n + 1)) for n in range(2)]
        await waiting(postgres.url(), 2)  # the one for the lock, the other for the first
        await asyncio.sleep(1.1)  # longer than the time-out
        await raw.execute("COMMIT")
        for store in await asyncio.gather(*starting):
            await store.close()


async def test_a_newer_schema_is_taken_only_if_it_says_so(postgres: Server) -> None:
    newer = postgres.empty()
    await opened(newer)
    number = migrate.migrations()[-1][0]
    await ask(newer, "INSERT INTO schema_migrations (number) VALUES ($1)", number + 1)
    with pytest.raises(SchemaTooNew, match=f"schema {number + 1}, this release knows {number}"):
        await opened(newer)
    said = (
        "INSERT INTO meta (name, value) VALUES ('compatible_from', $1)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    )
    await ask(newer, said, str(number + 1))
    with pytest.raises(SchemaTooNew):
        await opened(newer)
    await ask(newer, said, str(number))
    await opened(newer)
    assert (await ask(newer, "SELECT max(number) FROM schema_migrations"))[0][0] == number + 1


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE invoices (id INT)",
        "CREATE TABLE schema_migrations (version TEXT); CREATE TABLE users (id INT)",  # Rails
        "CREATE TABLE meta (name TEXT, value TEXT)",
    ],
)
async def test_another_programs_database_is_not_filled(postgres: Server, theirs: str) -> None:
    url = postgres.empty()
    postgres.psql(theirs, urlsplit(url).path.removeprefix("/"))
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    before = await ask(url, tables)
    assert "another program" in await refusal(url)
    assert await ask(url, tables) == before


async def test_a_view_that_a_host_makes_is_nobodys(postgres: Server) -> None:
    url = postgres.empty()
    database = urlsplit(url).path.removeprefix("/")
    postgres.psql("CREATE VIEW pg_stat_seen AS SELECT 1 AS one", database)
    await opened(url)


async def test_nothing_is_left_of_a_start_that_failed(postgres: Server) -> None:
    url = postgres.empty()
    postgres.psql("CREATE TABLE invoices (id INT)", urlsplit(url).path.removeprefix("/"))
    tasks = len(asyncio.all_tasks())
    await refusal(url)
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    async with asyncio.timeout(LIMIT_S):
        while (await ask(url, query))[0][0] > 1:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
    assert len(asyncio.all_tasks()) == tasks


async def test_two_processes_seal_what_stood_in_clear_at_once(postgres: Server) -> None:
    url = postgres.empty()
    async with processes(url, 1) as (store,):
        for _ in range(5):
            await store.add_endpoint(endpoint(secret="whsec_b25l"))
    key = base64.urlsafe_b64encode(bytes(32)).decode()
    seals = [Seal([key]) for _ in range(2)]
    await asyncio.gather(*[opened(url, seal) for seal in seals])
    for (text,) in await ask(url, "SELECT secrets FROM endpoints"):
        assert "whsec_" not in text
    with pytest.raises(CannotStart):
        await opened(url)


# How it is reached


@pytest.fixture
def guarded(postgres: Server) -> Iterator[str]:
    """The URL of a database whose role has to show a password, with marks that URLs have."""
    url = postgres.empty()
    name = urlsplit(url).path.removeprefix("/")
    postgres.psql(f"CREATE ROLE {name} LOGIN PASSWORD 'p@ss/{SECRET}?#%:&'")
    postgres.psql(f"ALTER DATABASE {name} OWNER TO {name}")
    rules = Path(postgres.psql("SHOW hba_file"))
    before = rules.read_text()
    rules.write_text(f"host all {name} 127.0.0.1/32 scram-sha-256\n{before}")
    postgres.psql("SELECT pg_reload_conf()")
    yield url.replace("postgres@", f"{name}:p%40ss%2F{SECRET}%3F%23%25%3A%26@")
    rules.write_text(before)
    postgres.psql("SELECT pg_reload_conf()")


async def test_a_password_may_have_any_mark(guarded: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with processes(guarded, 1) as (store,):
        await store.record(arrival(success(1)))
        assert SECRET not in repr(vars(store.__class__)) + str(store.host)
    async with processes(guarded.replace("postgresql:", "postgres:"), 1):
        pass
    wrong = guarded.replace("%26@", "@")
    assert "password authentication failed" in await refusal(wrong)
    assert "password" in await refusal(guarded.replace(f":p%40ss%2F{SECRET}%3F%23%25%3A%26", ""))
    assert "127.0.0.1" in await refusal(wrong)
    assert SECRET not in caplog.text


async def test_a_server_on_a_socket_is_reached(postgres: Server) -> None:
    url = postgres.empty()
    database = urlsplit(url).path.removeprefix("/")
    folder = postgres.psql("SHOW unix_socket_directories")
    assert folder
    by_socket = f"postgresql:///{database}?host={folder}&port={postgres.port}&user=postgres"
    async with processes(by_socket, 1) as (store,):
        await store.record(arrival(success(1)))
        assert store.host == "a local socket"


UNREADABLE = [
    f"postgresql://user:pa/{SECRET}@host/db",
    f"postgresql://user:pa#{SECRET}@host/db",
    f"postgresql://user:pa?{SECRET}@host/db",
    f"postgresql://user:{SECRET}@host:port/db",
    f"postgresql://user:{SECRET}@[::1/db",
    f"postgresql://user:{SECRET}\N{DOUBLE EXCLAMATION MARK}@ho\N{FULLWIDTH COMMERCIAL AT}st/db",
    f"mysql://user:{SECRET}@host/db",
    f"postgresql//user:{SECRET}@host/db",
    f"{SECRET}",
]


@pytest.mark.parametrize("url", UNREADABLE)
async def test_a_url_that_is_none_is_refused_without_telling_it(url: str) -> None:
    said = await refusal(url)
    assert "DATABASE_URL can't be read" in said
    assert "%2F" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.rpartition("/")[0] + "/nowhere", "nowhere"),
        (lambda url: url.replace("//postgres:", "//nobody:"), "nobody"),
        (lambda url: f"{url}?sslmode=require", "SSL"),
        (lambda url: f"{url}?sslmode=sometimes", "sslmode"),
        (lambda url: f"{url}?sslmode=verify-full&sslrootcert=/nowhere.crt", "/nowhere.crt"),
        (lambda url: f"{url}?pgbouncer=true", "pgbouncer"),
    ],
)
async def test_what_the_server_does_not_take_is_told(
    postgres: Server, change: object, words: str
) -> None:
    assert callable(change)
    url = postgres.url().replace("postgres@", f"postgres:{SECRET}@")
    said = await refusal(change(url))
    assert words in said
    assert "DATABASE_URL" in said


async def test_a_server_that_is_not_there_is_named() -> None:
    url = f"postgresql://user:{SECRET}@127.0.0.1:1/db"
    said = await refusal(url)
    assert "127.0.0.1:1" in said
    assert "refused" in said or "Connect call failed" in said


def test_the_host_is_what_a_person_calls_it() -> None:
    for url, host in {
        "postgresql://user:secret@db.example.com:5432/name": "db.example.com:5432",
        "postgresql:///name?host=/run/postgresql": "a local socket",
        "postgresql://user:secret@%2Frun%2Fpostgresql/name": "a local socket",
        "postgresql:///name": "a local socket",
        "postgresql:///name?host=db.example.com&password=secret": "db.example.com",
        "postgres://user:secret@[::1]:5432,other:5433/name": "[::1]:5432,other:5433",
    }.items():
        assert host_of(url) == host
        assert checked(url).scheme.startswith("postgres")


async def test_a_server_itself_is_no_pooler(postgres: Server) -> None:
    assert not await asked_whether_pooled(postgres.url())

"""A backup is whole, or not there; a restore lets nothing of the database before it through."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from receiver import directories
from receiver.backups import BackupMade
from receiver.errors import (
    BackupElsewhere,
    CannotStart,
    Conflict,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
)
from receiver.store.migrate import migrations
from receiver.store.postgres import PostgresStore
from receiver.store.protocol import Query, TasksAsked
from receiver.store.sqlite import SqliteStore, backup, copies
from receiver.store.sqlite import store as module
from receiver.store.sqlite.copies import NotWhole, contents
from receiver.store.sqlite.restore import restore
from receiver.tasks import Task
from tests.doubles import START, Dice, FakeClock
from tests.make import endpoint, registration, success, uuid
from tests.postgres import Server
from tests.receiver.store.suite import arrival_of

pytestmark = pytest.mark.anyio

Opener = Callable[[], Awaitable[SqliteStore]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reelhook.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def open_store(path: Path, clock: FakeClock) -> Opener:
    return lambda: SqliteStore.open(path, clock=clock, entropy=Dice().bits)


@pytest.fixture
async def store(open_store: Opener) -> AsyncIterator[SqliteStore]:
    async with await open_store() as found:
        await found.add_endpoint(endpoint())
        yield found


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def log_of(path: Path) -> Path:
    return Path(f"{path}-wal")


def is_there(path: Path, end: str) -> bool:
    return Path(f"{path}{end}").exists()


async def record(store: SqliteStore, *numbers: int) -> None:
    arrivals = [arrival_of(uuid(number), success(number)) for number in numbers]
    await asyncio.gather(*[store.record(arrival) for arrival in arrivals])


async def tasks(store: SqliteStore) -> set[str]:
    return {task.id for task in (await store.tasks(Query(limit=200))).data}


async def test_a_backup_is_of_one_moment_while_callbacks_go_on(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer commits between any two pages: a copy that heeded it would never end, or tear."""
    await record(store, *range(40))
    loop, monkey = asyncio.get_running_loop(), backup._stopping
    more = iter(range(100, 130))

    def writing(stop: threading.Event) -> Callable[..., None]:
        check = monkey(stop)

        def progress(*pages: int) -> None:
            number = next(more, None)
            if number is None:
                raise sqlite3.OperationalError("the copy begins anew")
            asyncio.run_coroutine_threadsafe(record(store, number), loop).result()
            check(*pages)

        return progress

    monkeypatch.setattr(backup, "PAGES", 16)
    monkeypatch.setattr(backup, "_stopping", writing)
    made = await store.backup(folder, None)
    assert next(more) > 104
    assert {made.counts[name] for name in ("tasks", "results", "callbacks")} == {40}
    found = Path(made.path)
    whole = read(found)
    assert (hashlib.sha256(whole).hexdigest(), len(whole)) == (made.sha256, made.bytes)
    assert (mode(found), mode(folder)) == (0o600, 0o700)
    assert (made.instance, made.schema_version) == (store.instance, len(migrations()))
    assert names(folder) == {found.name}  # no log, no half one


async def test_the_writer_does_not_checkpoint_meanwhile(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    real = backup.back_up

    def watched(*given: object) -> BackupMade:
        seen.append(store._engine.reading)
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "back_up", watched)
    await store.backup(folder, None)
    assert (seen, store._engine.reading) == ([True], False)
    await record(store, 1)
    store._engine.reading = True
    store._engine.tidy(idle=False, shrunk=True)
    assert store.wal_size > 0
    store._engine.reading = False


async def test_the_newest_stay_and_strangers_files_too(
    store: SqliteStore, folder: Path, clock: FakeClock
) -> None:
    directories.make(folder)
    theirs = folder / "reelhook-ffffffff-20200101T000000000Z.db"
    theirs.touch()
    left = folder / f"reelhook-{store.instance[:8]}-20200101T000000000Z.db.part"
    left.touch()  # by a receiver that was killed
    made = []
    for _ in range(3):
        made.append(await store.backup(folder, 2))
        clock.now += 1 if len(made) == 1 else 0  # two within one millisecond
    assert made[2].dropped == [Path(made[0].path).name]
    assert names(folder) == {theirs.name, *(Path(one.path).name for one in made[1:])}


async def test_one_at_a_time_and_a_stop_ends_it(
    open_store: Opener, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    real = backup._copied

    def waiting(wanted: backup.Wanted, part: Path, stop: threading.Event) -> copies.Contents:
        begun.set()
        stop.wait()
        return real(wanted, part, stop)

    monkeypatch.setattr(backup, "_copied", waiting)
    store = await open_store()
    first = asyncio.create_task(store.backup(folder, None))
    await asyncio.to_thread(begun.wait)
    with pytest.raises(Conflict):
        await store.backup(folder, None)
    await store.close()
    with pytest.raises(StoreUnavailable, match="given up"):
        await first
    assert names(folder) == set()


async def test_what_is_not_whole_never_gets_its_name(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(part: Path, **options: object) -> copies.Contents:
        os.truncate(part, part.stat().st_size - 4_096)
        return contents(part, thorough=False)

    monkeypatch.setattr(backup, "contents", torn)
    with pytest.raises(StoreUnavailable, match=r"malformed|damaged"):
        await store.backup(folder, None)
    assert names(folder) == set()


async def test_no_room_and_no_directory_are_said_before_anything_is_written(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "LEAST_FREE", 1 << 60)
    with pytest.raises(StoreFull, match="REELHOOK_BACKUP_DIR"):
        await store.backup(folder, None)
    assert names(folder) == set()
    with pytest.raises(StoreUnavailable, match="Not a directory"):
        await store.backup(store.path / "inside", None)


async def test_postgres_has_its_own_tools(postgres: Server, folder: Path, clock: FakeClock) -> None:
    store = await PostgresStore.open(postgres.wiped(), clock=clock)
    try:
        with pytest.raises(BackupElsewhere, match="pg_dump"):
            await store.backup(folder, None)
    finally:
        await store.close()


async def test_a_restore_puts_back_what_was(
    open_store: Opener, path: Path, folder: Path, clock: FakeClock
) -> None:
    store = await open_store()
    await record(store, 1)
    await store.register(registration(uuid(2)))
    made = await store.backup(folder, None)
    await record(store, 3)
    with pytest.raises(StoreLocked):
        restore(Path(made.path), path, now=START)
    log = read(log_of(path))
    await store.close()
    write(log_of(path), log)  # as a kill leaves it
    write(Path(f"{path}-shm"), b"of the log")

    before = {entry.name: entry.read_bytes() for entry in path.parent.iterdir() if entry.is_file()}
    tried = restore(Path(made.path), path, now=START, dry_run=True)
    assert tried.contents.counts == made.counts
    after = {entry.name: entry.read_bytes() for entry in path.parent.iterdir() if entry.is_file()}
    assert after == before

    clock.now += 60_000
    found = restore(Path(made.path), path, now=clock())
    assert not is_there(path, "-wal")
    assert not is_there(path, "-shm")
    assert (found.previous_instance, found.due) == (made.instance, 1)
    async with await open_store() as again:
        assert again.instance == made.instance
        assert await tasks(again) == {uuid(1), uuid(2)}
        assert [task.id for task in await _claimed(again, clock())] == [uuid(2)]

    # What was replaced is a database with its own log: it can take the place again.
    assert found.previous is not None
    assert read(log_of(found.previous)) == log
    back = restore(found.previous, path, now=clock())
    assert back.contents.counts["tasks"] == 3


async def _claimed(store: SqliteStore, now: int) -> list[Task]:
    asked = TasksAsked(now=now, due_by=now, lease_until=now + 1, limit=9, platforms=["runware"])
    return [*await store.claim_tasks(asked)]


@contextmanager
def open_elsewhere(path: Path) -> Iterator[None]:
    """Another process has read the database, and holds it open."""
    look = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM meta')"
    code = f"{look}.fetchall(); print(flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        yield
        other.communicate()


async def test_a_restore_waits_until_nobody_else_has_it_open(
    open_store: Opener, path: Path, folder: Path
) -> None:
    """Litestream would go on with the file that was replaced, and keep nothing of what comes."""
    store = await open_store()
    made = await store.backup(folder, None)
    await store.close()
    with open_elsewhere(path), pytest.raises(StoreLocked, match="Litestream"):
        restore(Path(made.path), path, now=START)
    assert restore(Path(made.path), path, now=START).previous is not None


async def test_what_root_restores_is_the_receivers(
    open_store: Opener, path: Path, folder: Path
) -> None:
    store = await open_store()
    made = await store.backup(folder, None)
    await store.close()
    nobody = 65_534 if os.geteuid() == 0 else os.geteuid()
    os.chown(path, nobody, -1)
    restore(Path(made.path), path, now=START)
    files = (path, Path(f"{path}.lock"))
    assert [(os.stat(file).st_uid, mode(file)) for file in files] == [(nobody, 0o600)] * 2


async def test_a_log_that_stays_is_played_into_the_wrong_database(
    open_store: Opener, path: Path, folder: Path
) -> None:
    """The control: without its removal the restore above would not be one."""
    store = await open_store()
    await record(store, 1)
    made = await store.backup(folder, None)
    await record(store, *range(3, 60))
    log = read(log_of(path))
    await store.close()
    shutil.copyfile(made.path, path)
    write(log_of(path), log)
    with closing(sqlite3.connect(path)) as connection:
        try:
            found = {
                connection.execute("SELECT count(*) FROM tasks").fetchone()[0],
                connection.execute("PRAGMA integrity_check(1)").fetchone()[0],
            }
        except sqlite3.DatabaseError as error:
            found = {str(error)}
    assert found != {1, "ok"}


async def test_a_restore_that_is_cut_short_lets_nothing_start(
    open_store: Opener, path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each step a power cut: the next start refuses, or finds one database or the other."""
    store = await open_store()
    await record(store, 1)
    made = await store.backup(folder, None)
    await record(store, 2)
    log = read(log_of(path))
    await store.close()
    write(log_of(path), log)
    started = []
    for step in range(1, 12):
        for entry in path.parent.glob("*.restor*"):
            entry.unlink()
        left = _steps(monkeypatch, step)
        try:
            restore(Path(made.path), path, now=START + step)
        except KeyboardInterrupt:
            pass
        else:
            assert step > 4
            break
        finally:
            monkeypatch.undo()
        assert left() == 0
        if is_there(path, ".restoring"):
            with pytest.raises(CannotStart, match="restore"):
                await open_store()
            started.append(False)
            restore(Path(made.path), path, now=START + step)
        started.append(True)
        async with await open_store() as again:
            assert await tasks(again) <= {uuid(1), uuid(2)}
    assert False in started


def _steps(monkeypatch: pytest.MonkeyPatch, count: int) -> Callable[[], int]:
    """Power fails at this change of a name."""
    left = count
    for name in ("rename", "unlink"):
        real = getattr(Path, name)

        def counted(
            self: Path, *given: object, _real: Callable[..., None] = real, **o: object
        ) -> None:
            nonlocal left
            if not left:
                return
            if self.name.endswith((".restore", ".restoring", ".db", "-wal", "-shm")):
                left -= 1
                if not left:
                    raise KeyboardInterrupt
            _real(self, *given, **o)

        monkeypatch.setattr(Path, name, counted)
    return lambda: left


async def test_a_file_that_is_no_backup_is_refused_before_anything_is_touched(
    open_store: Opener, path: Path, folder: Path, tmp_path: Path
) -> None:
    store = await open_store()
    await record(store, *range(30))
    made = Path((await store.backup(folder, None)).path)
    await store.close()
    before = read(path)

    def spoiled(name: str, spoil: Callable[[Path], object]) -> Path:
        copy = tmp_path / name
        shutil.copyfile(made, copy)
        spoil(copy)
        return copy

    def page_of(copy: Path) -> None:
        whole = bytearray(copy.read_bytes())
        whole[8 * 4_096 : 8 * 4_096 + 64] = b"\xff" * 64
        copy.write_bytes(whole)

    def sql(statement: str) -> Callable[[Path], None]:
        def run(copy: Path) -> None:
            with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                connection.execute(statement)

        return run

    refused = {
        "empty": lambda copy: copy.write_bytes(b""),
        "text": lambda copy: copy.write_bytes(b"no database" * 999),
        "cut": lambda copy: os.truncate(copy, copy.stat().st_size // 2),
        "page": page_of,
        "of another program": sql("PRAGMA application_id = 7"),
        "of a later release": sql(f"PRAGMA user_version = {len(migrations()) + 1}"),
        "an index that lies": lambda copy: _lying(copy),
    }
    for name, spoil in refused.items():
        copy = spoiled(name, spoil)
        with pytest.raises(NotWhole):
            restore(copy, path, now=START)
    for absent in (tmp_path / "none", tmp_path, path):
        with pytest.raises(CannotStart):
            restore(absent, path, now=START)
    assert read(path) == before
    assert [name for name in names(tmp_path) if "restor" in name or "replaced" in name] == []


def _lying(copy: Path) -> None:
    """A row that an index does not know."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'tasks_by_status'"
        ).fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_schema WHERE name = 'tasks_by_status'")
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE tasks SET status = 'failed' WHERE n = (SELECT min(n) FROM tasks)"
        )
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "INSERT INTO sqlite_schema VALUES ('index', 'tasks_by_status', 'tasks', ?,"
            " 'CREATE INDEX tasks_by_status ON tasks (status, n)')",
            (root,),
        )

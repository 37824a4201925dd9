"""Floor 2, edges: the SQLite store: one file, one writer, a lock against a second process."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from receiver.backups import BackupMade
from receiver.clock import Clock
from receiver.condition import StoreCondition
from receiver.errors import CannotStart, Conflict
from receiver.store.commits import Notice
from receiver.store.migrate import check_owner, make_shrinkable, migrate
from receiver.store.protocol import Store
from receiver.store.seal import Seal
from receiver.store.sqlite.backup import Wanted, back_up
from receiver.store.sqlite.engine import Connection, SqliteEngine, cut_log
from receiver.store.sqlite.lock import not_writable, take_lock
from receiver.store.sqlite.place import JOURNAL_LIMIT, LEAST_FREE, Place, check_place
from receiver.store.sqlite.readers import SqliteReaders
from receiver.store.sqlite.sealing import present, take_over
from receiver.store.sqlite.shrink import shrink
from receiver.store.verbs import answers, queue
from receiver.store.verbs.allowances import Allowances
from receiver.store.verbs.secrets import check_seal
from receiver.store.verbs.store import SqlStore
from receiver.store.writer import Transaction

# WAL and FULL: a commit is on disk when COMMIT returns, power cuts included (sqlite.org/pragma.html
# #pragma_synchronous). Checkpoints are the writer's, so the automatic ones are off.
PRAGMAS: Final = (
    ("journal_mode", "wal", "wal"),
    ("synchronous", "FULL", 2),
    ("busy_timeout", "5000", 5000),
    ("foreign_keys", "ON", 1),
    ("wal_autocheckpoint", "0", 0),
    ("journal_size_limit", str(JOURNAL_LIMIT), JOURNAL_LIMIT),
    ("trusted_schema", "OFF", 0),
)


class SqliteStore(SqlStore):
    """Everything that is kept, in one file. Use `open`."""

    _readers: SqliteReaders

    def __init__(
        self,
        path: Path,
        clock: Clock,
        entropy: Callable[[int], int],
        notice: Notice,
        least_free: int,
        rebuild: bool,
        seal: Seal,
    ) -> None:
        readers = SqliteReaders(str(path))
        super().__init__(clock, entropy, seal, readers, shrink=shrink, allowances=Allowances())
        self.path = path
        self._rebuild = rebuild
        self._lock: int | None = None
        self._place = Place(path, least_free=least_free)
        self._engine = SqliteEngine(
            self._connect, files=self._place, probe=self.probe, notice=notice
        )
        self._copying: asyncio.Task[BackupMade] | None = None
        self._stopping = threading.Event()
        self._start_writer(self._engine, notice)

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock,
        entropy: Callable[[int], int] = random.getrandbits,  # ids must differ, not be secret
        notice: Notice = lambda event, **evidence: None,
        least_free: int = LEAST_FREE,
        rebuild: bool = False,
        seal: Seal | None = None,
    ) -> Self:
        """Lock, migrate and open the database. Raises StoreLocked, SchemaTooNew, CannotStart.

        `notice` is told what an operator should know; below `least_free` bytes of room on the disk
        `admit` refuses. `rebuild` rewrites a file that can't shrink yet, which takes as much room.
        `seal` keeps endpoints' credentials; without one they stand in clear.
        """
        seal = seal or Seal()
        store = cls(check_place(path), clock, entropy, notice, least_free, rebuild, seal)
        store._lock = take_lock(store.path)
        try:
            await store._writer.start()
            await store._readers.open()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Commit what is queued and release the file. Raises StoreBroken when that failed."""
        self._stopping.set()
        try:
            if self._copying is not None:
                await asyncio.wait([self._copying])
            await super().close()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _connect(self) -> Connection:
        # Secrets and payloads are inside; SQLite gives -wal and -shm the mode of the database.
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise not_writable(self.path, error) from error
        connection = sqlite3.connect(
            self.path, isolation_level=None, cached_statements=1_024, factory=Connection
        )
        try:
            self._set_up(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise CannotStart(f"{self.path} can't be opened: {error}. {_remedy(error)}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: Connection) -> None:
        # Before the first pragma: what is not ours, or can't be opened, stays as it is.
        check_owner(connection)
        check_seal(connection, self._seal, present(connection))
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded by an empty file alone
        for name, value, expected in PRAGMAS:
            connection.execute(f"PRAGMA {name} = {value}")
            found = connection.execute(f"PRAGMA {name}").fetchone()[0]
            if found != expected:
                raise CannotStart(f"SQLite keeps {name} at {found!r}, not {expected!r}.")
        migrate(connection)
        take_over(connection, self._seal)
        if self._rebuild:
            make_shrinkable(connection)
        self._start(connection)
        # After a crash the log may show commits that no fsync ever confirmed. Once they are in the
        # database, what we answer about them (`duplicate`) is true after a power cut as well. Where
        # somebody reads, as Litestream does for ever, the writer tries again.
        cut_log(connection)
        assert self._lock is not None  # noqa: S101
        self._place.begin(self._lock)

    def _start(self, connection: Connection) -> None:
        self.go_on(connection)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT OR IGNORE INTO meta (name, value) VALUES ('instance', ?)",
            (secrets.token_hex(16),),
        )
        queue.release_all(Transaction(connection), self._clock())
        answers.drop_unfinished(connection)
        connection.execute("COMMIT")
        query = "SELECT value FROM meta WHERE name = 'instance'"
        self.instance = connection.execute(query).fetchone()[0]

    @property
    def wal_size(self) -> int:
        """Bytes of the write-ahead log at the last look."""
        return self._writer.wal_size

    def admit(self) -> None:
        """Whether a callback's body is worth reading, and there is room for it."""
        super().admit()
        self._place.admit()

    async def backup(self, folder: Path, keep: int | None) -> BackupMade:
        """Copy everything into a directory while callbacks go on."""
        if self._copying is not None and not self._copying.done():
            raise Conflict("A backup is being made already; wait for it to end.")
        wanted = Wanted(self.path, self.instance, folder, keep, self._clock())
        self._copying = asyncio.create_task(self._back_up(wanted))
        return await asyncio.shield(self._copying)  # who asked may go away

    async def _back_up(self, wanted: Wanted) -> BackupMade:
        self._engine.reading = True
        try:
            return await asyncio.to_thread(back_up, wanted, self._stopping)
        finally:
            self._engine.reading = False

    async def condition(self) -> StoreCondition:
        """How the store itself fares."""
        ((pages, size, schema),) = await self._reads.rows(
            "SELECT * FROM pragma_page_count, pragma_page_size, pragma_user_version"
        )
        return StoreCondition(
            engine="SQLite",
            version=sqlite3.sqlite_version,
            schema_version=schema,
            size=pages * size,
            log_size=self._writer.wal_size,
            free=self._place.free,
            refusal=self.refusal,
        )


def _remedy(error: sqlite3.DatabaseError) -> str:
    name = str(getattr(error, "sqlite_errorname", ""))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "Another program holds it; end that first."
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return "Look after the disk: the room that is left, and what dmesg says of it."
    return "Restore a backup; or move the file away, with its -wal file, to begin anew."


def _is_store(store: SqliteStore) -> Store:
    return store  # mypy proves that the class keeps the protocol

"""Floor 2, edges: the PostgreSQL store: any number of processes on one database."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable, Set
from pathlib import Path
from typing import Final, Self

from receiver import ids
from receiver.backups import BackupMade
from receiver.clock import Clock
from receiver.condition import Role, StoreCondition
from receiver.errors import BackupElsewhere, CannotStart, StoreUnavailable
from receiver.store.commits import Notice, Transaction
from receiver.store.postgres.address import host_of
from receiver.store.postgres.connection import PostgresConnection, lossy, time_of
from receiver.store.postgres.engine import PostgresEngine
from receiver.store.postgres.faults import owns, told
from receiver.store.postgres.migrate import migrate
from receiver.store.postgres.presence import BEAT, SEEN, SILENCE, Presence, process_of
from receiver.store.postgres.readers import PostgresReaders
from receiver.store.postgres.sealing import take_over
from receiver.store.protocol import Store
from receiver.store.seal import Seal
from receiver.store.verbs.allowances import KeptAllowances
from receiver.store.verbs.prune import keep_room
from receiver.store.verbs.secrets import check_seal
from receiver.store.verbs.store import SqlStore
from receiver.store.writer import each

Agree = Callable[[Callable[[], int]], object]

CHANNEL: Final = "reelhook"
LOOK: Final = 1.0  # seconds between looks at what others committed, heard of it or not
GATHER: Final = 0.02  # seconds in which several commits are one hint
MOST: Final = 1_000  # events of others that a look takes in

_BEGUN: Final = (
    "SELECT (SELECT value FROM meta WHERE name = 'instance'),"
    " (SELECT value FROM meta WHERE name = 'directory'),"
    " current_setting('synchronous_commit'), current_setting('fsync')"
)
_SINCE: Final = (
    "SELECT e.seq, t.id FROM events e LEFT JOIN tasks t ON t.n = e.task_n"
    " WHERE e.seq > ? ORDER BY e.seq LIMIT ?"
)
# What changes a task without an event: a registration, how its submit went, a revocation.
_REVISIONS: Final = "SELECT id, revision FROM tasks WHERE id = ANY(?::bytea[])"
# What makes work without an event: something is sent again, an endpoint was enabled.
_STIRS: Final = (
    "SELECT (SELECT max(n) FROM resends), (SELECT value FROM meta WHERE name = 'directory')"
)


class PostgresStore(SqlStore):
    """Everything that is kept, in a database that others write to as well. Use `open`."""

    _readers: PostgresReaders

    def __init__(
        self,
        url: str,
        clock: Clock,
        entropy: Callable[[int], int],
        notice: Notice,
        seal: Seal,
        role: Role,
        agree: Agree,
    ) -> None:
        readers = PostgresReaders(url)
        super().__init__(
            clock,
            entropy,
            seal,
            readers,
            shrink=keep_room,
            allowances=KeptAllowances(),
            is_shared=True,
        )
        assert self._process is not None  # noqa: S101
        self._presence = Presence(self._process, role)
        self._beat, self._leave = each(self._beat_once), each(self._presence.leave)
        self._release = each(self._presence.release_lapsed)
        self._agree = agree
        self.host = host_of(url)
        self._notice = notice
        self._directory_at = ""
        self._heard = asyncio.Event()
        self._seen = 0
        self._loops: list[asyncio.Task[None]] = []
        self._hint: asyncio.TimerHandle | None = None
        self._hints: set[asyncio.Task[None]] = set()
        self._engine = PostgresEngine(url, set_up=self._set_up, begun=self._begun, probe=self.probe)
        self._start_writer(self._engine, notice)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        clock: Clock,
        entropy: Callable[[int], int] = random.getrandbits,  # ids must differ, not be secret
        notice: Notice = lambda event, **evidence: None,
        seal: Seal | None = None,
        role: Role = Role.ALL,
        agree: Agree = lambda ask: None,
    ) -> Self:
        """Connect, and migrate. Raises SchemaTooNew, CannotStart.

        `url` as libpq takes it. `notice` is told what an operator should know; `seal` keeps
        endpoints' credentials, without one they stand in clear. `agree` is given what asks the
        server for its time, at the start and with each beat.
        """
        store = cls(url, clock, entropy, notice, seal or Seal(), role, agree)
        try:
            await store._writer.start()
            store._readers.pooled = store._engine.pooled
            await store._readers.open()
            await store.beat()
            await store._begin_to_look()
        except BaseException as error:
            await store.close()
            if owns(error):
                raise store._unreachable(error) from error
            raise
        return store

    def _unreachable(self, error: BaseException) -> CannotStart:
        return CannotStart(
            f"PostgreSQL at {self.host} can't be used: {told(error)}. Look at DATABASE_URL, at the"
            " server, and at what its role may do.",
            host=self.host,
        )

    def _set_up(self, connection: PostgresConnection) -> None:
        migrate(connection)
        check_seal(connection, self._seal)
        take_over(connection, self._seal)
        connection.execute(
            "INSERT INTO meta (name, value) VALUES ('instance', ?) ON CONFLICT DO NOTHING",
            (secrets.token_hex(16),),
        )
        query = "SELECT value FROM meta WHERE name = 'instance'"
        self.instance = connection.execute(query).fetchone()[0]
        self.go_on(connection)

    def _begun(self, connection: PostgresConnection) -> None:
        # Who is sent to may have been changed by another process, and all else by an operator.
        instance, directory, commits, syncs = connection.execute(_BEGUN).fetchone()
        if instance != self.instance:
            raise StoreUnavailable("The database is another one than it was: restart the receiver.")
        if why := lossy(commits, syncs):
            raise StoreUnavailable(why)
        if directory != self._directory_at:
            self._directory.reload(connection)
            self._directory_at = directory

    async def close(self) -> None:
        """Commit what is queued, say that this process ends, and end the connections."""
        if self._hint is not None:
            self._hint.cancel()
        tasks = [*self._loops, *self._hints]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(StoreUnavailable):
            await self._write(self._leave, self._clock())
        await super().close()

    async def beat(self) -> None:
        """Be seen by the other processes."""
        await self._write(self._beat, None)

    def _beat_once(self, tx: Transaction, _: None) -> None:
        self._agree(lambda: time_of(self._engine.connection))
        self._presence.beat(tx, self._clock())

    def _tell(self, transaction: Transaction) -> None:
        super()._tell(transaction)
        if (transaction.work or transaction.changed_tasks) and self._hint is None:
            self._hint = asyncio.get_running_loop().call_later(GATHER, self._notify)

    def _notify(self) -> None:
        self._hint = None
        task = asyncio.create_task(self._readers.notify(CHANNEL))
        self._hints.add(task)
        task.add_done_callback(self._hints.discard)

    async def _begin_to_look(self) -> None:
        self._seen = (await self.newest_place()).seq
        self._stirs = await self._reads.rows(_STIRS)
        loops = [self._look_on(), self._beat_on()]
        if not self._readers.pooled:
            loops.append(self._listen_on())
        self._loops = [asyncio.create_task(loop) for loop in loops]

    async def _look_on(self) -> None:
        # Polling is the truth, and finds whatever a notice would have told; that only hastens it.
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._heard.wait()
            self._heard.clear()
            await self._try(self.look)

    async def _beat_on(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            await self._try(self.beat)

    async def _listen_on(self) -> None:
        while True:
            await self._try(lambda: self._readers.listen(CHANNEL, self._heard))
            await asyncio.sleep(LOOK)

    async def _try(self, step: Callable[[], Awaitable[None]]) -> None:
        """A step of a loop that has to go on whatever happens: the next one may work."""
        try:
            await step()
        except Exception as error:
            if not owns(error):  # what the database lacks, the writer says
                self._notice("a look at the database failed", error=repr(error))

    async def look(self) -> None:
        """Tell listeners what was committed since the last look, by whomever."""
        full = True
        while full:
            rows = await self._reads.rows(_SINCE, (self._seen, MOST))
            full = len(rows) == MOST
            if rows:
                self._seen = rows[-1][0]
                self._tell_all({ids.task_text(row[1]) for row in rows if row[1] is not None})
        if watched := self._watched():  # most of the time nobody waits for a task
            self._tell_all(await self._changed(watched), work=False)
        stirs = await self._reads.rows(_STIRS)
        if stirs != self._stirs:
            self._stirs = stirs
            self._tell_all(set())

    async def _changed(self, seen: Set[tuple[str, int]]) -> set[str]:
        keys = [ids.task_bytes(task) for task, _ in seen]
        rows = await self._reads.rows(_REVISIONS, (keys,))
        found = {ids.task_text(key): revision for key, revision in rows}
        return {task for task, revision in seen if found.get(task) != revision}

    def _tell_all(self, tasks: set[str], *, work: bool = True) -> None:
        if tasks or work:
            for listener in self._listeners:
                listener(tasks, work)

    async def backup(self, folder: Path, keep: int | None) -> BackupMade:
        """The server's own tools do that, and better."""
        raise BackupElsewhere

    async def condition(self) -> StoreCondition:
        """How the store itself fares."""
        ((size, version),) = await self._reads.rows(
            "SELECT pg_database_size(current_database()), current_setting('server_version')"
        )
        seen = await self._reads.rows(SEEN, (self._clock() - SILENCE,))
        ((schema,),) = await self._reads.rows("SELECT max(number) FROM schema_migrations")
        return StoreCondition(
            engine="PostgreSQL",
            version=version,
            schema_version=schema,
            size=size,
            log_size=None,
            free=None,
            refusal=self.refusal,
            processes=[process_of(row) for row in seen],
        )


def _is_store(store: PostgresStore) -> Store:
    return store  # mypy proves that the class keeps the protocol

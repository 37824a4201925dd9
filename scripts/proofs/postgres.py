"""A PostgreSQL server of one's own, out of Debian's package, and empty databases on a server.

It listens on loopback alone, on a port of its own, and ends with the process that began it. Proofs
and tests share it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

import asyncpg

from scripts.proofs.ports import reserved_port

MISSING: Final = "PostgreSQL is not installed: apt-get install postgresql"
STARTING_S: Final = 60.0
SETTINGS: Final = """
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = 64MB
autovacuum_naptime = 5s
"""


# Whoever is killed can end no server: its pipe ends, and a shell beside the server sees that.
_WITH_ITS_PARENT: Final = """
exec 3<&0 </dev/null
"$@" & server=$!
{ cat >/dev/null; kill -QUIT "$server" 2>/dev/null; } <&3 &
wait "$server"
"""


def programs() -> Path | None:
    """Where the server's programs are; the newest release if there are several."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in folders), default=None)


def _as_postgres(command: list[str]) -> list[str]:
    # initdb and postgres refuse root.
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


def _memory() -> str | None:
    # What is stored here has to outlive no power cut, and each commit waits for its disk.
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Server:
    """A cluster in a directory of its own. `start`, `stop` and `kill` may follow each other."""

    def __init__(self, folder: Path, bin_: Path, port: int) -> None:
        self._folder = folder
        self._bin = bin_
        self._names = count(1)
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._wiped: str | None = None

    def make(self) -> None:
        """Make the cluster."""
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        initdb = [str(self._bin / "initdb"), "-D", str(self._data), "-A", "trust", "-U", "postgres"]
        more = ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(_as_postgres([*initdb, *more]), check=True, capture_output=True)
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(f"{SETTINGS}unix_socket_directories = '{self._folder}'\n")

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def url(self, database: str = "postgres") -> str:
        """How a database of it is reached."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                _as_postgres(["sh", "-c", _WITH_ITS_PARENT, "sh", *command]),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + STARTING_S
        while time.monotonic() < until:
            asked = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            if subprocess.run(asked, check=False).returncode == 0:
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError((self._folder / "log").read_text())

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT cuts connections off, SIGQUIT ends it at once, as a crash would."""
        if self._process is None:
            return
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            os.kill(int((self._data / "postmaster.pid").read_text().split("\n")[0]), how)
        self._process.wait(STARTING_S)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Run SQL, as a person would."""
        command = [str(self._bin / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(
            [*command, self.url(database), "-c", sql], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def empty(self) -> str:
        """The URL of a database that has nothing in it."""
        name = f"reelhook_{next(self._names)}"
        self.psql(f"CREATE DATABASE {name} STRATEGY = wal_log")
        return self.url(name)

    def wiped(self) -> str:
        """The URL of a database that has this release's tables, and nothing in them.

        It is always the same one: making one, and its tables, takes a quarter of a second.
        """
        if self._wiped is None:
            self._wiped = self.empty()
        else:
            asyncio.run(_wipe(self._wiped))
        return self._wiped


_WIPE: Final = """
DO $$
DECLARE found RECORD;
BEGIN
    FOR found IN SELECT tablename FROM pg_tables WHERE schemaname = 'public'
             AND tablename <> 'schema_migrations' LOOP
        EXECUTE format('DELETE FROM %I', found.tablename);
    END LOOP;
    FOR found IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
        EXECUTE format('ALTER SEQUENCE %I RESTART', found.sequencename);
    END LOOP;
    IF to_regclass('meta') IS NOT NULL THEN  -- else nobody has opened it yet
        INSERT INTO meta (name, value) VALUES ('directory', '1');
    END IF;
END
$$
"""


async def _wipe(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_WIPE)
    finally:
        await connection.close()


class NotInstalled(Exception):
    """There is no server to run."""


@contextmanager
def private(*, on_disk: bool = False) -> Iterator[Server]:
    """A server of one's own, while inside; its commits wait for memory, or for a disk.

    Raises NotInstalled.
    """
    bin_ = programs()
    if bin_ is None:
        raise NotInstalled(MISSING)
    folder = Path(tempfile.mkdtemp(prefix="reelhook-postgres-", dir=None if on_disk else _memory()))
    with reserved_port() as port:
        server = Server(folder, bin_, port)
        try:
            server.make()
            server.start()
            yield server
        finally:
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)

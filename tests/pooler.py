"""PgBouncer in transaction mode before a PostgreSQL of the tests' own, out of Debian's package."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from scripts.proofs.ports import reserved_port
from tests.postgres import Server

STARTING_S: Final = 30.0
# Few sessions, and the one that was let go longest ago is next: what is not one transaction meets
# another session soon.
SETTINGS: Final = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
server_round_robin = 1
max_client_conn = 200
logfile = {folder}/log
"""


def program() -> str | None:
    """Where PgBouncer is."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def pooling(server: Server) -> Iterator[int]:
    """The port of a pooler, while inside. Skips where there is none to run."""
    found = program()
    if found is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    with reserved_port() as port, _pooling(found, server, port):
        yield port


@contextmanager
def _pooling(found: str, server: Server, port: int) -> Iterator[None]:
    folder = Path(tempfile.mkdtemp(prefix="reelhook-pooler-"))
    settings = folder / "pgbouncer.ini"
    text = SETTINGS.format(server=server.port, port=port, folder=folder)
    settings.write_text(text.replace("* = ", "* = user=postgres "))
    command = [found, str(settings)]
    if os.geteuid() == 0:  # it refuses root
        shutil.chown(folder, "postgres", "postgres")
        command = ["runuser", "-u", "postgres", "--", *command]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, folder / "log")
        yield
    finally:
        process.terminate()
        process.wait(STARTING_S)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, log: Path) -> None:
    until = time.monotonic() + STARTING_S
    while time.monotonic() < until:
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 1)):
            return
        time.sleep(0.02)
    raise RuntimeError(log.read_text())

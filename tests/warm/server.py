"""Imports `reelhook` once and forks for each command: `python -m tests.warm.server SOCKET`."""

from __future__ import annotations

import io
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

from typer.main import get_command

from receiver.cli import whole

# What most commands pull in when they are called. No settings are read and no files opened by that.
NEEDED: Final = (
    "anyio.to_thread",
    "certifi",
    "httpcore",
    "receiver.client",
    "receiver.settings",
    "rich.table",
    "submitter.cli",
    "submitter.reconcile",
    "submitter.reconciler",
    "submitter.submit",
)


class Server:
    """Waits for orders, for the ends of commands, and for those who no longer wait for them."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._clients: dict[int, socket.socket] = {}
        self._ready = selectors.DefaultSelector()
        self._ready.register(listener, selectors.EVENT_READ, self._accept)
        self._ready.register(sys.stdin, selectors.EVENT_READ, sys.exit)

    def run(self) -> None:
        """Serve; returns in each process that is forked, once it is ready to be a command."""
        while not any(key.data() for key, _ in self._ready.select()):
            pass

    def _accept(self) -> bool:
        """Whether this is the process that was forked."""
        client, _ = self._listener.accept()
        order, files = _order(client)
        pid = os.fork() if order else None
        if pid == 0:
            client.close()
            self._leave()
            become(json.loads(order), files)
            return True
        for file in files:
            os.close(file)
        if pid is None:
            client.close()
        else:
            self._wait(pid, client)
        return False

    def _wait(self, pid: int, client: socket.socket) -> None:
        self._clients[pid] = client
        end = os.pidfd_open(pid)
        self._ready.register(end, selectors.EVENT_READ, partial(self._ended, pid, end))
        self._ready.register(client, selectors.EVENT_READ, partial(self._given_up, pid))
        _tell(client, pid)

    def _ended(self, pid: int, end: int) -> None:
        _, status = os.waitpid(pid, 0)
        self._ready.unregister(end)
        os.close(end)
        if pid in self._clients:
            _tell(self._clients[pid], status)
            self._forget(pid)

    def _given_up(self, pid: int) -> None:
        if pid in self._clients:  # it has not been told of an end at this very moment
            os.kill(pid, signal.SIGKILL)
            self._forget(pid)

    def _leave(self) -> None:
        """Close what is the server's, so that nothing of it closes a file of the command later."""
        for key in [*self._ready.get_map().values()]:
            if isinstance(key.fileobj, int):
                os.close(key.fileobj)
            elif key.fileobj is not sys.stdin:
                cast("socket.socket", key.fileobj).close()
        self._ready.close()

    def _forget(self, pid: int) -> None:
        client = self._clients.pop(pid)
        self._ready.unregister(client)
        client.close()


def _order(client: socket.socket) -> tuple[bytes, list[int]]:
    """What is to be run, and its files. Nothing, where whoever asks was killed before all of it."""
    data, files, _, _ = socket.recv_fds(client, 1 << 20, 3)
    while not data.endswith(b"\n"):
        more = client.recv(1 << 20)
        if not more:
            return b"", files
        data += more
    return data, files


def _tell(client: socket.socket, number: int) -> None:
    with suppress(ConnectionError):  # killed in this moment: its end of the socket tells that
        client.sendall(b"%d\n" % number)


def become(order: dict[str, Any], files: Sequence[int]) -> None:
    """Take on the files, the folder, the environment and the arguments of a command."""
    for own, given in enumerate(files):
        os.dup2(given, own)
        os.close(given)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    sys.argv[1:] = order["argv"]
    for own, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, _stream(own, getattr(sys, name)))


def _stream(file: int, like: io.TextIOWrapper) -> io.TextIOWrapper:
    """A standard stream as Python makes it at its start."""
    return open(
        file,
        "w" if file else "r",
        buffering=1 if file == 2 or os.isatty(file) else -1,
        encoding=like.encoding,
        errors=like.errors,
    )


def serve(place: Path) -> None:
    """Serve until stdin ends. A command goes on as it does from `receiver.cli.main`."""
    for name in NEEDED:
        import_module(name)
    reelhook = get_command(whole())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        Server(listener).run()
    reelhook(prog_name="reelhook")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

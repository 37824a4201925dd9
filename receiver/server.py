"""Floor 2, edges: the uvicorn server as we run it. uvicorn only.

Its access log would print the query string, which carries the token, and its logging set-up would
reach past ours: both are off. A second signal forces the exit, which uvicorn grants SIGINT alone.
Connections are ours, with limits that uvicorn does not have (see receiver/connection.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Generator, Mapping
from functools import partial
from types import FrameType
from typing import Any, Final, cast

import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.server import HANDLED_SIGNALS

from receiver.connection import Connection, Gate, Limits

GRACE: Final = 8.0  # seconds that open requests may take at shutdown
BACKLOG: Final = 2_048
MAX_FILES: Final = 65_536
SWEEP: Final = 0.5  # seconds between two looks at the connections' deadlines
LAST_CALL: Final = 0.1  # seconds in which a kept connection hears that the receiver is stopping
FOR_BODIES: Final = 0.75  # of the grace; the rest is for storing and answering what they brought
FOR_ANSWERS: Final = 0.95  # of the grace; then uvicorn cancels what still runs
FORCED: Final = 1.0  # seconds that the application has at a second signal

Journal = Callable[[Mapping[str, int]], None]


class ReelhookServer(uvicorn.Server):
    """Calls `on_ready` once every socket listens, `on_stop` before open requests are waited for,
    and `journal` with what was refused since the last call."""

    def __init__(
        self,
        config: uvicorn.Config,
        gate: Gate,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
        journal: Journal,
    ) -> None:
        super().__init__(config)
        self._gate = gate
        self._journal = journal
        self._on_ready = on_ready
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        if self.started:
            self._sweep()
            self._on_ready()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._gate.sweep(loop.time())
        self._tell()
        self._sweeper = loop.call_later(SWEEP, self._sweep)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Admit nothing new, answer what was asked, and end: within the grace period."""
        self._gate.stopping = True
        for server in self.servers:
            server.close()
        self._on_stop()
        await asyncio.sleep(LAST_CALL)
        grace = float(self.config.timeout_graceful_shutdown or 0)
        loop = asyncio.get_running_loop()
        timers = [
            loop.call_later(grace * FOR_BODIES, self._gate.cut),
            loop.call_later(grace * FOR_ANSWERS, self._gate.end),
        ]
        await super().shutdown(sockets)
        self._gate.end()
        if self.force_exit:  # uvicorn would leave the application to be torn down
            for task in tuple(self.server_state.tasks):
                task.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lifespan.shutdown(), FORCED)
        for timer in (*timers, self._sweeper):
            timer.cancel()
        self._tell()

    def _tell(self) -> None:
        # Once a sweep and not once a refusal: strangers must not fill the log.
        if self._gate.refused:
            self._journal(self._gate.refused)
            self._gate.refused.clear()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take the signals while serving. uvicorn's own raises them again afterwards, which would
        end the process before the store is closed. A thread beside the main one gets none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {sig: signal.signal(sig, self.handle_exit) for sig in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for sig, handler in previous.items():
                signal.signal(sig, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop gracefully at the first signal, at once at the second."""
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def raise_file_limit() -> int:
    """Let this process open as many files as it may; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MAX_FILES if soft == resource.RLIM_INFINITY else soft


async def serve(
    app: ASGIApp,
    sockets: list[socket.socket],
    *,
    forwarded_allow_ips: str,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None] = lambda: None,
    journal: Journal = lambda _counts: None,
    grace: float = GRACE,
    until: asyncio.Event | None = None,
) -> bool:
    """Serve until a signal, or until `until` is set.

    Returns after the open requests were answered or the grace is over.
    True: a second signal wants the end at once, so nothing more is to be waited for.
    `journal` hears how many were refused before they were requests, by code. `grace` is in seconds.
    """
    # A quarter of the files is for the store, the deliveries and whatever else the process opens.
    connections = min(Limits().connections, raise_file_limit() * 3 // 4)
    gate = Gate(Limits(connections=connections))
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(Connection, gate)),
        ws="none",
        loop="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=True,
        forwarded_allow_ips=forwarded_allow_ips,
        timeout_graceful_shutdown=cast("int", grace),  # asyncio gets it, and takes fractions
        backlog=BACKLOG,
    )
    server = ReelhookServer(config, gate, on_ready, on_stop, journal)
    watch = None if until is None else asyncio.create_task(_stop_at(until, server))
    await server.serve(sockets)
    if watch is not None:
        watch.cancel()
    return server.force_exit


async def _stop_at(until: asyncio.Event, server: uvicorn.Server) -> None:
    await until.wait()
    server.should_exit = True


def run(main: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)

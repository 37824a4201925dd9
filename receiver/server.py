"""Floor 2, edges: the uvicorn server as we run it. uvicorn only.

Its access log would print the query string, which carries the token, and its logging set-up would
reach past ours: both are off. A second signal forces the exit, which uvicorn grants SIGINT alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine, Generator
from types import FrameType
from typing import Any, Final

import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.server import HANDLED_SIGNALS

GRACE: Final = 20  # seconds that open requests may take at shutdown
BACKLOG: Final = 2_048


class ReelhookServer(uvicorn.Server):
    """Calls `on_ready` once every socket listens, `on_stop` before open requests are waited for."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], on_stop: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let waiting requests answer, then stop as uvicorn does."""
        self._on_stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take the signals while serving. uvicorn's own raises them again afterwards, which would
        end the process before the store is closed."""
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


async def serve(
    app: ASGIApp,
    sockets: list[socket.socket],
    *,
    forwarded_allow_ips: str,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a signal; returns after the open requests were answered or the grace is over."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        loop="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=True,
        forwarded_allow_ips=forwarded_allow_ips,
        timeout_graceful_shutdown=GRACE,
        backlog=BACKLOG,
    )
    await ReelhookServer(config, on_ready, on_stop).serve(sockets)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)

"""Runs the simulator on a socket. Touches uvicorn, sockets and signals."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import uvicorn
from anyio.abc import TaskStatus

from submitter.simulator.app import build, silent
from submitter.simulator.config import SimulatorConfig
from submitter.simulator.courier import Log, Sleep

# Seconds that an unused connection is kept: longer than clients keep theirs, so that none is closed
# under a request that is just coming.
KEEP_ALIVE_S = 75
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - shown as what one can dial


class Server(uvicorn.Server):
    """A server that says when it listens, and leaves the signals to whoever runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: uvicorn would raise them again after the shutdown."""
        yield

    closing: Callable[[], None]
    _listening: Callable[[], None]

    async def run_until_stopped(
        self, listener: socket.socket, *, task_status: TaskStatus[None]
    ) -> None:
        """Serve on `listener`; `task_status` hears when requests are taken."""
        self._listening = task_status.started
        # Canceled from outside it would leave its lifespan open; should_exit ends it well.
        with anyio.CancelScope(shield=True):
            await self.serve(sockets=[listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        self._listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go of hanging requests first, so that none has to be cut off."""
        self.closing()
        await super().shutdown(sockets)


@asynccontextmanager
async def running(
    config: SimulatorConfig,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    log: Log = silent,
    sleep: Sleep = anyio.sleep,
) -> AsyncIterator[str]:
    """The simulator's URL while it runs; leaving ends it, pending callbacks included.

    Port 0 takes a free one; `sleep` is every wait of the simulation. Raises `OSError` when the
    address can't be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    app = build(config, log=log, sleep=sleep)
    server = Server(
        uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )
    server.closing = app.state.close
    async with anyio.create_task_group() as group:
        await group.start(
            lambda *, task_status: server.run_until_stopped(listener, task_status=task_status)
        )
        try:
            yield _url(host, listener.getsockname()[1])
        finally:
            server.should_exit = True


async def serve(
    config: SimulatorConfig,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[str], None],
    log: Log = silent,
) -> None:
    """Run until SIGINT or SIGTERM; `on_ready` is given the URL once requests are taken.

    Raises `OSError` when the address can't be bound.
    """
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with running(config, host=host, port=port, log=log) as url:
            on_ready(url)
            async for _ in signals:
                break


def _url(host: str, port: int) -> str:
    shown = WILDCARDS.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"

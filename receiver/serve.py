"""Floor 5, assembly: `reelhook serve`: sockets, store, sender, service, in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, TextIO

from receiver.app import METRICS, FrontDoor, Service, build
from receiver.clock import AgreedClock, SteadyClock, wall_clock
from receiver.condition import Role
from receiver.delivery.guard import Guard, UrlRefused
from receiver.delivery.ourselves import Ourselves
from receiver.delivery.sender import Sender
from receiver.errors import CannotStart, SettingsRefused, StoreBroken
from receiver.log import Log, configure
from receiver.server import listen, serve
from receiver.settings import Settings, check_public_url, listed, write_local
from receiver.store.verbs.store import SqlStore
from receiver.stores import check_role, database_of, open_store, time_of

# The event loop and the writer's thread share the interpreter lock; a shorter turn lowers the time
# that each statement waits to get it back (reference: docs/performance.md).
SWITCH_INTERVAL: Final = 0.0005
# A full collection walks every module that was ever imported, 20 to 40 ms in which nobody is
# answered. What is alive when serving starts stays out of it. Callbacks form few cycles, but each
# page leaves some hundred objects in one (its macros and their context): collecting 50,000 of these
# at once held everybody up for 14 ms, 10,000 for 3, and in all it takes as long.
GC_THRESHOLDS: Final = (10_000, 20, 100)
BROKEN: Final = 1  # exit code when no write can be trusted any more
LINGER: Final = 1.0  # seconds for the last answers, before it ends for that


@dataclass(frozen=True, slots=True)
class Listening:
    """The open sockets and the URLs they are reached by."""

    sockets: list[socket.socket]
    url: str
    admin_url: str
    public_url: str


def check_alert_url(guard: Guard, url: str) -> None:
    """Raises SettingsRefused for a URL that no alert could be sent to."""
    if not url:
        return
    try:
        guard.check_url(url)
    except UrlRefused as error:
        raise SettingsRefused(f"REELHOOK_ALERT_URL: {error}") from None


def open_sockets(settings: Settings, role: Role = Role.ALL) -> Listening:
    """Bind what the settings name; a worker, the admin port alone. Raises CannotStart."""
    if role is Role.WORKER:
        return _open_aside(settings)
    public = _bind(settings.host, settings.port)
    sockets, url = [public], _url_of(public)
    admin_url = url
    if settings.admin_port is not None:
        sockets.append(_bind("127.0.0.1", settings.admin_port))
        admin_url = _url_of(sockets[-1])
    public_url = check_public_url(settings.public_url or url)
    return Listening(sockets, url, admin_url, public_url)


def _open_aside(settings: Settings) -> Listening:
    own = _bind("127.0.0.1", settings.admin_port or 0)
    url = _url_of(own)
    beside = f"http://127.0.0.1:{settings.port}" if settings.port else url
    public_url = settings.public_url or beside
    return Listening([own], url, url, check_public_url(public_url))


def _bind(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise CannotStart(
            f"Can't listen on {host}:{port}: {error.strerror}. Set PORT to a free one, or stop"
            " what uses it."
        ) from None


def _url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else shown}:{port}"  # noqa: S104


async def run(
    settings: Settings, announce: Callable[[Listening, str], None], role: Role = Role.ALL
) -> None:
    """Serve until a signal. `announce(listening, instance)` is called once all is ready.

    When no write can be trusted any more (StoreBroken) the process ends here, with exit code 1; so
    it does when the disk holds up a stop for longer than that may take.
    """
    log = configure(settings.log_level, settings.log_format)
    _warn(settings, log)
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.set_threshold(*GC_THRESHOLDS)
    check_role(settings, role)
    networks, listening = settings.networks, open_sockets(settings, role)
    guard = Guard(networks, ourselves=ourselves_of(listening))
    check_alert_url(guard, settings.alert_url)
    sender = Sender(guard, deadline_s=settings.delivery_deadline, ca_file=settings.ca_file or None)
    agreed = AgreedClock(on_apart=lambda ms: _tell_apart(log, ms))
    store = await open_store(settings, log.warning, clock=agreed, role=role)
    watch = asyncio.create_task(_watch(store, log))
    patience = _Patience(log)
    try:
        async with store, sender:
            service = build(
                settings,
                store=store,
                sender=sender,
                guard=guard,
                clock=SteadyClock(
                    time_of(settings, agreed), on_step=lambda ms: _tell_step(log, ms)
                ),
                wall=wall_clock,
                log=log,
                public_url=listening.public_url,
                role=role,
            )
            door = FrontDoor(service, log, public_port(listening, settings))
            gc.collect()
            gc.freeze()
            forced = await serve(
                door,
                listening.sockets,
                forwarded_allow_ips=settings.forwarded_allow_ips,
                on_ready=lambda: announce(listening, store.instance),
                on_stop=lambda: _stop(service, patience, settings.grace),
                journal=lambda counts: _tell_refused(service, log, counts),
                grace=settings.grace,
            )
            if forced:
                patience.end_in(0)
    except StoreBroken as error:
        _end(log, error)
    finally:
        watch.cancel()
        patience.cancel()


def _stop(service: Service, patience: _Patience, grace: float) -> None:
    service.ops.stop_waiting()
    patience.end_in(grace)


def _tell_refused(service: Service, log: Log, counts: Mapping[str, int]) -> None:
    service.metrics.refused(counts)
    log.info("refused", **counts)


def ourselves_of(listening: Listening) -> Ourselves:
    """What no delivery may lead to."""
    urls = (listening.public_url, listening.url, listening.admin_url)
    return Ourselves.at(urls, [bound.getsockname()[:2] for bound in listening.sockets])


def public_port(listening: Listening, settings: Settings) -> int | None:
    """The port that shows the public routes alone, if there is one."""
    if settings.admin_port is None or len(listening.sockets) == 1:
        return None
    port: int = listening.sockets[0].getsockname()[1]
    return port


async def _watch(store: SqlStore, log: Log) -> None:
    error = await store.broken()
    await asyncio.sleep(LINGER)
    _end(log, error)


class _Patience:
    """Ends a stop that the disk holds up: whoever sent the signal kills what does not obey."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._timer: asyncio.TimerHandle | None = None

    def end_in(self, seconds: float) -> None:
        """End after so many seconds, and a little time to close what can be closed."""
        self.cancel()
        error = StoreBroken(
            "The disk does not answer, and the stop may take no longer. What was acknowledged is"
            " stored; the others were told to come again."
        )
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds + LINGER, _end, self._log, error)

    def cancel(self) -> None:
        """It has ended by itself."""
        if self._timer is not None:
            self._timer.cancel()


def _end(log: Log, error: StoreBroken) -> NoReturn:
    # At once: an orderly end would close the database, and so write to it once more.
    evidence = {"code": error.code, "error": str(error), **error.evidence}
    log.error("the receiver ends", exit_code=BROKEN, **evidence)
    sys.stderr.flush()
    os._exit(BROKEN)


def _tell_step(log: Log, ms: int) -> None:
    log.warning("the system's clock was set: what is scheduled follows slowly", by_s=ms / 1_000)


def _tell_apart(log: Log, ms: int) -> None:
    log.warning("this machine's clock is not that of the database's server", ahead_s=ms / 1_000)


def _warn(settings: Settings, log: Log) -> None:
    if settings.web_concurrency > 1:
        log.warning(
            "WEB_CONCURRENCY is clamped to 1: `serve` is one process, see docs/scaling.md",
            asked=settings.web_concurrency,
        )
    if "*" in listed(settings.forwarded_allow_ips):
        log.warning(
            "FORWARDED_ALLOW_IPS=* believes whatever address a client makes up: name your proxies"
        )


def _leave_address(settings: Settings, listening: Listening) -> None:
    """Where the same user's commands, and a reconciler beside us, look for the API."""
    found = {"url": listening.admin_url, "public_url": listening.public_url}
    try:
        write_local(settings.data_dir, **found)
    except OSError as error:
        # On a server the data directory may be nowhere to write to; there REELHOOK_URL is set.
        _say(
            sys.stderr,
            f"{settings.data_dir} can't be written to ({error.strerror}): commands need"
            f" REELHOOK_URL={listening.admin_url}.",
        )


def announce(settings: Settings) -> Callable[[Listening, str], None]:
    """Tells a waiting program on stdout, a person on stderr, and the user's commands by file."""

    def tell(listening: Listening, instance: str) -> None:
        _leave_address(settings, listening)
        ready = {
            "event": "ready",
            "url": listening.url,
            "admin_url": listening.admin_url,
            "public_url": listening.public_url,
            "instance": instance,
        }
        _say(sys.stdout, json.dumps(ready))
        _say(
            sys.stderr,
            f"Reelhook receives at {listening.public_url}/webhooks/… and keeps everything in"
            f" {database_of(settings)}. `reelhook login` opens the dashboard; Ctrl-C stops it.",
        )

    return tell


def announce_worker(settings: Settings) -> Callable[[Listening, str], None]:
    """As `announce`, of a process that nobody has to find."""

    def tell(listening: Listening, instance: str) -> None:
        _say(sys.stdout, json.dumps({"event": "ready", "url": listening.url, "instance": instance}))
        _say(
            sys.stderr,
            f"Reelhook delivers what is due in {database_of(settings)}. How it fares:"
            f" {listening.url}{METRICS}, /healthz, /readyz. Stop with Ctrl-C.",
        )

    return tell


def _say(stream: TextIO, line: str) -> None:
    # Who is gone, or has no room for it, must not keep callbacks out. Past the stream's buffer:
    # what is left in that fails once more when the interpreter ends.
    with contextlib.suppress(OSError):
        os.write(stream.fileno(), f"{line}\n".encode())

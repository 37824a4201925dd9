"""Floor 3, flow: a receiver on this machine that platforms can reach. Touches its children alone.

    tunnel ── opens ── its URL ──> receiver started with it ── checked from outside ──> Ready
      │                                │
      └ ends: opened again; when the   └ ends: started again; given up after
        URL differs, the receiver is     some quick failures (exit code 3)
        started again with it
                                       reconciler, once it is ready and if a platform can be asked
                                       └ ends: started again

Everything that happens is one of the events below; `text` is the sentence for a person.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

import anyio

from submitter.errors import SubmitterError
from submitter.notices import (
    Checking,
    GaveUp,
    LoopbackOnly,
    Notify,
    NotReached,
    Ready,
    ReceiverLost,
    ReceiverSays,
    ReconcilerLost,
    ReconcilerSays,
    Stopping,
    TunnelLost,
    TunnelOpened,
    UrlChanged,
)
from submitter.pace import pause_after
from submitter.platforms.answers import is_local
from submitter.platforms.catalogue import SHIPPED, base_url_in, key_in
from submitter.processes import Child, ChildFailed, free_port
from submitter.tunnel import (
    CHECK_TIMEOUT_S,
    Kind,
    OutsideClient,
    Program,
    Sleep,
    Ssh,
    TunnelRefused,
    Unreachable,
    Which,
    check_from_outside,
    find,
    opened,
    outside_client,
)

T = TypeVar("T")
Clock = Callable[[], float]

LOOPBACK = "127.0.0.1"
USUAL_PORT = 8000
# A laptop's consumers are on loopback, and nobody there waits hours for a retry.
DEVELOPMENT = {
    "REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
    "REELHOOK_DELIVERY_SCHEDULE": "0,1,2,5",
}
RECEIVER = (sys.executable, "-m", "receiver", "serve")
RECONCILER = (sys.executable, "-m", "receiver", "reconcile")
ANY_KEY = "any"  # a simulator takes it

ENDED, USAGE, NOT_STARTED = 0, 2, 3
QUICK_S = 10.0
QUICK_FAILURES = 4
# A closing terminal sends SIGHUP, to us alone: the children have sessions of their own.
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """What `reelhook dev` was asked for. A port of 0 takes the usual one if it is free.

    The tunnel "auto" is the first program that is installed; None opens none.
    """

    tunnel: Kind | Literal["auto"] | None = None
    ssh: Ssh | None = None
    port: int = 0
    admin_port: int = 0
    data_dir: str | None = None
    check: bool = True
    check_timeout_s: float = CHECK_TIMEOUT_S
    ready_timeout_s: float = 30.0
    receiver: Sequence[str] = RECEIVER
    reconciler: Sequence[str] = RECONCILER
    receiver_env: Mapping[str, str] = field(default_factory=dict)


async def dev(
    options: DevOptions,
    *,
    notify: Notify,
    environ: Mapping[str, str] | None = None,
    which: Which = shutil.which,
    client: Callable[[], OutsideClient] = outside_client,
    clock: Clock = anyio.current_time,
    sleep: Sleep = anyio.sleep,
) -> int:
    """Run until SIGINT, SIGTERM or SIGHUP; the exit code. Every child has ended by then."""
    environ = os.environ if environ is None else environ
    try:
        program = _program(options, which)
    except SubmitterError as fault:
        notify(GaveUp(str(fault)))
        return USAGE if isinstance(fault, TunnelRefused) else NOT_STARTED
    with anyio.open_signal_receiver(*END_SIGNALS) as signals:
        async with client() as outside:
            flow = _Flow(options, program, notify, environ, outside, clock, sleep)
            return await first_of(partial(_signaled, signals, notify), flow.run)


async def first_of(*waits: Callable[[], Awaitable[T]]) -> T:
    """What the first to end gives; the others are canceled."""
    ended: list[T] = []
    async with anyio.create_task_group() as group:

        async def wait_for(wait: Callable[[], Awaitable[T]]) -> None:
            ended.append(await wait())
            group.cancel_scope.cancel()

        for wait in waits:
            group.start_soon(wait_for, wait)
    return ended[0]


def _program(options: DevOptions, which: Which) -> Program | None:
    if options.tunnel is None:
        return None
    kind = None if options.tunnel == "auto" else options.tunnel
    return find(kind, ssh=options.ssh, which=which)


async def _signaled(signals: AsyncIterator[signal.Signals], notify: Notify) -> int:
    notify(Stopping(await anext(signals)))
    return ENDED


class _Address:
    """The public URL as the tunnel last gave it, or why there is none."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url
        self.failure = ""
        self._news = anyio.Event()

    def move(self, url: str) -> None:
        self.url = url
        self._tell()

    def fail(self, reason: str) -> None:
        self.failure = reason
        self._tell()

    async def known(self) -> str | None:
        """The URL, or None when there will be none."""
        while self.url is None and not self.failure:
            await self._news.wait()
        return self.url

    async def moved(self, url: str) -> None:
        """Returns when the URL is no longer `url`."""
        while self.url == url:
            await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()


@dataclass(frozen=True, slots=True)
class _End:
    """How a receiver's life ended; without a reason, by our own hand."""

    reason: str = ""
    unready: bool = False
    hopeless: bool = False


@dataclass
class _Flow:
    """The tunnel and the receiver, kept alive."""

    options: DevOptions
    program: Program | None
    notify: Notify
    environ: Mapping[str, str]
    client: OutsideClient
    clock: Clock
    sleep: Sleep

    def __post_init__(self) -> None:
        self._port, self._admin_port = _ports(self.options, self.environ)
        self._address = _Address()
        self._was_ready = False
        self._ready_once = anyio.Event()

    async def run(self) -> int:
        """Go on until that makes no sense any more."""
        async with AsyncExitStack() as stack:
            if self.program is None:
                self._address.move(self._own_url())
            else:
                await stack.enter_async_context(_outliving(partial(self._keep_open, self.program)))
            self.notify(GaveUp(await first_of(self._keep_serving, self._keep_reconciling)))
        return NOT_STARTED

    def _own_url(self) -> str:
        if given := self.environ.get("REELHOOK_PUBLIC_URL"):
            return given.rstrip("/")
        url = f"http://{LOOPBACK}:{self._port}"
        self.notify(LoopbackOnly(url))
        return url

    async def _keep_open(self, program: Program) -> None:
        failures = 0
        while True:
            began = self.clock()
            reason = await self._one_opening(program)
            if self._address.url is None:
                self._address.fail(reason)
                return
            failures = self._failures(failures, began)
            self.notify(TunnelLost(program.kind, reason, pause_after(failures)))
            await self.sleep(pause_after(failures))

    async def _one_opening(self, program: Program) -> str:
        try:
            async with opened(program, self._port, environ=self.environ) as tunnel:
                self.notify(TunnelOpened(tunnel.kind, tunnel.url, tunnel.pid))
                self._address.move(tunnel.url)
                return await tunnel.ended()
        except SubmitterError as fault:
            return str(fault)

    async def _keep_serving(self) -> str:
        failures, before = 0, ""
        while url := await self._address.known():
            if before and url != before:
                self.notify(UrlChanged(before, url))
            began, before = self.clock(), url
            end = await self._one_life(url)
            if not end.reason:
                continue
            failures = failures + 1 if end.unready else self._failures(failures, began)
            if end.hopeless or failures >= QUICK_FAILURES:
                return end.reason
            self.notify(ReceiverLost(end.reason, pause_after(failures)))
            await self.sleep(pause_after(failures))
        return self._address.failure

    async def _keep_reconciling(self) -> str:
        env = _reconciler_env(self.options, self.environ, self._admin_port)
        if not any(key_in(env, name) for name in SHIPPED):
            await anyio.sleep_forever()
        await self._ready_once.wait()  # from then on it waits for the receiver by itself
        failures = 0
        while True:
            began = self.clock()
            reason = await self._one_reconciler(env)
            failures = self._failures(failures, began)
            self.notify(ReconcilerLost(reason, pause_after(failures)))
            await self.sleep(pause_after(failures))

    async def _one_reconciler(self, env: Mapping[str, str]) -> str:
        try:
            async with Child.start(
                self.options.reconciler, name="The reconciler", env=env, merged=True
            ) as child:
                async for line in child.lines:
                    self.notify(ReconcilerSays(line))
                return f"The reconciler ended with exit code {await child.wait()}."
        except ChildFailed as fault:
            return f"{fault.name} {fault.reason}"

    def _failures(self, before: int, began: float) -> int:
        return before + 1 if self.clock() - began < QUICK_S else 1

    async def _one_life(self, url: str) -> _End:
        env = _receiver_env(self.options, self.environ, url, self._port, self._admin_port)
        try:
            async with Child.start(
                self.options.receiver, name="The receiver", env=env, on_stderr=self._says
            ) as child:
                ready = await child.ready(self.options.ready_timeout_s)
                return await first_of(
                    partial(self._announce, url, ready),
                    partial(self._died, child),
                    partial(self._moved, url),
                )
        except ChildFailed as fault:
            # Its own exit code for "can't start": trying again would change nothing.
            hopeless = fault.returncode == NOT_STARTED and not self._was_ready
            return _End(f"{fault.name} {fault.reason}", unready=True, hopeless=hopeless)

    def _says(self, line: str) -> None:
        self.notify(ReceiverSays(line))

    async def _died(self, child: Child) -> _End:
        return _End(f"The receiver ended with exit code {await child.wait()}.")

    async def _moved(self, url: str) -> _End:
        await self._address.moved(url)
        return _End()

    async def _announce(self, url: str, said: Mapping[str, Any]) -> _End:
        while problem := await self._unreachable(url, str(said.get("instance"))):
            if not self._was_ready:
                return _End(problem.text, hopeless=True)
            self.notify(NotReached(problem))
        self._was_ready = True
        self._ready_once.set()
        self.notify(self._ready(url, said))
        while True:
            await anyio.sleep_forever()

    async def _unreachable(self, url: str, instance: str) -> Unreachable | None:
        if not self.options.check:
            return None
        self.notify(Checking(url))
        return await check_from_outside(
            url,
            instance,
            client=self.client,
            timeout_s=self.options.check_timeout_s,
            sleep=self.sleep,
        )

    def _ready(self, url: str, said: Mapping[str, Any]) -> Ready:
        return Ready(
            url=str(said.get("url")),
            admin_url=str(said.get("admin_url")),
            public_url=url,
            instance=str(said.get("instance")),
            tunnel=self.program.kind if self.program else None,
        )


@asynccontextmanager
async def _outliving(run: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    # Shielded: it ends after the block, also when both are canceled at once.
    scope = anyio.CancelScope(shield=True)

    async def shielded() -> None:
        with scope:
            await run()

    async with anyio.create_task_group() as group:
        group.start_soon(shielded)
        try:
            yield
        finally:
            scope.cancel()


def _ports(options: DevOptions, environ: Mapping[str, str]) -> tuple[int, int]:
    told = environ.get("PORT", "")
    given = options.port or (int(told) if told.isdecimal() else 0)
    port = given or free_port(LOOPBACK, prefer=(USUAL_PORT,))
    beside = range(port + 1, min(port + 20, 65_536))
    return port, options.admin_port or free_port(LOOPBACK, prefer=beside)


def _receiver_env(
    options: DevOptions, environ: Mapping[str, str], url: str, port: int, admin_port: int
) -> dict[str, str]:
    data_dir = {} if options.data_dir is None else {"REELHOOK_DATA_DIR": options.data_dir}
    return {
        **DEVELOPMENT,
        **environ,
        "HOST": LOOPBACK,
        "PORT": str(port),
        "REELHOOK_ADMIN_PORT": str(admin_port),
        "REELHOOK_PUBLIC_URL": url,
        **data_dir,
        **options.receiver_env,
    }


def _reconciler_env(
    options: DevOptions, environ: Mapping[str, str], admin_port: int
) -> dict[str, str]:
    data_dir = {} if options.data_dir is None else {"REELHOOK_DATA_DIR": options.data_dir}
    simulated = {
        SHIPPED[name].setting: ANY_KEY for name in SHIPPED if is_local(base_url_in(environ, name))
    }
    return {
        **simulated,
        **environ,
        **data_dir,
        **options.receiver_env,
        "REELHOOK_URL": f"http://{LOOPBACK}:{admin_port}",
    }

"""Floor 2, edge: a public URL for a loopback port. Touches cloudflared, ngrok or ssh as a child.

What they print is read by pure functions, and `check_from_outside` asks the public URL itself.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

import anyio
import httpx

from submitter.errors import SubmitterError
from submitter.processes import Child

Kind = Literal["cloudflared", "ngrok", "ssh"]
Which = Callable[[str], str | None]
Sleep = Callable[[float], Awaitable[None]]

# ssh is only taken when asked for: it needs a destination.
CHOICE: tuple[Kind, ...] = ("cloudflared", "ngrok")

OPEN_TIMEOUT_S = 45.0
CONNECT_TIMEOUT_S = 15.0
CHECK_TIMEOUT_S = 90.0
CHECK_EVERY_S = 2.0
LOOK_S = 30.0  # that one look may take, however often a byte of an answer comes
GRACE_S = 5.0

INSTALL: dict[Kind, str] = {
    "cloudflared": "brew install cloudflared, or see "
    "https://developers.cloudflare.com/cloudflare-one/connections/connect-networks/downloads/",
    "ngrok": "brew install ngrok, or see https://ngrok.com/download",
    "ssh": "apt-get install openssh-client, or your system's package of OpenSSH",
}

NEEDS_TOKEN = "ngrok needs an account: put its token in place with `ngrok config add-authtoken …`."  # noqa: S105
IN_USE = "ngrok is running elsewhere with this account: end that one, or use another tunnel."

# What is in a line -> what to do about it.
FAILURES: dict[Kind, tuple[tuple[str, str], ...]] = {
    "cloudflared": (
        (
            r"429 Too Many Requests|error code: 1015",
            "Cloudflare gives this address no more quick tunnels for now: wait a few minutes, "
            "or use another tunnel.",
        ),
        (
            r"failed to (request|unmarshal|parse) quick[ -]Tunnel",
            "Cloudflare gave no quick tunnel: look at this machine's connection, "
            "then at https://www.cloudflarestatus.com.",
        ),
    ),
    "ngrok": (
        (r"ERR_NGROK_(4018|105|106|107)\b", NEEDS_TOKEN),
        (r"ERR_NGROK_(108|334)\b", IN_USE),
        (r"ERR_NGROK_(120|121)\b", "This ngrok is too old for its service: run `ngrok update`."),
        (
            r"ERR_NGROK_\d+",
            "ngrok refused: its code is explained on https://ngrok.com/docs/errors.",
        ),
    ),
    "ssh": (
        (
            r"Permission denied \(",
            "The ssh server took none of your keys. A password can't be asked for here: "
            "set up a key, or name one with --ssh-option='-i FILE'.",
        ),
        (
            r"Host key verification failed",
            "The ssh server's key is not known here: connect once by hand, compare and accept it.",
        ),
        (
            r"remote port forwarding failed",
            "The ssh server did not open the port: it is taken, or its AllowTcpForwarding or "
            "PermitListen forbid it. Try another --ssh-remote-port.",
        ),
        (
            r"ssh: Could not resolve hostname",
            "The name of the ssh destination does not resolve: look at --ssh-destination.",
        ),
        (
            r"ssh: connect to host",
            "No ssh server answers there: look at --ssh-destination and --ssh-option='-p PORT'.",
        ),
    ),
}

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Its own API is on api.trycloudflare.com, which it names when it fails.
_QUICK_TUNNEL = re.compile(r"https://(?!api\.)[a-z0-9-]+\.trycloudflare\.com(?![\w.-])")
_REGISTERED = re.compile(r"Registered tunnel connection|Connection \S+ registered")
# localhost.run, serveo.net, sish and pinggy.io, in this order.
_SSH_URL = re.compile(
    r"tunneled with tls termination, (?P<a>https://\S+)"
    r"|^Forwarding HTTP traffic from (?P<b>https://\S+)"
    r"|^HTTPS: (?P<c>https://\S+)"
    r"|^(?P<d>https://\S+\.pinggy\S*)$"
)
_SSH_PORT = re.compile(
    r"^Allocated port (\d+) for remote forward to "
    r"|^debug1: remote forward success for: listen (?:\S*:)?([1-9]\d*), connect "
)


@dataclass(kw_only=True, eq=False)
class TunnelMissing(SubmitterError):
    """{kind} is not installed here. Install it: {install}"""

    kind: Kind
    install: str
    code: str = field(default="tunnel_missing", init=False)


@dataclass(kw_only=True, eq=False)
class TunnelFailed(SubmitterError):
    """The tunnel through {kind} did not open. {reason}"""

    kind: Kind
    reason: str
    output: tuple[str, ...] = ()
    code: str = field(default="tunnel_failed", init=False)


@dataclass(kw_only=True, eq=False)
class TunnelRefused(SubmitterError):
    """The tunnel can't be opened as asked: {reason}"""

    reason: str
    code: str = field(default="tunnel_refused", init=False)


@dataclass(frozen=True, slots=True)
class Ssh:
    """Where `ssh -R` goes; `public_url` may hold `{port}`, the port that the server opened.

    Without a `public_url` the server has to print one, as localhost.run does.
    """

    destination: str
    public_url: str | None = None
    remote_port: int | None = None
    bind: str = ""
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.destination or self.destination.startswith("-"):
            raise TunnelRefused(reason="--ssh-destination needs user@host.")
        if self.public_url is None:
            return
        if not self.public_url.startswith(("https://", "http://")):
            raise TunnelRefused(reason="--ssh-public-url has to start with https://.")
        if not self.port and "{port}" not in self.public_url:
            raise TunnelRefused(
                reason="--ssh-public-url needs --ssh-remote-port, or {port} where the port goes."
            )

    @property
    def port(self) -> int:
        """The port to ask the server for; 0 takes any."""
        if self.remote_port is not None:
            return self.remote_port
        return 80 if self.public_url is None else 0


@dataclass(frozen=True, slots=True)
class Program:
    """A tunnel program on this machine, and what ssh needs besides."""

    kind: Kind
    path: str
    ssh: Ssh | None = None


def find(
    kind: Kind | None = None, *, ssh: Ssh | None = None, which: Which = shutil.which
) -> Program:
    """The program of that kind on PATH, or the first of `CHOICE`. Raises `TunnelMissing`."""
    if kind == "ssh" and ssh is None:
        raise TunnelRefused(reason="a tunnel through ssh needs --ssh-destination user@host.")
    for wanted in CHOICE if kind is None else (kind,):
        if path := which(wanted):
            return Program(wanted, path, ssh if wanted == "ssh" else None)
    missing = kind or CHOICE[0]
    raise TunnelMissing(kind=missing, install=INSTALL[missing])


def command(program: Program, port: int) -> tuple[str, ...]:
    """The command line that makes 127.0.0.1:`port` public."""
    match program.kind:
        case "cloudflared":
            # Ingress rules of the user's own config file would win over --url.
            quiet = ("--config", os.devnull, "--no-autoupdate")
            return (program.path, "tunnel", *quiet, "--url", f"http://127.0.0.1:{port}")
        case "ngrok":
            log = ("--log", "stdout", "--log-format", "json", "--log-level", "info")
            return (program.path, "http", f"http://127.0.0.1:{port}", *log)
        case "ssh":
            return _ssh_command(program, port)
        case _:
            assert_never(program.kind)


def _ssh_command(program: Program, port: int) -> tuple[str, ...]:
    if program.ssh is None:
        raise TunnelRefused(reason="a tunnel through ssh needs --ssh-destination user@host.")
    ssh = program.ssh
    # Of two equal options ssh takes the first: the user's stand before ours.
    given = [word for option in ssh.options for word in shlex.split(option)]
    settings = [word for name, value in _ssh_settings(ssh) for word in ("-o", f"{name}={value}")]
    # With -N there is no session, and in the session localhost.run prints the URL.
    session = ("-T",) if ssh.public_url is None else ("-N", "-T")
    listen = f"{ssh.bind}:{ssh.port}" if ssh.bind else str(ssh.port)
    forward = ("-R", f"{listen}:127.0.0.1:{port}")
    return (program.path, *session, *given, *settings, *forward, "--", ssh.destination)


def _ssh_settings(ssh: Ssh) -> tuple[tuple[str, str], ...]:
    return (
        ("ExitOnForwardFailure", "yes"),
        ("ServerAliveInterval", "15"),
        ("ServerAliveCountMax", "2"),
        ("BatchMode", "yes"),
        # A shared connection would outlive this process, and its death go unseen.
        ("ControlPath", "none"),
        # That a fixed port is open is said in debug lines only.
        ("LogLevel", "INFO" if ssh.port == 0 or ssh.public_url is None else "DEBUG1"),
    )


def read_url(kind: Kind, line: str) -> str | None:
    """The public URL, if this line of output gives it."""
    plain = _ANSI.sub("", line).strip()
    match kind:
        case "cloudflared":
            found = _QUICK_TUNNEL.search(plain)
            return found.group() if found else None
        case "ngrok":
            return _ngrok_url(plain)
        case "ssh":
            found = _SSH_URL.search(plain)
            return found[found.lastgroup or 0].rstrip("/") if found else None
        case _:
            assert_never(kind)


def read_failure(kind: Kind, line: str) -> str | None:
    """What to do about it, if this line says why there will be no tunnel."""
    return next((advice for text, advice in FAILURES[kind] if re.search(text, line)), None)


def read_port(line: str) -> int | None:
    """The port that the ssh server opened, if ssh says so in this line."""
    found = _SSH_PORT.match(line)
    return int(found[1] or found[2]) if found else None


def read_public_url(program: Program, line: str) -> str | None:
    """The public URL, given by this line or by `--ssh-public-url` and a port in this line."""
    if program.ssh is None or program.ssh.public_url is None:
        return read_url(program.kind, line)
    port = read_port(line)
    return None if port is None else program.ssh.public_url.replace("{port}", str(port)).rstrip("/")


def is_connected(kind: Kind, line: str) -> bool:
    """Whether this line says that a URL printed before is being served now."""
    return kind != "cloudflared" or _REGISTERED.search(line) is not None


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a tunnel program gets to see: no key of ours or of a platform's."""
    ours = ("REELHOOK_", "RUNWARE_", "NANOGPT_", "DATABASE_URL")
    return {name: value for name, value in environ.items() if not name.startswith(ours)}


def _ngrok_url(line: str) -> str | None:
    try:
        said: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("msg") != "started tunnel":
        return None
    url = said.get("url")
    return url.rstrip("/") if isinstance(url, str) and url.startswith("https://") else None


class Tunnel:
    """An open tunnel: the URL it was given, and how it ends."""

    def __init__(self, kind: Kind, url: str, child: Child, said: deque[str]) -> None:
        self.kind = kind
        self.url = url
        self._child = child
        self._said = said

    @property
    def pid(self) -> int:
        return self._child.pid

    async def ended(self) -> str:
        """Why it ended, once it has."""
        async for line in self._child.lines:
            _remember(line, self._said)
        returncode = await self._child.wait()
        return _why(self.kind, self._said) or f"It ended with exit code {returncode}."


@asynccontextmanager
async def opened(
    program: Program,
    port: int,
    *,
    environ: Mapping[str, str],
    timeout_s: float = OPEN_TIMEOUT_S,
) -> AsyncIterator[Tunnel]:
    """A tunnel to 127.0.0.1:`port` until the block is left.

    Raises `TunnelFailed`, and `ChildFailed` when the program can't be run.
    """
    said: deque[str] = deque(maxlen=8)
    argv, env = command(program, port), environment(environ)
    running = Child.start(argv, name=program.kind, env=env, merged=True, grace_s=GRACE_S)
    async with running as child:
        url = await _first_url(program, child, said, timeout_s)
        yield Tunnel(program.kind, url, child, said)


async def _first_url(program: Program, child: Child, said: deque[str], timeout_s: float) -> str:
    reason = f"It gave no URL within {timeout_s:g} s."
    with anyio.move_on_after(timeout_s):
        async for line in child.lines:
            _remember(line, said)
            if url := read_public_url(program, line):
                await _connected(program.kind, child, said)
                return url
            if read_failure(program.kind, line):
                break
        else:
            reason = f"It ended with exit code {await child.wait()} and gave no URL."
    advice = _why(program.kind, said) or _with_last(reason + _hint(program), said)
    raise TunnelFailed(kind=program.kind, reason=advice, output=tuple(said))


async def _connected(kind: Kind, child: Child, said: deque[str]) -> None:
    # A look-up before the name exists would be remembered by resolvers as a "no" for minutes.
    if kind != "cloudflared":
        return
    with anyio.move_on_after(CONNECT_TIMEOUT_S):
        async for line in child.lines:
            _remember(line, said)
            if is_connected(kind, line):
                return


def _hint(program: Program) -> str:
    if program.ssh is None or program.ssh.public_url is not None:
        return ""
    return " A server that prints none needs --ssh-public-url and --ssh-remote-port."


def _remember(line: str, said: deque[str]) -> None:
    if line.strip() and not line.startswith(("debug1:", "OpenSSH_")):
        said.append(line.strip())


def _why(kind: Kind, said: deque[str]) -> str | None:
    return next((advice for line in reversed(said) if (advice := read_failure(kind, line))), None)


def _with_last(reason: str, said: deque[str]) -> str:
    return f"{reason} Its last words: {said[-1]}" if said else reason


Problem = Literal["dns", "connect", "tls", "other_instance", "status"]


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Why a public URL does not answer as this receiver."""

    url: str
    problem: Problem
    status: int | None = None

    @property
    def text(self) -> str:
        match self.problem:
            case "dns":
                return f"The name in {self.url} does not resolve."
            case "connect":
                return f"Nothing answers at {self.url}."
            case "tls":
                return f"{self.url} has no certificate that is valid here."
            case "other_instance":
                return f"{self.url} answers, but not as this receiver."
            case "status":
                return f"{self.url} answers with status {self.status}."
            case _:
                assert_never(self.problem)


OutsideClient = httpx.AsyncClient


def outside_client() -> httpx.AsyncClient:
    """A client that sees the public URL as a stranger does: by no proxy of this machine."""
    return httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=10.0)


async def check_from_outside(
    public_url: str,
    instance: str,
    *,
    client: httpx.AsyncClient,
    timeout_s: float = CHECK_TIMEOUT_S,
    sleep: Sleep = anyio.sleep,
) -> Unreachable | None:
    """None as soon as the URL answers as `instance`; after `timeout_s`, the last reason why not.

    The first look may end, though that be later: a reason that nobody saw would be a guess.
    """
    until = anyio.current_time() + timeout_s
    found = await look_once(public_url, instance, client=client)
    with anyio.CancelScope(deadline=until):
        while found is not None:
            await sleep(CHECK_EVERY_S)
            found = await look_once(public_url, instance, client=client)
    return found


async def look_once(
    public_url: str, instance: str, *, client: httpx.AsyncClient
) -> Unreachable | None:
    """One look at the public URL, of `LOOK_S` at most; None when it answers as `instance`."""
    try:
        with anyio.fail_after(LOOK_S):
            response = await client.get(f"{public_url.rstrip('/')}/healthz", headers=_BROWSERLESS)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, TimeoutError) as fault:
        return Unreachable(public_url, _problem(fault))
    if response.status_code != 200:
        return Unreachable(public_url, "status", response.status_code)
    return None if _instance(response) == instance else Unreachable(public_url, "other_instance")


# Without it, ngrok's free plan may put a page of its own before what looks like a browser.
_BROWSERLESS = {"ngrok-skip-browser-warning": "1", "accept": "application/json"}


def _instance(response: httpx.Response) -> object:
    try:
        said = response.json()
    except (ValueError, RecursionError):
        return None
    return said.get("instance") if isinstance(said, dict) else None


def _problem(fault: BaseException) -> Problem:
    causes = list(_causes(fault))
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "tls"
    return "dns" if any(isinstance(cause, socket.gaierror) for cause in causes) else "connect"


def _causes(fault: BaseException | None) -> Iterator[BaseException]:
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__

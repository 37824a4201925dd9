"""`reelhook dev`: a fake tunnel program and a stand-in receiver, both real processes."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import anyio
import httpx
import pytest
from anyio.abc import ObjectReceiveStream

from scripts.proofs.ports import held_port
from submitter import dev as flow
from submitter.dev import DevOptions, dev, first_of
from submitter.notices import (
    Checking,
    Event,
    GaveUp,
    LoopbackOnly,
    NotReached,
    Ready,
    ReceiverLost,
    ReceiverSays,
    Stopping,
    TunnelLost,
    TunnelOpened,
    UrlChanged,
)
from submitter.processes import Child, ChildFailed, Lines, free_port
from submitter.tunnel import Unreachable

T = TypeVar("T")

pytestmark = pytest.mark.process

RECORDED = Path(__file__).parent / "recorded"
STAND_IN = (sys.executable, str(RECORDED / "receiver.py"))
FIRST = "https://spare-reels-turn-slowly.trycloudflare.com"
SECOND = "https://other-reels-turn-slowly.trycloudflare.com"
LIMIT_S = 30.0

# Prints what is in start-1.txt, start-2.txt, … and fails when there is no more.
CLOUDFLARED = """\
#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$*" >>asked
count=$(wc -l <asked)
cat "start-$((count)).txt" >&2 || exit 1
exec sleep 600
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Internet(httpx.AsyncBaseTransport):
    """Where the tunnel's names lead to the receiver's public port."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loopback = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host not in {httpx.URL(FIRST).host, httpx.URL(SECOND).host}:
            raise httpx.ConnectError("no such name") from socket.gaierror(-2, "no such name")
        request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        return await self._loopback.handle_async_request(request)

    async def aclose(self) -> None:
        await self._loopback.aclose()


async def no_pause(_: float) -> None:
    await anyio.lowlevel.checkpoint()


@dataclass
class Run:
    """A `dev` under way."""

    events: ObjectReceiveStream[Event]
    seen: list[Event]

    async def next(self, kind: type[T]) -> T:
        async for event in self.events:
            self.seen.append(event)
            if isinstance(event, kind):
                return event
        pytest.fail("it ended")

    async def pid_of_receiver(self) -> int:
        """Of the one that has said so last, or is the next to: what it says and that it is ready
        come by two pipes, and so in any order."""
        said = [event for event in self.seen if isinstance(event, ReceiverSays)]
        latest = said[-1] if said else await self.next(ReceiverSays)
        return int(latest.text.removeprefix("stand-in "))


def standing_in(**given: Any) -> DevOptions:
    """With the stand-in as the receiver, at ports that are nobody else's."""
    ours = {"receiver": STAND_IN, "port": held_port(), "admin_port": held_port()}
    return DevOptions(**{**ours, **given})


def gone(pid: int) -> bool:
    """Whether a process that was told to end does; one that nobody told stays until the limit."""
    until = time.monotonic() + LIMIT_S
    while is_alive(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def is_alive(pid: int) -> bool:
    # A grandchild is buried by the machine's first process, which may take its time.
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rsplit(")", 1)[1].split()[0] != "Z"


async def play(
    options: DevOptions, script: Callable[[Run], Awaitable[None]], **more: Any
) -> tuple[int, list[Event]]:
    """The exit code of `dev`, while `script` plays beside it, and every event."""
    send, receive = anyio.create_memory_object_stream[Event](10_000)
    run, codes = Run(receive, []), list[int]()

    async def develop() -> None:
        given = {"sleep": no_pause, "environ": {"PATH": os.environ["PATH"]}, **more}
        codes.append(await dev(options, notify=send.send_nowait, **given))
        send.close()

    async with receive:
        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as group:
                group.start_soon(develop)
                await script(run)
        run.seen.extend([event async for event in receive])
    return codes[0], run.seen


async def nothing(_: Run) -> None:
    pass


def end(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def tunneled(tmp_path: Path) -> Mapping[str, Any]:
    """What `play` takes so that cloudflared is a fake that opens two tunnels."""
    opened = (RECORDED / "cloudflared-opened.txt").read_text(encoding="utf-8")
    (tmp_path / "start-1.txt").write_text(opened, encoding="utf-8")
    (tmp_path / "start-2.txt").write_text(opened.replace(FIRST, SECOND), encoding="utf-8")
    program = tmp_path / "cloudflared"
    program.write_text(CLOUDFLARED, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    options = standing_in(tunnel="auto")
    return {
        "options": options,
        "which": partial(shutil.which, path=str(tmp_path)),
        "client": lambda: httpx.AsyncClient(transport=Internet(options.port), timeout=LIMIT_S),
    }


@pytest.mark.anyio
async def test_it_is_ready_once_the_tunnel_leads_to_the_receiver(
    tunneled: Mapping[str, Any], tmp_path: Path
) -> None:
    pids: list[int] = []

    async def script(run: Run) -> None:
        pids.append((await run.next(TunnelOpened)).pid)
        ready = await run.next(Ready)
        pids.append(await run.pid_of_receiver())
        port = tunneled["options"].port
        assert ready.public_url == FIRST
        assert ready.url == f"http://127.0.0.1:{port}"
        assert ready.admin_url != ready.url
        assert ready.tunnel == "cloudflared"
        assert ready.as_json()["event"] == "ready"
        asked = (tmp_path / "asked").read_text(encoding="utf-8")
        assert asked.endswith(f"--url http://127.0.0.1:{port}\n")
        end()

    code, seen = await play(script=script, **tunneled)
    assert code == 0
    assert [type(event) for event in seen if not isinstance(event, ReceiverSays)] == [
        TunnelOpened,
        Checking,
        Ready,
        Stopping,
    ]
    assert all(gone(pid) for pid in pids)


@pytest.mark.anyio
async def test_a_tunnel_with_another_url_starts_the_receiver_again_with_it(
    tunneled: Mapping[str, Any],
) -> None:
    async def script(run: Run) -> None:
        tunnel = await run.next(TunnelOpened)
        first = await run.next(Ready)
        before = await run.pid_of_receiver()
        os.kill(tunnel.pid, signal.SIGKILL)
        assert "down" in (await run.next(TunnelLost)).text
        changed = await run.next(UrlChanged)
        assert (changed.old, changed.new) == (FIRST, SECOND)
        assert "reconciled by polling" in changed.text
        second = await run.next(Ready)
        assert gone(before)
        assert second.public_url == SECOND
        assert (second.url, second.admin_url) == (first.url, first.admin_url)
        end(signal.SIGINT)

    assert (await play(script=script, **tunneled))[0] == 0


@pytest.mark.anyio
async def test_a_tunnel_with_the_same_url_leaves_the_receiver_alone(
    tunneled: Mapping[str, Any], tmp_path: Path
) -> None:
    shutil.copy(tmp_path / "start-1.txt", tmp_path / "start-2.txt")

    async def script(run: Run) -> None:
        tunnel = await run.next(TunnelOpened)
        await run.next(Ready)
        receiver = await run.pid_of_receiver()
        os.kill(tunnel.pid, signal.SIGKILL)
        assert (await run.next(TunnelOpened)).url == FIRST
        assert is_alive(receiver)
        end()

    code, seen = await play(script=script, **tunneled)
    assert code == 0
    assert UrlChanged not in {type(event) for event in seen}


@pytest.mark.anyio
async def test_a_tunnel_is_tried_again_for_as_long_as_it_takes(
    tunneled: Mapping[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "start-2.txt").unlink()
    pauses: list[float] = []

    async def script(run: Run) -> None:
        tunnel = await run.next(TunnelOpened)
        await run.next(Ready)
        os.kill(tunnel.pid, signal.SIGKILL)
        pauses.extend([(await run.next(TunnelLost)).retry_in_s for _ in range(6)])
        end()

    # All within a moment: the pauses begin anew after an opening that held for long.
    assert (await play(script=script, clock=lambda: 0.0, **tunneled))[0] == 0
    assert pauses == [1, 2, 4, 8, 16, 32]


@pytest.mark.anyio
async def test_a_tunnel_that_never_opened_is_given_up(
    tunneled: Mapping[str, Any], tmp_path: Path
) -> None:
    shutil.copy(RECORDED / "cloudflared-rate-limited.txt", tmp_path / "start-1.txt")
    code, seen = await play(script=nothing, **tunneled)
    assert code == 3
    assert [type(event) for event in seen] == [GaveUp]
    assert "wait a few minutes" in seen[0].text


@pytest.mark.anyio
async def test_a_program_that_is_not_there_is_named() -> None:
    options = DevOptions(tunnel="ngrok", receiver=STAND_IN)
    code, seen = await play(options, nothing, which=lambda name: None)
    assert code == 3
    assert "ngrok is not installed" in seen[0].text


@pytest.mark.anyio
async def test_ssh_without_a_destination_is_a_usage_error() -> None:
    code, seen = await play(DevOptions(tunnel="ssh", receiver=STAND_IN), nothing)
    assert code == 2
    assert "--ssh-destination" in seen[0].text


@pytest.mark.anyio
async def test_without_a_tunnel_only_this_machine_reaches_it() -> None:
    async def script(run: Run) -> None:
        alone = await run.next(LoopbackOnly)
        ready = await run.next(Ready)
        assert ready.public_url == ready.url == alone.url
        assert ready.tunnel is None
        assert "simulator" in alone.text
        end(signal.SIGHUP)

    assert (await play(standing_in(), script))[0] == 0


@pytest.mark.anyio
async def test_a_public_url_of_ones_own_is_checked_and_taken(tunneled: Mapping[str, Any]) -> None:
    async def script(run: Run) -> None:
        assert (await run.next(Ready)).public_url == FIRST
        end()

    options = replace(tunneled["options"], tunnel=None)
    environ = {"PATH": os.environ["PATH"], "REELHOOK_PUBLIC_URL": f"{FIRST}/"}
    code, seen = await play(options, script, client=tunneled["client"], environ=environ)
    assert code == 0
    assert LoopbackOnly not in {type(event) for event in seen}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "env", "words"),
    [
        (FIRST, {"STAND_IN_OTHER": "1"}, "not as this receiver"),
        ("https://elsewhere.example", {}, "does not resolve"),
    ],
)
async def test_a_public_url_that_does_not_lead_here_is_refused(
    tunneled: Mapping[str, Any], url: str, env: Mapping[str, str], words: str
) -> None:
    given = {"tunnel": None, "receiver_env": env, "check_timeout_s": 0}
    options = replace(tunneled["options"], **given)
    environ = {"PATH": os.environ["PATH"], "REELHOOK_PUBLIC_URL": url}
    code, seen = await play(options, nothing, client=tunneled["client"], environ=environ)
    assert code == 3
    assert isinstance(seen[-1], GaveUp)
    assert words in seen[-1].text


@pytest.mark.anyio
async def test_the_check_can_be_left_out() -> None:
    async def script(run: Run) -> None:
        assert (await run.next(Ready)).public_url == "https://elsewhere.example"
        end()

    options = standing_in(check=False)
    environ = {"PATH": os.environ["PATH"], "REELHOOK_PUBLIC_URL": "https://elsewhere.example"}
    code, seen = await play(options, script, environ=environ)
    assert code == 0
    assert Checking not in {type(event) for event in seen}


@pytest.mark.anyio
async def test_a_receiver_that_dies_is_started_again() -> None:
    async def script(run: Run) -> None:
        await run.next(Ready)
        receiver = await run.pid_of_receiver()
        os.kill(receiver, signal.SIGKILL)
        lost = await run.next(ReceiverLost)
        assert lost.text.startswith("The receiver ended with exit code -9. It is started again")
        await run.next(Ready)
        end()

    assert (await play(standing_in(), script))[0] == 0


@pytest.mark.anyio
async def test_a_receiver_that_keeps_dying_is_given_up() -> None:
    options = DevOptions(receiver=STAND_IN, receiver_env={"STAND_IN_EXIT": "1"})
    code, seen = await play(options, nothing)
    assert code == 3
    assert [type(event) for event in seen].count(ReceiverSays) == flow.QUICK_FAILURES
    assert [e.retry_in_s for e in seen if isinstance(e, ReceiverLost)] == [1, 2, 4]
    assert seen[-1] == GaveUp("The receiver ended with exit code 1 before it was ready.")


@pytest.mark.anyio
async def test_a_receiver_that_says_it_can_not_start_is_believed() -> None:
    options = DevOptions(receiver=STAND_IN, receiver_env={"STAND_IN_EXIT": "3"})
    code, seen = await play(options, nothing)
    assert code == 3
    assert [type(event) for event in seen] == [LoopbackOnly, ReceiverSays, GaveUp]


@pytest.mark.anyio
async def test_a_receiver_that_never_gets_ready_is_given_up() -> None:
    options = DevOptions(receiver=("sleep", "600"), ready_timeout_s=0.1)
    code, seen = await play(options, nothing, clock=iter(range(0, 10_000, 100)).__next__)
    assert code == 3
    assert seen[-1] == GaveUp("The receiver was not ready within 0.1 s.")


@pytest.mark.anyio
async def test_the_url_that_moved_is_asked_again_until_it_leads_here(
    tunneled: Mapping[str, Any],
) -> None:
    async def script(run: Run) -> None:
        tunnel = await run.next(TunnelOpened)
        await run.next(Ready)
        os.kill(tunnel.pid, signal.SIGKILL)
        found = await run.next(NotReached)
        assert found == NotReached(Unreachable(SECOND, "dns"))
        assert SECOND in found.text
        end()

    def client() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=OnlyFirst(options.port), timeout=LIMIT_S)

    class OnlyFirst(Internet):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.host == httpx.URL(SECOND).host:
                raise httpx.ConnectError("no") from socket.gaierror(-2, "no such name")
            return await super().handle_async_request(request)

    options = replace(tunneled["options"], check_timeout_s=0.1)
    assert (await play(options, script, which=tunneled["which"], client=client))[0] == 0


PROGRAM = """
import anyio, functools, json, sys
from submitter.dev import DevOptions, Ready, dev
options = DevOptions(receiver=sys.argv[2:], port=int(sys.argv[1]))
def tell(event):
    if isinstance(event, Ready):
        sys.stdout.write(json.dumps(event.as_json()) + "\\n"); sys.stdout.flush()
    else:
        sys.stderr.write(event.text + "\\n"); sys.stderr.flush()
sys.exit(anyio.run(functools.partial(dev, options, notify=tell)))
"""


@asynccontextmanager
async def command() -> AsyncIterator[Child]:
    argv = [sys.executable, "-c", PROGRAM, str(held_port()), *STAND_IN]
    async with Child.start(argv, name="dev", merged=True) as child:
        yield child


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_the_command_with_its_children(number: signal.Signals) -> None:
    with anyio.fail_after(LIMIT_S):
        async with command() as child:
            said, ready = "", dict[str, Any]()
            while not (said and ready):  # they come in any order
                line = await anext(child.lines)
                said = line if line.startswith("stand-in ") else said
                ready = json.loads(line) if line.startswith("{") else ready
            os.kill(child.pid, number)
            assert await child.wait() == 0
    assert gone(int(said.removeprefix("stand-in ")))
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", httpx.URL(ready["url"]).port or 0)).close()


@pytest.mark.anyio
async def test_a_child_ends_with_all_it_has_started() -> None:
    script = "sleep 600 & echo $!; wait"
    with anyio.fail_after(LIMIT_S):
        async with Child.start(["sh", "-c", script], name="sh") as child:
            pid = int(await anext(child.lines))
    assert gone(pid)
    assert child.returncode == -signal.SIGTERM


@pytest.mark.anyio
async def test_a_child_that_will_not_end_is_killed() -> None:
    script = "trap '' TERM; echo go; while :; do sleep 600; done"
    with anyio.fail_after(LIMIT_S):
        async with Child.start(["sh", "-c", script], name="sh", grace_s=0.1) as child:
            assert await anext(child.lines) == "go"
    assert child.returncode == -signal.SIGKILL


@pytest.mark.anyio
async def test_a_child_ends_when_its_block_is_canceled() -> None:
    with anyio.fail_after(LIMIT_S), anyio.CancelScope() as scope:
        async with Child.start(["sleep", "600"], name="sleep") as child:
            scope.cancel()
            await anyio.sleep_forever()
    assert child.returncode == -signal.SIGTERM


class Counted(subprocess.Popen[bytes]):
    """Processes as asyncio starts them, remembered."""

    started: ClassVar[list[Counted]] = []

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.started.append(self)


@pytest.mark.anyio
async def test_a_child_ends_however_early_its_block_is_canceled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Starting one takes some turns of the loop; after each of them somebody may end it all."""
    monkeypatch.setattr(subprocess, "Popen", Counted)
    monkeypatch.setattr(Counted, "started", [])
    for turns in range(12):
        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as group:
                group.start_soon(_canceling, group.cancel_scope, turns)
                async with Child.start(["sleep", "600"], name="sleep"):
                    await anyio.sleep_forever()
    assert 0 < len(Counted.started) < 12  # so both before and after the start, and amid it
    assert {process.returncode for process in Counted.started} == {-signal.SIGTERM}
    Counted.started.clear()
    gc.collect()  # what was left open says so, and what says so fails the test


async def _canceling(scope: anyio.CancelScope, turns: int) -> None:
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    scope.cancel()


@pytest.mark.anyio
async def test_what_the_block_raises_is_raised_as_it_is() -> None:
    with anyio.fail_after(LIMIT_S), pytest.raises(LookupError, match="mine"):
        async with Child.start(["sleep", "600"], name="sleep"):
            raise LookupError("mine")


@pytest.mark.anyio
async def test_a_child_that_fails_carries_its_last_words() -> None:
    script = "echo out; echo err >&2; printf more >&2; exit 4"
    heard: list[str] = []
    with anyio.fail_after(LIMIT_S), pytest.raises(ChildFailed) as failed:
        async with Child.start(["sh", "-c", script], name="it", on_stderr=heard.append) as child:
            await child.ready(LIMIT_S)
    assert failed.value.returncode == 4
    assert failed.value.stderr == ("err", "more") == tuple(heard)
    assert str(failed.value) == "it ended with exit code 4 before it was ready.\nerr\nmore"


@pytest.mark.anyio
async def test_a_program_that_can_not_be_started() -> None:
    with pytest.raises(ChildFailed, match="it can't be started: No such file"):
        async with Child.start(["/no/such/program"], name="it"):
            pytest.fail("it started")


@pytest.mark.anyio
async def test_of_lines_that_nobody_reads_the_latest_are_kept() -> None:
    lines = Lines()
    for number in range(1_500):
        lines.put(str(number))
    lines.close()
    kept = [line async for line in lines]
    assert (kept[0], kept[-1]) == ("500", "1499")


@pytest.mark.anyio
async def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    script = "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end"
    with anyio.fail_after(LIMIT_S):
        async with Child.start(["sh", "-c", script], name="sh") as child:
            lines = [line async for line in child.lines]
    assert len(lines) == 2
    assert len(lines[0]) <= 2 * 65_536
    assert lines[1] == "end"


def test_a_port_that_is_taken_is_not_preferred() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        other = free_port(prefer=(number,))
    assert other != number
    assert free_port(prefer=(other,)) == other


@pytest.mark.anyio
async def test_the_first_to_end_wins_and_the_others_are_canceled() -> None:
    async def one() -> int:
        return 1

    async def never() -> int:
        await anyio.sleep_forever()
        return 2

    assert await first_of(never, one) == 1


def test_importing_the_flow_imports_no_command_line() -> None:
    assert "typer" not in vars(flow)

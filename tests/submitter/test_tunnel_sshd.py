"""`ssh -R` against a real sshd on loopback, with keys made for the test."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio
import httpx
import pytest
from anyio.abc import ObjectReceiveStream

from receiver.client import Client, TaskSpec
from scripts.proofs.ports import held_port
from submitter.dev import DevOptions, dev, first_of
from submitter.notices import Event, Ready, TunnelOpened
from submitter.processes import Child
from submitter.tunnel import (
    Program,
    Ssh,
    TunnelFailed,
    check_from_outside,
    opened,
)

pytestmark = [pytest.mark.sshd, pytest.mark.process]

T = TypeVar("T")

STAND_IN = Path(__file__).parent / "recorded" / "receiver.py"
LIMIT_S = 30.0

CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def sshd_or_skip() -> str:
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found and shutil.which("ssh") and shutil.which("ssh-keygen"):
        return found
    reason = "OpenSSH's server is not installed: apt-get install openssh-server"
    if os.environ.get("REELHOOK_CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Server:
    port: int
    folder: Path

    def ssh(self, public_url: str | None, remote_port: int | None = None, bind: str = "") -> Ssh:
        options = (
            "-F none",
            f"-p {self.port}",
            f"-i {self.folder}/key",
            f"-o UserKnownHostsFile={self.folder}/known_hosts",
        )
        return Ssh(f"{getpass.getuser()}@127.0.0.1", public_url, remote_port, bind, options)

    def program(
        self, public_url: str | None, remote_port: int | None = None, bind: str = ""
    ) -> Program:
        return Program("ssh", shutil.which("ssh") or "ssh", self.ssh(public_url, remote_port, bind))


def make_key(path: Path) -> str:
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(keygen, check=True)
    return path.with_suffix(".pub").read_text(encoding="utf-8")


def furnish(folder: Path, port: int, more: str) -> None:
    host_key = make_key(folder / "host_key").split()[:2]
    (folder / "authorized_keys").write_text(make_key(folder / "key"), encoding="utf-8")
    known = f"[127.0.0.1]:{port} {' '.join(host_key)}\n"
    (folder / "known_hosts").write_text(known, encoding="utf-8")
    config = CONFIG.format(port=port, folder=folder) + more
    (folder / "config").write_text(config, encoding="utf-8")
    if os.geteuid() == 0:  # sshd of root wants the folder that its service would have made.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)


@asynccontextmanager
async def sshd(folder: Path, more: str = "") -> AsyncIterator[Server]:
    program, port = sshd_or_skip(), held_port()
    furnish(folder, port, more)
    argv = [program, "-D", "-e", "-f", f"{folder}/config"]
    async with Child.start(argv, name="sshd", merged=True, grace_s=2) as server:
        async for line in server.lines:
            if line.startswith("Server listening"):
                break
        else:
            pytest.fail("sshd did not start")
        yield Server(port, folder)


@asynccontextmanager
async def stand_in(port: int) -> AsyncIterator[str]:
    env = {**os.environ, "PORT": str(port), "REELHOOK_ADMIN_PORT": str(held_port())}
    async with Child.start([sys.executable, str(STAND_IN)], name="stand-in", env=env) as child:
        yield str((await child.ready(LIMIT_S))["instance"])


@pytest.mark.anyio
@pytest.mark.parametrize("fixed", [False, True])
async def test_the_receiver_is_reached_through_the_port_that_the_server_opened(
    tmp_path: Path, fixed: bool
) -> None:
    port, remote_port = held_port(), held_port() if fixed else 0
    with anyio.fail_after(LIMIT_S):
        async with (
            sshd(tmp_path) as server,
            stand_in(port) as instance,
            opened(
                server.program("http://127.0.0.1:{port}", remote_port, "127.0.0.1"),
                port,
                environ=os.environ,
            ) as tunnel,
            httpx.AsyncClient(trust_env=False) as client,
        ):
            assert tunnel.url != f"http://127.0.0.1:{port}"
            assert not fixed or tunnel.url.endswith(f":{remote_port}")
            assert await check_from_outside(tunnel.url, instance, client=client) is None


@pytest.mark.anyio
async def test_a_server_that_forwards_nothing_is_named_as_the_reason(tmp_path: Path) -> None:
    async with sshd(tmp_path, "AllowTcpForwarding no\n") as server:
        program = server.program("http://127.0.0.1:{port}")
        with anyio.fail_after(LIMIT_S), pytest.raises(TunnelFailed, match="AllowTcpForwarding"):
            async with opened(program, 8000, environ=os.environ):
                pytest.fail("it opened")


@pytest.mark.anyio
async def test_a_key_that_the_server_does_not_know_is_named_as_the_reason(tmp_path: Path) -> None:
    async with sshd(tmp_path) as server:
        (tmp_path / "authorized_keys").write_text("", encoding="utf-8")
        program = server.program("http://127.0.0.1:{port}")
        with anyio.fail_after(LIMIT_S), pytest.raises(TunnelFailed, match="none of your keys"):
            async with opened(program, 8000, environ=os.environ):
                pytest.fail("it opened")


@pytest.mark.anyio
async def test_a_server_that_prints_no_url_is_told_from_one_that_does(tmp_path: Path) -> None:
    async with sshd(tmp_path, "ForceCommand true\n") as server:
        program = server.program(None, 0)
        with anyio.fail_after(LIMIT_S), pytest.raises(TunnelFailed, match="--ssh-public-url"):
            async with opened(program, 8000, environ=os.environ):
                pytest.fail("it opened")


@pytest.mark.anyio
async def test_a_server_that_prints_its_url_is_heard(tmp_path: Path) -> None:
    printed = tmp_path / "banner"
    recorded = STAND_IN.with_name("localhost-run.txt").read_text(encoding="utf-8")
    printed.write_text(recorded, encoding="utf-8")
    async with sshd(tmp_path, f"ForceCommand cat {printed}\n") as server:
        with anyio.fail_after(LIMIT_S):
            async with opened(server.program(None, 0), 8000, environ=os.environ) as tunnel:
                assert tunnel.url == "https://5afe0123456789.lhr.life"


@pytest.mark.anyio
async def test_dev_is_ready_through_ssh_and_again_after_the_connection_is_lost(
    tmp_path: Path,
) -> None:
    send, events = anyio.create_memory_object_stream[Event](1_000)

    async def watch() -> int:
        tunnel = await next_of(TunnelOpened, events)
        first = await next_of(Ready, events)
        os.kill(tunnel.pid, signal.SIGKILL)
        second = await next_of(Ready, events)
        assert first.public_url != second.public_url
        return 0

    with anyio.fail_after(LIMIT_S), send, events:
        async with sshd(tmp_path) as server:
            options = DevOptions(
                tunnel="ssh",
                ssh=server.ssh("http://127.0.0.1:{port}", 0, "127.0.0.1"),
                receiver=[sys.executable, str(STAND_IN)],
                port=held_port(),
                admin_port=held_port(),
            )
            await first_of(lambda: dev(options, notify=send.send_nowait), watch)


@pytest.mark.anyio
async def test_the_real_receiver_takes_callbacks_through_ssh_and_shows_nothing_else(
    tmp_path: Path,
) -> None:
    send, events = anyio.create_memory_object_stream[Event](1_000)
    task_id = "24cd5dff-cb81-4db5-8506-b72a9425f9d1"
    body = {"data": [{"taskUUID": task_id, "videoUUID": "v", "videoURL": "https://v.mp4"}]}

    async def use() -> int:
        ready = await next_of(Ready, events)
        token = json.loads((tmp_path / "data" / "local.json").read_text())["admin_token"]
        outside = httpx.AsyncClient(trust_env=False, base_url=ready.public_url)
        async with outside, Client(ready.admin_url, token) as ledger:
            spec = TaskSpec(platform="runware", expected=1)
            task = await ledger.register_task(task_id, spec)
            assert task.webhook_url.startswith(f"{ready.public_url}/webhooks/runware?sig=")
            assert (await outside.post(task.webhook_url, json=body)).status_code == 200
            bearer = {"authorization": f"Bearer {token}"}
            hidden = await outside.get(f"/v1/tasks/{task_id}", headers=bearer)
            assert hidden.status_code == 404
            found = await ledger.task(task_id)
            assert found is not None
            assert found.complete
        return 0

    with anyio.fail_after(LIMIT_S), send, events:
        async with sshd(tmp_path) as server:
            options = DevOptions(
                tunnel="ssh",
                ssh=server.ssh("http://127.0.0.1:{port}", 0, "127.0.0.1"),
                port=held_port(),
                admin_port=held_port(),
                data_dir=str(tmp_path / "data"),
            )
            await first_of(lambda: dev(options, notify=send.send_nowait), use)


async def next_of(kind: type[T], events: ObjectReceiveStream[Event]) -> T:
    async for event in events:
        if isinstance(event, kind):
            return event
    pytest.fail("it ended")

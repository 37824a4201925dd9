"""The Procfiles as a hosting platform runs them: honcho, a PORT, and a SIGTERM at the end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from receiver.client import Client
from receiver.endpoints import EndpointSpec
from scripts.proofs.ports import held_port
from tests.flows.sink import Sink
from tests.flows.test_spine import all_complete, register, simulator, submit
from tests.postgres import Server

ROOT: Final = Path(__file__).parents[1]
SQLITE: Final = ROOT / "deploy" / "Procfile.sqlite"
POSTGRES: Final = ROOT / "Procfile"
COULD_NOT_START: Final = 3
NEEDED: Final = {
    "REELHOOK_PUBLIC_URL": "https://hooks.example.com",
    "REELHOOK_SIGNING_KEYS": "a-key-that-only-this-test-has-0123456789",
    "REELHOOK_ADMIN_TOKEN": "a-token-that-only-this-test-has-0123456789",
}

pytestmark = pytest.mark.process


@contextmanager
def honcho(
    folder: Path, environment: Mapping[str, str], *processes: str, procfile: Path = SQLITE
) -> Iterator[subprocess.Popen[str]]:
    """`honcho start` over a Procfile of ours; ended by force if the test did not."""
    empty = folder / "empty.env"
    empty.touch()
    command = [
        *(sys.executable, "-m", "honcho", "--no-colour"),
        *("--env", str(empty), "--procfile", str(procfile), "--app-root", str(folder)),
        *("start", *processes),
    ]
    scripts = Path(sys.executable).parent
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment, "PATH": path, "REELHOOK_DATA_DIR": str(folder / "data")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(process: subprocess.Popen[str], words: str) -> str:
    """What it says, up to the line with these words; to the end if it never says them."""
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(line)
        if words in line:
            break
    return "".join(told)


def test_web_answers_on_the_platforms_port_and_stops_when_told(tmp_path: Path) -> None:
    port = held_port()
    with honcho(tmp_path, {**NEEDED, "RENDER": "true", "PORT": str(port)}, "web") as process:
        assert '"event": "ready"' in until(process, '"event": "ready"')

        answer = httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)

    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert "Traceback" not in rest
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)


def test_web_refuses_a_disk_that_is_wiped(tmp_path: Path) -> None:
    environment = {**NEEDED, "DYNO": "web.1", "PORT": str(held_port())}
    with honcho(tmp_path, environment, "web") as process:
        told, _ = process.communicate(timeout=30)

    assert process.returncode == COULD_NOT_START
    assert "Heroku wipes its disk at every restart" in told
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("missing", sorted(NEEDED))
def test_web_names_the_setting_that_is_missing(tmp_path: Path, missing: str) -> None:
    given = {name: value for name, value in NEEDED.items() if name != missing}
    environment = {**given, "RENDER": "true", "PORT": str(held_port())}
    with honcho(tmp_path, environment, "web") as process:
        told, _ = process.communicate(timeout=30)

    assert process.returncode == COULD_NOT_START
    assert f"{missing} is not set" in told


def stopped(process: subprocess.Popen[str]) -> str:
    """What is said from the SIGTERM to the end."""
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=30)
    assert "Traceback" not in rest
    return rest


async def due_task(client: Client, simulator_url: str) -> str:
    """A task that the simulator has and calls nobody about, due."""
    task_id, webhook = await register(client, 1)
    await submit(simulator_url, task_id, webhook, 1, "pixverse:1@2")
    await client.reconcile_task(task_id)
    return task_id


@pytest.mark.anyio
@pytest.mark.parametrize("hosted", [False, True], ids=["on loopback", "hosted"])
async def test_the_reconciler_finds_the_receiver_beside_it(tmp_path: Path, hosted: bool) -> None:
    """Each process has a PORT of its own; the receiver's address is in the data directory."""
    port = held_port()
    async with asyncio.timeout(60), simulator("--drop", "1", "--delay-s", "0") as url:
        environment = {
            "PORT": str(port),
            "RUNWARE_API_KEY": "any",
            "RUNWARE_BASE_URL": f"{url}/v1",
        }
        if hosted:
            public = {"REELHOOK_PUBLIC_URL": f"http://127.0.0.1:{port}", "RENDER": "true"}
            environment |= {**NEEDED, **public}
        with honcho(tmp_path, environment) as process:
            until(process, '"event": "ready"')
            kept = json.loads((tmp_path / "data" / "local.json").read_text())
            assert kept["url"] == f"http://127.0.0.1:{port}"
            assert ("signing_keys" in kept) != hosted  # what is set needs no copy
            token = NEEDED["REELHOOK_ADMIN_TOKEN"] if hosted else kept["admin_token"]
            async with Client(kept["url"], token) as client:
                task_id = await due_task(client, url)
                await all_complete(client, [task_id])
            assert f"{task_id}  posted" in until(process, f"{task_id}  posted")
            stopped(process)


def test_without_a_platforms_key_web_runs_on(tmp_path: Path) -> None:
    port = held_port()
    with honcho(tmp_path, {"PORT": str(port)}) as process:
        told = until(process, "RUNWARE_API_KEY is not set")
        if '"event": "ready"' not in told:
            until(process, '"event": "ready"')
        # A runner that had seen one of its processes end would be ending the other by now.
        answer = httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
        assert answer.status_code == 200
        assert process.poll() is None
        rest = stopped(process)
    assert "RUNWARE_API_KEY" not in rest
    assert "reconciler.1 stopped" in rest


@pytest.mark.anyio
async def test_the_four_processes_do_the_work_over_one_postgresql(
    tmp_path: Path, postgres: Server
) -> None:
    """`release` first, which ends by itself; then one result by callback and one by a poll."""
    port = held_port(100)  # honcho gives the worker the one that is 100 above web's
    async with (
        asyncio.timeout(60),
        Sink.open() as sink,
        simulator("--drop", "0.5", "--delay-s", "0", "--seed", "1") as url,
    ):
        environment = {
            **NEEDED,
            "PORT": str(port),
            "DATABASE_URL": postgres.empty(),
            "REELHOOK_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
            "RUNWARE_API_KEY": "any",
            "RUNWARE_BASE_URL": f"{url}/v1",
        }
        with honcho(tmp_path, environment, "release", procfile=POSTGRES) as release:
            told, _ = release.communicate(timeout=30)
            assert release.returncode == 0, told
            assert "is up to date" in told
        roles = ("web", "worker", "reconciler")
        with honcho(tmp_path, environment, *roles, procfile=POSTGRES) as process:
            until(process, '"public_url"')
            token = NEEDED["REELHOOK_ADMIN_TOKEN"]
            async with Client(f"http://127.0.0.1:{port}", token) as client:
                sink.secret = (await client.add_endpoint(EndpointSpec(url=sink.url))).secret or ""
                tasks = [await due_task(client, url) for _ in range(4)]
                await all_complete(client, tasks)
            await sink.until(2 * len(tasks))
            rest = stopped(process)
    assert not sink.refused
    assert "posted" in rest
    assert all(f"{role}.1 stopped" in rest for role in roles)


def test_the_roles_of_postgresql_refuse_sqlite(tmp_path: Path) -> None:
    environment = {"PORT": str(held_port())}
    with honcho(tmp_path, environment, "web", "worker", procfile=POSTGRES) as process:
        told, _ = process.communicate(timeout=30)

    assert process.returncode == COULD_NOT_START
    assert "`reelhook serve` does the work of all of them" in told
    assert "DATABASE_URL" in told

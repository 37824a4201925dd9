"""The reconciler of `reelhook dev`: there when a platform can be asked, and started again."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from receiver.client import Client
from scripts.proofs.ports import held_port
from submitter.dev import DevOptions
from submitter.notices import Ready, ReconcilerLost, ReconcilerSays
from tests.flows.test_spine import all_complete, register, simulator, submit
from tests.submitter.test_dev import Run, end, gone, play, standing_in

pytestmark = [pytest.mark.anyio, pytest.mark.process]

# Tells its number and what it was given.
RECONCILER = ("sh", "-c", 'echo "$$ $REELHOOK_URL $RUNWARE_API_KEY"; exec sleep 600')


def environ(**given: str) -> dict[str, Any]:
    return {"environ": {"PATH": os.environ["PATH"], **given}}


def options(**given: Any) -> DevOptions:
    return standing_in(reconciler=RECONCILER, **given)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"RUNWARE_API_KEY": "rw-key"}, "rw-key"),
        ({"RUNWARE_BASE_URL": "http://127.0.0.1:8100/v1"}, "any"),
        ({"RUNWARE_BASE_URL": "http://localhost:8100/v1", "RUNWARE_API_KEY": "mine"}, "mine"),
    ],
)
async def test_it_runs_when_a_platform_can_be_asked(given: Mapping[str, str], key: str) -> None:
    pids = []

    async def script(run: Run) -> None:
        ready = await run.next(Ready)
        pid, url, found = (await run.next(ReconcilerSays)).line.split()
        pids.append(int(pid))
        assert (url, found) == (ready.admin_url, key)
        end()

    elsewhere = {"REELHOOK_URL": "https://elsewhere.example"}
    assert (await play(options(), script, **environ(**given, **elsewhere)))[0] == 0
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize(
    "given", [{}, {"RUNWARE_API_KEY": ""}, {"RUNWARE_BASE_URL": "https://api.runware.ai/v1"}]
)
async def test_it_does_not_run_when_nothing_can_be_asked(given: Mapping[str, str]) -> None:
    async def script(run: Run) -> None:
        await run.next(Ready)
        end()

    _, seen = await play(options(), script, **environ(**given))
    assert ReconcilerSays not in {type(event) for event in seen}


async def test_one_that_ends_is_started_again() -> None:
    async def script(run: Run) -> None:
        pid = (await run.next(ReconcilerSays)).line.split()[0]
        os.kill(int(pid), signal.SIGKILL)
        lost = await run.next(ReconcilerLost)
        assert lost.text.startswith("The reconciler ended with exit code -9. It is started again")
        assert (await run.next(ReconcilerSays)).line.split()[0] != pid
        end()

    assert (await play(options(), script, **environ(RUNWARE_API_KEY="rw-key")))[0] == 0


async def test_what_is_lost_on_the_way_is_fetched(tmp_path: Path) -> None:
    """With the real receiver, the real reconciler and the simulator."""
    async with simulator("--drop", "1", "--delay-s", "0") as url:

        async def script(run: Run) -> None:
            ready = await run.next(Ready)
            token = json.loads((tmp_path / "local.json").read_text())["admin_token"]
            async with Client(ready.admin_url, token) as client:
                task_id, webhook = await register(client, 1)
                await submit(url, task_id, webhook, 1, "pixverse:1@2")
                await client.reconcile_task(task_id)
                await all_complete(client, [task_id])
            said = await run.next(ReconcilerSays)
            assert said.text == f"Reconciler: {task_id}  posted"
            end()

        real = DevOptions(
            port=held_port(), admin_port=held_port(), data_dir=str(tmp_path), check=False
        )
        given = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        code, _ = await play(real, script, **environ(RUNWARE_BASE_URL=f"{url}/v1", **given))
    assert code == 0

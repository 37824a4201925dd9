"""The README's examples, run as they are written, against a real receiver and the simulator."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
import types
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner

from receiver.cli import whole
from receiver.client import Client, EndpointSpec
from receiver.delivery.signing import new_secret, sign
from scripts.proofs.ports import held_port
from submitter.processes import Child
from tests.doubles import LIMIT_S
from tests.flows.test_spine import ADMIN, receiver, simulator

pytestmark = [pytest.mark.anyio, pytest.mark.process]

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SECRET = new_secret(bytes(range(32)))


def example(name: str) -> str:
    """A code block of the README by the comment above it."""
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found, f"README has no example {name}"
    return found[1]


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Mapping[str, str]]:
    """A receiver and a simulator, and the environment in which the examples find them."""
    async with receiver(folder, port := held_port()), simulator("--delay-s", "0.1") as url:
        yield {
            **os.environ,
            "REELHOOK_URL": f"http://127.0.0.1:{port}",
            "REELHOOK_ADMIN_TOKEN": ADMIN,
            "REELHOOK_SECRET": SECRET,
            "RUNWARE_BASE_URL": f"{url}/v1",
            "RUNWARE_API_KEY": "any",
        }


def delivery(body: bytes) -> dict[str, str]:
    """The headers of a delivery signed just now."""
    now = int(time.time())
    signature = sign([SECRET], event_id="evt_1", timestamp=now, body=body)
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": signature,
        "content-type": "application/json",
    }


def load(name: str, env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run an example as a module whose environment is `env`."""
    for variable, value in env.items():
        monkeypatch.setenv(variable, value)
    module = types.ModuleType(f"readme_{name}")
    exec(compile(example(name), f"README:{name}", "exec"), module.__dict__)
    return module.__dict__


def test_the_consumer_is_twenty_lines_and_answers_as_it_should() -> None:
    code = example("consumer")
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 22
    port = held_port()
    env = {**os.environ, "PORT": str(port), "REELHOOK_SECRET": SECRET}
    body = b'{"type":"result.succeeded","data":{"task":{"id":"t1"}}}'
    with subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        with httpx.Client(
            transport=httpx.HTTPTransport(retries=8), trust_env=False, timeout=LIMIT_S
        ) as http:
            good = http.post(f"http://127.0.0.1:{port}/", content=body, headers=delivery(body))
            again = http.post(f"http://127.0.0.1:{port}/", content=body, headers=delivery(body))
            bad = http.post(f"http://127.0.0.1:{port}/", content=b"{}", headers=delivery(body))
        process.terminate()
        told = process.communicate(timeout=LIMIT_S)[0]
    assert (good.status_code, again.status_code, bad.status_code) == (204, 204, 400)
    assert told == b"result.succeeded t1\n"


def test_the_file_of_tasks_has_nothing_to_object_to() -> None:
    found = re.search(r"cat > tasks\.jsonl <<'END'\n(.*?)END\n", README, re.DOTALL)
    assert found
    told = CliRunner().invoke(whole(), ["validate", "--file", "-"], input=found[1])
    assert (told.exit_code, told.output) == (0, "Nothing to object.\n")


async def test_the_script_prints_its_results(tmp_path: Path) -> None:
    async with asyncio.timeout(60), stage(tmp_path) as env:
        argv = [sys.executable, "-c", example("script")]
        async with Child.start(argv, name="script", env=env) as child:
            told = [line async for line in child.lines]
            assert await child.wait() == 0
    assert len(told) == 3
    assert all(" succeeded http" in line for line in told[:2])
    assert told[2] == "succeeded"


async def test_the_batch_prints_an_id_a_task(tmp_path: Path) -> None:
    async with asyncio.timeout(60), stage(tmp_path) as env:
        argv = [sys.executable, "-c", example("batch")]
        async with Child.start(argv, name="batch", env=env) as child:
            told = [line async for line in child.lines]
            assert await child.wait() == 0
    assert len({str(UUID(line)) for line in told}) == 3


async def test_the_fastapi_app_submits_and_takes_deliveries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with asyncio.timeout(60), stage(tmp_path) as env:
        app = load("fastapi", env, monkeypatch)["app"]
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://app") as http,
            Client(env["REELHOOK_URL"], ADMIN) as ledger,
        ):
            asked = {"prompt": "a paper boat", "order": "7"}
            first = (await http.post("/videos", params=asked)).json()
            again = (await http.post("/videos", params=asked)).json()
            task = await ledger.task(first["task"])
            body = (
                b'{"type":"result.succeeded","data":{"task":{"metadata":{"order":"7"}},'
                b'"result":{"media":[{"url":"https://x/v.mp4"}]}}}'
            )
            good = await http.post("/hooks", content=body, headers=delivery(body))
            bad = await http.post("/hooks", content=body + b" ", headers=delivery(body))
            other = body.replace(b'"order":"7"', b"")  # of a task that another program submitted
            strange = await http.post("/hooks", content=other, headers=delivery(other))
    assert first == again
    assert task is not None
    assert task.metadata == {"order": "7"}
    assert (good.status_code, bad.status_code, strange.status_code) == (204, 400, 204)
    assert "7 https://x/v.mp4" in capsys.readouterr().out


async def test_the_flask_app_submits_and_takes_deliveries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asyncio.timeout(60), stage(tmp_path) as env:
        found = load("flask", env, monkeypatch)
        client = found["app"].test_client()

        def ask() -> tuple[int, int, str]:
            task = client.post("/videos", query_string={"prompt": "a paper boat"}).get_json()
            body = b'{"type":"result.succeeded"}'
            good = client.post("/hooks", data=body, headers=delivery(body))
            bad = client.post("/hooks", data=b"{}", headers=delivery(body))
            found["submitter"].close()
            return good.status_code, bad.status_code, str(task["task"])

        good, bad, task_id = await asyncio.to_thread(ask)
        async with Client(env["REELHOOK_URL"], ADMIN) as ledger:
            assert await ledger.task(task_id) is not None
    assert (good, bad) == (204, 400)


async def test_a_pasted_url_works_for_any_other_client(tmp_path: Path) -> None:
    async with asyncio.timeout(60), stage(tmp_path) as env:
        task_id = "24cd5dff-cb81-4db5-8506-b72a9425f9d1"
        argv = [sys.executable, "-m", "receiver", "url", task_id, "--platform", "runware"]
        argv += ["--results", "1", "--tag", "projectId=proj_789"]
        async with Child.start(argv, name="url", env=env) as child:
            (url,) = [line async for line in child.lines]
            assert await child.wait() == 0
        body = {"data": [{"taskUUID": task_id, "videoUUID": "b7db282d", "videoURL": "https://v"}]}
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(url, json=body)
        async with Client(env["REELHOOK_URL"], ADMIN) as ledger:
            await ledger.add_endpoint(EndpointSpec(url="http://127.0.0.1:9/hook"))
            task = await ledger.task(task_id)
    assert answer.json() == {"status": "recorded", "results": 1}
    assert task is not None
    assert task.complete

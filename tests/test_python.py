"""The fixtures that users' tests get, and docs/python.md, run and checked as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import httpx
import pytest

from receiver.client import Client
from receiver.testing import ReceiverInTest
from submitter.testing import ReelhookInTest, SimulatorInTest

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = (ROOT / "docs" / "python.md").read_text()
EXAMPLES: Final = dict(re.findall(r"<!-- example: (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
VIDEO: Final = {"positivePrompt": "a paper boat", "width": 1280, "height": 720, "duration": 5}
LIMIT_S: Final = 100

pytestmark = pytest.mark.process


def run(folder: Path, name: str, *before: str) -> subprocess.CompletedProcess[str]:
    """Run an example as a file of its own, in this test's environment."""
    file = folder / (name if name.endswith(".py") else f"{name}_example.py")
    file.write_text(EXAMPLES[name])
    return subprocess.run(
        [sys.executable, *before, str(file)],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_the_submitter_follows_its_results(reelhook: ReelhookInTest, tmp_path: Path) -> None:
    found = run(tmp_path, "submitter")
    assert found.returncode == 0, found.stderr
    task, *results, last = found.stdout.splitlines()
    assert [line.split()[1] for line in results] == ["succeeded", "succeeded"]
    assert last.startswith("succeeded ")
    (event,) = reelhook.receiver.events(event_type="task.completed")
    assert event.payload["data"]["task"]["metadata"] == {"order": "7"}
    assert run(tmp_path, "submitter").stdout.splitlines()[0] == task  # the same key


def test_the_blocking_one_submits_many(reelhook: ReelhookInTest, tmp_path: Path) -> None:
    found = run(tmp_path, "blocking")
    assert found.returncode == 0, found.stderr
    assert [line.split()[1] for line in found.stdout.splitlines()] == ["succeeded", "succeeded"]


def test_the_client_lists_and_tells_what_was_refused(
    reelhook: ReelhookInTest, tmp_path: Path
) -> None:
    found = run(tmp_path, "client")
    assert found.returncode == 0, found.stderr
    made, count, refused = found.stdout.splitlines()
    assert re.fullmatch(r"ep_\S+ True", made)
    assert (count, refused) == ("0", "404 not_found")


def test_a_users_tests_pass_with_the_fixtures_alone(tmp_path: Path) -> None:
    """In a session of its own, whose environment has a key that must not be used."""
    alone = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", ".")
    found = run(tmp_path, "test_videos.py", *alone)
    assert (found.returncode, "2 passed" in found.stdout) == (0, True), found.stdout


@pytest.mark.timeout(300)  # mypy reads all that the packages import
def test_the_examples_are_typed_for_those_who_import_us(tmp_path: Path) -> None:
    files = []
    for name, code in EXAMPLES.items():
        file = tmp_path / f"{name.removesuffix('.py')}_example.py"
        file.write_text(code)
        files.append(str(file))
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", *files]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_every_example_of_the_page_is_run() -> None:
    assert set(EXAMPLES) == {"submitter", "blocking", "client", "test_videos.py"}
    assert PAGE.count("```python") == len(EXAMPLES)


def test_the_fixtures_are_found_by_pytest() -> None:
    found = {entry.value for entry in entry_points(group="pytest11")}
    assert {"receiver.testing", "submitter.testing"} <= found


def test_asking_for_pytest_does_not_load_the_receiver(tmp_path: Path) -> None:
    """What every session of a user's environment pays."""
    code = (
        "import sys, receiver.testing, submitter.testing\n"
        "heavy = {'starlette', 'pydantic', 'aiohttp', 'httpx', 'uvicorn', 'anyio', 'sqlite3'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    # Uncounted by coverage, which has imports of its own.
    environ = {name: text for name, text in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-c", code]
    told = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert told.stdout == "[]\n"


def test_a_receiver_is_empty_and_this_tests_own(reelhook_receiver: ReceiverInTest) -> None:
    assert reelhook_receiver.events() == []
    assert reelhook_receiver.delivered() == []
    environ = reelhook_receiver.environ
    assert environ["REELHOOK_URL"] == reelhook_receiver.url
    assert environ["REELHOOK_ADMIN_TOKEN"] not in repr(reelhook_receiver)


class TestWithSettings:
    """What a fixture of the user's own changes."""

    @pytest.fixture
    def reelhook_settings(self) -> dict[str, str]:
        return {"REELHOOK_ADMIN_PORT": "0"}

    @pytest.fixture
    def reelhook_knobs(self) -> dict[str, object]:
        return {"failures": 1.0}

    def test_the_receiver_has_them(self, reelhook_receiver: ReceiverInTest) -> None:
        environ = reelhook_receiver.environ
        assert environ["REELHOOK_PUBLIC_URL"] != environ["REELHOOK_URL"]

    def test_the_simulator_has_them(self, reelhook: ReelhookInTest) -> None:
        with reelhook.blocking() as submitter:
            task = submitter.submit("pixverse:1@6", VIDEO)
            assert task.wait(timeout=20).failed == 1
        reelhook.simulator.turn(failures=0)
        with reelhook.blocking() as submitter:
            assert submitter.submit("pixverse:1@6", VIDEO).wait(timeout=20).failed == 0


def test_a_knob_that_is_none_is_refused(reelhook_simulator: SimulatorInTest) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        reelhook_simulator.turn(nonsense=1)


def test_deliveries_that_never_settle_are_not_waited_for(
    reelhook: ReelhookInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = reelhook.receiver.add_endpoint("http://127.0.0.1:9/")
    reelhook.receiver.ask(lambda client: client.move_endpoint(endpoint.id, "pause"))
    with reelhook.blocking() as submitter:
        submitter.submit("pixverse:1@6", VIDEO).wait(timeout=20)
    with pytest.raises(TimeoutError):
        reelhook.receiver.delivered(timeout=0.05)


def test_the_users_own_keys_are_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("RUNWARE_API_KEY", "a-real-one")
    monkeypatch.setenv("REELHOOK_PROJECT", "mine")
    request.getfixturevalue("reelhook")
    assert os.environ["RUNWARE_API_KEY"] == "of-the-simulator"
    assert "REELHOOK_PROJECT" not in os.environ


@pytest.mark.anyio
async def test_an_async_test_has_them_too(reelhook: ReelhookInTest) -> None:
    client: Client
    async with reelhook.submitter() as submitter, reelhook.receiver.client() as client:
        task = await submitter.submit("pixverse:1@6", VIDEO)
        assert (await task.wait(20)).complete
        found = await client.task(task.id)
    assert found is not None
    assert found.succeeded == 1


def test_what_nobody_calls_back_is_polled(reelhook: ReelhookInTest) -> None:
    with reelhook.blocking(platform="nanogpt") as submitter:
        task = submitter.submit("sora-2", {"prompt": "a paper boat", "seconds": "4"})
        until = time.monotonic() + LIMIT_S
        while not reelhook.receiver.events(task=task.id):  # it is due some seconds after its submit
            assert time.monotonic() < until
            reelhook.reconcile()
        assert task.wait(timeout=20).succeeded == 1

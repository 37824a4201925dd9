"""The submitter for code without a loop: scripts, threads, Flask."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import flask
import httpx
import pytest

from submitter import BlockingSubmitter
from submitter.errors import InvalidTask, MissingKey, WaitTimedOut
from tests.doubles import LIMIT_S, running
from tests.submitter.stage import (
    MODEL,
    PARAMETERS,
    PARTIAL,
    RECEIVER,
    a_key,
    command_environment,
    simulator_process,
)

pytestmark = pytest.mark.process

Environ = dict[str, str]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environ]:
    """Where a script finds the receiver and the simulator."""
    with (
        running(tmp_path_factory.mktemp("receiver"), **RECEIVER) as receiver,
        simulator_process("--delay-s", "0.05", "--spread-s", "0.05") as simulator,
    ):
        yield command_environment(receiver.ready["url"], simulator)


def portals() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if "portal" in thread.name}


def test_a_script_submits_and_takes_the_results(environ: Environ) -> None:
    with BlockingSubmitter.from_env(environ) as submitter:
        task = submitter.submit(PARTIAL, PARAMETERS, number_results=3, tags={"a": "b"})
        assert [found.code for found in task.warnings] == ["no_rules"]
        results = list(task.results())
        done = task.wait(LIMIT_S)
        again = submitter.resume(task.id)
        assert list(again.results()) == results
    assert [result.index for result in results] == [0, 1, 2]
    assert sorted(result.error is not None for result in results) == [False, False, True]
    assert {result.task_id for result in results} == {task.id}
    assert (done.id, done.status, done.tags) == (task.id, "partially_failed", {"a": "b"})


def test_one_submitter_serves_many_threads(environ: Environ) -> None:
    key = a_key()
    with (
        BlockingSubmitter.from_env(environ) as submitter,
        ThreadPoolExecutor(8) as threads,
    ):

        def submit(_number: int) -> str:
            task = submitter.submit(MODEL, PARAMETERS, idempotency_key=key)
            assert task.wait(LIMIT_S).succeeded == 1
            return task.id

        assert len(set(threads.map(submit, range(8)))) == 1


def test_a_flask_app_submits_from_its_views(environ: Environ) -> None:
    app = flask.Flask(__name__)

    with BlockingSubmitter.from_env(environ) as submitter:

        @app.post("/videos")
        def make() -> tuple[dict[str, str], int]:
            try:
                task = submitter.submit(MODEL, {**PARAMETERS, **flask.request.get_json()})
            except InvalidTask as error:
                return {"error": str(error)}, 422
            return {"task": task.id}, 202

        @app.get("/videos/<task_id>")
        def show(task_id: str) -> list[str | None]:
            found = submitter.resume(task_id).results()
            return [result.media[0].url for result in found]

        client = app.test_client()
        refused = client.post("/videos", json={"duration": 7})
        assert refused.status_code == 422
        assert "7" in refused.get_json()["error"]
        taken = client.post("/videos", json={"duration": 8})
        assert taken.status_code == 202
        (url,) = client.get(f"/videos/{taken.get_json()['task']}").get_json()
        assert httpx.get(url, trust_env=False).headers["content-type"] == "video/mp4"


def test_errors_come_through_as_they_are(environ: Environ) -> None:
    with BlockingSubmitter.from_env(environ) as submitter, pytest.raises(InvalidTask):
        submitter.submit(MODEL, {**PARAMETERS, "duration": 7})


def test_leaving_the_block_ends_the_loop(environ: Environ) -> None:
    before = portals()
    with BlockingSubmitter.from_env(environ):
        assert len(portals() - before) == 1
    assert portals() == before


def test_a_submitter_that_cannot_be_made_leaves_no_thread_behind(environ: Environ) -> None:
    before = portals()
    submitter = BlockingSubmitter.from_env({**environ, "RUNWARE_API_KEY": ""})
    with pytest.raises(MissingKey), submitter:
        raise AssertionError("it must not open")
    assert portals() == before


def test_it_can_be_opened_again(environ: Environ) -> None:
    submitter = BlockingSubmitter.from_env(environ)
    for _ in range(2):
        with submitter:
            assert submitter.submit(MODEL, PARAMETERS).wait(LIMIT_S).succeeded == 1


def test_waiting_in_vain_ends_with_its_time(environ: Environ) -> None:
    with (
        simulator_process("--drop", "1") as silent,
        BlockingSubmitter.from_env({**environ, "RUNWARE_BASE_URL": silent}) as submitter,
    ):
        task = submitter.submit(MODEL, PARAMETERS)
        with pytest.raises(WaitTimedOut) as caught:
            task.wait(0.05)
    assert (caught.value.task_id, caught.value.waited_s) == (task.id, 0.05)
